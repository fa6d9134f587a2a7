"""Slow Fourier components of readout noise, fitted to the pixels that show background only ("NSClean").

Of a full frame each line is fitted by itself, and lines are smoothed a little across; of a subarray, whose lines are short,
runs of lines are fitted as one series in time, with the clocks between lines in it. The fit is linear least squares with
weights that grow where usable pixels are rare. The components are a one-sided Fourier series with complex coefficients, of
which the real part is the model: as in the paper, not the fit of a real series, to which it tends where few pixels are masked.

The matrix of the normal equations depends on the differences of two frequencies only: its elements are Fourier components
of the squared weights. So a line of a full frame costs two products with a table of some ten sines and cosines, and a run of
lines two short transforms; and either the solution of as many equations.

The weights and the smoothing of the official package lie one pixel off centre (an index of its kernels); ours do, too, for
the same products: the smoothed noise comes from the line before. ``OFF_CENTRE = 0`` is the fit without that; of simulated
1/f noise of 3.0 DN rms in a full frame it leaves 2.31 DN, as it is 2.38 DN are left. In subarrays there is no difference.

Source: Rauscher 2024, PASP 136, 015001; JWST pipeline documentation, "clean_flicker_noise", method "fft".
"""

import logging
from functools import lru_cache

import numpy as np
from scipy.fft import fft, irfft, rfft

log = logging.getLogger(__name__)

OFF_CENTRE = 1  # [pixel]
ROBUST = 1.4826  # standard deviation of a Gaussian, in median absolute deviations

# Full frame
HALF_POWER = 1 / 256  # [1/pixel], where the filter has half its power
ROLL_OFF = HALF_POWER / 4  # [1/pixel], over which it falls from 1 to 0
DENSITY_WIDTH = 32.0  # [pixel], over which usable pixels are counted
LEAST_DENSITY = 1e-5  # that tells something: float32 rounding is a tenth of it
SMOOTHING = 1.5  # [lines]
OUTLIER = 3.0  # [sigma]
BORDER = 4  # lines of reference pixels

# Subarray
TICK = 10e-6  # [s] per pixel
OVERHEAD = 12  # [ticks] between lines
ALTERNATING = (49_943.0, 49_957.0)  # [Hz], from where to where the filter rises again: odd and even columns
RUN = 512  # usable pixels of a run of lines
LAST_RUN = 1.5  # runs that the last one may be long
LEAST_USABLE = 0.05  # part of a run
SUBARRAY_OUTLIER, SUBARRAY_ROBUST = 4.0, 1.4825  # [sigma], as the official package has it


