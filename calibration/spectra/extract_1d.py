"""Spectra from cutouts: the sum across the dispersion or the optimal estimate of it, and its error.

In the sum (box) every pixel of the cutout counts (the cutout is as high as the source is), but those without a value. A sum
over fewer pixels is not scaled up: NPIXELS tells. The optimal estimate weights each pixel with the part of the light that
it should have, over its variance; it does not lose what a missing pixel had, and is quieter for faint sources. Both are of
the light within the cutout.

References
----------
Horne (1986), PASP 98, 609: optimal extraction.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import median_filter, uniform_filter1d

from calibration import dq as flags

#: Noise in a profile may bias the flux by so much.
PROFILE_BIAS = 0.01
#: Highest degree of the profile along the dispersion: it follows a trace that crosses a pixel or two.
HIGHEST_DEGREE = 6
#: Columns over which variances are averaged for the weights [pixel].
SMOOTHING = 21
#: A pixel this far from the profile [sigma] is left out: a cosmic ray, a bad pixel without a flag. The profile itself is not
#: known better than by this part of its peak.
OUTLIER, PROFILE_ERROR = 6.0, 0.1
#: Rounds of fitting the profile and the flux.
TURNS = 2


@dataclass(frozen=True)
class Extracted:
    """One spectrum: arrays (n,) float64 along the dispersion, where the wavelength is known.

    Sums are in the unit of the cutout times pixels, ``var_*`` in its square. ``npixels`` is the number of pixels in each sum;
    ``background`` the sum of what was subtracted.
    """

    wavelength: np.ndarray
    total: np.ndarray
    var_poisson: np.ndarray
    var_rnoise: np.ndarray
    var_flat: np.ndarray
    background: np.ndarray
    background_var_poisson: np.ndarray
    background_var_rnoise: np.ndarray
    background_var_flat: np.ndarray
    npixels: np.ndarray
    dq: np.ndarray


def extract_box(
    data: np.ndarray,
    dq: np.ndarray,
    wavelength: np.ndarray,
    axis: int,
    var_poisson: np.ndarray | None,
    var_rnoise: np.ndarray | None,
    var_flat: np.ndarray | None,
    background_margin: int | None = None,
) -> Extracted:
    """Sum a cutout across the dispersion.

    Parameters
    ----------
    data : (ny, nx) float32
        Signal; NaN where there is none.
    dq : (ny, nx) uint32
    wavelength : (ny, nx) float
        [um]; NaN where there is none.
    axis : int
        DISPAXIS: 1 where x runs along the dispersion, 2 where y does.
    var_poisson, var_rnoise, var_flat : (ny, nx) float32 or None
        Variances; None counts as zero, and so does NaN.
    background_margin : int, optional
        Take the mean of so many rows (columns) at either side of the cutout as the background of each wavelength,
        subtract it, and do not sum those rows. By default nothing is subtracted.

    Returns
    -------
    Extracted
        ``total`` is NaN and ``dq`` DO_NOT_USE where no pixel has a value.
    """
    planes = [
        np.asarray(plane, np.float64) if axis == 1 else np.asarray(plane, np.float64).T for plane in (data, wavelength)
    ]
    image, waves = planes
    bad = (dq & flags.PIXEL["DO_NOT_USE"]) != 0
    good = np.isfinite(image) & np.isfinite(waves) & ~(bad if axis == 1 else bad.T)
    inside = np.isfinite(waves)
    variances = []
    for variance in (var_poisson, var_rnoise, var_flat):
        plane = np.zeros(data.shape) if variance is None else np.nan_to_num(np.asarray(variance, np.float64), nan=0.0)
        variances.append(plane if axis == 1 else plane.T)

    height = image.shape[0]
    background = np.zeros(image.shape[1])
    background_variances = [np.zeros(image.shape[1]) for _ in variances]
    if background_margin:
        if height < 2 * background_margin + 1:
            raise ValueError(
                f"a cutout of {height} pixels across the dispersion has no room for {background_margin} pixels of background "
                "at either side; choose fewer, or extract higher cutouts (extract_2d.wfss_extract_half_height)"
            )
        aside = np.zeros(height, bool)
        aside[:background_margin] = aside[height - background_margin :] = True
        sky = good & aside[:, None]
        count = np.maximum(sky.sum(axis=0), 1)
        level = np.where(sky, image, 0.0).sum(axis=0) / count
        good = good & ~aside[:, None]
        summed = good.sum(axis=0)
        background = level * summed
        background_variances = [
            np.where(sky, variance, 0.0).sum(axis=0) * (summed / count) ** 2 for variance in variances
        ]
    npixels = good.sum(axis=0).astype(np.float64)
    total = np.where(npixels > 0, np.where(good, image, 0.0).sum(axis=0) - background, np.nan)
    sums = [
        np.where(good, variance, 0.0).sum(axis=0) + more
        for variance, more in zip(variances, background_variances, strict=True)
    ]

    known = inside.any(axis=0)
    count = np.maximum(inside.sum(axis=0), 1)
    mean_wave = np.where(inside, waves, 0.0).sum(axis=0) / count
    spectrum_dq = np.where(npixels > 0, np.uint32(0), flags.PIXEL["DO_NOT_USE"])
    return Extracted(
        *(line[known] for line in (mean_wave, total, *sums, background, *background_variances, npixels, spectrum_dq))
    )


def extract_optimal(
    data: np.ndarray,
    dq: np.ndarray,
    wavelength: np.ndarray,
    axis: int,
    var_poisson: np.ndarray | None,
    var_rnoise: np.ndarray | None,
    var_flat: np.ndarray | None,
) -> Extracted | None:
    """The flux of each wavelength that best fits the profile of the source across the dispersion.

    Parameters
    ----------
    data, dq, wavelength, axis, var_poisson, var_rnoise, var_flat
        As in `extract_box`.

    Returns
    -------
    Extracted or None
        None where the source is too faint to tell its profile: sum it.

    Notes
    -----
    Horne (1986), table 1. The part of the light in each row is a polynomial along the dispersion, fitted to the cutout
    itself with the flux of each wavelength (first the sum, then the estimate). Its degree is as high as the noise allows:
    n parameters bias the flux by about n over the square of the signal to noise of the whole spectrum, and that is to be
    less than 1 %. Weights are of variances averaged along the dispersion: those of single pixels follow the noise of the
    signal, and would prefer what is too low. Of each wavelength the one worst outlier is left out.
    """
    box = extract_box(data, dq, wavelength, axis, var_poisson, var_rnoise, var_flat)

    def turned(plane: np.ndarray | None) -> np.ndarray:
        plane = np.zeros(data.shape) if plane is None else np.asarray(plane, np.float64)
        return plane if axis == 1 else plane.T

    known = np.isfinite(turned(wavelength)).any(axis=0)
    image = turned(data)[:, known]
    variances = [np.nan_to_num(turned(one)[:, known], nan=0.0) for one in (var_poisson, var_rnoise, var_flat)]
    total = sum(variances)
    flagged = turned((dq & flags.PIXEL["DO_NOT_USE"]) != 0)[:, known] != 0
    good = np.isfinite(image) & ~flagged & (total > 0)
    height = image.shape[0]
    use = good & np.all(good, axis=0)
    if not use.any():
        return None
    # The mean of its neighbours along the dispersion, without itself: no weight follows the noise of its own pixel.
    window = dict(size=SMOOTHING, axis=1, mode="constant")
    around = SMOOTHING * uniform_filter1d(np.where(good, total, 0.0), **window) - np.where(good, total, 0.0)
    smooth = np.maximum(around, 0.0) / np.maximum(
        np.round(SMOOTHING * uniform_filter1d(good * 1.0, **window)) - good, 1.0
    )
    good &= smooth > 0
    weight = np.where(good, 1 / np.where(good, smooth, 1.0), 0.0)
    signal = np.where(good, image, 0.0)

    flux, whole = np.nan_to_num(box.total), use.all(axis=0)
    noise = np.sqrt(sum((box.var_poisson, box.var_rnoise, box.var_flat))[whole])
    strength = np.sum((flux[whole] / noise) ** 2) - np.count_nonzero(whole)
    if not (flux[whole] > 0).any():
        return None
    degree = min(HIGHEST_DEGREE, np.count_nonzero(whole) // 4, int(PROFILE_BIAS * max(strength, 0.0) / height) - 1)
    if degree < 0:
        return None
    along = np.polynomial.legendre.legvander(np.linspace(-1, 1, image.shape[1]), degree)
    kept = good & ~_outliers(signal, good, whole, flux, np.maximum(total, smooth))
    for _ in range(TURNS):
        profile = _profile(signal, weight * kept, flux, along)
        if profile is None:
            return None
        norm = np.sum(weight * kept * profile**2, axis=0)
        flux = np.sum(weight * kept * profile * signal, axis=0) / np.where(norm > 0, norm, np.inf)
    share = weight * kept * profile / np.where(norm > 0, norm, np.inf)
    sums = [np.sum(share**2 * one, axis=0) for one in variances]
    npixels = kept.sum(axis=0).astype(np.float64)
    return replace(
        box,
        total=np.where(norm > 0, flux, np.nan),
        var_poisson=sums[0],
        var_rnoise=sums[1],
        var_flat=sums[2],
        npixels=npixels,
        dq=np.where(norm > 0, np.uint32(0), flags.PIXEL["DO_NOT_USE"]),
    )


def _outliers(
    signal: np.ndarray, good: np.ndarray, whole: np.ndarray, flux: np.ndarray, variance: np.ndarray
) -> np.ndarray:
    """(ny, nx) bool: of each wavelength the one worst pixel, where it is far from what the others say.

    The profile is a running median of the parts of the light, and the light the median of what the bright rows say.
    """
    bright = np.flatnonzero(whole & (flux > 0))
    parts = median_filter(signal[:, bright] / flux[bright], size=(1, SMOOTHING), mode="nearest")
    nearest = np.abs(np.arange(signal.shape[1])[:, None] - bright).argmin(axis=1)
    profile = np.maximum(parts, 0.0)[:, nearest]
    profile /= np.maximum(profile.sum(axis=0), 1e-30)
    inner = good & (profile > 0.1 * profile.max(axis=0))
    known = inner.any(axis=0)
    light = np.zeros(flux.size)
    light[known] = np.nanmedian(np.where(inner, signal, np.nan)[:, known] / profile[:, known], axis=0)
    variance = np.where(good, variance, np.inf) + (PROFILE_ERROR * light * profile.max(axis=0)) ** 2
    deviation = np.where(good, (signal - light * profile) ** 2, 0.0) / variance
    worst = deviation.argmax(axis=0), np.arange(flux.size)
    found = np.zeros(signal.shape, bool)
    found[worst] = deviation[worst] > OUTLIER**2
    return found


def _profile(signal: np.ndarray, weight: np.ndarray, flux: np.ndarray, along: np.ndarray) -> np.ndarray | None:
    """(ny, nx) part of the light of each column in each pixel; None where that cannot be told."""
    columns = flux[:, None] * along
    rows = []
    for y in range(signal.shape[0]):
        normal = (columns * weight[y][:, None]).T @ columns
        size = np.trace(normal)
        if not size > 0:
            return None
        # A row without a pixel in some part of the spectrum is held to its mean there.
        normal += 1e-9 * size * np.eye(len(normal))
        rows.append(along @ np.linalg.solve(normal, columns.T @ (weight[y] * signal[y])))
    profile = np.maximum(rows, 0.0)
    light = profile.sum(axis=0)
    return profile / light if (light > 0).all() else None


def aperture_correction(
    wavelength: np.ndarray, size: float, waves: np.ndarray, sizes: np.ndarray, factors: np.ndarray
) -> np.ndarray:
    """(n,) the factor that a point source's flux in an aperture is multiplied with, to be its whole flux.

    Parameters
    ----------
    wavelength : (n,) float
        [um]
    size : float
        Full width of the aperture across the dispersion [pixel].
    waves : (nw,) float
        Wavelengths of the table [um], in any order.
    sizes : (nsize,) or (nw, nsize) float
        Aperture widths of the table [pixel], rising.
    factors : (nw, nsize) or (nsize, nw) float
        Correction factors.
    """
    sizes = np.atleast_2d(np.asarray(sizes, float))
    waves = np.asarray(waves, float)
    if factors.shape != (waves.size, sizes.shape[1]):
        factors = factors.T
    sizes = np.broadcast_to(sizes, factors.shape)
    at_size = np.array([np.interp(size, sizes[k], factors[k]) for k in range(waves.size)])
    order = np.argsort(waves)
    return np.interp(wavelength, waves[order], at_size[order])
