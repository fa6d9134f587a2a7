"""group_scale, dq_init, superbias and gain_scale: one line of arithmetic each."""

import numpy as np
import pytest

from calibration import dq
from calibration.ramps.dq_init import apply_mask, exclude_bad_pixels
from calibration.ramps.gain_scale import rescale_rates
from calibration.ramps.group_scale import rescale_groups
from calibration.ramps.superbias import subtract_bias, subtract_bias_from_zeroframe


def test_groups_become_the_true_mean_of_their_frames():
    frames = np.array([10.0, 20, 30, 40, 50], np.float32)
    on_board = np.full((1, 1, 1, 1), frames.sum() / 8, np.float32)
    assert rescale_groups(on_board, nframes=5, frame_divisor=8).item() == pytest.approx(frames.mean())


def test_a_divisor_of_zero_is_an_error():
    with pytest.raises(ValueError, match="at least 1"):
        rescale_groups(np.zeros((1, 1, 1, 1), np.float32), 4, 0)


def test_only_do_not_use_reaches_the_groups():
    mask = np.array([[dq.PIXEL["DO_NOT_USE"] | dq.PIXEL["DEAD"], dq.PIXEL["HOT"]]], np.uint32)
    groupdq = np.full((2, 3, 1, 2), dq.GROUP["SATURATED"], np.uint8)
    flagged = exclude_bad_pixels(groupdq, mask)
    assert (flagged[..., 0] == dq.GROUP["SATURATED"] | dq.GROUP["DO_NOT_USE"]).all()
    assert (flagged[..., 1] == dq.GROUP["SATURATED"]).all()
    assert (groupdq == dq.GROUP["SATURATED"]).all(), "the input must stay as it was"


def test_flags_of_the_mask_are_added():
    pixeldq = np.array([[1, 0]], np.uint32)
    np.testing.assert_array_equal(apply_mask(pixeldq, np.array([[2, 4]], np.uint32)), [[3, 4]])


def test_a_mask_of_another_area_is_an_error():
    with pytest.raises(ValueError, match="cut the reference"):
        apply_mask(np.zeros((2, 2), np.uint32), np.zeros((4, 4), np.uint32))


def test_where_the_bias_is_not_known_nothing_is_subtracted():
    bias = np.array([[100, np.nan]], np.float32)
    data = np.full((2, 2, 1, 2), 150, np.float32)
    subtracted = subtract_bias(data, bias)
    assert (subtracted[..., 0] == 50).all()
    assert (subtracted[..., 1] == 150).all()
    assert subtracted.dtype == np.float32


def test_an_unusable_first_frame_stays_so():
    zeroframe = np.array([[[0, 150]]], np.float32)
    np.testing.assert_array_equal(
        subtract_bias_from_zeroframe(zeroframe, np.full((1, 2), 100, np.float32)), [[[0, 50]]]
    )


def test_a_superbias_of_another_area_is_an_error():
    with pytest.raises(ValueError, match="superbias must cover"):
        subtract_bias(np.zeros((1, 1, 2, 2), np.float32), np.zeros((3, 3), np.float32))


def test_variances_scale_with_the_square_of_the_gain_factor():
    one = np.ones((1, 1), np.float32)
    scaled = rescale_rates(one, one, one, one, 2.0)
    assert [plane.item() for plane in scaled] == [2, 2, 4, 4]


@pytest.mark.parametrize("factor", [0.0, -1.0, np.nan])
def test_a_gain_factor_that_is_not_positive_is_an_error(factor):
    one = np.ones((1, 1), np.float32)
    with pytest.raises(ValueError, match="above 0"):
        rescale_rates(one, one, one, one, factor)
