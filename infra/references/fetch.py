"""Reference files on this machine: fetched by one process at a time, and checked before anybody reads them."""

import hashlib
import logging
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from infra.references.client import (
    OBSERVATORY,
    ReferenceCacheError,
    catalog,
    client_errors,
    crds_client,
    has_server,
    single_flight,
)
from infra.references.mirror import fetch_from_mirror, has_mirror

log = logging.getLogger(__name__)

_known: dict[tuple[str, int, int], str] = {}
_known_lock = threading.Lock()


def fetch_references(names: Iterable[str], context: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Local paths of these reference files: fetched where missing, checked where CRDS knows what they should be.

    Parameters
    ----------
    names : iterable of str
        File names, as the rules of ``context`` give them.
    context : str
        Name of the context.
    parameters : mapping
        The exposure's CRDS parameters (``META.INSTRUMENT.NAME`` ...), which tell the folder in the cache.

    Returns
    -------
    dict
        Name -> absolute path.

    Raises
    ------
    ReferenceCacheError
        If a file is not there and cannot be fetched, or is not the file that CRDS knows.
    """
    names = sorted(set(names))
    paths = {name: locate(name, parameters) for name in names}
    missing = [name for name, path in paths.items() if not path.is_file()]
    if missing and has_mirror():
        with single_flight():
            fetch_from_mirror(paths, [name for name in missing if not paths[name].is_file()])
        missing = [name for name in missing if not paths[name].is_file()]
    if missing:
        if not has_server():
            raise ReferenceCacheError(
                f"the cache does not hold {', '.join(missing)}, chosen by {context} (looked in "
                f"{paths[missing[0]].parent}); put the file there, or set CRDS_SERVER_URL to fetch it"
            )
        with single_flight():
            missing = [name for name in missing if not paths[name].is_file()]
            if missing:
                _download(missing, paths, context, parameters)
    for name, path in paths.items():
        check(name, path)
    return {name: str(path) for name, path in paths.items()}


def locate(name: str, parameters: Mapping[str, Any]) -> Path:
    """Where the cache keeps, or would keep, this reference file."""
    # The client's own locate_file makes the folders of all instruments, and fails where the cache cannot be written.
    with crds_client() as crds:
        config = crds.core.config
        folder = Path(config.get_crds_refpath(OBSERVATORY))
        if config.get_crds_ref_subdir_mode(OBSERVATORY) == "flat":
            return folder / name
    return folder / str(parameters["META.INSTRUMENT.NAME"]).lower() / name


def _download(names: list[str], paths: Mapping[str, Path], context: str, parameters: Mapping[str, Any]) -> None:
    log.info("references: fetching %d files: %s", len(names), ", ".join(names))
    try:
        with crds_client() as crds, client_errors(f"cannot fetch {', '.join(names)}"):
            api = crds.client.api
            api.FileCacher(context, raise_exceptions=True, parameters=dict(parameters)).get_local_files(list(names))
        for name in names:
            if not paths[name].is_file():
                raise ReferenceCacheError(
                    f"{name} was not fetched into {paths[name].parent}; is CRDS_READONLY_CACHE set?"
                )
            check(name, paths[name])
    except ReferenceCacheError:
        _remove_damaged(names, paths)  # the client leaves a file that came damaged in its place
        raise


def _remove_damaged(names: Iterable[str], paths: Mapping[str, Path]) -> None:
    for name in names:
        if paths[name].is_file():
            try:
                check(name, paths[name])
            except ReferenceCacheError:
                paths[name].unlink()


def check(name: str, path: Path) -> None:
    """Compare a file with the size and SHA-1 that CRDS knows, where it knows them.

    Raises
    ------
    ReferenceCacheError
        If they differ.
    """
    entry = catalog().get(name)
    if not isinstance(entry, Mapping):
        return
    size, digest = entry.get("size"), entry.get("sha1sum")
    if size not in (None, "") and int(size) != path.stat().st_size:
        raise ReferenceCacheError(
            f"{path} has {path.stat().st_size} bytes where CRDS knows {size}; delete it and fetch it again"
        )
    if digest not in (None, "", "none") and sha1_of(path) != digest:
        raise ReferenceCacheError(
            f"{path} has the SHA-1 {sha1_of(path)} where CRDS knows {digest}; delete it and fetch it again"
        )


def sha1_of(path: str | Path) -> str:
    """SHA-1 of a file, computed once for each state (size and time of change) of it in this process."""
    path = Path(path)
    status = path.stat()
    key = (str(path), status.st_mtime_ns, status.st_size)
    with _known_lock:
        known = _known.get(key)
    if known is None:
        with path.open("rb") as file:
            known = hashlib.file_digest(file, "sha1").hexdigest()
        with _known_lock:
            _known[key] = known
    return known
