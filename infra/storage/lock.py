"""One run at a time on one output: a small lock object in the output folder says who works there, and beats.

The lock is taken by compare-and-swap. In a local folder that is done under ``flock`` of the folder, on s3 by the conditional
requests ``If-None-Match`` and ``If-Match``. Not every store honours these (and not every network file system knows
``flock``), so there the lock is read again after a while: of two that took it, the later one has it.

A lock whose process is no more (same machine) or has not beaten for ``STALE`` seconds (another machine, by the clock
of the store, not ours) is taken over. A run that lost its lock, because it slept or was cut off for that long,
can write no more: two runs never mix their products.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from infra.storage import store
from infra.storage.faults import StorageError, code_of, errors, patiently
from infra.storage.local import aside, is_alive, machine
from infra.storage.objects import is_s3, open_store, protocols
from infra.storage.store import is_local, local_path

log = logging.getLogger(__name__)

NAME = ".calweave.lock"
BEAT = 20.0  # [s] between two signs of life
STALE = 120.0  # [s] without one, after which a lock is taken over
SETTLE = 2.0  # [s] in which another's request may still arrive, where the store has no compare-and-swap
POLL = 1.0  # [s] between two looks while waiting

_in_memory = threading.Lock()


class OutputLocked(StorageError):
    """Another run works on this output; the message says who, where and since when."""


class Lock:
    """The lock of an output while it is held: its sign of life is renewed every ``BEAT`` seconds, by a thread."""

    def __init__(self, output: str):
        self.output = output
        self.url = store.join(output, NAME)
        self.owner = _owner()
        self._lost: str | None = None
        self._renewed = _clock()
        self._one = threading.RLock()
        self._ended = threading.Event()

    def check(self) -> None:
        """Fail if another run may have the output; called before anything is written there.

        Raises
        ------
        OutputLocked
            If the lock was lost.
        StorageError
            If it could not be renewed for so long that another run may have taken it.
        """
        if _clock() - self._renewed > STALE - BEAT:  # we slept, or were cut off
            self._renew()
        if self._lost:
            raise OutputLocked(self._lost)

    def _renew(self) -> None:
        with self._one:
            found = _read(self.url)
            before = _clock()
            if found is not None and found.owner["token"] == self.owner["token"]:
                beating = {**self.owner, "beats": found.owner.get("beats", 0) + 1}
                if _swap(self.url, found, beating):
                    self._renewed = before
                    return
                found = _read(self.url)
            self._lost = (
                f"the lock of {self.output} was lost: {'nobody' if found is None else _who(found)} has it now, since this "
                f"run gave no sign of life for too long or {NAME} was removed; nothing more is written. Run again when "
                f"{self.output} is free"
            )
            log.error("%s", self._lost)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT) and not self._lost:
            try:
                self._renew()
            except StorageError as error:
                log.warning("%s: no sign of life given for %.0f s: %s", self.output, _clock() - self._renewed, error)

    def _release(self) -> None:
        try:
            with self._one:
                found = _read(self.url)
                if found is not None and found.owner["token"] == self.owner["token"]:
                    _swap(self.url, found, None)
        except StorageError as error:
            log.warning("cannot release %s: %s; the next run takes it over", self.url, error)


@contextlib.contextmanager
def locked(output: str, wait: bool = False) -> Iterator[Lock]:
    """Hold the lock of an output folder; with ``wait`` after another run that has it ends.

    What killed runs have left unfinished there is removed. Within the context this process writes below ``output`` only as
    long as the lock is its own; another process that writes for it asks ``Lock.check`` of the one that holds the lock.

    Raises
    ------
    OutputLocked
        If another run has it, and ``wait`` is false.
    StorageError
        If the lock cannot be written.
    """
    lock = Lock(output)
    _acquire(lock, wait)
    beats = threading.Thread(target=lock._beat, name=f"lock {output}", daemon=True)
    beats.start()
    try:
        with store.guarded(output, lock.check):
            store.clean(output)
            yield lock
    finally:
        if os.getpid() == lock.owner["pid"]:  # not in a forked child
            lock._ended.set()
            beats.join()
            if not lock._lost:
                lock._release()


def holder(output: str) -> dict[str, Any] | None:
    """Who holds the lock of an output (host, pid, since, and ``quiet``: seconds since its last sign of life), or None."""
    found = _read(store.join(output, NAME))
    return None if found is None else {**found.owner, "quiet": found.quiet}


def _acquire(lock: Lock, wait: bool) -> None:
    output, told = lock.output, -math.inf
    while True:
        found = _read(lock.url)
        if found is None or _is_stale(found):
            if found is not None:
                log.warning("%s: taking over the lock of %s, which ended without releasing it", output, _who(found))
            if _swap(lock.url, found, lock.owner) and _is_ours(lock):
                lock._renewed = _clock()
                return
            continue
        if not wait:
            raise OutputLocked(
                f"{output} is in use by {_who(found)}; wait for it with --wait, or choose another folder with --out"
            )
        if _clock() - told > 300:
            log.warning("%s is in use by %s; waiting for it to end", output, _who(found))
            told = _clock()
        time.sleep(POLL)


def _is_ours(lock: Lock) -> bool:
    """Whether the lock that we wrote is ours for good: at once where the store compares and swaps, else after a while."""
    if not _compares(lock):
        time.sleep(SETTLE)
    found = _read(lock.url)
    return found is not None and found.owner["token"] == lock.owner["token"]


def _clock() -> float:
    """Seconds that go on while the machine sleeps, where it has such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True)
