"""The mean of dedicated background exposures, freed of what does not repeat, subtracted from a target exposure.

References
----------
JWST pipeline documentation, "background", section "Imaging and non-WFSS, non-SOSS spectroscopic modes".
"""

from dataclasses import dataclass

import numpy as np


def clipped_mean(stack: np.ndarray, sigma: float = 3.0, maxiters: int | None = None) -> np.ndarray:
    """Mean over the first axis without outliers.

    Parameters
    ----------
    stack : (n, ny, nx) float32
        Images of the same area; NaN where there is no value.
    sigma : float
        What is further than this many standard deviations from the median of its pixel is left out.
    maxiters : int, optional
        Number of times that outliers are looked for; as often as there are new ones by default.

    Returns
    -------
    (ny, nx) float32
        NaN where no image has a value.
    """
    return _mean(_clipped(stack, sigma, maxiters)).astype(np.float32)


def _clipped(stack: np.ndarray, sigma: float, maxiters: int | None) -> np.ndarray:
    """``stack`` in float64, NaN where a value is left out; parameters as in `clipped_mean`."""
    values = np.array(stack, np.float64)
    rounds = 0
    while maxiters is None or rounds < maxiters:
        middle, spread = _median(values), _spread(values)
        with np.errstate(invalid="ignore"):
            outlying = np.abs(values - middle) > sigma * spread
        if not outlying.any():
            break
        values[outlying] = np.nan
        rounds += 1
    return values


def _median(values: np.ndarray) -> np.ndarray:
    # np.nanmedian warns at, and is slow for, pixels that have no value.
    ordered = np.sort(values, axis=0)
    count = np.isfinite(values).sum(axis=0)
    low = np.maximum((count - 1) // 2, 0)[None]
    high = np.maximum(count // 2, 0).clip(max=len(values) - 1)[None]
    return (np.take_along_axis(ordered, low, 0)[0] + np.take_along_axis(ordered, high, 0)[0]) / 2


def _mean(values: np.ndarray) -> np.ndarray:
    count = np.isfinite(values).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.isfinite(values), values, 0).sum(axis=0) / count


def _spread(values: np.ndarray) -> np.ndarray:
    return np.sqrt(_mean((values - _mean(values)) ** 2))


@dataclass(frozen=True)
class Background:
    """The mean of background exposures: ``data`` and ``err``, its standard deviation, (ny, nx) float32; ``dq`` uint32."""

    data: np.ndarray
    err: np.ndarray
    dq: np.ndarray


def average_background(
    images: list[np.ndarray],
    errors: list[np.ndarray],
    flags: list[np.ndarray],
    sigma: float = 3.0,
    maxiters: int | None = None,
) -> Background:
    """The mean of the background exposures, its error, and all flags of any of them.

    Parameters
    ----------
    images : list of (ny, nx) or (nints, ny, nx) float32
        Background exposures of the area of the target. Integrations are averaged first, clipped like the exposures; the
        variance of their mean is taken to be that of one of them, their (clipped) mean.
    errors : list of float32, of the same shapes
        Standard deviations.
    flags : list of uint32, of the same shapes
    sigma, maxiters
        As in `clipped_mean`.

    Raises
    ------
    ValueError
        If the exposures cover different areas.
    """
    shapes = {image.shape[-2:] for image in images}
    if len(shapes) != 1:
        raise ValueError(
            f"background exposures must cover one area, but have the shapes {sorted(shapes)}; "
            "give those of the subarray of the target"
        )

    def level(plane: np.ndarray) -> np.ndarray:
        return plane if plane.ndim == 2 else clipped_mean(plane, sigma, maxiters)

    values = _clipped(np.stack([level(image) for image in images]), sigma, maxiters)
    used = np.isfinite(values)
    variances = np.stack([level(error.astype(np.float64) ** 2) for error in errors])
    with np.errstate(invalid="ignore", divide="ignore"):
        err = np.sqrt(np.where(used, variances, 0).sum(axis=0)) / used.sum(axis=0)
    dq = np.bitwise_or.reduce([plane if plane.ndim == 2 else np.bitwise_or.reduce(plane, axis=0) for plane in flags])
    return Background(_mean(values).astype(np.float32), err.astype(np.float32), dq)
