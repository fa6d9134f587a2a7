"""Files by URL: a local path, ``memory://`` or ``s3://`` work the same, and a file appears whole or not at all.

How is in ``local`` (files of this machine), ``objects`` (those of a store), ``scratch`` (local copies of these, within a
limit) and ``faults`` (what goes wrong, and what is tried again). Endpoint and credentials of object stores are those of
their own clients, from the environment (``AWS_ENDPOINT_URL``, ``AWS_PROFILE`` ...), never from a URL.
"""

import errno
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from infra.storage.faults import Changed, errors, patiently
from infra.storage.faults import StorageError as StorageError
from infra.storage.faults import TransientStorageError as TransientStorageError
from infra.storage.local import PART, aside, move_into_place, remove_leftovers
from infra.storage.objects import (
    download,
    info_of,
    open_store,
    read_object,
    read_start_of_object,
    refuse_odd_characters,
    remove_unfinished_uploads,
    upload,
    version_of,
)
from infra.storage.scratch import copied, room

# Names separated by single slashes, none of them empty, "." or "..", no scheme, and nothing that a log could not show.
_INSIDE = re.compile(
    r"(?!.*://)(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f\ud800-\udfff]+(/(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f\ud800-\udfff]+)*"
)

_REREADS = 5  # times that an object is read anew which changes while it is read
_TIDY = 600.0  # [s] between two looks for leftovers in a folder
_tidied: dict[Path, float] = {}

_publishing = [threading.Lock() for _ in range(64)]

#: What is asked before anything is written below a folder: url -> a function that raises where it may not be.
_guards: dict[str, Callable[[], None]] = {}


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
    with ExitStack() as stack:
        with errors("read", url):
            copy = _copied(stack, url)
        yield str(copy)


def _copied(stack: ExitStack, url: str) -> Path:
    for _ in range(_REREADS):
        info = info_of(url)
        if info.get("type") == "directory":
            raise StorageError(f"{url} is a folder, not a file; correct the path")
        with suppress(Changed):
            return stack.enter_context(copied(url, version_of(info), int(info["size"]), partial(download, url, info)))
    raise TransientStorageError(
        f"{url} was written anew each of the {_REREADS} times that it was read; run again later"
    )


def publish(local_file: str | Path, url: str) -> str:
    """Copy a complete local file to ``url``, where it appears whole or not at all, over an earlier one; give ``url``.

    Raises
    ------
    StorageError
        If it cannot be written, or the store has something else afterwards.
    """
    _check_guards(url)
    with errors("write", url):
        if is_local(url):
            target = Path(local_path(url))
            target.parent.mkdir(parents=True, exist_ok=True)
            with aside(target) as path:
                shutil.copyfile(local_file, path)
                move_into_place(path, target)
            return url
        # One at a time: what is found afterwards may else be another thread's file.
        with _publishing[hash(url) % len(_publishing)]:
            upload(local_file, url)
    return url


@contextmanager
def writing(url: str, size: int = 0) -> Iterator[str]:
    """A local path to write a file to, which is published as ``url`` on a clean exit; on an exception nothing is left.

    The path has the name of the file: writers look at its extension, and write it into FILENAME. ``size`` is about how
    large it will be [byte]: for a remote file so much is kept free in the scratch folder.

    Raises
    ------
    StorageError
        If it cannot be written: the folder is read-only, the disk is full, ...
    """
    with errors("write", url):
        if is_local(url):
            target = Path(local_path(url))
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
            target.parent.mkdir(parents=True, exist_ok=True)
            _tidy(target.parent)
            with aside(target) as path:
                yield str(path)
                _check_guards(url)
                move_into_place(path, target)
        else:
            with room(url, size) as folder:
                path = folder / name_of(url)
                yield str(path)
                publish(path, url)


def clean(url: str) -> None:
    """Remove what killed processes have left unfinished in a folder; only for who holds its lock."""
    with errors("clean", url):
        if not is_local(url):
            remove_unfinished_uploads(url)
        elif Path(local_path(url)).is_dir():
            remove_leftovers(Path(local_path(url)))


def _tidy(folder: Path) -> None:
    """Remove leftovers of a folder to which something is written, but do not look at each of its files each time."""
    now = time.monotonic()
    if now - _tidied.get(folder, -_TIDY) >= _TIDY:
        _tidied[folder] = now
        remove_leftovers(folder)


@contextmanager
def guarded(folder: str, check: Callable[[], None]) -> Iterator[None]:
    """Within the context ``check`` is called before anything appears below a folder, and raises where it must not."""
    _guards[folder] = check
    try:
        yield
    finally:
        del _guards[folder]


