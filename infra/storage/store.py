"""Files by URL: a local path, ``memory://`` or ``s3://`` work the same, and a file appears whole or not at all.

A local file is written in a hidden folder beside its place, forced to the disk and moved; an object is put in one piece (which
is atomic) from a complete local file. What is read from an object store is first copied to a scratch folder of this
process, whole or not at all, and that folder never grows over its limit.

Environment: ``CALWEAVE_SCRATCH`` is the folder in which the scratch folder is made (default: that of temporary files),
``CALWEAVE_SCRATCH_GB`` its limit (default 20). Endpoint and credentials of object stores are those of their own clients
(``AWS_ENDPOINT_URL``, ``AWS_PROFILE`` ...).
"""

import atexit
import errno
import logging
import os
import re
import shutil
import socket
import tempfile
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_ADVICE = {
    errno.ENOSPC: "free some space there, or choose another folder",
    errno.EDQUOT: "free some of your quota, or choose another folder",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a folder that you may write and read, or change its permissions",
    errno.EPERM: "choose a folder that you may write and read, or change its permissions",
    errno.ENOTDIR: "a part of the path is a file, not a folder: correct the path",
    errno.EEXIST: "it is a file, not a folder: correct the path",
    errno.EISDIR: "there is a folder of that name: correct the path",
    errno.ENOENT: "correct the path",
}


_PART = ".part-"

_publishing = [threading.Lock() for _ in range(64)]


class StorageError(Exception):
    """A file cannot be read or written; the message says which, why and what to do, in one line."""


@dataclass(frozen=True)
class Stat:
    """A file as its store tells of it without reading it.

    ``size`` is in bytes. ``version`` is another text whenever the file was written anew (ETag, or time and inode); a copy
    of the file elsewhere has another one too, so where it differs only the content can tell.
    """

    size: int
    version: str


def fetch(url: str) -> str:
    """Local path of a file to read: a local file as it is, a remote one copied to the scratch folder of this process.

    The copy stays until the process ends or its room is needed for others, the least recently used first; where the
    scratch folder is small, ``fetched`` keeps it for as long as it is read. An object that has changed is copied anew.

    Raises
    ------
    StorageError
        If there is no such file, it comes incomplete, or it is larger than the limit of the scratch folder.
    """
    with fetched(url) as path:
        return path


@contextmanager
def fetched(url: str) -> Iterator[str]:
    """``fetch``, and the copy stays in the scratch folder for as long as the context lasts."""
    if is_local(url):
        path = local_path(url)
        if not Path(path).is_file():
            what = "is a folder, not a file" if Path(path).is_dir() else "does not exist"
            raise StorageError(f"{url} {what}; correct the path")
        yield path
        return
    with _errors("read", url):
        copy = _fetch_to_scratch(url)
    try:
        yield str(copy.path)
    finally:
        with _changed:
            copy.pins -= 1
            _changed.notify_all()


def publish(local_file: str | Path, url: str) -> str:
    """Copy a complete local file to ``url``, where it appears whole or not at all, over an earlier one; give ``url``.

    Raises
    ------
    StorageError
        If it cannot be written, or has another size afterwards.
    """
    size = Path(local_file).stat().st_size
    with _errors("write", url):
        if is_local(url):
            target = Path(local_path(url))
            target.parent.mkdir(parents=True, exist_ok=True)
            with _aside(target) as aside:
                shutil.copyfile(local_file, aside)
                _move_into_place(aside, target)
            return url
        system, path = _open_store(url)
        with _publishing[hash(url) % len(_publishing)]:  # else the size found may be that of another thread's file
            if "memory" in _protocols(system):
                # Its put_file shows the file while it grows; its pipe_file sets it at once.
                system.pipe_file(path, Path(local_file).read_bytes())
            else:
                system.put_file(str(local_file), path)
            found = system.info(path)["size"]
        if found != size:
            raise StorageError(
                f"{url} has {found} bytes after writing {size}; if no other process writes it too, check the store, "
                "and run again"
            )
    return url


