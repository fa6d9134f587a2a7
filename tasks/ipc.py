"""Undo the coupling between neighbouring pixels.

On where there is a reference file, as in the official package; the observatory's own parameter reference of the pipeline
(``pars-detector1pipeline``) switches it off for now, and is followed.
"""

import logging

from calibration.ramps.ipc import mid_infrared_border, near_infrared_border, undo_ipc
from infra.products.ramp import Ramp
from infra.references.content import References
from tasks.step import NoOptions, StepSkipped, step

log = logging.getLogger(__name__)


@step("ipc", references=("ipc",))
def ipc(ramp: Ramp, references: References, options: NoOptions) -> Ramp:
    """Undo the coupling between neighbouring pixels."""
    coupling = references.array("ipc", "SCI")
    if coupling is None:
        raise StepSkipped("no IPC reference file matches this exposure")
    subarray = ramp.header.subarray
    if coupling.ndim == 4:
        coupling = references.array("ipc", "SCI", subarray)
    border = mid_infrared_border if ramp.header.require("INSTRUME") == "MIRI" else near_infrared_border
    log.info("ipc: kernel of %d x %d pixels", *coupling.shape[:2])
    return ramp.with_(data=undo_ipc(ramp.data, coupling, border(subarray), ramp.rows))
