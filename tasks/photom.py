"""photom: from counts per second to surface brightness."""

import logging
from typing import Any

import numpy as np
from astropy import units
from pydantic import BaseModel, Field

from calibration.images.photom import MJSR_TO_UJA2, VARIANCES, fading, find_photom_row, scale_planes
from calibration.spectra.photom import Cutout, calibrate_cutout, dispersed_conversion
from infra.products.header import Header
from infra.products.image import Image
from infra.products.slits import SlitSet
from infra.references.content import References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


class PhotomOptions(BaseModel, frozen=True, extra="forbid"):
    """What goes into the calibration factor."""

    apply_time_correction: bool = Field(True, description="follow the sensitivity in time, where the reference does")


@step("photom", references=("photom", "area"), options=PhotomOptions)
def photom(image: Image | SlitSet, references: References, options: PhotomOptions) -> Image | SlitSet:
    """Calibrate to MJy/sr."""
    if references.path("photom") is None:
        raise StepSkipped("no PHOTOM reference file matches this exposure")
    if isinstance(image, SlitSet):
        return _calibrate_slits(image, references, options)
    return _calibrate_image(image, references, options)


def _calibrate_image(image: Image, references: References, options: PhotomOptions) -> Image:
    header = image.header
    if header.require("INSTRUME") == "NIRISS" and image.data.ndim == 3:
        raise StepSkipped("integrations of NIRISS stay in DN/s, as the archive has them")
    factor = _factor_of_image(image, references, options)
    cards = {"PHOTMJSR": factor, "PHOTUJA2": factor * MJSR_TO_UJA2, "BUNIT": "MJy/sr", **pixel_area(references)}
    log.info("photom: 1 DN/s is %.6g MJy/sr", factor)
    planes = {name: getattr(image, name) for name in ("data", "err", *VARIANCES)}
    scaled, dq = scale_planes({name: plane for name, plane in planes.items() if plane is not None}, image.dq, factor)
    return image.with_(header=header.set(cards), dq=dq, area=_area_map(image, references), **scaled)


def _area_map(image: Image, references: References) -> np.ndarray | None:
    """The relative areas of the pixels. AREA files do not say where they lie: they cover the detector or the image."""
    whole = references.array("area", "SCI")
    if whole is None or whole.shape == image.data.shape[-2:]:
        return whole
    return references.array("area", "SCI", image.header.subarray)


def pixel_area(references: References) -> dict[str, Any]:
    """PIXAR_SR [sr] and PIXAR_A2 [arcsec2] of the AREA reference, or of the PHOTOM reference where that has none."""
    cards = {}
    for key in ("PIXAR_SR", "PIXAR_A2"):
        for reftype in ("area", "photom"):
            header = references.header(reftype)
            if header is not None and header.get(key) is not None:
                cards[key] = float(header[key])
                break
        else:
            log.warning("photom: neither the AREA nor the PHOTOM reference file has the pixel area %s", key)
    return cards


def _calibrate_slits(slits: SlitSet, references: References, options: PhotomOptions) -> SlitSet:
    """Each slit with the row of its order; one without a row stays as it is."""
    area = pixel_area(references)
    rows: dict[int, tuple[float, np.ndarray, np.ndarray] | None] = {}
    done = []
    for slit in slits.slits:
        if slit.order not in rows:
            rows[slit.order] = row_of_order(slits.header, slit.order, references, options.apply_time_correction)
        row = rows[slit.order]
        if row is None:
            done.append(slit.with_(header=slit.header.set(area)))
            continue
        factor, waves, response = row
        conversion = dispersed_conversion(slit.wavelength, slit.axis, factor, waves, response)
        cutout = Cutout(slit.data, slit.err, slit.dq, slit.var_poisson, slit.var_rnoise, slit.var_flat)
        cards = {"PHOTMJSR": factor, "PHOTUJA2": factor * MJSR_TO_UJA2, "BUNIT": "MJy/sr", **area}
        done.append(slit.with_(header=slit.header.set(cards), **vars(calibrate_cutout(cutout, conversion))))
    for order, row in rows.items():
        if row is None:
            log.warning("photom: the PHOTOM reference file has no row for order %d, its spectra stay in DN/s", order)
        else:
            log.info("photom: order %d: 1 DN/s per um is %.6g MJy/sr", order, row[0])
    return slits.with_(slits=tuple(done))


def row_of_order(
    header: Header, order: int, references: References, apply_time_correction: bool
) -> tuple[float, np.ndarray, np.ndarray] | None:
    """The sensitivity of a spectral order; None where the reference has no row for it.

    Returns
    -------
    factor : float
        MJy um s / (DN sr), which the relative factors multiply.
    waves : (n,) float64
        Wavelengths [um].
    response : (n,) float64
        Relative factors.
    """
    table = references.table("photom", "PHOTOM")
    of_order = np.flatnonzero(np.asarray(table["order"]) == order) if "order" in table.names else np.arange(len(table))
    if not of_order.size:
        return None
    # MIRI has no pupil wheel.
    key = "pupil" if "pupil" in table.names else "subarray"
    found = find_photom_row(table[of_order], {"filter": header["FILTER"], key: header.require(key.upper())})
    if found is None:
        return None
    index = int(of_order[found])
    row = table[index]
    factor = float(row["photmjsr"])
    if apply_time_correction:
        factor /= _fading(header, index, references)
    unit = references.header("photom", "PHOTOM").get("PHOTUNIT")
    if unit is not None:
        factor *= units.Unit(unit).to(units.Unit("MJy micron s / (DN sr)"))
    n = int(row["nelem"]) if "nelem" in table.names else None
    waves, response = (np.asarray(row[column][:n], float) for column in ("wavelength", "relresponse"))
    if 0 < waves.max() < 1e-4:
        waves = waves * 1e6  # from metres
    return factor, waves, response


def _factor_of_image(image: Image, references: References, options: PhotomOptions) -> float:
    """MJy/sr for one DN/s: of the row of the filter (and pupil, and subarray); FGS has one row."""
    header = image.header
    table = references.table("photom", "PHOTOM")
    row: int | None = 0
    if header["INSTRUME"] != "FGS":
        subarray = {"subarray": header.require("SUBARRAY")} if "subarray" in table.dtype.names else {}
        if header["INSTRUME"] == "MIRI":
            wanted = {"filter": header.require("FILTER"), **subarray}
        else:
            wanted = {"filter": header.require("FILTER"), "pupil": header.require("PUPIL"), **subarray}
        row = find_photom_row(table, wanted)
        if row is None and header["INSTRUME"] == "MIRI":
            row = find_photom_row(table, {**wanted, "subarray": "GENERIC"})
        if row is None:
            what = ", ".join(f"{column} {value}" for column, value in wanted.items())
            raise StepSkipped(f"the PHOTOM reference file has no row for {what}")
    factor = float(table["photmjsr"][row])
    return factor / _fading(header, row, references) if options.apply_time_correction else factor


def _fading(header: Header, row: int, references: References) -> float:
    """The part of the light of day zero that the exposure recorded, by the trends of a row; 1 where it has none."""
    trends = {}
    for trend in ("linear", "exponential", "powerlaw"):
        extname = f"TIMECOEFF_{trend.upper()}"
        if references.has("photom", extname):
            coefficients = references.table("photom", extname)
            trends[trend] = {name.lower(): coefficients[name][row] for name in coefficients.dtype.names}
    if not trends:
        return 1.0
    fraction = fading(trends, header.require("EXPMID"))
    log.info("photom: %.4f of the light of day zero is recorded", fraction)
    return fraction
