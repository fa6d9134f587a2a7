"""From DN/s to surface brightness: one factor per filter, which may drift with time.

References
----------
JWST pipeline documentation, "photom", sections "Imaging" and "Time dependence".
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

#: 1 MJy/sr in microjansky per square arcsecond: 1e12 x (pi / 180 / 3600)^2.
MJSR_TO_UJA2 = 1e12 * (np.pi / 180 / 3600) ** 2

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
