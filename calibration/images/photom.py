"""From DN/s to surface brightness: one factor per filter, which may drift with time.

References
----------
JWST pipeline documentation, "photom", sections "Imaging" and "Time dependence".
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from calibration import dq as bits

#: 1 MJy/sr in microjansky per square arcsecond: 1e12 x (pi / 180 / 3600)^2.
MJSR_TO_UJA2 = 1e12 * (np.pi / 180 / 3600) ** 2

#: The planes that go with the square of the factor.
VARIANCES = ("var_poisson", "var_rnoise", "var_flat")

_DAYS_PER_YEAR = 365.0


def find_photom_row(table: np.ndarray, match: Mapping[str, str]) -> int | None:
    """The row of a PHOTOM table whose columns have these values, letter case and blanks apart; None if there is none.

    Raises
    ------
    ValueError
        If several rows match.
    """
    chosen = np.ones(len(table), bool)
    for column, value in match.items():
        chosen &= np.array([str(cell).strip().upper() == value.strip().upper() for cell in table[column]])
    rows = np.flatnonzero(chosen)
    if len(rows) > 1:
        what = ", ".join(f"{column} {value}" for column, value in match.items())
        raise ValueError(f"the PHOTOM table must have one row for {what}, but has {len(rows)}")
    return int(rows[0]) if len(rows) else None


def fading(coefficients: Mapping[str, Mapping[str, Any]], mjd: float) -> float:
    """The fraction of the light of day zero that is recorded at a time: the product of the trends that are given.

    Parameters
    ----------
    coefficients : mapping
        Trend ("linear", "exponential", "powerlaw") -> its coefficients for the row: ``t0`` [MJD] and
        ``lossperyear`` | ``amplitude``, ``tau`` [d], ``const`` | ``year1value``, ``tsoft`` [d], ``alpha``.
    mjd : float
        Middle of the exposure [MJD].
    """
    fraction = 1.0
    for trend, value in coefficients.items():
        days = mjd - float(value["t0"])
        if trend == "linear":
            fraction *= 1 - float(value["lossperyear"]) * days / _DAYS_PER_YEAR
        elif trend == "exponential":
            fraction *= float(value["amplitude"]) * np.exp(-days / float(value["tau"])) + float(value["const"])
        elif trend == "powerlaw":
            soft = float(value["tsoft"])
            base = (days + soft) / (_DAYS_PER_YEAR + soft)
            fraction *= float(value["year1value"]) * base ** float(value["alpha"])
        else:
            raise ValueError(f"expected a trend linear, exponential or powerlaw, but got {trend!r}")
    return float(fraction)


def scale_planes(
    planes: Mapping[str, np.ndarray], dq: np.ndarray, factor: float
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Multiply an image and its errors by a factor, and mark with one voice what cannot be used.

    Parameters
    ----------
    planes : mapping
        ``data``, ``err`` and any of `VARIANCES`, which take the square of the factor: arrays of one shape, float32.
    dq : uint32, of the same shape
    factor : float

    Returns
    -------
    planes : dict
        Where any of them is NaN or the flags say DO_NOT_USE, all of them are NaN.
    dq : uint32
        With DO_NOT_USE there; ``dq`` itself where that is so already.
    """
    do_not_use = bits.PIXEL["DO_NOT_USE"]
    flagged = (dq & do_not_use) != 0
    invalid = flagged.copy()
    scaled = {}
    for name, plane in planes.items():
        scaled[name] = plane * np.float32(factor**2 if name in VARIANCES else factor)
        invalid |= np.isnan(plane)
    for plane in scaled.values():
        plane[invalid] = np.nan
    return scaled, dq if (invalid == flagged).all() else dq | np.where(invalid, do_not_use, np.uint32(0))
