"""The world coordinates of a mosaic: a tangent plane with square pixels that covers all its exposures.

Its centre is the middle of the corners of the exposures on the unit sphere, its scale the one of the first exposure at
its reference point, and its rows and columns run along those of the detector, unless the caller says otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.modeling.models import Pix2Sky_TAN
from gwcs import WCS
from gwcs.fitswcs import FITSImagingWCSTransform
from scipy.spatial import ConvexHull

from calibration.wcs.imaging import pixel_box, sample_map, sip_keywords
from calibration.wcs.pointing import detector_frame, world_frame

#: A mosaic that is larger is taken for a mistake, unless its size is given.
MAX_PIXELS = 2**29


@dataclass(frozen=True)
class Orientation:
    """How the detector lies on the sky: ROLL_REF, V3I_YANG [deg] and VPARITY (1 or -1) of an exposure."""

    roll_ref: float
    v3i_yang: float
    vparity: int

    def __post_init__(self) -> None:
        if self.vparity not in (-1, 1):
            raise ValueError(f"VPARITY must be 1 or -1, but is {self.vparity}; correct the header of the exposure")


def pixel_scale(wcs: WCS, ra: float, dec: float) -> float:
    """The size of a pixel where it looks at (``ra``, ``dec``): the geometric mean of its sides [deg]."""
    x, y = wcs.invert(ra, dec, with_bounding_box=False)
    at = _on_sphere(*wcs(x + np.array([0.0, 1.0, 0.0]), y + np.array([0.0, 0.0, 1.0]), with_bounding_box=False))
    sides = np.linalg.norm(at[1:] - at[0], axis=1)
    return float(np.degrees(np.sqrt(np.prod(2 * np.arcsin(sides / 2)))))


def _on_sphere(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    lon, lat = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def centre_of(footprints: Sequence[np.ndarray]) -> tuple[float, float]:
    """Right ascension and declination [deg] of the middle of all corners (n, 2)."""
    corners = np.concatenate([_on_sphere(*corner.T) for corner in footprints])
    x, y, z = (corners.max(axis=0) + corners.min(axis=0)) / 2
    return float(np.degrees(np.arctan2(y, x)) % 360), float(np.degrees(np.arctan2(z, np.hypot(x, y))))


def mosaic_wcs(
    footprints: Sequence[np.ndarray],
    scale: float,
    orientation: Orientation,
    rotation: float | None = None,
    crval: tuple[float, float] | None = None,
    crpix: tuple[float, float] | None = None,
    shape: tuple[int, int] | None = None,
) -> WCS:
    """The WCS of a mosaic, with the frames detector and world.

    Parameters
    ----------
    footprints : sequence of (4, 2)
        Corners of the exposures, right ascension and declination [deg].
    scale : float
        Size of a pixel [deg].
    orientation : Orientation
        Of the first exposure.
    rotation : float, optional
        Position angle of the columns [deg]; by default they run along those of the detector.
    crval : (float, float), optional
        Reference point on the sky [deg]; the middle of the exposures by default.
    crpix : (float, float), optional
        Where it stands in the mosaic [zero-based pixel]; by default such that the mosaic just holds all exposures.
    shape : (int, int), optional
        (ny, nx); as large as needed by default.

    Returns
    -------
    gwcs.WCS
        With ``pixel_shape`` and bounding box.

    Raises
    ------
    ValueError
        If the mosaic would have less than two pixels along an axis, or more than `MAX_PIXELS` that nobody asked for.
    """
    parity = orientation.vparity
    turn = np.radians(
        orientation.roll_ref - parity * orientation.v3i_yang if rotation is None else rotation,
    )
    pc = np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if parity > 0:
        pc[:, 0] *= -1
    centre = centre_of(footprints) if crval is None else crval
    corners = np.concatenate(list(footprints))
    # Tangent plane coordinates of the corners in pixels, with the reference point at the origin.
    native = _fits_transform((0.0, 0.0), centre, scale, pc)
    x, y = native.inverse(*corners.T)
    low, high = np.array([x.min(), y.min()]), np.array([x.max(), y.max()])
    at = -low if crpix is None else np.asarray(crpix, float)
    low, high = low + at, high + at
    if shape is None:
        nx, ny = (int(value + 0.5) for value in high)
        if nx * ny > MAX_PIXELS:
            raise ValueError(
                f"the mosaic of all exposures would have {nx} x {ny} pixels; one of them probably points elsewhere: "
                "check RA_REF and DEC_REF of each, or give the size (resample.output_shape) and the reference point "
                "(resample.crval) that are meant"
            )
        box = ((-0.5, nx - 0.5), (-0.5, ny - 0.5))
    else:
        ny, nx = shape
        inside = [
            (max(0, int(lo + 0.5)) - 0.5, min(int(hi + 0.5), size) - 0.5)
            for lo, hi, size in zip(low, high, (nx, ny), strict=True)
        ]
        # Exposures that miss the given grid leave no part of it.
        whole = ((-0.5, nx - 0.5), (-0.5, ny - 0.5))
        box = whole if any(first >= last for first, last in inside) else (inside[0], inside[1])
    if nx < 2 or ny < 2:
        raise ValueError(
            f"the mosaic would have {nx} x {ny} pixels of {3600 * scale:.4f} arcsec; expected at least 2 x 2: "
            "check the pixel scale and the reference point"
        )
    wcs = WCS([(detector_frame(), _fits_transform(tuple(at), centre, scale, pc)), (world_frame(), None)])
    wcs.bounding_box = box
    wcs.pixel_shape = (nx, ny)
    return wcs


def _fits_transform(
    crpix: tuple[float, ...], crval: tuple[float, float], scale: float, pc: np.ndarray
) -> FITSImagingWCSTransform:
    return FITSImagingWCSTransform(Pix2Sky_TAN(), crpix=crpix, crval=crval, cdelt=(scale, scale), pc=pc)


def fits_keywords(wcs: WCS) -> dict[str, float | str]:
    """The FITS keywords of the WCS of a mosaic; of one that is no plain FITS projection, an approximation (`sip_keywords`)."""
    transform = wcs.forward_transform
    if not isinstance(transform, FITSImagingWCSTransform):
        return sip_keywords(wcs)
    (crpix1, crpix2), (crval1, crval2) = transform.crpix.value, transform.crval.value
    cdelt, pc, code = transform.cdelt.value, transform.pc.value, transform.projection.prjprm.code
    return {
        "WCSAXES": 2,
        "CRPIX1": float(crpix1) + 1,
        "CRPIX2": float(crpix2) + 1,
        "CRVAL1": float(crval1),
        "CRVAL2": float(crval2),
        "CTYPE1": f"RA---{code}",
        "CTYPE2": f"DEC--{code}",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CDELT1": float(cdelt[0]),
        "CDELT2": float(cdelt[1]),
        "PC1_1": float(pc[0][0]),
        "PC1_2": float(pc[0][1]),
        "PC2_1": float(pc[1][0]),
        "PC2_2": float(pc[1][1]),
        "RADESYS": "ICRS",
    }


def pixel_map(source: WCS, shape: tuple[int, int], target: WCS, max_error: float = 1e-3) -> np.ndarray:
    """Where the pixels of one image stand in another.

    Parameters
    ----------
    source, target : gwcs.WCS
    shape : (int, int)
        (ny, nx) of the source.
    max_error : float
        Largest error of the interpolation [pixel of the target]; 0 evaluates every pixel.

    Returns
    -------
    (ny, nx, 2) float64
        Zero-based (x, y) in the target; NaN outside the bounding box of the source.
    """

    def transform(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return target.invert(*source(x, y, with_bounding_box=False), with_bounding_box=False)

    ny, nx = shape
    mapped = np.empty((ny, nx, 2))
    sample_map(transform, shape, max_error, out=np.moveaxis(mapped, -1, 0))
    (x0, x1), (y0, y1) = pixel_box(source, shape)
    outside_x = (np.arange(nx) < x0) | (np.arange(nx) > x1)
    outside_y = (np.arange(ny) < y0) | (np.arange(ny) > y1)
    mapped[outside_y] = np.nan
    mapped[:, outside_x] = np.nan
    return mapped


def hull(footprints: Sequence[np.ndarray]) -> np.ndarray:
    """(n, 2) corners [deg] of the convex region that holds all footprints; gaps between them are not cut out."""
    ra, dec = centre_of(footprints)
    plane = _fits_transform((0.0, 0.0), (ra, dec), 1 / 3600, np.array([[-1.0, 0.0], [0.0, 1.0]]))
    corners = np.concatenate(list(footprints))
    flat = np.column_stack(plane.inverse(*corners.T))
    return corners[ConvexHull(flat).vertices]
