"""Find cosmic rays and bad pixels that one exposure has and the others have not.

All exposures are resampled onto one grid; the median of them is free of what only one of them saw. It is brought back
to the pixels of each exposure, and what differs from it by more than noise is an outlier. Near sharp edges the median
is blurred and misplaced by a fraction of a pixel, so that the threshold grows with the local slope; and beside an
outlier a lower threshold holds.

References
----------
JWST pipeline documentation, "outlier_detection", section "Imaging data". Hack and others 2012, "DrizzlePac Handbook".
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.jit import kernel
from calibration.medians import median_of
from calibration.strips import map_rows, rows_of


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
    """The mean without what is far from the median, which some 100 000 of the values tell well enough."""
    low, high = -np.inf, np.inf
    step = max(1, values.size // 100_000)
    before = -1
    for _ in range(rounds + 1):
        count, mean, spread = _mean_and_spread(values, low, high)
        if count == before:
            break
        before = count
        some = values[::step]
        middle = float(np.median(some[(some >= low) & (some <= high)]))
        low, high = middle - sigma * spread, middle + sigma * spread
    return mean


# k = value
@kernel
def _mean_and_spread(values, low, high):
    origin = np.float64(values[0])
    n, total, squares = 0, 0.0, 0.0
    for k in range(len(values)):
        value = np.float64(values[k])
        if value >= low and value <= high:
            n += 1
            total += value - origin
            squares += (value - origin) ** 2
    mean = total / n
    return n, origin + mean, np.sqrt(max(squares / n - mean * mean, 0.0))


def median_image(cube: Any) -> np.ndarray:
    """(ny, nx) float32 median of images (nimages, ny, nx) without their NaN; NaN where all are.

    The cube may be on disk (``infra.products.stored``); then it is read in strips of rows.
    """
    median = np.empty(cube.shape[1:], np.float32)

    def strip(rows: slice) -> None:
        part, first = rows_of(cube, rows)
        _median(part[:, rows.start - first : rows.stop - first], median[rows])

    map_rows(strip, cube)
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
                if not np.isnan(cube[k, y, x]):
                    values[n] = cube[k, y, x]
                    n += 1
            median[y, x] = median_of(values, n) if n > 0 else np.nan


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
    image = np.empty(pixmap.shape[:2], np.float32)
    _interpolate(median, pixmap, image)
    return image


# y, x = row and column of a pixel of the exposure; j, i = of the median
@kernel
def _interpolate(median, pixmap, image):
    ny, nx = image.shape
    my, mx = median.shape
    for y in range(ny):
        for x in range(nx):
            at_x, at_y = pixmap[y, x, 0], pixmap[y, x, 1]
            # NaN compares false.
            if not (at_x >= 0 and at_y >= 0 and at_x < mx - 0.5 and at_y < my - 0.5):
                image[y, x] = np.nan
                continue
            i, j = int(at_x), int(at_y)
            # Beyond the middle of the last pixel there is nothing to interpolate with.
            p, q = (at_x - i if i + 1 < mx else 0.0), (at_y - j if j + 1 < my else 0.0)
            i2, j2 = min(i + 1, mx - 1), min(j + 1, my - 1)
            image[y, x] = (1 - q) * ((1 - p) * median[j, i] + p * median[j, i2]) + q * (
                (1 - p) * median[j2, i] + p * median[j2, i2]
            )


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
