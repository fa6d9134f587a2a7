"""Flag the groups in which charge may come out of traps."""

import logging

import numpy as np
from pydantic import BaseModel, Field

from calibration import dq
from calibration.ramps.persistence import flag_persistence
from infra.products.ramp import Ramp
from infra.references.content import References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)

DAY = 86_400.0  # [s]


class PersistenceOptions(BaseModel, frozen=True, extra="forbid"):
    """What fills traps, and for how long they empty."""

    persistence_time: int | None = Field(None, gt=0, description="how long a pixel stays suspect [s]")
    dn_threshold: float | None = Field(None, gt=0, description="signal that fills traps without saturation [DN]")
    persistence_dnu: bool = Field(False, description="do not use the groups that are flagged")


@step("persistence", options=PersistenceOptions, default=False)
def persistence(ramp: Ramp, references: References, options: PersistenceOptions) -> Ramp:
    """Flag the groups in which charge may come out of traps."""
    if options.persistence_time is None:
        raise StepSkipped("persistence_time is not set")
    groupdq, _ = flag_persistence(
        ramp.data,
        ramp.groupdq,
        _starts(ramp),
        ramp.header.require("TGROUP"),
        options.persistence_time,
        options.dn_threshold,
        options.persistence_dnu,
    )
    pixels = np.count_nonzero((groupdq & dq.GROUP["PERSISTENCE"]).any(axis=(0, 1)))
    log.info("persistence: %d pixels are suspect for %d s", pixels, options.persistence_time)
    return ramp.with_(groupdq=groupdq)


def _starts(ramp: Ramp) -> np.ndarray:
    """Start of each integration [s]: as its table says, else evenly from the start of the exposure."""
    nints = ramp.data.shape[0]
    if ramp.int_times is not None and len(ramp.int_times) >= nints:
        return np.asarray(ramp.int_times["int_start_MJD_UTC"][:nints], np.float64) * DAY
    start, duration = ramp.header.require("EXPSTART", "EFFINTTM")
    return start * DAY + np.arange(nints) * duration