class _Found:
    """A lock as it was read: who wrote it, how long ago by the store's clock [s], and its version there."""

    owner: dict[str, Any]
    quiet: float
    version: str


def _owner() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": os.getpid(),
        "process": _start_of(os.getpid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "token": uuid.uuid4().hex,
    }


def _who(found: _Found) -> str:
    owner = found.owner
    return (
        f"another run on {owner.get('host')} (process {owner.get('pid')}, since {owner.get('since')}, last sign of life "
        f"{found.quiet:.0f} s ago)"
    )


def _is_stale(found: _Found) -> bool:
    owner = found.owner
    if owner.get("machine") == machine():
        # On our own machine the process itself tells, even one that is stopped and does not beat.
        pid = int(owner.get("pid", 0))
        return not is_alive(pid) or _start_of(pid) != owner.get("process")
    return found.quiet > STALE


def _start_of(pid: int) -> str:
    """When a process started [clock ticks], which tells it from a later one with its number; empty where unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _parse(text: str, url: str) -> dict[str, Any]:
    try:
        owner = json.loads(text)
        if isinstance(owner, dict) and "token" in owner:
            return owner
    except ValueError:
        pass
    log.warning("%s is no lock that we know; it holds %d bytes", url, len(text))
    return {"token": hashlib.sha256(text.encode()).hexdigest()}


def _read(url: str) -> _Found | None:
    with errors("read", url):
        if is_local(url):
            return _read_local(Path(local_path(url)), url)
        system, path = open_store(url)
        if is_s3(system):
            return _read_s3(system, path, url)
        try:
            text = system.cat_file(path).decode()
        except FileNotFoundError:
            return None
        owner = _parse(text, url)
        return _Found(owner, 0.0, text)


def _swap(url: str, found: _Found | None, owner: dict[str, Any] | None) -> bool:
    """Replace the lock that was found by another one, or by none; False if it is no more what was found."""
    text = None if owner is None else json.dumps(owner)
    with errors("write", url):
        if is_local(url):
            return _swap_local(Path(local_path(url)), url, found, text)
        system, path = open_store(url)
        if is_s3(system):
            return _swap_s3(system, path, found, text)
        with _in_memory:
            now = _read(url)
            if (now and now.version) != (found and found.version):
                return False
            if text is None:
                system.rm_file(path)
            else:
                system.pipe_file(path, text.encode())
            return True


def _compares(lock: Lock) -> bool:
    """Whether the store of a lock that was just written refuses to write it once more as if there were none."""
    if is_local(lock.url):
        with _guard(Path(local_path(lock.url)).parent) as guarded:
            return guarded
    system, path = open_store(lock.url)
    if not is_s3(system):
        return "memory" in protocols(system)
    with errors("write", lock.url):
        return not _put_s3(system, path, json.dumps(lock.owner), {"IfNoneMatch": "*"})


# A local folder


@contextlib.contextmanager
def _guard(folder: Path) -> Iterator[bool]:
    """Alone among those who look at the lock of a folder; gives False where the file system cannot lock folders."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            guarded = True
        except OSError as error:
            log.debug("%s cannot be locked: %s", folder, error)
            guarded = False
        yield guarded
    finally:
        os.close(handle)


