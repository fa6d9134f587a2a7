"""Subtract the fixed pattern of the detector's reads."""

import logging

import numpy as np

from calibration.ramps.superbias import subtract_bias, subtract_bias_from_zeroframe
from infra.products.ramp import Ramp
from infra.references.content import References
from tasks.step import NoOptions, StepSkipped, step

log = logging.getLogger(__name__)


@step("superbias", references=("superbias",))
def superbias(ramp: Ramp, references: References, options: NoOptions) -> Ramp:
    """Subtract the fixed pattern of the detector's reads."""
    bias = references.array("superbias", "SCI", ramp.area)
    if bias is None:
        raise StepSkipped("no SUPERBIAS reference file matches this exposure")
    zeroframe = None if ramp.zeroframe is None else subtract_bias_from_zeroframe(ramp.zeroframe, bias)
    log.info("superbias: subtracted, but from %d pixels whose bias is not known", np.count_nonzero(np.isnan(bias)))
    return ramp.with_(
        data=subtract_bias(ramp.data, bias),
        pixeldq=ramp.pixeldq | references.dq("superbias", ramp.area),
        zeroframe=zeroframe,
    )
