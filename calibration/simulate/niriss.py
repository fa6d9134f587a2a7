"""The optics of NIRISS as the simulator has them: aperture, distortion, grisms.

Reference angles and pixel scale are those of the aperture NIS_CEN; the polynomials have the size of the real ones (grisms:
46.7 Angstrom per pixel in order +1, GR150R along columns, GR150C along rows) but are our own numbers.
"""

import numpy as np

from calibration.simulate.dispersion import Grism, Trace
from calibration.simulate.field import ARCSEC, Distortion
from calibration.simulate.imager import FULL_FRAME_TIME, Imager
from calibration.simulate.scene import PSF
from calibration.simulate.throughput import F200W

#: Reference pixel of NIS_CEN, zero-based.
CENTRE = 1023.5

X_COEFFS = np.zeros((4, 4))
X_COEFFS[1, 0], X_COEFFS[2, 0], X_COEFFS[1, 1], X_COEFFS[0, 2] = 6.539e-2, 2.31e-8, -5.4e-9, 2.5e-9
X_COEFFS[3, 0], X_COEFFS[2, 1], X_COEFFS[1, 2], X_COEFFS[0, 3] = -2.3e-12, -6.3e-12, -8.1e-12, -0.8e-12
Y_COEFFS = np.zeros((4, 4))
Y_COEFFS[1, 0], Y_COEFFS[0, 1] = -2.99e-4, 6.589e-2
Y_COEFFS[2, 0], Y_COEFFS[1, 1], Y_COEFFS[0, 2] = -4.95e-8, 2.72e-8, -4.2e-9
Y_COEFFS[3, 0], Y_COEFFS[2, 1], Y_COEFFS[1, 2], Y_COEFFS[0, 3] = -1.4e-12, -14.0e-12, -1.8e-12, -28.0e-12

#: (filter, pupil) -> column and row offset [pixel] that the filter adds before the distortion.
FILTER_OFFSETS = {("CLEAR", "F200W"): (0.08, -0.05)}

#: Area of a pixel at the centre [sr], the PIXAR_SR of the photometry.
PIXEL_AREA = (X_COEFFS[1, 0] * Y_COEFFS[0, 1] - X_COEFFS[0, 1] * Y_COEFFS[1, 0]) * ARCSEC**2


def distortion(filter_name: str, pupil: str) -> Distortion:
    """Pixels to (V2, V3) behind a filter and a pupil element."""
    column, row = FILTER_OFFSETS.get((filter_name, pupil), (0.0, 0.0))
    return Distortion(
        x_ref=CENTRE - column,
        y_ref=CENTRE - row,
        x_coeffs=X_COEFFS,
        y_coeffs=Y_COEFFS,
        v2_ref=-289.966976,
        v3_ref=-697.723326,
        v3i_yang=0.5695669,
        vparity=-1,
    )


def imager(filter_name: str = "F200W") -> Imager:
    """The imager behind its one filter, which is in the pupil wheel."""
    if filter_name != F200W.name:
        raise ValueError(f"the filter of niriss-imaging must be F200W, not {filter_name!r}")
    return Imager(
        instrument="NIRISS",
        exp_type="NIS_IMAGE",
        filter="CLEAR",
        pupil=filter_name,
        passband=F200W,
        offset=FILTER_OFFSETS["CLEAR", filter_name],
        psf=PSF,
        sky=0.25,
        star_rates=(2500.0, 4.0),
        vega_offset=1.70,
        optics={"NIS": distortion("", "")},
        apertures={"NIS": "NIS_CEN"},
        pattern="NISRAPID",
        frame_time=FULL_FRAME_TIME,
        ngroups=8,
    )


#: Wavelength scale of the grisms: wavelength = C0 + C1 t [um].
C0, C1 = 0.75, 1.55

WHEEL_REFERENCE = {"GR150R": 33.655, "GR150C": 354.222}  # [deg]
WHEEL = {"GR150R": 33.675, "GR150C": 354.192}  # [deg], where the wheel stopped

