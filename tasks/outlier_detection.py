"""outlier_detection: flag what only one exposure saw."""

import logging
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from calibration import dq
from calibration.mosaics.outliers import Thresholds, blot, flag_outliers, mask_low_weight, median_image
from calibration.mosaics.resample import Exposure, drizzle, drizzle_weight
from calibration.wcs.mosaic import pixel_map
from infra.products.image import Image
from infra.references.content import References
from tasks.groups import group_exposures
from tasks.resample import output_grid
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)

_GOOD_BITS = int(~dq.PIXEL["DO_NOT_USE"])
_FLAGS = dq.PIXEL["DO_NOT_USE"] | dq.PIXEL["OUTLIER"]


class OutlierDetectionOptions(BaseModel, frozen=True, extra="forbid"):
    """How the median is made, and what differs from it."""

    weight_type: Literal["ivm", "exptime"] = Field("ivm", description="weight of a pixel in the median image")
    pixfrac: float = Field(1.0, ge=0, le=1, description="fraction of the side of an input pixel that is spread")
    kernel: Literal["square", "point", "turbo"] = Field("square", description="form in which an input pixel is spread")
    maskpt: float = Field(0.7, ge=0, description="pixels below this share of the mean weight stay out of the median")
    snr: str = Field("5.0 4.0", description="thresholds for an outlier, and beside one [sigma]")
    scale: str = Field("1.2 0.7", description="how much of the local step in the median adds to each threshold")
    backg: float = Field(0.0, description="level of the sky where skymatch did not note one [MJy/sr]")
    resample_data: bool = Field(True, description="compare on the sky; else pixel by pixel")


@step("outlier_detection", options=OutlierDetectionOptions)
def outlier_detection(
    images: tuple[Image, ...], references: References, options: OutlierDetectionOptions
) -> tuple[Image, ...]:
    """Flag the pixels that differ from the median of all exposures."""
    if len(images) < 2:
        raise StepSkipped("one exposure has none to be compared with")
    thresholds = Thresholds(_pair("snr", options.snr), _pair("scale", options.scale))
    if options.resample_data:
        models = _resampled_models(images, options)
    else:
        models = _plain_models(images, options)
    flagged = []
    for image, model in zip(images, models, strict=True):
        sky = image.header.get("BKGLEVEL")
        level = options.backg if sky is None or image.header.get("BKGSUB") else sky
        outlying = flag_outliers(image.data, image.err, model, level, thresholds)
        log.info(
            "outlier_detection: %d outliers in %s, %.3f %% of its pixels",
            np.count_nonzero(outlying),
            image.header.get("FILENAME", "an image"),
            100 * outlying.mean(),
        )
        flagged.append(_reject(image, outlying))
    return tuple(flagged)


def _resampled_models(images: tuple[Image, ...], options: OutlierDetectionOptions) -> list[np.ndarray]:
    grid = output_grid(images).wcs
    nx, ny = grid.pixel_shape
    pixmaps = [pixel_map(image.wcs, image.data.shape, grid) for image in images]
    stack = []
    for group in group_exposures(images):
        exposures = (_exposure(images[k], pixmaps[k], options) for k in group)
        one = drizzle(
            exposures,
            (ny, nx),
            len(group),
            options.kernel,
            options.pixfrac,
            with_errors=False,
            with_context=False,
        )
        stack.append(mask_low_weight(one.data, one.weight, options.maskpt))
    median = median_image(stack)
    return [blot(median, pixmap) for pixmap in pixmaps]


def _exposure(image: Image, pixmap: np.ndarray, options: OutlierDetectionOptions) -> Exposure:
    exptime = image.header.get("TMEASURE") or image.header.get("EFFEXPTM") or 1.0
    weight = drizzle_weight(image.dq, _GOOD_BITS, options.weight_type, image.var_rnoise, exptime)
    return Exposure(_without_sky(image), weight, pixmap, {}, exptime)


def _plain_models(images: tuple[Image, ...], options: OutlierDetectionOptions) -> list[np.ndarray]:
    if len({image.data.shape for image in images}) > 1:
        raise ValueError(
            f"images compared pixel by pixel must have one shape, but have {sorted({i.data.shape for i in images})}; "
            "use outlier_detection.resample_data=true"
        )
    stack = []
    for image in images:
        exptime = image.header.get("TMEASURE") or image.header.get("EFFEXPTM") or 1.0
        weight = drizzle_weight(image.dq, _GOOD_BITS, options.weight_type, image.var_rnoise, exptime)
        stack.append(mask_low_weight(_without_sky(image), weight, options.maskpt))
    return [median_image(stack)] * len(images)


def _without_sky(image: Image) -> np.ndarray:
    level = image.header.get("BKGLEVEL")
    return image.data if level is None or image.header.get("BKGSUB") else image.data - np.float32(level)


def _reject(image: Image, outlying: np.ndarray) -> Image:
    dq_plane = np.where(outlying, image.dq | _FLAGS, image.dq)

    def blank(plane: np.ndarray | None) -> np.ndarray | None:
        return None if plane is None else np.where(outlying, np.float32(np.nan), plane)

    return image.with_(
        dq=dq_plane,
        data=blank(image.data),
        err=blank(image.err),
        var_poisson=blank(image.var_poisson),
        var_rnoise=blank(image.var_rnoise),
        var_flat=blank(image.var_flat),
    )


def _pair(name: str, text: str) -> tuple[float, float]:
    words = text.replace(",", " ").split()
    try:
        first, second = (float(word) for word in words)
    except ValueError:
        raise ValueError(f"outlier_detection.{name} must be two numbers, such as '5.0 4.0', but is {text!r}") from None
    return first, second
