"""Flag the last group of MIRI integrations."""

import logging

from calibration.ramps.lastframe import flag_last_group
from infra.products.ramp import Ramp
from infra.references.content import References
from tasks.step import NoOptions, StepSkipped, step

log = logging.getLogger(__name__)


@step("lastframe")
def lastframe(ramp: Ramp, references: References, options: NoOptions) -> Ramp:
    """Flag the last group of MIRI integrations."""
    ngroups = ramp.data.shape[1]
    if ngroups < 3:
        raise StepSkipped("a ramp of fewer than 3 groups has none to spare")
    log.info("lastframe: group %d of %d is not used", ngroups, ngroups)
    return ramp.with_(groupdq=flag_last_group(ramp.groupdq))
