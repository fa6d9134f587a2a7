"""Charge that a pixel lends to its neighbours through the capacitance between them, given back by a small convolution.

The reference kernel is the inverse of the coupling. Reference pixels are neither corrected nor used.
Source: JWST pipeline documentation, "ipc".
"""

from dataclasses import dataclass

import numpy as np

from calibration.jit import kernel
from calibration.subarrays import Subarray


@dataclass(frozen=True)
class Border:
    """How many rows and columns of an array are reference pixels, on each side [pixel]."""

    bottom: int
    top: int
    left: int
    right: int


def near_infrared_border(subarray: Subarray) -> Border:
    """The reference pixels in a part of a 2048 x 2048 detector, which has four of them along each edge."""
    x, y = subarray.xstart - 1, subarray.ystart - 1
    return Border(max(0, 4 - y), max(0, y + subarray.ysize - 2044), max(0, 4 - x), max(0, x + subarray.xsize - 2044))


def mid_infrared_border(subarray: Subarray) -> Border:
    """The reference pixels in a part of a 1024 x 1032 MIRI detector, which has four columns of them left and right."""
    x = subarray.xstart - 1
    return Border(0, 0, max(0, 4 - x), max(0, x + subarray.xsize - 1028))


def undo_ipc(data: np.ndarray, coupling: np.ndarray, border: Border, rows: np.ndarray | None = None) -> np.ndarray:
    """Ramps without the coupling between pixels.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN].
    coupling : (nky, nkx) or (nky, nkx, ny, nx) float32
        Convolution kernel, one for all pixels or one for each. Odd sizes.
    border : Border
    rows : (nrows,) int, optional
        Which rows of ``data`` are rows of the detector, ascending; default: all. Others stay as they are.

    Returns
    -------
    (nints, ngroups, ny, nx) float32
    """
    if coupling.ndim not in (2, 4) or coupling.shape[0] % 2 == 0 or coupling.shape[1] % 2 == 0:
        raise ValueError(
            f"the IPC kernel must have an odd number of rows and columns and 2 or 4 dimensions, but has the shape "
            f"{coupling.shape}"
        )
    rows = np.arange(data.shape[-2]) if rows is None else rows
    area = (rows.size, data.shape[-1])
    if coupling.ndim == 4 and coupling.shape[-2:] != area:
        raise ValueError(
            f"a kernel per pixel must cover the detector area of the data, {area}, but covers "
            f"{coupling.shape[-2:]}; cut the reference to the subarray first"
        )
    per_pixel = coupling if coupling.ndim == 4 else coupling[:, :, None, None]
    corrected = data.copy()
    _convolve(data, rows, per_pixel, border.bottom, border.top, border.left, border.right, corrected)
    return corrected


# i = integration, g = group, y = row, x = column; v, u = row and column of the kernel
@kernel
def _convolve(data, rows, coupling, bottom, top, left, right, corrected):
    nints, ngroups, _, nx = data.shape
    ny = rows.size
    nv, nu = coupling.shape[:2]
    one_for_all = coupling.shape[2] == 1 and coupling.shape[3] == 1
    total = np.empty(nx)
    for i in range(nints):
        for g in range(ngroups):
            for y in range(bottom, ny - top):
                total[:] = 0.0
                for v in range(nv):
                    row = y + nv // 2 - v
                    if row < bottom or row >= ny - top:
                        continue
                    source = data[i, g, rows[row]]
                    for u in range(nu):
                        shift = nu // 2 - u
                        start, stop = max(left, left - shift), min(nx - right, nx - right - shift)
                        shifted, part = source[start + shift : stop + shift], total[start:stop]
                        if one_for_all:
                            factor = np.float64(coupling[v, u, 0, 0])
                            for x in range(part.size):
                                part[x] += factor * np.float64(shifted[x])
                        else:
                            factors = coupling[v, u, y, start:stop]
                            for x in range(part.size):
                                part[x] += np.float64(factors[x]) * np.float64(shifted[x])
                out = corrected[i, g, rows[y]]
                for x in range(left, nx - right):
                    out[x] = total[x]
