"""Persistence by a model of charge traps: what traps release is subtracted, what they capture is carried on.

Traps come in families. While a pixel fills, its depletion region recedes and traps come into contact with charge: some
capture at once, the others with an exponential law. What they captured they release with a law of their own, in this
exposure and in later ones. The state, how many traps of each family are filled, goes from exposure to exposure.

    released in a time t:   n = filled (1 - exp(-t / tau_decay))
    captured in a time t:   c(t) = par0 (1 - exp(-t / tau)) + par2          per trap that charge reaches
    by a ramp:              2 density slope^2 (integral of s c(s) ds from 0 to t)    slope in persistence saturations per second
    by a saturated pixel:   (density par0 - exponential traps filled) (1 - exp(-t / tau))
    by a particle:          2 density jump c(t)

Source: documentation of JWST pipeline Build 7.1, "persistence" (M. Regan's model). Two places where we differ:
it takes the jump of a particle in DN, beside a slope in saturations per second; here both are in saturations. And it leaves
open whether charge that is released during the reset before an integration is in the first group: here it is not, the
reset takes it away.
"""

from dataclasses import dataclass

import numpy as np

from calibration import dq
from calibration.jit import kernel
from calibration.strips import zeros

_SATURATED = dq.GROUP["SATURATED"]
_JUMP = dq.GROUP["JUMP_DET"]


@dataclass(frozen=True)
class TrapFamilies:
    """Traps that capture and release alike, one row each of a TRAPPARS reference; (nfamilies,) float64 each.

    Attributes
    ----------
    capture0 : ndarray
        Coefficient of exponential capture.
    capture1 : ndarray
        Minus one over the time of exponential capture [1/s].
    capture2 : ndarray
        Coefficient of instantaneous capture.
    decay : ndarray
        Minus one over the time of release [1/s].
    """

    capture0: np.ndarray
    capture1: np.ndarray
    capture2: np.ndarray
    decay: np.ndarray

    def __post_init__(self) -> None:
        for name in ("capture1", "decay"):
            if not np.all(getattr(self, name) < 0):
                raise ValueError(
                    f"{name} of trap families must be below 0 (minus one over a time), but is {getattr(self, name)}"
                )


@dataclass(frozen=True)
class Clocking:
    """Times of a readout [s]: from group to group, of a reset before the first and before each later integration."""

    group_time: float
    first_reset: float
    reset: float


def release(filled: np.ndarray, families: TrapFamilies, seconds: float) -> np.ndarray:
    """Filled traps (nfamilies, ny, nx) that are left after a time without light."""
    if seconds < 0:
        raise ValueError(f"traps were filled {-seconds:.0f} s after the exposure began; give the exposure before it")
    return filled * np.exp(families.decay * seconds)[:, None, None]


