"""Make the response of the detector linear."""

import logging

import numpy as np

from calibration import dq
from calibration.ramps.linearity import flag_uncorrected, linearize, linearize_averages, linearize_zeroframe
from infra.products.header import ProductError
from infra.products.ramp import Ramp
from infra.references.content import References
from tasks.step import NoOptions, StepSkipped, step

log = logging.getLogger(__name__)


@step("linearity", references=("linearity",))
def linearity(ramp: Ramp, references: References, options: NoOptions) -> Ramp:
    """Make the response of the detector linear."""
    if ramp.is_irs2:
        raise ProductError(
            f"{ramp.header.get('FILENAME', 'the exposure')}: from linearity on, the reference pixels of IRS2 must not be "
            "in the frames; let refpix take them out (refpix.preserve_irs2_refpix is for that step alone)"
        )
    subarray = ramp.header.subarray
    coefficients = references.array("linearity", "COEFFS", subarray)
    if coefficients is None:
        raise StepSkipped("no LINEARITY reference file matches this exposure")
    reference_dq = flag_uncorrected(coefficients, references.dq("linearity", subarray))
    zeroframe = ramp.zeroframe
    if zeroframe is not None:
        zeroframe = linearize_zeroframe(zeroframe, coefficients, reference_dq)
    nframes = ramp.header.require("NFRAMES")
    if nframes > 1 and references.has("linearity", "INV_COEFFS"):
        inverse = references.array("linearity", "INV_COEFFS", subarray)
        data = linearize_averages(ramp.data, ramp.groupdq, coefficients, inverse, reference_dq, nframes)
        reference_dq = flag_uncorrected(inverse, reference_dq)
    else:
        data = linearize(ramp.data, ramp.groupdq, coefficients, reference_dq)
    left = np.count_nonzero(reference_dq & dq.PIXEL["NO_LIN_CORR"])
    log.info("linearity: polynomial of order %d, %d pixels left as they are", len(coefficients) - 1, left)
    return ramp.with_(
        data=data,
        pixeldq=ramp.pixeldq | reference_dq,
        zeroframe=zeroframe,
    )
