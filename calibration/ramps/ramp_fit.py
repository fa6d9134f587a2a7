"""Count rates from ramps: a straight line through each stretch without jumps, and the mean of the stretches.

A jump ends one segment and begins the next. Each segment of three groups or more is fitted by least squares with the
weights ``|(g - m) / m|^p``, ``m`` the middle of the segment, whose power ``p`` grows with the signal-to-noise ratio: equal
weights when read noise rules, the ends only when photon noise does (Fixsen et al. 2000, PASP 112, 1350). The slopes of all
segments, then of all integrations, are averaged by the inverse of their read noise variance.

Variances of a segment of ``n`` groups (Robberto 2010, JWST-STScI-002128; JWST pipeline documentation, "ramp_fitting"):

* read noise: ``12 R^2 / (t^2 (n^3 - n))``, ``R`` the read noise of one group [DN];
* Poisson: ``rate / (gain t (n - 1))``, with the median of the pixel's differences for the rate, since an estimate from the
  segment itself would correlate with its slope and bias the mean. The average dark current, which was subtracted but left
  its noise, is added to it. That the official pipeline (version 3.0.0) adds e-/s to DN/s there is kept, for equal ERR.

Groups that charge migration spoiled are not fitted, but the read noise variance counts them, so that the weight of a pixel
in a mosaic does not depend on where its star is in it.

A stretch of a row of pixels goes through all groups together, and each sample is read once. Medians are taken by a sorting
network over the whole stretch, and pixels without flags share one table of fit coefficients; the others are fitted one by
one. Rows do not know each other: strips of them run in threads, and those of a large exposure come from disk.
"""

from dataclasses import dataclass, fields

import numpy as np

from calibration import dq
from calibration.jit import kernel
from calibration.ramps.jump import find_lost_groups
from calibration.strips import map_rows, rows_of, zeros

_SATURATED = dq.GROUP["SATURATED"]
_DO_NOT_USE = dq.GROUP["DO_NOT_USE"]
_JUMP = dq.GROUP["JUMP_DET"]
_PERSISTENCE = dq.GROUP["PERSISTENCE"]
_CHARGELOSS = dq.GROUP["CHARGELOSS"]
_P_SATURATED = dq.PIXEL["SATURATED"]
_P_DO_NOT_USE = dq.PIXEL["DO_NOT_USE"]
_P_JUMP = dq.PIXEL["JUMP_DET"]
_P_PERSISTENCE = dq.PIXEL["PERSISTENCE"]
_P_NO_GAIN = dq.PIXEL["NO_GAIN_VALUE"]

#: Pixels of a row that are fitted together: their groups stay in the nearest cache.
_WIDTH = 512

#: A variance from here on says that nothing was measured [(DN/s)^2].
LARGEST_VARIANCE = 1.0e6

#: Power of the weights from this signal-to-noise ratio on.
_STEPS = np.array([5.0, 10.0, 20.0, 50.0, 100.0])
_POWERS = np.array([0.0, 0.4, 1.0, 3.0, 6.0, 10.0])


@dataclass(frozen=True)
class Timing:
    """Times of a ramp: of a frame and of a group [s] (TFRAME, TGROUP), and the frames averaged per group (NFRAMES)."""

    frame: float
    group: float
    nframes: int

    @property
    def first_group(self) -> float:
        """Mean time of the frames of the first group since the reset [s]."""
        return 0.5 * (self.nframes + 1) * self.frame


@dataclass(frozen=True)
class Rates:
    """Count rates of one exposure, (ny, nx), or of its integrations, (nints, ny, nx).

    ``data`` and ``err`` [DN/s], ``var_poisson`` and ``var_rnoise`` [(DN/s)^2], float32; ``dq`` uint32. Where ``dq`` has
    ``DO_NOT_USE``, ``data`` is NaN and the rest 0.
    """

    data: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    var_poisson: np.ndarray
    var_rnoise: np.ndarray


