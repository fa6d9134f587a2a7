"""What the simulator knows of an imager behind one of its filters; each instrument fills it in a file of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from calibration.simulate.field import ARCSEC, Distortion
from calibration.simulate.throughput import Passband
from calibration.subarrays import Subarray

FULL_FRAME_TIME = 10.73677  # [s] of a full frame of a HAWAII-2RG; a cut-out keeps it, so that its depth stays
HAWAII = Subarray(1, 1, 2048, 2048)


@dataclass(frozen=True)
class Imager:
    """An imager behind a filter.

    Parameters
    ----------
    instrument, exp_type
        As the keywords.
    filter, pupil
        As the keywords; empty where the instrument has no such wheel.
    passband
        Of all optics together.
    offset
        Column and row [pixel] that the filter adds before the distortion, the FILTEROFFSET; None where there is no reference.
    psf
        Sum of Gaussians, (weight, sigma [pixel]).
    sky
        Surface brightness of an empty sky [MJy/sr].
    star_rates
        Of the brightest star, which does not saturate in ``ngroups``, and of the faintest [e-/s].
    vega_offset
        AB minus Vega magnitude.
    optics
        Detector -> its distortion, without the filter.
    apertures
        Detector -> APERNAME.
    pattern, frame_time, ngroups
        Read pattern of single frames, seconds of one, and the number that a program has unless it says so.
    detector_area
        Pixels of a whole detector, reference pixels included.
    bounding_box
        Columns and rows ((x0, x1), (y0, y1)) of a whole detector that see the sky; None where the distortion reference does
        not say.
    """

    instrument: str
    exp_type: str
    filter: str
    pupil: str
    passband: Passband
    offset: tuple[float, float] | None
    psf: tuple[tuple[float, float], ...]
    sky: float
    star_rates: tuple[float, float]
    vega_offset: float
    optics: Mapping[str, Distortion]
    apertures: Mapping[str, str]
    pattern: str
    frame_time: float
    ngroups: int
    detector_area: Subarray = HAWAII
    bounding_box: tuple[tuple[float, float], tuple[float, float]] | None = None

    def behind_filter(self, detector: str) -> Distortion:
        """Pixels to (V2, V3) with the offset of the filter."""
        optics, (column, row) = self.optics[detector], self.offset or (0.0, 0.0)
        return replace(optics, x_ref=optics.x_ref - column, y_ref=optics.y_ref - row)

    def pixel_area(self, detector: str) -> float:
        """Nominal area of a pixel [sr], that at the reference pixel."""
        optics = self.optics[detector]
        return float(optics.pixel_area(optics.x_ref, optics.y_ref)) * ARCSEC**2
