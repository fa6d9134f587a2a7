"""Files of this machine: written in a hidden folder beside their place, forced to the disk, and moved into it."""

import contextlib
import hashlib
import logging
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

#: How the names of folders begin in which something is being written.
PART = ".part-"

# What another machine left is removed after this time; no file takes so long to write.
_OLD = 2 * 86400.0  # [s]


@contextmanager
def aside(target: Path) -> Iterator[Path]:
    """A path of the same name in a new hidden folder beside ``target``, which tells who writes there."""
    folder = target.with_name(f"{PART}{writer()}")
    folder.mkdir()
    try:
        yield folder / target.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(aside: Path, target: Path) -> None:
    """Force a file to the disk, and put it in its place over what is there, in one piece."""
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(aside, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_leftovers(folder: Path, prefix: str = PART) -> None:
    """Remove what writers that are no more have left: processes of this machine, and anybody's after two days."""
    pattern = re.compile(rf"{re.escape(prefix)}(.+)-(\d+)-[0-9a-f]{{8}}")
    for entry in os.scandir(folder):
        found = pattern.fullmatch(entry.name)
        if found is None:
            continue
        with contextlib.suppress(FileNotFoundError):  # another one removes it
            dead = not is_alive(int(found[2])) if found[1] == machine() else time.time() - entry.stat().st_mtime > _OLD
            if dead:
                log.info("removing %s, left by a process that was killed", entry.path)
                shutil.rmtree(entry.path, ignore_errors=True)


def writer() -> str:
    """A new name that tells machine and process: ``host.1a2b3c4d-pid-random``."""
    return f"{machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


@cache
def machine() -> str:
    """The name of this machine, with a mark of its start and of its process numbers: containers may share the name."""
    marks = []
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(),
        lambda: str(os.readlink("/proc/self/ns/pid")),
    ):
        with contextlib.suppress(OSError):
            marks.append(read())
    name = re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())
    return f"{name}.{hashlib.sha256(' '.join(marks).encode()).hexdigest()[:8]}"


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
