"""What is on the sky, and its direct image.

Sources are stars and exponential disks, each with a power-law continuum and narrow emission lines. Every profile, and the
point-spread function too, is a sum of Gaussians, so that convolution is addition of covariances, the flux is exact, and a
source costs microseconds (Hogg & Lang 2013, PASP 125, 719). The point-spread function does not change with wavelength.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibration.jit import kernel
from calibration.simulate.field import Distortion, Pointing, sky_to_pixel
from calibration.simulate.throughput import AB_ZERO, LIGHT, Passband, direct_rate, mean_flux, wavelengths

#: Point-spread function of NIRISS, of the direct image and of every order: (weight, sigma [pixel]). Core, wings, far wings.
PSF = ((0.76, 0.55), (0.19, 1.25), (0.05, 3.2))

#: An exponential disk as Gaussians, (weight, variance in units of the half-light radius squared): a non-negative
#: least-squares fit of exp(-1.678 r) out to 6 half-light radii.
EXPONENTIAL = (
    (0.00075, 0.00306),
    (0.00880, 0.02069),
    (0.05637, 0.08749),
    (0.22327, 0.29299),
    (0.45317, 0.85010),
    (0.25764, 2.28297),
)

STAMP_SIGMAS = 5.0  # a Gaussian is drawn out to here: 4e-6 of its flux lies outside


@dataclass(frozen=True)
class Line:
    """An emission line: vacuum wavelength [um], flux [W m^-2], full width at half maximum [um]."""

    name: str
    wavelength: float
    flux: float
    fwhm: float


@dataclass(frozen=True)
class Source:
    """A star (``radius`` 0) or an exponential disk.

    Parameters
    ----------
    number
        Number of the source in the truth tables, from 1.
    ra, dec
        Position [deg].
    continuum
        Flux density of the continuum at 2 um [Jy].
    slope
        Power of the continuum: f_nu is proportional to wavelength**slope.
    radius
        Half-light radius along the major axis [arcsec]; 0 for a star.
    axis_ratio
        Minor over major axis.
    position_angle
        Of the major axis, north over east [deg].
    lines
        Emission lines.
    """

    number: int
    ra: float
    dec: float
    continuum: float
    slope: float
    radius: float
    axis_ratio: float
    position_angle: float
    lines: tuple[Line, ...]

    def continuum_flux(self, wavelength: np.ndarray) -> np.ndarray:
        """Flux density of the continuum [Jy] at ``wavelength`` [um]."""
        return self.continuum * (wavelength / 2.0) ** self.slope

    def flux(self, wavelength: np.ndarray) -> np.ndarray:
        """Flux density [Jy] at ``wavelength`` [um], lines included."""
        total = self.continuum_flux(wavelength)
        for line in self.lines:
            sigma = line.fwhm / 2.3548200450309493
            # W m^-2 per um to W m^-2 per Hz: wavelength^2 / c; one Jy is 1e-26 W m^-2 Hz^-1.
            profile = np.exp(-0.5 * ((wavelength - line.wavelength) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
            total = total + line.flux * profile * wavelength**2 / LIGHT / 1e-26
        return total


def source_rate(source: Source, passband: Passband) -> float:
    """Electrons per second of the whole source in the direct image."""
    wavelength = wavelengths(passband, step=0.0001)
    return direct_rate(passband, wavelength, source.flux(wavelength))


def source_magnitude(source: Source, passband: Passband) -> float:
    """AB magnitude in the passband, lines included."""
    wavelength = wavelengths(passband, step=0.0001)
    return float(-2.5 * np.log10(mean_flux(passband, wavelength, source.flux(wavelength)) / AB_ZERO))


def wider_psf(core: float) -> tuple[tuple[float, float], ...]:
    """The point-spread function with a core of another sigma [pixel], and wings that go with it."""
    return tuple((weight, sigma * core / PSF[0][1]) for weight, sigma in PSF)


def components(
    source: Source,
    distortion: Distortion,
    pointing: Pointing,
    x: float,
    y: float,
    psf: Sequence[tuple[float, float]] = PSF,
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians of a source on the detector.

    Returns
    -------
    weight : (n,) float64
        Adding up to 1.
    covariance : (n, 3) float64
        Variances in x and y and the covariance [pixel^2], point-spread function included.
    """
    psf_weight = np.array([weight for weight, _ in psf])
    psf_variance = np.array([sigma**2 for _, sigma in psf])
    round_psf = np.stack((psf_variance, psf_variance, np.zeros_like(psf_variance)), axis=-1)
    if source.radius == 0:
        return psf_weight, round_psf
    # The unit vectors north and east, as steps in pixels, carry the ellipse from the sky to the detector.
    step = 0.05 / 3600.0
    x_north, y_north = sky_to_pixel(distortion, pointing, source.ra, source.dec + step)
    x_east, y_east = sky_to_pixel(distortion, pointing, source.ra + step / np.cos(np.deg2rad(source.dec)), source.dec)
    north = np.array([x_north - x, y_north - y]) / 0.05
    east = np.array([x_east - x, y_east - y]) / 0.05
    angle = np.deg2rad(source.position_angle)
    major = source.radius * (np.cos(angle) * north + np.sin(angle) * east)
    minor = source.radius * source.axis_ratio * (-np.sin(angle) * north + np.cos(angle) * east)
    shape = np.outer(major, major) + np.outer(minor, minor)
    disk = np.array([[shape[0, 0], shape[1, 1], shape[0, 1]]])
    weight = np.array([w for w, _ in EXPONENTIAL])
    variance = np.array([v for _, v in EXPONENTIAL])
    covariance = variance[:, None, None] * disk + round_psf[None, :, :]
    return np.outer(weight, psf_weight).ravel(), covariance.reshape(-1, 3)