def fit_ramps(
    data: np.ndarray,
    groupdq: np.ndarray,
    pixeldq: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    timing: Timing,
    dark_current: np.ndarray | None = None,
    zeroframe: np.ndarray | None = None,
    suppress_one_group: bool = True,
    drop_unused: bool = False,
    typical_rate: np.ndarray | None = None,
) -> tuple[Rates, Rates | None]:
    """Count rates of the exposure, and of each integration where there are several.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN], linear. A sample that is not finite is not used.
    groupdq : (nints, ngroups, ny, nx) uint8
    pixeldq : (ny, nx) uint32
    gain : (ny, nx) float32
        [e-/DN]; a pixel where it is not above 0 and finite has no rate, and ``NO_GAIN_VALUE | DO_NOT_USE``.
    readnoise : (ny, nx) float32
        Noise of the difference of two single reads [DN]; a pixel where it is not above 0 and finite has no rate, and
        ``DO_NOT_USE``. (The official pipeline leaves a NaN there that looks good.)
    timing : Timing
    dark_current : (ny, nx) float32 or None
        Average dark current [e-/s].
    zeroframe : (nints, ny, nx) float32 or None
        First frames [DN], 0 where unusable; used where a ramp has no good group and ``suppress_one_group`` is off.
    suppress_one_group : bool
        Whether a ramp of more than one group with only one good group has no rate.
    drop_unused : bool
        Whether groups that no pixel uses, at the start and the last one, are left out with their flags (MIRI). At least
        one group is kept.
    typical_rate : (ny, nx) float32 or None
        To be filled with the rate that the Poisson variance is of [DN/s].

    Returns
    -------
    rate : Rates
        (ny, nx)
    rateints : Rates or None
        (nints, ny, nx); None for a single integration, which is the exposure.
    """
    check_ramps(data, groupdq, pixeldq, gain, readnoise, timing, dark_current)
    gain, readnoise, pixeldq = _exclude_unknown_noise(gain, readnoise, pixeldq)
    nints, _, ny, nx = data.shape
    start, stop = used_groups(groupdq) if drop_unused else (0, data.shape[1])
    ngroups = stop - start
    rate = empty_rates(gain, (ny, nx))
    rateints = empty_rates(data, (nints, ny, nx)) if nints > 1 else None
    dark = np.zeros((0, 0), np.float32) if dark_current is None else dark_current.astype(np.float32, copy=False)
    coefficients = _coefficients(ngroups)

    def work(rows: slice) -> None:
        (signal, first), (flags, _) = rows_of(data, rows), rows_of(groupdq, rows)
        nothing = np.zeros((0, 0, 0), np.float32)
        frames, first_frame = (nothing, 0) if zeroframe is None else rows_of(zeroframe, rows)
        ints, first_int = (
            rates_of_rows(rateints, rows) if rateints is not None else (empty_rates(nothing, (0, 0, 0)), 0)
        )
        _fit(
            rows.start, rows.stop, start, ngroups, signal, flags, first, pixeldq, gain, readnoise, dark,
            frames, first_frame, timing.frame, timing.group, timing.first_group, 1 / np.sqrt(2.0 * timing.nframes),
            suppress_one_group and ngroups > 1, coefficients,
            rate.data, rate.err, rate.dq, rate.var_poisson, rate.var_rnoise,
            ints.data, ints.err, ints.dq, ints.var_poisson, ints.var_rnoise, first_int,
            np.zeros((0, 0), np.float32) if typical_rate is None else typical_rate,
        )  # fmt: skip
        if rateints is not None and ints is not rateints:
            for plane in fields(Rates):
                getattr(rateints, plane.name)[..., rows, :] = getattr(ints, plane.name)

    map_rows(work, data)
    return rate, rateints


