"""Cosmic rays in ramps: a difference of successive groups that stands out among those of its pixel.

The differences of a steady ramp scatter with ``sigma^2 = |m| + readnoise^2 / nframes`` [e-^2], ``m`` their median. With few
differences the largest one is tested, thrown out when it fails, and the median taken again (the largest value left out of
it), until none fails. With many differences the median holds by itself and all are tested at once. With very many
integrations, the same difference in all of them is sigma-clipped instead. Source: Anderson & Gordon 2011, PASP 123, 1237;
JWST pipeline documentation, "jump".

Few pixels are ever hit, and the extremes, the mean and the scatter of the differences of a pixel bound how far any can be
from the median: the kernel looks at these first, and takes medians only where a hit is possible. The result is exactly
that of taking them everywhere. It works in strips of rows; a strip finds the hits of the rows next to it too, for their
neighbours.
"""

from dataclasses import dataclass

import numpy as np

from calibration import dq
from calibration.jit import kernel
from calibration.medians import median_of, sort_first
from calibration.strips import map_rows, rows_of, zeros

_JUMP = dq.GROUP["JUMP_DET"]
_DO_NOT_USE = dq.GROUP["DO_NOT_USE"]
_UNUSABLE = dq.GROUP["SATURATED"] | dq.GROUP["DO_NOT_USE"]

