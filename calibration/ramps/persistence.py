"""Charge that bright light left in traps, and that comes out for a while: the groups that it may spoil are flagged.

A pixel that saturates, or exceeds a signal threshold, is suspect until a fixed time later, across integrations and, when
the map of those times is handed on, across exposures. Source: JWST pipeline documentation, "persistence" (version 3.0).
"""

import numpy as np

from calibration import dq
from calibration.jit import kernel
from calibration.strips import zeros

_SATURATED = dq.GROUP["SATURATED"]
_PERSISTENCE = dq.GROUP["PERSISTENCE"]
_DO_NOT_USE = dq.GROUP["DO_NOT_USE"]


def flag_persistence(
    data: np.ndarray,
    groupdq: np.ndarray,
    starts: np.ndarray,
    group_time: float,
    window: float,
    signal_threshold: float | None = None,
    exclude: bool = False,
    until: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Flag the groups in which charge may come out of traps.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN].
    groupdq : (nints, ngroups, ny, nx) uint8
    starts : (nints,) float64
        Start of each integration [s], on any clock that goes on from exposure to exposure.
    group_time : float
        [s]
    window : float
        How long a pixel stays suspect [s].
    signal_threshold : float, optional
        Signal that fills traps without saturation [DN].
    exclude : bool
        Whether those groups get ``DO_NOT_USE`` too.
    until : (ny, nx) float64, optional
        Until when each pixel is suspect, from the exposure before [s]; 0 where it is not.

    Returns
    -------
    groupdq : (nints, ngroups, ny, nx) uint8
    until : (ny, nx) float64
        For the exposure after.
    """
    if not window > 0:
        raise ValueError(f"the time that persistence lasts must be above 0 s, but is {window}")
    flagged = zeros(groupdq, groupdq.shape, np.uint8)
    later = np.zeros(data.shape[-2:]) if until is None else until.astype(np.float64)
    flags = _PERSISTENCE | _DO_NOT_USE if exclude else _PERSISTENCE
    limit = np.float32(np.inf if signal_threshold is None else signal_threshold)
    for i in range(data.shape[0]):
        of_integration = groupdq[i].copy()
        _flag(data[i], groupdq[i], float(starts[i]), group_time, window, limit, flags, later, of_integration)
        flagged[i] = of_integration
    return flagged, later


# g = group, y = row, x = column
@kernel
def _flag(data, groupdq, start, group_time, window, limit, flags, until, flagged):
    ngroups, ny, nx = data.shape
    seen = np.zeros((ny, nx), np.int32)
    for g in range(ngroups):
        now = start + (g + 1) * group_time
        end = now + window
        for y in range(ny):
            for x in range(nx):
                suspect = until[y, x]
                if suspect < now:
                    suspect = 0.0
                if groupdq[g, y, x] & _SATURATED:
                    seen[y, x] += 1
                # The traps fill when the pixel becomes saturated, not as long as it stays so.
                if seen[y, x] == 1 or (suspect == 0.0 and data[g, y, x] > limit):
                    suspect = end
                if suspect > end:
                    # From an exposure of a later time, or of another window: it cannot be.
                    suspect = 0.0
                until[y, x] = suspect
                if suspect > 0.0:
                    flagged[g, y, x] |= flags
