"""Measure sources: light in circles with a local background, magnitudes, and how point-like a source is.

Fluxes are in jansky. AB magnitudes are -2.5 log10(flux / 3631 Jy), written with the rounded zero point 8.90 that the
archive's catalogs use; Vega magnitudes differ by an offset per filter.

References
----------
Stetson 1987, PASP 99, 191 (sharpness, roundness). JWST pipeline documentation, "source_catalog".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.stats import gaussian_fwhm_to_sigma
from photutils.aperture import CircularAperture, aperture_photometry
from scipy.ndimage import convolve
from scipy.spatial import KDTree

from calibration.jit import kernel

#: AB magnitude of 1 Jy.
AB_ZERO = 8.9


@dataclass(frozen=True)
class Apertures:
    """The circles that a source is measured in.

    Attributes
    ----------
    energies : (3,) of int
        Share of the light of a point source within each circle [%].
    radii : (3,) of float
        Their radii [pixel].
    corrections : (3,) of float
        Total light of a point source over that in the circle.
    sky_inner, sky_outer : float
        Radii of the ring of the local background [pixel].
    """

    energies: Sequence[int]
    radii: Sequence[float]
    corrections: Sequence[float]
    sky_inner: float
    sky_outer: float


def ring_background(data: np.ndarray, x: np.ndarray, y: np.ndarray, inner: float, outer: float) -> np.ndarray:
    """The median in a ring around each source, without outliers (3 sigma, at most five rounds), and its standard error.

    Parameters
    ----------
    data : (ny, nx) float
        NaN where there is none.
    x, y : (nsources,) float
        Zero-based pixel.
    inner, outer : float
        A pixel belongs to the ring if its centre does [pixel].

    Returns
    -------
    (2, nsources) float64
        Median per pixel and its error, sqrt(pi / 2n) sigma; NaN where the ring has no data.
    """
    result = np.full((2, len(x)), np.nan)
    _ring(np.ascontiguousarray(data, np.float64), np.asarray(x, float), np.asarray(y, float), inner, outer, result)
    return result


# s = source, j = row, i = column
@kernel
def _ring(data, x, y, inner, outer, result):
    ny, nx = data.shape
    side = 2 * int(outer) + 3
    values = np.empty(side * side)
    for s in range(len(x)):
        if not (np.isfinite(x[s]) and np.isfinite(y[s])):
            continue
        n = 0
        for j in range(max(0, int(y[s] - outer)), min(ny, int(y[s] + outer) + 2)):
            for i in range(max(0, int(x[s] - outer)), min(nx, int(x[s] + outer) + 2)):
                r2 = (i - x[s]) ** 2 + (j - y[s]) ** 2
                if r2 < outer * outer and r2 >= inner * inner and np.isfinite(data[j, i]):
                    values[n] = data[j, i]
                    n += 1
        for _ in range(5):
            if n == 0:
                break
            middle, spread = np.median(values[:n]), np.std(values[:n])
            kept = 0
            for k in range(n):
                if abs(values[k] - middle) <= 3 * spread:
                    values[kept] = values[k]
                    kept += 1
            if kept == n:
                break
            n = kept
        if n > 0:
            result[0, s] = np.median(values[:n])
            result[1, s] = np.sqrt(np.pi / (2 * n)) * np.std(values[:n])


def circle_fluxes(
    data: np.ndarray, err: np.ndarray, x: np.ndarray, y: np.ndarray, radii: Sequence[float], sky: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The light in circles around each source, less the local background, and its error.

    Parameters
    ----------
    data, err : (ny, nx)
        Flux per pixel and its standard deviation.
    x, y : (nsources,)
        Zero-based pixel.
    radii : sequence of float
        [pixel]
    sky : (nsources,)
        Local background per pixel.

    Returns
    -------
    flux, flux_err : (nradii, nsources) float64
        NaN where a pixel of the circle has no data.
    """
    if len(x) == 0:
        return np.zeros((len(radii), 0)), np.zeros((len(radii), 0))
    at = np.column_stack([x, y])
    # A source without a position is measured far away, where there is nothing.
    at[~np.isfinite(at).all(axis=1)] = -1000.0
    circles = [CircularAperture(at, radius) for radius in radii]
    table = aperture_photometry(data, circles, error=err)
    flux = np.array([table[f"aperture_sum_{k}"] - sky * circle.area for k, circle in enumerate(circles)])
    return flux, np.array([table[f"aperture_sum_err_{k}"] for k in range(len(circles))])


