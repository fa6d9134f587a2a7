"""The level of the sky between spectra."""

import numpy as np
import pytest

from calibration import dq as flags
from calibration.images.wfss_background import TooFewFreePixels, mask_boxes, subtract_wfss_background

SHAPE = (80, 90)


def exposure(level=0.7, seed=5):
    """Sky of a known level, noise of 2 per cent, a spectrum that is masked and one that is not known of."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    sky = (1 + 0.3 * np.sin(x / 15) + 0.002 * y).astype(np.float32)
    err = np.full(SHAPE, 0.02, np.float32)
    data = (level * sky + rng.normal(0, 0.02, SHAPE)).astype(np.float32)
    data[20:30, 10:70] += 5
    data[50:52, 60:64] += 1
    dq = np.zeros(SHAPE, np.uint32)
    dq[rng.random(SHAPE) < 0.02] = flags.PIXEL["DO_NOT_USE"]
    data[dq > 0] = np.nan
    covered = mask_boxes(SHAPE, np.array([8, -5]), np.array([72, 4]), np.array([18, 70]), np.array([32, 200]))
    return data, err, dq, sky, np.zeros(SHAPE, np.uint32), covered


def test_the_level_is_found_between_the_spectra():
    data, err, dq, sky, sky_dq, covered = exposure()
    done = subtract_wfss_background(data, err, dq, sky, sky_dq, covered, axis=1)
    assert done.factor == pytest.approx(0.7, abs=4 * 0.02 / np.sqrt(data.size))
    assert np.nanmedian(done.data[25, 10:70]) == pytest.approx(5, abs=0.02)
    assert done.data.dtype == np.float32
    assert np.nanmax(data) > 5.5, "the input must stay as it was"


def test_without_its_mask_a_spectrum_lifts_the_level():
    data, err, dq, sky, sky_dq, covered = exposure()
    done = subtract_wfss_background(data, err, dq, sky, sky_dq, np.zeros_like(covered), axis=1)
    assert done.factor > 0.75


def test_the_rounds_end_when_the_residual_no_longer_shrinks():
    arrays = exposure()
    early = subtract_wfss_background(*arrays, axis=1, rms_stop=0.9, outlier_percent=20, max_iterations=1000)
    assert early.factor == pytest.approx(0.7, abs=0.01)


def test_flags_of_the_reference_are_added():
    data, err, dq, sky, sky_dq, covered = exposure()
    sky_dq[3, 4] = 1024
    assert subtract_wfss_background(data, err, dq, sky, sky_dq, covered, axis=2).dq[3, 4] & 1024


def test_too_few_free_pixels_are_told():
    data, err, dq, sky, sky_dq, covered = exposure()
    covered[4:] = True
    with pytest.raises(TooFewFreePixels, match=r"only \d+ of 7200 pixels are free of spectra, less than 5%"):
        subtract_wfss_background(data, err, dq, sky, sky_dq, covered, axis=1)


def test_other_shapes_are_refused():
    data, err, dq, sky, sky_dq, covered = exposure()
    with pytest.raises(ValueError, match=r"the background reference \(80, 89\)"):
        subtract_wfss_background(data, err, dq, sky[:, 1:], sky_dq, covered, axis=1)


def test_boxes_may_reach_beyond_the_image():
    covered = mask_boxes((4, 5), np.array([-3, 4, -9]), np.array([0, 9, -2]), np.array([1, -2, 0]), np.array([2, 0, 3]))
    assert np.argwhere(covered).tolist() == [[0, 4], [1, 0], [2, 0]]


def test_pixels_that_are_low_by_chance_do_not_pull_the_level_down():
    rng = np.random.default_rng(8)
    shape = (300, 300)
    sky = np.ones(shape, np.float32)
    data = rng.poisson(100, shape).astype(np.float32)
    none = np.zeros(shape, np.uint32)
    done = subtract_wfss_background(data, np.sqrt(data), none, sky, none, none > 0, axis=1)
    # Weights of 1 / err^2 would give 99: one count less.
    assert done.factor == pytest.approx(100, abs=4 * 10 / 300 + 0.1)