def _read_local(path: Path, url: str) -> _Found | None:
    try:
        text, status = path.read_text(encoding="utf-8"), path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _Found(_parse(text, url), _quiet_local(path, status.st_mtime), text)


def _quiet_local(path: Path, modified: float) -> float:
    """Seconds since a file was written, by the clock of its file system."""
    try:
        with aside(path) as fresh:
            fresh.touch()
            return max(0.0, fresh.stat().st_mtime - modified)
    except OSError:  # we may only read here
        return max(0.0, time.time() - modified)


def _swap_local(path: Path, url: str, found: _Found | None, text: str | None) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _guard(path.parent):
        now = _read_local(path, url)
        if (now and now.version) != (found and found.version):
            return False
        if text is None:
            path.unlink()
            return True
        with aside(path) as fresh:
            fresh.write_text(text, encoding="utf-8")
            os.replace(fresh, path)
        return True


# An object store


def _read_s3(system: Any, path: str, url: str) -> _Found | None:
    from fsspec.asyn import sync

    async def get() -> tuple[bytes, dict[str, Any]]:
        bucket, key, _ = system.split_path(path)
        answer = await system._call_s3("get_object", Bucket=bucket, Key=key)
        async with answer["Body"] as body:
            return await body.read(), answer

    try:
        content, answer = patiently(lambda: sync(system.loop, get), f"read {url}")
    except FileNotFoundError:
        return None
    now = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    quiet = (parsedate_to_datetime(now) - answer["LastModified"]).total_seconds() if now else 0.0
    return _Found(_parse(content.decode("utf-8", "replace"), url), max(0.0, quiet), answer["ETag"])


def _swap_s3(system: Any, path: str, found: _Found | None, text: str | None) -> bool:
    if text is None:
        # Few stores honour a condition here, and nobody takes a lock while its owner lives.
        bucket, key, _ = system.split_path(path)
        patiently(lambda: system.call_s3("delete_object", Bucket=bucket, Key=key), f"release s3://{path}")
        return True
    if _put_s3(system, path, text, {"IfNoneMatch": "*"} if found is None else {"IfMatch": found.version}):
        return True
    # Our request may have come through before it was repeated, and its answer been lost.
    now = _read_s3(system, path, f"s3://{path}")
    return now is not None and now.owner == json.loads(text)


def _put_s3(system: Any, path: str, text: str, condition: dict[str, str]) -> bool:
    """Put the lock on a condition; False where it does not hold. A store may not know conditions, and always put it."""
    bucket, key, _ = system.split_path(path)
    put = {"Bucket": bucket, "Key": key, "Body": text.encode()}
    try:
        patiently(lambda: system.call_s3("put_object", **put, **condition), f"write s3://{path}")
    except Exception as error:
        code = code_of(error)
        if code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409", "NoSuchKey"):
            return False
        if code not in ("NotImplemented", "501"):
            raise
        patiently(lambda: system.call_s3("put_object", **put), f"write s3://{path}")
    return True
