"""Dark current: which frames of the dark belong to a group."""

import numpy as np
import pytest

from calibration.ramps.dark_current import groups_needed, is_dark_fine_enough, subtract_dark

FRAMES = np.arange(1, 41, dtype=np.float32)[:, None, None] ** 1.5


@pytest.mark.parametrize(("nframes", "groupgap"), [(1, 0), (1, 3), (4, 0), (4, 1), (2, 5)])
def test_a_dark_of_frames_is_averaged_to_the_groups(nframes, groupgap):
    ngroups = 5
    expected = [FRAMES[g * (nframes + groupgap) :][:nframes].mean() for g in range(ngroups)]
    subtracted = subtract_dark(np.zeros((2, ngroups, 1, 1), np.float32), FRAMES, nframes, groupgap, 1, 0)
    for i in range(2):
        np.testing.assert_allclose(-subtracted[i, :, 0, 0], expected, rtol=1e-6)


def test_a_dark_of_the_same_readout_is_taken_as_it_is():
    dark = FRAMES[:6]
    subtracted = subtract_dark(np.zeros((1, 4, 1, 1), np.float32), dark, 4, 1, 4, 1)
    np.testing.assert_array_equal(-subtracted[0], dark[:4])


@pytest.mark.parametrize(
    ("nframes", "groupgap", "dark"), [(1, 0, (1, 0)), (4, 1, (1, 0)), (4, 1, (4, 1)), (8, 2, (4, 1))]
)
def test_a_dark_need_not_be_read_further_than_its_groups_are_used(nframes, groupgap, dark):
    data, needed = np.zeros((1, 4, 1, 1), np.float32), groups_needed(4, nframes, groupgap, *dark)
    assert needed < len(FRAMES)
    spoilt = FRAMES.copy()
    spoilt[needed:] = -1e6
    whole, cut, other = (
        subtract_dark(data, one, nframes, groupgap, *dark) for one in (FRAMES, FRAMES[:needed], spoilt)
    )
    np.testing.assert_array_equal(cut, whole)
    np.testing.assert_array_equal(other, whole)
    spoilt[needed - 1] = -1e6
    assert np.any(subtract_dark(data, spoilt, nframes, groupgap, *dark) != whole)


def test_a_short_dark_goes_on_with_its_last_slope():
    dark = np.array([1, 3, 5], np.float32)[:, None, None]
    subtracted = subtract_dark(np.zeros((1, 6, 1, 1), np.float32), dark, 1, 0, 1, 0)
    assert (-subtracted).ravel().tolist() == [1, 3, 5, 7, 9, 11]


def test_where_the_dark_is_not_known_nothing_is_subtracted():
    dark = np.array([[[np.nan, 2]], [[np.nan, 4]]], np.float32)
    subtracted = subtract_dark(np.full((1, 2, 1, 2), 10, np.float32), dark, 1, 0, 1, 0)
    assert subtracted[0, :, 0].tolist() == [[10, 8], [10, 6]]


def test_integrations_beyond_those_of_the_dark_take_its_last():
    dark = np.array([1, 2], np.float32).reshape(2, 1, 1, 1)
    data = np.zeros((3, 1, 1, 1), np.float32)
    assert (-subtract_dark(data, dark, 1, 0, 1, 0)).ravel().tolist() == [1, 2, 2]
    assert (-subtract_dark(data, dark, 1, 0, 1, 0, first_integration=4)).ravel().tolist() == [2, 2, 2]


def test_a_coarser_dark_is_an_error():
    assert not is_dark_fine_enough(1, 0, 4, 0)
    with pytest.raises(ValueError, match="faster readout pattern"):
        subtract_dark(np.zeros((1, 2, 1, 1), np.float32), FRAMES, 1, 0, 4, 0)


def test_a_dark_of_another_area_is_an_error():
    with pytest.raises(ValueError, match="dark of this subarray"):
        subtract_dark(np.zeros((1, 2, 3, 3), np.float32), FRAMES, 1, 0, 1, 0)
