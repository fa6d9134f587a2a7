"""background: subtract the sky that dedicated exposures, or a reference file, know."""

import logging

import numpy as np
from pydantic import BaseModel, Field

from calibration.images.background import average_background
from infra.products.image import Image
from infra.references.content import References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


class BackgroundOptions(BaseModel, frozen=True, extra="forbid"):
    """How background exposures are averaged."""

    sigma: float = Field(3.0, gt=0, description="clip what is further from the median of the exposures [sigma]")
    maxiters: int | None = Field(None, ge=1, description="rounds of clipping; none: until nothing more is clipped")


@step("bkg_subtract", references=(), options=BackgroundOptions)
def background(
    image: Image, references: References, options: BackgroundOptions, members: tuple[Image, ...] = ()
) -> Image:
    """Subtract the mean of the background exposures of the association."""
    if not members:
        raise StepSkipped("the association has no background exposures")
    level, flags = average_background(
        [member.data for member in members], [member.dq for member in members], options.sigma, options.maxiters
    )
    if level.shape != image.data.shape[-2:]:
        raise ValueError(
            f"the background exposures cover {level.shape} pixels, but the target {image.data.shape[-2:]}; "
            "give those of the subarray of the target"
        )
    unit = image.header.get("BUNIT", "DN/s")
    log.info("background: subtracted the mean of %d exposures, %.4g %s", len(members), np.nanmedian(level), unit)
    return image.with_(data=image.data - level, dq=image.dq | flags)
