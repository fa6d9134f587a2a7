"""The fixed pattern that every read of the detector has: subtracted from each group.

Source: JWST pipeline documentation, "superbias".
"""

import numpy as np


def subtract_bias(data: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Ramps without the bias.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN].
    bias : (ny, nx) float32
        Superbias [DN]; NaN where it is not known: nothing is subtracted there.

    Returns
    -------
    (nints, ngroups, ny, nx) float32

    Raises
    ------
    ValueError
        If ``bias`` covers another detector area than ``data``.
    """
    _require_same_area(data, bias)
    return data - np.where(np.isnan(bias), np.float32(0), bias)


def subtract_bias_from_zeroframe(zeroframe: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """First frames without the bias; 0 stays 0, which marks an unusable value.

    Parameters
    ----------
    zeroframe : (nints, ny, nx) float32
        [DN]
    bias : (ny, nx) float32
        [DN]
    """
    _require_same_area(zeroframe, bias)
    return np.where(zeroframe == 0, np.float32(0), zeroframe - np.where(np.isnan(bias), np.float32(0), bias))


def _require_same_area(data: np.ndarray, bias: np.ndarray) -> None:
    if bias.shape != data.shape[-2:]:
        raise ValueError(
            f"the superbias must cover the detector area of the data, {data.shape[-2:]}, but has the shape "
            f"{bias.shape}; cut the reference to the subarray first"
        )
