"""background: subtract the sky that dedicated exposures, or a reference file, know."""

import logging

import numpy as np
from pydantic import BaseModel, Field

from calibration.images.background import average_background
from calibration.images.wfss_background import TooFewFreePixels, mask_boxes, subtract_wfss_background
from calibration.spectra.extract_2d import known_orders, locate_traces, wavelength_ranges
from calibration.spectra.sources import sources_of
from calibration.subarrays import cut
from calibration.wcs.grism import dispersion_of
from infra.products.catalog import Catalog
from infra.products.header import Header
from infra.products.image import Image
from infra.references.content import References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


class BackgroundOptions(BaseModel, frozen=True, extra="forbid"):
    """How background exposures are averaged, and how the sky of slitless exposures is scaled."""

    sigma: float = Field(3.0, gt=0, description="clip what is further from the median of the exposures [sigma]")
    maxiters: int | None = Field(None, ge=1, description="rounds of clipping; none: until nothing more is clipped")
    save_results: bool = Field(False, description="write images without their background too, _bsub or _bsubints")
    save_combined_background: bool = Field(False, description="write the mean of the exposures, _combinedbackground")
    wfss_mmag_extract: float | None = Field(
        None, description="slitless: sources of this AB magnitude and fainter are sky"
    )
    wfss_maxiter: int = Field(5, ge=1, description="slitless: rounds of leaving out outliers")
    wfss_rms_stop: float = Field(
        0.0, ge=0, description="slitless: stop when the rms falls by less than this part of it"
    )
    wfss_outlier_percent: float = Field(
        1.0, ge=0, lt=50, description="slitless: pixels left out at either end in each round [per cent]"
    )


def is_slitless(header: Header) -> bool:
    """Whether the light of the whole field is dispersed."""
    return str(header.get("EXP_TYPE", "")).endswith("WFSS")


def _reference_types(header: Header) -> tuple[str, ...]:
    return ("bkg", "wavelengthrange") if is_slitless(header) else ()


@step("bkg_subtract", references=_reference_types, options=BackgroundOptions)
def background(
    image: Image,
    references: References,
    options: BackgroundOptions,
    members: tuple[Image, ...] = (),
    catalog: Catalog | None = None,
) -> Image:
    """Subtract the sky: the mean of the background exposures, or for slitless spectra a scaled reference."""
    if is_slitless(image.header):
        return _subtract_slitless(image, references, options, catalog)
    if not members:
        raise StepSkipped("the association has no background exposures")
    members = tuple(_as_target(member, image) for member in members)
    level = average_background(
        [member.data for member in members],
        [member.err for member in members],
        [member.dq for member in members],
        options.sigma,
        options.maxiters,
    )
    unit = image.header.get("BUNIT", "DN/s")
    middle = np.nan if np.isnan(level.data).all() else np.nanmedian(level.data)
    log.info("background: subtracted the mean of %d exposures, %.4g %s", len(members), middle, unit)
    done = image.with_(data=image.data - level.data, dq=image.dq | level.dq)
    side = {}
    if options.save_results:
        side["bsub" if image.data.ndim == 2 else "bsubints"] = done
    if options.save_combined_background:
        side["combinedbackground"] = Image(image.header, level.data, level.err, level.dq, recipe=image.recipe)
    return done.with_(side=side)


def _as_target(member: Image, target: Image) -> Image:
    """A background exposure, cut to the subarray of its target."""
    name = member.header.get("FILENAME", "a background exposure")
    if member.data.shape[-2:] == target.data.shape[-2:]:
        return member
    try:
        area, to = member.header.subarray, target.header.subarray
        planes = {plane: cut(getattr(member, plane), area, to) for plane in ("data", "err", "dq")}
    except ValueError:
        raise ValueError(
            f"{name}: expected a background exposure of at least the detector area of the target, {target.header.subarray}, "
            f"but it covers {member.header.subarray}; give those of the subarray of the target"
        ) from None
    return member.with_(**planes)


def _subtract_slitless(
    image: Image, references: References, options: BackgroundOptions, catalog: Catalog | None
) -> Image:
    if references.path("bkg") is None:
        raise StepSkipped("no BKG reference file matches this exposure")
    header, shape = image.header, image.data.shape
    masks = [np.zeros(shape, bool)]
    if catalog is None:
        log.warning("background: there is no source catalog, the sky is scaled to all pixels")
    else:
        # The light of all orders is no sky. Where the field is so crowded that this leaves too little, the orders that are
        # extracted must do (the peer masks no others).
        masks = [_mask(image, references, options, catalog, every) for every in (True, False)]
    sky = references.array("bkg", "SCI", header.subarray)
    sky_dq = references.dq("bkg", header.subarray) if references.has("bkg", "DQ") else np.zeros(shape, np.uint32)
    for k, covered in enumerate(masks):
        try:
            done = subtract_wfss_background(
                image.data,
                image.err,
                image.dq,
                sky,
                sky_dq,
                covered,
                header.require("DISPAXIS"),
                options.wfss_outlier_percent,
                options.wfss_maxiter,
                options.wfss_rms_stop,
            )
            break
        except TooFewFreePixels as error:
            log.warning("background: %s", error)
            if k + 1 == len(masks):
                raise StepSkipped(str(error)) from None
    log.info(
        "background: the sky reference times %.5g, %.4g %s on average, from %.0f %% of the pixels",
        done.factor,
        done.factor * np.nanmean(sky),
        header.get("BUNIT", "DN/s"),
        100 * done.free / image.data.size,
    )
    return image.with_(header=header.set(BKGD_SCL=done.factor), data=done.data, dq=done.dq)


def _mask(
    image: Image, references: References, options: BackgroundOptions, catalog: Catalog, every_order: bool
) -> np.ndarray:
    """(ny, nx) bool, True where the spectra of the sources are: in every order, or in those that are extracted."""
    header = image.header
    filter_ = header.require("PUPIL" if header.get("INSTRUME") == "NIRISS" else "FILTER")
    ranges_of = references.asdf("wavelengthrange")
    known = [order for order in known_orders(ranges_of, filter_) if order in dispersion_of(image.wcs).orders]
    ranges = wavelength_ranges(ranges_of, filter_, known if every_order else None)
    sources = sources_of(catalog.table, header.get("SCATFILE", "the source catalog"))
    traces = locate_traces(image.wcs, sources, ranges, image.data.shape, faintest=options.wfss_mmag_extract)
    return mask_boxes(image.data.shape, traces.xmin, traces.xmax, traces.ymin, traces.ymax)
