"""The reset anomaly of MIRI: what a reset leaves in the first groups, the same in every exposure.

The first integration after an idle time differs from those that follow. The reference has some integrations; later ones
are like its last. Source: JWST pipeline documentation, "reset".
"""

import numpy as np

from calibration.jit import kernel


def subtract_reset_anomaly(data: np.ndarray, anomaly: np.ndarray, first_integration: int = 1) -> np.ndarray:
    """Ramps without the reset anomaly.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN].
    anomaly : (nreference, ngroups of the anomaly, ny, nx) float32
        [DN], NaN where it is not known: nothing is subtracted there. Groups beyond its last are left as they are.
    first_integration : int
        Number of the first integration of ``data`` in its exposure, from 1.

    Returns
    -------
    (nints, ngroups, ny, nx) float32
    """
    if anomaly.ndim != 4 or anomaly.shape[-2:] != data.shape[-2:]:
        raise ValueError(
            f"the reset anomaly must be (integrations, groups, {data.shape[-2]}, {data.shape[-1]}), but has the shape "
            f"{anomaly.shape}; choose the reference of this subarray"
        )
    which = np.minimum(np.arange(data.shape[0]) + first_integration - 1, anomaly.shape[0] - 1)
    subtracted = np.empty_like(data)
    _subtract(data, anomaly, which, subtracted)
    return subtracted


# i = integration, g = group, y = row, x = column
@kernel
def _subtract(data, anomaly, which, subtracted):
    nints, ngroups, ny, nx = data.shape
    for i in range(nints):
        for g in range(ngroups):
            for y in range(ny):
                row, out = data[i, g, y], subtracted[i, g, y]
                if g < anomaly.shape[1]:
                    level = anomaly[which[i], g, y]
                    for x in range(nx):
                        out[x] = row[x] if np.isnan(level[x]) else row[x] - level[x]
                else:
                    for x in range(nx):
                        out[x] = row[x]