def _check_guards(url: str) -> None:
    for folder, check in list(_guards.items()):
        if url.startswith(_base(folder)):
            if is_local(url):
                _check_links(Path(local_path(folder)), Path(local_path(url)))
            check()


def _check_links(folder: Path, target: Path) -> None:
    real, root = target.parent.resolve(), folder.resolve()
    if not real.is_relative_to(root):
        raise StorageError(f"{target} is in {real}, to which a link leads out of {folder}; remove the link")


def require_writable(url: str) -> None:
    """Fail now, not after the work, where a local folder cannot be written; it is made if it is not there.

    Raises
    ------
    StorageError
        If it cannot be made or written, or is a URL of no store or with credentials in it.
    """
    if is_local(url):
        with errors("write", url):
            folder = Path(local_path(url))
            folder.mkdir(parents=True, exist_ok=True)
            with aside(folder / "empty") as path:
                path.touch()
    else:
        check_url(url)


def check_url(url: str) -> None:
    """Fail where a URL cannot be used: it is of no store that we know, has credentials in it, or odd characters.

    Raises
    ------
    StorageError
    """
    with errors("read", url):
        if is_local(url):
            refuse_odd_characters(url)
        else:
            open_store(url)


def read_text(url: str) -> str:
    """The text of a file (UTF-8)."""
    with errors("read", url):
        if is_local(url):
            return Path(local_path(url)).read_text(encoding="utf-8")
        return read_object(url).decode("utf-8")


def read_start(url: str, size: int) -> bytes:
    """The first ``size`` bytes of a file, or all that it has; of a remote one no more is fetched."""
    with errors("read", url):
        if is_local(url):
            with Path(local_path(url)).open("rb") as file:
                return file.read(size)
        return read_start_of_object(url, size)


def write_text(url: str, text: str) -> str:
    """Write a text file (UTF-8), which appears whole or not at all; returns ``url``."""
    content = text.encode("utf-8")
    with writing(url, len(content)) as path:
        Path(path).write_bytes(content)
    return url


def exists(url: str) -> bool:
    """Whether there is such a file or folder."""
    with errors("read", url):
        if is_local(url):
            return Path(local_path(url)).exists()
        try:
            info_of(url)
        except FileNotFoundError:
            return False
        return True


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
    with errors("list", url):
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
            system, path = open_store(url)
            found = patiently(lambda: system.find(path, maxdepth=None if deep else 1), f"list {url}")
            start = len(path.rstrip("/")) + 1
            relative = [name[start:] for name in found]
            if not relative and not exists(url):
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
    with errors("list", url):
        if is_local(url):
            root = local_path(url)
            found = dict(_walk(root, "")) if Path(root).is_dir() else {}
        else:
            system, path = open_store(url)
            start = len(path.rstrip("/")) + 1
            found = {
                name[start:]: Stat(int(info["size"]), version_of(info))
                for name, info in patiently(lambda: system.find(path, detail=True), f"list {url}").items()
                if info.get("type") != "directory" and len(name) > start
            }
    return dict(sorted(found.items()))


def stat_file(url: str) -> Stat | None:
    """Size and version of one file as ``stat_folder`` gives them; None where there is no such file."""
    with errors("read", url):
        try:
            if is_local(url):
                return _stat_local(os.stat(local_path(url)))
            info = info_of(url)
        except FileNotFoundError:
            return None
    return Stat(int(info["size"]), version_of(info))


def remove(url: str) -> None:
    """Remove a file; one that is not there is no error."""
    with errors("remove", url):
        if is_local(url):
            Path(local_path(url)).unlink(missing_ok=True)
            return
        system, path = open_store(url)
        with suppress(FileNotFoundError):
            patiently(lambda: system.rm_file(path), f"remove {url}")


def _stat_local(status: os.stat_result) -> Stat:
    return Stat(status.st_size, f"{status.st_mtime_ns}-{status.st_ino}")


def _walk(root: str, below: str) -> Iterator[tuple[str, Stat]]:
    for entry in os.scandir(Path(root) / below):
        name = below + entry.name
        if entry.name.startswith(PART):
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(root, name + "/")
            elif entry.is_file():
                yield name, _stat_local(entry.stat())
        except FileNotFoundError:  # it went while we were looking
            continue


def join(url: str, *parts: str) -> str:
    """The URL of something inside the folder ``url``.

    Raises
    ------
    StorageError
        If a part leads out of the folder or is no name: it is absolute, is a URL, or has ``..`` or a control character.
    """
    for part in parts:
        if not _INSIDE.fullmatch(part):
            raise StorageError(
                f"{part!r} is not the name of a file inside {url}; give a name without '..', '/' at its start, '://' or "
                "control characters"
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
