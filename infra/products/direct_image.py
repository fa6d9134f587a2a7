"""A direct image with a plain FITS WCS, of drizzle, reproject or another archive, as the ``Image`` that the steps know.

Its pixels become surface brightness in MJy/sr where the header tells their unit, its WCS a gwcs; pixels without data NaN.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units
from astropy.io import fits

from infra.products.fits import open_fits
from infra.products.header import Header, ProductError, parse_cards
from infra.products.image import Image, Segmentation, read_image, read_segmentation

log = logging.getLogger(__name__)

#: Jy from PHOTFLAM [erg/s/cm2/Angstrom] times PHOTPLAM^2 [Angstrom^2]: 1e23 over the speed of light in Angstrom/s.
_JY_OF_FLAM = 1e23 / 2.99792458e18
_ZERO_POINTS = ("ABZP", "ABMAGZP", "MAGZERO", "MAGZPT", "ZEROPNT", "PHOTABZP")
AB_JANSKY = 3631.0
#: Frames that agree with ICRS within 0.03 arcsec.
_FRAMES = ("ICRS", "FK5")


def read_direct_image(path: str | Path) -> Image:
    """A direct image: of image3 with its gwcs, or any other with a FITS WCS in SCI, PRIMARY or the first image extension.

    Raises
    ------
    ProductError
        If the file has no image, or its WCS is none of the sky or distorted.
    """
    path = Path(path)
    with open_fits(path) as hdulist:
        ours = any(hdu.name == "ASDF" for hdu in hdulist)
        if not ours:
            hdu = _first_image(hdulist, path.name)
            header = fits.Header(hdulist[0].header, copy=True)
            if hdu is not hdulist[0]:
                header.extend(hdu.header, update=True, strip=False)
            data = np.array(hdu.data, np.float32)
            weight = next((np.array(one.data) for one in hdulist if one.name in ("WHT", "WEIGHT")), None)
    if ours:
        image = read_image(path)
        if image.wcs is None:
            raise ProductError(f"{path.name}: it has no WCS; give the _i2d of image3 or an image with a FITS WCS")
        return image
    wcs, area = plain_wcs(header, data.shape, path.name)
    if weight is not None and weight.shape == data.shape:
        data[~(weight > 0)] = np.nan
    else:
        data[_outside(data)] = np.nan
    factor = _brightness_factor(header, area)
    cards: dict[str, Any] = {"FILENAME": path.name, "PIXAR_SR": area}
    for key in ("TELESCOP", "INSTRUME", "FILTER", "PUPIL"):
        if isinstance(header.get(key), str) and header[key].strip():
            cards[key] = header[key].strip()
    if factor is None:
        log.warning(
            "%s: its unit is not known (BUNIT, PHOTFNU, PHOTFLAM with PHOTPLAM, or %s): it gives no magnitudes",
            path.name,
            _ZERO_POINTS[0],
        )
    else:
        cards["BUNIT"] = "MJy/sr"
        data *= np.float32(factor)
    return Image(Header(cards), data, np.full(data.shape, np.nan, np.float32), None, wcs=wcs)


def read_direct_segmentation(path: str | Path) -> Segmentation:
    """A segmentation map: of image3, or plain FITS; its numbers are those of the catalog.

    Raises
    ------
    ProductError
        If the file has no image of whole numbers.
    """
    path = Path(path)
    with open_fits(path) as hdulist:
        ours = any(hdu.name == "ASDF" for hdu in hdulist)
        if not ours:
            data = np.array(_first_image(hdulist, path.name).data)
            header = parse_cards({"PRIMARY": hdulist[0].header})
    if ours:
        return read_segmentation(path)
    if (data.dtype.kind == "f" and not (np.isfinite(data) & (data == np.round(data))).all()) or (data < 0).any():
        raise ProductError(
            f"{path.name}: expected a map of source numbers (0: none), but its pixels are no such numbers"
        )
    return Segmentation(header, data.astype(np.uint32), None)


def _first_image(hdulist: fits.HDUList, name: str) -> Any:
    images = [hdu for hdu in hdulist if getattr(hdu, "is_image", False) and hdu.header["NAXIS"] == 2]
    if not images:
        raise ProductError(f"{name}: expected a direct image, but the file has no extension with an image (ny, nx)")
    return next((hdu for hdu in images if hdu.name == "SCI"), images[0])


def plain_wcs(header: fits.Header, shape: tuple[int, ...], name: str) -> tuple[Any, float]:
    """The gwcs of a FITS WCS, and the area of its pixels [sr].

    Raises
    ------
    ProductError
        If it is none of right ascension and declination, has a distortion, or another frame than ICRS or FK5.
    """
    # Here, not above: only direct images of users need them.
    from astropy.modeling import projections
    from astropy.wcs import WCS as FitsWcs
    from astropy.wcs import FITSFixedWarning
    from gwcs import WCS
    from gwcs.fitswcs import FITSImagingWCSTransform

    from calibration.wcs.pointing import detector_frame, world_frame

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        try:
            known = FitsWcs(header)
        except Exception as error:
            # astropy's WCS raises many types for what is in a header.
            raise ProductError(
                f"{name}: its WCS cannot be read ({' '.join(str(error).split())[:120]}); drizzle the image"
            ) from None
    types = [str(word) for word in known.wcs.ctype]
    code = types[0][-3:] if types else ""
    if not (types and types[0].startswith("RA--") and types[1].startswith("DEC-")):
        raise ProductError(
            f"{name}: expected a WCS of right ascension and declination (CTYPE1 RA---TAN), but it has "
            f"{' and '.join(filter(None, types)) or 'none'}; give an image with a FITS WCS, north of which is known"
        )
    if known.sip is not None or known.cpdis1 is not None or known.det2im1 is not None or code == "SIP":
        raise ProductError(
            f"{name}: its WCS has a distortion; drizzle it (or reproject it) onto a plain projection first"
        )
    projection = getattr(projections, f"Pix2Sky_{code}", None)
    if projection is None or projection.n_inputs != 2 or projection().param_names:
        raise ProductError(f"{name}: the projection {code} is not known here; reproject the image to TAN")
    frame = (known.wcs.radesys or "ICRS").strip()
    if frame not in _FRAMES:
        raise ProductError(f"{name}: its WCS is in the frame {frame}; expected {' or '.join(_FRAMES)}: reproject it")
    matrix = known.pixel_scale_matrix
    wcs = WCS(
        [
            (
                detector_frame(),
                FITSImagingWCSTransform(
                    projection(), crpix=tuple(known.wcs.crpix - 1), crval=tuple(known.wcs.crval), pc=matrix
                ),
            ),
            (world_frame(), None),
        ]
    )
    wcs.pixel_shape = shape[::-1]
    return wcs, float(abs(np.linalg.det(matrix)) * np.deg2rad(1) ** 2)


def _outside(data: np.ndarray) -> np.ndarray:
    """Pixels without data of an image that has no weights: NaN, and the zeros that drizzle leaves around its inputs."""
    from scipy.ndimage import label

    zones, count = label(data == 0)
    if not count:
        return ~np.isfinite(data)
    edge = np.unique(np.concatenate([zones[0], zones[-1], zones[:, 0], zones[:, -1]]))
    return ~np.isfinite(data) | np.isin(zones, edge[edge > 0])


def _brightness_factor(header: fits.Header, area: float) -> float | None:
    """What makes MJy/sr of the pixels, of ``area`` [sr]; None where the header does not tell."""
    try:
        found = units.Unit(str(header.get("BUNIT", "")).strip())
    except ValueError:  # "ELECTRONS/S", "counts per second": the other keywords tell
        found = units.dimensionless_unscaled
    if found != units.dimensionless_unscaled:
        for per_pixel in (units.one, units.pix, units.pix**2):
            if (found * per_pixel).is_equivalent(units.MJy / units.sr):
                return float((found * per_pixel).to(units.MJy / units.sr))
            if (found * per_pixel).is_equivalent(units.Jy):
                return float((found * per_pixel).to(units.MJy)) / area
    jansky = None
    if _positive(header, "PHOTFNU"):
        jansky = header["PHOTFNU"]
    elif _positive(header, "PHOTFLAM") and _positive(header, "PHOTPLAM"):
        jansky = header["PHOTFLAM"] * header["PHOTPLAM"] ** 2 * _JY_OF_FLAM
    else:
        zero = next((float(header[key]) for key in _ZERO_POINTS if _positive(header, key)), None)
        jansky = None if zero is None else AB_JANSKY * 10 ** (-0.4 * zero)
    return None if jansky is None else 1e-6 * float(jansky) / area


def _positive(header: fits.Header, key: str) -> bool:
    value = header.get(key)
    return isinstance(value, int | float) and value > 0
