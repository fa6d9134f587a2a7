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


def ring_background(
    data: np.ndarray, x: np.ndarray, y: np.ndarray, inner: float, outer: float, labels: np.ndarray | None = None
) -> np.ndarray:
    """The median in a ring around each source, without outliers (3 sigma, at most five rounds), and its standard error.

    Parameters
    ----------
    data : (ny, nx) float
        NaN where there is none.
    x, y : (nsources,) float
        Zero-based pixel.
    inner, outer : float
        A pixel belongs to the ring if its centre does [pixel].
    labels : (ny, nx) int32, optional
        Pixels of sources, not 0, do not belong to a ring.

    Returns
    -------
    (2, nsources) float64
        Median per pixel and its error, sqrt(pi / 2n) sigma; NaN where the ring has no data.
    """
    result = np.full((2, len(x)), np.nan)
    sources = np.zeros((0, 0), np.int32) if labels is None else labels
    _ring(data, sources, np.asarray(x, float), np.asarray(y, float), inner, outer, result)
    return result


# s = source, j = row, i = column
@kernel
def _ring(data, labels, x, y, inner, outer, result):
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
                free = labels.size == 0 or labels[j, i] == 0
                if r2 < outer * outer and r2 >= inner * inner and np.isfinite(data[j, i]) and free:
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
    shape = (len(radii), len(x))
    flux, variance = np.full(shape, np.nan), np.full(shape, np.nan)
    at = np.asarray(x, float), np.asarray(y, float)
    _circles(data, err, *at, np.asarray(radii, float), np.asarray(sky, float), flux, variance)
    return flux, np.sqrt(variance)


# s = source, k = circle, j = row, i = column
@kernel
def _circles(data, err, x, y, radii, sky, flux, variance):
    ny, nx = data.shape
    for s in range(len(x)):
        if not (np.isfinite(x[s]) and np.isfinite(y[s])):
            continue
        for k in range(len(radii)):
            r, light, noise, n = radii[k], 0.0, 0.0, 0
            for j in range(max(0, int(np.ceil(y[s] - r - 0.5))), min(ny, int(y[s] + r + 0.5) + 1)):
                for i in range(max(0, int(np.ceil(x[s] - r - 0.5))), min(nx, int(x[s] + r + 0.5) + 1)):
                    share = _share_in_circle(abs(i - x[s]), abs(j - y[s]), r)
                    if share > 0:
                        light += share * data[j, i]
                        noise += share * err[j, i] ** 2
                        n += 1
            if n > 0:
                flux[k, s], variance[k, s] = light - sky[s] * np.pi * r * r, noise


@kernel
def _share_in_circle(dx, dy, r):
    """The share of a pixel at this distance that lies in the circle, exactly."""
    if (dx + 0.5) ** 2 + (dy + 0.5) ** 2 <= r * r:
        return 1.0
    if max(dx - 0.5, 0.0) ** 2 + max(dy - 0.5, 0.0) ** 2 >= r * r:
        return 0.0
    share = _corner(dx + 0.5, dy + 0.5, r) - _corner(dx - 0.5, dy + 0.5, r)
    return share - _corner(dx + 0.5, dy - 0.5, r) + _corner(dx - 0.5, dy - 0.5, r)


@kernel
def _corner(x, y, r):
    """The area of the circle between the axes and the lines at x and y; odd in both."""
    sign = (1.0 if x > 0 else -1.0) * (1.0 if y > 0 else -1.0)
    x, y = min(abs(x), r), min(abs(y), r)
    # Up to here the line at y is inside the circle.
    start = min(x, np.sqrt(r * r - y * y))
    return sign * (y * start + _under(x, r) - _under(start, r))


@kernel
def _under(x, r):
    """The integral of sqrt(r^2 - x^2)."""
    return 0.5 * (x * np.sqrt(max(r * r - x * x, 0.0)) + r * r * np.arcsin(min(x / r, 1.0)))


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

    result = np.full((2, len(x)), np.nan)
    _statistics(data, np.asarray(x, float), np.asarray(y, float), inside, shape, result)
    return result[0], result[1].astype(np.float32)


# s = source, j, i = offset from the source, l, k = offset in the kernel
@kernel
def _statistics(data, x, y, inside, shape, result):
    ny, nx = data.shape
    half = len(shape) // 2
    fitted = np.empty(shape.shape)
    for s in range(len(x)):
        # A source without a position looks at the empty border.
        known = np.isfinite(x[s]) and np.isfinite(y[s])
        ys, xs = (int(np.floor(y[s] + 0.5)), int(np.floor(x[s] + 0.5))) if known else (-1000, -1000)
        around, peak = 0.0, 0.0
        for j in range(-half, half + 1):
            for i in range(-half, half + 1):
                total = 0.0
                # The fitted image ends where the data do.
                if 0 <= ys + j < ny and 0 <= xs + i < nx:
                    value = data[ys + j, xs + i]
                    if j == 0 and i == 0:
                        peak = value
                    else:
                        # A NaN anywhere in the cutout makes the sharpness unknown, as in the official catalogs.
                        around += value * inside[half + j, half + i]
                    for l in range(-half, half + 1):
                        for k in range(-half, half + 1):
                            if 0 <= ys + j + l < ny and 0 <= xs + i + k < nx:
                                total += shape[half + l, half + k] * data[ys + j + l, xs + i + k]
                fitted[half + j, half + i] = total
        result[0, s] = (peak - around / (inside.sum() - 1)) / fitted[half, half]
        fitted[half, half] = 0.0
        # The quadrants, each with the axis that leads into it.
        right, upper = fitted[: half + 1, half + 1 :].sum(), fitted[:half, : half + 1].sum()
        left, lower = fitted[half:, :half].sum(), fitted[half + 1 :, half:].sum()
        result[1, s] = 2 * (upper + lower - right - left) / np.abs(fitted).sum()
