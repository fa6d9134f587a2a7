"""Where on the detector sources are known to be, however faint: pixels that are no background for the fit of 1/f noise.

Source: JWST pipeline documentation, "clean_flicker_noise", option mask_science_regions; Baines et al. 2023,
arXiv:2311.07769, for the traces of NIRISS SOSS.
"""

from collections.abc import Iterable

import numpy as np

#: Rows above and below the middle of a trace of NIRISS SOSS that it may cover [pixel].
HALF_WIDTH = 16
#: Rows of SUBSTRIP256, in which traces are described, and the one at which SUBSTRIP96 begins.
STRIP_ROWS = 256
FIRST_ROW = {"SUBSTRIP256": 0, "SUBSTRIP96": 10}


def soss_traces(
    traces: Iterable[tuple[np.ndarray, tuple[float, float]]], angle: float, subarray: str, shape: tuple[int, int]
) -> np.ndarray:
    """Pixels (ny, nx) bool that the spectra of NIRISS SOSS may cover.

    Parameters
    ----------
    traces : iterable of ((n, 2) float, (float, float))
        Of each order, columns and rows of its middle in SUBSTRIP256 [pixel, from 0], and the point about which the
        pupil wheel turns it.
    angle : float
        By which the wheel is off its commanded position [deg].
    subarray : str
        A key of ``FIRST_ROW``.
    shape : (ny, nx)
    """
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])
    covered = np.zeros(shape, np.bool_)
    turn = np.exp(1j * np.deg2rad(angle))
    for trace, (pivot_x, pivot_y) in traces:
        first = FIRST_ROW[subarray]
        pivot = pivot_x + 1j * pivot_y
        turned = (trace[:, 0] + 1j * (trace[:, 1] - first) - pivot) * turn + pivot
        order = np.argsort(turned.real)
        middle = np.interp(columns, turned.real[order], turned.imag[order])
        inside = middle <= STRIP_ROWS - 1
        # A spectrum that leaves the strip stays at its edge.
        middle = np.interp(columns, columns[inside], middle[inside]) if inside.any() else np.full(shape[1], np.inf)
        covered |= (rows >= np.floor(middle - HALF_WIDTH)) & (rows <= np.ceil(middle + HALF_WIDTH))
    return covered
