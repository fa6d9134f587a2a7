"""The last group of a MIRI integration, which the reset that follows has spoilt already in half of the rows.

Source: JWST pipeline documentation, "lastframe".
"""

import numpy as np

from calibration import dq


def flag_last_group(groupdq: np.ndarray) -> np.ndarray:
    """Group flags (nints, ngroups, ny, nx) uint8 with ``DO_NOT_USE`` in the last group of each integration."""
    flagged = groupdq.copy()
    flagged[:, -1] |= dq.GROUP["DO_NOT_USE"]
    return flagged
