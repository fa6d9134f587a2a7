"""The flags that a pixel has before any signal is looked at: those of the bad pixel mask.

Source: JWST pipeline documentation, "dq_init".
"""

import numpy as np

from calibration import dq


def apply_mask(pixeldq: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Pixel flags with those of the bad pixel mask added.

    Parameters
    ----------
    pixeldq, mask : (ny, nx) uint32

    Raises
    ------
    ValueError
        If ``mask`` covers another detector area than ``pixeldq``.
    """
    if mask.shape != pixeldq.shape:
        raise ValueError(
            f"the mask must cover the detector area of the data, {pixeldq.shape}, but has the shape {mask.shape}; "
            "cut the reference to the subarray first"
        )
    return pixeldq | mask


def exclude_bad_pixels(groupdq: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Group flags with ``DO_NOT_USE`` in every group of a pixel that the mask excludes.

    Parameters
    ----------
    groupdq : (nints, ngroups, ny, nx) uint8
    mask : (ny, nx) uint32
    """
    unusable = (mask & dq.PIXEL["DO_NOT_USE"]).astype(np.uint8)
    return groupdq | unusable