def stamp_radius(covariance: np.ndarray) -> int:
    """Half the side of a stamp [pixel] that holds the Gaussians."""
    return int(np.ceil(STAMP_SIGMAS * np.sqrt(covariance[:, :2].max()))) + 1


def draw(image: np.ndarray, flux: float, x: float, y: float, weight: np.ndarray, covariance: np.ndarray) -> None:
    """Add a source to ``image`` (ny, nx) float64, centred on (x, y) [pixel of this array, zero-based]."""
    _add_gaussians(image, flux, x, y, weight, covariance, STAMP_SIGMAS)


# y = row, x = column, v, u = their sub-pixels, k = Gaussian
@kernel
def _add_gaussians(image, flux, x0, y0, weight, covariance, reach):
    ny, nx = image.shape
    for k in range(weight.size):
        # Sub-pixels of size 1/fine; the box of one sub-pixel is replaced by its variance, 1/12 of its area.
        narrow = min(covariance[k, 0], covariance[k, 1])
        fine = 3 if narrow < 1.0 else (2 if narrow < 4.0 else 1)
        box = 1.0 / (12.0 * fine * fine)
        vxx, vyy, vxy = covariance[k, 0] + box, covariance[k, 1] + box, covariance[k, 2]
        det = vxx * vyy - vxy * vxy
        norm = flux * weight[k] / (2.0 * np.pi * np.sqrt(det) * fine * fine)
        axx, ayy, axy = 0.5 * vyy / det, 0.5 * vxx / det, -vxy / det
        rx, ry = reach * np.sqrt(vxx), reach * np.sqrt(vyy)
        limit = 0.5 * reach * reach
        for y in range(max(0, int(np.floor(y0 - ry))), min(ny, int(np.ceil(y0 + ry)) + 1)):
            for x in range(max(0, int(np.floor(x0 - rx))), min(nx, int(np.ceil(x0 + rx)) + 1)):
                total = 0.0
                for v in range(fine):
                    dy = y + (v + 0.5) / fine - 0.5 - y0
                    for u in range(fine):
                        dx = x + (u + 0.5) / fine - 0.5 - x0
                        power = axx * dx * dx + axy * dx * dy + ayy * dy * dy
                        if power < limit:
                            total += np.exp(-power)
                image[y, x] += norm * total
