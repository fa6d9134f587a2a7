"""Count rates from ramps by maximum likelihood, with jumps found by what leaving out differences gains in likelihood.

The differences of successive groups have a covariance matrix with three diagonals, since a group takes part in two of them:
read noise of the frames, and photon noise of frames that were averaged in the group (Brandt 2024a, PASP 136, 045004,
equations 4, 11, 28 and 29). The rate with the greatest likelihood is their generalized mean, at a cost that grows with the
number of groups only. Photon noise needs the rate: first the median of the differences, then the rate fitted with that,
which leaves a bias that is small against the error (the same, section 5).

A difference that is left out, or two in a row where several frames were averaged (a hit within a group spoils both), lowers
chi squared. Where it lowers it by more than a threshold there was a jump; the one that gains most is left out, and the search
begins anew (Brandt 2024b, PASP 136, 045005, section 3). What leaving out gains follows from the whole fit: with the inverse
covariance ``C^-1``, ``x = C^-1 1`` and the residual ``r = C^-1 (d - a)`` it is ``r^T P^-1 r`` over the differences left out,
where ``P = C^-1 - x x^T / sum(x)``.

Of the inverse only the main diagonal and the next one are needed. The paper's products of determinants (equations 38 to 48)
overflow for long ramps; here their ratios are taken, the pivots of elimination from the first difference on and from the
last one back.

Compared with the least squares of ``ramp_fit``, errors are those of the weights that were used, and the weights are the best.
A group with any flag takes both differences that it is in with it, as in the official pipeline (version 3.0.0). Unlike there,
the first guess is the median of the differences that are not saturated: with those, which hardly rise, the photon noise of
a bright star came out as nothing, and its good differences as jumps.
"""

from dataclasses import fields

import numpy as np

from calibration import dq
from calibration.jit import kernel
from calibration.ramps.ramp_fit import Rates, Timing, check_ramps, empty_rates, rates_of_rows
from calibration.strips import map_rows, rows_of

_SATURATED = dq.GROUP["SATURATED"]
_DO_NOT_USE = dq.GROUP["DO_NOT_USE"]
_JUMP = dq.GROUP["JUMP_DET"]
_P_SATURATED = dq.PIXEL["SATURATED"]
_P_DO_NOT_USE = dq.PIXEL["DO_NOT_USE"]
_P_JUMP = dq.PIXEL["JUMP_DET"]
_P_NO_GAIN = dq.PIXEL["NO_GAIN_VALUE"]

#: A search for jumps needs three differences: of two nobody can tell which is wrong.
FEWEST_GROUPS = 4
#: Least gain in chi squared for which one difference, or two in a row, are left out: 4.5 sigma (Brandt 2024b, section 4).
ONE_LEFT_OUT, TWO_LEFT_OUT = 20.25, 23.8


