"""The sky of a slitless exposure: a reference image of its pattern, scaled to the pixels without spectra.

A grism spreads the uniform sky over the detector in a pattern of its own. The pattern is known; its level is what the
pixels say that no spectrum covers: the factor that minimises the residual, again and again without the few per cent of
pixels with the lowest and the highest residual, which are bad pixels and faint sources.

All pixels count alike. The peer weights them by their variance; but that was made from the counts of the same pixel, so
that a pixel that is low by chance seems more precise, and the level comes out low: by 0.4 % of the sky at 0.04 DN/s of noise on
0.5 DN/s, which is 3 % of the flux of a source of magnitude 23.

References
----------
JWST pipeline documentation, "background", section "WFSS mode".
"""

from dataclasses import dataclass

import numpy as np

from calibration import dq as flags

#: Of all pixels, the part that must be free of spectra for the level to be trusted.
LEAST_FREE = 0.05


class TooFewFreePixels(ValueError):
    """Spectra cover so much of the detector that the level of the sky cannot be told; the message says how much."""


@dataclass(frozen=True)
class WfssBackground:
    """What `subtract_wfss_background` found.

    Attributes
    ----------
    data : (ny, nx) float32
        The image without the sky.
    dq : (ny, nx) uint32
        Its flags, with those of the reference.
    factor : float
        What the reference was multiplied with.
    free : int
        Number of pixels that the factor was taken from, before outliers were left out.
    """

    data: np.ndarray
    dq: np.ndarray
    factor: float
    free: int


def mask_boxes(
    shape: tuple[int, int], xmin: np.ndarray, xmax: np.ndarray, ymin: np.ndarray, ymax: np.ndarray
) -> np.ndarray:
    """(ny, nx) bool, True in the boxes [xmin, xmax] x [ymin, ymax] (pixels, both ends included; may reach beyond)."""
    covered = np.zeros(shape, bool)
    for left, right, low, high in zip(xmin, xmax, ymin, ymax, strict=True):
        covered[max(low, 0) : max(high + 1, 0), max(left, 0) : max(right + 1, 0)] = True
    return covered


def subtract_wfss_background(
    data: np.ndarray,
    err: np.ndarray,
    dq: np.ndarray,
    sky: np.ndarray,
    sky_dq: np.ndarray,
    covered: np.ndarray,
    axis: int,
    outlier_percent: float = 1.0,
    max_iterations: int = 5,
    rms_stop: float = 0.0,
) -> WfssBackground:
    """Subtract the pattern of the sky, scaled to the pixels without spectra.

    Parameters
    ----------
    data, err : (ny, nx) float32
        Signal and its standard deviation; a pixel whose error is not known, or zero, does not count.
    dq : (ny, nx) uint32
    sky, sky_dq : (ny, nx) float32, uint32
        Reference pattern of the sky and its flags.
    covered : (ny, nx) bool
        True where a spectrum may be (`mask_boxes`).
    axis : int
        DISPAXIS, 1 or 2.
    outlier_percent : float
        Per cent of the pixels that are left out at either end in each round.
    max_iterations : int
        Number of rounds.
    rms_stop : float
        Stop when the rms of the residual's median profile falls by less than this part of it; 0: do all rounds.

    Raises
    ------
    ValueError
        If the shapes differ.
    TooFewFreePixels
        If too few pixels are free of spectra, or none has both a signal and a pattern.
    """
    if not data.shape == err.shape == dq.shape == sky.shape == sky_dq.shape == covered.shape:
        raise ValueError(
            f"the image {data.shape}, its errors {err.shape} and flags {dq.shape}, the background reference {sky.shape} "
            f"and the mask of sources {covered.shape} must cover the same pixels"
        )
    good = ~covered & (sky != 0) & (dq & flags.PIXEL["DO_NOT_USE"] == 0)
    free = int(np.count_nonzero(good))
    if free <= int(LEAST_FREE * data.size):
        raise TooFewFreePixels(
            f"only {free} of {data.size} pixels are free of spectra, less than {LEAST_FREE:.0%}: the level of the sky "
            "cannot be told; mask fewer sources (background.wfss_mmag_extract), or skip the step"
        )
    use = ~covered & np.isfinite(data) & np.isfinite(sky) & np.isfinite(err) & (err != 0)
    last = np.inf
    for _ in range(max_iterations):
        residual = data - _level(data, sky, use) * sky
        if rms_stop > 0:
            rms = _profile_rms(np.where(use, residual, np.nan), axis)
            if (last - rms) / last < rms_stop:
                break
            last = rms
        low, high = np.percentile(residual[use], (outlier_percent, 100 - outlier_percent))
        use &= (residual >= low) & (residual <= high)
    factor = _level(data, sky, use)
    if not np.isfinite(factor):
        raise TooFewFreePixels(
            "no pixel has both a signal and a sky pattern: the level of the sky cannot be told; skip the step"
        )
    return WfssBackground((data - factor * sky).astype(np.float32), dq | sky_dq, factor, free)


def _level(data: np.ndarray, sky: np.ndarray, use: np.ndarray) -> float:
    """The factor of the sky that minimises the sum of squares of the residual."""
    pattern = sky[use].astype(np.float64)
    # np.sum adds in one order; the order of a product by BLAS depends on how many threads it has.
    total = np.sum(pattern * pattern)
    return float(np.sum(pattern * data[use]) / total) if total else float("nan")


def _profile_rms(residual: np.ndarray, axis: int) -> float:
    """The rms of the median profile of the residual, the median being taken over axis DISPAXIS - 1 of the array."""
    count = np.isfinite(residual).any(axis=axis - 1)
    profile = np.nanmedian(residual.compress(count, axis=2 - axis), axis=axis - 1)
    return float(np.sqrt(np.mean(np.square(profile, dtype=np.float64))))
