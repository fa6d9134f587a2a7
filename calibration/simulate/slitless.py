"""Which exposures a slitless program is made of: direct images of one detector, and the same optics behind grisms."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from calibration.simulate import grisms, miri_optics, nircam, niriss
from calibration.simulate.dispersion import Grism
from calibration.simulate.imager import Imager
from calibration.simulate.throughput import F200W, F444W, P750L, Passband


@dataclass(frozen=True)
class Slitless:
    """The direct images of a slitless program, and what disperses their light.

    Parameters
    ----------
    images
        Of one detector.
    spectra
        The same behind each grism.
    grisms
        What each of them does, for the full frame.
    passband
        Of the spectra, but for the efficiency of the grisms.
    extracted, calibrated
        Wavelengths [um] where spectra are cut out, and where the throughput is at least about 1 per cent of its peak.
    sky
        Through a grism, where its pattern is 1 [DN/s].
    """

    images: Imager
    spectra: tuple[Imager, ...]
    grisms: tuple[Grism, ...]
    passband: Passband
    extracted: tuple[float, float]
    calibrated: tuple[float, float]
    sky: float

    @property
    def detector(self) -> str:
        """The one detector."""
        (name,) = self.images.optics
        return name


def niriss_wfss() -> Slitless:
    """F200W, GR150R and GR150C."""
    images, names = niriss.imager(F200W.name), ("GR150R", "GR150C")
    behind = replace(images, exp_type="NIS_WFSS", offset=None, pattern="NIS")
    return Slitless(
        images,
        tuple(replace(behind, filter=name) for name in names),
        tuple(niriss.grism(name) for name in names),
        F200W,
        extracted=(1.70, 2.28),
        calibrated=(1.725, 2.255),
        sky=0.5,
    )


def nircam_wfss() -> Slitless:
    """F444W, GRISMR and GRISMC of module A."""
    images, names = nircam.imager(F444W.name, ("NRCALONG",)), ("GRISMR", "GRISMC")
    behind = replace(images, exp_type="NRC_WFSS", offset=None)
    return Slitless(
        images,
        tuple(replace(behind, pupil=name) for name in names),
        tuple(grisms.nircam_grism(name, "A") for name in names),
        F444W,
        *_ranges(F444W),
        sky=0.4,
    )


def miri_wfss() -> Slitless:
    """F770W and the prism P750L."""
    images = miri_optics.imager()
    behind = replace(images, exp_type="MIR_WFSS", filter=P750L.name, offset=None, passband=P750L)
    return Slitless(images, (behind,), (grisms.miri_prism(),), P750L, *_ranges(P750L), sky=30.0)


def _ranges(passband: Passband) -> tuple[tuple[float, float], tuple[float, float]]:
    """Wavelengths [um] to cut out, and to calibrate."""
    far, near = 8.5 * passband.edge, 4.5 * passband.edge
    return (passband.blue - far, passband.red + far), (passband.blue - near, passband.red + near)


#: Instrument -> its slitless program.
SLITLESS: dict[str, Callable[[], Slitless]] = {"NIRISS": niriss_wfss, "NIRCAM": nircam_wfss, "MIRI": miri_wfss}
