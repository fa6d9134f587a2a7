"""A reference cache on an object store, ``CRDS_PATH=s3://bucket/crds``: a copy of what ``calweave references pack`` wrote.

The crds client reads local files. So the rules are copied to a cache of this machine (``$XDG_CACHE_HOME/calweave/crds``), and
``CRDS_PATH`` is set to it; a reference file follows when an exposure needs it. That cache stays: the next run fetches only what
has changed.
"""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from infra.storage.objects import download, info_of
from infra.storage.store import Stat, join, stat_folder, write_text, writing

log = logging.getLogger(__name__)

THREADS = 8  # files copied at the same time

# For the processes that this one starts, too.
_MIRROR = "CALWEAVE_CRDS_MIRROR"

_one = threading.Lock()


def use_mirror(url: str) -> Path:
    """Make ``CRDS_PATH`` a local cache that is filled from a remote one; returns it, with the present rules in it.

    Raises
    ------
    StorageError
        If the remote one cannot be read.
    """
    folder = _local_cache(url)
    with _one:
        known = _known(folder)
        for part in ("mappings", "config"):  # what makes it a cache comes last
            found = {f"{part}/{name}": stat for name, stat in stat_folder(join(url, part)).items()}
            new = [name for name, stat in found.items() if known.get(name) != stat or not (folder / name).is_file()]
            if new:
                log.info("references: copying %d files of the rules from %s", len(new), url)
            with ThreadPoolExecutor(THREADS) as pool:
                for _ in pool.map(lambda name: _copy(url, name, folder), new):
                    pass
            known |= found
        write_text(str(folder / _KNOWN), json.dumps({name: [stat.size, stat.version] for name, stat in known.items()}))
    os.environ[_MIRROR] = url
    os.environ["CRDS_PATH"] = str(folder)
    return folder


_KNOWN = ".mirror.json"


def _known(folder: Path) -> dict[str, Stat]:
    with suppress(FileNotFoundError, ValueError):
        return {name: Stat(*stat) for name, stat in json.loads((folder / _KNOWN).read_text()).items()}
    return {}


def has_mirror() -> bool:
    """Whether ``CRDS_PATH`` is the local cache of a remote one."""
    url = os.environ.get(_MIRROR)
    return bool(url) and os.environ.get("CRDS_PATH") == str(_local_cache(url))


def _local_cache(url: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "calweave", "crds", hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16])


def fetch_from_mirror(paths: Mapping[str, Path], names: Iterable[str]) -> None:
    """Copy those of the named reference files that the remote cache of ``CRDS_PATH`` has to their places in the local one."""
    url, folder = os.environ[_MIRROR], Path(os.environ["CRDS_PATH"])
    wanted = [paths[name].relative_to(folder).as_posix() for name in names if paths[name].is_relative_to(folder)]
    if wanted:
        log.info("references: fetching %s from %s", ", ".join(name.rsplit("/", 1)[-1] for name in wanted), url)

    def copy(name: str) -> None:
        with suppress(FileNotFoundError):  # who asked says what is missing, and where it was looked for
            _copy(url, name, folder)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(copy, wanted):
            pass


def _copy(url: str, name: str, folder: Path) -> None:
    source = join(url, name)
    info = info_of(source)
    with writing(str(folder / name)) as path:
        download(source, info, Path(path))
