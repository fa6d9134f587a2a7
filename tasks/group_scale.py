"""Rescale groups that were averaged on board with the wrong divisor."""

import logging

from calibration.ramps.group_scale import rescale_groups
from infra.products.ramp import Ramp
from infra.references.content import References
from tasks.step import NoOptions, StepSkipped, step

log = logging.getLogger(__name__)


@step("group_scale")
def group_scale(ramp: Ramp, references: References, options: NoOptions) -> Ramp:
    """Rescale groups that were averaged on board with the wrong divisor."""
    nframes, divisor = ramp.header.get("NFRAMES"), ramp.header.get("FRMDIVSR")
    if nframes is None or divisor is None:
        raise StepSkipped("NFRAMES or FRMDIVSR is not known")
    if nframes == divisor:
        raise StepSkipped("NFRAMES and FRMDIVSR are equal")
    log.info("group_scale: groups times %d/%d", divisor, nframes)
    return ramp.with_(data=rescale_groups(ramp.data, nframes, divisor))
