"""The ``crds`` client, set to the environment of the moment, used by one thread of one process at a time.

The client remembers its answers for the life of a process and reads ``CRDS_SERVER_URL`` only once; here it forgets them
when the environment, or a cache without a server, has changed. It also breaks when two processes fetch the same slow
file, so whatever may fetch goes through ``single_flight``.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

log = logging.getLogger(__name__)

OBSERVATORY = "jwst"
_ENVIRONMENT = ("CRDS_PATH", "CRDS_SERVER_URL", "CRDS_CONTEXT", "CRDS_MODE", "CRDS_READONLY_CACHE")
_SERVERLESS = "https://jwst-serverless-mode.stsci.edu"

_lock = threading.RLock()
_state: tuple | None = None
_flying = False
_catalog: Mapping[str, Mapping[str, str]] | None = None


class ReferenceCacheError(Exception):
    """The reference cache is missing, incomplete or damaged; the message says what to set or fetch."""


def cache_folder() -> Path:
    """The reference cache of this run: ``CRDS_PATH``, or where that is a URL the local copy of it.

    Raises
    ------
    ReferenceCacheError
        If it is not set, or holds no cache and no server is set that could fill it.
    """
    folder = os.environ.get("CRDS_PATH")
    if not folder:
        raise ReferenceCacheError(
            "CRDS_PATH is not set: set it to the folder of your reference cache, for example "
            "CRDS_PATH=$HOME/crds_cache (with CRDS_SERVER_URL=https://jwst-crds.stsci.edu it fills itself), or to a "
            "folder that `calweave references pack` wrote"
        )
    named = folder
    if "://" in folder:
        from infra.references.mirror import use_mirror

        folder = str(use_mirror(folder))
    path = Path(folder)
    if not has_server() and not (path / "config" / OBSERVATORY / "server_config").is_file():
        raise ReferenceCacheError(
            f"CRDS_PATH={named} is no reference cache: it has no config/{OBSERVATORY}/server_config; correct it, "
            "or set CRDS_SERVER_URL=https://jwst-crds.stsci.edu to fill the cache from the observatory"
        )
    return path


def has_server() -> bool:
    """Whether the environment names a server to fetch from."""
    url = os.environ.get("CRDS_SERVER_URL") or _SERVERLESS
    return "serverless" not in url and "server-less" not in url


@contextmanager
def crds_client() -> Iterator[ModuleType]:
    """The ``crds`` package, ready for the present environment; one thread at a time holds it."""
    global _state, _catalog
    with _lock:
        config = cache_folder() / "config" / OBSERVATORY / "server_config"
        # With a server the client rewrites server_config itself; without one somebody may have made the cache anew.
        made = None if has_server() else (config.stat().st_mtime_ns, config.stat().st_ino, config.stat().st_size)
        os.environ.setdefault("CRDS_SERVER_URL", _SERVERLESS)
        state = (tuple(os.environ.get(name) for name in _ENVIRONMENT), made)

        import crds  # slow, and not before CRDS_SERVER_URL is known

        if state != _state:
            crds.core.log.remove_console_handler()
            logging.getLogger("CRDS").propagate = True
            logging.getLogger("CRDS").addFilter(_is_no_error)
            crds.core.utils.clear_function_caches()
            crds.core.config.CRDS_REF_SUBDIR_MODE = "None"  # its way to say that it has not looked yet
            crds.client.api.set_crds_server(os.environ["CRDS_SERVER_URL"])
            _state, _catalog = state, None
        yield crds


def client_state() -> tuple | None:
    """Another value whenever the client has forgotten what it knew: for what is remembered of its answers elsewhere."""
    return _state


def _is_no_error(record: logging.LogRecord) -> bool:
    """The client logs, over many lines, the errors that it raises as well."""
    return record.levelno != logging.ERROR


def context_name(context: str | None = None) -> str:
    """The name of the context in use: ``context``, else ``CRDS_CONTEXT``, else the latest of the server or cache."""
    with crds_client() as crds, single_flight_with_server(), client_errors("cannot tell the context"):
        if context is None and not os.environ.get("CRDS_CONTEXT"):
            context = "latest"
        name = str(crds.get_context_name(OBSERVATORY, context))
        if not has_server() and not Path(crds.locate_mapping(name)).is_file():
            folder = Path(crds.locate_mapping(name)).parent
            there = ", ".join(sorted(path.name for path in folder.glob("*.pmap"))) or "none"
            raise ReferenceCacheError(
                f"the cache CRDS_PATH={os.environ['CRDS_PATH']} does not hold the context {name} (it holds {there}); "
                "choose one of them with CRDS_CONTEXT, or set CRDS_SERVER_URL to fetch it"
            )
        return name


def catalog() -> Mapping[str, Mapping[str, str]]:
    """What the server, or the cache, knows about its files: name -> ``{"size", "sha1sum"}``; may be empty."""
    global _catalog
    with crds_client() as crds:
        if _catalog is None:
            info = crds.core.heavy_client.get_config_info(OBSERVATORY)
            _catalog = crds.client.proxy.crds_decode(info.get("download_metadata", {}))
        return _catalog


@contextmanager
def single_flight() -> Iterator[None]:
    """Only one thread of one process on this machine is in here, for one cache; a process that dies lets go."""
    global _flying
    path = cache_folder() / ".calweave.lock"
    with _lock:
        if _flying:
            yield
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = path.open("a")
        except OSError as error:
            raise ReferenceCacheError(
                f"reference files are missing in CRDS_PATH={path.parent} and it cannot be written ({error.strerror}); "
                "fill the cache where it can be written, or set CRDS_PATH to a folder of your own"
            ) from error
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            _flying = True
            try:
                yield
            finally:
                _flying = False


@contextmanager
def single_flight_with_server() -> Iterator[None]:
    """``single_flight`` where rules might be fetched: with a server and a cache that can be written."""
    read_only = os.environ.get("CRDS_READONLY_CACHE", "").lower() in ("1", "t", "true")
    if not has_server() or read_only or (cache_folder().exists() and not os.access(cache_folder(), os.W_OK)):
        yield
    else:
        with single_flight():
            yield


@contextmanager
def client_errors(what: str) -> Iterator[None]:
    """Turn the client's errors, and files that are not there, into one line of ours."""
    from crds.core.exceptions import CrdsError

    try:
        yield
    except SystemExit as error:  # the client's way to say that neither server nor cache tell it anything
        raise ReferenceCacheError(
            f"{what}: CRDS_SERVER_URL={os.environ['CRDS_SERVER_URL']} does not answer, and the cache "
            f"CRDS_PATH={os.environ['CRDS_PATH']} has nothing of it yet; check the address and the network"
        ) from error
    except (CrdsError, OSError, AssertionError, SyntaxError) as error:
        raise ReferenceCacheError(
            f"{what}: {' '.join(str(error).split())} (CRDS_PATH={os.environ['CRDS_PATH']})"
        ) from error
