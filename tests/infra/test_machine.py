"""What this machine has, and what this process has of it."""

import subprocess
import sys

import pytest

from infra.machine import available_memory, cores, resident_memory

CODE = """
import numpy as np
from infra.machine import give_memory_back, resident_memory

give_memory_back()
# One that is freed teaches glibc, left to itself, to keep all of its size.
planes = [np.ones(2**22, np.float32) for _ in range(2)]
del planes
before = resident_memory()
planes = [np.ones(2**22, np.float32) for _ in range(12)]
small = np.ones(1000)
full = resident_memory()
del planes[:-1]
print(full - before, resident_memory() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the memory of a process")
def test_memory_of_arrays_that_are_free_goes_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    held, left = map(int, done.stdout.split())
    assert held > 11 * 2**24
    assert left < 2 * 2**24


def test_this_process_has_cores_and_memory():
    assert cores() >= 1
    assert 0 < resident_memory() < 2**40
    assert available_memory() > 0
