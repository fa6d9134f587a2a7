"""Start the pixel flags with those of the bad pixel mask."""

import logging

import numpy as np

from calibration import dq
from calibration.ramps.dq_init import apply_mask, exclude_bad_pixels
from infra.products.guider import Guider
from infra.products.ramp import Ramp
from infra.references.content import References
from tasks.step import NoOptions, StepSkipped, step

log = logging.getLogger(__name__)


@step("dq_init", references=("mask",))
def dq_init(product: Ramp | Guider, references: References, options: NoOptions) -> Ramp | Guider:
    """Start the pixel flags with those of the bad pixel mask."""
    mask = references.dq("mask", product.area if isinstance(product, Ramp) else product.header.subarray)
    if mask is None:
        raise StepSkipped("no MASK reference file matches this exposure")
    log.info("dq_init: %d pixels are not to be used", np.count_nonzero(mask & dq.PIXEL["DO_NOT_USE"]))
    if isinstance(product, Guider):
        return product.with_(dq=apply_mask(product.dq, mask))
    return product.with_(pixeldq=apply_mask(product.pixeldq, mask), groupdq=exclude_bad_pixels(product.groupdq, mask))
