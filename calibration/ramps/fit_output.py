"""What the least squares fit found in each segment of each ramp, and the jumps between: the product ``_fitopt``.

The definitions are those of the official pipeline (version 3.0.0; JWST pipeline documentation, "ramp_fitting", section
"Optional output"), with units as they are there: ``sigslope`` is in e- per group, by read noise alone, and ``pedestal`` takes
from the first group the rate [DN/s] times the mean time of its frames in groups.
"""

from dataclasses import dataclass

import numpy as np

from calibration import dq
from calibration.jit import kernel
from calibration.ramps.ramp_fit import (
    Rates,
    Timing,
    count_groups,
    fit_ramps,
    next_segment,
    power_step,
    used_groups,
    variances_of_segment,
    weight_of,
)
from calibration.strips import map_rows, rows_of

_SATURATED = dq.GROUP["SATURATED"]
_DO_NOT_USE = dq.GROUP["DO_NOT_USE"]
_JUMP = dq.GROUP["JUMP_DET"]


@dataclass(frozen=True)
class Segments:
    """Segments of all ramps in order of time, (nints, nsegments, ny, nx) float32, 0 where a ramp has fewer.

    Attributes
    ----------
    slope : [DN/s]
    sigslope : [e-/group]
        Error of the slope by read noise; 0 for a segment of one group, as are ``yint`` and ``sigyint``.
    var_poisson, var_rnoise : [(DN/s)^2]
    yint, sigyint : [DN], [e-]
        Signal at the first group that is used, group 0, and its error.
    weights : [(s/DN)^2]
        Of the slope in the mean of the segments: the inverse of ``var_rnoise``.
    pedestal : (nints, ny, nx) float32
        Signal at the start of the ramp [DN]; 0 where there is no rate.
    crmag : (nints, njumps, ny, nx) float32
        Rise of the signal in each group with a jump [DN], NaN where it was not measured.
    """

    slope: np.ndarray
    sigslope: np.ndarray
    var_poisson: np.ndarray
    var_rnoise: np.ndarray
    yint: np.ndarray
    sigyint: np.ndarray
    weights: np.ndarray
    pedestal: np.ndarray
    crmag: np.ndarray


def fit_ramps_and_segments(
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
) -> tuple[Rates, Rates | None, Segments]:
    """Count rates as ``fit_ramps`` gives them, whose parameters these are, and the segments behind them."""
    typical = np.zeros(gain.shape, np.float32)
    rate, rateints = fit_ramps(
        data, groupdq, pixeldq, gain, readnoise, timing, dark_current, zeroframe, suppress_one_group, drop_unused, typical
    )  # fmt: skip
    nints, _, ny, nx = data.shape
    start, stop = used_groups(groupdq) if drop_unused else (0, data.shape[1])
    suppress = suppress_one_group and stop - start > 1

    def count(rows: slice) -> tuple[int, int]:
        (signal, first), (flags, _) = rows_of(data, rows), rows_of(groupdq, rows)
        return _count(rows.start, rows.stop, start, stop, signal, flags, first, gain, suppress)

    counts = map_rows(count, data)
    nsegments, njumps = (max(1, *(pair[k] for pair in counts)) for k in range(2))
    names = ("slope", "sigslope", "var_poisson", "var_rnoise", "yint", "sigyint", "weights")
    planes = {name: np.zeros((nints, nsegments, ny, nx), np.float32) for name in names}
    pedestal, crmag = np.zeros((nints, ny, nx), np.float32), np.zeros((nints, njumps, ny, nx), np.float32)
    first_time = 0.5 * (timing.nframes + 1) * timing.frame
    scale = 1 / np.sqrt(2.0 * timing.nframes)

    def describe(rows: slice) -> None:
        (signal, first), (flags, _) = rows_of(data, rows), rows_of(groupdq, rows)
        frames, first_frame = (np.zeros((0, 0, 0), np.float32), 0) if zeroframe is None else rows_of(zeroframe, rows)
        if rateints is None:
            rates, first_rate = rate.data[None], 0
        else:
            rates, first_rate = rows_of(rateints.data, rows)
        _describe(
            rows.start, rows.stop, start, stop, signal, flags, first, gain, readnoise, frames, first_frame, typical, rates,
            first_rate, timing.frame, timing.group, first_time, scale, suppress, *planes.values(), pedestal, crmag,
        )  # fmt: skip

    map_rows(describe, data)
    return rate, rateints, Segments(**planes, pedestal=pedestal, crmag=crmag)


# i = integration, g = group, n = segment or jump, y = row of the detector, x = column
@kernel
def _load(data, groupdq, i, y, x, start, ramp, flags):
    for g in range(ramp.shape[0]):
        signal, mark = data[i, start + g, y, x], groupdq[i, start + g, y, x]
        finite = abs(signal) < np.inf
        ramp[g, 0] = signal if finite else np.float32(0)
        flags[g, 0] = mark if finite else mark | _DO_NOT_USE
    if start > 0:
        flags[0, 0] &= ~_JUMP


@kernel
def _has_rate(flags, suppress, gain):
    good, _, _, unusable = count_groups(flags)
    if flags[0, 0] & _SATURATED != 0 or not gain > 0:
        return False
    return unusable < flags.shape[0] and not (suppress and good == 1)


