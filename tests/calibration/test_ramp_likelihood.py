"""The likelihood fit against its definition with whole matrices in NumPy; rates, errors, chi squared of ramps that we made."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import dq
from calibration.ramps.ramp_fit import Timing
from calibration.ramps.ramp_likelihood import ONE_LEFT_OUT, TWO_LEFT_OUT, covariance_of, fit_ramps_by_likelihood
from calibration.strips import threads

JUMP, SATURATED, DO_NOT_USE = (dq.GROUP[name] for name in ("JUMP_DET", "SATURATED", "DO_NOT_USE"))
GAIN, READNOISE = 1.6, 11.0
ONE_FRAME = Timing(frame=10.0, group=10.0, nframes=1)
FOUR_FRAMES = Timing(frame=2.0, group=10.0, nframes=4)


def frame_times(timing, ngroups):
    return [np.arange(1, timing.nframes + 1) * timing.frame + g * timing.group for g in range(ngroups)]


def covariance_by_definition(times, rate, readnoise):
    """Of the rates between groups: a frame has all photons until its time, and its own read noise."""
    frames = np.concatenate(times)
    of_frames = rate / GAIN * np.minimum.outer(frames, frames) + np.eye(frames.size) * readnoise**2 / 2
    mean = np.zeros((len(times), frames.size))
    at = 0
    for g, some in enumerate(times):
        mean[g, at : at + len(some)] = 1 / len(some)
        at += len(some)
    step = np.diff(mean, axis=0) / np.diff([np.mean(some) for some in times])[:, None]
    return step @ of_frames @ step.T


def solve(difference, covariance, use):
    """Generalized mean, its variance, chi squared, weights."""
    inverse = np.linalg.inv(covariance[np.ix_(use, use)])
    d, one = difference[use], np.ones(np.count_nonzero(use))
    variance = 1 / (one @ inverse @ one)
    mean = variance * (one @ inverse @ d)
    return mean, variance, (d - mean) @ inverse @ (d - mean), variance * inverse @ one


def by_definition(ramp, flags, timing):
    """Rate, err, var_poisson, var_rnoise, chi squared of one ramp, and the differences left out as jumps."""
    times = frame_times(timing, len(ramp))
    difference = np.diff(ramp.astype(float)) / timing.group
    use = (flags[1:] == 0) & (flags[:-1] == 0)
    covariance = covariance_by_definition(times, max(np.median(difference), 0), READNOISE)
    left_out = []
    while True:
        guess, _, chi_squared, _ = solve(difference, covariance, use)
        if use.sum() < 3 or (left_out and use.sum() == 3):
            break
        best = []
        for size, threshold in ((1, ONE_LEFT_OUT), (2, TWO_LEFT_OUT)):
            for k in range(len(use) + 1 - size):
                part = slice(k, k + size)
                if use[part].all() and use.sum() > size + 1 and (size == 1 or timing.nframes > 1):
                    without = use.copy()
                    without[part] = False
                    best.append((chi_squared - solve(difference, covariance, without)[2] - threshold, part))
        gained, part = max(best, key=lambda one: one[0])
        if gained <= 0:
            break
        use[part] = False
        left_out.append(part)
    rate = max(guess, 0)
    covariance = covariance_by_definition(times, rate, READNOISE)
    mean, variance, chi_squared, weight = solve(difference, covariance, use)
    read = covariance_by_definition(times, 0, READNOISE)[np.ix_(use, use)]
    rnoise = weight @ read @ weight
    return mean, np.sqrt(variance), variance - rnoise, rnoise, chi_squared, left_out


def fit(data, groupdq=None, pixeldq=None, timing=ONE_FRAME, gain=GAIN, **more):
    groupdq = np.zeros(data.shape, np.uint8) if groupdq is None else groupdq
    area = data.shape[2:]
    pixeldq = np.zeros(area, np.uint32) if pixeldq is None else pixeldq
    one = np.ones(area, np.float32)
    return fit_ramps_by_likelihood(
        data, groupdq, pixeldq, one * np.float32(gain), one * np.float32(READNOISE), timing, **more
    )


def simulate(rng, shape, rate, timing):
    """Ramps [DN] with the noise of photons and of every frame; ``rate`` in DN/s, of each pixel."""
    nints, ngroups = shape[:2]
    data = np.empty(shape)
    for i in range(nints):
        charge, now = np.zeros(shape[2:]), 0.0
        for g, frames in enumerate(frame_times(timing, ngroups)):
            group = np.zeros(shape[2:])
            for time in frames:
                charge = charge + rng.poisson(rate * GAIN * (time - now), shape[2:]) / GAIN
                now = time
                group += charge + rng.normal(0, READNOISE / np.sqrt(2), shape[2:])
            data[i, g] = group / len(frames)
    return data.astype(np.float32)


@pytest.mark.parametrize("timing", [ONE_FRAME, FOUR_FRAMES])
def test_the_covariance_is_that_of_frames_and_photons(timing):
    times = frame_times(timing, 6)
    _, photons, photons_next, reads, reads_next = covariance_of(times)
    for rate, readnoise in ((3.0, 0.0), (0.0, 5.0)):
        expected = covariance_by_definition(times, rate, readnoise)
        diagonal = rate / GAIN * photons + readnoise**2 / 2 * reads
        beside = rate / GAIN * photons_next + readnoise**2 / 2 * reads_next
        np.testing.assert_allclose(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1), expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), ngroups=st.integers(4, 12), timing=st.sampled_from([ONE_FRAME, FOUR_FRAMES]))
def test_agrees_with_the_definition(seed, ngroups, timing):
    rng = np.random.default_rng(seed)
    shape = (1, ngroups, 3, 4)
    data = simulate(rng, shape, 10 ** rng.uniform(-1, 3, shape[2:]), timing)
    data += np.cumsum(np.where(rng.random(shape) < 0.1, rng.exponential(500, shape), 0), axis=1).astype(np.float32)
    groupdq = np.where(rng.random(shape) < 0.08, rng.choice([JUMP, DO_NOT_USE], shape), 0).astype(np.uint8)
    rates, _, chi_squared = fit(data, groupdq, timing=timing)
    for y, x in np.ndindex(3, 4):
        flags = groupdq[0, :, y, x]
        if not ((flags[1:] == 0) & (flags[:-1] == 0)).any():
            assert np.isnan(rates.data[y, x])
            assert rates.dq[y, x] & dq.PIXEL["DO_NOT_USE"]
            continue
        *expected, left_out = by_definition(data[0, :, y, x], flags, timing)
        found = rates.data, rates.err, rates.var_poisson, rates.var_rnoise, chi_squared
        for plane, value in zip(found, expected, strict=True):
            np.testing.assert_allclose(plane[y, x], value, rtol=2e-4, atol=2e-4)
        assert bool(rates.dq[y, x] & dq.PIXEL["JUMP_DET"]) == bool(left_out or (flags & JUMP).any())


@pytest.mark.parametrize("timing", [ONE_FRAME, FOUR_FRAMES])
@pytest.mark.parametrize("rate", [0.5, 20.0, 500.0])
def test_rates_are_unbiased_with_true_errors_and_chi_squared(rate, timing):
    rng = np.random.default_rng(11)
    data = simulate(rng, (1, 10, 150, 150), np.float64(rate), timing)
    rates, _, chi_squared = fit(data, timing=timing)
    scatter = float(rates.data.std()) / 150
    # Photon noise of the first difference is known from a rate that is itself noisy: 2e-4 of the rate is left at the most.
    assert rates.data.mean() == pytest.approx(rate, abs=4 * scatter + 2e-4 * rate)
    pull = (rates.data - rate) / rates.err
    assert 0.97 < pull.std() < 1.05
    assert np.median(chi_squared) == pytest.approx(7.34, abs=0.25)  # 9 differences less a rate


def test_a_bright_ramp_that_saturates_has_no_false_jumps():
    rng = np.random.default_rng(14)
    data = simulate(rng, (1, 10, 60, 60), np.float64(1000), ONE_FRAME)
    groupdq = np.zeros(data.shape, np.uint8)
    data[:, 4:] = 45_000
    groupdq[:, 4:] = SATURATED
    rates, _, _ = fit(data, groupdq)
    assert np.mean(rates.dq & dq.PIXEL["JUMP_DET"] != 0) < 1e-3
    assert 0.95 < ((rates.data - 1000) / rates.err).std() < 1.05


def test_a_hit_is_left_out_and_said():
    rng = np.random.default_rng(12)
    for timing, reach in ((ONE_FRAME, 1), (FOUR_FRAMES, 2)):
        data = simulate(rng, (1, 10, 40, 40), np.float64(30), timing)
        clean, _, _ = fit(data, timing=timing)
        hit = data.copy()
        hit[0, 5] += 400 / reach  # with four frames a group the hit is halfway through it
        hit[0, 6:] += 400
        rates, _, _ = fit(hit, timing=timing)
        assert np.mean(rates.dq & dq.PIXEL["JUMP_DET"] != 0) > 0.999
        np.testing.assert_allclose(rates.data.mean(), clean.data.mean(), rtol=0.01)
        assert np.mean(clean.dq & dq.PIXEL["JUMP_DET"] != 0) < 2e-3
        assert 1.0 < np.median(rates.err / clean.err) < 1.3


def test_integrations_are_averaged_by_their_variance():
    rng = np.random.default_rng(13)
    data = simulate(rng, (4, 8, 60, 60), np.float64(15), ONE_FRAME)
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[1, 4:] = SATURATED
    groupdq[2, :, 0] = DO_NOT_USE
    rate, rateints, _ = fit(data, groupdq)
    assert rateints.data.shape == (4, 60, 60)
    assert np.isnan(rateints.data[2, 0]).all()
    assert not np.isnan(rate.data).any()
    pull = (rate.data - 15) / rate.err
    assert 0.97 < pull.std() < 1.05
    assert abs(pull.mean()) < 4 / 60
    assert (rate.dq == dq.PIXEL["SATURATED"] | (rate.dq & dq.PIXEL["JUMP_DET"])).all()
    with threads(3):
        again, _, _ = fit(data, groupdq)
    np.testing.assert_array_equal(again.data, rate.data)


def test_the_first_frame_is_a_group_of_its_own():
    times = frame_times(FOUR_FRAMES, 5)
    data = np.array([np.mean(frames) for frames in times], np.float32).reshape(1, 5, 1, 1) * 7 + 100
    first = np.full((1, 1, 1), 7 * times[0][0] + 100, np.float32)
    with_frame, _, _ = fit(data, timing=FOUR_FRAMES, zeroframe=first)
    without, _, _ = fit(data, timing=FOUR_FRAMES)
    assert with_frame.data.item() == pytest.approx(7)
    assert with_frame.err.item() < without.err.item()
    # Nothing but the first two groups is good: with the frame between there are two differences, not one.
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[0, 2:] = SATURATED
    assert fit(data, groupdq, timing=FOUR_FRAMES, zeroframe=first)[0].data.item() == pytest.approx(7)
    # One that is 0 or NaN takes the first group with it.
    unusable, _, _ = fit(data, timing=FOUR_FRAMES, zeroframe=first * np.float32(np.nan))
    assert unusable.data.item() == pytest.approx(7)
    assert unusable.err.item() > without.err.item()


@pytest.mark.parametrize("gain", [np.nan, 0.0, -2.0])
def test_a_pixel_without_gain_has_no_rate(gain):
    rates, _, _ = fit(np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1), gain=gain)
    assert np.isnan(rates.data.item())
    assert rates.dq.item() == dq.PIXEL["NO_GAIN_VALUE"] | dq.PIXEL["DO_NOT_USE"]


def test_a_ramp_saturated_from_the_start_has_no_rate():
    data = np.full((1, 5, 1, 1), 6e4, np.float32)
    rates, _, _ = fit(data, np.full(data.shape, SATURATED, np.uint8))
    assert np.isnan(rates.data.item())
    assert rates.err.item() == 0
    assert rates.dq.item() == dq.PIXEL["SATURATED"] | dq.PIXEL["DO_NOT_USE"]


def test_three_groups_are_an_error():
    with pytest.raises(ValueError, match="at least 4 groups"):
        fit(np.zeros((1, 3, 2, 2), np.float32))
