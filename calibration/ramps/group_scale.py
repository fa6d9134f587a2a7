"""Groups that the detector electronics averaged on board with the wrong divisor.

On board, NFRAMES frames are added and divided by FRMDIVSR, a power of two. Where NFRAMES is none, the mean is off by
FRMDIVSR / NFRAMES, which is undone here. Source: JWST pipeline documentation, "group_scale".
"""

import numpy as np


def rescale_groups(data: np.ndarray, nframes: int, frame_divisor: int) -> np.ndarray:
    """Ramps as the true mean of the frames of each group.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN].
    nframes : int
        Frames averaged per group, NFRAMES.
    frame_divisor : int
        Divisor used on board, FRMDIVSR.

    Returns
    -------
    (nints, ngroups, ny, nx) float32
    """
    if nframes < 1 or frame_divisor < 1:
        raise ValueError(f"NFRAMES and FRMDIVSR must be at least 1, but are {nframes} and {frame_divisor}")
    return data * np.float32(frame_divisor / nframes)
