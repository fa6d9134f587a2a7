"""Flag the groups that the decay of the reset switches of MIRI spoils."""

import logging
from typing import Any

from calibration.ramps.rscd import Flagged, flag_switch_decay, groups_to_skip
from infra.products.ramp import Ramp
from infra.references.content import References
from tasks.step import NoOptions, StepSkipped, step

log = logging.getLogger(__name__)

#: Names that subarrays had when early exposures were taken.
_TODAY = {"SUBPRISM": "SLITLESSPRISM"}


@step("rscd", references=("rscd",))
def rscd(ramp: Ramp, references: References, options: NoOptions) -> Ramp:
    """Flag the groups that the decay of the reset switches of MIRI spoils."""
    table = references.table("rscd", "RSCD_GROUP_SKIP")
    if table is None:
        raise StepSkipped("no RSCD reference file matches this exposure")
    subarray, pattern = ramp.header.require("SUBARRAY", "READPATT")
    subarray = _TODAY.get(subarray, subarray)
    rows = [row for row in table if (row["subarray"].strip(), row["readpatt"].strip()) == (subarray, pattern)]
    if not rows:
        raise StepSkipped(f"the RSCD reference file has no row for the subarray {subarray} and the readout {pattern}")
    ngroups = ramp.data.shape[1]
    if ngroups < 3:
        raise StepSkipped("a ramp of fewer than 3 groups has none to spare")
    # Old files do not know of the first integration: they say so with a number below 0, or lack the column.
    of_first = int(rows[0]["group_skip1"]) if "group_skip1" in map(str.lower, table.names) else -1
    first = groups_to_skip(of_first if of_first >= 0 else 1, ngroups)
    later = groups_to_skip(int(rows[0]["group_skip"]), ngroups)
    groupdq, pixeldq, *made = flag_switch_decay(
        ramp.groupdq, ramp.pixeldq, first, later, ramp.header.get("INTSTART", 1)
    )
    cards: dict[str, Any] = {}
    for which, flagged in zip(("INT1", "INT2"), made, strict=True):
        if flagged is not None:
            cards |= _cards(which, flagged)
            log.info(
                "rscd: %s %d groups are not used, fewer in %d bright pixels",
                "integration 1:" if which == "INT1" else "later integrations:",
                flagged.ngroups,
                flagged.lowered,
            )
    return ramp.with_(header=ramp.header.set(cards), groupdq=groupdq, pixeldq=pixeldq)


def _cards(which: str, flagged: Flagged) -> dict[str, Any]:
    return {f"{which}SKIP": flagged.ngroups, f"{which}BORS": flagged.lowered, f"{which}UGP1": flagged.one_group}
