"""Find stars in an image, and measure where they are.

A star is a peak of the image convolved with a Gaussian less its own mean: the amplitude of the Gaussian that fits best at
each pixel, whatever the sky (Stetson 1987, PASP 99, 191). What is too broad, too sharp or too elongated is no star; how that
is measured is the choice of IRAF's ``starfind`` (moments) or of ``daofind`` (symmetry and marginal fits).

Neither measures positions well: moments within two pixels are drawn to the middle of the pixel, by a twentieth of a pixel for
a well sampled star and up to a fifth for a broad one. So each star that is kept gets a Gaussian of free width fitted to the
same few pixels, over a free sky. Sampled at the middle of the pixels it is good to 1e-3 pixel for stars of two pixels' width,
to 1e-2 for those of one; fitted over the area of the pixels, as would seem right, it is worse for the diffraction of a
segmented telescope.
"""

from dataclasses import dataclass

import numpy as np
from astropy.stats import gaussian_fwhm_to_sigma

from calibration.jit import kernel

#: Rounds of the fit of positions, the farthest that it may go from the brightest pixel [pixel], and the stars of a batch.
ROUNDS, FARTHEST, BATCH = 20, 1.5, 4096
#: Error of a position that is a moment, as the fit did not succeed [pixel].
POOR = 0.3


@dataclass(frozen=True)
class StarList:
    """Stars, brightest first: zero-based pixels ``x``, ``y``, their ``error`` along one axis [pixel], and ``flux``."""

    x: np.ndarray
    y: np.ndarray
    error: np.ndarray
    flux: np.ndarray


@dataclass(frozen=True)
class Kernel:
    """What the image is convolved with, (n, n): ``gauss`` (1 in the middle), where it is ``used``, and its ``weights``.

    The weights sum to 0 and give the amplitude of the Gaussian that fits best; ``error`` is that of the amplitude for a noise
    of 1 per pixel.
    """

    gauss: np.ndarray
    used: np.ndarray
    weights: np.ndarray
    error: float
    fwhm: float

    @classmethod
    def of(cls, fwhm: float, sigma_radius: float) -> "Kernel":
        """That of stars of a width [pixel], which ends at so many sigma, though not within 2 pixels."""
        sigma = fwhm * gaussian_fwhm_to_sigma
        half = int(max(2.0, sigma_radius * sigma))
        dy, dx = np.mgrid[-half : half + 1, -half : half + 1]
        square = dx**2 + dy**2
        gauss = np.exp(-0.5 * square / sigma**2)
        used = (square <= (sigma_radius * sigma) ** 2) | (square <= 4)
        excess = np.where(used, gauss - gauss[used].mean(), 0.0)
        norm = (excess**2).sum()
        return cls(gauss, used, excess / norm, 1 / np.sqrt(norm), fwhm)

    @property
    def half(self) -> int:
        return self.used.shape[0] // 2


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
) -> StarList:
    """Point sources of an image, but for those that its edge cuts.

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
    StarList
        Of length 0 if there is none.
    """
    kernel = Kernel.of(fwhm, sigma_radius)
    half = kernel.half
    smoothed = np.zeros(data.shape, np.float32)
    dy, dx = np.nonzero(kernel.used)
    _correlate(data, kernel.weights[kernel.used].astype(np.float32), dy - half, dx - half, smoothed)
    least = threshold * kernel.error if finder == "dao" else threshold
    at = find_peaks(smoothed, least, mask, minimal_separation)
    ny, nx = data.shape
    at = at[(at[:, 0] >= half) & (at[:, 0] < nx - half) & (at[:, 1] >= half) & (at[:, 1] < ny - half)]
    limits = {"iraf": _measure_moments, "dao": _measure_symmetry}[finder](data, smoothed, at, kernel)
    good = limits.peak <= (np.inf if peak_max is None else peak_max)
    # NaN is no star either.
    good &= (limits.sharpness >= sharpness[0]) & (limits.sharpness <= sharpness[1]) & np.isfinite(limits.flux)
    for value in limits.roundness:
        good &= (value >= roundness[0]) & (value <= roundness[1])
    order = np.flatnonzero(good)[np.argsort(-limits.flux[good], kind="stable")][:brightest]
    x, y, error = fit_positions(data, at[order], limits.offset[order], kernel)
    return StarList(x, y, error, limits.flux[order])


@dataclass(frozen=True)
class _Measured:
    """What a finder measures of each peak; ``offset`` (n, 2) is its own position, x and y from the peak [pixel]."""

    peak: np.ndarray
    flux: np.ndarray
    sharpness: np.ndarray
    roundness: tuple[np.ndarray, ...]
    offset: np.ndarray


