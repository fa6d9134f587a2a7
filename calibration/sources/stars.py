"""Find stars in an image: peaks of the image convolved with the excess of a Gaussian over its mean, and their positions."""

import warnings

import numpy as np
from astropy.table import QTable
from photutils.detection import DAOStarFinder, IRAFStarFinder
from photutils.utils.exceptions import NoDetectionsWarning
from scipy.ndimage import convolve

from calibration.jit import kernel


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
