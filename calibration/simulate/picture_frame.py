"""The glow of the warm edges of a NIRSpec detector; its shape is invented after the published ones."""

import numpy as np

from calibration.subarrays import Subarray

WIDTH = 250.0  # [pixel], over which the glow falls
HEIGHT = 0.01  # [DN/s], at the edge
MIDDLE = -0.002  # [DN/s], in the middle: the correction of reference pixels took too much


def glow_of_edges(area: Subarray) -> np.ndarray:
    """The glow of an area of the detector at its usual height, (ny, nx) float32 [DN/s]."""
    y = np.arange(area.ysize)[:, None] + area.ystart - 1
    x = np.arange(area.xsize)[None, :] + area.xstart - 1
    from_edge = np.minimum(np.minimum(y, 2047 - y), np.minimum(x, 2047 - x))
    return (MIDDLE + (HEIGHT - MIDDLE) * np.exp(-from_edge / WIDTH)).astype(np.float32)
