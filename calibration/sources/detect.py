"""Find sources in an image: background, smoothing, connected pixels above the noise, and their separation.

The background and its noise are sigma-clipped medians in boxes, interpolated; the image is smoothed with a Gaussian of
about the width of a point source, and what is connected and above so many sigma is a source. Sources that touch are
told apart by thresholding each at many levels (Bertin and Arnouts 1996, A&AS 117, 393), with the `photutils` package.
"""

from dataclasses import dataclass

import numpy as np
from astropy.stats import gaussian_fwhm_to_sigma
from numpy.lib.stride_tricks import sliding_window_view
from photutils.utils import ShepardIDWInterpolator
from scipy.ndimage import generate_binary_structure, label, zoom

from calibration.jit import kernel
from calibration.sources.deblend import deblend as tell_apart


@dataclass(frozen=True)
class Sky:
    """The background of an image and its noise: (ny, nx), in the unit of the image."""

    level: np.ndarray
    noise: np.ndarray


def estimate_sky(data: np.ndarray, uncovered: np.ndarray, box: int) -> Sky | None:
    """The background in boxes of ``box`` pixels, interpolated; None where no box has enough pixels.

    The level of a box is the median, its noise the standard deviation, of the pixels within 3 sigma (at most five
    rounds). A box of which less than a tenth is left out counts; the others get the mean of the nearest ten, weighted
    by the inverse of their distance. A median over three by three boxes takes out those on a bright source.

    Parameters
    ----------
    data : (ny, nx) float32
    uncovered : (ny, nx) bool
        Pixels that have no data; so has a NaN.
    box : int
        Side of a box [pixel]; if no box can be measured, the whole image is one.
    """
    shape = data.shape
    for size, least in (((min(box, shape[0]), min(box, shape[1])), 0.9), (shape, 0.0)):
        mesh = _measure_boxes(data, uncovered, size, least)
        if np.isfinite(mesh).any():
            return Sky(*(_enlarge(_settle(one), size, uncovered) for one in mesh))
    return None


