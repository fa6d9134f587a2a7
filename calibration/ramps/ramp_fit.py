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

A row of pixels goes through all groups together. Medians are taken by a sorting network over whole rows, and pixels
without flags share one table of fit coefficients; the others are fitted one by one.
"""

from dataclasses import dataclass

import numpy as np

from calibration import dq
from calibration.jit import kernel

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
) -> tuple[Rates, Rates]:
    """Count rates of the exposure, and of each integration.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN], linear. A sample that is not finite is not used.
    groupdq : (nints, ngroups, ny, nx) uint8
    pixeldq : (ny, nx) uint32
    gain : (ny, nx) float32
        [e-/DN]; a pixel where it is not above 0 has no rate, and ``NO_GAIN_VALUE | DO_NOT_USE``.
    readnoise : (ny, nx) float32
        Noise of the difference of two single reads [DN].
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

    Returns
    -------
    rate : Rates
        (ny, nx)
    rateints : Rates
        (nints, ny, nx)
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
    nints, _, ny, nx = data.shape
    start, stop = _used_groups(groupdq) if drop_unused else (0, data.shape[1])
    ngroups = stop - start
    rate, rateints = _empty((ny, nx)), _empty((nints, ny, nx))
    no_gain = ~(gain > 0)
    flags = np.where(no_gain, pixeldq | _P_NO_GAIN | _P_DO_NOT_USE, pixeldq)
    dark = np.zeros((ny, nx), np.float32) if dark_current is None else dark_current.astype(np.float32, copy=False)
    first_frames = np.zeros((0, ny, nx), np.float32) if zeroframe is None else zeroframe
    _fit(
        start, ngroups, data, groupdq, flags, gain, readnoise, dark, first_frames,
        timing.frame, timing.group, timing.first_group, 1 / np.sqrt(2.0 * timing.nframes),
        suppress_one_group and ngroups > 1, _coefficients(ngroups),
        rate.data, rate.err, rate.dq, rate.var_poisson, rate.var_rnoise,
        rateints.data, rateints.err, rateints.dq, rateints.var_poisson, rateints.var_rnoise,
    )  # fmt: skip
    return rate, rateints


def _used_groups(groupdq: np.ndarray) -> tuple[int, int]:
    unused = [bool((groupdq[:, g] & _DO_NOT_USE).all()) for g in (*range(groupdq.shape[1] - 1), -1)]
    start = unused[:-1].index(False) if False in unused[:-1] else len(unused) - 1
    stop = len(unused) - 1 if unused[-1] and len(unused) - start > 1 else len(unused)
    return start, stop


def _empty(shape: tuple[int, ...]) -> Rates:
    data, err, var_poisson, var_rnoise = (np.zeros(shape, np.float32) for _ in range(4))
    return Rates(data, err, np.zeros(shape, np.uint32), var_poisson, var_rnoise)


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
def _power_step(rise, gain, noise):
    """Which power of the weights suits a segment that rises by this much [DN]; ``noise`` [e-] is of one group."""
    variance = noise * noise + rise * gain
    if not variance > 0:
        return 0
    ratio = rise * gain / np.sqrt(variance)
    step = 0
    for limit in _STEPS:
        step += ratio >= limit
    return step


@kernel
def _weight(distance, step):
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
def _segment_slope(ramp, x, start, stop, gain, noise):
    """Weighted least squares slope of groups ``start`` to ``stop - 1`` of pixel ``x`` [DN / group]."""
    step = _power_step(np.float64(ramp[stop - 1, x]) - np.float64(ramp[start, x]), gain, noise)
    middle = 0.5 * (stop - 1 - start)
    above, below = 0.0, 0.0
    for g in range(start, stop):
        lever = g - start - middle
        product = _weight(abs(lever) / middle, step) * lever
        above += product * ramp[g, x]
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


