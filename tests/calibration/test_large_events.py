"""Snowballs: those that we put in are flagged as far as they reach; laws of the flags; patches against their definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from calibration import dq
from calibration.ramps.jump import flag_jumps
from calibration.ramps.large_events import Ellipse, Snowballs, find_patches, flag_snowballs
from calibration.simulate.large_events import snowball_charge

JUMP, SATURATED, DO_NOT_USE = (dq.GROUP[name] for name in ("JUMP_DET", "SATURATED", "DO_NOT_USE"))
SHAPE = (120, 140)
WELL = 90_000.0  # [e-]
CENTRE = (60, 70)


def flagged_exposure(charge, nints=1, ngroups=6, hit=3, seed=3):
    """Group flags after the search for jumps, of a faint sky that ``charge`` [e-] hits in a group of the first integration."""
    rng = np.random.default_rng(seed)
    electrons = np.cumsum(rng.poisson(40, (nints, ngroups, *SHAPE)), axis=1).astype(np.float32)
    electrons[0, hit:] += charge
    groupdq = np.where(electrons > WELL, SATURATED, np.uint8(0))
    data = np.minimum(electrons, WELL) + rng.normal(0, 10, electrons.shape).astype(np.float32)
    ones = np.ones(SHAPE, np.float32)
    return flag_jumps(data, groupdq, ones, 14 * ones, 1)[0]


@pytest.mark.parametrize(("axis_ratio", "angle"), [(1.0, 0.0), (0.6, 0.5), (0.6, 2.2)])
def test_the_halo_of_a_snowball_is_flagged_where_it_counts(axis_ratio, angle):
    charge = snowball_charge(SHAPE, CENTRE, 7, 900, 6, axis_ratio, angle)
    before = flagged_exposure(charge)
    after, count = flag_snowballs(before, Snowballs())
    assert count == 1
    # Of the noise of a difference, sqrt(40 + 14^2) = 15 e-, the halo still makes a half.
    reached = charge > 7.5
    share_before, share_after = (
        np.mean((groupdq[0, 3] & (JUMP | SATURATED) != 0)[reached]) for groupdq in (before, after)
    )
    assert share_before < 0.75
    assert share_after > 0.99
    # And the flags do not run wild: where no tenth of the noise arrives, nothing is flagged but chance hits and edges.
    added = (after[0, 3] & ~before[0, 3] & JUMP) != 0
    assert not added[charge < 0.15].any()


def test_the_core_stays_saturated_with_a_rim_until_the_end_of_its_integration():
    charge = snowball_charge(SHAPE, CENTRE, 7, 900, 6)
    before = flagged_exposure(charge, nints=2)
    after, _ = flag_snowballs(before, Snowballs(core_growth=3))
    y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
    radius = np.hypot(y - CENTRE[0], x - CENTRE[1])
    assert np.all(after[0, 3:, radius < 9] & (SATURATED | JUMP) == SATURATED)
    assert not (after[0, :3] & SATURATED).any()
    assert not (after[1] & SATURATED).any()
    assert not (after[0, :, radius > 12] & SATURATED).any()


@pytest.mark.parametrize("next_groups", [0, 1, 3, 99])
def test_the_core_is_remembered_in_the_first_groups_of_the_next_integration(next_groups):
    before = flagged_exposure(snowball_charge(SHAPE, CENTRE, 7, 900, 6), nints=3)
    after, _ = flag_snowballs(before, Snowballs(next_groups=next_groups))
    y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
    core = np.hypot(y - CENTRE[0], x - CENTRE[1]) < 5
    flagged = [bool(np.all(after[1, g, core] & JUMP)) for g in range(6)]
    assert flagged == [0 < g < next_groups for g in range(6)]
    np.testing.assert_array_equal(after[2, :, core], before[2, :, core])


def test_a_jump_without_a_core_is_a_snowball_at_an_edge_only():
    groupdq = np.zeros((1, 4, *SHAPE), np.uint8)
    groupdq[0, 2, 58:63, 68:73] = JUMP
    groupdq[0, 2, 58:63, 131:136] = JUMP
    after, count = flag_snowballs(groupdq, Snowballs(edge=10))
    assert count == 1
    assert np.count_nonzero(after[..., :100]) == 25
    assert np.count_nonzero(after[..., 100:]) > 60
    assert flag_snowballs(groupdq, Snowballs(edge=10, needs_core=False))[1] == 2
    assert flag_snowballs(groupdq, Snowballs(edge=4))[1] == 0


def test_a_core_that_saturates_a_group_later_makes_a_snowball_too():
    groupdq = np.zeros((1, 5, *SHAPE), np.uint8)
    groupdq[0, 2, 58:63, 68:73] = JUMP
    groupdq[0, 3:, 60, 70] = SATURATED
    assert flag_snowballs(groupdq, Snowballs())[1] == 1
    groupdq[0, 3] = 0
    groupdq[0, 4:, 60, 70] = SATURATED
    assert flag_snowballs(groupdq, Snowballs())[1] == 0


def test_the_core_counts_in_the_area_of_the_jumps_around_it():
    groupdq = np.zeros((1, 4, *SHAPE), np.uint8)
    groupdq[0, 2, 57:64, 67:74] = JUMP
    groupdq[0, 2:, 58:63, 68:73] = SATURATED
    assert flag_snowballs(groupdq, Snowballs(smallest_jump=49))[1] == 1
    assert flag_snowballs(groupdq, Snowballs(smallest_jump=50))[1] == 0


def test_nothing_larger_than_the_largest_radius_is_flagged():
    before = flagged_exposure(snowball_charge(SHAPE, CENTRE, 12, 900, 6))
    after, _ = flag_snowballs(before, Snowballs(largest_radius=6))
    y, x = np.nonzero(after[0, 3] & ~before[0, 3])
    assert np.hypot(y - CENTRE[0], x - CENTRE[1]).max(initial=0) <= 6


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.02, 0.2, 0.5]), needs_core=st.booleans())
def test_flags_are_only_added_but_jumps_that_are_now_saturated(seed, share, needs_core):
    rng = np.random.default_rng(seed)
    groupdq = np.where(rng.random((2, 5, 30, 20)) < share, rng.choice([JUMP, SATURATED, DO_NOT_USE], (2, 5, 30, 20)), 0)
    groupdq = groupdq.astype(np.uint8)
    before = groupdq.copy()
    after, _ = flag_snowballs(groupdq, Snowballs(edge=3, needs_core=needs_core, next_groups=2))
    np.testing.assert_array_equal(groupdq, before, err_msg="the input must stay as it was")
    lost = before & ~after
    assert not (lost & ~JUMP).any()
    assert np.all(after[lost != 0] & SATURATED)
    added = after & ~before
    assert not (added & ~(JUMP | SATURATED)).any()
    assert not after[:, 0][before[:, 0] == 0].any(), "there is no difference before the first group"


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), smallest=st.integers(1, 12))
def test_patches_agree_with_their_definition(seed, smallest):
    mask = np.random.default_rng(seed).random((15, 18)) < 0.3
    labels, n = ndimage.label(mask, np.ones((3, 3)))
    expected = []
    for p in range(1, n + 1):
        y, x = np.nonzero(labels == p)
        if np.count_nonzero(ndimage.binary_fill_holes(labels == p, np.ones((3, 3)))) < smallest:
            continue
        lengths, axes = np.linalg.eigh(np.cov(np.stack([y, x]), bias=True))
        minor, major = 4 * np.sqrt(np.maximum(lengths, 0)) - 1
        expected.append((y.mean(), x.mean(), max(major, 0), max(minor, 0), np.outer(axes[:, 1], axes[:, 1])))
    found = find_patches(mask, smallest)
    assert len(found) == len(expected)
    for one, (y, x, major, minor, along) in zip(found, expected, strict=True):
        np.testing.assert_allclose((one.y, one.x, one.major, one.minor), (y, x, major, minor), atol=1e-6)
        if one.major - one.minor > 1e-3:
            angle = np.radians(one.angle)
            direction = np.array([np.cos(angle), np.sin(angle)])
            np.testing.assert_allclose(np.outer(direction, direction), along, atol=1e-4)


def test_what_is_drawn_has_the_moments_of_the_ellipse():
    ellipse = Ellipse(60.0, 70.0, 60.0, 32.0, 40.0)
    mask = np.zeros(SHAPE, bool)
    where, inside = ellipse.draw(SHAPE, 200)
    mask[where] = inside
    (again,) = find_patches(mask, 1)
    assert (again.y, again.x) == (60, 70)
    np.testing.assert_allclose((again.major, again.minor, again.angle), (59, 31, 40), atol=0.3)
    assert ellipse.covers(np.array([60.0, 80.0]), np.array([70.0, 86.0])).tolist() == [True, True]
    assert not ellipse.covers(np.array([80.0]), np.array([54.0]))[0]


def test_an_ellipse_over_the_edge_is_cut_there():
    where, inside = Ellipse(1.0, 139.0, 20.0, 20.0, 0.0).draw(SHAPE, 200)
    assert inside.shape == (where[0].stop, 140 - where[1].start)
    assert inside[1, -1]
