"""Groups that the decay of the reset switches spoils (reset switch charge decay of MIRI).

Charge that the switches of a pixel hold after a reset bends the start of a ramp: in the first integration a little, in
the later ones in proportion to the signal before the reset. The first groups are not used, as many as the reference says,
but never so many that fewer than three are left, of which the last is spoilt by itself. A bright pixel that saturates
early keeps two good groups where it can, one where it must, and says that its flux is an estimate; a pixel that is
saturated in its first group is lost anyway. Source: JWST pipeline documentation, "rscd".
"""

from dataclasses import dataclass

import numpy as np

from calibration import dq
from calibration.jit import kernel
from calibration.strips import integrations_of, zeros

_SATURATED = dq.GROUP["SATURATED"]
_DO_NOT_USE = dq.GROUP["DO_NOT_USE"]

#: An integration of so many groups or fewer loses one group only.
SHORT = 5
#: Groups that are left at the least, the last one of the integration with them.
LEFT = 3


@dataclass(frozen=True)
class Flagged:
    """What was flagged in the first, or in the later, integrations.

    Attributes
    ----------
    ngroups : int
        Groups flagged in a pixel that is not bright.
    lowered : int
        Pixels in which fewer are flagged, since they saturate early.
    one_group : int
        Pixels among them that keep all their groups.
    """

    ngroups: int
    lowered: int
    one_group: int


def groups_to_skip(wanted: int, ngroups: int) -> int:
    """How many groups of ``ngroups`` (3 or more) are skipped where the reference says ``wanted``."""
    return max(0, min(1 if ngroups <= SHORT else wanted, ngroups - LEFT))


def flag_switch_decay(
    groupdq: np.ndarray, pixeldq: np.ndarray, first: int, later: int, first_integration: int = 1
) -> tuple[np.ndarray, np.ndarray, Flagged | None, Flagged | None]:
    """Flag the groups that the decay of the reset switches spoils.

    Parameters
    ----------
    groupdq : (nints, ngroups, ny, nx) uint8
        With the flags of the step saturation.
    pixeldq : (ny, nx) uint32
    first, later : int
        Groups to skip in the first integration of an exposure and in the others, at most ``ngroups`` - 2.
    first_integration : int
        Number of the first integration of ``groupdq`` in its exposure, from 1.

    Returns
    -------
    groupdq : (nints, ngroups, ny, nx) uint8
        With ``DO_NOT_USE`` in the spoilt groups.
    pixeldq : (ny, nx) uint32
        With ``FLUX_ESTIMATED`` in the pixels in which fewer groups are flagged.
    of_first, of_later : Flagged or None
        What was flagged in the first and in the later integrations, None where there are none of that kind.
    """
    if max(first, later) > groupdq.shape[1] - 2:
        raise ValueError(
            f"of {groupdq.shape[1]} groups at most {groupdq.shape[1] - 2} can be skipped, but {max(first, later)} are to be"
        )
    flagged, pixels = zeros(groupdq, groupdq.shape, np.uint8), pixeldq.copy()
    split = 1 if first_integration == 1 else 0
    made: list[Flagged | None] = []
    for part, skip in ((slice(0, split), first), (slice(split, None), later)):
        pieces = integrations_of(groupdq, part)
        if not pieces:
            made.append(None)
            continue
        lowered, emptied = np.zeros(pixels.shape, np.bool_), np.zeros(pixels.shape, np.bool_)
        for piece in pieces:
            flags = groupdq[piece]
            spoilt = flags.copy()
            _flag(flags, skip, spoilt, lowered, emptied)
            flagged[piece] = spoilt
        pixels[lowered] |= dq.PIXEL["FLUX_ESTIMATED"]
        made.append(Flagged(skip, int(lowered.sum()), int(emptied.sum())))
    return flagged, pixels, made[0], made[1]


# i = integration, g = group, y = row, x = column
@kernel
def _flag(groupdq, skip, flagged, lowered, emptied):
    nints, _, ny, nx = groupdq.shape
    for i in range(nints):
        for y in range(ny):
            for g in range(skip):
                for x in range(nx):
                    flagged[i, g, y, x] |= _DO_NOT_USE
            for x in range(nx):
                # The second group after those skipped is full: go back, unless the first one is full already.
                if groupdq[i, skip + 1, y, x] & _SATURATED and not groupdq[i, 0, y, x] & _SATURATED:
                    keep = skip
                    while keep > 0 and groupdq[i, keep + 1, y, x] & _SATURATED:
                        keep -= 1
                        flagged[i, keep, y, x] = groupdq[i, keep, y, x]
                    if keep < skip:
                        lowered[y, x] = True
                        emptied[y, x] |= keep == 0
