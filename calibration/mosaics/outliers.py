"""Find cosmic rays and bad pixels that one exposure has and the others have not.

All exposures are resampled onto one grid; the median of them is free of what only one of them saw. It is brought back
to the pixels of each exposure, and what differs from it by more than noise is an outlier. Near sharp edges the median
is blurred and misplaced by a fraction of a pixel, so that the threshold grows with the local slope; and beside an
outlier a lower threshold holds.

References
----------
JWST pipeline documentation, "outlier_detection", section "Imaging data". Hack and others 2012, "DrizzlePac Handbook".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from drizzle.resample import blot_image

from calibration.jit import kernel


@dataclass(frozen=True)
class Thresholds:
    """When a pixel is an outlier.

    |data - median| must be over ``snr`` sigma + ``scale`` times the largest step to a neighbour in the median: the first
    pair to be an outlier, the second to be one beside it.
    """

    snr: tuple[float, float] = (5.0, 4.0)
    scale: tuple[float, float] = (1.2, 0.7)


def mask_low_weight(data: np.ndarray, weight: np.ndarray, share: float) -> np.ndarray:
    """``data`` with NaN where the weight is less than ``share`` of its (3 sigma clipped) mean."""
    used = weight[np.isfinite(weight) & (weight != 0)]
    if used.size == 0:
        return np.full_like(data, np.nan)
    return np.where(weight < share * _clipped_mean(used), np.float32(np.nan), data)


def _clipped_mean(values: np.ndarray, sigma: float = 3.0, rounds: int = 5) -> float:
    for _ in range(rounds):
        kept = values[np.abs(values - np.median(values)) <= sigma * values.std(dtype=float)]
        if kept.size == values.size:
            break
        values = kept
    return float(values.mean(dtype=float))


def median_image(stack: Sequence[np.ndarray]) -> np.ndarray:
    """(ny, nx) float32 median of images without their NaN; NaN where all are."""
    cube = np.stack([np.asarray(plane, np.float32) for plane in stack])
    median = np.empty(cube.shape[1:], np.float32)
    _median(cube, median)
    return median


# k = image, y = row, x = column
@kernel
def _median(cube, median):
    nimages, ny, nx = cube.shape
    values = np.empty(nimages, np.float32)
    for y in range(ny):
        for x in range(nx):
            n = 0
            for k in range(nimages):
                value = cube[k, y, x]
                if not np.isnan(value):
                    # Insert in order: there are few.
                    at = n
                    while at > 0 and values[at - 1] > value:
                        values[at] = values[at - 1]
                        at -= 1
                    values[at] = value
                    n += 1
            if n == 0:
                median[y, x] = np.nan
            elif n % 2:
                median[y, x] = values[n // 2]
            else:
                median[y, x] = (values[n // 2 - 1] + values[n // 2]) / np.float32(2)


def blot(median: np.ndarray, pixmap: np.ndarray) -> np.ndarray:
    """The median as an exposure would have seen it, by linear interpolation.

    Parameters
    ----------
    median : (ny, nx) float32
    pixmap : (my, mx, 2) float64
        Where the pixels of the exposure stand in the median.

    Returns
    -------
    (my, mx) float32
        NaN where the median does not reach.
    """
    image = np.full(pixmap.shape[:2], np.nan, np.float32)
    blot_image(median, np.where(np.isnan(pixmap), -1.0, pixmap), out_img=image, fillval=np.nan, interp="linear")
    return image


def flag_outliers(
    data: np.ndarray, err: np.ndarray, model: np.ndarray, sky: float, thresholds: Thresholds
) -> np.ndarray:
    """Which pixels of an exposure differ from the median of all.

    Parameters
    ----------
    data, err : (ny, nx) float32
        The exposure, with its sky; an error that is NaN counts as 0.
    model : (ny, nx) float32
        The median at its pixels, without sky; NaN where it is unknown.
    sky : float
        Level of the sky of the exposure.
    thresholds : Thresholds

    Returns
    -------
    (ny, nx) bool
    """
    if data.shape != model.shape or err.shape != model.shape:
        raise ValueError(
            f"data {data.shape}, err {err.shape} and model {model.shape} must have one shape; blot the median first"
        )
    strong, weak = np.zeros(data.shape, np.bool_), np.zeros(data.shape, np.bool_)
    _compare(data, err, model, sky, *thresholds.snr, *thresholds.scale, strong, weak)
    _beside(strong, weak)
    return weak


@kernel
def _compare(data, err, model, sky, snr1, snr2, scale1, scale2, strong, weak):
    ny, nx = data.shape
    for y in range(ny):
        for x in range(nx):
            here = model[y, x]
            # A NaN in the data or the median compares false: nothing is flagged.
            difference = abs(data[y, x] - here - sky)
            step = np.float32(0)
            if y > 0 and abs(here - model[y - 1, x]) > step:
                step = abs(here - model[y - 1, x])
            if y < ny - 1 and abs(here - model[y + 1, x]) > step:
                step = abs(here - model[y + 1, x])
            if x > 0 and abs(here - model[y, x - 1]) > step:
                step = abs(here - model[y, x - 1])
            if x < nx - 1 and abs(here - model[y, x + 1]) > step:
                step = abs(here - model[y, x + 1])
            noise = np.float32(0) if np.isnan(err[y, x]) else err[y, x]
            strong[y, x] = difference > scale1 * step + snr1 * noise
            weak[y, x] = difference > scale2 * step + snr2 * noise


@kernel
def _beside(strong, weak):
    """Keep of ``weak`` what has a strong outlier among its eight neighbours or is one."""
    ny, nx = strong.shape
    for y in range(ny):
        for x in range(nx):
            if weak[y, x]:
                near = False
                for j in range(max(0, y - 1), min(ny, y + 2)):
                    for i in range(max(0, x - 1), min(nx, x + 2)):
                        near |= strong[j, i]
                weak[y, x] = near
