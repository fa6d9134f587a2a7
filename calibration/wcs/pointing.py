"""Where the telescope points: from the telescope's own angles V2, V3 to the sky.

The direction (V2, V3) in the frame of the telescope is a point on the unit sphere. Five rotations bring it to the sky:
the reference point (V2_REF, V3_REF) is turned onto the x-axis, the frame is turned by the position angle of the V3 axis
there, and the x-axis is turned to (RA_REF, DEC_REF).

The telescope moves at some 30 km/s, which shrinks or stretches the field by up to 1e-4 about the reference point
(differential velocity aberration); VA_SCALE is the ratio of the apparent plate scale to the true one.

The models have the form and the names that the archive's files have, so that any reader of those understands ours.

References
----------
JWST pipeline documentation, "assign_wcs", section "Basic WCS keywords and the transform from v2v3 to world".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import coordinates, units
from astropy.modeling import Model
from astropy.modeling.models import Identity, RotationSequence3D, Scale, Shift
from gwcs import coordinate_frames
from gwcs.geometry import CartesianToSpherical, SphericalToCartesian


@dataclass(frozen=True)
class Pointing:
    """The pointing of one exposure through one aperture.

    Attributes
    ----------
    v2_ref, v3_ref : float
        Reference point of the aperture in the frame of the telescope [arcsec].
    ra_ref, dec_ref : float
        The sky at the reference point, ICRS [deg].
    roll_ref : float
        Position angle of the V3 axis at the reference point, north over east [deg].
    va_scale : float
        Apparent plate scale over the true one, by the motion of the telescope.
    """

    v2_ref: float
    v3_ref: float
    ra_ref: float
    dec_ref: float
    roll_ref: float
    va_scale: float = 1.0

    def __post_init__(self) -> None:
        values = (self.v2_ref, self.v3_ref, self.ra_ref, self.dec_ref, self.roll_ref, self.va_scale)
        if not np.isfinite(values).all() or abs(self.dec_ref) > 90 or not 0.999 < self.va_scale < 1.001:
            raise ValueError(
                f"{self} is no pointing: expected finite numbers, DEC_REF in -90..90 and VA_SCALE within 1e-3 of 1; "
                "correct the header of the exposure"
            )


def pointing_of(keywords: Mapping[str, Any]) -> Pointing:
    """The pointing that stands in the keywords V2_REF, V3_REF, RA_REF, DEC_REF, ROLL_REF and, where given, VA_SCALE.

    Raises
    ------
    ValueError
        Naming the keywords that are missing.
    """
    names = ("V2_REF", "V3_REF", "RA_REF", "DEC_REF", "ROLL_REF")
    missing = [name for name in names if keywords.get(name) is None]
    if missing:
        raise ValueError(
            f"{keywords.get('FILENAME', 'the exposure')} does not say where the telescope pointed: missing "
            f"{', '.join(missing)}; fetch the exposure again from the archive, or add them to its SCI header"
        )
    v2_ref, v3_ref, ra_ref, dec_ref, roll_ref = (float(keywords[name]) for name in names)
    va_scale = keywords.get("VA_SCALE")
    return Pointing(v2_ref, v3_ref, ra_ref, dec_ref, roll_ref, 1.0 if va_scale is None else float(va_scale))


def v2v3_to_sky(pointing: Pointing) -> Model:
    """The model from (V2, V3) [arcsec] to (right ascension 0..360, declination) [deg]."""
    rotations = RotationSequence3D(
        [
            pointing.v2_ref / 3600,
            -pointing.v3_ref / 3600,
            pointing.roll_ref,
            pointing.dec_ref,
            -pointing.ra_ref,
        ],
        axes_order="zyxyz",
    )
    model = (
        (Scale(1 / 3600) & Scale(1 / 3600))
        | SphericalToCartesian(wrap_lon_at=180)
        | rotations
        | CartesianToSpherical(wrap_lon_at=360)
    )
    model.name = "v23tosky"
    return model


def velocity_aberration(pointing: Pointing) -> Model:
    """The model from apparent (V2, V3) to those freed of velocity aberration [arcsec]: a scale about the reference."""
    scale = pointing.va_scale
    if scale == 1:
        return Identity(2)
    model = Scale(scale, name="dva_scale_v2") & Scale(scale, name="dva_scale_v3")
    model |= Shift((1 - scale) * pointing.v2_ref, name="dva_v2_shift") & Shift(
        (1 - scale) * pointing.v3_ref, name="dva_v3_shift"
    )
    model.name = "DVA_Correction"
    return model


def detector_frame() -> coordinate_frames.Frame2D:
    """Pixels (x, y), zero-based, of the array in the file."""
    return coordinate_frames.Frame2D(name="detector", axes_order=(0, 1), unit=(units.pix, units.pix))


def v2v3_frame(name: str = "v2v3") -> coordinate_frames.Frame2D:
    """The angles of the telescope, arcsec; ``v2v3vacorr`` are those freed of velocity aberration."""
    return coordinate_frames.Frame2D(
        name=name, axes_order=(0, 1), axes_names=("v2", "v3"), unit=(units.arcsec, units.arcsec)
    )


def world_frame() -> coordinate_frames.CelestialFrame:
    """ICRS, degrees."""
    return coordinate_frames.CelestialFrame(name="world", reference_frame=coordinates.ICRS())


def local_roll(pointing: Pointing, v2: float, v3: float) -> float:
    """The position angle of the V3 axis at (``v2``, ``v3``) [arcsec], degrees in 0..360.

    The sky has its own north at each point, so the roll at another aperture than the reference differs from ROLL_REF.
    """
    to_sky = v2v3_to_sky(pointing)
    step = 0.01
    ra, dec = np.radians(to_sky(np.array([v2, v2]), np.array([v3 - step, v3 + step])))
    east = np.sin(ra[1] - ra[0]) * np.cos(dec[1])
    north = np.cos(dec[0]) * np.sin(dec[1]) - np.sin(dec[0]) * np.cos(dec[1]) * np.cos(ra[1] - ra[0])
    return float(np.degrees(np.arctan2(east, north)) % 360)
