"""How much of the light becomes signal: passband, grism orders, and the photometric constants that follow from them.

One sensitivity serves the scene, the dispersed scene and the PHOTOM references, so that truth comes back by construction:

    d(electrons/s)/d(wavelength) = f_nu A T(wavelength) / (h wavelength)

with the collecting area A and the total throughput T. Values are of the right size (JWST documentation, "NIRISS sensitivity",
"NIRCam filters", "MIRI filters and dispersers", "FGS imaging"), not measured ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

COLLECTING_AREA = 25.4  # [m^2], JWST primary mirror, unobscured
PLANCK = 6.62607015e-34  # [J s]
LIGHT = 2.99792458e14  # [um/s]
JANSKY = 1e-26  # [W m^-2 Hz^-1]
AB_ZERO = 3631.0  # [Jy], flux density of AB magnitude 0


@dataclass(frozen=True)
class Passband:
    """A filter: half-power wavelengths [um], width of its edges [um], peak of the total throughput."""

    name: str
    blue: float
    red: float
    edge: float
    peak: float

    def throughput(self, wavelength: np.ndarray) -> np.ndarray:
        """Total throughput at ``wavelength`` [um]."""
        rise = 1.0 / (1.0 + np.exp(-(wavelength - self.blue) / self.edge))
        fall = 1.0 / (1.0 + np.exp((wavelength - self.red) / self.edge))
        return self.peak * rise * fall * (1.0 + 0.1 * (wavelength - 0.5 * (self.blue + self.red)))


F200W = Passband("F200W", blue=1.751, red=2.226, edge=0.006, peak=0.52)
F150W = Passband("F150W", blue=1.331, red=1.668, edge=0.005, peak=0.47)
F277W = Passband("F277W", blue=2.423, red=3.132, edge=0.009, peak=0.43)
F444W = Passband("F444W", blue=3.881, red=4.982, edge=0.014, peak=0.47)
F770W = Passband("F770W", blue=6.581, red=8.687, edge=0.04, peak=0.30)
F1000W = Passband("F1000W", blue=9.023, red=10.891, edge=0.04, peak=0.28)
P750L = Passband("P750L", blue=5.0, red=12.5, edge=0.05, peak=0.3)
GUIDER = Passband("GUIDER", blue=0.8, red=4.6, edge=0.06, peak=0.50)

#: Order -> (peak efficiency, wavelength of the peak [um], width [um]) of the GR150 grisms.
GRISM_ORDERS = {0: (0.12, 2.3, 2.0), 1: (0.62, 1.5, 1.1), 2: (0.045, 1.9, 1.2), -1: (0.012, 2.1, 1.5)}


def grism_efficiency(
    order: int, wavelength: np.ndarray, efficiencies: Mapping[int, tuple[float, float, float]] = GRISM_ORDERS
) -> np.ndarray:
    """Part of the light at ``wavelength`` [um] that the grism sends into ``order``."""
    peak, centre, width = efficiencies[order]
    return peak * np.exp(-0.5 * ((wavelength - centre) / width) ** 2)


def sensitivity(
    passband: Passband,
    wavelength: np.ndarray,
    order: int | None = None,
    efficiencies: Mapping[int, tuple[float, float, float]] = GRISM_ORDERS,
) -> np.ndarray:
    """Electrons per second, per um, per Jy at ``wavelength`` [um]; ``order`` None is the direct image."""
    total = passband.throughput(wavelength)
    if order is not None:
        total = total * grism_efficiency(order, wavelength, efficiencies)
    return JANSKY * COLLECTING_AREA * total / (PLANCK * wavelength)


def wavelengths(passband: Passband, step: float = 0.0005) -> np.ndarray:
    """Wavelengths [um] that cover the passband down to 1e-4 of its peak."""
    margin = 10.0 * passband.edge
    n = int(np.ceil((passband.red - passband.blue + 2 * margin) / step))
    return passband.blue - margin + step * np.arange(n + 1)


def direct_rate(passband: Passband, wavelength: np.ndarray, flux: np.ndarray) -> float:
    """Electrons per second of a source with flux density ``flux`` [Jy] at ``wavelength`` [um]."""
    return float(np.trapezoid(flux * sensitivity(passband, wavelength), wavelength))


def mean_flux(passband: Passband, wavelength: np.ndarray, flux: np.ndarray) -> float:
    """Flux density [Jy] in the passband: the constant one that gives the same electrons per second."""
    return direct_rate(passband, wavelength, flux) / direct_rate(passband, wavelength, np.ones_like(wavelength))


def image_conversion(passband: Passband, gain: float, pixel_area: float) -> float:
    """PHOTMJSR [MJy/sr per DN/s] for a mean ``gain`` [e-/DN] and a nominal ``pixel_area`` [sr]."""
    wavelength = wavelengths(passband)
    electrons_per_jansky = direct_rate(passband, wavelength, np.ones_like(wavelength))
    return gain / (electrons_per_jansky * 1e6 * pixel_area)


def spectral_conversion(
    passband: Passband,
    order: int,
    wavelength: np.ndarray,
    gain: float,
    pixel_area: float,
    efficiencies: Mapping[int, tuple[float, float, float]] = GRISM_ORDERS,
) -> np.ndarray:
    """MJy um s / (DN sr) at ``wavelength`` [um]; divided by um per pixel it turns DN/s into MJy/sr."""
    return gain / (sensitivity(passband, wavelength, order, efficiencies) * 1e6 * pixel_area)
