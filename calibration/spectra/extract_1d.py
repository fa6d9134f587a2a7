"""Spectra from cutouts: the sum across the dispersion, its error, and the mean surface brightness.

Every pixel of the cutout counts (the cutout is as high as the source is), but those without a value. A sum over fewer
pixels is not scaled up: NPIXELS tells.
"""

from dataclasses import dataclass

import numpy as np

from calibration import dq as flags


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
