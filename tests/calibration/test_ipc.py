"""IPC: the kernel against scipy, and what happens at reference pixels."""

import numpy as np
import pytest
from scipy.signal import convolve2d

from calibration.ramps.ipc import Border, mid_infrared_border, near_infrared_border, undo_ipc
from calibration.subarrays import Subarray

NONE = Border(0, 0, 0, 0)


def test_one_kernel_for_all_agrees_with_a_convolution():
    rng = np.random.default_rng(1)
    data, kernel = rng.normal(size=(2, 2, 9, 7)).astype(np.float32), rng.normal(size=(3, 5)).astype(np.float32)
    corrected = undo_ipc(data, kernel, NONE)
    for i, g in np.ndindex(2, 2):
        np.testing.assert_allclose(corrected[i, g], convolve2d(data[i, g], kernel, "same"), rtol=1e-5, atol=1e-5)


def test_a_kernel_per_pixel_that_is_the_same_everywhere_gives_the_same():
    rng = np.random.default_rng(2)
    data, kernel = rng.normal(size=(1, 1, 6, 8)).astype(np.float32), rng.normal(size=(3, 3)).astype(np.float32)
    everywhere = np.broadcast_to(kernel[:, :, None, None], (3, 3, 6, 8))
    np.testing.assert_allclose(undo_ipc(data, everywhere, NONE), undo_ipc(data, kernel, NONE), rtol=1e-6)


def test_reference_pixels_are_neither_changed_nor_used():
    data = np.zeros((1, 1, 10, 10), np.float32)
    data[..., :4] = 1000
    data[..., 6, 6] = 10
    kernel = np.array([[0, 0, 0], [-0.1, 1.2, -0.1], [0, 0, 0]], np.float32)
    corrected = undo_ipc(data, kernel, Border(0, 0, 4, 0))
    assert (corrected[..., :4] == 1000).all()
    assert (corrected[0, 0, :, 4] == 0).all()
    assert corrected[0, 0, 6, 5:8].tolist() == pytest.approx([-1, 12, -1])


def test_borders_are_the_reference_pixels_within_the_subarray():
    assert near_infrared_border(Subarray(1, 1, 2048, 2048)) == Border(4, 4, 4, 4)
    assert near_infrared_border(Subarray(3, 2040, 100, 6)) == Border(0, 1, 2, 0)
    assert mid_infrared_border(Subarray(1, 1, 1032, 1024)) == Border(0, 0, 4, 4)


def test_an_even_kernel_is_an_error():
    with pytest.raises(ValueError, match="odd number"):
        undo_ipc(np.zeros((1, 1, 4, 4), np.float32), np.zeros((2, 3), np.float32), NONE)


def test_rows_that_are_not_of_the_detector_stay_as_they_are_and_are_not_used():
    rng = np.random.default_rng(5)
    rows = np.array([0, 3, 4, 5, 7, 8])
    data, kernel = rng.normal(size=(1, 2, 9, 7)).astype(np.float32), rng.normal(size=(3, 3)).astype(np.float32)
    corrected = undo_ipc(data, kernel, Border(1, 0, 0, 0), rows)
    np.testing.assert_array_equal(corrected[:, :, rows], undo_ipc(data[:, :, rows], kernel, Border(1, 0, 0, 0)))
    np.testing.assert_array_equal(np.delete(corrected, rows, axis=2), np.delete(data, rows, axis=2))
