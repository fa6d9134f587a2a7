"""What only MIRI has: first and last groups, the reset anomaly, the decay of the reset switches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import dq
from calibration.ramps.firstframe import flag_first_group
from calibration.ramps.lastframe import flag_last_group
from calibration.ramps.reset import subtract_reset_anomaly
from calibration.ramps.rscd import Flagged, flag_switch_decay, groups_to_skip

SATURATED, JUMP, DO_NOT_USE = dq.GROUP["SATURATED"], dq.GROUP["JUMP_DET"], dq.GROUP["DO_NOT_USE"]
ESTIMATED = dq.PIXEL["FLUX_ESTIMATED"]


def test_the_last_group_of_every_integration_is_flagged():
    groupdq = np.full((2, 4, 3, 3), JUMP)
    flagged = flag_last_group(groupdq)
    assert np.all(flagged[:, -1] == JUMP | DO_NOT_USE)
    assert np.all(flagged[:, :-1] == JUMP)
    assert np.all(groupdq == JUMP), "the input must stay as it was"


def test_a_pixel_that_is_full_in_the_third_group_keeps_its_first():
    groupdq = np.zeros((2, 5, 1, 2), np.uint8)
    groupdq[1, 2:, 0, 1] = SATURATED
    pixeldq = np.ones((1, 2), np.uint32)
    flagged, pixels = flag_first_group(groupdq, pixeldq, keep_bright=True)
    np.testing.assert_array_equal(flagged[:, 0, 0], [[DO_NOT_USE, DO_NOT_USE], [DO_NOT_USE, 0]])
    np.testing.assert_array_equal(flagged[:, 1:], groupdq[:, 1:])
    np.testing.assert_array_equal(pixels, [[1, 1 | ESTIMATED]])
    flagged, pixels = flag_first_group(groupdq, pixeldq, keep_bright=False)
    assert np.all(flagged[:, 0] == DO_NOT_USE)
    np.testing.assert_array_equal(pixels, pixeldq)


@pytest.mark.parametrize(("first", "expected"), [(1, (0, 1, 1)), (2, (1, 1, 1)), (7, (1, 1, 1))])
def test_later_integrations_take_the_last_one_of_the_anomaly(first, expected):
    rng = np.random.default_rng(8)
    anomaly = rng.normal(0, 30, (2, 3, 4, 5)).astype(np.float32)
    anomaly[:, :, 0, 0] = np.nan
    data = rng.normal(9000, 100, (3, 5, 4, 5)).astype(np.float32)
    subtracted = subtract_reset_anomaly(data, anomaly, first)
    np.testing.assert_array_equal(subtracted[:, 3:], data[:, 3:])
    np.testing.assert_array_equal(subtracted[:, :3], data[:, :3] - np.nan_to_num(anomaly)[list(expected)])


def test_an_anomaly_longer_than_the_exposure_is_cut():
    data = np.zeros((1, 2, 2, 2), np.float32)
    np.testing.assert_array_equal(subtract_reset_anomaly(data, np.ones((1, 9, 2, 2), np.float32)), data - 1)


def test_an_anomaly_of_another_area_is_an_error():
    with pytest.raises(ValueError, match="choose the reference of this subarray"):
        subtract_reset_anomaly(np.zeros((1, 2, 4, 4), np.float32), np.zeros((1, 2, 4, 5), np.float32))


@pytest.mark.parametrize(
    ("wanted", "ngroups", "expected"), [(4, 20, 4), (4, 7, 4), (4, 6, 3), (4, 5, 1), (0, 5, 1), (4, 4, 1), (4, 3, 0)]
)
def test_three_groups_are_left(wanted, ngroups, expected):
    assert groups_to_skip(wanted, ngroups) == expected


def skip_by_definition(saturated, wanted):
    """Groups to skip in one ramp, from the first of which on it is ``saturated`` (a list of bool)."""
    if saturated[0]:
        return wanted
    full = saturated.index(True) if True in saturated else len(saturated)
    return max(0, min(wanted, full - 2))


@settings(max_examples=60, deadline=None)
@given(
    fulls=st.lists(st.integers(0, 9), min_size=6, max_size=6),
    first=st.integers(0, 3),
    later=st.integers(0, 6),
    start=st.integers(1, 2),
)
def test_bright_pixels_keep_two_groups_where_they_can(fulls, first, later, start):
    ngroups = 8
    groupdq = np.zeros((2, ngroups, 1, 3), np.uint8)
    groupdq[:, 0] = JUMP
    for k, full in enumerate(fulls):
        groupdq[k // 3, full:, 0, k % 3] |= SATURATED
    flagged, pixeldq, *_ = flag_switch_decay(groupdq, np.zeros((1, 3), np.uint32), first, later, start)
    expected, estimated = groupdq.copy(), np.zeros((1, 3), np.uint32)
    for k, full in enumerate(fulls):
        wanted = first if k < 3 and start == 1 else later
        skip = skip_by_definition([g >= full for g in range(ngroups)], wanted)
        expected[k // 3, :skip, 0, k % 3] |= DO_NOT_USE
        if skip < wanted:
            estimated[0, k % 3] |= ESTIMATED
    np.testing.assert_array_equal(flagged, expected)
    np.testing.assert_array_equal(pixeldq, estimated)


def test_what_was_flagged_is_counted():
    groupdq = np.zeros((3, 8, 1, 4), np.uint8)
    groupdq[1:, 3:, 0, 1] = SATURATED
    groupdq[2, 1:, 0, 2] = SATURATED
    *_, first, later = flag_switch_decay(groupdq, np.zeros((1, 4), np.uint32), 1, 4)
    assert first == Flagged(1, 0, 0)
    assert later == Flagged(4, 2, 1)
    *_, first, later = flag_switch_decay(groupdq[:1], np.zeros((1, 4), np.uint32), 1, 4)
    assert first == Flagged(1, 0, 0)
    assert later is None


def test_too_many_groups_to_skip_are_an_error():
    with pytest.raises(ValueError, match="at most 3 can be skipped"):
        flag_switch_decay(np.zeros((1, 5, 1, 1), np.uint8), np.zeros((1, 1), np.uint32), 1, 4)