@contextmanager
def writing(url: str) -> Iterator[str]:
    """A local path to write a file to, which is published as ``url`` on a clean exit; on an exception nothing is left.

    The path has the name of the file: writers look at its extension, and write it into FILENAME.

    Raises
    ------
    StorageError
        If it cannot be written: the folder is read-only, the disk is full, ...
    """
    with _errors("write", url):
        if is_local(url):
            target = Path(local_path(url))
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(target.parent)
            with _aside(target) as aside:
                yield str(aside)
                _move_into_place(aside, target)
        else:
            folder = Path(tempfile.mkdtemp(dir=_scratch()))
            try:
                path = folder / name_of(url)
                yield str(path)
                publish(path, url)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def require_writable(url: str) -> None:
    """Fail now, not after the work, where a local folder cannot be written; it is made if it is not there.

    Raises
    ------
    StorageError
        If it cannot be made or written.
    """
    if is_local(url):
        with _errors("write", url):
            folder = Path(local_path(url))
            folder.mkdir(parents=True, exist_ok=True)
            with _aside(folder / "empty") as aside:
                aside.touch()


def read_text(url: str) -> str:
    """The text of a file (UTF-8)."""
    with _errors("read", url):
        if is_local(url):
            return Path(local_path(url)).read_text(encoding="utf-8")
        system, path = _open_store(url)
        return system.cat_file(path).decode("utf-8")


def write_text(url: str, text: str) -> str:
    """Write a text file (UTF-8), which appears whole or not at all; returns ``url``."""
    with writing(url) as path:
        Path(path).write_text(text, encoding="utf-8")
    return url


def exists(url: str) -> bool:
    """Whether there is such a file or folder."""
    with _errors("read", url):
        if is_local(url):
            return Path(local_path(url)).exists()
        system, path = _open_store(url)
        return bool(system.exists(path))


def listing(url: str, pattern: str = "*") -> list[str]:
    """URLs of the files of a folder whose names match ``pattern`` (as in a shell), sorted, without hidden ones.

    With ``**/`` at the start of the pattern the files of all folders below too.

    Raises
    ------
    StorageError
        If there is no such folder.
    """
    deep = pattern.startswith("**/")
    name_pattern = pattern.removeprefix("**/")
    with _errors("list", url):
        if is_local(url):
            root = Path(local_path(url))
            if not root.is_dir():
                raise StorageError(
                    f"{url} {'is a file, not a folder' if root.exists() else 'does not exist'}; correct the path"
                )
            relative = [
                path.relative_to(root).as_posix()
                for path in (root.rglob("*") if deep else root.iterdir())
                if path.is_file()
            ]
        else:
            system, path = _open_store(url)
            found = system.find(path, maxdepth=None if deep else 1)
            start = len(path.rstrip("/")) + 1
            relative = [name[start:] for name in found]
            if not relative and not system.exists(path):
                raise StorageError(f"{url} does not exist or is empty; correct the path")
    shown = [
        name
        for name in relative
        if fnmatchcase(name_of(name), name_pattern) and not any(part.startswith(".") for part in name.split("/"))
    ]
    return [_base(url) + name for name in sorted(shown)]


def stat_folder(url: str) -> dict[str, Stat]:
    """Size and version of every file below a folder, by its name relative to it (``deep/a.fits``), in name order.

    One walk, or one listing of 1000 objects a request: no request for each file. Hidden files are there too, what
    others are writing is not; folders that are links are not entered. A folder that is not there is an empty one.
    """
    with _errors("list", url):
        if is_local(url):
            root = local_path(url)
            found = dict(_walk(root, "")) if Path(root).is_dir() else {}
        else:
            system, path = _open_store(url)
            start = len(path.rstrip("/")) + 1
            found = {
                name[start:]: Stat(int(info["size"]), _version(info))
                for name, info in system.find(path, detail=True).items()
                if info.get("type") != "directory" and len(name) > start
            }
    return dict(sorted(found.items()))


