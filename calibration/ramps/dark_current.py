"""The signal that a detector makes in the dark: subtracted group by group.

The dark reference has its own frames per group and gaps. It is averaged to the groups of the exposure, and extended by
its last slope where it is too short. Source: JWST pipeline documentation, "dark_current".
"""

import math
from typing import Any, Protocol

import numpy as np

from calibration.jit import kernel


class Planes(Protocol):
    """An array of which only single planes (ny, nx) are asked for: one in memory, or one on disk that reads them."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: tuple[int, ...], /) -> Any: ...


def is_dark_fine_enough(nframes: int, groupgap: int, dark_nframes: int, dark_groupgap: int) -> bool:
    """Whether the groups of an exposure can be made of those of the dark: it averages and drops no more frames."""
    return dark_nframes <= nframes and dark_groupgap <= groupgap


def subtract_dark(
    data: np.ndarray,
    dark: Planes,
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
        the exposure beyond the last one of the dark take the last one. Planes are asked for one at a time, and only
        those that are needed: a dark is as large as an exposure, and can stay on disk.
    nframes, groupgap, dark_nframes, dark_groupgap : int
        Frames averaged per group, and frames dropped between groups, of the exposure and of the dark.
    first_integration : int
        Number of the first integration of ``data`` in its exposure, from 1: each takes the integration of the dark with its
        own number, whichever segment or block it comes in. (The official pipeline gives a later segment the last one
        throughout, which is the same for darks of two integrations.)

    Returns
    -------
    (nints, ngroups, ny, nx) float32
    """
    if len(dark.shape) not in (3, 4) or dark.shape[-2:] != data.shape[-2:]:
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
    averaged, stride = (1, 1) if same else (nframes, nframes + groupgap)
    there = dark.shape[-3] + _missing(dark.shape[-3], ngroups, nframes, groupgap, dark_nframes, dark_groupgap)
    if (ngroups - 1) * stride + averaged > there:
        raise ValueError(
            f"the dark has {there} groups, but {(ngroups - 1) * stride + nframes} are needed for {ngroups} groups of "
            f"{nframes} frames and a gap of {groupgap}; choose a dark of single frames"
        )
    last = dark.shape[0] - 1 if len(dark.shape) == 4 else 0
    subtracted = np.empty_like(data)
    for g in range(ngroups):
        current = -1
        for i in range(nints):
            which = min(first_integration - 1 + i, last)
            if which != current:
                level = _level(dark, which, range(g * stride, g * stride + averaged))
                current = which
            _subtract(data[i, g], level, subtracted[i, g])
    return subtracted


def _missing(
    dark_ngroups: int, ngroups: int, nframes: int, groupgap: int, dark_nframes: int, dark_groupgap: int
) -> int:
    """How many groups the dark is too short."""
    needed = ngroups * nframes + (ngroups - 1) * groupgap
    there = dark_ngroups * dark_nframes + (dark_ngroups - 1) * dark_groupgap
    if needed <= there:
        return 0
    if dark_ngroups < 2:
        raise ValueError(f"the dark has one group and cannot be extended to the {ngroups} groups of the exposure")
    return math.ceil((needed - there + dark_groupgap) / (dark_nframes + dark_groupgap))


def _level(dark: Planes, integration: int, frames: range) -> np.ndarray:
    """The mean of some frames of the dark (ny, nx) float32; of one frame, that frame, with its NaN."""
    if len(frames) == 1:
        return _frame(dark, integration, frames[0])
    total = np.zeros(dark.shape[-2:])
    for f in frames:
        _add(_frame(dark, integration, f), total)
    return (total / len(frames)).astype(np.float32)


def _frame(dark: Planes, integration: int, f: int) -> np.ndarray:
    before = (integration,) if len(dark.shape) == 4 else ()
    end = dark.shape[-3] - 1
    if f <= end:
        return dark[(*before, f)]
    last = dark[(*before, end)]
    return last + np.float32(f - end) * (last - dark[(*before, end - 1)])


# y = row, x = column
@kernel
def _add(frame, total):
    ny, nx = frame.shape
    for y in range(ny):
        for x in range(nx):
            total[y, x] += np.float64(0) if np.isnan(frame[y, x]) else np.float64(frame[y, x])


@kernel
def _subtract(data, level, subtracted):
    ny, nx = data.shape
    for y in range(ny):
        for x in range(nx):
            subtracted[y, x] = data[y, x] - (np.float32(0) if np.isnan(level[y, x]) else level[y, x])
