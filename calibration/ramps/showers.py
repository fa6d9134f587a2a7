"""Showers: faint, wide glows that a cosmic ray leaves in the mid-infrared detectors.

A shower is too faint to be a jump in any one pixel. The differences of groups are divided by their noise, less the median of
their pixel; pixels that are flagged are left out; and a ring-shaped average over the neighbours brings the glow up. A
large patch over the threshold is a shower: its enlarged ellipse is flagged as a jump in that group and for some time after.
Pixels whose rate would change by more than a shower can do keep the flags they had. Source: JWST pipeline documentation,
"jump", sections "Showers" and "Arguments".
"""

import warnings
from dataclasses import dataclass

import numpy as np
from astropy.stats import sigma_clipped_stats
from astropy.utils.exceptions import AstropyUserWarning

from calibration import dq
from calibration.ramps.large_events import find_patches, flag_unsaturated

_UNUSABLE = dq.GROUP["JUMP_DET"] | dq.GROUP["SATURATED"] | dq.GROUP["DO_NOT_USE"]
_BAD_PIXEL = dq.PIXEL["REFERENCE_PIXEL"] | dq.PIXEL["DO_NOT_USE"] | dq.PIXEL["SATURATED"] | dq.PIXEL["JUMP_DET"]

#: With fewer differences of groups the median of a pixel is no measure of its noise.
FEWEST_DIFFERENCES = 10
#: Clip of the differences of many integrations [sigma].
_CLIP = 5.0


@dataclass(frozen=True)
class Showers:
    """What is a shower, and how far it reaches.

    Attributes
    ----------
    threshold : float
        Of the average over the ring [sigma of a pixel].
    smallest_area : float
        Of a patch over the threshold [pixel].
    inner, width : float
        The ring reaches from ``inner`` to ``inner + width`` [pixel].
    expansion : float
        How much longer the minor axis of what is flagged is than that of the patch.
    groups_after : int
        Groups after it that are flagged too.
    largest_change : float
        A change of the rate above this [DN/group] is no shower.
    largest_radius : float
        Cut of the half axes of what is flagged [pixel].
    sigma_clip_integrations : int
        From this number of integrations on, noise and median of a difference are those over integrations, clipped.
    """

    threshold: float = 1.2
    smallest_area: float = 90
    inner: float = 1.0
    width: float = 2.6
    expansion: float = 1.1
    groups_after: int = 0
    largest_change: float = np.inf
    largest_radius: float = 200
    sigma_clip_integrations: int = 100


