"""What this machine has, and what this process has of it: cores and memory."""

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


def using(number: int) -> AbstractContextManager[None]:
    """Kernels that are called within use so many cores."""
    return threads(number)
