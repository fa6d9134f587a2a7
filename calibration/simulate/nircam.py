"""The optics of NIRCam as the simulator has them: ten detectors, of which four share a field with gaps between them.

Each module images one field twice: at short wavelengths with four detectors of 0.031 arcsec per pixel, 5 arcsec apart, at
long ones with one of 0.063. Reference angles are about those of the apertures NRCxx_FULL; the polynomials have the size of the
real ones but are our own numbers.
"""

from collections.abc import Sequence

import numpy as np

from calibration.simulate.field import Distortion
from calibration.simulate.imager import FULL_FRAME_TIME, Imager
from calibration.simulate.scene import wider_psf
from calibration.simulate.throughput import F150W, F200W, F277W, F444W, Passband

CENTRE = 1023.5  # [pixel], reference pixel of all apertures, zero-based

#: Detector -> (V2, V3) of the reference pixel [arcsec], V3I_YANG [deg].
PLACES = {
    "NRCA1": (120.671, -527.388, -0.571), "NRCA2": (120.112, -459.681, -0.278), "NRCA3": (51.935, -527.803, -0.120),
    "NRCA4": (52.277, -459.810, -0.104), "NRCALONG": (86.104, -493.228, -0.095),
    "NRCB1": (-120.968, -457.753, 0.462), "NRCB2": (-121.144, -525.458, 0.741), "NRCB3": (-53.124, -457.780, 0.163),
    "NRCB4": (-52.818, -525.727, 0.244), "NRCBLONG": (-89.389, -491.444, 0.011),
}  # fmt: skip

#: Filter -> passband, column and row offset [pixel], core of the PSF [pixel], sky [MJy/sr], AB minus Vega magnitude.
FILTERS: dict[str, tuple[Passband, tuple[float, float], float, float, float]] = {
    "F150W": (F150W, (0.04, -0.11), 0.60, 0.24, 1.20),
    "F200W": (F200W, (-0.06, 0.09), 0.78, 0.22, 1.69),
    "F277W": (F277W, (-0.084, -0.076), 0.58, 0.20, 2.34),
    "F444W": (F444W, (0.213, -0.145), 0.88, 0.55, 3.18),
}
LONG = ("F277W", "F444W")


def distortion(detector: str) -> Distortion:
    """Pixels to (V2, V3), without a filter."""
    v2, v3, angle = PLACES[detector]
    scale = (6.288e-2, 6.317e-2) if detector.endswith("LONG") else (3.079e-2, 3.098e-2)
    # The detectors of a module are quarters of one field: its curvature has another sign in each.
    bend = 0.5 * scale[0] * (1.0 if v2 > 0 else -1.0) * (1.0 if v3 > -493 else -0.7)
    x, y = np.zeros((4, 4)), np.zeros((4, 4))
    x[1, 0], x[2, 0], x[1, 1], x[0, 2] = scale[0], 4.6e-6 * bend, -1.1e-5 * bend, 1.9e-6 * bend
    x[3, 0], x[1, 2] = 1.2e-9 * scale[0], 1.1e-9 * scale[0]
    y[1, 0], y[0, 1] = 1.4e-3 * scale[0], scale[1]
    y[2, 0], y[1, 1], y[0, 2] = 3.1e-6 * bend, 5.2e-6 * bend, -8.7e-6 * bend
    y[2, 1], y[0, 3] = 0.9e-9 * scale[1], 1.3e-9 * scale[1]
    return Distortion(CENTRE, CENTRE, x, y, v2, v3, angle, -1)


def module_and_channel(detector: str) -> dict[str, str]:
    """Which of the two fields, and which wavelengths."""
    return {"module": detector[3], "channel": "LONG" if detector.endswith("LONG") else "SHORT"}


def imager(filter_name: str = "F150W", detectors: Sequence[str] = ()) -> Imager:
    """The detectors (default: NRCA1, or NRCALONG) behind a filter.

    Raises
    ------
    ValueError
        If the filter is not known, or a detector does not see it.
    """
    if filter_name not in FILTERS:
        raise ValueError(f"the filter of nircam-imaging must be one of {', '.join(FILTERS)}, not {filter_name!r}")
    long = filter_name in LONG
    behind = [name for name in PLACES if name.endswith("LONG") == long]
    detectors = tuple(detectors) or (behind[0],)
    if not set(detectors) <= set(behind):
        raise ValueError(
            f"detectors behind {filter_name} must be among {', '.join(behind)}, not {', '.join(detectors)}"
        )
    passband, offset, core, sky, vega = FILTERS[filter_name]
    return Imager(
        instrument="NIRCAM",
        exp_type="NRC_IMAGE",
        filter=filter_name,
        pupil="CLEAR",
        passband=passband,
        offset=offset,
        psf=wider_psf(core),
        sky=sky,
        star_rates=(3000.0, 3.0),
        vega_offset=vega,
        optics={name: distortion(name) for name in detectors},
        apertures={name: f"{name.replace('LONG', '5')}_FULL" for name in detectors},
        pattern="RAPID",
        frame_time=FULL_FRAME_TIME,
        ngroups=8,
    )
