"""Cosmic rays in ramps: a difference of successive groups that stands out among those of its pixel.

The differences of a steady ramp scatter with ``sigma^2 = |m| + readnoise^2 / nframes`` [e-^2], ``m`` their median. With few
differences the largest one is tested, thrown out when it fails, and the median taken again (the largest value left out of
it), until none fails. With many differences the median holds by itself and all are tested at once. With very many
integrations, the same difference in all of them is sigma-clipped instead. Source: Anderson & Gordon 2011, PASP 123, 1237;
JWST pipeline documentation, "jump".

Few pixels are ever hit, and the range of the differences of a pixel bounds how far any can be from the median: the
kernel looks at the extremes of all pixels first, and takes medians only where a hit is possible. The result is exactly
that of taking them everywhere.
"""

from dataclasses import dataclass

import numpy as np

from calibration import dq
from calibration.jit import kernel

_JUMP = dq.GROUP["JUMP_DET"]
_DO_NOT_USE = dq.GROUP["DO_NOT_USE"]
_UNUSABLE = dq.GROUP["SATURATED"] | dq.GROUP["DO_NOT_USE"]

#: Differences that one block of pixels may hold, so that they stay in the cache.
_BLOCK = 2**18
#: Rounds of sigma clipping over integrations, as astropy's default.
_CLIP_ROUNDS = 5


@dataclass(frozen=True)
class Detection:
    """When a difference is a jump, and what is flagged with it.

    Attributes
    ----------
    threshold, four_group_threshold, three_group_threshold : float
        Rejection threshold with 4 or more, 3 and 2 usable differences [sigma].
    single_pass_differences : int
        From this number of usable differences on, all are tested at once.
    sigma_clip_integrations : int
        From this number of integrations on, differences are clipped over integrations.
    flag_neighbours : bool
        Whether the four neighbours of a jump between ``smallest`` and ``largest`` [sigma] are flagged too.
    """

    threshold: float = 4.0
    four_group_threshold: float = 5.0
    three_group_threshold: float = 6.0
    single_pass_differences: int = 10
    sigma_clip_integrations: int = 100
    flag_neighbours: bool = True
    smallest: float = 10.0
    largest: float = 1000.0


@dataclass(frozen=True)
class Aftermath:
    """A jump of at least ``height`` [e-] also spoils the next ``ngroups`` groups."""

    height: float
    ngroups: int


