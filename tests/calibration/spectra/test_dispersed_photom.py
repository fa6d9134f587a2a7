"""From counts to surface brightness, pixel by pixel; and pixels that have no value."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration import dq as flags
from calibration.spectra.photom import Cutout, calibrate_cutout, dispersed_conversion
from calibration.spectra.pixel_replace import replace_pixels

BAD = flags.PIXEL["DO_NOT_USE"]
WAVES = np.linspace(2.4, 1.6, 50)  # falling, as a reference may have them
RESPONSE = 1 + WAVES**2


def cutout(shape=(5, 7), value=2.0):
    plane = np.full(shape, value, np.float32)
    return Cutout(plane, plane / 2, np.zeros(shape, np.uint32), plane.copy(), plane.copy(), None)


@given(step=st.floats(0.001, 0.02), axis=st.sampled_from([1, 2]))
def test_a_pixel_sees_the_light_of_its_part_of_the_spectrum(step, axis):
    line = 1.8 + step * np.arange(7)
    wavelength = np.broadcast_to(line, (5, 7)) if axis == 1 else np.broadcast_to(line[:, None], (7, 5))
    found = dispersed_conversion(wavelength, axis, 3.0, WAVES, RESPONSE)
    np.testing.assert_allclose(found, 3.0 * (1 + wavelength**2) / step, rtol=2e-4)


def test_pixels_outside_of_the_sensitivity_have_no_value():
    wavelength = np.broadcast_to(np.array([1.5, 1.7, 1.9, 2.1, 2.3, 2.5, np.nan]), (5, 7))
    conversion = dispersed_conversion(wavelength, 1, 1.0, WAVES, RESPONSE)
    assert np.isnan(conversion[0]).tolist() == [True, False, False, False, False, True, True]
    done = calibrate_cutout(cutout(), conversion)
    assert np.isnan(done.data[:, 0]).all()
    assert np.isnan(done.err[:, 6]).all()
    assert (done.dq[:, 0] == BAD).all()
    assert not done.dq[:, 2].any()
    assert done.var_flat is None


def test_variances_scale_with_the_square():
    conversion = np.full((5, 7), 3.0)
    done = calibrate_cutout(cutout(), conversion)
    np.testing.assert_allclose([done.data[0, 0], done.err[0, 0], done.var_poisson[0, 0]], [6, 3, 18])


def test_a_pixel_with_a_flag_or_a_nan_loses_all_its_values():
    start = cutout()
    start.dq[1, 1] = BAD
    start.var_rnoise[2, 2] = np.nan
    done = calibrate_cutout(start, np.ones((5, 7)))
    for y, x in ((1, 1), (2, 2)):
        assert np.isnan([done.data[y, x], done.err[y, x], done.var_poisson[y, x]]).all()
        assert done.dq[y, x] & BAD
    assert np.isfinite(start.data).all(), "the input must stay as it was"


def test_a_missing_pixel_takes_the_mean_of_the_pair_that_differs_least():
    y, x = np.mgrid[0:7, 0:9]
    data = (100.0 * y + x).astype(np.float32)
    dq = np.zeros(data.shape, np.uint32)
    dq[3, 4] = BAD | flags.PIXEL["JUMP_DET"]
    data[3, 4] = np.nan
    done, count = replace_pixels(Cutout(data, np.ones_like(data), dq, np.ones_like(data), None, None))
    assert count == 1
    assert done.data[3, 4] == pytest.approx(304)
    assert done.dq[3, 4] == flags.PIXEL["JUMP_DET"] | flags.PIXEL["FLUX_ESTIMATED"]
    assert done.var_poisson[3, 4] == 1
    assert done.err[3, 4] == 1


def test_a_missing_pixel_without_a_whole_pair_of_neighbours_stays_missing():
    data = np.ones((3, 3), np.float32)
    dq = np.full((3, 3), BAD)
    dq[0, 0] = 0
    done, count = replace_pixels(Cutout(data, data, dq, data, data, data))
    assert count == 0
    np.testing.assert_array_equal(done.dq, dq)


def test_pixels_outside_of_the_science_area_are_not_estimated():
    data = np.ones((3, 3), np.float32)
    dq = np.zeros((3, 3), np.uint32)
    dq[1, 1] = BAD | flags.PIXEL["NON_SCIENCE"]
    _, count = replace_pixels(Cutout(data, data, dq, None, None, None))
    assert count == 0
