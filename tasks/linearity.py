"""Make the response of the detector linear."""

import logging

import numpy as np

from calibration import dq
from calibration.ramps.linearity import flag_uncorrected, linearize, linearize_zeroframe
from infra.products.ramp import Ramp
from infra.references.content import References
from tasks.step import NoOptions, StepSkipped, step

log = logging.getLogger(__name__)


@step("linearity", references=("linearity",))
def linearity(ramp: Ramp, references: References, options: NoOptions) -> Ramp:
    """Make the response of the detector linear."""
    subarray = ramp.header.subarray
    coefficients = references.array("linearity", "COEFFS", subarray)
    if coefficients is None:
        raise StepSkipped("no LINEARITY reference file matches this exposure")
    reference_dq = flag_uncorrected(coefficients, references.dq("linearity", subarray))
    zeroframe = ramp.zeroframe
    if zeroframe is not None:
        zeroframe = linearize_zeroframe(zeroframe, coefficients, reference_dq)
    left = np.count_nonzero(reference_dq & dq.PIXEL["NO_LIN_CORR"])
    log.info("linearity: polynomial of order %d, %d pixels left as they are", len(coefficients) - 1, left)
    return ramp.with_(
        data=linearize(ramp.data, ramp.groupdq, coefficients, reference_dq),
        pixeldq=ramp.pixeldq | reference_dq,
        zeroframe=zeroframe,
    )