#: Differences that one block of pixels may hold, so that they stay in the cache.
_BLOCK = 2**16
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
    same_group_only : bool
        Whether a difference is clipped among the same one of all integrations; else among all differences, from
        ``sigma_clip_integrations`` groups in the exposure on.
    fewest_groups : int
        With fewer usable groups there are no jumps, but by clipping.
    flag_neighbours : bool
        Whether the four neighbours of a jump between ``smallest`` and ``largest`` [sigma] are flagged too.
    """

    threshold: float = 4.0
    four_group_threshold: float = 5.0
    three_group_threshold: float = 6.0
    single_pass_differences: int = 10
    sigma_clip_integrations: int = 100
    same_group_only: bool = True
    fewest_groups: int = 3
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
    nints, ngroups, ny, _ = data.shape
    lost = find_lost_groups(groupdq)
    usable = ngroups - int(lost.sum(axis=1).max(initial=0))
    clipped = nints if detection.same_group_only else int(np.count_nonzero(~lost))
    clip = clipped >= detection.sigma_clip_integrations
    search = usable >= detection.fewest_groups or clip
    mode = 2 if clip else 1 if usable - 1 >= detection.single_pass_differences else 0
    sets = nints if detection.same_group_only else nints * (ngroups - 1)
    thresholds = np.array([detection.three_group_threshold, detection.four_group_threshold, detection.threshold])
    neighbours = (detection.smallest, detection.largest) if detection.flag_neighbours else (np.inf, np.inf)
    heights = np.array([after.height for after in aftermaths if after.ngroups > 0])
    spoiled = np.array([after.ngroups for after in aftermaths if after.ngroups > 0], np.int64)
    flagged = zeros(groupdq, groupdq.shape, np.uint8)

    def work(rows: slice) -> int:
        with_next = slice(max(rows.start - 1, 0), min(rows.stop + 1, ny))
        (signal, first), (flags, _) = rows_of(data, with_next), rows_of(groupdq, with_next)
        out, first_out = rows_of(flagged, rows)
        out[:, :, rows.start - first_out : rows.stop - first_out] = flags[:, :, rows.start - first : rows.stop - first]
        hits = 0
        if search:
            hits = _find(
                rows.start, rows.stop, signal, flags, first, gain, readnoise, float(nframes), mode, sets, thresholds,
                *neighbours, out, first_out,
            )  # fmt: skip
            if heights.size:
                _flag_aftermath(
                    rows.start, rows.stop, signal, flags, first, gain, heights, spoiled, out, first_out
                )  # fmt: skip
        if out is not flagged:
            flagged[..., rows, :] = out
        return hits

    return flagged, int(sum(map_rows(work, data)))


def find_lost_groups(groupdq: np.ndarray) -> np.ndarray:
    """Groups that no pixel uses, (nints, ngroups) bool.

    Parameters
    ----------
    groupdq : (nints, ngroups, ny, nx) uint8
    """

    def work(rows: slice) -> np.ndarray:
        flags, first = rows_of(groupdq, rows)
        return _find_lost_groups(flags, rows.start - first, rows.stop - first)

    return np.logical_and.reduce(map_rows(work, groupdq))


def count_usable_differences(groupdq: np.ndarray) -> int:
    """How many differences of groups an exposure has, without the groups that no pixel uses.

    Parameters
    ----------
    groupdq : (nints, ngroups, ny, nx) uint8
    """
    nints, ngroups = groupdq.shape[:2]
    return nints * (ngroups - 1) - int(np.count_nonzero(find_lost_groups(groupdq)))


@kernel
def _find_lost_groups(groupdq, start, stop):
    nints, ngroups, _, nx = groupdq.shape
    lost = np.ones((nints, ngroups), np.bool_)
    for i in range(nints):
        for g in range(ngroups):
            for y in range(start, stop):
                for x in range(nx):
                    if groupdq[i, g, y, x] & _DO_NOT_USE == 0:
                        lost[i, g] = False
                        break
                if not lost[i, g]:
                    break
    return lost


# i = integration, g = group, k = difference of all integrations, y = row of the detector, x = column
@kernel
def _find(
    start_row, stop_row, data, groupdq, first, gain, readnoise, nframes, mode, sets, thresholds, smallest, largest,
    flagged, first_out,
):  # fmt: skip
    nints, ngroups, ny, nx = data.shape
    ndiffs = nints * (ngroups - 1)
    width = min(nx, max(64, _BLOCK // ndiffs))
    differences = np.empty((ndiffs, width), np.float32)
    previous = np.empty(width, np.float32)
    lowest, highest = np.empty(width, np.float32), np.empty(width, np.float32)
    factor, variance, possible = np.empty(width, np.float32), np.empty(width), np.empty(width, np.bool_)
    count, total, square = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    one, work = np.empty(ndiffs, np.float32), np.empty(ndiffs, np.float32)
    is_jump = np.empty(ndiffs, np.bool_)
    lenient = 0.9999 * (min(thresholds[0], thresholds[1], thresholds[2]) if mode == 0 else thresholds[2])
    not_a_number = np.float32(np.nan)
    hits = 0
    for y in range(first, first + ny):
        own = start_row <= y < stop_row
        for start in range(0, nx, width):
            stop = min(nx, start + width)
            n = stop - start
            for x in range(n):
                gain_here = gain[y, start + x]
                factor[x] = gain_here if gain_here > 0 else not_a_number
                noise = np.float64(readnoise[y, start + x] * gain_here)
                variance[x] = noise * noise / nframes
            lowest[:] = np.inf
            highest[:] = -np.inf
            for i in range(nints):
                for g in range(ngroups):
                    signal, flags = data[i, g, y - first, start:stop], groupdq[i, g, y - first, start:stop]
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
            _find_possible(differences, n, lowest, highest, variance, mode, lenient, count, total, square, possible)
            for x in range(n):
                if not possible[x]:
                    continue
                for k in range(ndiffs):
                    one[k] = differences[k, x]
                    is_jump[k] = False
                if mode == 0:
                    found = _test_largest(one, work, variance[x], thresholds, is_jump)
                elif mode == 1:
                    found = _test_all(one, work, variance[x], thresholds[2], is_jump)
                else:
                    found = _clip_integrations(one, work, sets, thresholds[2], is_jump)
                if found == 0:
                    continue
                hits += found if own else 0
                middle = _signed_median(one, work)
                sigma = np.sqrt(abs(middle) + variance[x])
                for k in range(ndiffs):
                    if is_jump[k]:
                        i, g = k // (ngroups - 1), k % (ngroups - 1) + 1
                        if own:
                            flagged[i, g, y - first_out, start + x] |= _JUMP
                        if smallest * sigma < abs(np.float64(one[k]) - middle) < largest * sigma:
                            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                                inside = start_row <= v < stop_row and 0 <= start + u < nx
                                if inside and groupdq[i, g, v - first, start + u] & _UNUSABLE == 0:
                                    flagged[i, g, v - first_out, start + u] |= _JUMP
    return hits


@kernel
def _find_possible(differences, width, lowest, highest, variance, mode, threshold, count, total, square, possible):
    """Whether any difference may be that far from the median: it is within a standard deviation of the mean.

    The largest difference takes no part in mode 0, as in ``_test_largest``. Sums are those of what is above ``lowest``.
    """
    count[:] = 0
    total[:] = 0
    square[:] = 0
    for k in range(differences.shape[0]):
        row = differences[k]
        for x in range(width):
            value = abs(row[x]) if mode == 0 else row[x]
            takes_part = value < highest[x] if mode == 0 else value <= highest[x]
            above = value - lowest[x] if takes_part else np.float32(0)
            count[x] += np.float32(1) if takes_part else np.float32(0)
            total[x] += above
            square[x] += above * above
    for x in range(width):
        low, high, n = np.float64(lowest[x]), np.float64(highest[x]), max(np.float64(count[x]), 1.0)
        above = total[x] / n
        # Widened by what float32 may have lost.
        deviation = 1.001 * np.sqrt(max(square[x] / n - above * above, 0.0)) + 1e-5 * (abs(low) + abs(high))
        least, most = low + above - deviation, low + above + deviation
        reach = max(high - least, most - low)
        sigma = np.sqrt(max(0.0, least, -most) + variance[x])
        # A comparison with NaN, from an infinite sample, rules nothing out.
        possible[x] = mode == 2 or (high > low and (n < 4 or not reach <= threshold * sigma))


@kernel
def _signed_median(one, work):
    n = 0
    for k in range(one.size):
        if not np.isnan(one[k]):
            work[n] = one[k]
            n += 1
    return median_of(work, n) if n > 0 else np.nan


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
    # What is left is a stretch of the ordered sizes: each round takes one from an end, and all that are as large.
    n = 0
    for k in range(one.size):
        if not np.isnan(one[k]):
            work[n] = abs(one[k])
            n += 1
    sort_first(work, n)
    start, stop = 0, n
    while stop - start >= 2:
        usable = stop - start
        last = stop
        while usable >= 4 and last > start and work[last - 1] == work[stop - 1]:
            last -= 1
        if last == start:
            break
        lower, upper = np.float64(work[(start + last - 1) // 2]), np.float64(work[(start + last) // 2])
        middle = np.float64(work[start]) if usable == 2 else 0.5 * (lower + upper)
        above, below = np.float64(work[stop - 1]) - middle, middle - np.float64(work[start])
        sigma = np.sqrt(middle + variance)
        if not (sigma > 0 and max(above, below) / sigma > thresholds[min(usable, 4) - 2]):
            break
        largest, smallest = work[stop - 1], work[start]
        while above >= below and stop > start and work[stop - 1] == largest:
            stop -= 1
        while below >= above and start < stop and work[start] == smallest:
            start += 1
    for k in range(one.size):
        size = abs(one[k])
        is_jump[k] = stop == start or size > work[stop - 1] or size < work[start]
        is_jump[k] &= not np.isnan(size)
    return n - (stop - start)


@kernel
def _clip_integrations(one, work, nints, threshold, is_jump):
    """Each of the ``one.size / nints`` differences of an integration, clipped over ``nints`` of them."""
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
            middle, sigma = median_of(work, n), np.sqrt(square / n)
            low, high = middle - threshold * sigma, middle + threshold * sigma
        for i in range(nints):
            k = i * ndiffs + d
            if one[k] < low or one[k] > high:
                is_jump[k] = True
                found += 1
    return found


@kernel
def _flag_aftermath(
    start_row, stop_row, data, groupdq, first, gain, heights, ngroups_after, flagged, first_out
):  # fmt: skip
    nints, ngroups, _, nx = data.shape
    one, work = np.empty(nints * (ngroups - 1), np.float32), np.empty(nints * (ngroups - 1), np.float32)
    is_jump = np.empty(nints * (ngroups - 1), np.bool_)
    for y in range(start_row, stop_row):
        for x in range(nx):
            hit = False
            for i in range(nints):
                for g in range(1, ngroups):
                    is_jump[i * (ngroups - 1) + g - 1] = flagged[i, g, y - first_out, x] & _JUMP != 0
                    hit |= flagged[i, g, y - first_out, x] & _JUMP != 0
            if not (hit and gain[y, x] > 0):
                continue
            for i in range(nints):
                for g in range(1, ngroups):
                    spoiled = (groupdq[i, g, y - first, x] | groupdq[i, g - 1, y - first, x]) & _UNUSABLE != 0
                    rise = data[i, g, y - first, x] * gain[y, x] - data[i, g - 1, y - first, x] * gain[y, x]
                    one[i * (ngroups - 1) + g - 1] = np.float32(np.nan) if spoiled else rise
            middle = _signed_median(one, work)
            for i in range(nints):
                for g in range(1, ngroups):
                    k = i * (ngroups - 1) + g - 1
                    for n in range(heights.size):
                        if is_jump[k] and np.float64(one[k]) - middle >= heights[n]:
                            for after in range(g + 1, min(ngroups, g + ngroups_after[n] + 1)):
                                if groupdq[i, after, y - first, x] & _UNUSABLE == 0:
                                    flagged[i, after, y - first_out, x] |= _JUMP