def flag_showers(
    data: np.ndarray,
    groupdq: np.ndarray,
    pixeldq: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    nframes: int,
    showers: Showers,
) -> tuple[np.ndarray, int]:
    """Flag the groups that showers reach.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN], linear, dark subtracted.
    groupdq : (nints, ngroups, ny, nx) uint8
        With jumps flagged.
    pixeldq : (ny, nx) uint32
        Reference pixels and pixels not to be used take no part; reference pixels are never flagged.
    gain : (ny, nx) float32
        [e-/DN]; a pixel where it is not above 0 is never flagged.
    readnoise : (ny, nx) float32
        Noise of the difference of two single reads [DN].
    nframes : int
        Frames averaged per group.
    showers : Showers

    Returns
    -------
    groupdq : (nints, ngroups, ny, nx) uint8
        With more ``JUMP_DET``.
    count : int
        Showers found; none with fewer than ``FEWEST_DIFFERENCES`` differences of groups in the exposure.
    """
    nints, ngroups = groupdq.shape[:2]
    lost = (groupdq & dq.GROUP["DO_NOT_USE"] != 0).all(axis=(2, 3))
    if nints * (ngroups - 1) - np.count_nonzero(lost) < FEWEST_DIFFERENCES:
        return groupdq, 0
    gain = np.where(gain > 0, gain, np.float32(np.nan))
    differences = np.diff(np.where(groupdq & _UNUSABLE, np.float32(np.nan), data) * gain, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        middle, noise = _expect(differences, readnoise * gain, nframes, showers.sigma_clip_integrations)
        found = []
        for i in range(nints):
            if lost[i].all():
                continue
            for g in range(int(np.argmin(lost[i])) + 1, ngroups):
                excess = np.abs(differences[i, g - 1] - middle[g - 1]) / noise[g - 1]
                excess[pixeldq & _BAD_PIXEL != 0] = np.nan
                glow = average_over_ring(excess, showers.inner, showers.inner + showers.width)
                patches = find_patches(glow > showers.threshold, showers.smallest_area)
                found += [(i, g, patch) for patch in patches]
    flagged = groupdq.copy()
    for i, g, patch in found:
        where, inside = patch.enlarge(showers.expansion).draw(pixeldq.shape, showers.largest_radius)
        for group in flagged[i, g : g + showers.groups_after + 1]:
            flag_unsaturated(group, where, inside)
    never = np.isnan(gain) | (pixeldq & dq.PIXEL["REFERENCE_PIXEL"] != 0)
    for i in range(nints):
        change = np.abs(_rate(data[i], groupdq[i]) - _rate(data[i], flagged[i]))
        # A NaN compares false: without a rate before or after, flags stay as they were.
        stays = ~(change <= showers.largest_change) | never
        flagged[i][:, stays] = groupdq[i][:, stays]
    return flagged, len(found)


def average_over_ring(image: np.ndarray, inner: float, outer: float) -> np.ndarray:
    """Mean of the pixels at a distance from ``inner`` to ``outer`` of each; NaN are left out, and stay NaN.

    Parameters
    ----------
    image : (ny, nx) float
        Beyond its edges it counts as 0.
    inner, outer : float
        [pixel], the rims included.
    """
    # Here, not above: it takes a quarter of a second, and showers are looked for on demand.
    from scipy import signal

    reach = int(outer)
    v, u = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    ring = ((v**2 + u**2 >= inner**2) & (v**2 + u**2 <= outer**2)).astype(float)
    good = np.isfinite(image)
    total = signal.oaconvolve(np.where(good, image, 0.0), ring, mode="same")
    weight = signal.oaconvolve(np.pad(good.astype(float), reach, constant_values=1.0), ring, mode="valid")
    # The convolution by way of Fourier leaves rounding noise where there is no weight.
    return np.where(good & (weight > 0.5), total / np.maximum(weight, 0.5), np.nan)


def _expect(
    differences: np.ndarray, readnoise: np.ndarray, nframes: int, sigma_clip_integrations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Median and noise [e-] of each difference (ngroups - 1, ny, nx)."""
    if differences.shape[0] >= sigma_clip_integrations:
        with warnings.catch_warnings():
            # A pixel may have no usable difference: it is NaN, and takes no part.
            warnings.simplefilter("ignore", RuntimeWarning)
            warnings.simplefilter("ignore", AstropyUserWarning)
            _, middle, noise = sigma_clipped_stats(differences, sigma=_CLIP, axis=0)
        return middle, noise
    everything = differences.reshape(-1, *differences.shape[2:])
    median = _nan_median(everything)
    noise = np.sqrt(np.abs(median) + readnoise**2 / nframes)
    shape = differences.shape[1:]
    return np.broadcast_to(median, shape), np.broadcast_to(noise, shape)


def _nan_median(values: np.ndarray) -> np.ndarray:
    """Median (ny, nx) over the first axis of (n, ny, nx) without NaN; NaN where there is nothing else."""
    median = np.empty(values.shape[1:], values.dtype)
    for y in range(median.shape[0]):
        ordered = np.sort(values[:, y], axis=0)  # NaN go last
        n = np.count_nonzero(~np.isnan(ordered), axis=0)
        low, high = np.maximum(n - 1, 0) // 2, np.minimum(n // 2, len(values) - 1)
        lower, upper = (np.take_along_axis(ordered, middle[None], axis=0)[0] for middle in (low, high))
        median[y] = (lower + upper) / 2
    return median


def _rate(ramp: np.ndarray, groupdq: np.ndarray) -> np.ndarray:
    """Mean difference of usable successive groups (ny, nx) [DN/group]; NaN without one."""
    usable = groupdq & _UNUSABLE == 0
    both = usable[1:] & usable[:-1]
    n = np.count_nonzero(both, axis=0)
    total = np.sum(np.diff(ramp, axis=0), axis=0, where=both, dtype=float)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)