def ab_magnitudes(flux: np.ndarray, flux_err: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AB magnitudes and their errors of fluxes [Jy]; NaN where the flux is negative."""
    with np.errstate(divide="ignore", invalid="ignore"):
        magnitude = np.where(flux < 0, np.nan, -2.5 * np.log10(flux) + AB_ZERO)
        error = np.where(flux < 0, np.nan, 2.5 * np.log10(1 + flux_err / flux))
    return magnitude, error


def nearest_neighbours(x: np.ndarray, y: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The label of the nearest other source and its distance [pixel]; -1 and NaN where there is none."""
    label, distance = np.full(len(x), -1, np.int32), np.full(len(x), np.nan)
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if len(known) > 1:
        at = np.column_stack([x, y])[known]
        found, index = KDTree(at).query(at, k=[2])
        label[known], distance[known] = labels[known][index[:, 0]], found[:, 0]
    return label, distance


def star_statistics(data: np.ndarray, x: np.ndarray, y: np.ndarray, fwhm: float) -> tuple[np.ndarray, np.ndarray]:
    """Sharpness and roundness of each source, after Stetson 1987.

    Sharpness is how far the peak stands above its surroundings over the height of the best Gaussian; stars have 0.2 to
    1. Roundness compares the four quadrants around the peak of the smoothed image; stars are near 0.

    Parameters
    ----------
    data : (ny, nx)
    x, y : (nsources,)
        Zero-based pixel.
    fwhm : float
        Width of a point source [pixel].
    """
    sigma = fwhm * gaussian_fwhm_to_sigma
    radius = max(2.0, 1.5 * sigma)
    half = int(radius)
    jj, ii = np.mgrid[-half : half + 1, -half : half + 1]
    inside = np.hypot(ii, jj) <= radius
    profile = np.exp(-(ii**2 + jj**2) / (2 * sigma**2)) * inside
    count = inside.sum()
    shape = inside * (profile - profile.sum() / count) / ((profile**2).sum() - profile.sum() ** 2 / count)

    fitted = _cutouts(convolve(data, shape, mode="constant", cval=0.0), x, y, half)
    raw = _cutouts(data, x, y, half)
    peak = raw[:, half, half]
    around = ((raw * inside).sum(axis=(1, 2)) - peak) / (count - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        sharpness = (peak - around) / fitted[:, half, half]
    fitted[:, half, half] = 0
    # The quadrants, each with the axis that leads into it.
    right = fitted[:, : half + 1, half + 1 :].sum(axis=(1, 2))
    upper = fitted[:, :half, : half + 1].sum(axis=(1, 2))
    left = fitted[:, half:, :half].sum(axis=(1, 2))
    lower = fitted[:, half + 1 :, half:].sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        roundness = 2 * (upper + lower - right - left) / np.abs(fitted).sum(axis=(1, 2))
    return sharpness, roundness.astype(np.float32)


def _cutouts(image: np.ndarray, x: np.ndarray, y: np.ndarray, half: int) -> np.ndarray:
    """(nsources, 2 half + 1, 2 half + 1) around each source; 0 outside the image."""
    padded = np.pad(np.asarray(image, float), half + 1)
    ny, nx = image.shape
    # Round half up, and let a source without a position look at the empty border.
    i = np.clip(np.floor(np.nan_to_num(x, nan=-1e3) + 0.5).astype(int), -1 - half, nx + half) + half + 1
    j = np.clip(np.floor(np.nan_to_num(y, nan=-1e3) + 0.5).astype(int), -1 - half, ny + half) + half + 1
    step = np.arange(-half, half + 1)
    rows, columns = (j[:, None] + step)[:, :, None], (i[:, None] + step)[:, None, :]
    inside = (rows >= 0) & (rows < padded.shape[0]) & (columns >= 0) & (columns < padded.shape[1])
    return np.where(inside, padded[rows.clip(0, padded.shape[0] - 1), columns.clip(0, padded.shape[1] - 1)], 0.0)
