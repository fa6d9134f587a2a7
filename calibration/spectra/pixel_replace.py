"""Values for pixels that have none, from their neighbours, where the image changes least.

A missing pixel takes the mean of its two neighbours along the rows or along the columns, whichever pair differs less: along
a trace the light varies slowly, across it fast.

References
----------
JWST pipeline documentation, "pixel_replace", algorithm "mingrad".
"""

import numpy as np

from calibration import dq as flags
from calibration.spectra.photom import Cutout


def replace_pixels(cutout: Cutout) -> tuple[Cutout, int]:
    """The cutout with missing pixels filled in, flagged FLUX_ESTIMATED and no longer DO_NOT_USE; and how many were.

    A pixel that is NON_SCIENCE, or has no complete pair of neighbours, stays as it is. Variances are the mean of the pair's:
    the value is no better known than theirs.
    """
    missing = ((cutout.dq & flags.PIXEL["DO_NOT_USE"]) != 0) & ((cutout.dq & flags.PIXEL["NON_SCIENCE"]) == 0)
    value = np.where((cutout.dq & flags.PIXEL["DO_NOT_USE"]) != 0, np.nan, cutout.data).astype(np.float64)
    rows, columns = _pair(value, 1), _pair(value, 0)
    differ = [np.abs(pair[0] - pair[1]) for pair in (rows, columns)]
    along_rows = np.nan_to_num(differ[0], nan=np.inf) <= np.nan_to_num(differ[1], nan=np.inf)
    filled = missing & np.isfinite(np.where(along_rows, differ[0], differ[1]))

    def fill(plane: np.ndarray | None, power: int) -> np.ndarray | None:
        if plane is None:
            return None
        square = plane.astype(np.float64) ** power
        pairs = [_pair(square, axis) for axis in (1, 0)]
        means = [0.5 * (pair[0] + pair[1]) for pair in pairs]
        chosen = np.where(along_rows, means[0], means[1]) ** (1 / power)
        return np.where(filled, chosen, plane).astype(np.float32)

    dq = np.where(filled, (cutout.dq & ~flags.PIXEL["DO_NOT_USE"]) | flags.PIXEL["FLUX_ESTIMATED"], cutout.dq)
    done = Cutout(
        data=fill(cutout.data, 1),
        err=fill(cutout.err, 2),
        dq=dq.astype(np.uint32),
        var_poisson=fill(cutout.var_poisson, 1),
        var_rnoise=fill(cutout.var_rnoise, 1),
        var_flat=fill(cutout.var_flat, 1),
    )
    return done, int(np.count_nonzero(filled))


def _pair(plane: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The neighbours before and after each pixel along an axis; NaN beyond the edge."""
    padded = np.pad(plane, [(1, 1) if k == axis else (0, 0) for k in (0, 1)], constant_values=np.nan)
    before = padded[:, :-2] if axis == 1 else padded[:-2]
    after = padded[:, 2:] if axis == 1 else padded[2:]
    return before, after