def _cutouts(image: np.ndarray, at: np.ndarray, half: int) -> np.ndarray:
    """(n, size, size) float64 of the pixels about each peak."""
    reach = np.arange(-half, half + 1)
    return image[at[:, 1, None, None] + reach[:, None], at[:, 0, None, None] + reach].astype(float)


def _measure_moments(data: np.ndarray, smoothed: np.ndarray, at: np.ndarray, kernel: Kernel) -> _Measured:
    """As IRAF's ``starfind``: the sky is the mean around the kernel, and what is below it is none of the star's light."""
    light = _cutouts(data, at, kernel.half)
    sky = light[:, ~kernel.used].mean(axis=1)
    light = np.maximum((light - sky[:, None, None]) * kernel.used, 0)
    reach = np.arange(-kernel.half, kernel.half + 1.0)
    flux = light.sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = light.sum(axis=1) @ reach / flux, light.sum(axis=2) @ reach / flux
        dx, dy = reach - x[:, None], reach - y[:, None]
        xx, yy = (light.sum(axis=1) * dx**2).sum(axis=1) / flux, (light.sum(axis=2) * dy**2).sum(axis=1) / flux
        xy = np.einsum("nyx,ny,nx->n", light, dy, dx) / flux
        width = 2 * np.sqrt(np.log(2) * (xx + yy))
        round_ = np.sqrt((xx - yy) ** 2 + 4 * xy**2) / (xx + yy)
    return _Measured(light.max(axis=(1, 2), initial=0), flux, width / kernel.fwhm, (round_,), np.column_stack([x, y]))