@kernel
def _count(start_row, stop_row, start, stop, data, groupdq, first, gain, suppress):
    """The most segments, and the most jumps, that a ramp has."""
    nints, _, _, nx = data.shape
    ramp, flags = np.empty((stop - start, 1), np.float32), np.empty((stop - start, 1), np.uint8)
    most, most_jumps = 0, 0
    for i in range(nints):
        for y in range(start_row, stop_row):
            for x in range(nx):
                _load(data, groupdq, i, y - first, x, start, ramp, flags)
                jumps = 0
                for g in range(1, stop - start):
                    jumps += flags[g, 0] & _JUMP != 0
                most_jumps = max(most_jumps, jumps)
                if _has_rate(flags, suppress, gain[y, x]):
                    n = 0
                    head, end = next_segment(flags, 0)
                    while head < end:
                        n += end - head > 1
                        head, end = next_segment(flags, end)
                    most = max(most, n)
    return most, most_jumps


@kernel
def _describe(
    start_row, stop_row, start, stop, data, groupdq, first, gain, readnoise, zeroframe, first_frame, typical, rates,
    first_rate, frame_time, group_time, first_time, scale, suppress,
    slope_out, sigslope_out, poisson_out, rnoise_out, yint_out, sigyint_out, weights_out, pedestal_out, crmag_out,
):  # fmt: skip
    nints, _, _, nx = data.shape
    ngroups = stop - start
    ramp, flags = np.empty((ngroups, 1), np.float32), np.empty((ngroups, 1), np.uint8)
    for i in range(nints):
        for y in range(start_row, stop_row):
            for x in range(nx):
                _load(data, groupdq, i, y - first, x, start, ramp, flags)
                n = 0
                for g in range(1, ngroups):
                    if flags[g, 0] & _JUMP != 0:
                        lost = (flags[g, 0] | flags[g - 1, 0]) & (_SATURATED | _DO_NOT_USE) != 0
                        crmag_out[i, n, y, x] = np.nan if lost else ramp[g, 0] - ramp[g - 1, 0]
                        n += 1
                rate = np.float64(rates[i, y - first_rate, x])
                pedestal = np.float64(ramp[0, 0]) - rate * first_time / group_time
                pedestal_out[i, y, x] = 0.0 if np.isnan(pedestal) else pedestal
                factor, frame = np.float64(gain[y, x]), 0.0
                if zeroframe.shape[0] > 0 and abs(zeroframe[i, y - first_frame, x]) < np.inf:
                    frame = np.float64(zeroframe[i, y - first_frame, x])
                noise = np.float64(readnoise[y, x]) * factor * scale
                _, unflagged, _, _ = count_groups(flags)
                one_time = first_time if not suppress and unflagged == 1 and flags[0, 0] == 0 else group_time
                if not suppress and unflagged == 0 and frame != 0:
                    ramp[0, 0], flags[0, 0], one_time = np.float32(frame), np.uint8(0), frame_time
                if not _has_rate(flags, suppress, factor):
                    continue
                n, first_single = 0, -1
                head, end = next_segment(flags, 0)
                while head < end:
                    if end - head == 1:
                        first_single = head if first_single < 0 else first_single
                    else:
                        slope, sigslope, yint, sigyint = _line(ramp, head, end, factor, noise)
                        poisson, rnoise = variances_of_segment(end - head, factor, noise, typical[y, x], group_time)
                        slope_out[i, n, y, x], sigslope_out[i, n, y, x] = slope / group_time, sigslope
                        yint_out[i, n, y, x], sigyint_out[i, n, y, x] = yint, sigyint
                        poisson_out[i, n, y, x], rnoise_out[i, n, y, x] = poisson, rnoise
                        weights_out[i, n, y, x] = 1.0 / rnoise
                        n += 1
                    head, end = next_segment(flags, end)
                if n == 0 and first_single >= 0:
                    poisson, rnoise = variances_of_segment(2, factor, noise, typical[y, x], one_time)
                    slope_out[i, 0, y, x] = np.float64(ramp[first_single, 0]) / one_time
                    poisson_out[i, 0, y, x], rnoise_out[i, 0, y, x], weights_out[i, 0, y, x] = (
                        poisson,
                        rnoise,
                        1.0 / rnoise,
                    )


@kernel
def _line(ramp, head, end, gain, noise):
    """Slope [DN/group], intercept [DN] at group 0, and the errors of both by read noise ``noise`` [e-]."""
    rise = np.float64(ramp[end - 1, 0]) - np.float64(ramp[head, 0])
    if end - head == 2:
        return rise, np.sqrt(2.0) * noise, np.float64(ramp[head, 0]) - head * rise, np.sqrt(2.0) * noise
    step, middle = power_step(rise, gain, noise), 0.5 * (head + end - 1)
    total, above, below, mean = 0.0, 0.0, 0.0, 0.0
    for g in range(head, end):
        lever = g - middle
        weight = weight_of(abs(lever) / (middle - head), step)
        total += weight
        mean += weight * ramp[g, 0]
        above += weight * lever * ramp[g, 0]
        below += weight * lever * lever
    slope = above / below
    error = noise * np.sqrt((below + total * middle * middle) / (total * below))
    return slope, noise / np.sqrt(below), mean / total - slope * middle, error