def check_ramps(
    data: np.ndarray,
    groupdq: np.ndarray,
    pixeldq: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    timing: Timing,
    dark_current: np.ndarray | None,
) -> None:
    """See that the arrays of an exposure and its references fit each other, and that there is something to fit.

    Raises
    ------
    ValueError
        If not.
    """
    for name, array in (("pixeldq", pixeldq), ("gain", gain), ("readnoise", readnoise), ("dark_current", dark_current)):
        if array is not None and array.shape != data.shape[-2:]:
            raise ValueError(
                f"{name} must cover the detector area of data, {data.shape[-2:]}, but has the shape {array.shape}; "
                "cut the reference to the subarray first"
            )
    if groupdq.shape != data.shape:
        raise ValueError(f"groupdq must have the shape of data, {data.shape}, but has {groupdq.shape}")
    if 0 in data.shape:
        raise ValueError(f"the exposure has no ramps: data has the shape {data.shape}; fetch it again from the archive")
    if not (timing.frame > 0 and timing.group > 0 and timing.nframes > 0):
        raise ValueError(f"frame time, group time and frames per group must be above 0, but are {timing}")


def _exclude_unknown_noise(
    gain: np.ndarray, readnoise: np.ndarray, pixeldq: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An infinite gain as 0; a noise that cannot be as 1, with ``DO_NOT_USE``."""
    unknown = ~((readnoise > 0) & (readnoise < np.inf))
    if unknown.any():
        readnoise = np.where(unknown, np.float32(1), readnoise)
        pixeldq = np.where(unknown, pixeldq | _P_DO_NOT_USE, pixeldq)
    if np.isposinf(gain).any():
        gain = np.where(np.isposinf(gain), np.float32(0), gain)
    return gain, readnoise, pixeldq


def used_groups(groupdq: np.ndarray) -> tuple[int, int]:
    """First and end of the groups that a pixel uses; at least one."""
    lost = find_lost_groups(groupdq)
    unused = [bool(lost[:, g].all()) for g in range(lost.shape[1])]
    start = unused[:-1].index(False) if False in unused[:-1] else len(unused) - 1
    stop = len(unused) - 1 if unused[-1] and len(unused) - start > 1 else len(unused)
    return start, stop


def empty_rates(like: np.ndarray, shape: tuple[int, ...]) -> Rates:
    """Rates of zeros, in memory or on disk as ``like`` is."""
    data, err, var_poisson, var_rnoise = (zeros(like, shape, np.float32) for _ in range(4))
    return Rates(data, err, zeros(like, shape, np.uint32), var_poisson, var_rnoise)


def rates_of_rows(rates: Rates, rows: slice) -> tuple[Rates, int]:
    """Rates to write some rows of, and the number of their first row: in memory these themselves, for the disk new ones."""
    if isinstance(rates.data, np.ndarray):
        return rates, 0
    nints, _, nx = rates.data.shape
    return empty_rates(np.zeros(0), (nints, rows.stop - rows.start, nx)), rows.start


def _coefficients(ngroups: int) -> np.ndarray:
    """By power of the weights, what each group of a ramp without flags contributes to its slope [1 / group]."""
    coefficients = np.zeros((_POWERS.size, ngroups))
    if ngroups > 2:
        x = np.arange(ngroups) - 0.5 * (ngroups - 1)
        for k, power in enumerate(_POWERS):
            weight = np.abs(x / (0.5 * (ngroups - 1))) ** power
            coefficients[k] = weight * x / np.sum(weight * x * x)
    return coefficients


@kernel
def power_step(rise, gain, noise):
    """Which power of the weights suits a segment that rises by this much [DN]; ``noise`` [e-] is of one group."""
    variance = noise * noise + rise * gain
    ratio = rise * gain / np.sqrt(variance) if variance > 0 else 0.0
    step = 0
    for limit in _STEPS:
        step += ratio >= limit
    return step


@kernel
def weight_of(distance, step):
    """``distance`` to the power of this step."""
    if step == 0:
        return 1.0
    if step == 1:
        return distance**0.4
    if step == 2:
        return distance
    cube = distance * distance * distance
    if step == 3:
        return cube
    if step == 4:
        return cube * cube
    return cube * cube * cube * distance


@kernel
def _segment_slope(ramp, start, stop, gain, noise):
    """Weighted least squares slope of groups ``start`` to ``stop - 1`` of one ramp (ngroups, 1) [DN / group]."""
    step = power_step(np.float64(ramp[stop - 1, 0]) - np.float64(ramp[start, 0]), gain, noise)
    middle = 0.5 * (stop - 1 - start)
    above, below = 0.0, 0.0
    for g in range(start, stop):
        lever = g - start - middle
        product = weight_of(abs(lever) / middle, step) * lever
        above += product * ramp[g, 0]
        below += product * lever
    return above / below


@kernel
def _sort_rows(rows, n, width):
    """Sort each column of the first ``n`` rows: merge exchange (Knuth, Sorting and Searching, algorithm 5.2.2 M)."""
    if n < 2:
        return
    half = 1
    while 2 * half < n:
        half *= 2
    p = half
    while p > 0:
        q, r, d = half, 0, p
        while True:
            for k in range(n - d):
                if k & p == r:
                    upper, lower = rows[k], rows[k + d]
                    for x in range(width):
                        a, b = upper[x], lower[x]
                        upper[x] = b if b < a else a
                        lower[x] = a if b < a else b
            if q == p:
                break
            d = q - p
            q //= 2
            r = p
        p //= 2


# i = integration, g = group, k = difference, y = row of the detector, x = column
@kernel
def _fit(
    start_row, stop_row, skipped, ngroups, data, groupdq, first, pixeldq, gain, readnoise, dark, zeroframe, first_frame,
    frame_time, group_time, first_time, group_noise, suppress, coefficients,
    data_out, err_out, dq_out, poisson_out, rnoise_out,
    idata_out, ierr_out, idq_out, ipoisson_out, irnoise_out, first_int, typical_out,
):  # fmt: skip
    nints, _, _, nx = data.shape
    width = min(nx, _WIDTH)
    several = idata_out.shape[0] > 0
    has_dark = dark.shape[0] > 0
    ramp, flags = np.empty((ngroups, width), np.float32), np.empty((ngroups, width), np.uint8)
    differences = np.empty((max(1, ngroups - 1), width), np.float32)
    together, slope = np.empty((nints, width), np.uint8), np.zeros((nints, width))
    one_ramp, one_flags = np.empty((ngroups, 1), np.float32), np.empty((ngroups, 1), np.uint8)
    median, noise, rnoise, poisson = np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    step, table = np.empty(width, np.int64), coefficients.T.copy()
    sum_slope, sum_rnoise, sum_poisson = np.empty(width), np.empty(width), np.empty(width)
    ints_lost, ints_full, ever_full = np.empty(width, np.int32), np.empty(width, np.int32), np.empty(width, np.bool_)
    has_loss, sum_with_loss = np.empty(width, np.bool_), np.empty(width)
    # Of the ramps without any flag: how many integrations, the sum of slopes, the inverse variances of one.
    whole, sum_whole, of_noise, of_photons = np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    lost = np.empty(width, np.bool_)
    noise_scale = 12.0 * (group_noise / group_time) ** 2 / (np.float64(ngroups) ** 3 - ngroups)
    for y in range(start_row, stop_row):
        for left in range(0, nx, width):
            n = min(width, nx - left)
            here = slice(left, left + n)
            factor, flag, noise_row = gain[y, here], pixeldq[y, here], readnoise[y, here]
            for x in range(n):
                noise[x] = np.float64(noise_row[x]) * np.float64(factor[x]) * group_noise
                median[x] = sum_slope[x] = sum_rnoise[x] = sum_poisson[x] = sum_with_loss[x] = 0.0
                whole[x] = sum_whole[x] = 0.0
                ints_lost[x] = ints_full[x] = 0
                ever_full[x] = has_loss[x] = False
                dq_out[y, left + x] = flag[x] if factor[x] > 0 else flag[x] | _P_NO_GAIN | _P_DO_NOT_USE
            flag = dq_out[y, here].copy()

            # The median rate of each pixel, for the Poisson variance: the mean over integrations.
            for i in range(nints):
                _load(data, groupdq, i, y - first, skipped, left, n, ramp, flags, together[i])
                if ngroups > 2:
                    _fit_whole(ramp, factor, noise, table, step, slope[i], n)
                _find_differences(ramp, flags, n, differences)
                _sort_rows(differences, ngroups - 1, n)
                low, high = differences[max(ngroups - 2, 0) // 2], differences[(ngroups - 1) // 2]
                for x in range(n):
                    both = np.float64(low[x]) + np.float64(high[x])
                    median[x] += 0.5 * both / group_time if together[i, x] == 0 and ngroups > 2 else 0.0
                for x in range(n):
                    if together[i, x] != 0 or ngroups <= 2:
                        frame = _frame_of(zeroframe, i, y - first_frame, left + x)
                        median[x] += _typical_rate(
                            ramp, flags, differences, x, frame, suppress, frame_time, group_time, first_time
                        )
            for x in range(n):
                current = np.float64(dark[y, left + x]) if has_dark else 0.0
                median[x] = max(median[x] / nints, 0.0) + current
                if typical_out.shape[0] > 0:
                    typical_out[y, left + x] = median[x]
                usable = factor[x] > 0
                rnoise[x] = np.float64(noise_row[x]) ** 2 * noise_scale
                inverse = np.float64(factor[x]) * group_time * (ngroups - 1) / median[x]
                of_noise[x] = 1.0 / rnoise[x] if usable else 0.0
                of_photons[x] = inverse if usable and median[x] > 0 else 0.0
                poisson[x] = 1.0 / inverse if several else 0.0
                lost[x] = not usable or flag[x] & _P_DO_NOT_USE != 0

            for i in range(nints):
                # Ramps without any flag: all alike.
                for x in range(n):
                    plain = together[i, x] == 0 and ngroups > 2
                    whole[x] += 1.0 if plain else 0.0
                    sum_whole[x] += slope[i, x] if plain else 0.0
                if several:
                    v = y - first_int
                    idata, ierr, ipoisson, irnoise = (
                        idata_out[i, v, here], ierr_out[i, v, here], ipoisson_out[i, v, here], irnoise_out[i, v, here]
                    )  # fmt: skip
                    for x in range(n):
                        # pixeldq itself may say that the pixel is saturated.
                        nothing = lost[x] or flag[x] & _P_SATURATED != 0
                        total = rnoise[x] + poisson[x]
                        idata[x] = np.nan if nothing else slope[i, x] / group_time
                        ierr[x] = np.sqrt(total) if not nothing and total <= LARGEST_VARIANCE else 0.0
                        ipoisson[x] = poisson[x] if not nothing and poisson[x] < LARGEST_VARIANCE else 0.0
                        irnoise[x] = rnoise[x] if not nothing and rnoise[x] < LARGEST_VARIANCE else 0.0
                        idq_out[i, v, left + x] = flag[x]
                for x in range(n):
                    if together[i, x] == 0 and ngroups > 2:
                        continue
                    for g in range(ngroups):
                        signal, mark = (
                            data[i, skipped + g, y - first, left + x],
                            groupdq[i, skipped + g, y - first, left + x],
                        )
                        finite = abs(signal) < np.inf
                        one_ramp[g, 0] = signal if finite else np.float32(0)
                        one_flags[g, 0] = mark if finite else mark | _DO_NOT_USE
                    if skipped > 0:
                        one_flags[0, 0] &= ~_JUMP
                    frame = _frame_of(zeroframe, i, y - first_frame, left + x)
                    gain_here = np.float64(factor[x])
                    good, unflagged, saturated, unusable = count_groups(one_flags)
                    if suppress and good == 1:
                        unusable = ngroups
                    only_first = not suppress and unflagged == 1 and one_flags[0, 0] == 0
                    by_zeroframe = not suppress and unflagged == 0 and frame != 0
                    if by_zeroframe:
                        one_ramp[0, 0] = frame
                        one_flags[0, 0] = 0
                        unusable -= 1
                        if saturated == ngroups:
                            saturated -= 1
                    marks = flag[x]
                    if together[i, x] & _JUMP:
                        marks |= _P_JUMP
                    if together[i, x] & _PERSISTENCE:
                        marks |= _P_PERSISTENCE
                    dq_out[y, left + x] |= marks
                    inverse_rnoise, inverse_poisson, inverse_total, weighted = 0.0, 0.0, 0.0, 0.0
                    nothing, full = False, False
                    if one_flags[0, 0] & _SATURATED != 0:
                        nothing = full = True
                    elif unusable >= ngroups or not gain_here > 0:
                        nothing, full = True, saturated == ngroups
                    else:
                        one_time = first_time if only_first else frame_time if by_zeroframe else group_time
                        inverse_rnoise, inverse_poisson, inverse_total, weighted = _fit_segments(
                            one_ramp, one_flags, gain_here, noise[x], median[x], group_time, one_time
                        )
                        # No group was left that a line could go through.
                        nothing = inverse_rnoise == 0.0
                    ever_full[x] |= saturated > 0
                    if saturated > 0:
                        marks |= _P_SATURATED
                    nothing |= flag[x] & _P_DO_NOT_USE != 0
                    if nothing:
                        marks |= _P_DO_NOT_USE
                        ints_lost[x] += 1
                    if full:
                        marks |= _P_SATURATED
                        ints_full[x] += 1
                    with_loss = inverse_rnoise
                    if together[i, x] & _CHARGELOSS != 0 and gain_here > 0:
                        has_loss[x] = True
                        for g in range(ngroups):
                            if one_flags[g, 0] & _CHARGELOSS != 0:
                                one_flags[g, 0] ^= _CHARGELOSS | _DO_NOT_USE
                        with_loss = _fit_segments(
                            one_ramp, one_flags, gain_here, noise[x], median[x], group_time, group_time
                        )[0]
                        sum_with_loss[x] += with_loss
                    elif not nothing:
                        sum_with_loss[x] += inverse_rnoise
                    sum_slope[x] += weighted
                    sum_rnoise[x] += inverse_rnoise
                    sum_poisson[x] += inverse_poisson
                    if several:
                        v, u = y - first_int, left + x
                        nothing |= flag[x] & _P_SATURATED != 0
                        total = 1.0 / inverse_total if inverse_total > 0 else np.inf
                        photons = 1.0 / inverse_poisson if inverse_poisson > 0 else 0.0
                        read = 1.0 / with_loss if with_loss > 0 else np.inf
                        idata_out[i, v, u] = np.nan if nothing else weighted / inverse_rnoise
                        ierr_out[i, v, u] = np.sqrt(total) if not nothing and total <= LARGEST_VARIANCE else 0.0
                        ipoisson_out[i, v, u] = photons if not nothing and photons < LARGEST_VARIANCE else 0.0
                        irnoise_out[i, v, u] = read if not nothing and read < LARGEST_VARIANCE else 0.0
                        idq_out[i, v, u] = marks
            for x in range(n):
                ints_lost[x] += np.int32(whole[x]) if lost[x] else 0
                mark = dq_out[y, left + x]
                mark |= _P_DO_NOT_USE if ints_lost[x] == nints else np.uint32(0)
                mark |= _P_SATURATED if ints_full[x] == nints else np.uint32(0)
                inverse_rnoise = sum_rnoise[x] + whole[x] * of_noise[x]
                inverse_poisson = sum_poisson[x] + whole[x] * of_photons[x]
                nothing = mark & (_P_DO_NOT_USE | _P_SATURATED) != 0 or inverse_rnoise == 0.0
                read = 1.0 / inverse_rnoise
                photons = 1.0 / inverse_poisson if inverse_poisson > 0 else 0.0
                value = (sum_slope[x] + sum_whole[x] * of_noise[x] / group_time) * read
                read = read if read < LARGEST_VARIANCE else 0.0
                photons = photons if photons < LARGEST_VARIANCE else 0.0
                err = np.sqrt(read + photons)
                data_out[y, left + x] = np.nan if nothing else value
                err_out[y, left + x] = 0.0 if nothing else err
                poisson_out[y, left + x] = 0.0 if nothing else photons
                rnoise_out[y, left + x] = 0.0 if nothing else read
                dq_out[y, left + x] = mark | (_P_SATURATED if ever_full[x] else np.uint32(0))
            for x in range(n):
                if has_loss[x] and not np.isnan(data_out[y, left + x]):
                    read = 1.0 / (sum_with_loss[x] + (0.0 if lost[x] else whole[x] * of_noise[x]))
                    rnoise_out[y, left + x] = read if read < LARGEST_VARIANCE else 0.0


@kernel
def _load(data, groupdq, i, y, skipped, left, n, ramp, flags, together):
    """A stretch of one row of one integration; a sample that is not finite is flagged, and 0 so that it can be added."""
    together[:n] = 0
    for g in range(ramp.shape[0]):
        signal, marks = data[i, skipped + g, y, left : left + n], groupdq[i, skipped + g, y, left : left + n]
        row, out = ramp[g], flags[g]
        # A jump since a group that is left out is none.
        kept = ~_JUMP if g == 0 and skipped > 0 else ~np.uint8(0)
        for x in range(n):
            finite = abs(signal[x]) < np.inf
            row[x] = signal[x] if finite else np.float32(0)
            mark = (marks[x] & kept) if finite else (marks[x] & kept) | _DO_NOT_USE
            out[x] = mark
            together[x] |= mark


@kernel
def _frame_of(zeroframe, i, y, x):
    """The first frame of a ramp [DN], 0 where there is none that can be used."""
    frame = np.float64(zeroframe[i, y, x]) if zeroframe.shape[0] > 0 else 0.0
    return frame if abs(frame) < np.inf else 0.0


@kernel
def _find_differences(ramp, flags, n, differences):
    """Differences of successive groups [DN], infinite where they cannot be used."""
    infinite = np.float32(np.inf)
    for g in range(ramp.shape[0] - 1):
        before, after, row, signal, following = flags[g], flags[g + 1], differences[g], ramp[g], ramp[g + 1]
        for x in range(n):
            spoiled = (before[x] | after[x]) & (_SATURATED | _DO_NOT_USE) | after[x] & _JUMP
            row[x] = infinite if spoiled != 0 else following[x] - signal[x]


@kernel
def _fit_whole(ramp, gain, noise, table, step, slope, n):
    """Slopes [DN / group] of all ramps as if none had a flag."""
    ngroups = ramp.shape[0]
    low, high = ramp[0], ramp[ngroups - 1]
    for x in range(n):
        step[x] = power_step(np.float64(high[x]) - np.float64(low[x]), np.float64(gain[x]), noise[x])
        slope[x] = 0.0
    # The coefficients of the two halves are opposite.
    for g in range((ngroups + 1) // 2, ngroups):
        low, high, factors = ramp[ngroups - 1 - g], ramp[g], table[g]
        for x in range(n):
            slope[x] += factors[step[x]] * (np.float64(high[x]) - np.float64(low[x]))


@kernel
def _typical_rate(ramp, flags, differences, x, zeroframe, suppress, frame_time, group_time, first_time):
    """Median rate [DN/s] of one ramp that has flags; ``differences`` are in order, those that cannot be used last."""
    ngroups = flags.shape[0]
    good, unflagged, _, _ = count_groups(flags[:, x : x + 1])
    first = np.float64(ramp[0, x])
    first_is_usable = flags[0, x] & (_SATURATED | _DO_NOT_USE) == 0
    if ngroups == 1:
        return first / first_time if first_is_usable else 0.0
    n = 0
    while n < ngroups - 1 and differences[n, x] < np.inf:
        n += 1
    if not suppress and unflagged == 1 and flags[0, x] == 0:
        return first / first_time
    if not suppress and unflagged == 0 and zeroframe != 0:
        return zeroframe / frame_time
    if suppress and good == 1:
        return 0.0
    if n > 0:
        return 0.5 * (np.float64(differences[(n - 1) // 2, x]) + np.float64(differences[n // 2, x])) / group_time
    return first / group_time if first_is_usable else 0.0


@kernel
def count_groups(flags):
    """Groups of one ramp that are good but for persistence; without any flag; saturated; saturated or not to be used."""
    good, unflagged, saturated, unusable = 0, 0, 0, 0
    for g in range(flags.shape[0]):
        mark = flags[g, 0]
        good += mark & ~_PERSISTENCE == 0
        unflagged += mark == 0
        saturated += mark & _SATURATED != 0
        unusable += mark & (_SATURATED | _DO_NOT_USE) != 0
    return good, unflagged, saturated, unusable


@kernel
def next_segment(flags, g):
    """Start and end of the next stretch of good groups of one ramp (ngroups, 1), from ``g`` on; empty where there is none."""
    ngroups = flags.shape[0]
    while g < ngroups and flags[g, 0] & ~_PERSISTENCE != 0:
        g += 1
    start = g
    while g < ngroups and flags[g, 0] & ~_PERSISTENCE == 0:
        g += 1
    # A group with a jump and nothing else begins the segment after the jump.
    if 0 < start < g and flags[start - 1, 0] & ~_PERSISTENCE == _JUMP:
        start -= 1
    return start, g


@kernel
def variances_of_segment(length, gain, noise, median, group_time):
    """Variance of the slope by photons of the rate ``median`` [DN/s], and by read noise ``noise`` [e-] [(DN/s)^2]."""
    levers = np.float64(length) ** 3 - length
    return median / (gain * group_time * (length - 1)), 12.0 * (noise / gain / group_time) ** 2 / levers


@kernel
def _fit_segments(ramp, flags, gain, noise, median, group_time, one_time):
    """Sums over the segments of one ramp of 1/var_rnoise, 1/var_poisson, 1/variance and slope/var_rnoise."""
    longest, first_single = 0, -1
    inverse_rnoise, inverse_poisson, inverse_total, weighted = 0.0, 0.0, 0.0, 0.0
    start, stop = next_segment(flags, 0)
    while start < stop:
        length = stop - start
        longest = max(longest, length)
        if length == 1:
            first_single = start if first_single < 0 else first_single
        else:
            if length == 2:
                slope = np.float64(ramp[start + 1, 0]) - np.float64(ramp[start, 0])
            else:
                slope = _segment_slope(ramp, start, stop, gain, noise)
            poisson, rnoise = variances_of_segment(length, gain, noise, median, group_time)
            inverse_rnoise += 1.0 / rnoise
            inverse_poisson += 1.0 / poisson if poisson > 0 else 0.0
            inverse_total += 1.0 / (rnoise + poisson)
            weighted += slope / group_time / rnoise
        start, stop = next_segment(flags, stop)
    if longest == 1:
        # One good group here and there: the first gives a rate since the reset, with the variances of two groups.
        poisson, rnoise = variances_of_segment(2, gain, noise, median, one_time)
        inverse_rnoise = 1.0 / rnoise
        inverse_poisson = 1.0 / poisson if poisson > 0 else 0.0
        inverse_total = 1.0 / (rnoise + poisson)
        weighted = np.float64(ramp[first_single, 0]) / one_time / rnoise
    return inverse_rnoise, inverse_poisson, inverse_total, weighted
