"""wfss_contam: take the light of its neighbours out of each cutout."""

import logging

import numpy as np
from pydantic import BaseModel, Field

from calibration.spectra.extract_2d import wavelength_ranges
from calibration.spectra.wfss_contam import (
    OrderResponse,
    fit_shape,
    model_cutout,
    model_exposure,
    order_response,
    scene_of,
)
from calibration.wcs.grism import dispersion_of, exposure_wcs
from infra.products.image import Image, Segmentation
from infra.products.slits import SlitSet
from infra.references.content import References
from tasks.photom import row_of_order
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


class WfssContamOptions(BaseModel, frozen=True, extra="forbid"):
    """How the neighbours are modelled."""

    orders: list[int] | None = Field(None, description="orders of the neighbours; none: all that the references know")
    wl_oversample: int = Field(2, ge=1, description="wavelengths per pixel of the model")
    polyfit_degree: int | None = Field(
        None, ge=0, le=5, description="degree of the spectra that are fitted to the cutouts; none: flat spectra"
    )
    n_iterations: int = Field(2, ge=1, description="rounds of fitting the spectra and taking out the neighbours")


@step("wfss_contam", references=("photom", "wavelengthrange"), options=WfssContamOptions, default=False)
def wfss_contam(
    slits: SlitSet, references: References, options: WfssContamOptions, direct: Image, segmentation: Segmentation
) -> SlitSet:
    """Model the spectra of all sources from the direct image, and subtract those of the neighbours."""
    if not slits.slits:
        raise StepSkipped("there is no spectrum")
    if references.path("photom") is None:
        raise StepSkipped("no PHOTOM reference file matches this exposure")
    header = slits.header
    shape = header.subarray.shape
    wcs = exposure_wcs(slits.slits[0].wcs)
    dispersion = dispersion_of(wcs)
    ranges_of = references.asdf("wavelengthrange")
    pupil = header.require("PUPIL" if header.get("INSTRUME") == "NIRISS" else "FILTER")
    responses: dict[int, OrderResponse] = {}
    for order in options.orders or sorted(dispersion.orders):
        row = row_of_order(header, order, references, apply_time_correction=True)
        if row is None:
            log.info("wfss_contam: no sensitivity for order %d, which is left out", order)
            continue
        limits = wavelength_ranges(ranges_of, pupil, [order])[order]
        middle = shape[1] / 2, shape[0] / 2
        responses[order] = order_response(dispersion, order, middle, limits, *row, oversample=options.wl_oversample)
    if not responses:
        raise StepSkipped("the PHOTOM reference file has no row for this filter and grism")

    scene = scene_of(direct.data, segmentation.data, direct.wcs, wcs)
    shapes: dict[int, np.ndarray] = {}
    rounds = 1 if options.polyfit_degree is None else options.n_iterations + 1
    for turn in range(rounds):
        total = model_exposure(scene, dispersion, responses, shape, shapes)
        cleaned, own_flat = [], []
        for slit in slits.slits:
            y, x = int(slit.header["SLTSTRT2"]) - 1, int(slit.header["SLTSTRT1"]) - 1
            ny, nx = slit.data.shape
            place = ((x, y), (ny, nx))
            response = responses.get(slit.order)
            if response is None:
                own = flat = np.zeros((ny, nx))
            else:
                flat = model_cutout(scene, slit.source_id, dispersion, slit.order, response, *place)
                own = (
                    model_cutout(scene, slit.source_id, dispersion, slit.order, response, *place, shapes=shapes)
                    if slit.source_id in shapes
                    else flat
                )
            cleaned.append((slit.data - (total[y : y + ny, x : x + nx] - own)).astype(np.float32))
            own_flat.append(flat)
        if turn + 1 < rounds:
            shapes = _fit(slits, cleaned, own_flat, options.polyfit_degree or 0)
    before = sum(float(np.nansum(np.abs(slit.data - new))) for slit, new in zip(slits.slits, cleaned, strict=True))
    pixels = sum(slit.data.size for slit in slits.slits)
    log.info(
        "wfss_contam: %d sources in orders %s; %.4g DN/s per pixel taken out on average",
        np.unique(scene.source).size,
        ", ".join(map(str, responses)),
        before / pixels,
    )
    return slits.with_(slits=tuple(slit.with_(data=new) for slit, new in zip(slits.slits, cleaned, strict=True)))


def _fit(slits: SlitSet, cleaned: list[np.ndarray], models: list[np.ndarray], degree: int) -> dict[int, np.ndarray]:
    """The polynomial of each source, from its first cutout that has one."""
    shapes: dict[int, np.ndarray] = {}
    for slit, data, model in zip(slits.slits, cleaned, models, strict=True):
        if slit.source_id in shapes or slit.wavelength is None:
            continue
        shape = fit_shape(data, slit.err, model, slit.wavelength, degree)
        if shape is not None:
            shapes[slit.source_id] = shape
    return shapes
