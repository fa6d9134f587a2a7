"""The scratch folder of this process: local copies of remote files, and files on their way to a store, within a limit.

``CALWEAVE_SCRATCH`` is the folder in which it is made (default: that of temporary files), ``CALWEAVE_SCRATCH_GB`` its
limit (default 20). The limit is that of one process: who starts several on one machine divides it.
"""

import atexit
import logging
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.storage.faults import StorageError, TransientStorageError
from infra.storage.local import remove_leftovers, writer

log = logging.getLogger(__name__)

_PREFIX = "calweave-"

#: Seconds that one waits for others to make room.
PATIENCE = 900.0


@dataclass
class _Copy:
    """A file in the scratch folder: its room [bytes], how many are reading it, and whether it is whole."""

    path: Path
    size: int
    pins: int = 0
    whole: bool = False


# The scratch folder of this process, the copies in it, least recently used first, and the rooms of files being written.
_folder: tuple[int, Path] | None = None
_copies: "OrderedDict[str, _Copy]" = OrderedDict()
_rooms: dict[Path, int] = {}
# Threads that read or write a file in it (how many), and threads that wait for room.
_holders: "Counter[int]" = Counter()
_waiting: set[int] = set()
_changed = threading.Condition(threading.RLock())


@contextmanager
def copied(url: str, version: str, size: int, download: Callable[[Path], None]) -> Iterator[Path]:
    """A copy of a remote file, kept at least for as long as the context lasts; one thread downloads, others wait for it.

    Raises
    ------
    StorageError
        If it is larger than the limit, or others keep the room for too long.
    """
    me = threading.get_ident()
    copy = _pinned(f"{url} {version} {size}", url, size, download)
    try:
        yield copy.path
    finally:
        with _changed:
            copy.pins -= 1
            _let_go(me)


@contextmanager
def room(url: str, size: int) -> Iterator[Path]:
    """An empty folder to write the file of ``url`` in, for which ``size`` bytes are kept free.

    Raises
    ------
    StorageError
        If that is larger than the limit, or others keep the room for too long.
    """
    me = threading.get_ident()
    base = scratch_folder()
    with _changed:
        _wait_for_room(url, size)
        folder = base / uuid.uuid4().hex
        _rooms[folder] = size
        _holders[me] += 1
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with _changed:
            _rooms.pop(folder, None)
            _let_go(me)


def _let_go(thread: int) -> None:
    _holders[thread] -= 1
    if not _holders[thread]:
        del _holders[thread]
    _waiting.clear()  # all look again
    _changed.notify_all()


def scratch_folder() -> Path:
    """The scratch folder of this process; made, and cleaned of what killed ones have left beside it, at first use."""
    global _folder
    with _changed:
        if _folder is None or _folder[0] != os.getpid():  # a forked child makes its own
            parent = Path(os.environ.get("CALWEAVE_SCRATCH") or tempfile.gettempdir())
            parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(parent, _PREFIX)
            folder = parent / f"{_PREFIX}{writer()}"
            folder.mkdir(mode=0o700)
            _folder = (os.getpid(), folder)
            _copies.clear()
            _rooms.clear()
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return _folder[1]


def _pinned(key: str, url: str, size: int, download: Callable[[Path], None]) -> _Copy:
    base = scratch_folder()
    with _changed:
        while True:
            while key in _copies and not _copies[key].whole:
                _changed.wait()
            if key in _copies:
                _copies[key].pins += 1
                _holders[threading.get_ident()] += 1
                _copies.move_to_end(key)
                return _copies[key]
            if _wait_for_room(url, size, key):
                copy = _copies[key] = _Copy(base / uuid.uuid4().hex / url.rstrip("/").rsplit("/", 1)[-1], size, pins=1)
                _holders[threading.get_ident()] += 1
                break
    try:
        copy.path.parent.mkdir()
        download(copy.path)
    except BaseException:
        with _changed:
            _copies.pop(key, None)
            shutil.rmtree(copy.path.parent, ignore_errors=True)
            _let_go(threading.get_ident())
        raise
    with _changed:
        copy.whole = True
        _changed.notify_all()
    return copy


def _wait_for_room(url: str, size: int, key: str = "") -> bool:
    """Wait until ``size`` bytes fit; False where another thread has begun to copy ``key`` meanwhile."""
    me = threading.get_ident()
    end = time.monotonic() + PATIENCE
    try:
        while not _make_room(url, size):
            if key in _copies:
                return False
            _waiting.add(me)
            # Those who have what we need may wait themselves, each for the others.
            if set(_holders) <= _waiting or time.monotonic() > end:
                raise TransientStorageError(
                    f"no room for {url} ({size / 1e9:.3g} GB) in the scratch folder beside what is read and written there at "
                    f"the same time (limit {_limit() / 1e9:.3g} GB); raise CALWEAVE_SCRATCH_GB, or run with fewer --workers"
                )
            _changed.wait(max(0.0, end - time.monotonic()))
    finally:
        _waiting.discard(me)
    return True


def _make_room(url: str, size: int) -> bool:
    """Remove copies that nobody reads until ``size`` bytes fit; False where others must finish first."""
    limit = _limit()
    if size > limit:
        raise StorageError(
            f"{url} has {size / 1e9:.3g} GB, more than the scratch folder may hold ({limit / 1e9:.3g} GB); "
            "raise CALWEAVE_SCRATCH_GB"
        )
    while sum(copy.size for copy in _copies.values()) + sum(_rooms.values()) + size > limit:
        key = next((key for key, copy in _copies.items() if copy.whole and not copy.pins), None)
        if key is None:
            return False
        shutil.rmtree(_copies.pop(key).path.parent, ignore_errors=True)
    return True


def _limit() -> float:
    text = os.environ.get("CALWEAVE_SCRATCH_GB", "20")
    try:
        return float(text) * 1e9
    except ValueError as error:
        raise StorageError(f"CALWEAVE_SCRATCH_GB must be a number of gigabytes, but is {text!r}; correct it") from error
