"""Count rates of an exposure that was taken with a non-standard gain setting, in the standard DN.

Source: JWST pipeline documentation, "gain_scale".
"""

import numpy as np


def rescale_rates(
    data: np.ndarray, err: np.ndarray, var_poisson: np.ndarray, var_rnoise: np.ndarray, gain_factor: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rate, standard deviation and variances times the gain factor (the variances times its square).

    Parameters
    ----------
    data, err : (..., ny, nx) float32
        [DN/s]
    var_poisson, var_rnoise : (..., ny, nx) float32
        [(DN/s)^2]
    gain_factor : float
        GAINFACT of the gain reference; above 0.
    """
    if not gain_factor > 0:
        raise ValueError(f"the gain factor must be above 0, but is {gain_factor}; check GAINFACT of the gain reference")
    factor, square = np.float32(gain_factor), np.float32(gain_factor**2)
    return data * factor, err * factor, var_poisson * square, var_rnoise * square
