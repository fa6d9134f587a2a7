"""The signal that a detector makes in the dark: subtracted group by group.

The dark reference has its own frames per group and gaps. It is averaged to the groups of the exposure, and extended by
its last slope where it is too short. Source: JWST pipeline documentation, "dark_current".
"""

import math

import numpy as np

from calibration.jit import kernel


def is_dark_fine_enough(nframes: int, groupgap: int, dark_nframes: int, dark_groupgap: int) -> bool:
    """Whether the groups of an exposure can be made of those of the dark: it averages and drops no more frames."""
    return dark_nframes <= nframes and dark_groupgap <= groupgap


def groups_needed(ngroups: int, nframes: int, groupgap: int, dark_nframes: int, dark_groupgap: int) -> int:
    """How many groups of the dark an exposure of ``ngroups`` groups takes; the other parameters as in ``subtract_dark``."""
    if nframes == dark_nframes and groupgap == dark_groupgap:
        return ngroups
    return (ngroups - 1) * (nframes + groupgap) + nframes


def subtract_dark(
    data: np.ndarray,
    dark: np.ndarray,
    nframes: int,
    groupgap: int,
    dark_nframes: int,
    dark_groupgap: int,
    first_integration: int = 1,
) -> np.ndarray:
    """Ramps without the dark signal.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN], linear.
    dark : (ngroups, ny, nx) or (nints, ngroups, ny, nx) float32
        Dark signal [DN], NaN where it is not known: nothing is subtracted there. With integrations (MIRI), those of
        the exposure beyond the last one of the dark take the last one.
    nframes, groupgap, dark_nframes, dark_groupgap : int
        Frames averaged per group, and frames dropped between groups, of the exposure and of the dark.
    first_integration : int
        Number of the first integration of ``data`` in its exposure, from 1. A later segment of an exposure takes the
        last integration of the dark throughout, as the official pipeline does.

    Returns
    -------
    (nints, ngroups, ny, nx) float32
    """
    cube = dark if dark.ndim == 4 else dark[None]
    if cube.ndim != 4 or cube.shape[-2:] != data.shape[-2:]:
        raise ValueError(
            f"the dark must cover the detector area of the data, {data.shape[-2:]}, but has the shape {dark.shape}; "
            "choose the dark of this subarray"
        )
    if not is_dark_fine_enough(nframes, groupgap, dark_nframes, dark_groupgap):
        raise ValueError(
            f"the dark averages {dark_nframes} frames and drops {dark_groupgap}, which is more than the exposure "
            f"({nframes} and {groupgap}); choose a dark of the same or of a faster readout pattern"
        )
    nints, ngroups = data.shape[:2]
    same = nframes == dark_nframes and groupgap == dark_groupgap
    cube = _extended(cube, ngroups, nframes, groupgap, dark_nframes, dark_groupgap)
    starts = np.arange(ngroups) * (1 if same else nframes + groupgap)
    if starts[-1] + (1 if same else nframes) > cube.shape[1]:
        raise ValueError(
            f"the dark has {cube.shape[1]} groups, but {starts[-1] + nframes} are needed for {ngroups} groups of "
            f"{nframes} frames and a gap of {groupgap}; choose a dark of single frames"
        )
    last = cube.shape[0] - 1
    which = np.array([min(i, last) if first_integration == 1 else last for i in range(nints)])
    subtracted = np.empty_like(data)
    _subtract(data, cube, which, starts, 1 if same else nframes, subtracted)
    return subtracted


def _extended(
    dark: np.ndarray, ngroups: int, nframes: int, groupgap: int, dark_nframes: int, dark_groupgap: int
) -> np.ndarray:
    needed = ngroups * nframes + (ngroups - 1) * groupgap
    there = dark.shape[1] * dark_nframes + (dark.shape[1] - 1) * dark_groupgap
    if needed <= there:
        return dark
    if dark.shape[1] < 2:
        raise ValueError(f"the dark has one group and cannot be extended to the {ngroups} groups of the exposure")
    more = math.ceil((needed - there + dark_groupgap) / (dark_nframes + dark_groupgap))
    slope = dark[:, -1:] - dark[:, -2:-1]
    steps = np.arange(1, more + 1, dtype=np.float32)[None, :, None, None]
    return np.concatenate([dark, dark[:, -1:] + steps * slope], axis=1)


# i = integration, g = group, f = frame of the dark, y = row, x = column
@kernel
def _subtract(data, dark, which, starts, nframes, subtracted):
    nints, ngroups, ny, nx = data.shape
    mean = np.empty(nx)
    level = np.empty(nx, np.float32)
    for g in range(ngroups):
        for y in range(ny):
            current = -1
            for i in range(nints):
                if which[i] != current:
                    current = which[i]
                    mean[:] = 0.0
                    for f in range(starts[g], starts[g] + nframes):
                        frame = dark[current, f, y]
                        for x in range(nx):
                            mean[x] += np.float64(0) if np.isnan(frame[x]) else np.float64(frame[x])
                    for x in range(nx):
                        level[x] = mean[x] / nframes
                row, out = data[i, g, y], subtracted[i, g, y]
                for x in range(nx):
                    out[x] = row[x] - level[x]