# i = integration, g = group, k = difference, y = row, x = column
@kernel
def _fit(
    skipped, ngroups, data, groupdq, pixeldq, gain, readnoise, dark, zeroframe,
    frame_time, group_time, first_time, group_noise, suppress, coefficients,
    data_out, err_out, dq_out, poisson_out, rnoise_out,
    idata_out, ierr_out, idq_out, ipoisson_out, irnoise_out,
):  # fmt: skip
    nints, _, ny, nx = data.shape
    ramp = np.empty((ngroups, nx), np.float32)
    flags = np.empty((ngroups, nx), np.uint8)
    differences = np.empty((max(1, ngroups - 1), nx), np.float32)
    usable = np.empty(nx, np.int32)
    good = np.empty(nx, np.int32)
    unflagged = np.empty(nx, np.int32)
    together = np.empty(nx, np.uint8)
    median = np.empty(nx)
    rise = np.empty(nx)
    slope = np.empty(nx)
    step = np.empty(nx, np.int64)
    table = coefficients.T.copy()
    sum_slope, sum_rnoise, sum_poisson = np.empty(nx), np.empty(nx), np.empty(nx)
    ints_lost, ints_full, ever_full = np.empty(nx, np.int32), np.empty(nx, np.int32), np.empty(nx, np.bool_)
    has_loss, sum_with_loss = np.empty(nx, np.bool_), np.empty(nx)
    noise_row = np.empty(nx)
    infinite = np.float32(np.inf)

    for y in range(ny):
        # The median rate of each pixel, for the Poisson variance: the mean over integrations.
        median[:] = 0.0
        for i in range(nints):
            _load(data, groupdq, i, y, skipped, ramp, flags)
            _count(flags, good, unflagged, together)
            if ngroups == 1:
                for x in range(nx):
                    first = np.float64(ramp[0, x]) / first_time
                    median[x] += first if flags[0, x] & (_SATURATED | _DO_NOT_USE) == 0 else 0.0
                continue
            usable[:] = 0
            for g in range(ngroups - 1):
                here, after, row = flags[g], flags[g + 1], differences[g]
                signal, following = ramp[g], ramp[g + 1]
                for x in range(nx):
                    spoiled = (here[x] | after[x]) & (_SATURATED | _DO_NOT_USE) | after[x] & _JUMP
                    row[x] = infinite if spoiled != 0 else following[x] - signal[x]
                    usable[x] += 1 if spoiled == 0 else 0
            _sort_rows(differences, ngroups - 1, nx)
            for x in range(nx):
                n = usable[x]
                if not suppress and unflagged[x] == 1 and flags[0, x] == 0:
                    median[x] += np.float64(ramp[0, x]) / first_time
                elif not suppress and unflagged[x] == 0 and zeroframe.shape[0] > 0 and zeroframe[i, y, x] != 0:
                    median[x] += np.float64(zeroframe[i, y, x]) / frame_time
                elif suppress and good[x] == 1:
                    continue
                elif n > 0:
                    lower, upper = differences[(n - 1) // 2, x], differences[n // 2, x]
                    median[x] += 0.5 * (np.float64(lower) + np.float64(upper)) / group_time
                elif flags[0, x] & (_SATURATED | _DO_NOT_USE) == 0:
                    median[x] += np.float64(ramp[0, x]) / group_time
        for x in range(nx):
            median[x] = max(median[x] / nints, 0.0) + np.float64(dark[y, x])
            noise_row[x] = np.float64(readnoise[y, x]) * np.float64(gain[y, x]) * group_noise
            sum_slope[x] = sum_rnoise[x] = sum_poisson[x] = 0.0
            ints_lost[x] = ints_full[x] = 0
            ever_full[x] = has_loss[x] = False
            sum_with_loss[x] = 0.0
            dq_out[y, x] = pixeldq[y, x]

        for i in range(nints):
            if nints > 1:
                _load(data, groupdq, i, y, skipped, ramp, flags)
                _count(flags, good, unflagged, together)
            # Ramps without any flag: all in a row alike.
            if ngroups > 2:
                for x in range(nx):
                    rise[x] = np.float64(ramp[ngroups - 1, x]) - np.float64(ramp[0, x])
                    slope[x] = 0.0
                for x in range(nx):
                    step[x] = _power_step(rise[x], np.float64(gain[y, x]), noise_row[x])
                for g in range(ngroups):
                    row, factors = ramp[g], table[g]
                    for x in range(nx):
                        slope[x] += factors[step[x]] * row[x]
            for x in range(nx):
                flag = pixeldq[y, x]
                factor, noise = np.float64(gain[y, x]), noise_row[x]
                noise_dn = noise / factor
                inverse_rnoise, inverse_poisson, inverse_total, weighted = 0.0, 0.0, 0.0, 0.0
                lost, full = False, False
                if together[x] == 0 and not factor > 0:
                    lost = True
                elif together[x] == 0 and ngroups > 2:
                    levers = np.float64(ngroups) ** 3 - ngroups
                    rnoise = 12.0 * (noise_dn / group_time) ** 2 / levers
                    poisson = median[x] / (factor * group_time * (ngroups - 1))
                    inverse_rnoise = 1.0 / rnoise
                    inverse_poisson = 1.0 / poisson if poisson > 0 else 0.0
                    inverse_total = 1.0 / (rnoise + poisson)
                    weighted = slope[x] / group_time * inverse_rnoise
                else:
                    saturated, unusable = 0, 0
                    for g in range(ngroups):
                        saturated += flags[g, x] & _SATURATED != 0
                        unusable += flags[g, x] & (_SATURATED | _DO_NOT_USE) != 0
                    if suppress and good[x] == 1:
                        unusable = ngroups
                    only_first = not suppress and unflagged[x] == 1 and flags[0, x] == 0
                    by_zeroframe = (
                        not suppress and unflagged[x] == 0 and zeroframe.shape[0] > 0 and zeroframe[i, y, x] != 0
                    )
                    if by_zeroframe:
                        ramp[0, x] = zeroframe[i, y, x]
                        flags[0, x] = 0
                        unusable -= 1
                        if saturated == ngroups:
                            saturated -= 1
                    if together[x] & _JUMP:
                        flag |= _P_JUMP
                        dq_out[y, x] |= _P_JUMP
                    if together[x] & _PERSISTENCE:
                        flag |= _P_PERSISTENCE
                        dq_out[y, x] |= _P_PERSISTENCE
                    if flags[0, x] & _SATURATED != 0:
                        lost = full = True
                    elif unusable >= ngroups or not factor > 0:
                        lost, full = True, saturated == ngroups
                    else:
                        one_time = first_time if only_first else frame_time if by_zeroframe else group_time
                        inverse_rnoise, inverse_poisson, inverse_total, weighted = _fit_segments(
                            ramp, flags, x, factor, noise, median[x], group_time, one_time
                        )
                        # No group was left that a line could go through.
                        lost = inverse_rnoise == 0.0
                    ever_full[x] |= saturated > 0
                    if saturated > 0:
                        flag |= _P_SATURATED
                lost |= flag & _P_DO_NOT_USE != 0
                if lost:
                    flag |= _P_DO_NOT_USE
                    ints_lost[x] += 1
                if full:
                    flag |= _P_SATURATED
                    ints_full[x] += 1
                rnoise = 1.0 / inverse_rnoise if inverse_rnoise > 0 else 0.0
                poisson = 1.0 / inverse_poisson if inverse_poisson > 0 else 0.0
                # pixeldq itself may say that the pixel is saturated.
                if lost or pixeldq[y, x] & _P_SATURATED != 0:
                    idata_out[i, y, x] = np.nan
                else:
                    total = 1.0 / inverse_total
                    idata_out[i, y, x] = weighted * rnoise
                    ierr_out[i, y, x] = np.sqrt(total) if total <= LARGEST_VARIANCE else 0.0
                    ipoisson_out[i, y, x] = poisson if poisson < LARGEST_VARIANCE else 0.0
                    irnoise_out[i, y, x] = rnoise if rnoise < LARGEST_VARIANCE else 0.0
                idq_out[i, y, x] = flag
                if together[x] & _CHARGELOSS != 0 and factor > 0:
                    has_loss[x] = True
                    for g in range(ngroups):
                        if flags[g, x] & _CHARGELOSS != 0:
                            flags[g, x] ^= _CHARGELOSS | _DO_NOT_USE
                    with_loss = _fit_segments(ramp, flags, x, factor, noise, median[x], group_time, group_time)[0]
                    sum_with_loss[x] += with_loss
                    if not lost:
                        rnoise = 1.0 / with_loss
                        irnoise_out[i, y, x] = rnoise if rnoise < LARGEST_VARIANCE else 0.0
                elif not lost:
                    sum_with_loss[x] += inverse_rnoise
                sum_slope[x] += weighted
                sum_rnoise[x] += inverse_rnoise
                sum_poisson[x] += inverse_poisson
        for x in range(nx):
            if ints_lost[x] == nints:
                dq_out[y, x] |= _P_DO_NOT_USE
            if ints_full[x] == nints:
                dq_out[y, x] |= _P_SATURATED
            if dq_out[y, x] & (_P_DO_NOT_USE | _P_SATURATED) != 0 or sum_rnoise[x] == 0.0:
                data_out[y, x] = np.nan
            else:
                rnoise = 1.0 / sum_rnoise[x]
                poisson = 1.0 / sum_poisson[x] if sum_poisson[x] > 0 else 0.0
                data_out[y, x] = sum_slope[x] * rnoise
                rnoise = rnoise if rnoise < LARGEST_VARIANCE else 0.0
                poisson = poisson if poisson < LARGEST_VARIANCE else 0.0
                rnoise_out[y, x], poisson_out[y, x] = rnoise, poisson
                err_out[y, x] = np.sqrt(rnoise + poisson)
                if has_loss[x]:
                    rnoise = 1.0 / sum_with_loss[x]
                    rnoise_out[y, x] = rnoise if rnoise < LARGEST_VARIANCE else 0.0
            if ever_full[x]:
                dq_out[y, x] |= _P_SATURATED


@kernel
def _load(data, groupdq, i, y, skipped, ramp, flags):
    """One row of one integration; a sample that is not finite is flagged, and 0 so that it can be added."""
    ngroups, nx = ramp.shape
    for g in range(ngroups):
        source, marks, row, out = data[i, skipped + g, y], groupdq[i, skipped + g, y], ramp[g], flags[g]
        for x in range(nx):
            finite = abs(source[x]) < np.inf
            row[x] = source[x] if finite else np.float32(0)
            out[x] = marks[x] if finite else marks[x] | _DO_NOT_USE
    if skipped > 0:
        # A jump since a group that is left out is none.
        for x in range(nx):
            flags[0, x] &= ~_JUMP


@kernel
def _count(flags, good, unflagged, together):
    """Groups that are good but for persistence, groups without any flag, and all flags of a ramp together."""
    ngroups, nx = flags.shape
    good[:] = 0
    unflagged[:] = 0
    together[:] = 0
    for g in range(ngroups):
        row = flags[g]
        for x in range(nx):
            good[x] += 1 if row[x] & ~_PERSISTENCE == 0 else 0
            unflagged[x] += 1 if row[x] == 0 else 0
            together[x] |= row[x]


@kernel
def _fit_segments(ramp, flags, x, gain, noise, median, group_time, one_time):
    """Sums over the segments of one ramp of 1/var_rnoise, 1/var_poisson, 1/variance and slope/var_rnoise."""
    ngroups = flags.shape[0]
    noise_dn = noise / gain
    longest, first_single = 0, -1
    inverse_rnoise, inverse_poisson, inverse_total, weighted = 0.0, 0.0, 0.0, 0.0
    start = -1
    for g in range(ngroups + 1):
        is_good = g < ngroups and flags[g, x] & ~_PERSISTENCE == 0
        if is_good:
            if start < 0:
                # A group with a jump and nothing else begins the segment after the jump.
                after_jump = g > 0 and flags[g - 1, x] & ~_PERSISTENCE == _JUMP
                start = g - 1 if after_jump else g
            continue
        if start < 0:
            continue
        length = g - start
        if length == 1:
            first_single = start if first_single < 0 else first_single
        else:
            if length == 2:
                slope = np.float64(ramp[start + 1, x]) - np.float64(ramp[start, x])
            else:
                slope = _segment_slope(ramp, x, start, g, gain, noise)
            rnoise = 12.0 * (noise_dn / group_time) ** 2 / (np.float64(length) ** 3 - length)
            poisson = median / (gain * group_time * (length - 1))
            inverse_rnoise += 1.0 / rnoise
            inverse_poisson += 1.0 / poisson if poisson > 0 else 0.0
            inverse_total += 1.0 / (rnoise + poisson)
            weighted += slope / group_time / rnoise
        longest = max(longest, length)
        start = -1
    if longest == 1:
        # One good group here and there: the first gives a rate since the reset.
        rnoise = 2.0 * (noise_dn / one_time) ** 2
        poisson = median / (gain * one_time)
        inverse_rnoise = 1.0 / rnoise
        inverse_poisson = 1.0 / poisson if poisson > 0 else 0.0
        inverse_total = 1.0 / (rnoise + poisson)
        weighted = np.float64(ramp[first_single, x]) / one_time / rnoise
    return inverse_rnoise, inverse_poisson, inverse_total, weighted
