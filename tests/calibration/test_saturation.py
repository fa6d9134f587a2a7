"""Saturation: the kernel against its definition in plain NumPy, and the rules for averaged groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import maximum_filter

from calibration import dq
from calibration.ramps.saturation import clear_saturated_zeroframe, flag_saturation, prepare_threshold

SATURATED, DO_NOT_USE, AD_FLOOR = (dq.GROUP[name] for name in ("SATURATED", "DO_NOT_USE", "AD_FLOOR"))
NO_CHECK = dq.PIXEL["NO_SAT_CHECK"]

SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
RAMPS = SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=st.sampled_from([-1, 0, 1, 5, 9, 10, 11])))


def by_definition(data, threshold, grow):
    flags = np.zeros(data.shape, np.uint8)
    full = np.logical_or.accumulate(data >= threshold, axis=1)
    for i, g in np.ndindex(data.shape[:2]):
        flags[i, g][maximum_filter(full[i, g], 2 * grow + 1, mode="constant")] |= SATURATED
    flags[data <= 0] |= AD_FLOOR | DO_NOT_USE
    return flags


def flag(data, threshold, **options):
    threshold, reference_dq = prepare_threshold(threshold, np.zeros(threshold.shape, np.uint32))
    groupdq = np.zeros(data.shape, np.uint8)
    flagged = flag_saturation(data, groupdq, threshold, reference_dq, None, **{"nframes": 1} | options)
    assert not groupdq.any(), "the input must stay as it was"
    return flagged


@settings(max_examples=60, deadline=None)
@given(data=RAMPS, grow=st.integers(0, 2))
def test_agrees_with_the_definition(data, grow):
    threshold = np.full(data.shape[-2:], 10, np.float32)
    np.testing.assert_array_equal(flag(data, threshold, grow=grow), by_definition(data, threshold, grow))


def test_flag_holds_until_the_end_of_the_integration_and_no_longer():
    data = np.ones((2, 4, 1, 1), np.float32)
    data[0, 1] = 20
    assert flag(data, np.full((1, 1), 10, np.float32))[:, :, 0, 0].tolist() == [[0, 2, 2, 2], [0, 0, 0, 0]]


def test_a_pixel_without_threshold_never_saturates_and_says_so():
    threshold, reference_dq = prepare_threshold(np.array([[np.nan, 10]], np.float32), np.zeros((1, 2), np.uint32))
    assert reference_dq.tolist() == [[NO_CHECK, 0]]
    assert threshold[0, 0] > 65_535
    assert (
        flag(np.full((1, 1, 1, 2), 65_535, np.float32), np.array([[np.nan, 10]], np.float32), grow=0)[0, 0, 0, 0] == 0
    )


def test_a_group_with_saturated_frames_in_its_mean_is_not_used():
    # Four frames per group, threshold 100: the second group stands at 90, the third is full. In a steady ramp its last
    # frame is at 90 * 8 / 6.5, above the threshold.
    data = np.array([30, 90, 100], np.float32).reshape(1, 3, 1, 1)
    flagged = flag(data, np.full((1, 1), 100, np.float32), nframes=4)
    assert flagged.ravel().tolist() == [0, DO_NOT_USE, SATURATED]
    assert flag(data, np.full((1, 1), 100, np.float32), nframes=4, use_frames=False).ravel().tolist() == [0, 0, 2]


def test_a_hit_within_the_second_averaged_group_spoils_it():
    # The first group says that the ramp is slow, the third is full: the rise is within the second.
    data = np.array([2, 40, 100], np.float32).reshape(1, 3, 1, 1)
    assert flag(data, np.full((1, 1), 100, np.float32), nframes=4).ravel().tolist() == [0, DO_NOT_USE, SATURATED]
    slow = np.array([2, 20, 100], np.float32).reshape(1, 3, 1, 1)
    assert flag(slow, np.full((1, 1), 100, np.float32), nframes=4).ravel().tolist() == [0, 0, SATURATED]


def test_saturated_first_frames_and_those_around_become_zero():
    zeroframe = np.full((1, 5, 5), 50, np.float32)
    zeroframe[0, 1, 1] = 200
    zeroframe[0, 4, 4] = -3
    cleared = clear_saturated_zeroframe(zeroframe, np.full((5, 5), 100, np.float32), 1)
    assert (cleared[0, :3, :3] == 0).all()
    assert cleared[0, 4, 4] == 0
    assert (cleared[0] == 0).sum() == 10


def test_a_threshold_of_another_area_is_an_error():
    with pytest.raises(ValueError, match="cut the reference"):
        flag(np.zeros((1, 1, 2, 2), np.float32), np.zeros((3, 3), np.float32))


def test_rows_that_are_not_of_the_detector_are_not_looked_at():
    rng = np.random.default_rng(4)
    rows = np.array([1, 2, 4, 7])
    inner = rng.choice(np.array([-1, 0, 5, 9, 10, 11], np.float32), (2, 4, 4, 6))
    data = np.full((2, 4, 9, 6), 50, np.float32)
    data[:, :, rows] = inner
    threshold = np.full((4, 6), 10, np.float32)
    flagged = flag(data, threshold, rows=rows, grow=1, use_frames=False)
    np.testing.assert_array_equal(flagged[:, :, rows], by_definition(inner, threshold, 1))
    assert not np.delete(flagged, rows, axis=2).any()
    with pytest.raises(ValueError, match=r"must cover the detector area of data, \(4, 6\)"):
        flag(data, np.full((9, 6), 10, np.float32), rows=rows)


def test_with_other_rows_between_a_hit_within_the_second_group_saturates_it_and_its_neighbours():
    # The first group promises 3 of 100 for the third; the second has jumped by more than a frame at full well.
    rows = np.array([0, 1, 3, 4, 5])
    data = np.ones((1, 4, 6, 5), np.float32) * np.arange(1, 5, dtype=np.float32)[:, None, None]
    data[0, 1:, 3, 2] = 60, 110, 111
    threshold = np.full((5, 5), 100, np.float32)
    saturated = (flag(data, threshold, rows=rows, nframes=2) & SATURATED) != 0
    expected = np.zeros((6, 5), np.bool_)
    expected[[1, 3, 4], 1:4] = True
    np.testing.assert_array_equal(saturated[0, 1], expected)
    np.testing.assert_array_equal(saturated[0, 2], expected)
    assert not saturated[0, 0].any()
    slow = data.copy()
    slow[0, 1, 3, 2] = 40
    assert not flag(slow, threshold, rows=rows, nframes=2)[0, 1].any()
