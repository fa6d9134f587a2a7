"""``Stored``: an array of a large exposure, in a scratch file. It is read and written by integrations or by rows.

Plain reads and writes, not a memory map: pages of a map count as memory of the process. The file has no name and is
gone with the last reference to it, however the process ends.
"""

import math
import os
import tempfile
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from infra.products.header import ProductError


@dataclass(frozen=True, eq=False)
class Stored:
    """An array (..., ny, nx) on disk, zero where nothing was written.

    Attributes
    ----------
    shape, dtype
        As of an ndarray; ``dtype`` is in native byte order.
    rows_at_once : int
        How many rows, of all integrations, may be in memory together.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    rows_at_once: int
    file: IO[bytes]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Size on disk."""
        return math.prod(self.shape) * self.dtype.itemsize

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> "Stored":
        """A new array of zeros on the same disk."""
        return store(shape, dtype, self.rows_at_once)

    def __getitem__(self, index: Any) -> np.ndarray:
        """``array[i]``, ``array[first:last]`` (integrations) or ``array[..., first:last, :]`` (rows), in memory."""
        integrations, rows = self._range(index)
        shape = (len(integrations), *self.shape[1:-2], len(rows), self.shape[-1])
        array = np.empty(shape, self.dtype)
        self._move(os.preadv, array, integrations, rows)
        return array[0] if isinstance(index, int | np.integer) else array

    def __setitem__(self, index: Any, values: np.ndarray) -> None:
        """Write integrations or rows."""
        integrations, rows = self._range(index)
        shape = (len(integrations), *self.shape[1:-2], len(rows), self.shape[-1])
        given = values[None] if isinstance(index, int | np.integer) else values
        if given.shape != shape:
            raise ValueError(f"expected values of the shape {shape}, but they have {given.shape}")
        self._move(os.pwritev, np.ascontiguousarray(given, self.dtype), integrations, rows)

    def _range(self, index: Any) -> tuple[range, range]:
        """Integrations (of the first axis) and rows that an index names."""
        nints, ny = self.shape[0], self.shape[-2]
        if isinstance(index, int | np.integer):
            index = slice(int(index), int(index) + 1)
        if isinstance(index, slice):
            index = (index, Ellipsis)
        parts = list(index)
        if Ellipsis in parts:
            at = parts.index(Ellipsis)
            parts[at : at + 1] = [slice(None)] * (self.ndim + 1 - len(parts))
        parts += [slice(None)] * (self.ndim - len(parts))
        first, *middle, rows, columns = parts
        whole = slice(None)
        if (
            any(part != whole for part in (*middle, columns))
            or not isinstance(first, slice)
            or not isinstance(rows, slice)
        ):
            raise TypeError(f"an array on disk is read by integrations or by rows, not by {index!r}")
        chosen = range(nints)[first], range(ny)[rows]
        if any(part.step != 1 for part in chosen):
            raise TypeError(f"an array on disk is read without steps, not by {index!r}")
        return chosen

    def _move(self, call: Any, array: np.ndarray, integrations: range, rows: range) -> None:
        ny, nx = self.shape[-2:]
        planes = math.prod(self.shape[1:-2])
        pixel = self.dtype.itemsize * nx
        if not array.size:
            return
        if len(rows) == ny:
            self._move_bytes(call, array, integrations.start * planes * ny * pixel)
            return
        blocks = array.reshape(-1, len(rows), nx)
        for k, block in enumerate(blocks):
            self._move_bytes(call, block, ((integrations.start * planes + k) * ny + rows.start) * pixel)

    def _move_bytes(self, call: Any, array: np.ndarray, offset: int) -> None:
        view = memoryview(array).cast("B")  # type: ignore[arg-type]
        done = 0
        while done < len(view):
            moved = call(self.file.fileno(), [view[done : done + 2**30]], offset + done)
            if moved == 0:
                raise ProductError("a scratch file of this run is cut short; run the exposure again")
            done += moved


def store(shape: tuple[int, ...], dtype: Any, rows_at_once: int) -> Stored:
    """A new array of zeros on disk, in the scratch folder (``CALWEAVE_SCRATCH``, default: that of temporary files).

    Raises
    ------
    ProductError
        If the disk has no room for it.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    folder = os.environ.get("CALWEAVE_SCRATCH") or tempfile.gettempdir()
    os.makedirs(folder, exist_ok=True)
    file = tempfile.TemporaryFile(prefix="calweave-", dir=folder)  # noqa: SIM115 (it lives as long as the array)
    room = os.fstatvfs(file.fileno())
    if size > room.f_bavail * room.f_frsize:
        file.close()
        raise ProductError(
            f"a scratch array needs {size / 1e9:.1f} GB in {folder}, which has room for "
            f"{room.f_bavail * room.f_frsize / 1e9:.1f} GB; set CALWEAVE_SCRATCH to a folder of a larger disk, or give more "
            "--memory, so that the exposure need not go in blocks"
        )
    file.truncate(size)
    return Stored(tuple(shape), dtype, rows_at_once, file)
