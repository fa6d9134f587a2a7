"""Sums across the dispersion, against a loop over pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibration import dq as flags
from calibration.spectra.extract_1d import aperture_correction, extract_box

BAD = flags.PIXEL["DO_NOT_USE"]


def planes(shape, seed):
    rng = np.random.default_rng(seed)
    data = rng.normal(5, 2, shape).astype(np.float32)
    dq = np.where(rng.random(shape) < 0.2, BAD, np.uint32(0)).astype(np.uint32)
    data[rng.random(shape) < 0.1] = np.nan
    wavelength = np.broadcast_to(np.linspace(1.8, 2.0, shape[1], dtype=np.float32), shape).copy()
    variances = [rng.uniform(0.1, 1, shape).astype(np.float32) for _ in range(3)]
    return data, dq, wavelength, variances


@given(shape=hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_agrees_with_the_definition_along_both_axes(shape, seed):
    data, dq, wavelength, variances = planes(shape, seed)
    found = extract_box(data, dq, wavelength, 1, *variances)
    turned = extract_box(data.T, dq.T, wavelength.T, 2, *(plane.T for plane in variances))
    for name in vars(found):
        np.testing.assert_array_equal(getattr(found, name), getattr(turned, name))
    for x in range(shape[1]):
        good = [y for y in range(shape[0]) if np.isfinite(data[y, x]) and not dq[y, x] & BAD]
        assert found.npixels[x] == len(good)
        assert found.dq[x] == (0 if good else BAD)
        if good:
            assert found.total[x] == pytest.approx(sum(float(data[y, x]) for y in good), rel=1e-12)
            assert found.var_rnoise[x] == pytest.approx(sum(float(variances[1][y, x]) for y in good), rel=1e-12)
        else:
            assert np.isnan(found.total[x])


def test_only_wavelengths_that_are_known_are_extracted():
    data, dq, wavelength, variances = planes((5, 8), 0)
    wavelength[:, :3] = np.nan
    found = extract_box(data, dq, wavelength, 1, *variances)
    np.testing.assert_allclose(found.wavelength, wavelength[0, 3:])


def test_missing_variances_count_as_nothing():
    data, dq, wavelength, variances = planes((5, 8), 0)
    variances[0][2, :] = np.nan
    found = extract_box(data, dq, wavelength, 1, variances[0], None, None)
    assert np.isfinite(found.var_poisson).all()
    assert not found.var_rnoise.any()


def test_a_level_background_is_subtracted_and_its_error_counts():
    data = np.full((9, 6), 3.0, np.float32)
    data[4] += 10
    one = np.ones((9, 6), np.float32)
    found = extract_box(data, np.zeros((9, 6), np.uint32), one * 2, 1, one, 0 * one, 0 * one, background_margin=2)
    np.testing.assert_allclose(found.total, 10)
    np.testing.assert_allclose(found.npixels, 5)
    np.testing.assert_allclose(found.background, 15)
    # 5 pixels of variance 1, and 5 times a mean of 4 such pixels.
    np.testing.assert_allclose(found.var_poisson, 5 + 25 / 4)


def test_a_cutout_too_low_for_its_background_is_refused():
    one = np.ones((4, 6), np.float32)
    with pytest.raises(ValueError, match=r"4 pixels across the dispersion has no room for 2 pixels of background"):
        extract_box(one, np.zeros((4, 6), np.uint32), one, 1, None, None, None, background_margin=2)


def test_the_aperture_correction_is_interpolated_in_size_and_wavelength():
    waves, sizes = np.array([2.0, 1.0]), np.array([4.0, 8.0])
    factors = np.array([[1.4, 1.2], [1.2, 1.0]])
    found = aperture_correction(np.array([1.0, 1.5, 2.0, 3.0]), 6.0, waves, sizes, factors)
    np.testing.assert_allclose(found, [1.1, 1.2, 1.3, 1.3])
    np.testing.assert_allclose(aperture_correction(np.array([1.0]), 4.0, waves, sizes, factors), [1.2])
