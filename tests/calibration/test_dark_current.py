"""Dark current: which frames of the dark belong to a group."""

import numpy as np
import pytest

from calibration.ramps.dark_current import is_dark_fine_enough, subtract_dark

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


class OnDisk:
    """An array that remembers which planes of it were read."""

    def __init__(self, array):
        self.array, self.shape, self.read = array, array.shape, []

    def __getitem__(self, index):
        self.read.append(index)
        return self.array[index]


@pytest.mark.parametrize(
    ("nframes", "groupgap", "dark_readout", "frames"),
    [(1, 0, (1, 0), [0, 1, 2]), (4, 1, (4, 1), [0, 1, 2]), (2, 3, (1, 0), [0, 1, 5, 6, 10, 11])],
)
@pytest.mark.parametrize("nints_of_dark", [0, 1, 2])
def test_a_dark_is_read_once_and_not_further_than_needed(nframes, groupgap, dark_readout, frames, nints_of_dark):
    dark = OnDisk(np.stack([FRAMES] * nints_of_dark) if nints_of_dark else FRAMES)
    data = np.zeros((3, 3, 1, 1), np.float32)
    subtracted = subtract_dark(data, dark, nframes, groupgap, *dark_readout)
    assert sorted(dark.read) == [
        (*i, f) for i in ([()] if not nints_of_dark else [(i,) for i in range(nints_of_dark)]) for f in frames
    ]
    np.testing.assert_array_equal(subtracted, subtract_dark(data, dark.array, nframes, groupgap, *dark_readout))


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


def test_it_does_not_matter_how_integrations_are_shared_out():
    dark = np.array([1, 2, 3, 4], np.float32).reshape(4, 1, 1, 1)
    data = np.zeros((6, 1, 1, 1), np.float32)
    whole = subtract_dark(data, dark, 1, 0, 1, 0)
    parts = [subtract_dark(data[i : i + 2], dark, 1, 0, 1, 0, first_integration=i + 1) for i in (0, 2, 4)]
    assert (-whole).ravel().tolist() == [1, 2, 3, 4, 4, 4]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_coarser_dark_is_an_error():
    assert not is_dark_fine_enough(1, 0, 4, 0)
    with pytest.raises(ValueError, match="faster readout pattern"):
        subtract_dark(np.zeros((1, 2, 1, 1), np.float32), FRAMES, 1, 0, 4, 0)


def test_a_dark_of_another_area_is_an_error():
    with pytest.raises(ValueError, match="dark of this subarray"):
        subtract_dark(np.zeros((1, 2, 3, 3), np.float32), FRAMES, 1, 0, 1, 0)