def fit_ramps_by_likelihood(
    data: np.ndarray,
    groupdq: np.ndarray,
    pixeldq: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    timing: Timing,
    dark_current: np.ndarray | None = None,
    zeroframe: np.ndarray | None = None,
) -> tuple[Rates, Rates | None, np.ndarray]:
    """Count rates of the exposure, and of each integration where there are several.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN], linear, of at least ``FEWEST_GROUPS`` groups. A sample that is not finite is not used.
    groupdq : (nints, ngroups, ny, nx) uint8
    pixeldq : (ny, nx) uint32
    gain : (ny, nx) float32
        [e-/DN]; a pixel where it is not above 0 has no rate, and ``NO_GAIN_VALUE | DO_NOT_USE``.
    readnoise : (ny, nx) float32
        Noise of the difference of two single reads [DN].
    timing : Timing
    dark_current : (ny, nx) float32 or None
        Average dark current; added to the rate for the photon noise as it is.
    zeroframe : (nints, ny, nx) float32 or None
        First frames [DN], 0 where unusable. Where several frames make a group, it is a group of its own, before the rest of
        the first one.

    Returns
    -------
    rate : Rates
        (ny, nx)
    rateints : Rates or None
        (nints, ny, nx); None for a single integration, which is the exposure.
    chi_squared : (ny, nx) float32
        Of the fits of all integrations together.
    """
    check_ramps(data, groupdq, pixeldq, gain, readnoise, timing, dark_current)
    nints, ngroups, ny, nx = data.shape
    if ngroups < FEWEST_GROUPS:
        raise ValueError(f"the likelihood fit needs at least {FEWEST_GROUPS} groups, but there are {ngroups}")
    split = zeroframe is not None and timing.nframes > 1
    times = [(np.arange(1, timing.nframes + 1)) * timing.frame + g * timing.group for g in range(ngroups)]
    if split:
        times[:1] = [times[0][:1], times[0][1:]]
    covariance = tuple(np.ascontiguousarray(part) for part in covariance_of(times))
    averaged = np.array([len(frames) > 1 for frames in times])
    dark = np.zeros((0, 0), np.float32) if dark_current is None else dark_current.astype(np.float32, copy=False)
    rate = empty_rates(gain, (ny, nx))
    rateints = empty_rates(data, (nints, ny, nx)) if nints > 1 else None
    chi_squared = np.zeros((ny, nx), np.float32)

    def work(rows: slice) -> None:
        (signal, first), (flags, _) = rows_of(data, rows), rows_of(groupdq, rows)
        nothing = np.zeros((0, 0, 0), np.float32)
        frames, first_frame = rows_of(zeroframe, rows) if split else (nothing, 0)
        ints, first_int = (
            rates_of_rows(rateints, rows) if rateints is not None else (empty_rates(nothing, (0, 0, 0)), 0)
        )
        _fit(
            rows.start, rows.stop, signal, flags, first, pixeldq, gain, readnoise, dark, frames, first_frame,
            float(timing.nframes), *covariance, averaged,
            rate.data, rate.err, rate.dq, rate.var_poisson, rate.var_rnoise, chi_squared,
            ints.data, ints.err, ints.dq, ints.var_poisson, ints.var_rnoise, first_int,
        )  # fmt: skip
        if rateints is not None and ints is not rateints:
            for plane in fields(Rates):
                getattr(rateints, plane.name)[..., rows, :] = getattr(ints, plane.name)

    map_rows(work, data)
    return rate, rateints, chi_squared