def stat_file(url: str) -> Stat | None:
    """Size and version of one file as ``stat_folder`` gives them; None where there is no such file."""
    with _errors("read", url):
        try:
            if is_local(url):
                return _stat_local(os.stat(local_path(url)))
            system, path = _open_store(url)
            info = system.info(path)
        except FileNotFoundError:
            return None
    return Stat(int(info["size"]), _version(info))


def remove(url: str) -> None:
    """Remove a file; one that is not there is no error."""
    with _errors("remove", url):
        if is_local(url):
            Path(local_path(url)).unlink(missing_ok=True)
            return
        system, path = _open_store(url)
        with suppress(FileNotFoundError):
            system.rm_file(path)


def _stat_local(status: os.stat_result) -> Stat:
    return Stat(status.st_size, f"{status.st_mtime_ns}-{status.st_ino}")


def _walk(root: str, below: str) -> Iterator[tuple[str, Stat]]:
    for entry in os.scandir(os.path.join(root, below)):
        name = below + entry.name
        if entry.name.startswith(_PART):
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(root, name + "/")
            elif entry.is_file():
                yield name, _stat_local(entry.stat())
        except FileNotFoundError:  # it went while we were looking
            continue


def _version(info: Mapping[str, Any]) -> str:
    found = next((info[key] for key in ("ETag", "etag", "LastModified", "mtime", "created") if info.get(key)), "")
    # One store tells the same time as text here and as a number of seconds there.
    return str(found.timestamp() if isinstance(found, datetime) else found).strip('"')


def join(url: str, *parts: str) -> str:
    """The URL of something inside the folder ``url``.

    Raises
    ------
    StorageError
        If a part leads out of the folder: it is absolute, is a URL, or has ``..`` in it.
    """
    for part in parts:
        if not part or part.startswith("/") or "://" in part or ".." in part.split("/"):
            raise StorageError(
                f"{part!r} is not the name of a file inside {url}; give a name without '..', '/' at its start or '://'"
            )
    return _base(url) + "/".join(parts)


def name_of(url: str) -> str:
    """The last part of a URL: the name of a file without its folder."""
    return url.rstrip("/").rsplit("/", 1)[-1]


def folder_of(url: str) -> str:
    """The folder of a file: its URL without the last part, ``"."`` for a plain name."""
    head, slash, _ = url.rstrip("/").rpartition("/")
    return head or slash or "."


def is_local(url: str) -> bool:
    """Whether a URL is a path of this machine's file system."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> str:
    """The path of a local URL."""
    return url.removeprefix("file://")


def _base(url: str) -> str:
    return url if url.endswith("://") or not url else url.rstrip("/") + "/"


def _open_store(url: str) -> tuple[Any, str]:
    import fsspec

    # Listings that are kept would hide what others have written since.
    return fsspec.url_to_fs(url, use_listings_cache=False)


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


@contextmanager
def _errors(verb: str, url: str) -> Iterator[None]:
    """Turn what a file system or a store reports into one line of ours."""
    try:
        yield
    except FileNotFoundError as error:
        if verb == "write":
            raise StorageError(f"cannot write {url}: {_reason(error)}; correct the path") from error
        raise StorageError(f"{url} does not exist; correct the path") from error
    except OSError as error:
        if error.errno is None and "Not enough space on disk" in str(error):  # astropy's words for it
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        advice = _ADVICE.get(error.errno or 0, "check that the place can be reached and has room")
        raise StorageError(f"cannot {verb} {url}: {_reason(error)}; {advice}") from error
    except ImportError as error:
        raise StorageError(
            f"cannot {verb} {url}: {error}; install the package, for s3 with: pip install 'calweave[s3]'"
        ) from error
    except Exception as error:
        if type(error).__module__.startswith("botocore"):
            raise StorageError(
                f"cannot {verb} {url}: {_reason(error)}; check endpoint and credentials of the store"
            ) from error
        if isinstance(error, ValueError) and str(error).startswith("Protocol not known"):
            raise StorageError(f"cannot {verb} {url}: {error}; use a local path, memory:// or s3://") from error
        raise


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return " ".join(str(text).split())


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A path of the same name in a new hidden folder beside ``target``, which tells who writes there."""
    folder = target.with_name(f"{_PART}{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    folder.mkdir()
    try:
        yield folder / target.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())


