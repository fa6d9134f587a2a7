"""What this machine has, and what this process has of it: cores and memory."""

import ctypes
import functools
import os
import resource
from contextlib import AbstractContextManager
from pathlib import Path

from calibration.strips import threads


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> float:
    """Memory that new work may use [byte]: what the kernel calls available, within the limit of the container."""
    found = float("inf")
    about = Path("/proc/meminfo")
    if about.is_file():
        line = next((line for line in about.read_text().splitlines() if line.startswith("MemAvailable:")), "")
        found = float(line.split()[1]) * 1024 if line else found
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        found = min(found, float(limit.read_text()) - float(used.read_text()))
    return found


def resident_memory() -> int:
    """What this process has in memory now, or had at most where the system does not tell [byte]."""
    pages = Path("/proc/self/statm")
    if pages.is_file():
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


#: Blocks of memory from this size on are given back when they are free [byte].
_GIVEN_BACK = 4 * 2**20
_M_MMAP_THRESHOLD = -3  # its number in malloc.h


@functools.cache
def give_memory_back() -> None:
    """Arrays that are free go back to the system.

    By default glibc keeps those of up to 32 MB, such as the planes of a full frame, for what may come: a worker held
    0.54 GiB between two exposures and took 0.97 GiB for the second, where it now holds 0.28 and takes 0.72.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK)


def using(number: int) -> AbstractContextManager[None]:
    """Kernels that are called within use so many cores."""
    return threads(number)
