"""Showers: the glow that we put in is flagged and the rest is not; laws of the flags; the ring against its definition."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import dq
from calibration.ramps.jump import flag_jumps
from calibration.ramps.showers import Showers, average_over_ring, flag_showers
from calibration.simulate.large_events import shower_charge

JUMP, SATURATED, DO_NOT_USE = (dq.GROUP[name] for name in ("JUMP_DET", "SATURATED", "DO_NOT_USE"))
SHAPE = (100, 120)
GAIN, READNOISE = 3.0, 8.0  # [e-/DN], [DN]
CENTRE = (50, 60)
NONE = np.zeros(SHAPE, np.uint32)


def exposure(height=60.0, nints=1, ngroups=14, hit=5, seed=4):
    """Ramps [DN] with a shower in a group of the first integration, and their flags after the search for jumps."""
    rng = np.random.default_rng(seed)
    electrons = np.cumsum(rng.poisson(150, (nints, ngroups, *SHAPE)), axis=1).astype(np.float32)
    electrons[0, hit:] += shower_charge(SHAPE, CENTRE, 12, height, rng)
    data = electrons / np.float32(GAIN) + rng.normal(0, READNOISE / np.sqrt(2), electrons.shape).astype(np.float32)
    return data, flag_jumps(data, np.zeros(data.shape, np.uint8), *references(), 1)[0]


def references():
    return np.full(SHAPE, GAIN, np.float32), np.full(SHAPE, READNOISE, np.float32)


def near(radius):
    y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
    return np.hypot(y - CENTRE[0], x - CENTRE[1]) < radius


@pytest.mark.parametrize(("nints", "ngroups"), [(1, 14), (40, 7)])
def test_a_shower_is_flagged_and_the_rest_is_not(nints, ngroups):
    data, before = exposure(nints=nints, ngroups=ngroups)
    after, count = flag_showers(
        data, before, NONE, *references(), 1, Showers(threshold=1.3, sigma_clip_integrations=30)
    )
    assert count == 1
    assert np.mean(before[0, 5, near(12)] & JUMP != 0) < 0.5, "it is too faint for a jump in each pixel"
    assert np.all(after[0, 5, near(10)] & JUMP)
    np.testing.assert_array_equal(after[0, 5, ~near(40)], before[0, 5, ~near(40)])
    np.testing.assert_array_equal(np.delete(after[0], 5, axis=0), np.delete(before[0], 5, axis=0))
    np.testing.assert_array_equal(after[1:], before[1:])


def test_without_the_shower_the_rate_is_the_one_of_the_sky():
    data, before = exposure(height=100.0)
    after, _ = flag_showers(data, before, NONE, *references(), 1, Showers())
    rates = []
    for groupdq in (before, after):
        bad = groupdq[0, 1:] & JUMP != 0
        rates.append(np.mean(np.diff(data[0], axis=0)[:, near(10)], where=~bad[:, near(10)]) * GAIN)
    # 13 differences of 441 pixels, of 150 e- and a noise of 27 e-: 0.4 e-.
    assert rates[0] > 152
    assert abs(rates[1] - 150) < 1.2


@pytest.mark.parametrize("groups_after", [0, 2, 50])
def test_groups_after_a_shower_are_flagged_for_some_time(groups_after):
    data, before = exposure()
    after, _ = flag_showers(data, before, NONE, *references(), 1, Showers(threshold=1.3, groups_after=groups_after))
    flagged = [bool(np.mean(after[0, g, near(8)] & JUMP != 0) > 0.9) for g in range(14)]
    assert flagged == [5 <= g <= 5 + groups_after for g in range(14)]


def test_a_pixel_whose_rate_would_change_too_much_keeps_its_flags():
    data, before = exposure()
    star = (50, 62)
    # Its light varies: a rise that the search for jumps is told to leave alone.
    data[0, 5:, *star] += 2_000
    before[0, :, *star] = 0
    limits = Showers(threshold=1.3, largest_change=50)
    after, _ = flag_showers(data, before, NONE, *references(), 1, limits)
    assert not after[0, :, *star].any()
    assert np.all(
        after[0, 5, near(12)][np.arange(near(12).sum()) != np.flatnonzero(near(12)).searchsorted(50 * 120 + 62)]
    )
    after, _ = flag_showers(data, before, NONE, *references(), 1, replace(limits, largest_change=1e6))
    assert after[0, 5, *star] == JUMP


def test_few_differences_tell_nothing():
    data, before = exposure(ngroups=11, hit=5)
    assert flag_showers(data, before, NONE, *references(), 1, Showers())[1] > 0
    before[0, 0] |= DO_NOT_USE
    after, count = flag_showers(data, before, NONE, *references(), 1, Showers())
    assert count == 0
    np.testing.assert_array_equal(after, before)


def test_bad_pixels_and_pixels_without_gain_make_no_shower():
    data, before = exposure(height=0)
    patch = near(8)
    data[0, 6:, patch] += 40
    before[0, :, patch] = 0
    gain, readnoise = references()
    assert flag_showers(data, before, NONE, gain, readnoise, 1, Showers())[1] == 1
    bad = np.where(patch, dq.PIXEL["DO_NOT_USE"], np.uint32(0))
    assert flag_showers(data, before, bad, gain, readnoise, 1, Showers())[1] == 0
    after, count = flag_showers(data, before, NONE, np.where(patch, -1, gain), readnoise, 1, Showers())
    assert count == 0
    np.testing.assert_array_equal(after, before)


def test_a_pixel_without_gain_or_of_reference_is_not_flagged_in_a_shower_either():
    data, before = exposure()
    gain, readnoise = references()
    pixeldq = NONE.copy()
    gain[50, 61], pixeldq[50, 62] = np.nan, dq.PIXEL["REFERENCE_PIXEL"]
    before[0, :, 50, 61:63] = 0
    after, _ = flag_showers(data, before, pixeldq, gain, readnoise, 1, Showers(threshold=1.3))
    assert not after[0, :, 50, 61:63].any()
    assert after[0, 5, 50, 60] == JUMP


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_flags_are_only_added_and_only_where_a_pixel_is_not_saturated(seed):
    rng = np.random.default_rng(seed)
    data, before = exposure(seed=seed % 100)
    before = before | rng.choice(np.array([0, 0, 0, 0, SATURATED, DO_NOT_USE], np.uint8), before.shape)
    copy = before.copy()
    after, _ = flag_showers(data, before, NONE, *references(), 1, Showers(threshold=1.0, groups_after=1))
    np.testing.assert_array_equal(before, copy, err_msg="the input must stay as it was")
    assert not (before & ~after).any()
    added = after & ~before
    assert not (added & ~JUMP).any()
    assert not (before[added != 0] & SATURATED).any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), inner=st.sampled_from([0, 0.6, 1, 1.5]), width=st.sampled_from([0.7, 1, 2.6]))
def test_the_average_over_a_ring_agrees_with_its_definition(seed, inner, width):
    rng = np.random.default_rng(seed)
    image = np.where(rng.random((9, 11)) < 0.3, np.nan, rng.normal(1, 1, (9, 11)))
    outer = inner + width
    reach = int(outer)
    padded = np.pad(image, reach)
    expected = np.full(image.shape, np.nan)
    for y, x in zip(*np.nonzero(np.isfinite(image)), strict=True):
        v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        inside = (np.hypot(v, u) >= inner) & (np.hypot(v, u) <= outer)
        values = padded[y : y + 2 * reach + 1, x : x + 2 * reach + 1][inside]
        if np.isfinite(values).any():
            expected[y, x] = np.nanmean(values)
    np.testing.assert_allclose(average_over_ring(image, inner, outer), expected, atol=1e-9)
