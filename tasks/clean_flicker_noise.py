"""Remove 1/f noise of the readout, from ramps or from images of count rates."""

import logging
from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from calibration import dq
from calibration.ramps.flicker_noise import (
    LIMITS,
    Model,
    Scene,
    background_pixels,
    choose_parameters,
    clean_images,
    clean_ramps,
    fill_flat,
    light_of,
    scene_of_integrations,
)
from calibration.ramps.known_sources import FIRST_ROW, soss_traces
from calibration.strips import zeros
from infra.products.fits import read_fits
from infra.products.header import Header, ProductError
from infra.products.image import Image
from infra.products.ramp import Ramp
from infra.references.content import ReferenceNotFound, References
from infra.storage.store import fetched
from tasks.ramp_fit import RampFitOptions, ramp_fit
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)

FFT_TYPES = ("NRS_MSASPEC", "NRS_IFU", "NRS_FIXEDSLIT", "NRS_BRIGHTOBJ")
AUTO_TYPES = ("NIS_IMAGE", "NRC_IMAGE")
#: Exposures of one source that varies: time series.
VARYING_TYPES = ("NRS_BRIGHTOBJ", "NRC_TSGRISM", "NRC_TSIMAGE", "NIS_SOSS")
#: What frequencies [Hz] are slow, where the whole height of the slits is read and where less is.
SLOW_OF_ALL_SLITS, SLOW = (150.0, 200.0), (1061.0, 1211.0)


class CleanFlickerNoiseOptions(BaseModel, frozen=True, extra="forbid"):
    """What is taken for background, and how the noise is fitted to it."""

    autoparam: bool = Field(
        False, description="choose background_method, fit_by_channel and apply_flat_field by the image (NIRISS, NIRCam)"
    )
    fit_method: Literal["median", "fft"] = Field(
        "median", description="fit the noise by the median of lines, or by slow Fourier components (NIRSpec)"
    )
    fit_by_channel: bool = Field(False, description="fit the amplifiers of a full frame one by one (median only)")
    background_method: Literal["median", "model", "median_image", "none"] | None = Field(
        "median",
        description="background of a difference of groups: one level, a smooth map, the median of the integrations, or none",
    )
    background_box_size: tuple[int, int] | None = Field(
        None, description="box of the smooth map: rows, columns [pixel]"
    )
    mask_science_regions: bool = Field(False, description="mask where sources are known to be, however faint")
    apply_flat_field: bool = Field(False, description="divide by the flat before the fit, multiply after")
    n_sigma: float = Field(2.0, ge=0, description="clipping of what is not background [sigma]; 0 for none")
    fit_histogram: bool = Field(False, description="tell level and scatter of the background by a Gaussian fit")
    single_mask: bool = Field(True, description="one mask of sources for all integrations")
    user_mask: str | None = Field(None, description="file of a mask to use: SCI is 1 where there is background only")
    save_mask: bool = Field(False, description="write the mask, _mask")
    save_background: bool = Field(False, description="write the background that was fitted, _flicker_bkg")
    save_noise: bool = Field(False, description="write what was added to the data, _flicker_noise")


def _reftypes(header: Header) -> tuple[str, ...]:
    more = ("pastasoss",) if header.get("EXP_TYPE") == "NIS_SOSS" else ()
    return ("gain", "readnoise", "flat", *more)