def fit_full_frame(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Noise (nlines, nx) float32 of an image in the order of readout: lines along the fast axis.

    Parameters
    ----------
    image : (nlines, nx) float32
        Without NaN.
    mask : (nlines, nx) bool
        Pixels that are fitted. A line without any has no noise of its own, but its share of its neighbours'.
    """
    nlines, nx = image.shape
    gain = _low_pass(np.fft.rfftfreq(nx))
    number = np.flatnonzero(gain > 0).size
    angle = 2 * np.pi / nx * np.outer(np.arange(nx), np.arange(number))
    # Cosines, then sines: products of real numbers are half the work, and float32 is enough for what is fitted.
    table = np.concatenate([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    lines = np.flatnonzero(mask.any(axis=1))
    lines = lines[(lines >= BORDER) & (lines < nlines - BORDER)]
    coefficients = np.zeros((nlines, number), complex)
    if lines.size:
        weight = np.square(_inverse_density(mask)[lines])
        squares = weight @ table
        weight *= _without_outliers(image[lines], mask[lines])
        products = weight @ table
        squares, products = (one[:, :number] - 1j * one[:, number:] for one in (squares, products))
        # Element (k, l) is the component k - l of the squared weights.
        apart = np.subtract.outer(np.arange(number), np.arange(number))
        matrix = np.where(apart >= 0, squares[:, np.abs(apart)], squares[:, np.abs(apart)].conj())
        coefficients[lines] = np.linalg.solve(matrix.astype(complex), products[..., None].astype(complex))[..., 0]
    coefficients *= gain[:number] * np.exp(-2j * np.pi / nx * OFF_CENTRE * np.arange(number))
    coefficients[:, 1:] *= 2
    smooth = _smooth(coefficients)
    return np.concatenate([smooth.real, -smooth.imag], axis=1).astype(np.float32) @ table.T


def fit_subarray(image: np.ndarray, mask: np.ndarray, slow: tuple[float, float]) -> np.ndarray:
    """Noise (nlines, nx) float32 of a subarray in the order of readout.

    Parameters
    ----------
    image : (nlines, nx) float32
        Without NaN.
    mask : (nlines, nx) bool
        Pixels that may be fitted; outliers among them and their neighbours are not.
    slow : (float, float)
        Frequencies [Hz] up to which components count fully, and from which on not at all.
    """
    usable = _without_neighbours_of_outliers(image, mask)
    runs = _runs(usable)
    model, total = np.zeros(image.shape), np.zeros(image.shape)
    scarce = 0
    for start, end in runs:
        part = usable[start:end]
        weight = (1.001 - np.abs(np.linspace(-1, 1, end - start)))[:, None]
        total[start:end] += weight
        if part.mean() > LEAST_USABLE:
            model[start:end] += weight * _fit_run(image[start:end], part, slow)
        else:
            scarce += 1
    if scarce:
        log.warning(
            "clean_flicker_noise: %d of %d runs of lines have too few usable pixels for a fit", scarce, len(runs)
        )
    return np.divide(model, total, out=np.zeros(image.shape), where=total > 0).astype(np.float32)


def _fit_run(image: np.ndarray, mask: np.ndarray, slow: tuple[float, float]) -> np.ndarray:
    """The noise of lines that are fitted as one series in time."""
    length, clock, k, apart, gain, kernel = _of_shape(*image.shape, slow)
    ticks = clock[mask]
    seen, weight, weighted = np.zeros((3, length))
    seen[ticks] = 1
    weight[ticks] = 1 / np.square(irfft(rfft(seen) * kernel, length)[ticks])
    weighted[ticks] = weight[ticks] * image[mask]
    series = np.zeros(length // 2 + 1, complex)
    series[k] = np.linalg.solve(fft(weight)[apart], rfft(weighted)[k]) * gain * length
    return irfft(series, length)[clock]


@lru_cache(maxsize=64)
def _of_shape(
    nlines: int, nx: int, slow: tuple[float, float]
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What all runs of so many lines share: ticks in all, tick of each pixel; components, their differences and their
    gain; and the transform of what counts nearby pixels."""
    length = nlines * (nx + OVERHEAD)
    clock = np.arange(nlines)[:, None] * (nx + OVERHEAD) + np.arange(nx)
    gain = _pass_slow_and_alternating(np.fft.rfftfreq(length, TICK), slow)
    k = np.flatnonzero(gain > 0)
    width = 1 / (4 * (slow[0] + slow[1]) * TICK)  # a quarter of half a period [ticks]
    return length, clock, k, np.subtract.outer(k, k), gain[k], rfft(_gaussian(length, width))


def _low_pass(frequency: np.ndarray) -> np.ndarray:
    """1 for slow components, then a quarter of a sine down to 0."""
    fall = 0.5 * (1 - np.sin(np.pi * (frequency - HALF_POWER) / ROLL_OFF))
    return np.select(
        [frequency <= HALF_POWER - ROLL_OFF / 2, frequency <= HALF_POWER + ROLL_OFF / 2],
        [np.ones_like(fall), fall],
        0.0,
    )


def _pass_slow_and_alternating(frequency: np.ndarray, slow: tuple[float, float]) -> np.ndarray:
    fall = np.clip((frequency - slow[0]) / (slow[1] - slow[0]), 0, 1)
    rise = np.clip((frequency - ALTERNATING[0]) / (ALTERNATING[1] - ALTERNATING[0]), 0, 1)
    return 0.5 * (1 + np.cos(np.pi * fall)) + 0.5 * (1 - np.cos(np.pi * rise))


def _inverse_density(mask: np.ndarray) -> np.ndarray:
    """Weight (nlines, nx) float32 of each usable pixel: one over the share of usable pixels about it."""
    kernel = rfft(_gaussian(mask.shape[1], DENSITY_WIDTH).astype(np.float32))
    seen = mask.astype(np.float32)
    density = np.roll(irfft(rfft(seen) * kernel, mask.shape[1]), OFF_CENTRE, axis=0)
    # Where the line before has no usable pixel, its own count.
    bare = np.flatnonzero((density < LEAST_DENSITY).any(axis=1))
    own = irfft(rfft(seen[bare]) * kernel, mask.shape[1])
    density[bare] = np.where(density[bare] < LEAST_DENSITY, own, density[bare])
    return np.divide(np.float32(1), density, out=np.zeros_like(density), where=mask)


def _gaussian(n: int, width: float) -> np.ndarray:
    """A Gaussian of the integral 1 about ``OFF_CENTRE`` on n places, the last of which is beside the first."""
    distance = (np.arange(n) - OFF_CENTRE + n // 2) % n - n // 2
    return np.exp(-0.5 * (distance / width) ** 2) / (width * np.sqrt(2 * np.pi))


def _without_outliers(lines: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Lines (nlines, nx) with the median of the line in place of values that are far from it, and of masked ones."""
    middle = _median_of_lines(lines, mask)
    distance = np.abs(lines - middle)
    sigma = np.float32(ROBUST) * _median_of_lines(distance, mask)
    return np.where(mask & (distance <= np.float32(OUTLIER) * sigma), lines, middle)


def _median_of_lines(lines: np.ndarray, mask: np.ndarray) -> np.ndarray:
    ordered = np.sort(np.where(mask, lines, np.float32(np.inf)), axis=1)
    counts = np.count_nonzero(mask, axis=1)[:, None]
    lower, upper = (np.take_along_axis(ordered, place, 1) for place in ((counts - 1) // 2, counts // 2))
    return np.float32(0.5) * (lower + upper)


def _smooth(coefficients: np.ndarray) -> np.ndarray:
    """The components of lines, smoothed across lines; the last line is beside the first."""
    reach = int(np.ceil(8 * SMOOTHING))
    smoothed = np.zeros_like(coefficients)
    for distance in range(-reach, reach + 1):
        height = np.exp(-0.5 * (distance / SMOOTHING) ** 2) / (SMOOTHING * np.sqrt(2 * np.pi))
        smoothed += height * np.roll(coefficients, distance + OFF_CENTRE, axis=0)
    return smoothed


def _without_neighbours_of_outliers(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """``mask`` without pixels far from the median and the four beside each."""
    values = image[mask]
    if not values.size:
        return mask
    middle = np.median(values)
    sigma = SUBARRAY_ROBUST * np.median(np.abs(values - middle))
    outlier = mask & (np.abs(image - middle) > SUBARRAY_OUTLIER * sigma)
    bad = outlier.copy()
    bad[1:] |= outlier[:-1]
    bad[:-1] |= outlier[1:]
    bad[:, 1:] |= outlier[:, :-1]
    bad[:, :-1] |= outlier[:, 1:]
    return mask & ~bad


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and last-plus-one line of runs that overlap by half and have more than ``RUN`` usable pixels each."""
    per_line = np.count_nonzero(mask, axis=1)
    lines = np.flatnonzero(per_line)
    if not lines.size:
        return []
    before = np.concatenate([[0], np.cumsum(per_line)])
    start, end_of_all = int(lines[0]), int(lines[-1]) + 1
    runs = []
    while True:
        end = end_of_all
        if before[-1] - before[start] > LAST_RUN * RUN:
            enough = int(np.searchsorted(before, before[start] + RUN, "right"))
            end = min(max(enough, start + 1), end_of_all)
        runs.append((start, end))
        if end == end_of_all:
            return runs
        start += max(round((end - start) / 2), 1)