def correct_persistence(
    data: np.ndarray,
    groupdq: np.ndarray,
    filled: np.ndarray,
    density: np.ndarray,
    saturation: np.ndarray,
    families: TrapFamilies,
    clocking: Clocking,
    wanted: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Subtract what traps release, and follow how they are filled.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN].
    groupdq : (nints, ngroups, ny, nx) uint8
        With ``JUMP_DET`` where particles were found, and ``SATURATED``.
    filled : (nfamilies, ny, nx) float
        Filled traps at the start of the exposure [DN that they would release].
    density : (ny, nx) float32
        Relative density of traps; NaN and negative values: none.
    saturation : (ny, nx) float32
        Signal [DN] beyond which no more traps come into contact with charge; NaN, or not above 0: no capture.
    families : TrapFamilies
    clocking : Clocking
    wanted : bool
        Whether the persistence itself is given back.

    Returns
    -------
    corrected : (nints, ngroups, ny, nx) float32
    filled : (nfamilies, ny, nx) float64
        At the end of the exposure.
    largest : (ny, nx) float32
        What was subtracted in the last group, in the integration where it was most [DN].
    persistence : (nints, ngroups, ny, nx) float32 or None
        What was subtracted [DN].
    """
    shape = (len(families.decay), *data.shape[-2:])
    if filled.shape != shape:
        raise ValueError(
            f"filled traps must have the shape {shape}: {shape[0]} families in the TRAPPARS reference, and the area of the "
            f"exposure; but they have {filled.shape}"
        )
    for name, array in (("density", density), ("saturation", saturation)):
        if array.shape != data.shape[-2:]:
            raise ValueError(f"{name} must cover the area of data, {data.shape[-2:]}, but has shape {array.shape}")
    corrected, after = zeros(data, data.shape, np.float32), filled.astype(np.float64)
    persistence = zeros(data, data.shape, np.float32) if wanted else None
    largest = np.zeros(data.shape[-2:], np.float32)
    laws = np.stack([families.capture0, families.capture1, families.capture2, families.decay])
    for i in range(data.shape[0]):
        ramp = data[i]
        released = np.empty_like(ramp)
        reset = clocking.first_reset if i == 0 else clocking.reset
        _follow(ramp, groupdq[i], density, saturation, laws, clocking.group_time, reset, after, released)
        corrected[i] = ramp - released
        np.maximum(largest, released[-1], out=largest)
        if persistence is not None:
            persistence[i] = released
    return corrected, after, largest, persistence


# g = group, y = row, x = column, k = family of traps
@kernel
def _follow(data, groupdq, density, saturation, laws, group_time, reset, filled, released):
    ngroups, ny, nx = data.shape
    capture0, capture1, capture2, decay = laws[0], laws[1], laws[2], laws[3]
    nfamilies = decay.size
    differences = np.empty(ngroups, np.float64)
    in_group, in_reset = np.exp(decay * group_time), np.exp(decay * reset)
    for y in range(ny):
        for x in range(nx):
            # Before anything is subtracted, which changes the slope.
            slope, full = _slope(data[:, y, x], groupdq[:, y, x], saturation[y, x], differences)
            total = 0.0
            for k in range(nfamilies):
                filled[k, y, x] *= in_reset[k]
            for g in range(ngroups):
                for k in range(nfamilies):
                    lost = filled[k, y, x] * (1 - in_group[k])
                    filled[k, y, x] -= lost
                    total += lost
                released[g, y, x] = total
            if not (density[y, x] > 0 and saturation[y, x] > 0):
                continue
            per_saturation = 1.0 / saturation[y, x]
            rate = max(slope, 0.0) * per_saturation / group_time
            open_time = reset + (ngroups - full) * group_time
            for k in range(nfamilies):
                tau = -1.0 / capture1[k]
                swept = open_time * open_time * (capture0[k] + capture2[k]) / 2
                late = capture0[k] * ((open_time * tau + tau * tau) * np.exp(-open_time / tau) - tau * tau)
                new = 2 * density[y, x] * rate * rate * (swept + late)
                if full > 0:
                    if full == ngroups:
                        new = density[y, x] * capture2[k]
                    empty = density[y, x] * (capture0[k] + capture2[k]) - new
                    new += empty * (1 - np.exp(-full * group_time / tau))
                for g in range(1, ngroups):
                    if groupdq[g, y, x] & _JUMP and not groupdq[g, y, x] & _SATURATED:
                        jump = (data[g, y, x] - data[g - 1, y, x] - slope) * per_saturation
                        if jump > 0:
                            time = (ngroups - g - 0.5) * group_time
                            new += 2 * density[y, x] * jump * (capture0[k] * (1 - np.exp(-time / tau)) + capture2[k])
                filled[k, y, x] += new


@kernel
def _slope(ramp, flags, saturation, differences):
    """Rise per group [DN], saturated groups and jumps apart; and in how many groups the pixel is saturated."""
    ngroups = ramp.size
    n, full = 0, 0
    for g in range(ngroups):
        # "Saturated" is what is beyond the persistence saturation, or has no value that could tell.
        if ramp[g] > saturation or flags[g] & _SATURATED:
            full += 1
        elif g > 0 and not flags[g] & _JUMP and not flags[g - 1] & _SATURATED:
            differences[n] = np.float64(ramp[g]) - np.float64(ramp[g - 1])
            n += 1
    if n == 0:
        # One group, or jumps only: the ramp began at 0.
        return (np.float64(ramp[0]) if full < ngroups and np.isfinite(ramp[0]) else 0.0), full
    return differences[:n].mean(), full
