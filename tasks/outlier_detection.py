"""outlier_detection: flag what only one exposure saw."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from calibration import dq
from calibration.mosaics.outliers import Thresholds, blot, flag_outliers, mask_low_weight, median_image
from calibration.mosaics.resample import Exposure, drizzle, drizzle_weight
from calibration.wcs.mosaic import pixel_map
from infra.products.image import Image, edited, in_memory
from infra.products.stored import Stored, store
from infra.references.content import References
from tasks.groups import group_exposures
from tasks.resample import output_grid
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)

_GOOD_BITS = int(~dq.PIXEL["DO_NOT_USE"])
_FLAGS = dq.PIXEL["DO_NOT_USE"] | dq.PIXEL["OUTLIER"]
_BLANKED = ("data", "err", "var_poisson", "var_rnoise", "var_flat")

#: Bytes of a median's images that are in memory together, where they are on disk.
_STRIP = 2**26


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
        model_of = _resampled_model(images, options)
    else:
        model_of = _plain_model(images, options)
    flagged = []
    for image in images:
        sky = image.header.get("BKGLEVEL")
        level = options.backg if sky is None or image.header.get("BKGSUB") else sky
        planes = in_memory(image, "data", "err")
        outlying = flag_outliers(planes.data, planes.err, model_of(image), level, thresholds)
        log.info(
            "outlier_detection: %d outliers in %s, %.3f %% of its pixels",
            np.count_nonzero(outlying),
            image.header.get("FILENAME", "an image"),
            100 * outlying.mean(),
        )
        flagged.append(edited(image, partial(_reject, bits=np.packbits(outlying, axis=1))))
    return tuple(flagged)


def _resampled_model(images: tuple[Image, ...], options: OutlierDetectionOptions) -> Callable[[Image], np.ndarray]:
    """What gives the median of all exposures at the pixels of one."""
    grid = output_grid(images).wcs
    nx, ny = grid.pixel_shape
    groups = group_exposures(images)
    cube = _cube(images, (len(groups), ny, nx))
    for g, group in enumerate(groups):
        one = drizzle(
            (_exposure(images[k], grid, options) for k in group),
            (ny, nx),
            len(group),
            options.kernel,
            options.pixfrac,
            with_errors=False,
            with_context=False,
        )
        cube[g] = mask_low_weight(one.data, one.weight, options.maskpt)
    median = median_image(cube)
    return lambda image: blot(median, pixel_map(image.wcs, image.data.shape, grid))


def _cube(images: tuple[Image, ...], shape: tuple[int, int, int]) -> np.ndarray | Stored:
    """Room for the planes of a median: on disk where the images are."""
    if all(image.source is None for image in images):
        return np.empty(shape, np.float32)
    return store(shape, np.float32, max(1, _STRIP // (4 * shape[0] * shape[2])))


def _exposure(image: Image, grid: Any, options: OutlierDetectionOptions) -> Exposure:
    planes = in_memory(image, "data", "dq", "var_rnoise")
    weight, exptime = _weight(planes, options)
    return Exposure(_without_sky(planes), weight, pixel_map(image.wcs, image.data.shape, grid), {}, exptime)


def _weight(image: Image, options: OutlierDetectionOptions) -> tuple[np.ndarray, float]:
    exptime = image.header.get("TMEASURE") or image.header.get("EFFEXPTM") or 1.0
    return drizzle_weight(image.dq, _GOOD_BITS, options.weight_type, image.var_rnoise, exptime), exptime


def _plain_model(images: tuple[Image, ...], options: OutlierDetectionOptions) -> Callable[[Image], np.ndarray]:
    """What gives the median of all exposures, pixel by pixel."""
    shapes = {image.data.shape for image in images}
    if len(shapes) > 1:
        raise ValueError(
            f"images compared pixel by pixel must have one shape, but have {sorted(shapes)}; "
            "use outlier_detection.resample_data=true"
        )
    cube = _cube(images, (len(images), *shapes.pop()))
    for k, image in enumerate(images):
        planes = in_memory(image, "data", "dq", "var_rnoise")
        cube[k] = mask_low_weight(_without_sky(planes), _weight(planes, options)[0], options.maskpt)
    median = median_image(cube)
    return lambda image: median


def _without_sky(image: Image) -> np.ndarray:
    level = image.header.get("BKGLEVEL")
    return image.data if level is None or image.header.get("BKGSUB") else image.data - np.float32(level)


def _reject(planes: Mapping[str, np.ndarray], bits: np.ndarray) -> dict[str, np.ndarray]:
    """Flag outliers, and blank all the rest of them; ``bits`` holds the outliers, eight pixels of a row in a byte."""
    if not planes:
        return {}
    width = next(iter(planes.values())).shape[1]
    outlying = np.unpackbits(bits, axis=1, count=width).astype(bool)
    changed = {name: np.where(outlying, np.float32(np.nan), planes[name]) for name in _BLANKED if name in planes}
    if "dq" in planes:
        changed["dq"] = np.where(outlying, planes["dq"] | _FLAGS, planes["dq"])
    return changed


def _pair(name: str, text: str) -> tuple[float, float]:
    words = text.replace(",", " ").split()
    try:
        first, second = (float(word) for word in words)
    except ValueError:
        raise ValueError(f"outlier_detection.{name} must be two numbers, such as '5.0 4.0', but is {text!r}") from None
    return first, second