# Offsets across the dispersion depend on the position; along it they hardly do. Coefficients of 1, x, x^2, y, y^2, xy.
_ALONG = {
    "GR150R": {
        1: ((59.0, 1.4e-6, -1.0e-9, 6.1e-7, -7.1e-10, 0.0), (-331.1, -1.2e-5, 6.7e-9, -4.8e-6, 6.6e-9, 4.4e-10)),
        0: ((215.6, 9.5e-6, -4.9e-9, 3.6e-6, -5.7e-9, 0.0), (-8.64, -4.0e-7, 2.0e-10, -1.5e-7, 2.5e-10, 0.0)),
        2: ((-95.8, -7.2e-6, 3.1e-9, -2.1e-6, 4.5e-9, 0.0), (-652.7, -1.7e-5, 1.1e-8, -8.6e-6, 8.8e-9, 1.1e-9)),
        -1: ((370.6, 1.6e-5, -8.2e-9, 6.6e-6, -9.4e-9, 0.0), (314.3, 2.0e-5, -8.7e-9, 5.6e-6, -1.2e-8, 0.0)),
    },
    "GR150C": {
        1: ((63.6, 3.8e-6, -7.2e-10, 8.2e-7, -1.3e-9, 0.0), (-331.9, -1.2e-5, 4.2e-10, -1.6e-6, 6.7e-9, 1.4e-10)),
        0: ((218.1, 2.9e-6, 2.1e-9, -1.1e-6, -4.4e-9, 0.0), (-9.55, -5.7e-8, -1.3e-10, 7.4e-8, 2.0e-10, 0.0)),
        2: ((-91.0, 8.1e-6, -5.3e-9, 7.1e-6, 1.9e-9, 0.0), (-653.2, -4.6e-5, 1.1e-8, -1.8e-5, 1.3e-8, 1.3e-9)),
        -1: ((372.6, 5.3e-6, 3.6e-9, -2.5e-6, -7.6e-9, 0.0), (309.5, -8.6e-6, 9.0e-9, -4.5e-6, -6.3e-9, 0.0)),
    },
}
_ACROSS = {
    "GR150R": {
        1: ((-1.29, 2.4e-4, 1.3e-7, -4.7e-5, -1.6e-8, 0.0), (0.34, -1.2e-3, -8.8e-7, 4.2e-4, -3.5e-9, 0.0)),
        0: ((-1.57, 1.0e-3, 5.6e-7, -2.5e-4, -7.9e-9, 0.0), (0.014, -4.0e-5, -2.3e-8, 1.1e-5, 0.0, 0.0)),
        2: ((-0.96, -6.3e-4, -2.9e-7, 1.6e-4, -2.7e-8, 0.0), (0.33, -1.6e-3, -1.7e-6, 8.1e-4, 1.2e-8, 0.0)),
        -1: ((-1.79, 1.7e-3, 9.7e-7, -4.5e-4, -3.0e-9, 0.0), (-0.67, 1.8e-3, 8.6e-7, -4.1e-4, 2.2e-8, 0.0)),
    },
    "GR150C": {
        1: ((-1.88, -5.2e-4, 2.1e-8, -2.3e-4, 0.0, 4.8e-8), (-3.09, 3.1e-3, -9.8e-7, 1.2e-3, 0.0, -5.4e-9)),
        0: ((-1.23, -2.0e-3, 4.8e-7, -6.1e-4, 0.0, 8.2e-8), (-0.053, 8.8e-5, -2.8e-8, 2.7e-5, 0.0, -1.6e-9)),
        2: ((-2.16, 9.2e-4, -4.3e-7, 6.6e-5, 0.0, -1.0e-9), (-8.52, 6.0e-3, -1.9e-6, 3.0e-3, 0.0, 8.7e-8)),
        -1: ((-0.21, -3.4e-3, 9.3e-7, -1.1e-3, 0.0, 1.0e-7), (0.58, -2.9e-3, 9.1e-7, -5.9e-4, 0.0, 9.7e-8)),
    },
}


def grism(name: str, origin: tuple[int, int] = (0, 0)) -> Grism:
    """GR150R or GR150C, for an array whose first pixel is at the full-frame column and row ``origin``."""
    if name not in WHEEL:
        raise ValueError(f"grism must be one of {', '.join(WHEEL)}, not {name!r}")
    traces = {}
    for order in _ALONG[name]:
        along, across = (tuple(np.array(terms) for terms in of[name][order]) for of in (_ALONG, _ACROSS))
        x_terms, y_terms = (along, across) if name == "GR150C" else (across, along)
        traces[order] = Trace((x_terms[0], x_terms[1]), (y_terms[0], y_terms[1]))
    axis = "x" if name == "GR150C" else "y"
    return Grism(name, axis, traces, C0, C1, WHEEL_REFERENCE[name], WHEEL[name]).cut(origin)
