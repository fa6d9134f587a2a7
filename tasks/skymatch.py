"""skymatch: the sky levels that make overlapping images equal."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from calibration import dq
from calibration.mosaics.skymatch import SkyImage, SkyStatistic, match_skies
from infra.products.image import Image, edited, in_memory
from infra.references.content import References
from tasks.groups import group_exposures
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)

_BAD = dq.PIXEL["DO_NOT_USE"] | dq.PIXEL["NON_SCIENCE"]


class SkymatchOptions(BaseModel, frozen=True, extra="forbid"):
    """How the sky is measured, and what is made equal."""

    skymethod: Literal["local", "global", "match", "global+match"] = Field(
        "match", description="level of each image; lowest of all; equal where images overlap; that and the lowest"
    )
    match_down: bool = Field(True, description="match to the lowest level rather than to the highest")
    subtract: bool = Field(False, description="subtract the level from the images; else it is only noted in them")
    skystat: Literal["median", "midpt", "mean", "mode"] = Field("mode", description="statistic that is the sky level")
    lower: float | None = Field(None, description="values below are no sky")
    upper: float | None = Field(None, description="values above are no sky")
    nclip: int = Field(5, ge=0, description="rounds of clipping")
    lsigma: float = Field(4.0, ge=0, description="clip below the mean [sigma]")
    usigma: float = Field(4.0, ge=0, description="clip above the mean [sigma]")
    binwidth: float = Field(0.1, gt=0, description="step of the histogram for mode and midpt [sigma]")


@step("skymatch", options=SkymatchOptions)
def skymatch(images: tuple[Image, ...], references: References, options: SkymatchOptions) -> tuple[Image, ...]:
    """Measure the sky of overlapping images, so that a mosaic has no steps."""
    if len(images) == 1 and options.skymethod == "match":
        raise StepSkipped("a single image has none to match; use skymatch.skymethod=local")
    for image in images:
        if image.header.get("BKGLEVEL") is not None:
            raise ValueError(
                f"{image.header.get('FILENAME', 'an image')} has been through skymatch before (BKGLEVEL "
                f"{image.header['BKGLEVEL']:.4g}); give the _cal image"
            )
    statistic = SkyStatistic(
        options.skystat,
        -np.inf if options.lower is None else options.lower,
        np.inf if options.upper is None else options.upper,
        options.nclip,
        options.lsigma,
        options.usigma,
        options.binwidth,
    )
    measured = [SkyImage(partial(_pixels, image), image.data.shape, image.wcs) for image in images]
    levels = match_skies(measured, group_exposures(images), options.skymethod, options.match_down, statistic)
    log.info("skymatch: levels %s MJy/sr", ", ".join(f"{level:.4g}" for level in levels))
    return tuple(_note(image, level, options) for image, level in zip(images, levels, strict=True))


def _pixels(image: Image) -> tuple[np.ndarray, np.ndarray]:
    planes = in_memory(image, "data", "dq")
    return planes.data, (planes.dq & _BAD) == 0


def _note(image: Image, level: float, options: SkymatchOptions) -> Image:
    if not np.isfinite(level):
        log.warning(
            "skymatch: %s has no sky to match: it overlaps no other image, or has no valid pixel",
            image.header.get("FILENAME"),
        )
        return image
    image = image.with_(header=image.header.set(BKGMETH=options.skymethod, BKGLEVEL=level, BKGSUB=options.subtract))
    return edited(image, partial(_subtract, level=np.float32(level))) if options.subtract else image


def _subtract(planes: Mapping[str, np.ndarray], level: np.float32) -> dict[str, np.ndarray]:
    return {"data": planes["data"] - level} if "data" in planes else {}
