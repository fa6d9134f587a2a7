"""Values for pixels that have none, from their neighbours.

Two ways. ``mingrad``: a missing pixel takes the mean of its two neighbours along the rows or along the columns, whichever
pair differs less: along a trace the light varies slowly, across it fast. ``fit_profile``: the profile of the source across
the dispersion, the median of the nearest columns, is scaled to the pixels of its column that are there.

References
----------
JWST pipeline documentation, "pixel_replace".
"""

import numpy as np

from calibration import dq as flags
from calibration.spectra.photom import Cutout

#: Below this signal to noise in every pixel, a profile is not scaled: its peak would be a peak of the noise.
FAINT = 5.0


def replace_pixels(cutout: Cutout) -> tuple[Cutout, int]:
    """The cutout with missing pixels filled in, flagged FLUX_ESTIMATED and no longer DO_NOT_USE; and how many were.

    A pixel that is NON_SCIENCE, or has no complete pair of neighbours, stays as it is. Variances are the mean of the pair's:
    the value is no better known than theirs.
    """
    value = _values(cutout)
    rows, columns = _pair(value, 1), _pair(value, 0)
    differ = [np.abs(pair[0] - pair[1]) for pair in (rows, columns)]
    along_rows = np.nan_to_num(differ[0], nan=np.inf) <= np.nan_to_num(differ[1], nan=np.inf)
    filled = _missing(cutout) & np.isfinite(np.where(along_rows, differ[0], differ[1]))

    def fill(plane: np.ndarray | None, power: int) -> np.ndarray | None:
        if plane is None:
            return None
        square = plane.astype(np.float64) ** power
        pairs = [_pair(square, axis) for axis in (1, 0)]
        means = [0.5 * (pair[0] + pair[1]) for pair in pairs]
        chosen = np.where(along_rows, means[0], means[1]) ** (1 / power)
        return np.where(filled, chosen, plane).astype(np.float32)

    done = Cutout(
        data=fill(cutout.data, 1),
        err=fill(cutout.err, 2),
        dq=_flagged(cutout.dq, filled),
        var_poisson=fill(cutout.var_poisson, 1),
        var_rnoise=fill(cutout.var_rnoise, 1),
        var_flat=fill(cutout.var_flat, 1),
    )
    return done, int(np.count_nonzero(filled))


def fit_profiles(cutout: Cutout, axis: int, n_adjacent_cols: int = 3) -> tuple[Cutout, int]:
    """The cutout with missing pixels filled in from the profile of the columns beside theirs; and how many were.

    Parameters
    ----------
    cutout : Cutout
    axis : int
        DISPAXIS: 1 where x runs along the dispersion, 2 where y does; a "column" is of one wavelength.
    n_adjacent_cols : int
        Columns at either side that make the profile.

    Notes
    -----
    Each column beside is divided by its peak, and the median taken; the scale is the least-squares one. Where no pixel of
    these columns is above five times its error, the median itself is the estimate. Errors are the median of those of the
    columns, scaled likewise. A pixel without a value in all these columns stays as it is, and so does one whose column has
    no value at all.
    """
    turn = (lambda plane: plane) if axis == 1 else (lambda plane: plane.T)
    value, missing = turn(_values(cutout)), turn(_missing(cutout))
    names = ("err", "var_poisson", "var_rnoise", "var_flat")
    planes = {
        name: turn(plane).astype(np.float64) for name in names if (plane := getattr(cutout, name, None)) is not None
    }
    data, filled = value.copy(), np.zeros(value.shape, bool)
    errors = {name: plane.copy() for name, plane in planes.items()}
    for x in np.flatnonzero(missing.any(axis=0) & np.isfinite(value).any(axis=0)):
        beside = np.r_[max(x - n_adjacent_cols, 0) : x, x + 1 : min(x + n_adjacent_cols + 1, value.shape[1])]
        beside = beside[np.isfinite(value[:, beside]).any(axis=0)]
        if not beside.size:
            continue
        near, at = value[:, beside], value[:, x]
        bright = np.nanmax(np.abs(near) / planes["err"][:, beside], initial=0.0) >= FAINT
        peak = np.nanmax(np.abs(near), axis=0) if bright else np.ones(beside.size)
        profile = _median(near / peak)
        shared = np.isfinite(profile) & np.isfinite(at)
        scale = 1.0
        if bright:
            if not np.any(profile[shared]):
                continue
            scale = np.sum(profile[shared] * at[shared]) / np.sum(profile[shared] ** 2)
        take = missing[:, x] & np.isfinite(profile)
        data[take, x] = scale * profile[take]
        filled[take, x] = True
        for name, plane in planes.items():
            power = 1 if name == "err" else 2
            around = np.where(np.isfinite(near), plane[:, beside], np.nan) / peak**power
            errors[name][take, x] = (_median(around) * np.abs(scale) ** power)[take]

    def single(plane: np.ndarray, original: np.ndarray) -> np.ndarray:
        return np.where(turn(filled), turn(plane), original).astype(np.float32)

    done = Cutout(
        data=single(data, cutout.data),
        dq=_flagged(cutout.dq, turn(filled)),
        **{name: single(errors[name], getattr(cutout, name)) if name in errors else None for name in names},
    )
    return done, int(np.count_nonzero(filled))


def _median(rows: np.ndarray) -> np.ndarray:
    """The median of each row without its NaN; NaN where nothing else is."""
    known = np.isfinite(rows).any(axis=1)
    result = np.full(len(rows), np.nan)
    result[known] = np.nanmedian(rows[known], axis=1)
    return result


def _missing(cutout: Cutout) -> np.ndarray:
    return ((cutout.dq & flags.PIXEL["DO_NOT_USE"]) != 0) & ((cutout.dq & flags.PIXEL["NON_SCIENCE"]) == 0)


def _values(cutout: Cutout) -> np.ndarray:
    """The signal, NaN where it is not to be used."""
    return np.where((cutout.dq & flags.PIXEL["DO_NOT_USE"]) != 0, np.nan, cutout.data).astype(np.float64)


def _flagged(dq: np.ndarray, filled: np.ndarray) -> np.ndarray:
    done = np.where(filled, (dq & ~flags.PIXEL["DO_NOT_USE"]) | flags.PIXEL["FLUX_ESTIMATED"], dq)
    return done.astype(np.uint32)


def _pair(plane: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The neighbours before and after each pixel along an axis; NaN beyond the edge."""
    padded = np.pad(plane, [(1, 1) if k == axis else (0, 0) for k in (0, 1)], constant_values=np.nan)
    before = padded[:, :-2] if axis == 1 else padded[:-2]
    after = padded[:, 2:] if axis == 1 else padded[2:]
    return before, after
