"""Find sources in an image: background, smoothing, connected pixels above the noise, and their separation.

The background and its noise are sigma-clipped medians in boxes, interpolated; the image is smoothed with a Gaussian of
about the width of a point source, and what is connected and above so many sigma is a source. Sources that touch are
told apart by thresholding each at many levels (Bertin and Arnouts 1996, A&AS 117, 393), with the `photutils` package.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from astropy.stats import SigmaClip, gaussian_fwhm_to_sigma
from astropy.utils.exceptions import AstropyUserWarning
from photutils.background import Background2D, MedianBackground
from photutils.segmentation import SegmentationImage, SourceFinder
from photutils.utils.exceptions import NoDetectionsWarning
from scipy.ndimage import correlate1d, zoom


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
