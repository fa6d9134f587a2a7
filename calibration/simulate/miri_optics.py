"""The optics of the mid-infrared imager as the simulator has them: 0.11 arcsec per pixel, a bright sky.

The reference angles are about those of MIRIM_FULL; the polynomials have the size of the real ones (JWST documentation, "MIRI
imaging"; 2 per cent of scale over the field) but are our own numbers.
"""

import numpy as np

from calibration.simulate.field import Distortion
from calibration.simulate.imager import Imager
from calibration.simulate.miri import DETECTOR, REFERENCE_COLUMNS, SUBARRAYS
from calibration.simulate.scene import wider_psf
from calibration.simulate.throughput import F770W, F1000W, Passband

X_REF, Y_REF = 692.5, 511.5  # [pixel], zero-based

#: Filter -> passband, column and row offset [pixel], core of the PSF [pixel], sky [MJy/sr], AB minus Vega magnitude.
FILTERS: dict[str, tuple[Passband, tuple[float, float], float, float, float]] = {
    "F770W": (F770W, (0.0, 0.0), 0.95, 7.0, 4.38398),
    "F1000W": (F1000W, (-0.14, -0.62), 1.20, 20.0, 4.95551),
}


def distortion() -> Distortion:
    """Pixels to (V2, V3), without a filter."""
    x, y = np.zeros((4, 4)), np.zeros((4, 4))
    x[1, 0], x[0, 1], x[2, 0], x[1, 1], x[0, 2] = 0.11010, -6.0e-5, 3.4e-7, -1.71e-6, 6.0e-8
    x[3, 0], x[1, 2] = -2.6e-10, 2.3e-10
    y[1, 0], y[0, 1] = -3.1e-4, 0.11130
    y[2, 0], y[1, 1], y[0, 2] = -7.9e-7, 2.5e-7, -8.0e-8
    y[2, 1], y[0, 3] = -1.7e-9, -3.1e-9
    return Distortion(X_REF, Y_REF, x, y, -453.559, -373.814, 4.84, -1)


def imager(filter_name: str = "F770W") -> Imager:
    """The imager behind a filter.

    Raises
    ------
    ValueError
        If the filter is not known.
    """
    if filter_name not in FILTERS:
        raise ValueError(f"the filter of miri-imaging must be one of {', '.join(FILTERS)}, not {filter_name!r}")
    passband, offset, core, sky, vega = FILTERS[filter_name]
    edge = REFERENCE_COLUMNS - 0.5
    return Imager(
        instrument="MIRI",
        exp_type="MIR_IMAGE",
        filter=filter_name,
        pupil="",
        passband=passband,
        offset=offset,
        psf=wider_psf(core),
        sky=sky,
        star_rates=(8000.0, 80.0),
        vega_offset=vega,
        optics={"MIRIMAGE": distortion()},
        apertures={"MIRIMAGE": "MIRIM_FULL"},
        pattern="FASTR1",
        frame_time=SUBARRAYS["FULL"][1].reset * 1e-5,
        ngroups=20,
        detector_area=DETECTOR,
        bounding_box=((edge, DETECTOR.xsize - 1 - edge), (-0.5, DETECTOR.ysize - 0.5)),
    )