def _measure_boxes(data: np.ndarray, uncovered: np.ndarray, size: tuple[int, int], least: float) -> np.ndarray:
    """(2, rows, columns) level and noise of boxes; NaN where no more than this share of a full box is left."""
    (ny, nx), (height, width) = data.shape, size
    mesh = np.full((2, -(-ny // height), -(-nx // width)), np.nan)
    for j in range(mesh.shape[1]):
        for i in range(mesh.shape[2]):
            there = np.s_[j * height : (j + 1) * height, i * width : (i + 1) * width]
            values = data[there][~uncovered[there]]
            values = values[np.isfinite(values)]
            values.sort()
            level, noise, kept = _clip(values) if len(values) else (np.nan, np.nan, 0)
            if kept > least * height * width:
                mesh[:, j, i] = level, noise
    return mesh


# k = pixel
@kernel
def _clip(values):
    """Median, standard deviation and number of sorted values within 3 sigma of their median, after at most five rounds."""
    low, high = 0, len(values)
    for turn in range(6):
        n = high - low
        middle = 0.5 * (float(values[low + (n - 1) // 2]) + float(values[low + n // 2]))
        total, squares = 0.0, 0.0
        for k in range(low, high):
            off = values[k] - middle
            total += off
            squares += off * off
        spread = np.sqrt(max(squares / n - (total / n) ** 2, 0.0))
        if turn == 5:
            break
        lower = np.searchsorted(values, middle - 3 * spread, side="left")
        upper = np.searchsorted(values, middle + 3 * spread, side="right")
        if lower <= low and upper >= high:
            break
        low, high = max(low, lower), min(high, upper)
    return middle, spread, high - low


def _settle(mesh: np.ndarray) -> np.ndarray:
    """Values for all boxes from those that have one, without boxes that stand out."""
    known = np.isfinite(mesh)
    if not known.all():
        at, weigh = np.argwhere(known), ShepardIDWInterpolator(np.argwhere(known), mesh[known])
        mesh = mesh.copy()
        mesh[~known] = weigh(np.argwhere(~known), n_neighbors=min(10, len(at)))
    around = sliding_window_view(np.pad(mesh, 1, constant_values=np.nan), (3, 3))
    return np.nanmedian(around, axis=(2, 3))


def _enlarge(mesh: np.ndarray, box: tuple[int, int], uncovered: np.ndarray) -> np.ndarray:
    """The values of boxes, interpolated by cubic splines to all pixels; 0 where there is no coverage.

    Splines are linear in the values and work along one axis after the other: two small matrices do what `ndimage.zoom`
    (and photutils) takes half a second for.
    """
    # One vector at a time: in two dimensions zoom filters the other axis too, which is not exact for a few boxes.
    rows, columns = (
        np.array([zoom(unit, size, order=3, mode="reflect", grid_mode=True)[:length] for unit in np.eye(count)]).T
        for count, size, length in zip(mesh.shape, box, uncovered.shape, strict=True)
    )
    image = np.empty(uncovered.shape, np.float32)
    _interpolate(rows @ mesh, np.ascontiguousarray(columns.T), mesh.min(), mesh.max(), uncovered, image)
    return image


# y = row, x = column, k = box
@kernel
def _interpolate(rows, columns, lowest, highest, uncovered, image):
    ny, nx = image.shape
    line = np.empty(nx)
    for y in range(ny):
        line[:] = 0.0
        for k in range(rows.shape[1]):
            for x in range(nx):
                line[x] += rows[y, k] * columns[k, x]
        for x in range(nx):
            image[y, x] = 0.0 if uncovered[y, x] else min(max(line[x], lowest), highest)


def smooth(data: np.ndarray, fwhm: float, invalid: np.ndarray) -> np.ndarray:
    """``data`` smoothed with a Gaussian of this width [pixel]; invalid pixels are interpolated, outside is 0."""
    sigma = fwhm * gaussian_fwhm_to_sigma
    half = int(np.ceil(8 * sigma)) // 2
    profile = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    smoothed = np.empty_like(data)
    _smooth(data, invalid, profile / profile.sum(), smoothed)
    return smoothed


# y = row, x = column, k = tap
@kernel
def _smooth(data, invalid, profile, smoothed):
    ny, nx = data.shape
    taps, half = len(profile), len(profile) // 2
    # The last rows, smoothed along x: known light and the share of it that is known; outside, 0 is known.
    light, share = np.zeros((taps, nx)), np.ones((taps, nx))
    padded, valid = np.zeros(nx + 2 * half), np.ones(nx + 2 * half)
    known, part = np.empty(nx), np.empty(nx)
    for y in range(ny + half):
        new = y % taps
        light[new], share[new] = 0.0, 1.0
        if y < ny:
            whole = True
            for x in range(nx):
                value = data[y, x]
                good = np.isfinite(value) and not invalid[y, x]
                whole &= good
                padded[half + x] = value if good else 0.0
                valid[half + x] = 1.0 if good else 0.0
            for k in range(taps):
                for x in range(nx):
                    light[new, x] += profile[k] * padded[x + k]
            if not whole:
                share[new] = 0.0
                for k in range(taps):
                    for x in range(nx):
                        share[new, x] += profile[k] * valid[x + k]
        if y < half:
            continue
        known[:], part[:] = 0.0, 0.0
        for k in range(taps):
            row = (y - 2 * half + k) % taps
            # Before the first row, the buffers hold what is outside.
            for x in range(nx):
                known[x] += profile[k] * light[row, x]
                part[x] += profile[k] * share[row, x]
        for x in range(nx):
            smoothed[y - half, x] = known[x] / part[x] if part[x] > 1e-6 else np.nan


@dataclass(frozen=True)
class Segments:
    """Sources as connected pixels.

    Attributes
    ----------
    labels : (ny, nx) int32
        Which source a pixel belongs to, 1 to the number of sources without a gap; 0 is none.
    parts : (nsources,) int32
        How many sources the connected pixels that a source was part of were taken for; 1 where it is alone.
    smoothed : (ny, nx)
        The image in which they were found.
    """

    labels: np.ndarray
    parts: np.ndarray
    smoothed: np.ndarray

    @property
    def count(self) -> int:
        return len(self.parts)


def find_segments(
    data: np.ndarray,
    threshold: np.ndarray,
    mask: np.ndarray,
    fwhm: float,
    npixels: int,
    connectivity: int = 8,
    deblend: bool = True,
    nlevels: int = 32,
    contrast: float = 0.001,
    mode: str = "exponential",
) -> Segments:
    """Connected pixels above a threshold in the smoothed image, told apart where sources touch.

    Parameters
    ----------
    data : (ny, nx) float32
        Background subtracted.
    threshold : (ny, nx) float32
    mask : (ny, nx) bool
        Pixels that belong to no source.
    fwhm : float
        Width of the smoothing [pixel]; 0 for none.
    npixels : int
        Least number of pixels of a source.
    connectivity : 4 or 8
    deblend, nlevels, contrast, mode
        Whether touching sources are told apart; with how many levels, from which share of the flux, in which spacing.
    """
    smoothed = smooth(data, fwhm, mask) if fwhm > 0 else data
    above = smoothed > threshold
    above &= ~mask
    labels, count = label(above, generate_binary_structure(2, 1 if connectivity == 4 else 2))
    count = _drop_small(labels, np.zeros(count + 1, np.int64), npixels)
    if not deblend:
        return Segments(labels, np.ones(count, np.int32), smoothed)
    labels, parts = tell_apart(smoothed, labels, count, npixels, connectivity, nlevels, contrast, mode)
    return Segments(labels, parts, smoothed)


# y = row, x = column
@kernel
def _drop_small(labels, area, npixels):
    """Take away labels of fewer pixels, number the others without a gap, and return their number."""
    ny, nx = labels.shape
    for y in range(ny):
        for x in range(nx):
            area[labels[y, x]] += 1
    count = 0
    area[0] = 0
    for k in range(1, len(area)):
        large = area[k] >= npixels
        count += large
        area[k] = count if large else 0
    for y in range(ny):
        for x in range(nx):
            labels[y, x] = area[labels[y, x]]
    return count
