"""photom: from counts per second to surface brightness."""

import logging
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from calibration.images.photom import MJSR_TO_UJA2, fading, find_photom_row
from infra.products.image import Image
from infra.references.content import References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


class PhotomOptions(BaseModel, frozen=True, extra="forbid"):
    """What goes into the calibration factor."""

    apply_time_correction: bool = Field(True, description="follow the sensitivity in time, where the reference does")


@step("photom", references=("photom", "area"), options=PhotomOptions)
def photom(image: Image, references: References, options: PhotomOptions) -> Image:
    """Calibrate to MJy/sr."""
    if references.path("photom") is None:
        raise StepSkipped("no PHOTOM reference file matches this exposure")
    factor = _factor_of_image(image, references, options)
    cards = {"PHOTMJSR": factor, "PHOTUJA2": factor * MJSR_TO_UJA2, "BUNIT": "MJy/sr", **pixel_area(references)}
    log.info("photom: 1 DN/s is %.6g MJy/sr", factor)

    def scale(plane: np.ndarray | None, by: float) -> np.ndarray | None:
        return None if plane is None else plane * np.float32(by)

    return image.with_(
        header=image.header.set(cards),
        data=scale(image.data, factor),
        err=scale(image.err, factor),
        var_poisson=scale(image.var_poisson, factor**2),
        var_rnoise=scale(image.var_rnoise, factor**2),
        var_flat=scale(image.var_flat, factor**2),
        area=references.array("area", "SCI", image.header.subarray),
    )


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


def _factor_of_image(image: Image, references: References, options: PhotomOptions) -> float:
    header = image.header
    table = references.table("photom", "PHOTOM")
    instrument = header.require("INSTRUME")
    if instrument == "FGS":
        tries = []
    elif instrument == "MIRI":
        tries = [{"filter": header["FILTER"], "subarray": name} for name in (header["SUBARRAY"], "GENERIC")]
    else:
        tries = [{"filter": header["FILTER"], "pupil": header["PUPIL"]}]
    row: int | None = None if tries else 0
    for match in tries:
        row = find_photom_row(table, match)
        if row is not None:
            break
    if row is None:
        wanted = ", ".join(f"{column} {value}" for column, value in tries[0].items())
        raise StepSkipped(f"the PHOTOM reference file has no row for {wanted}")
    factor = float(table["photmjsr"][row])
    if options.apply_time_correction:
        trends = {}
        for trend in ("linear", "exponential", "powerlaw"):
            extname = f"TIMECOEFF_{trend.upper()}"
            if references.has("photom", extname):
                coefficients = references.table("photom", extname)
                trends[trend] = {name.lower(): coefficients[name][row] for name in coefficients.dtype.names}
        if trends:
            fraction = fading(trends, header.require("EXPMID"))
            log.info("photom: %.4f of the light of day zero is recorded", fraction)
            factor /= fraction
    return factor
