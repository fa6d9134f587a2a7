"""wfss_contam: take the light of its neighbours out of each cutout."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from calibration.spectra.extract_2d import wavelength_ranges
from calibration.spectra.wfss_contam import (
    OrderResponse,
    Scene,
    fit_shape,
    model_cutout,
    model_exposure,
    order_response,
    scene_of,
    too_faint,
)
from calibration.wcs.grism import Dispersion, dispersion_of, exposure_wcs
from infra.products.image import Image, Segmentation
from infra.products.slits import Slit, SlitSet
from infra.references.content import References
from tasks.photom import pixel_area, row_of_order
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


class WfssContamOptions(BaseModel, frozen=True, extra="forbid"):
    """How the neighbours are modelled."""

    save_simulated_image: bool = Field(
        False,
        description="write the model of the whole exposure, _simul, and of each source in its cutout, _simul_slits",
    )
    save_contam_images: bool = Field(False, description="write what is taken out of each cutout, _contam")
    orders: list[int] | None = Field(None, description="orders of the neighbours; none: all that the references know")
    magnitude_limit: float | None = Field(
        None, description="leave out neighbours that are fainter in the direct image [AB mag]; none: take all"
    )
    wl_oversample: int = Field(2, ge=1, description="wavelengths per pixel of the model")
    polyfit_degree: int | None = Field(
        None, ge=0, le=5, description="degree of the spectra that are fitted to the cutouts; none: flat spectra"
    )
    n_iterations: int = Field(1, ge=1, description="rounds of fitting the spectra and taking out the neighbours")
    rejection_threshold: float | None = Field(
        0.1,
        gt=0,
        description="do without a fitted spectrum whose mean is so far from the direct image's; none: take all",
    )


@dataclass(frozen=True)
class Model:
    """What is known of the light of all sources: the model of any place follows from it."""

    scene: Scene
    dispersion: Dispersion
    responses: Mapping[int, OrderResponse]
    faint: Mapping[int, np.ndarray]

    def own(self, slit: Slit, shapes: Mapping[int, np.ndarray]) -> np.ndarray:
        """(ny, nx) float64: the light of its own source in a cutout [DN/s]."""
        response = self.responses.get(slit.order)
        if response is None or slit.source_id in self.faint.get(slit.order, ()):
            return np.zeros(slit.data.shape)
        x, y = _corner(slit)
        return model_cutout(
            self.scene, slit.source_id, self.dispersion, slit.order, response, (x, y), slit.data.shape, shapes
        )


@step("wfss_contam", references=("photom", "wavelengthrange", "area"), options=WfssContamOptions, default=False)
def wfss_contam(
    slits: SlitSet, references: References, options: WfssContamOptions, direct: Image, segmentation: Segmentation
) -> SlitSet:
    """Model the spectra of all sources from the direct image, and subtract those of the neighbours."""
    if not slits.slits:
        raise StepSkipped("there is no spectrum")
    if references.path("photom") is None:
        raise StepSkipped("no PHOTOM reference file matches this exposure")
    model = _model(slits, references, options, direct, segmentation)
    shape = slits.header.subarray.shape
    shapes: dict[int, np.ndarray] = {}
    total, own, contamination = _contamination(slits, model, shape, shapes)
    for _ in range(0 if options.polyfit_degree is None else options.n_iterations):
        flat = own if not shapes else [model.own(slit, {}) for slit in slits.slits]
        shapes = _fit(slits, contamination, flat, options)
        total, own, contamination = _contamination(slits, model, shape, shapes)
    pixels = sum(slit.data.size for slit in slits.slits)
    log.info(
        "wfss_contam: %d sources in orders %s%s; %.4g DN/s per pixel taken out on average",
        np.unique(model.scene.source).size,
        ", ".join(map(str, model.responses)),
        f", {len(shapes)} with a spectrum of their own" if options.polyfit_degree is not None else "",
        sum(float(np.abs(light).sum()) for light in contamination) / pixels,
    )
    side: dict[str, Any] = dict(slits.side)
    if options.save_simulated_image:
        none = np.zeros(shape, np.float32)
        side["simul"] = Image(slits.header, total.astype(np.float32), none, np.zeros(shape, np.uint32))
        side["simul_slits"] = _pictures(slits, own)
    if options.save_contam_images:
        side["contam"] = _pictures(slits, contamination)
    cleaned = (
        slit.with_(data=(slit.data - light).astype(np.float32))
        for slit, light in zip(slits.slits, contamination, strict=True)
    )
    return slits.with_(slits=tuple(cleaned), side=side)


def _model(
    slits: SlitSet, references: References, options: WfssContamOptions, direct: Image, segmentation: Segmentation
) -> Model:
    header = slits.header
    ny, nx = header.subarray.shape
    wcs = exposure_wcs(slits.slits[0].wcs)
    dispersion = dispersion_of(wcs)
    ranges_of = references.asdf("wavelengthrange")
    filter_ = header.require("PUPIL" if header.get("INSTRUME") == "NIRISS" else "FILTER")
    responses: dict[int, OrderResponse] = {}
    for order in options.orders or sorted(dispersion.orders):
        row = row_of_order(header, order, references, apply_time_correction=True)
        if row is None:
            log.info("wfss_contam: no sensitivity for order %d, which is left out", order)
            continue
        limits = wavelength_ranges(ranges_of, filter_, [order])[order]
        middle = nx / 2, ny / 2
        responses[order] = order_response(dispersion, order, middle, limits, *row, oversample=options.wl_oversample)
    if not responses:
        raise StepSkipped("the PHOTOM reference file has no row for this filter and grism")
    scene = scene_of(direct.data, segmentation.data, direct.wcs, wcs)
    faint: dict[int, np.ndarray] = {}
    if options.magnitude_limit is not None:
        area = pixel_area(references).get("PIXAR_SR")
        if area is None:
            raise ValueError(
                "wfss_contam.magnitude_limit needs the pixel area PIXAR_SR of the AREA or PHOTOM reference, and neither has "
                "it; leave the option out, or use a reference that has it"
            )
        faint = too_faint(scene, responses, area, options.magnitude_limit)
        if all(set(numbers) >= set(scene.source) for numbers in faint.values()):
            raise StepSkipped(f"no source is brighter than the magnitude limit of {options.magnitude_limit}")
    return Model(scene, dispersion, responses, faint)


def _corner(slit: Slit) -> tuple[int, int]:
    """Pixel (x, y) of the exposure, zero-based, of the first pixel of a cutout."""
    return int(slit.header["SLTSTRT1"]) - 1, int(slit.header["SLTSTRT2"]) - 1


def _contamination(
    slits: SlitSet, model: Model, shape: tuple[int, int], shapes: Mapping[int, np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """The model of the exposure, of the own light of each cutout, and of the light of the others there [DN/s]."""
    total = model_exposure(model.scene, model.dispersion, model.responses, shape, shapes, model.faint)
    own, others = [], []
    for slit in slits.slits:
        x, y = _corner(slit)
        ny, nx = slit.data.shape
        own.append(model.own(slit, shapes))
        others.append(total[y : y + ny, x : x + nx] - own[-1])
    return total, own, others


def _fit(
    slits: SlitSet, contamination: Sequence[np.ndarray], models: Sequence[np.ndarray], options: WfssContamOptions
) -> dict[int, np.ndarray]:
    """The polynomial of each source, from its first cutout that has one."""
    shapes: dict[int, np.ndarray] = {}
    for slit, light, model in zip(slits.slits, contamination, models, strict=True):
        if slit.source_id in shapes or slit.wavelength is None:
            continue
        degree = options.polyfit_degree or 0
        shape = fit_shape(
            slit.data - light, slit.err, model, slit.wavelength, slit.axis, degree, options.rejection_threshold
        )
        if shape is not None:
            shapes[slit.source_id] = shape
    return shapes


def _pictures(slits: SlitSet, planes: Sequence[np.ndarray]) -> SlitSet:
    """The slits with other pixels in place of theirs, which have no error."""
    pictures = (
        slit.with_(
            data=plane.astype(np.float32),
            err=np.zeros(plane.shape, np.float32),
            var_poisson=None,
            var_rnoise=None,
            var_flat=None,
        )
        for slit, plane in zip(slits.slits, planes, strict=True)
    )
    return SlitSet(slits.header, tuple(pictures), slits.recipe)
