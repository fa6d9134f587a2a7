"""The mean of dedicated background exposures, freed of what does not repeat, subtracted from a target exposure.

References
----------
JWST pipeline documentation, "background", section "Imaging and non-WFSS, non-SOSS spectroscopic modes".
"""

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
    return _mean(values).astype(np.float32)


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


def average_background(
    images: list[np.ndarray], flags: list[np.ndarray], sigma: float = 3.0, maxiters: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the background exposures, and all flags of any of them.

    Parameters
    ----------
    images : list of (ny, nx) or (nints, ny, nx) float32
        Background exposures of the area of the target; integrations are averaged first.
    flags : list of uint32, of the same shapes
    sigma, maxiters
        As in `clipped_mean`.

    Returns
    -------
    background : (ny, nx) float32
    dq : (ny, nx) uint32
    """
    shapes = {image.shape[-2:] for image in images}
    if len(shapes) != 1:
        raise ValueError(
            f"background exposures must cover one area, but have the shapes {sorted(shapes)}; "
            "give those of the subarray of the target"
        )
    stack = np.stack([image if image.ndim == 2 else clipped_mean(image, sigma, maxiters) for image in images])
    dq = np.bitwise_or.reduce([plane if plane.ndim == 2 else np.bitwise_or.reduce(plane, axis=0) for plane in flags])
    return clipped_mean(stack, sigma, maxiters), dq
