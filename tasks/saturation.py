"""Flag saturated groups and the floor of the converter."""

import logging

from pydantic import BaseModel, Field

from calibration import dq
from calibration.ramps.saturation import clear_saturated_zeroframe, flag_saturation, prepare_threshold
from infra.monitoring import Pixels
from infra.products.ramp import Ramp
from infra.references.content import References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


class SaturationOptions(BaseModel, frozen=True, extra="forbid"):
    """How far saturation spreads, in space and within a group."""

    n_pix_grow_sat: int = Field(1, ge=0, description="pixels around a saturated one that are flagged too [pixel]")
    use_readpatt: bool = Field(True, description="look for groups of which only some frames are saturated")


@step("saturation", references=("saturation", "superbias"), options=SaturationOptions)
def saturation(ramp: Ramp, references: References, options: SaturationOptions) -> Ramp:
    """Flag saturated groups and the floor of the converter."""
    subarray = ramp.header.subarray
    level = references.array("saturation", "SCI", subarray)
    if level is None:
        raise StepSkipped("no SATURATION reference file matches this exposure")
    threshold, reference_dq = prepare_threshold(level, references.dq("saturation", subarray))
    rows = ramp.rows
    bias = references.array("superbias", "SCI", ramp.area)
    groupdq = flag_saturation(
        ramp.data,
        ramp.groupdq,
        threshold,
        reference_dq,
        bias[rows] if bias is not None and ramp.is_irs2 else bias,
        ramp.header.require("NFRAMES"),
        options.n_pix_grow_sat,
        options.use_readpatt,
        rows,
    )
    zeroframe = ramp.zeroframe
    if zeroframe is not None:
        zeroframe = clear_saturated_zeroframe(zeroframe, threshold, options.n_pix_grow_sat, rows)
    # A pixel that saturates is so in the last group.
    log.info("saturation: %d pixels saturate", Pixels((groupdq[:, -1] & dq.GROUP["SATURATED"]).any(axis=0)))
    pixeldq = ramp.pixeldq.copy()
    pixeldq[rows] |= reference_dq
    return ramp.with_(groupdq=groupdq, pixeldq=pixeldq, zeroframe=zeroframe)
