"""Groups of bright stars whose charge moved to the neighbours: the signal of the peak falls behind, that around it grows.

Source: JWST pipeline documentation, "charge_migration"; Goudfrooij et al. 2024, PASP 136, 014503.
"""

import numpy as np

from calibration import dq
from calibration.jit import kernel

_LOST = dq.GROUP["CHARGELOSS"] | dq.GROUP["DO_NOT_USE"]
_DO_NOT_USE = dq.GROUP["DO_NOT_USE"]


def flag_charge_migration(data: np.ndarray, groupdq: np.ndarray, signal_threshold: float) -> np.ndarray:
    """Flag the groups in which a pixel, or one of its four neighbours, has a signal from which charge is lost.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN], linear, dark subtracted.
    groupdq : (nints, ngroups, ny, nx) uint8
        A group with ``DO_NOT_USE`` and no other flag tells nothing.
    signal_threshold : float
        Signal above which charge migrates [DN].

    Returns
    -------
    (nints, ngroups, ny, nx) uint8
        With ``CHARGELOSS | DO_NOT_USE`` from the first such group to the end of the integration.
    """
    flagged = groupdq.copy()
    _flag(data, groupdq, np.float32(signal_threshold), flagged)
    return flagged


# i = integration, g = group, y = row, x = column
@kernel
def _flag(data, groupdq, threshold, flagged):
    nints, ngroups, ny, nx = data.shape
    lost = np.empty((ny, nx), np.bool_)
    for i in range(nints):
        lost[:] = False
        for g in range(ngroups):
            for y in range(ny):
                for x in range(nx):
                    if data[i, g, y, x] > threshold and groupdq[i, g, y, x] != _DO_NOT_USE:
                        lost[y, x] = True
                        lost[max(y - 1, 0), x] = True
                        lost[min(y + 1, ny - 1), x] = True
                        lost[y, max(x - 1, 0)] = True
                        lost[y, min(x + 1, nx - 1)] = True
            for y in range(ny):
                for x in range(nx):
                    if lost[y, x]:
                        flagged[i, g, y, x] |= _LOST
