"""Linearity: the polynomial, and where it is not applied."""

import numpy as np
import pytest

from calibration import dq
from calibration.ramps.linearity import flag_uncorrected, linearize, linearize_zeroframe

SATURATED, NO_LIN_CORR = dq.GROUP["SATURATED"], dq.PIXEL["NO_LIN_CORR"]


def test_agrees_with_the_polynomial():
    rng = np.random.default_rng(5)
    data = rng.uniform(0, 60_000, (2, 3, 4, 5)).astype(np.float32)
    coefficients = np.stack([np.full((4, 5), c) for c in (3, 1, 1e-6, -2e-12, 1e-17)]).astype(np.float32)
    corrected = linearize(data, np.zeros(data.shape, np.uint8), coefficients, np.zeros((4, 5), np.uint32))
    expected = sum(coefficients[j].astype(np.float64) * data.astype(np.float64) ** j for j in range(5))
    np.testing.assert_allclose(corrected, expected, rtol=1e-6)
    assert corrected.dtype == np.float32


def test_saturated_groups_and_unknown_pixels_stay_as_they_are():
    data = np.full((1, 2, 1, 3), 1000, np.float32)
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[0, 1, 0, 0] = SATURATED
    coefficients = np.zeros((3, 1, 3), np.float32)
    coefficients[1], coefficients[2] = 1, 1e-4
    coefficients[2, 0, 1] = np.nan
    coefficients[1, 0, 2] = 0
    flags = flag_uncorrected(coefficients, np.zeros((1, 3), np.uint32))
    assert flags.tolist() == [[0, NO_LIN_CORR, NO_LIN_CORR]]
    corrected = linearize(data, groupdq, coefficients, flags)
    assert corrected[0, :, 0].tolist() == [[1100, 1000, 1000], [1000, 1000, 1000]]


def test_an_unusable_first_frame_stays_zero():
    coefficients = np.zeros((2, 1, 2), np.float32)
    coefficients[0], coefficients[1] = 7, 2
    zeroframe = np.array([[[0, 10]]], np.float32)
    corrected = linearize_zeroframe(zeroframe, coefficients, np.zeros((1, 2), np.uint32))
    assert corrected.tolist() == [[[0, 27]]]


def test_coefficients_of_another_area_are_an_error():
    with pytest.raises(ValueError, match="coefficients must be"):
        linearize(
            np.zeros((1, 1, 2, 2), np.float32),
            np.zeros((1, 1, 2, 2), np.uint8),
            np.zeros((3, 4, 4), np.float32),
            np.zeros((2, 2), np.uint32),
        )
