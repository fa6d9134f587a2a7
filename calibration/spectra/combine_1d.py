"""One spectrum out of several of the same source: a weighted mean, wavelength by wavelength, without interpolation.

Each exposure has its own wavelengths, shifted by a part of a pixel. All of them in one row, sorted, show n spectra as runs
of n successive values, one of each; such a run is one element of the combined spectrum. Where the run begins is free: we take
the beginning that keeps the values of a run closest together. No value is used twice and none is resampled, so that the
errors of neighbouring elements stay independent.

The peer pipeline finds its wavelengths by clumps in the same row, and puts each value into the nearest one.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spectrum:
    """A spectrum to combine: arrays (n,) and its weight.

    ``usable`` is False where there is no value. ``wavelength`` rises or falls strictly.
    """

    wavelength: np.ndarray
    flux: np.ndarray
    flux_error: np.ndarray
    brightness: np.ndarray
    brightness_error: np.ndarray
    dq: np.ndarray
    usable: np.ndarray
    weight: float


@dataclass(frozen=True)
class Combined:
    """The mean of several spectra: arrays (n,), wavelengths rising. ``weight`` is the sum of weights, ``count`` of inputs."""

    wavelength: np.ndarray
    flux: np.ndarray
    flux_error: np.ndarray
    brightness: np.ndarray
    brightness_error: np.ndarray
    dq: np.ndarray
    weight: np.ndarray
    count: np.ndarray


def combine_spectra(spectra: Sequence[Spectrum], sigma_clip: float | None = None) -> Combined:
    """The weighted mean of spectra of one source and order.

    Parameters
    ----------
    spectra : sequence of Spectrum
    sigma_clip : float, optional
        Leave out values that are further from the median of their element than so many times the median of all such
        distances.

    Raises
    ------
    ValueError
        If there is no spectrum.
    """
    if not spectra:
        raise ValueError("there is no spectrum to combine")
    wavelength = np.concatenate([spectrum.wavelength for spectrum in spectra]).astype(np.float64)
    row = np.argsort(wavelength, kind="stable")
    columns = {
        name: np.concatenate([getattr(spectrum, name) for spectrum in spectra])[row]
        for name in ("flux", "flux_error", "brightness", "brightness_error", "dq", "usable")
    }
    weight = np.concatenate([np.full(spectrum.wavelength.size, spectrum.weight, float) for spectrum in spectra])[row]
    wavelength = wavelength[row]
    element = group_wavelengths(wavelength, _coverage(wavelength, [spectrum.wavelength for spectrum in spectra]))

    keep = columns["usable"] & np.isfinite(columns["flux"]) & (weight > 0)
    if sigma_clip is not None:
        keep &= ~_outliers(columns["flux"], element, keep, sigma_clip)
    element, weight, wavelength = element[keep], weight[keep], wavelength[keep]
    columns = {name: column[keep] for name, column in columns.items()}
    numbers, element = np.unique(element, return_inverse=True)
    n = numbers.size
    total = np.bincount(element, weight, n)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(element, weight * values, n) / total

    def error(values: np.ndarray) -> np.ndarray:
        return np.sqrt(np.bincount(element, (weight * values) ** 2, n)) / total

    dq = np.zeros(n, np.uint32)
    np.bitwise_or.at(dq, element, columns["dq"].astype(np.uint32))
    return Combined(
        wavelength=mean(wavelength),
        flux=mean(columns["flux"]),
        flux_error=error(columns["flux_error"]),
        brightness=mean(columns["brightness"]),
        brightness_error=error(columns["brightness_error"]),
        dq=dq,
        weight=total,
        count=np.bincount(element, minlength=n).astype(float),
    )


def _coverage(wavelength: np.ndarray, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """How many of the inputs reach, from half a pixel before their first to half a pixel after their last, each wavelength."""
    count = np.zeros(wavelength.size, int)
    for one in inputs:
        rising = np.sort(one)
        if rising.size > 1:
            low, high = 1.5 * rising[0] - 0.5 * rising[1], 1.5 * rising[-1] - 0.5 * rising[-2]
            count += (wavelength >= low) & (wavelength < high)
        else:
            count += wavelength == rising[0]
    return np.maximum(count, 1)


def group_wavelengths(wavelength: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """(n,) int: the element of the combined spectrum that each of the sorted wavelengths goes to, counted from 0.

    Parameters
    ----------
    wavelength : (n,) float
        Wavelengths of all inputs, rising.
    coverage : (n,) int
        Number of inputs that reach each of them.
    """
    element = np.zeros(wavelength.size, int)
    edges = np.concatenate([[0], np.flatnonzero(np.diff(coverage)) + 1, [wavelength.size]])
    last = -1
    for start, stop in itertools.pairwise(edges):
        n = int(coverage[start])
        first = _best_start(wavelength[start:stop], n)
        # A first run shorter than half a run joins the next; so does the last with the one before.
        position = np.arange(stop - start) + (n - first) % n
        run = position // n
        lengths = np.bincount(run)
        if lengths.size > 1 and 2 * lengths[0] < n:
            run = np.maximum(run, 1)
        if lengths.size > 2 and 2 * lengths[-1] < n:
            run = np.minimum(run, lengths.size - 2)
        run = np.cumsum(np.diff(run, prepend=run[0]) != 0)
        element[start:stop] = last + 1 + run
        last = element[stop - 1]
    return element


def _best_start(wavelength: np.ndarray, n: int) -> int:
    """The first element (0 to n-1) of runs of n that have the least spread."""
    if n == 1 or wavelength.size < 2 * n:
        return 0
    spread = wavelength[n - 1 :] - wavelength[: wavelength.size - n + 1]
    return int(np.argmin([spread[start::n].mean() for start in range(n)]))


def _outliers(flux: np.ndarray, element: np.ndarray, keep: np.ndarray, sigma_clip: float) -> np.ndarray:
    distance = np.full(flux.size, np.nan)
    order = np.lexsort((flux, element))
    order = order[keep[order]]
    _, starts, counts = np.unique(element[order], return_index=True, return_counts=True)
    values = flux[order]
    medians = 0.5 * (values[starts + (counts - 1) // 2] + values[starts + counts // 2])
    distance[order] = np.abs(values - np.repeat(medians, counts))
    typical = np.nanmedian(distance) if keep.any() else 0.0
    return np.nan_to_num(distance, nan=0.0) > sigma_clip * typical