def _remove_leftovers(folder: Path) -> None:
    """Remove what processes of this machine that are no more have left."""
    pattern = re.compile(rf"{re.escape(_PART)}{re.escape(_host())}-(\d+)-[0-9a-f]{{8}}")
    for entry in os.scandir(folder):
        found = pattern.fullmatch(entry.name)
        if found and not _is_alive(int(found.group(1))):
            log.info("removing %s, left by a process that was killed", entry.path)
            shutil.rmtree(entry.path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _move_into_place(aside: Path, target: Path) -> None:
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(aside, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclass
class _Copy:
    """A file in the scratch folder: its room [bytes], how many are reading it, and whether it is whole."""

    path: Path
    size: int
    pins: int = 0
    whole: bool = False


# The scratch folder of this process and the copies in it, least recently used first.
_scratch_folder: tuple[int, Path] | None = None
_copies: "OrderedDict[str, _Copy]" = OrderedDict()
_changed = threading.Condition(threading.RLock())


def _scratch() -> Path:
    global _scratch_folder
    with _changed:
        if _scratch_folder is None or _scratch_folder[0] != os.getpid():  # a forked child makes its own
            parent = os.environ.get("CALWEAVE_SCRATCH") or None
            if parent is not None:
                Path(parent).mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix="calweave-", dir=parent))
            _scratch_folder = (os.getpid(), folder)
            _copies.clear()
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return _scratch_folder[1]


def _fetch_to_scratch(url: str) -> _Copy:
    """The copy of a remote file, pinned once for the caller; one thread copies, the others wait for it."""
    system, path = _open_store(url)
    info = system.info(path)
    if info.get("type") == "directory":
        raise StorageError(f"{url} is a folder, not a file; correct the path")
    size = int(info["size"])
    key = f"{url} {_version(info)} {size}"
    scratch = _scratch()
    with _changed:
        while key in _copies or not _make_room(url, size):
            if key in _copies and _copies[key].whole:
                _copies[key].pins += 1
                _copies.move_to_end(key)
                return _copies[key]
            _changed.wait()
        copy = _copies[key] = _Copy(scratch / uuid.uuid4().hex / name_of(url), size, pins=1)
    part = copy.path.with_name(copy.path.name + ".part")
    try:
        copy.path.parent.mkdir()
        system.get_file(path, str(part))
        found = part.stat().st_size
        if found != size:
            raise StorageError(f"{url} came with {found} of its {size} bytes; run again, or check the object store")
        os.replace(part, copy.path)
    except BaseException:
        with _changed:
            _copies.pop(key, None)
            shutil.rmtree(copy.path.parent, ignore_errors=True)
            _changed.notify_all()
        raise
    with _changed:
        copy.whole = True
        _changed.notify_all()
    return copy


def _make_room(url: str, size: int) -> bool:
    """Remove copies that nobody reads until ``size`` bytes fit; False where others must finish first."""
    limit = _limit()
    if size > limit:
        raise StorageError(
            f"{url} has {size / 1e9:.3g} GB, more than the scratch folder may hold ({limit / 1e9:.3g} GB); "
            "raise CALWEAVE_SCRATCH_GB"
        )
    while sum(copy.size for copy in _copies.values()) + size > limit:
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
