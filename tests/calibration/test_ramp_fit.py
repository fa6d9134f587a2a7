"""Ramp fit: the kernel against its definition in plain NumPy, ramp by ramp; and rates that we put in."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import dq
from calibration.ramps.ramp_fit import Rates, Timing, _sort_rows, fit_ramps
from calibration.strips import threads
from infra.products.stored import store

JUMP, SATURATED, DO_NOT_USE, PERSISTENCE, CHARGELOSS = (
    dq.GROUP[name] for name in ("JUMP_DET", "SATURATED", "DO_NOT_USE", "PERSISTENCE", "CHARGELOSS")
)
TIMING = Timing(frame=2.0, group=10.0, nframes=4)
GAIN, READNOISE = 1.5, 12.0


def segments(flags):
    """(start, stop) of the stretches of good groups; a group with a jump begins the one after it."""
    flags = flags & ~PERSISTENCE
    found, start = [], None
    for g, flag in enumerate([*flags, DO_NOT_USE]):
        if flag == 0 and start is None:
            start = g - 1 if g > 0 and flags[g - 1] == JUMP else g
        elif flag != 0 and start is not None:
            found.append((start, g))
            start = None
    long = [(a, b) for a, b in found if b - a > 1]
    return long or found[:1]


def slope_of(signal, noise):
    """Slope per group of one segment."""
    n = len(signal)
    if n == 1:
        return signal[0]
    if n == 2:
        return signal[1] - signal[0]
    rise = signal[-1] - signal[0]
    variance = noise**2 + rise * GAIN
    ratio = max(rise * GAIN / np.sqrt(variance), 0) if variance > 0 else 0
    power = [0, 0.4, 1, 3, 6, 10][np.searchsorted([5, 10, 20, 50, 100], ratio, side="right")]
    g, middle = np.arange(n), (n - 1) / 2
    return np.polyfit(g, signal, 1, w=np.sqrt(np.abs((g - middle) / middle) ** power))[0]


def by_definition(data, groupdq):
    """Slope, var_poisson, var_rnoise, err per integration, then of all together, of one pixel (nints, ngroups)."""
    noise = READNOISE * GAIN / np.sqrt(2 * TIMING.nframes)
    bad = (groupdq & (SATURATED | DO_NOT_USE)) != 0
    signal = np.where(bad, np.nan, data.astype(np.float64))
    medians = []
    for one, flags in zip(signal, groupdq, strict=True):
        steps = np.where(flags[1:] & JUMP, np.nan, np.diff(one))
        if ((flags & ~PERSISTENCE) == 0).sum() == 1:
            medians.append(0)
        elif np.isfinite(steps).any():
            medians.append(np.nanmedian(steps) / TIMING.group)
        else:
            medians.append(np.nan_to_num(one[0]) / TIMING.group)
    median = max(np.mean(medians), 0)
    rows, sums = [], np.zeros(3)
    for one, flags in zip(signal, groupdq, strict=True):
        parts = []
        good = ((flags & ~PERSISTENCE) == 0).sum()
        if not flags[0] & SATURATED and good != 1:
            for a, b in segments(flags):
                n = b - a
                slope = slope_of(one[a:b], noise) / TIMING.group
                # A single group is measured from the reset, and has the variance of two.
                rnoise = 12 * (noise / GAIN / TIMING.group) ** 2 / (max(n, 2) ** 3 - max(n, 2))
                parts.append((slope, median / (GAIN * TIMING.group * max(n - 1, 1)), rnoise))
        if not parts:
            rows.append((np.nan, 0, 0, 0))
            continue
        slopes, poisson, rnoise = np.array(parts).T
        total = 1 / np.sum(1 / (poisson + rnoise))
        inverse_poisson = np.sum(1 / poisson) if median > 0 else 0
        sums += np.sum(slopes / rnoise), inverse_poisson, np.sum(1 / rnoise)
        rows.append(
            (np.average(slopes, weights=1 / rnoise), 1 / inverse_poisson if median > 0 else 0, 1 / np.sum(1 / rnoise),
             np.sqrt(total))
        )  # fmt: skip
    if sums[2] == 0:
        return np.array(rows), (np.nan, 0, 0, 0)
    poisson, rnoise = 1 / sums[1] if sums[1] else 0, 1 / sums[2]
    return np.array(rows), (sums[0] * rnoise, poisson, rnoise, np.sqrt(poisson + rnoise))


def fit(data, groupdq=None, pixeldq=None, gain=GAIN, timing=TIMING, **options):
    groupdq = np.zeros(data.shape, np.uint8) if groupdq is None else groupdq
    area = data.shape[-2:]
    pixeldq = np.zeros(area, np.uint32) if pixeldq is None else pixeldq
    one = np.ones(area, np.float32)
    return fit_ramps(data, groupdq, pixeldq, one * np.float32(gain), one * np.float32(READNOISE), timing, **options)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), nints=st.integers(1, 3), ngroups=st.integers(3, 12))
def test_agrees_with_the_definition(seed, nints, ngroups):
    rng = np.random.default_rng(seed)
    shape = (nints, ngroups, 4, 5)
    rate = 10 ** rng.uniform(-1, 3.5, shape[2:])
    data = np.cumsum(rate + rng.normal(0, np.sqrt(rate) + 1, shape), axis=1).astype(np.float32)
    groupdq = np.where(rng.random(shape) < 0.15, rng.choice([JUMP, DO_NOT_USE, PERSISTENCE], shape), 0).astype(np.uint8)
    groupdq[np.cumsum(rng.random(shape) < 0.05, axis=1) > 0] |= SATURATED
    rates, rateints = fit(data, groupdq)
    if nints == 1:
        assert rateints is None
        # The same as those of the first of two alike, but for the error, which the exposure sums over its plane.
        rateints = fit(np.concatenate([data, data]), np.concatenate([groupdq, groupdq]))[1]
        rateints = Rates(*(getattr(rateints, plane.name)[:1] for plane in fields(Rates)))
    for y, x in np.ndindex(4, 5):
        ints, whole = by_definition(data[..., y, x], groupdq[..., y, x])
        for ours, expected in ((rateints, ints.T), (rates, np.array(whole))):
            for plane, values in zip(("data", "var_poisson", "var_rnoise", "err"), expected, strict=True):
                np.testing.assert_allclose(
                    getattr(ours, plane)[..., y, x], values, rtol=2e-4, atol=2e-5, err_msg=f"{plane} {y} {x}"
                )
        np.testing.assert_array_equal(rateints.dq[:, y, x] & 1, np.isnan(ints[:, 0]))


def test_it_does_not_matter_how_the_rows_are_cut():
    rng = np.random.default_rng(18)
    shape = (3, 6, 13, 7)
    data = np.cumsum(rng.normal(40, 20, shape), axis=1).astype(np.float32)
    groupdq = np.where(rng.random(shape) < 0.1, JUMP, np.uint8(0))
    groupdq[:, 2:, 3] = SATURATED
    expected = fit(data, groupdq)
    with threads(3):
        in_threads = fit(data, groupdq)
    on_disk = store(shape, np.float32, 4), store(shape, np.uint8, 4)
    on_disk[0][:], on_disk[1][:] = data, groupdq
    from_disk = fit(*on_disk)
    for plane in (field.name for field in fields(Rates)):
        for one, other, third in zip(expected, in_threads, from_disk, strict=True):
            np.testing.assert_array_equal(getattr(one, plane), getattr(other, plane))
            np.testing.assert_array_equal(getattr(one, plane), getattr(third, plane)[:])


@pytest.mark.parametrize("rate", [1.0, 30.0, 500.0])
def test_the_rate_that_we_put_in_comes_back_with_its_error(rate):
    rng = np.random.default_rng(8)
    shape, timing = (1, 10, 120, 120), Timing(10.0, 10.0, 1)
    electrons = np.cumsum(rng.poisson(rate * 10 * GAIN, shape), axis=1)
    data = (electrons / GAIN + rng.normal(0, READNOISE / np.sqrt(2), shape)).astype(np.float32)
    rates, _ = fit(data, timing=timing)
    scatter = rates.data.std() / np.sqrt(rates.data.size)
    assert rates.data.mean() == pytest.approx(rate, abs=4 * scatter)
    pull = (rates.data - rate) / rates.err
    assert 0.95 < pull.std() < 1.12


def test_a_jump_does_not_change_the_slope():
    data = (np.arange(10) * 50.0).astype(np.float32).reshape(1, 10, 1, 1).copy()
    data[0, 6:] += 1000
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[0, 6] = JUMP
    rates, _ = fit(data, groupdq)
    assert rates.data.item() == pytest.approx(5.0)
    assert rates.dq.item() == dq.PIXEL["JUMP_DET"]


def test_order_of_integrations_does_not_matter():
    rng = np.random.default_rng(9)
    data = np.cumsum(rng.normal(40, 20, (4, 6, 3, 3)), axis=1).astype(np.float32)
    groupdq = np.where(rng.random(data.shape) < 0.1, JUMP, np.uint8(0))
    one, ints = fit(data, groupdq)
    other, ints_back = fit(data[::-1].copy(), groupdq[::-1].copy())
    np.testing.assert_allclose(one.data, other.data, rtol=1e-5)
    np.testing.assert_allclose(ints.data, ints_back.data[::-1], rtol=1e-5)


def test_a_ramp_saturated_from_the_start_has_no_rate():
    data = np.full((1, 4, 1, 1), 6e4, np.float32)
    rates, _ = fit(data, np.full(data.shape, SATURATED, np.uint8))
    assert np.isnan(rates.data.item())
    assert rates.err.item() == rates.var_poisson.item() == rates.var_rnoise.item() == 0
    assert rates.dq.item() == dq.PIXEL["SATURATED"] | dq.PIXEL["DO_NOT_USE"]


def test_one_good_group_gives_a_rate_only_on_request():
    data = np.array([60, 6e4, 6e4], np.float32).reshape(1, 3, 1, 1)
    groupdq = np.array([0, SATURATED, SATURATED], np.uint8).reshape(1, 3, 1, 1)
    assert np.isnan(fit(data, groupdq)[0].data.item())
    kept, _ = fit(data, groupdq, suppress_one_group=False)
    # Four frames of 2 s: their mean is at 5 s.
    assert kept.data.item() == pytest.approx(60 / 5)
    assert kept.dq.item() == dq.PIXEL["SATURATED"]


def test_the_first_frame_stands_in_for_a_saturated_ramp():
    data = np.full((1, 3, 1, 1), 6e4, np.float32)
    groupdq = np.full(data.shape, SATURATED, np.uint8)
    zeroframe = np.full((1, 1, 1), 80, np.float32)
    rates, _ = fit(data, groupdq, zeroframe=zeroframe, suppress_one_group=False)
    assert rates.data.item() == pytest.approx(80 / 2)


def test_a_first_frame_that_is_not_finite_is_none():
    data = np.full((1, 3, 1, 1), 6e4, np.float32)
    groupdq = np.full(data.shape, SATURATED, np.uint8)
    rates, _ = fit(data, groupdq, zeroframe=np.full((1, 1, 1), np.nan, np.float32), suppress_one_group=False)
    assert np.isnan(rates.data.item())
    assert rates.dq.item() == dq.PIXEL["SATURATED"] | dq.PIXEL["DO_NOT_USE"]


def test_an_exposure_of_one_group_has_rates():
    rates, _ = fit(np.full((2, 1, 1, 1), 100, np.float32))
    assert rates.data.item() == pytest.approx(100 / 5)


@pytest.mark.parametrize("gain", [np.nan, 0.0, -2.0])
def test_a_pixel_without_gain_has_no_rate(gain):
    rates, rateints = fit(np.arange(8, dtype=np.float32).reshape(2, 4, 1, 1), gain=gain)
    assert np.isnan(rates.data.item())
    assert np.isnan(rateints.data).all()
    assert rates.dq.item() == dq.PIXEL["NO_GAIN_VALUE"] | dq.PIXEL["DO_NOT_USE"]


def test_a_sample_that_is_not_finite_is_not_used():
    data = (np.arange(6) * 20.0).astype(np.float32).reshape(1, 6, 1, 1).copy()
    data[0, 2] = np.nan
    assert fit(data)[0].data.item() == pytest.approx(2.0)


def test_a_ramp_of_jumps_only_has_no_rate():
    data = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)
    rates, _ = fit(data, np.full(data.shape, JUMP, np.uint8))
    assert np.isnan(rates.data.item())
    assert rates.dq.item() & dq.PIXEL["DO_NOT_USE"]


def test_groups_that_lost_charge_count_in_the_read_noise_variance_only():
    rng = np.random.default_rng(10)
    data = np.cumsum(rng.normal(30, 3, (1, 8, 1, 1)), axis=1).astype(np.float32)
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[0, 5:] = CHARGELOSS | DO_NOT_USE
    with_loss, _ = fit(data, groupdq)
    whole, _ = fit(data)
    short, _ = fit(data[:, :5].copy())
    assert with_loss.var_rnoise.item() == pytest.approx(whole.var_rnoise.item(), rel=1e-6)
    assert with_loss.data.item() == pytest.approx(short.data.item(), rel=1e-6)
    assert with_loss.err.item() == pytest.approx(short.err.item(), rel=1e-5)


def test_dark_current_adds_to_the_poisson_variance():
    data = np.cumsum(np.full((1, 5, 1, 1), 40, np.float32), axis=1)
    without, _ = fit(data)
    with_dark, _ = fit(data, dark_current=np.full((1, 1), 0.5, np.float32))
    assert with_dark.var_poisson.item() / without.var_poisson.item() == pytest.approx(4.5 / 4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(0, 40), width=st.integers(1, 9))
def test_the_sorting_network_sorts_every_column(seed, n, width):
    rows = np.random.default_rng(seed).integers(0, 9, (n, width)).astype(np.float32)
    expected = np.sort(rows, axis=0)
    _sort_rows(rows, n, width)
    np.testing.assert_array_equal(rows, expected)


def test_no_integrations_are_an_error():
    with pytest.raises(ValueError, match="no ramps"):
        fit(np.zeros((0, 4, 2, 2), np.float32))


def test_times_that_are_not_positive_are_an_error():
    with pytest.raises(ValueError, match="must be above 0"):
        fit(np.zeros((1, 4, 2, 2), np.float32), timing=Timing(0.0, 10.0, 1))


def test_groups_that_no_pixel_uses_are_left_out_with_their_flags():
    data = (np.arange(6) * 20.0).astype(np.float32).reshape(1, 6, 1, 1) * np.ones((1, 1, 1, 2), np.float32)
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[:, [0, -1]] = DO_NOT_USE
    # This pixel saturates in the last group only, which nobody uses.
    groupdq[0, -1, 0, 1] |= SATURATED
    rates, _ = fit(data, groupdq, drop_unused=True)
    np.testing.assert_allclose(rates.data, 2.0)
    assert rates.dq.tolist() == [[0, 0]]
    assert fit(data, groupdq)[0].dq.tolist() == [[0, dq.PIXEL["SATURATED"]]]


def test_an_exposure_that_nobody_uses_has_no_rates():
    rates, _ = fit(np.ones((2, 3, 1, 1), np.float32), np.full((2, 3, 1, 1), DO_NOT_USE, np.uint8), drop_unused=True)
    assert np.isnan(rates.data.item())
    assert rates.dq.item() == dq.PIXEL["DO_NOT_USE"]