def covariance_of(times: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Covariance of the rates between successive groups, per unit of photon noise and of read noise.

    Parameters
    ----------
    times : list of arrays
        Times of the frames that each group is the mean of [s].

    Returns
    -------
    interval : (n - 1,) float64
        Between the mean times of the groups [s].
    photons, photons_next : (n - 1,) and (n - 2,) float64
        Diagonal of the covariance matrix and the one beside it, for one event per second [1/s^2] (equations 28 and 29).
    reads, reads_next : (n - 1,) and (n - 2,) float64
        The same for a read noise of 1 in each frame.
    """
    n = np.array([len(frames) for frames in times])
    mean = np.array([np.mean(frames) for frames in times])
    # Equation 11: the time that counts for the variance of a mean of frames.
    tau = np.array([np.sum((2 * k - 2 * np.arange(k) - 1) * frames) / k**2 for k, frames in zip(n, times, strict=True)])
    interval = np.diff(mean)
    photons = (tau[:-1] + tau[1:] - 2 * mean[:-1]) / interval**2
    photons_next = (mean[1:-1] - tau[1:-1]) / (interval[1:] * interval[:-1])
    reads = (1 / n[:-1] + 1 / n[1:]) / interval**2
    reads_next = -1 / (n[1:-1] * interval[1:] * interval[:-1])
    return interval, photons, photons_next, reads, reads_next


# i = integration, g = group, k = difference, y = row of the detector, x = column
@kernel
def _fit(
    start_row, stop_row, data, groupdq, first, pixeldq, gain, readnoise, dark, zeroframe, first_frame,
    nframes, interval, photons, photons_next, reads, reads_next, averaged,
    data_out, err_out, dq_out, poisson_out, rnoise_out, chi_squared_out,
    idata_out, ierr_out, idq_out, ipoisson_out, irnoise_out, first_int,
):  # fmt: skip
    nints, ngroups, _, nx = data.shape
    ndiffs = interval.size
    extra = ndiffs + 1 - ngroups  # the first frame, as a group of its own
    several = idata_out.shape[0] > 0
    difference, one, used = np.empty((ndiffs, nx)), np.empty(ndiffs), np.empty((ndiffs, nx), np.bool_)
    together, lost_groups = np.empty(nx, np.uint8), np.empty(nx, np.int32)
    signal, bad = np.empty((2, nx)), np.empty((2, nx), np.bool_)
    rises, full, rise = np.empty((ndiffs, nx), np.bool_), np.empty((2, nx), np.bool_), np.empty(ndiffs, np.bool_)
    use, work = np.empty(ndiffs, np.bool_), np.empty((10, ndiffs))
    rates, variances = np.empty((nints, nx)), np.empty((2, nints, nx))
    for y in range(start_row, stop_row):
        for x in range(nx):
            chi_squared_out[y, x] = 0
            dq_out[y, x] = pixeldq[y, x] if gain[y, x] > 0 else pixeldq[y, x] | _P_NO_GAIN | _P_DO_NOT_USE
        flag = dq_out[y].copy()
        for x in range(nx):
            dq_out[y, x] |= _P_DO_NOT_USE
        for i in range(nints):
            together[:] = 0
            lost_groups[:] = 0
            for k in range(ndiffs + 1):
                g = max(k - extra, 0)
                row, marks = data[i, g, y - first], groupdq[i, g, y - first]
                here, before = k % 2, (k + 1) % 2
                for x in range(nx):
                    value, mark = np.float64(row[x]), marks[x]
                    if k < 2 and extra > 0:
                        frame = np.float64(zeroframe[i, y - first_frame, x])
                        value = frame if k == 0 else (value * nframes - frame) / (nframes - 1)
                        mark |= _DO_NOT_USE if frame == 0 else np.uint8(0)
                    finite = abs(value) < np.inf
                    signal[here, x] = value if finite else 0.0
                    bad[here, x] = mark != 0 or not finite
                    full[here, x] = mark & _SATURATED != 0 or not finite
                    together[x] |= mark
                    lost_groups[x] += mark & (_SATURATED | _DO_NOT_USE) != 0 or not finite
                if k > 0:
                    for x in range(nx):
                        difference[k - 1, x] = (signal[here, x] - signal[before, x]) / interval[k - 1]
                        used[k - 1, x] = not (bad[here, x] or bad[before, x])
                        rises[k - 1, x] = not (full[here, x] or full[before, x])
            for x in range(nx):
                factor = np.float64(gain[y, x])
                mark = flag[x]
                mark |= _P_SATURATED if together[x] & _SATURATED else np.uint32(0)
                mark |= _P_JUMP if together[x] & _JUMP else np.uint32(0)
                mark |= _P_DO_NOT_USE if lost_groups[x] == ndiffs + 1 else np.uint32(0)
                rate, err, poisson, rnoise, chi_squared = np.nan, 0.0, 0.0, 0.0, 0.0
                if mark & _P_DO_NOT_USE == 0:
                    n = 0
                    for k in range(ndiffs):
                        one[k] = difference[k, x]
                        use[k], rise[k] = used[k, x], rises[k, x]
                        n += used[k, x]
                    noise = np.float64(readnoise[y, x]) ** 2 / 2
                    if n > 0:
                        current = np.float64(dark[y, x]) if dark.shape[0] > 0 else 0.0
                        guess, left_out = _find_jumps(
                            one, use, rise, n, factor, noise, photons, photons_next, reads, reads_next, averaged, work
                        )
                        mark |= _P_JUMP if left_out else np.uint32(0)
                        per_second = (max(guess, 0.0) + current) / factor
                        rate, err, chi_squared = _solve(
                            one, use, per_second, noise, photons, photons_next, reads, reads_next, work
                        )
                        poisson, rnoise = _split_variance(
                            work[7], per_second, noise, photons, photons_next, reads, reads_next
                        )
                    if np.isnan(rate):
                        # No difference that could be used: there is nothing to fit.
                        mark |= _P_DO_NOT_USE
                dq_out[y, x] |= mark & ~_P_DO_NOT_USE
                if mark & _P_DO_NOT_USE == 0:
                    dq_out[y, x] &= ~_P_DO_NOT_USE
                rates[i, x], variances[0, i, x], variances[1, i, x] = rate, poisson, rnoise
                chi_squared_out[y, x] += chi_squared
                if several:
                    v = y - first_int
                    idata_out[i, v, x], ierr_out[i, v, x], idq_out[i, v, x] = rate, err, mark
                    ipoisson_out[i, v, x], irnoise_out[i, v, x] = poisson, rnoise
                else:
                    data_out[y, x], err_out[y, x], poisson_out[y, x], rnoise_out[y, x] = rate, err, poisson, rnoise
        if several:
            for x in range(nx):
                rate, poisson, rnoise = _average(rates[:, x], variances[0, :, x], variances[1, :, x])
                data_out[y, x], poisson_out[y, x], rnoise_out[y, x] = rate, poisson, rnoise
                err_out[y, x] = np.sqrt(poisson + rnoise)


@kernel
def _find_jumps(one, use, rises, n, gain, noise, photons, photons_next, reads, reads_next, averaged, work):
    """Leave out differences with jumps, ``use`` in place; the rate that is left, and whether any was."""
    ndiffs = one.size
    ordered, m = work[3], 0
    for k in range(ndiffs):
        if rises[k]:
            ordered[m] = one[k]
            m += 1
    ordered[:m].sort()
    guess = max(0.5 * (ordered[(m - 1) // 2] + ordered[m // 2]), 0.0) / gain
    found = False
    while True:
        rate, _, _ = _solve(one, use, guess, noise, photons, photons_next, reads, reads_next, work)
        if n < 3 or (found and n == 3):
            return rate, found
        inverse, beside, x, residual = work[4], work[5], work[6], work[8]
        total = 0.0
        for k in range(ndiffs):
            total += x[k]
        of_total = 1.0 / total
        best_one, at_one, best_two, at_two = 0.0, 0, 0.0, 0
        for k in range(ndiffs):
            if not use[k]:
                continue
            own = inverse[k] - x[k] * x[k] * of_total
            gained = residual[k] * residual[k] / own
            if gained > best_one:
                best_one, at_one = gained, k
            if k + 1 < ndiffs and use[k + 1] and averaged[k + 1] and n > 3:
                next_own = inverse[k + 1] - x[k + 1] * x[k + 1] * of_total
                shared = beside[k] - x[k] * x[k + 1] * of_total
                here, after = residual[k], residual[k + 1]
                gained = (here * here * next_own - 2 * here * after * shared + after * after * own) / (
                    own * next_own - shared * shared
                )
                if gained > best_two:
                    best_two, at_two = gained, k
        if best_one - ONE_LEFT_OUT > best_two - TWO_LEFT_OUT:
            if not best_one > ONE_LEFT_OUT:
                return rate, found
            use[at_one] = False
            n -= 1
        else:
            if not best_two > TWO_LEFT_OUT:
                return rate, found
            use[at_two] = use[at_two + 1] = False
            n -= 2
        found = True


@kernel
def _solve(one, use, rate, noise, photons, photons_next, reads, reads_next, work):
    """Generalized mean of the differences in use, for photons of ``rate`` [DN/s per e-/DN] and read noise ``noise`` [DN^2].

    Returns the mean, its error and chi squared. Leaves in ``work``: 4 and 5 the diagonal of the inverse covariance and the one
    beside it, 6 its product with ones, 7 the weights, 8 its product with the residuals.
    """
    n = one.size
    beta, forward, diagonal, inverse, beside, x, weight, z = (
        work[0], work[1], work[2], work[4], work[5], work[6], work[7], work[8]
    )  # fmt: skip
    for k in range(n):
        diagonal[k] = rate * photons[k] + noise * reads[k]
        beta[k] = rate * photons_next[k] + noise * reads_next[k] if k + 1 < n and use[k] and use[k + 1] else 0.0
    for k in range(n):
        x[k], z[k] = (1.0, one[k]) if use[k] else (0.0, 0.0)
        pivot = diagonal[k]
        if k > 0:
            factor = beta[k - 1] * forward[k - 1]
            pivot -= factor * beta[k - 1]
            x[k] -= factor * x[k - 1]
            z[k] -= factor * z[k - 1]
        forward[k] = 1.0 / pivot
    total, above, of_next = 0.0, 0.0, 0.0
    for k in range(n - 1, -1, -1):
        share = beta[k] * of_next
        pivot = diagonal[k] - share * beta[k]
        if k + 1 < n:
            x[k] -= beta[k] * x[k + 1]
            z[k] -= beta[k] * z[k + 1]
        x[k] *= forward[k]
        z[k] *= forward[k]
        total += x[k]
        above += z[k]
        of_next = 1.0 / pivot
        # 1 / (1 / forward + pivot - diagonal)
        inverse[k] = forward[k] / (1.0 - share * beta[k] * forward[k])
        beside[k] = -share * inverse[k]
    of_total = 1.0 / total
    mean, chi_squared = above * of_total, 0.0
    for k in range(n):
        weight[k] = x[k] * of_total
        z[k] -= mean * x[k]
        chi_squared += (one[k] - mean) * z[k] if use[k] else 0.0
    return mean, np.sqrt(of_total), chi_squared


@kernel
def _split_variance(weight, rate, noise, photons, photons_next, reads, reads_next):
    """Variance of the mean by photons and by read noise."""
    poisson, rnoise = 0.0, 0.0
    for k in range(weight.size):
        poisson += weight[k] * weight[k] * photons[k]
        rnoise += weight[k] * weight[k] * reads[k]
        if k + 1 < weight.size:
            poisson += 2 * weight[k] * weight[k + 1] * photons_next[k]
            rnoise += 2 * weight[k] * weight[k + 1] * reads_next[k]
    return poisson * rate, rnoise * noise


@kernel
def _average(rates, poisson, rnoise):
    """Mean of the integrations of one pixel, and its variances, with the photon noise that the mean itself would have."""
    mean = np.nanmedian(rates)
    weight = np.empty(rates.size)
    of_photons = np.empty(rates.size)
    if np.isnan(mean):
        return np.nan, 0.0, 0.0
    for _ in range(2):
        total, above = 0.0, 0.0
        for i in range(rates.size):
            # Without a rate of its own, or with one of another sign, only the read noise is known.
            scale = mean / rates[i]
            of_photons[i] = poisson[i] * scale if 0 < scale < np.inf else 0.0
            weight[i] = 0.0 if np.isnan(rates[i]) else 1.0 / (of_photons[i] + rnoise[i])
            total += weight[i]
            above += weight[i] * rates[i] if weight[i] > 0 else 0.0
        mean = above / total
    photons, read = 0.0, 0.0
    for i in range(rates.size):
        share = weight[i] / total
        photons += share * share * of_photons[i]
        read += share * share * rnoise[i]
    return mean, photons, read
