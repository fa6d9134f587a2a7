"""Linearity: the polynomial, and where it is not applied."""

import numpy as np
import pytest

from calibration import dq
from calibration.ramps.linearity import flag_uncorrected, linearize, linearize_averages, linearize_zeroframe

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


def bent(linear):
    """A detector that loses 2e-6 of the square of its signal, and its two polynomials."""
    return linear - 2e-6 * linear**2


def test_the_mean_of_frames_is_corrected_frame_by_frame():
    # Signal from 0 to 48 000 DN in 6 groups of 8 frames: the mean of a bent ramp lies below the ramp at the mean time.
    frames = np.arange(1, 49).reshape(6, 8) * 1000.0
    data = bent(frames).mean(axis=1).astype(np.float32).reshape(1, 6, 1, 1)
    signal = np.linspace(0, 5e4, 2000)
    forward = np.polynomial.Polynomial.fit(bent(signal), signal, 7).convert().coef
    coefficients = forward.astype(np.float32)[:, None, None]
    inverse = np.array([0, 1, -2e-6], np.float32)[:, None, None]
    good, flags = np.zeros(data.shape, np.uint8), np.zeros((1, 1), np.uint32)
    truth = frames.mean(axis=1)
    simple = linearize(data, good, coefficients, flags).ravel() - truth
    careful = linearize_averages(data, good, coefficients, inverse, flags, 8).ravel() - truth
    assert np.abs(simple).max() > 8
    assert np.abs(careful).max() < 1


def test_averages_keep_saturated_groups_and_unknown_pixels():
    data = np.full((1, 3, 1, 2), 1000, np.float32)
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[0, 2, 0, 0] = SATURATED
    coefficients = np.zeros((3, 1, 2), np.float32)
    coefficients[1], coefficients[2] = 1, 1e-4
    flags = np.array([[0, NO_LIN_CORR]], np.uint32)
    corrected = linearize_averages(data, groupdq, coefficients, coefficients, flags, 4)
    assert corrected[0, 2].tolist() == [[1000, 1000]]
    assert (corrected[0, :, 0, 1] == 1000).all()
    assert corrected[0, 0, 0, 0] == pytest.approx(1100)
