"""The first group of a MIRI integration, which the reset before it still disturbs.

In a pixel that is full by the third group the disturbance is small against the signal: it may keep its first group.
Source: JWST pipeline documentation, "firstframe". Since 3.0.0 the step rscd flags first groups too.
"""

import numpy as np

from calibration import dq


def flag_first_group(groupdq: np.ndarray, pixeldq: np.ndarray, keep_bright: bool) -> tuple[np.ndarray, np.ndarray]:
    """Flag the first group of each integration.

    Parameters
    ----------
    groupdq : (nints, ngroups, ny, nx) uint8
        Of three groups or more.
    pixeldq : (ny, nx) uint32
    keep_bright : bool
        Whether pixels whose third group is saturated keep their first one.

    Returns
    -------
    groupdq : (nints, ngroups, ny, nx) uint8
        With ``DO_NOT_USE`` in the first groups.
    pixeldq : (ny, nx) uint32
        With ``FLUX_ESTIMATED`` where a first group was kept.
    """
    kept = (groupdq[:, 2] & dq.GROUP["SATURATED"]) != 0 if keep_bright else np.zeros(groupdq[:, 0].shape, bool)
    flagged = groupdq.copy()
    flagged[:, 0] |= np.where(kept, np.uint8(0), dq.GROUP["DO_NOT_USE"])
    return flagged, np.where(kept.any(axis=0), pixeldq | dq.PIXEL["FLUX_ESTIMATED"], pixeldq)
