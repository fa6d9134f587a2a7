"""srctype: whether each source counts as a point or as extended."""

import logging

from infra.products.slits import SlitSet
from infra.references.content import References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


@step("srctype")
def srctype(slits: SlitSet, references: References, options: object) -> SlitSet:
    """Set SRCTYPE of each slit, as the catalog has it."""
    exp_type = slits.header.require("EXP_TYPE")
    if not exp_type.endswith("WFSS"):
        raise StepSkipped(f"srctype has no rule for EXP_TYPE {exp_type}")
    done = tuple(
        slit.with_(header=slit.header.set(SRCTYPE="EXTENDED" if slit.extended else "POINT")) for slit in slits.slits
    )
    log.info("srctype: %d of %d spectra are of extended sources", sum(bool(slit.extended) for slit in done), len(done))
    return slits.with_(slits=done)