@step(
    "clean_flicker_noise",
    references=_reftypes,
    options=CleanFlickerNoiseOptions,
    default=False,
)
def clean_flicker_noise(
    product: Ramp | Image, references: References, options: CleanFlickerNoiseOptions
) -> Ramp | Image:
    """Remove 1/f noise of the readout, from ramps or from images of count rates."""
    exp_type = _require_known(product, options)
    automatic = options.autoparam and exp_type in AUTO_TYPES
    flat = _flat(product, references) if automatic or options.apply_flat_field else None
    if automatic:
        options = _choose(product, references, options, flat)
    by_integration = not options.single_mask or options.background_method == "median_image"
    draft = None
    if options.user_mask is None or options.background_method == "median_image":
        draft = _draft(product, references, by_integration)
    if options.user_mask is not None:
        mask = _read_mask(options.user_mask)
    else:
        assert draft is not None
        mask = _mask(draft, references, options, flat, by_integration)
    scene = None
    if options.background_method == "median_image":
        assert draft is not None
        scene = _scene(product, draft, mask, flat)
    model = _model(product, options)
    backgrounds = zeros(product.data, product.data.shape, np.float32) if options.save_background else None
    if isinstance(product, Ramp):
        data = clean_ramps(product.data, product.groupdq, mask, model, flat, scene, backgrounds)
    else:
        data = clean_images(product.data, mask, model, flat, scene, backgrounds)
    first = np.s_[:] if data.ndim == 2 else 0
    removed = (data[first] - product.data[first]).reshape(-1, *data.shape[-2:])[-1]
    log.info(
        "clean_flicker_noise: %.3g %s rms removed, %.1f %% of the pixels are background",
        np.nanstd(removed),
        "DN" if isinstance(product, Ramp) else product.header.get("BUNIT", "DN/s"),
        100 * mask.mean(),
    )
    side = dict(product.side)
    if options.save_mask:
        side["mask"] = _side(product, mask.astype(np.float32))
    if backgrounds is not None:
        side["flicker_bkg"] = _side(product, backgrounds)
    if options.save_noise:
        side["flicker_noise"] = _side(product, _difference(data, product.data))
    return product.with_(data=data, side=side)


def _require_known(product: Ramp | Image, options: CleanFlickerNoiseOptions) -> str:
    exp_type = product.header.require("EXP_TYPE")
    if exp_type.startswith("MIR") and exp_type != "MIR_IMAGE":
        raise StepSkipped(f"not for {exp_type}")
    if options.fit_method == "fft" and exp_type not in FFT_TYPES:
        raise StepSkipped(f"fit_method=fft is for {', '.join(FFT_TYPES)}, not for {exp_type}")
    if options.background_method == "median_image" and (product.data.ndim < 3 or product.data.shape[0] < 2):
        raise StepSkipped("background_method=median_image needs two integrations or more")
    return exp_type


def _flat(product: Ramp | Image, references: References) -> np.ndarray | None:
    flat = references.array("flat", "SCI", product.header.subarray)
    if flat is None:
        log.warning("clean_flicker_noise: no FLAT reference file matches this exposure; the fit goes without")
        return None
    return fill_flat(flat)


def _model(product: Ramp | Image, options: CleanFlickerNoiseOptions) -> Model:
    exp_type, slow_axis, detector, subarray = product.header.require("EXP_TYPE", "SLOWAXIS", "DETECTOR", "SUBARRAY")
    miri = exp_type.startswith("MIR")
    background = {"model": "smooth", "median": "median"}.get(options.background_method or "none", "none")
    return Model(
        method=options.fit_method,
        # MIRI has no 1/f noise of this kind, but columns that flicker.
        fast_axis=0 if miri else abs(slow_axis) - 1,
        background=background,
        box_size=options.background_box_size,
        n_sigma=options.n_sigma,
        by_amplifier=options.fit_by_channel and subarray == "FULL" and not miri,
        slow=SLOW_OF_ALL_SLITS if subarray == "ALLSLITS" else SLOW,
        flipped=detector == "NRS2",
    )


def _choose(
    product: Ramp | Image, references: References, options: CleanFlickerNoiseOptions, flat: np.ndarray | None
) -> CleanFlickerNoiseOptions:
    rate = _draft(product, references, False).data
    if rate.ndim == 3:
        rate = np.nanmean(rate, axis=0)
    instrument, slow_axis = product.header.require("INSTRUME", "SLOWAXIS")
    assert instrument in LIMITS
    chosen = choose_parameters(rate, abs(slow_axis), instrument, flat)
    method = "model" if chosen["background"] == "smooth" else "median"
    log.info(
        "clean_flicker_noise: chosen for this image: background_method=%s, fit_by_channel=%s, apply_flat_field=%s",
        method,
        chosen["by_amplifier"],
        flat is not None,
    )
    return options.model_copy(
        update={
            "background_method": method,
            "fit_by_channel": chosen["by_amplifier"],
            "apply_flat_field": flat is not None,
        }
    )


def _draft(product: Ramp | Image, references: References, by_integration: bool) -> Image:
    """Count rates of the exposure, or of its integrations, at the defaults of the slope fit; of an image, itself."""
    if isinstance(product, Image):
        return product
    rate, rateints, *_ = ramp_fit.fn(product, references, RampFitOptions())
    return rateints if by_integration and rateints is not None else rate


