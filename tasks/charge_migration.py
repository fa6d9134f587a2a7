"""Flag the groups of bright stars whose charge moved to the neighbours."""

import logging

from pydantic import BaseModel, Field

from calibration import dq
from calibration.ramps.charge_migration import flag_charge_migration
from infra.monitoring import Pixels
from infra.products.ramp import Ramp
from infra.references.content import References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


class ChargeMigrationOptions(BaseModel, frozen=True, extra="forbid"):
    """From which signal on charge migrates."""

    signal_threshold: float = Field(25_000.0, gt=0, description="signal from which on charge migrates [DN]")


@step("charge_migration", options=ChargeMigrationOptions, default=False)
def charge_migration(ramp: Ramp, references: References, options: ChargeMigrationOptions) -> Ramp:
    """Flag the groups of bright stars whose charge moved to the neighbours."""
    if ramp.data.shape[1] < 3:
        raise StepSkipped("a ramp of fewer than 3 groups has none to spare")
    groupdq = flag_charge_migration(ramp.data, ramp.groupdq, options.signal_threshold)
    lost = (groupdq[:, -1] & dq.GROUP["CHARGELOSS"]).any(axis=0)
    log.info("charge_migration: %d pixels lose charge above %g DN", Pixels(lost), options.signal_threshold)
    return ramp.with_(groupdq=groupdq)
