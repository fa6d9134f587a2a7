"""Strips of rows: kernels whose rows do not know each other, run in threads, or on ramps that are too large for memory.

A ramp that is fitted in strips needs all its integrations, but only some of its rows. The arrays of a large exposure
stay on disk then and are read strip by strip; those in memory are never copied. What comes out does not depend on how
the rows were cut.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

_threads: contextvars.ContextVar[int] = contextvars.ContextVar("threads", default=1)

#: Strips per thread, so that none waits long for the last one.
_SHARES = 4


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Kernels called within may use so many cores; each exposure of several that run side by side has its own number."""
    token = _threads.set(max(1, number))
    try:
        yield
    finally:
        _threads.reset(token)


def map_rows(work: Callable[[slice], Any], data: Any) -> list[Any]:
    """What ``work`` returns for each strip of rows of ``data``, (..., ny, nx), from the first row to the last.

    Parameters
    ----------
    work : callable
        Takes a slice of rows; writes to those rows of its outputs only. It may run in several threads.
    data : ndarray or array on disk
        One on disk says how many rows may be in memory together, ``rows_at_once``.
    """
    number = _threads.get()
    ny = data.shape[-2]
    height = -(-ny // (number * _SHARES)) if number > 1 else ny
    height = max(1, min(height, getattr(data, "rows_at_once", ny) // number))
    strips = [slice(start, min(start + height, ny)) for start in range(0, ny, height)]
    return map_each(work, strips)


def map_each(work: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
    """What ``work`` returns for each of some parts that do not know each other, in their order; in threads where allowed."""
    number = _threads.get()
    if number == 1 or len(parts) == 1:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(work, parts))


def rows_of(array: Any, rows: slice) -> tuple[np.ndarray, int]:
    """An array (..., ny, nx) that has these rows, and the number of its first row.

    In memory that is the array itself, since a kernel is fastest on contiguous arrays; from disk only the rows are read.
    """
    if isinstance(array, np.ndarray):
        return array, 0
    return array[..., rows, :], rows.start


def integrations_of(array: Any, part: slice = slice(None)) -> list[slice]:
    """Some integrations of an array (nints, ...) in pieces: all at once in memory, one by one from disk."""
    chosen = range(array.shape[0])[part]
    if isinstance(array, np.ndarray):
        return [slice(chosen.start, chosen.stop)] if chosen else []
    return [slice(i, i + 1) for i in chosen]


def zeros(like: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """A new array of zeros, in memory or on disk as ``like`` is."""
    return np.zeros(shape, dtype) if isinstance(like, np.ndarray) else like.zeros(shape, dtype)