def _layers(image: Image, flat: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Count rates over the flat and flags of each integration, or of the one image."""
    for i in range(image.data.shape[0] if image.data.ndim == 3 else 1):
        rate = image.data[i] if image.data.ndim == 3 else image.data
        flags = image.dq[i] if image.dq is not None and image.dq.ndim == 3 else image.dq
        yield rate if flat is None else rate / flat, flags


def _mask(
    draft: Image,
    references: References,
    options: CleanFlickerNoiseOptions,
    flat: np.ndarray | None,
    by_integration: bool,
) -> np.ndarray:
    each = np.stack(
        [
            background_pixels(
                rate, options.n_sigma, options.fit_histogram, _excluded(draft.header, flags, references, options)
            )
            for rate, flags in _layers(draft, flat)
        ]
    )
    return each if by_integration and draft.data.ndim == 3 else np.logical_and.reduce(each, axis=0)


def _excluded(
    header: Header, flags: np.ndarray | None, references: References, options: CleanFlickerNoiseOptions
) -> np.ndarray | None:
    """Where sources are known to be, or nothing is seen, (ny, nx) bool."""
    if not options.mask_science_regions:
        return None
    exp_type = header.require("EXP_TYPE")
    if exp_type == "MIR_IMAGE":
        # What the flat field tells of the regions beside the imager: as flat_field flags it.
        flat = references.array("flat", "SCI", header.subarray)
        flags = np.zeros(header.subarray.shape, np.uint32) if flags is None else flags
        no_flat = np.zeros(flags.shape, np.bool_)
        if flat is not None:
            of_flat = references.dq("flat", header.subarray)
            no_flat = ~np.isfinite(flat) | (flat == 0) | ((of_flat & dq.PIXEL["NO_FLAT_FIELD"]) != 0)
            flags = flags | of_flat
        return no_flat | ((flags & (dq.PIXEL["DO_NOT_USE"] | dq.PIXEL["NON_SCIENCE"])) != 0)
    if exp_type == "NIS_SOSS" and header.get("SUBARRAY") in FIRST_ROW:
        return _soss(header, references)
    if exp_type.startswith("NRS") or exp_type == "NIS_SOSS":
        raise ProductError(
            f"clean_flicker_noise.mask_science_regions is not known for {exp_type}; switch it off, or name a mask with "
            "clean_flicker_noise.user_mask"
        )
    return None


def _soss(header: Header, references: References) -> np.ndarray:
    tree = references.asdf("pastasoss")
    if tree is None:
        raise ReferenceNotFound(
            "clean_flicker_noise.mask_science_regions needs a PASTASOSS reference file, but none matches; switch it off"
        )
    subarray, wheel = header.require("SUBARRAY", "PWCPOS")
    traces = (
        (np.asarray(trace["trace"], np.float64), (trace["pivot_x"], trace["pivot_y"])) for trace in tree["traces"]
    )
    return soss_traces(traces, wheel - tree["meta"]["pwcpos_cmd"], subarray, header.subarray.shape)


def _read_mask(url: str) -> np.ndarray:
    with fetched(url) as path:
        return read_fits(path).require("SCI") != 0


def _scene(product: Ramp | Image, draft: Image, mask: np.ndarray, flat: np.ndarray | None) -> Scene:
    source = None
    if product.header["EXP_TYPE"] in VARYING_TYPES or product.header.get("TSOVISIT", False):
        source = ~(np.logical_and.reduce(mask, axis=0) if mask.ndim == 3 else mask)
        # A pixel that has no rate once would be missed in one integration, not in the others.
        for rate, _ in _layers(draft, flat):
            source &= np.isfinite(rate)
    return scene_of_integrations(product.data, np.array([light_of(rate, source) for rate, _ in _layers(draft, flat)]))


def _difference(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    if after.ndim == 2:
        return after - before
    change = zeros(after, after.shape, np.float32)
    for i in range(after.shape[0]):
        change[i] = after[i] - before[i]
    return change


def _side(product: Ramp | Image, data: np.ndarray) -> Ramp | Image:
    if data.ndim == 4:
        groupdq = zeros(data, data.shape, np.uint8)
        return Ramp(product.header, data, np.zeros(data.shape[-2:], np.uint32), groupdq, recipe=product.recipe)
    return Image(product.header, data, np.zeros_like(data), np.zeros(data.shape, np.uint32), recipe=product.recipe)
