"""Flag the first group of MIRI integrations."""

import logging

from pydantic import BaseModel, Field

from calibration import dq
from calibration.ramps.firstframe import flag_first_group
from infra.monitoring import Pixels
from infra.products.ramp import Ramp
from infra.references.content import References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


class FirstframeOptions(BaseModel, frozen=True, extra="forbid"):
    """What bright pixels keep."""

    bright_use_group1: bool = Field(True, description="keep the first group of pixels whose third is saturated")


@step("firstframe", options=FirstframeOptions, default=False)
def firstframe(ramp: Ramp, references: References, options: FirstframeOptions) -> Ramp:
    """Flag the first group of MIRI integrations."""
    if ramp.data.shape[1] < 4:
        raise StepSkipped("a ramp of fewer than 4 groups has none to spare")
    groupdq, pixeldq = flag_first_group(ramp.groupdq, ramp.pixeldq, options.bright_use_group1)
    kept = Pixels((pixeldq & ~ramp.pixeldq & dq.PIXEL["FLUX_ESTIMATED"]) != 0)
    log.info("firstframe: the first group is not used, but in %d bright pixels", kept)
    return ramp.with_(groupdq=groupdq, pixeldq=pixeldq)
