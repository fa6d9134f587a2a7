"""The optics of the guiders as the simulator has them: two detectors without filters, 0.069 arcsec per pixel.

Reference angles are about those of the apertures FGS1_FULL and FGS2_FULL; the polynomials, bent more than those of the other
imagers, have the size of the real ones but are our own numbers.
"""

from collections.abc import Sequence

import numpy as np

from calibration.simulate.field import Distortion
from calibration.simulate.imager import FULL_FRAME_TIME, Imager
from calibration.simulate.scene import wider_psf
from calibration.simulate.throughput import GUIDER

CENTRE = 1023.5  # [pixel], zero-based

#: Detector -> (V2, V3) of the reference pixel [arcsec], V3I_YANG [deg], APERNAME.
PLACES = {"GUIDER1": (207.191, -697.501, -1.247, "FGS1_FULL"), "GUIDER2": (24.432, -697.501, 0.297, "FGS2_FULL")}


def distortion(detector: str) -> Distortion:
    """Pixels to (V2, V3)."""
    v2, v3, angle, _ = PLACES[detector]
    x, y = np.zeros((4, 4)), np.zeros((4, 4))
    x[1, 0], x[2, 0], x[1, 1], x[0, 2] = 6.867e-2, 3.2e-8, -2.44e-6, 1.1e-8
    x[3, 0], x[1, 2] = 6.1e-11, 5.4e-11
    y[1, 0], y[0, 1] = -1.1e-4, 6.998e-2
    y[2, 0], y[1, 1], y[0, 2] = -6.7e-7, 5.1e-8, -1.86e-6
    y[2, 1], y[0, 3] = 4.0e-11, 8.3e-11
    return Distortion(CENTRE, CENTRE, x, y, v2, v3, angle, -1)


def imager(detectors: Sequence[str] = ()) -> Imager:
    """The guiders (default: GUIDER1) as imagers.

    Raises
    ------
    ValueError
        If a detector is not known.
    """
    detectors = tuple(detectors) or ("GUIDER1",)
    if not set(detectors) <= set(PLACES):
        raise ValueError(f"detectors of fgs-imaging must be among {', '.join(PLACES)}, not {', '.join(detectors)}")
    return Imager(
        instrument="FGS",
        exp_type="FGS_IMAGE",
        filter="",
        pupil="",
        passband=GUIDER,
        offset=None,
        psf=wider_psf(0.55),
        sky=0.25,
        star_rates=(2500.0, 6.0),
        vega_offset=1.55,
        optics={name: distortion(name) for name in detectors},
        apertures={name: PLACES[name][3] for name in detectors},
        pattern="FGSRAPID",
        frame_time=FULL_FRAME_TIME,
        ngroups=8,
    )