def _measure_symmetry(data: np.ndarray, smoothed: np.ndarray, at: np.ndarray, kernel: Kernel) -> _Measured:
    """As ``daofind``: the peak over its surroundings, two- over fourfold symmetry, and Gaussians fitted to the marginals.

    The marginals are sums weighted by triangles, highest in the middle, and so are their fits of height and place.
    """
    light, half = _cutouts(data, at, kernel.half), kernel.half
    peak, height = light[:, half, half], smoothed[at[:, 1], at[:, 0]].astype(float)
    around = kernel.used.copy()
    around[half, half] = False
    contrast = _cutouts(smoothed, at, half)
    contrast[:, half, half] = 0
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1]
    # Quadrants turned into one another: along x they count as positive, along y as negative.
    sign = np.where(((dy > 0) & (dx >= 0)) | ((dy < 0) & (dx <= 0)), 1, -1)
    triangle = half + 1.0 - np.abs(np.arange(-half, half + 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        sharpness = (peak - light[:, around].mean(axis=1)) / height
        first = 2 * (contrast * sign).sum(axis=(1, 2)) / np.abs(contrast).sum(axis=(1, 2))
        (x, wide), (y, high) = (
            _fit_marginal(marginal @ triangle, triangle @ kernel.gauss, triangle, kernel.fwhm * gaussian_fwhm_to_sigma)
            for marginal in (light.transpose(0, 2, 1), light)
        )
        second = 2 * (wide - high) / (wide + high)
    return _Measured(peak, light.sum(axis=(1, 2)), sharpness, (first, second), np.column_stack([x, y]))


def _fit_marginal(
    light: np.ndarray, gauss: np.ndarray, weight: np.ndarray, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Place from the middle [pixel] and height of the Gaussian that fits (n, size) marginals best; no height is NaN."""
    reach = np.arange(gauss.size) - gauss.size // 2
    mean_gauss, mean_light = (weight @ gauss) / weight.sum(), light @ weight / weight.sum()
    height = (light * weight) @ gauss - mean_gauss * (light @ weight)
    height = np.where(height > 0, height, np.nan) / (weight @ gauss**2 - mean_gauss**2 * weight.sum())
    slope = gauss * reach
    place = (light - mean_light[:, None]) @ (weight * slope) * sigma**2 / (height * (weight @ slope**2))
    return np.clip(place, -FARTHEST, FARTHEST), height


def fit_positions(
    data: np.ndarray, at: np.ndarray, start: np.ndarray, kernel: Kernel
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of stars: of the Gaussian, of free height, width and sky, that fits the pixels about each peak best.

    Parameters
    ----------
    data : (ny, nx) float32
    at : (n, 2) int
        x and y of the peaks, no closer to the edge than half the kernel.
    start : (n, 2)
        Where to begin, from the peak [pixel]; the result where the fit goes astray.
    kernel : Kernel

    Returns
    -------
    x, y, error : (n,) float64
        Zero-based pixels, and the standard error along one axis from what the fit leaves of the light [pixel].
    """
    fitted = [
        _fit_gaussians(_cutouts(data, at[k : k + BATCH], kernel.half), start[k : k + BATCH], kernel)
        for k in range(0, len(at), BATCH)
    ]
    offset, error = (np.concatenate(each) for each in zip(*fitted, strict=True)) if fitted else (start, np.zeros(0))
    return at[:, 0] + offset[:, 0], at[:, 1] + offset[:, 1], error


def _fit_gaussians(light: np.ndarray, start: np.ndarray, kernel: Kernel) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (n, 2) and errors (n,) [pixel]: damped least squares (Levenberg and Marquardt) for all stars at once."""
    n, npixels = len(light), kernel.used.size
    dy, dx = (
        each.ravel().astype(float) for each in np.mgrid[-kernel.half : kernel.half + 1, -kernel.half : kernel.half + 1]
    )
    flat = light.reshape(n, npixels)
    sky = light[:, ~kernel.used].mean(axis=1)
    # Position, logarithm of the width, height and sky.
    width = np.full(n, np.log(kernel.fwhm * gaussian_fwhm_to_sigma))
    now = np.column_stack([start, width, flat[:, npixels // 2] - sky, sky])

    def model(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = dx - p[:, :1], dy - p[:, 1:2]
        inverse = np.exp(-2 * p[:, 2:3])
        shape = np.exp(-0.5 * (x**2 + y**2) * inverse)
        bright = shape * p[:, 3:4]
        slopes = [
            bright * x * inverse,
            bright * y * inverse,
            bright * (x**2 + y**2) * inverse,
            shape,
            np.ones_like(shape),
        ]
        return flat - bright - p[:, 4:5], np.stack(slopes, axis=-1)

    left, slopes = model(now)
    chi2, damping = (left**2).sum(axis=1), np.full(n, 1e-2)
    for _ in range(ROUNDS):
        normal = np.einsum("npi,npj->nij", slopes, slopes)
        scale = np.einsum("nii->ni", normal) + 1e-30
        normal[:, range(5), range(5)] += damping[:, None] * scale
        step = np.linalg.solve(normal, np.einsum("npi,np->ni", slopes, left)[..., None])[..., 0]
        trial = now + np.clip(step, -0.5, 0.5, where=np.arange(5) < 3, out=step.copy())
        trial[:, 2] = np.clip(trial[:, 2], np.log(0.2), np.log(4 * kernel.fwhm))
        trial_left, trial_slopes = model(trial)
        trial_chi2 = (trial_left**2).sum(axis=1)
        better = trial_chi2 < chi2
        small = not (np.abs(step[better, :2]) > 1e-5).any()
        now = np.where(better[:, None], trial, now)
        left, slopes = (
            np.where(better[:, None], trial_left, left),
            np.where(better[:, None, None], trial_slopes, slopes),
        )
        chi2, damping = np.where(better, trial_chi2, chi2), np.where(better, damping / 5, damping * 10)
        if small:
            break
    normal = np.einsum("npi,npj->nij", slopes, slopes)
    normal[:, range(5), range(5)] *= 1 + 1e-12
    variance = np.linalg.inv(normal + 1e-30 * np.eye(5))[:, [0, 1], [0, 1]].mean(axis=1) * chi2 / (npixels - 5)
    astray = ~(np.hypot(now[:, 0], now[:, 1]) < FARTHEST) | ~(now[:, 3] > 0) | ~(variance > 0) | ~(variance < POOR**2)
    return np.where(astray[:, None], start, now[:, :2]), np.where(astray, POOR, np.sqrt(np.abs(variance)))


# y = row, x = column, k = pixel of the kernel; outside is 0
@kernel
def _correlate(data, weights, dy, dx, smoothed):
    ny, nx = data.shape
    for y in range(ny):
        for k in range(weights.size):
            j = y + dy[k]
            if j < 0 or j >= ny:
                continue
            weight = weights[k]
            shift = dx[k]
            for x in range(max(0, -shift), min(nx, nx - shift)):
                smoothed[y, x] += weight * data[j, x + shift]


def find_peaks(image: np.ndarray, threshold: float, mask: np.ndarray, separation: float) -> np.ndarray:
    """(n, 2) x and y of the pixels above ``threshold`` that no other within ``separation`` [pixel] exceeds.

    Equal neighbours are all peaks, masked pixels are none, but hide what is below them, and
    what is beside NaN is none; outside is 0.
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
                if not neighbour <= value:
                    highest = False
                    break
            found[y, x] = highest
