"""The mean of background exposures."""

import numpy as np
import pytest
from astropy.stats import sigma_clip

from calibration.images.background import average_background, clipped_mean


def test_agrees_with_astropy():
    rng = np.random.default_rng(2)
    stack = rng.normal(5, 1, (9, 6, 7)).astype(np.float32)
    stack[rng.random(stack.shape) < 0.1] += 40
    stack[rng.random(stack.shape) < 0.1] = np.nan
    for maxiters in (1, 2, None):
        with pytest.warns(UserWarning, match="invalid"):
            expected = sigma_clip(stack.astype(float), sigma=2.0, maxiters=maxiters, axis=0).mean(axis=0)
        np.testing.assert_allclose(clipped_mean(stack, 2.0, maxiters), expected.filled(np.nan), rtol=1e-6)


def test_a_source_that_one_exposure_has_is_left_out():
    stack = np.ones((12, 3, 3), np.float32)
    stack[4, 1, 1] = 100
    np.testing.assert_array_equal(clipped_mean(stack), 1)


def test_a_pixel_without_any_value_stays_without():
    stack = np.ones((3, 2, 2), np.float32)
    stack[:, 0, 1] = np.nan
    mean = clipped_mean(stack)
    assert np.isnan(mean[0, 1])
    assert np.isfinite(mean).sum() == 3


def test_integrations_are_averaged_first_and_flags_are_collected():
    cube = np.stack([np.full((2, 2), value, np.float32) for value in (1, 3)])
    flags = np.zeros((2, 2, 2), np.uint32)
    flags[1, 0, 0] = 4
    errors = [np.full((2, 2, 2), 0.3, np.float32), np.full((2, 2), 0.4, np.float32)]
    flags = [flags, np.full((2, 2), 2, np.uint32)]
    mean = average_background([cube, np.full((2, 2), 4.0, np.float32)], errors, flags)
    np.testing.assert_array_equal(mean.data, 3)
    np.testing.assert_allclose(mean.err, 0.25, rtol=1e-6)
    np.testing.assert_array_equal(mean.dq, [[6, 2], [2, 2]])


def test_the_error_is_that_of_what_was_not_clipped():
    stack = [np.full((1, 1), value, np.float32) for value in (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 90, np.nan)]
    errors = [np.full((1, 1), 0.2, np.float32)] * len(stack)
    mean = average_background(stack, errors, [np.zeros((1, 1), np.uint32)] * len(stack))
    assert mean.data == 1
    np.testing.assert_allclose(mean.err, 0.2 / np.sqrt(11), rtol=1e-6)


def test_exposures_of_different_areas_are_an_error():
    with pytest.raises(ValueError, match="must cover one area"):
        average_background(
            [np.ones((2, 2)), np.ones((3, 2))],
            [np.ones((2, 2)), np.ones((3, 2))],
            [np.zeros((2, 2), np.uint32), np.zeros((3, 2), np.uint32)],
        )
