"""Remove the glow of the detector's edges (NIRSpec), from ramps or from images of count rates."""

import logging

import numpy as np
from pydantic import BaseModel, Field

from calibration.ramps.flicker_noise import background_pixels
from calibration.ramps.picture_frame import find_regions, subtract_from_images, subtract_from_ramps
from calibration.strips import zeros
from infra.products.header import ProductError
from infra.products.image import Image
from infra.products.ramp import Ramp
from infra.references.content import References
from tasks.ramp_fit import RampFitOptions, ramp_fit
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)

#: Exposures in which no light is to be masked.
WITHOUT_LIGHT = ("NRS_DARK",)


class PictureFrameOptions(BaseModel, frozen=True, extra="forbid"):
    """What is taken for background."""

    mask_science_regions: bool = Field(True, description="mask where slits, slices and open shutters are")
    n_sigma: float = Field(2.0, ge=0, description="clipping of what is not background [sigma]; 0 for none")
    save_mask: bool = Field(False, description="write the mask, _pctfrm_mask")
    save_correction: bool = Field(False, description="write what was added to the data, _pctfrm_correction")


@step("picture_frame", references=("pictureframe", "gain", "readnoise"), options=PictureFrameOptions, default=False)
def picture_frame(product: Ramp | Image, references: References, options: PictureFrameOptions) -> Ramp | Image:
    """Remove the glow of the detector's edges (NIRSpec), from ramps or from images of count rates."""
    header = product.header
    instrument, subarray, exp_type = header.require("INSTRUME", "SUBARRAY", "EXP_TYPE")
    if instrument != "NIRSPEC" or subarray != "FULL":
        raise StepSkipped("only the full frame of NIRSpec has it")
    frame = references.array("pictureframe", "SCI")
    if frame is None:
        raise StepSkipped("no PICTUREFRAME reference file matches this exposure")
    if isinstance(product, Ramp) and product.data.shape[1] == 1:
        raise StepSkipped("a single group has no difference that shows it")
    if options.mask_science_regions and exp_type not in WITHOUT_LIGHT:
        raise ProductError(
            f"{header.get('FILENAME', 'the exposure')}: picture_frame.mask_science_regions is not known for {exp_type}: "
            "there is no WCS of NIRSpec's slits yet; switch it off, bright pixels are masked all the same"
        )
    if isinstance(product, Ramp):
        image, *_ = ramp_fit.fn(product, references, RampFitOptions())
    else:
        image = product
    rates = [image.data[i] for i in range(image.data.shape[0])] if image.data.ndim == 3 else [image.data]
    mask = np.logical_and.reduce([background_pixels(rate, options.n_sigma) for rate in rates])
    regions = find_regions(mask)
    if not regions.middle.size or not regions.edge.size:
        raise StepSkipped("no background is seen, in the middle or at the edges")
    subtract = subtract_from_ramps if isinstance(product, Ramp) else subtract_from_images
    data = subtract(product.data, frame, regions)
    log.info(
        "picture_frame: told from %d background pixels in the middle and %d at the edges",
        regions.middle.size,
        regions.edge.size,
    )
    side = dict(product.side)
    if options.save_mask:
        side["pctfrm_mask"] = _image(image, mask.astype(np.float32))
    if options.save_correction:
        side["pctfrm_correction"] = _correction(product, data)
    return product.with_(data=data, side=side)


def _image(like: Ramp | Image, data: np.ndarray) -> Image:
    return Image(like.header, data, np.zeros_like(data), np.zeros(data.shape, np.uint32), recipe=like.recipe)


def _correction(product: Ramp | Image, data: np.ndarray) -> Ramp | Image:
    if data.ndim == 2:
        return _image(product, data - product.data)
    change = zeros(data, data.shape, np.float32)
    for i in range(data.shape[0]):
        change[i] = data[i] - product.data[i]
    if not isinstance(product, Ramp):
        return _image(product, change)
    groupdq = zeros(data, data.shape, np.uint8)
    return Ramp(product.header, change, np.zeros(data.shape[-2:], np.uint32), groupdq, recipe=product.recipe)
