"""Guider images: which reads are subtracted in each mode."""

import numpy as np
import pytest

from calibration.ramps.guider_cds import difference_reads, estimate_error

READS = np.arange(2 * 12, dtype=np.float32).reshape(2, 12, 1, 1) ** 2


@pytest.mark.parametrize("exp_type", ["FGS_ACQ1", "FGS_ACQ2", "FGS_TRACK"])
def test_acquisition_and_track_take_the_second_read_less_the_first(exp_type):
    assert difference_reads(READS, exp_type).ravel().tolist() == [1, 13**2 - 12**2]


@pytest.mark.parametrize("exp_type", ["FGS_ID-IMAGE", "FGS_ID-STACK"])
def test_identification_keeps_the_smaller_difference(exp_type):
    reads = np.array([[0, 10], [0, 700]], np.float32).reshape(2, 2, 1, 1)
    assert difference_reads(reads, exp_type).tolist() == [[[10]]]


def test_fine_guide_takes_the_means_of_four_reads():
    expected = (READS[:, -4:].mean(axis=1) - READS[:, :4].mean(axis=1)).ravel()
    np.testing.assert_allclose(difference_reads(READS, "FGS_FINEGUIDE").ravel(), expected, rtol=1e-6)


def test_identification_of_one_integration_is_an_error():
    with pytest.raises(ValueError, match="needs 2 integrations"):
        difference_reads(READS[:1], "FGS_ID-STACK")


def test_one_group_is_an_error():
    with pytest.raises(ValueError, match="2 or more groups"):
        difference_reads(READS[:, :1], "FGS_ACQ1")


def test_the_error_has_read_noise_and_photon_noise():
    signal = np.array([[[100, -100]]], np.float32)
    error = estimate_error(signal, np.full((1, 2), 2, np.float32), np.full((1, 2), 3, np.float32), 0.5)
    expected = np.sqrt([2 * (3 / 0.5) ** 2 + 100 / (2 * 0.5), 2 * (3 / 0.5) ** 2])
    np.testing.assert_allclose(error[0, 0], expected, rtol=1e-6)
