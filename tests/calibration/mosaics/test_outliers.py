"""Outliers, against their definition and what was injected."""

import numpy as np
import pytest
from astropy.stats import sigma_clipped_stats
from drizzle.resample import blot_image
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import binary_dilation

from calibration.mosaics.outliers import Thresholds, blot, flag_outliers, mask_low_weight, median_image

VALUES = st.floats(-100, 100, width=32) | st.just(np.nan)


def steps_to_neighbours(model):
    padded = np.pad(model, 1, constant_values=np.nan)
    around = [padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]]
    return np.nanmax([np.abs(model - other) for other in around] + [np.zeros_like(model)], axis=0)


@settings(deadline=None)
@given(st.data(), hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), st.floats(-5, 5))
def test_agrees_with_the_definition(data, shape, sky):
    science, model = (data.draw(hnp.arrays(np.float32, shape, elements=VALUES)) for _ in range(2))
    err = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(0, 5, width=32)))
    thresholds = Thresholds((5.0, 4.0), (1.2, 0.7))
    difference = np.abs(science.astype(float) - model - sky)
    limits = [k * steps_to_neighbours(model.astype(float)) + n * err for k, n in ((1.2, 5.0), (0.7, 4.0))]
    strong, weak = difference > limits[0], difference > limits[1]
    close = np.any([np.isclose(difference, limit, rtol=1e-5, atol=1e-4) for limit in limits], axis=0)
    expected = binary_dilation(strong, np.ones((3, 3))) & weak
    flagged = flag_outliers(science, err, model, sky, thresholds)
    # Beside a pixel that is within rounding of a threshold, either answer is right.
    sure = ~binary_dilation(close, np.ones((3, 3)))
    np.testing.assert_array_equal(flagged[sure], expected[sure])


def test_a_weak_outlier_counts_only_beside_a_strong_one():
    data = np.zeros((7, 9), np.float32)
    data[3, 2], data[3, 3], data[3, 7] = 6, 4.5, 4.5
    flagged = flag_outliers(data, np.ones_like(data), np.zeros_like(data), 0.0, Thresholds())
    assert flagged[3, 2]
    assert flagged[3, 3]
    assert flagged.sum() == 2


def test_steep_places_have_a_higher_threshold():
    data, model = np.zeros((5, 5), np.float32), np.zeros((5, 5), np.float32)
    model[2, 2], data[2, 2] = 10, 22
    assert not flag_outliers(data, np.ones_like(data), model, 0.0, Thresholds((5, 4), (1.2, 0.7))).any()
    assert flag_outliers(data, np.ones_like(data), model, 0.0, Thresholds((5, 4), (0.2, 0.1)))[2, 2]


def test_shapes_that_differ_are_an_error():
    with pytest.raises(ValueError, match="must have one shape"):
        flag_outliers(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 3)), 0.0, Thresholds())


@settings(deadline=None)
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=VALUES))
@pytest.mark.filterwarnings("ignore:All-NaN")
def test_the_median_agrees_with_numpy(cube):
    np.testing.assert_array_equal(median_image(cube), np.nanmedian(cube, axis=0))


def test_pixels_of_low_weight_stay_out_of_the_median():
    weight = np.full((20, 20), 10.0, np.float32)
    weight[3, 4], weight[5, 5], weight[0, 0] = 6.9, 7.1, 0
    masked = mask_low_weight(np.ones((20, 20), np.float32), weight, 0.7)
    assert np.isnan(masked[3, 4])
    assert np.isnan(masked[0, 0])
    assert np.isnan(masked).sum() == 2
    assert np.isnan(mask_low_weight(np.ones((3, 3), np.float32), np.zeros((3, 3), np.float32), 0.7)).all()


def test_the_mean_weight_leaves_out_what_is_far_from_most():
    rng = np.random.default_rng(2)
    weight = rng.normal(10, 0.1, (400, 500)).astype(np.float32)
    weight[:20] = 3
    data = np.ones_like(weight)
    mean = sigma_clipped_stats(weight, sigma=3, maxiters=5)[0]
    assert mean == pytest.approx(10, abs=0.01)
    masked = mask_low_weight(data, weight, 0.999)
    # The limit is good to a thousandth of the scatter.
    sure = np.abs(weight - 0.999 * mean) > 1e-4
    np.testing.assert_array_equal(np.isnan(masked)[sure], (weight < 0.999 * mean)[sure])


def test_blotting_is_that_of_the_drizzle_package():
    rng = np.random.default_rng(5)
    median = rng.normal(size=(30, 35)).astype(np.float32)
    pixmap = rng.uniform(-3, 38, (20, 25, 2))
    pixmap[2, 3] = np.nan
    package = np.full((20, 25), np.nan, np.float32)
    known = np.where(np.isnan(pixmap), -1.0, pixmap)
    blot_image(median, known, out_img=package, fillval=np.nan, interp="linear")
    # The package repeats the last row and column for a while.
    inside = ((pixmap >= 0) & (pixmap <= (34, 29))).all(axis=-1)
    image = blot(median, pixmap)
    np.testing.assert_allclose(image[inside], package[inside], atol=1e-5)
    assert np.isnan(image[(pixmap < 0).any(axis=-1) | (pixmap >= (34.5, 29.5)).any(axis=-1)]).all()
    assert np.isnan(image[2, 3])


def test_blotting_is_linear_interpolation():
    rng = np.random.default_rng(3)
    median = rng.normal(size=(12, 14)).astype(np.float32)
    yy, xx = np.mgrid[1:9, 1:10].astype(float)
    pixmap = np.stack([xx + 0.25, yy + 0.5], axis=-1)
    pixmap[0, 0] = np.nan
    image = blot(median, pixmap)
    y, x = np.mgrid[1:9, 1:10]
    expected = 0.5 * (0.75 * median[y, x] + 0.25 * median[y, x + 1]) + 0.5 * (
        0.75 * median[y + 1, x] + 0.25 * median[y + 1, x + 1]
    )
    assert np.isnan(image[0, 0])
    np.testing.assert_allclose(image.ravel()[1:], expected.ravel()[1:], rtol=1e-5, atol=1e-6)
