"""Subtract the reset anomaly of MIRI."""

import logging
import sys

from calibration.ramps.reset import subtract_reset_anomaly
from infra.products.ramp import Ramp
from infra.references.content import References
from tasks.step import NoOptions, StepSkipped, step

log = logging.getLogger(__name__)


@step("reset", references=("reset",))
def reset(ramp: Ramp, references: References, options: NoOptions) -> Ramp:
    """Subtract the reset anomaly of MIRI."""
    subarray = ramp.header.subarray
    # Many integrations take the last one that the reference has, so all of them are read; groups only as far as needed.
    anomaly = references.array("reset", "SCI", subarray, planes=(sys.maxsize, ramp.data.shape[1]))
    if anomaly is None:
        raise StepSkipped("no RESET reference file matches this exposure")
    data = subtract_reset_anomaly(ramp.data, anomaly, ramp.header.get("INTSTART", 1))
    log.info("reset: anomaly of %d integrations and %d groups", *anomaly.shape[:2])
    return ramp.with_(data=data, pixeldq=ramp.pixeldq | references.dq("reset", subarray))