def flag_bad_gain(pixeldq: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Pixel flags with ``NO_GAIN_VALUE | DO_NOT_USE`` where the gain (ny, nx) [e-/DN] is not above 0."""
    bad = ~(gain > 0)
    return np.where(bad, pixeldq | dq.PIXEL["NO_GAIN_VALUE"] | dq.PIXEL["DO_NOT_USE"], pixeldq)


def flag_jumps(
    data: np.ndarray,
    groupdq: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    nframes: int,
    detection: Detection = Detection(),
    aftermaths: tuple[Aftermath, ...] = (),
) -> tuple[np.ndarray, int]:
    """Flag the groups in which a cosmic ray, or another sudden rise, hit a pixel.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN], linear, dark subtracted.
    groupdq : (nints, ngroups, ny, nx) uint8
        Groups that are saturated or not to be used take no part.
    gain : (ny, nx) float32
        [e-/DN]; a pixel where it is not above 0 is never flagged.
    readnoise : (ny, nx) float32
        Noise of the difference of two single reads [DN].
    nframes : int
        Frames averaged per group.
    detection : Detection
    aftermaths : tuple of Aftermath

    Returns
    -------
    groupdq : (nints, ngroups, ny, nx) uint8
        With ``JUMP_DET`` in the group after the difference that stands out.
    hits : int
        Differences found, neighbours and aftermaths apart.
    """
    for name, array in (("gain", gain), ("readnoise", readnoise)):
        if array.shape != data.shape[-2:]:
            raise ValueError(
                f"{name} must cover the detector area of data, {data.shape[-2:]}, but has the shape {array.shape}; "
                "cut the reference to the subarray first"
            )
    nints, ngroups = data.shape[:2]
    flagged = groupdq.copy()
    usable = ngroups - _count_lost_groups(groupdq)[0]
    clip = nints >= detection.sigma_clip_integrations
    if usable < 3 and not clip:
        return flagged, 0
    gain = np.where(gain > 0, gain, np.float32(np.nan)).astype(np.float32, copy=False)
    variance = (readnoise.astype(np.float32) * gain).astype(np.float64) ** 2 / nframes
    thresholds = np.array([detection.three_group_threshold, detection.four_group_threshold, detection.threshold])
    neighbours = (detection.smallest, detection.largest) if detection.flag_neighbours else (np.inf, np.inf)
    mode = 2 if clip else 1 if usable - 1 >= detection.single_pass_differences else 0
    hits = _find(data, groupdq, gain, variance, mode, thresholds, *neighbours, flagged)
    before = flagged.copy() if any(after.ngroups > 0 for after in aftermaths) else flagged
    for after in aftermaths:
        if after.ngroups > 0:
            _flag_aftermath(data, groupdq, gain, before, after.height, after.ngroups, flagged)
    return flagged, int(hits)


def count_usable_differences(groupdq: np.ndarray) -> int:
    """How many differences of groups an exposure has, without the groups that no pixel uses.

    Parameters
    ----------
    groupdq : (nints, ngroups, ny, nx) uint8
    """
    nints, ngroups = groupdq.shape[:2]
    return int(nints * (ngroups - 1) - _count_lost_groups(groupdq)[1])


@kernel
def _count_lost_groups(groupdq):
    # The most groups that one integration lost altogether, and those that all of them lost.
    nints, ngroups, ny, nx = groupdq.shape
    most, total = 0, 0
    for i in range(nints):
        lost = 0
        for g in range(ngroups):
            all_lost = True
            for y in range(ny):
                for x in range(nx):
                    if groupdq[i, g, y, x] & _DO_NOT_USE == 0:
                        all_lost = False
                        break
                if not all_lost:
                    break
            lost += all_lost
        most = max(most, lost)
        total += lost
    return most, total


@kernel
def _median(values, n):
    """Median of the first ``n`` values; they are reordered."""
    if n <= 24:
        for j in range(1, n):
            value = values[j]
            k = j
            while k > 0 and values[k - 1] > value:
                values[k] = values[k - 1]
                k -= 1
            values[k] = value
        return 0.5 * (np.float64(values[(n - 1) // 2]) + np.float64(values[n // 2]))
    # Hoare's selection of the upper middle; what is below it then stands before it.
    middle = n // 2
    low, high = 0, n - 1
    while low < high:
        pivot = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if middle <= right:
            high = right
        elif middle >= left:
            low = left
        else:
            break
    upper = np.float64(values[middle])
    if n % 2:
        return upper
    lower = np.float64(values[0])
    for k in range(1, middle):
        if values[k] > lower:
            lower = np.float64(values[k])
    return 0.5 * (lower + upper)


# i = integration, g = group, k = difference of all integrations, y = row, x = column
@kernel
def _find(data, groupdq, gain, variance, mode, thresholds, smallest, largest, flagged):
    nints, ngroups, ny, nx = data.shape
    ndiffs = nints * (ngroups - 1)
    width = min(nx, max(16, _BLOCK // ndiffs))
    differences = np.empty((ndiffs, width), np.float32)
    previous = np.empty(width, np.float32)
    lowest, highest = np.empty(width, np.float32), np.empty(width, np.float32)
    one, work = np.empty(ndiffs, np.float32), np.empty(ndiffs, np.float32)
    is_jump = np.empty(ndiffs, np.bool_)
    lenient = min(thresholds[0], thresholds[1], thresholds[2]) if mode == 0 else thresholds[2]
    not_a_number = np.float32(np.nan)
    hits = 0
    for y in range(ny):
        for start in range(0, nx, width):
            stop = min(nx, start + width)
            n = stop - start
            lowest[:] = np.inf
            highest[:] = -np.inf
            for i in range(nints):
                for g in range(ngroups):
                    signal, flags, factor = data[i, g, y, start:stop], groupdq[i, g, y, start:stop], gain[y, start:stop]
                    if g == 0:
                        for x in range(n):
                            previous[x] = not_a_number if flags[x] & _UNUSABLE else signal[x] * factor[x]
                        continue
                    row = differences[i * (ngroups - 1) + g - 1]
                    for x in range(n):
                        electrons = not_a_number if flags[x] & _UNUSABLE else signal[x] * factor[x]
                        difference = electrons - previous[x]
                        previous[x] = electrons
                        row[x] = difference
                        size = abs(difference) if mode == 0 else difference
                        lowest[x] = size if size < lowest[x] else lowest[x]
                        highest[x] = size if size > highest[x] else highest[x]
            for x in range(n):
                # The median is not nearer to 0 than this.
                least = max(0.0, np.float64(lowest[x]), -np.float64(highest[x]))
                spread = np.float64(highest[x]) - np.float64(lowest[x])
                reach = lenient * np.sqrt(least + variance[y, start + x]) * 0.9999
                if mode < 2 and not spread > reach:
                    continue
                for k in range(ndiffs):
                    one[k] = differences[k, x]
                    is_jump[k] = False
                if mode == 0:
                    found = _test_largest(one, work, variance[y, start + x], thresholds, is_jump)
                elif mode == 1:
                    found = _test_all(one, work, variance[y, start + x], thresholds[2], is_jump)
                else:
                    found = _clip_integrations(one, work, nints, thresholds[2], is_jump)
                if found == 0:
                    continue
                hits += found
                middle = _signed_median(one, work)
                sigma = np.sqrt(abs(middle) + variance[y, start + x])
                for k in range(ndiffs):
                    if is_jump[k]:
                        i, g = k // (ngroups - 1), k % (ngroups - 1) + 1
                        flagged[i, g, y, start + x] |= _JUMP
                        if smallest * sigma < abs(np.float64(one[k]) - middle) < largest * sigma:
                            _flag_neighbours(groupdq[i, g], flagged[i, g], y, start + x)
    return hits


@kernel
def _signed_median(one, work):
    n = 0
    for k in range(one.size):
        if not np.isnan(one[k]):
            work[n] = one[k]
            n += 1
    return _median(work, n) if n > 0 else np.nan


@kernel
def _test_all(one, work, variance, threshold, is_jump):
    middle = _signed_median(one, work)
    sigma = np.sqrt(abs(middle) + variance)
    found = 0
    for k in range(one.size):
        # A NaN compares false: an unusable difference is no jump.
        if sigma > 0 and abs(np.float64(one[k]) - middle) / sigma > threshold:
            is_jump[k] = True
            found += 1
    return found


@kernel
def _test_largest(one, work, variance, thresholds, is_jump):
    found = 0
    while True:
        usable, largest = 0, -1.0
        for k in range(one.size):
            if not is_jump[k] and not np.isnan(one[k]):
                usable += 1
                largest = max(largest, abs(np.float64(one[k])))
        if usable < 2:
            return found
        n, least = 0, np.inf
        for k in range(one.size):
            if not is_jump[k] and not np.isnan(one[k]):
                size = abs(one[k])
                least = min(least, np.float64(size))
                if usable < 4 or np.float64(size) != largest:
                    work[n] = size
                    n += 1
        if n == 0:
            return found
        middle = least if usable == 2 else _median(work, n)
        sigma = np.sqrt(middle + variance)
        threshold = thresholds[min(usable, 4) - 2]
        worst = 0.0
        for k in range(one.size):
            if not is_jump[k] and not np.isnan(one[k]):
                worst = max(worst, abs(abs(np.float64(one[k])) - middle))
        if not (sigma > 0 and worst / sigma > threshold):
            return found
        for k in range(one.size):
            if not is_jump[k] and abs(abs(np.float64(one[k])) - middle) == worst:
                is_jump[k] = True
                found += 1


@kernel
def _clip_integrations(one, work, nints, threshold, is_jump):
    ndiffs = one.size // nints
    found = 0
    for d in range(ndiffs):
        low, high = -np.inf, np.inf
        before = -1
        for _ in range(_CLIP_ROUNDS):
            n = 0
            total = 0.0
            for i in range(nints):
                value = one[i * ndiffs + d]
                if low <= value <= high:
                    work[n] = value
                    total += value
                    n += 1
            if n == 0 or n == before:
                break
            before = n
            mean = total / n
            square = 0.0
            for k in range(n):
                square += (work[k] - mean) ** 2
            middle, sigma = _median(work, n), np.sqrt(square / n)
            low, high = middle - threshold * sigma, middle + threshold * sigma
        for i in range(nints):
            k = i * ndiffs + d
            if one[k] < low or one[k] > high:
                is_jump[k] = True
                found += 1
    return found


@kernel
def _flag_neighbours(groupdq, flagged, y, x):
    ny, nx = groupdq.shape
    for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
        if 0 <= v < ny and 0 <= u < nx and groupdq[v, u] & _UNUSABLE == 0:
            flagged[v, u] |= _JUMP


@kernel
def _flag_aftermath(data, groupdq, gain, before, height, ngroups_after, flagged):
    nints, ngroups, ny, nx = data.shape
    one, work = np.empty(nints * (ngroups - 1), np.float32), np.empty(nints * (ngroups - 1), np.float32)
    for y in range(ny):
        for x in range(nx):
            hit = False
            for i in range(nints):
                for g in range(1, ngroups):
                    hit |= before[i, g, y, x] & _JUMP != 0
            if not hit:
                continue
            for i in range(nints):
                for g in range(1, ngroups):
                    spoiled = (groupdq[i, g, y, x] | groupdq[i, g - 1, y, x]) & _UNUSABLE != 0
                    rise = data[i, g, y, x] * gain[y, x] - data[i, g - 1, y, x] * gain[y, x]
                    one[i * (ngroups - 1) + g - 1] = np.float32(np.nan) if spoiled else rise
            middle = _signed_median(one, work)
            for i in range(nints):
                for g in range(1, ngroups):
                    is_high = np.float64(one[i * (ngroups - 1) + g - 1]) - middle >= height
                    if is_high and before[i, g, y, x] & _JUMP:
                        for after in range(g + 1, min(ngroups, g + ngroups_after + 1)):
                            if groupdq[i, after, y, x] & _UNUSABLE == 0:
                                flagged[i, after, y, x] |= _JUMP
