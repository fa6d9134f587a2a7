"""Find sources in an image: background, smoothing, connected pixels above the noise, and their separation.

The background and its noise are sigma-clipped medians in boxes, interpolated; the image is smoothed with a Gaussian of
about the width of a point source, and what is connected and above so many sigma is a source. Sources that touch are
told apart by thresholding each at many levels (Bertin and Arnouts 1996, A&AS 117, 393), with the `photutils` package.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from astropy.stats import SigmaClip, gaussian_fwhm_to_sigma
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning
from photutils.background import Background2D, MedianBackground
from photutils.detection import DAOStarFinder, IRAFStarFinder
from photutils.segmentation import SegmentationImage, SourceFinder
from photutils.utils.exceptions import NoDetectionsWarning
from scipy.ndimage import convolve, correlate1d, zoom

from calibration.jit import kernel


@dataclass(frozen=True)
class Sky:
    """The background of an image and its noise: (ny, nx), in the unit of the image."""

    level: np.ndarray
    noise: np.ndarray


def estimate_sky(data: np.ndarray, uncovered: np.ndarray, box: int) -> Sky | None:
    """The background in boxes of ``box`` pixels, interpolated; None where no box has enough pixels.

    Parameters
    ----------
    data : (ny, nx) float32
    uncovered : (ny, nx) bool
        Pixels that have no data.
    box : int
        Side of a box [pixel]; if no box can be measured, the whole image is one.
    """
    common = {
        "filter_size": (3, 3),
        "coverage_mask": uncovered,
        "sigma_clip": SigmaClip(sigma=3.0),
        "bkg_estimator": MedianBackground(),
    }
    if uncovered.all():
        return None
    with warnings.catch_warnings():
        # NaN outside the coverage is expected.
        warnings.simplefilter("ignore", AstropyUserWarning)
        for size, excluded in ((box, 10.0), (data.shape, 100.0)):
            try:
                boxes = Background2D(data, size, exclude_percentile=excluded, **common)
                level, noise = boxes.background_mesh, boxes.background_rms_mesh
                return Sky(*(_enlarge(mesh, boxes.box_size, uncovered) for mesh in (level, noise)))
            except ValueError:
                # No box of this size has enough pixels.
                continue
    return None


def _enlarge(mesh: np.ndarray, box: tuple[int, int], uncovered: np.ndarray) -> np.ndarray:
    """The values of boxes, interpolated by cubic splines to all pixels; 0 where there is no coverage.

    Splines are linear in the values and work along one axis after the other: two small matrices do what `ndimage.zoom`
    (and photutils) takes half a second for.
    """
    along = [
        zoom(np.eye(count), (size, 1), order=3, mode="reflect", grid_mode=True)[:length]
        for count, size, length in zip(mesh.shape, box, uncovered.shape, strict=True)
    ]
    image = (along[0] @ mesh @ along[1].T).clip(mesh.min(), mesh.max())
    image[uncovered] = 0
    return image


def smooth(data: np.ndarray, fwhm: float, invalid: np.ndarray) -> np.ndarray:
    """``data`` smoothed with a Gaussian of this width [pixel]; invalid pixels are interpolated, outside is 0."""
    sigma = fwhm * gaussian_fwhm_to_sigma
    half = int(np.ceil(8 * sigma)) // 2
    profile = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    profile /= profile.sum()
    valid = ~(invalid | ~np.isfinite(data))
    known = np.where(valid, data, 0)
    share = valid.astype(data.dtype)
    for axis in (0, 1):
        known = correlate1d(known, profile, axis=axis, mode="constant", cval=0.0)
        share = correlate1d(share, profile, axis=axis, mode="constant", cval=1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(share > 1e-6, known / share, np.nan)


@dataclass(frozen=True)
class Segments:
    """Sources as connected pixels: ``map`` (a photutils SegmentationImage, or None without sources), smoothed image."""

    map: SegmentationImage | None
    smoothed: np.ndarray


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
    finder = SourceFinder(
        n_pixels=npixels,
        connectivity=connectivity,
        deblend=deblend,
        n_levels=nlevels,
        contrast=contrast,
        mode=mode,
        relabel=True,
        progress_bar=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)
        warnings.simplefilter("ignore", AstropyUserWarning)
        return Segments(finder(smoothed, threshold, mask=mask), smoothed)


def find_stars(
    data: np.ndarray,
    threshold: float,
    mask: np.ndarray,
    finder: str,
    fwhm: float,
    sharpness: tuple[float, float],
    roundness: tuple[float, float],
    minimal_separation: float,
    brightest: int | None,
    peak_max: float | None,
    sigma_radius: float = 1.5,
) -> QTable:
    """Point sources of an image.

    Parameters
    ----------
    data : (ny, nx) float32
        Background subtracted.
    threshold : float
        Least height of a star, in the unit of the data.
    mask : (ny, nx) bool
        Pixels that are not looked at.
    finder : "iraf" or "dao"
    fwhm : float
        Width of a point source [pixel].
    sharpness, roundness : (float, float)
        Ranges of what is a star, as the finder defines them.
    minimal_separation : float
        [pixel]
    brightest : int or None
        Keep so many.
    peak_max : float or None
        Drop what is higher, such as saturated stars.
    sigma_radius : float
        Where the kernel ends [sigma].

    Returns
    -------
    QTable
        x, y [zero-based pixel] and flux, brightest first; of length 0 if there is none.
    """
    common = {
        "sharpness_range": sharpness,
        "roundness_range": roundness,
        "min_separation": minimal_separation,
        "n_brightest": brightest,
        "peak_max": peak_max,
        "sigma_radius": sigma_radius,
    }
    kind = {"iraf": IRAFStarFinder, "dao": DAOStarFinder}[finder]
    plain = kind(threshold, fwhm, **common)
    smoothed = convolve(data, plain.kernel.data, mode="constant")
    # The package finds the same peaks in a second; what it measures of each is its own.
    peaks = find_peaks(smoothed, getattr(plain, "threshold_eff", threshold), mask, minimal_separation)
    found = None
    if len(peaks):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoDetectionsWarning)
            found = kind(threshold, fwhm, xycoords=peaks, **common)(data, mask=mask)
    if found is None:
        return QTable({"x": np.zeros(0), "y": np.zeros(0), "flux": np.zeros(0)})
    order = np.argsort(-np.asarray(found["flux"]), kind="stable")
    x, y = ("x_centroid", "y_centroid") if "x_centroid" in found.colnames else ("xcentroid", "ycentroid")
    return QTable({"x": found[x][order], "y": found[y][order], "flux": found["flux"][order]})


def find_peaks(image: np.ndarray, threshold: float, mask: np.ndarray, separation: float) -> np.ndarray:
    """(n, 2) x and y of the pixels above ``threshold`` that no other within ``separation`` [pixel] exceeds.

    Equal neighbours are all peaks; masked pixels are none, but hide what is below them; outside is 0.
    """
    reach = int(separation)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    near = (dy**2 + dx**2 <= separation**2) & ((dy != 0) | (dx != 0))
    found = np.zeros(image.shape, np.bool_)
    _find_peaks(image, threshold, mask, dy[near], dx[near], found)
    y, x = np.nonzero(found)
    return np.column_stack([x, y])


# y = row, x = column, k = neighbour
@kernel
def _find_peaks(image, threshold, mask, dy, dx, found):
    ny, nx = image.shape
    for y in range(ny):
        for x in range(nx):
            value = image[y, x]
            if not value > threshold or mask[y, x]:
                continue
            highest = True
            for k in range(dy.size):
                j, i = y + dy[k], x + dx[k]
                neighbour = image[j, i] if 0 <= j < ny and 0 <= i < nx else 0.0
                if neighbour > value:
                    highest = False
                    break
            found[y, x] = highest
