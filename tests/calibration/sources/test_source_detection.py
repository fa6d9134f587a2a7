"""Finding sources: background, smoothing and segments."""

import warnings

import numpy as np
import pytest
from astropy.convolution import Gaussian2DKernel, convolve
from astropy.stats import SigmaClip, gaussian_fwhm_to_sigma
from astropy.utils.exceptions import AstropyUserWarning
from hypothesis import given, settings
from hypothesis import strategies as st
from photutils.background import Background2D, MedianBackground
from photutils.segmentation import SourceFinder

from calibration.sources.deblend import MANY_SEEDS
from calibration.sources.detect import estimate_sky, find_segments, smooth

SHAPE = (100, 120)
NOWHERE = np.zeros(SHAPE, bool)
PLACES = np.array([[20.3, 30.6], [80.0, 22.4], [55.5, 71.2], [100.8, 80.1]])


def field(rng, peak=3.0, sigma=1.3, noise=0.02, sky=1.0):
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.full(SHAPE, sky)
    for x, y in PLACES:
        image += peak * np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / sigma**2)
    return (image + rng.normal(0, noise, SHAPE)).astype(np.float32)


def test_the_background_and_its_noise_are_found_under_sources():
    sky = estimate_sky(field(np.random.default_rng(1)), NOWHERE, 50)
    assert np.median(sky.level) == pytest.approx(1.0, abs=0.005)
    assert np.median(sky.noise) == pytest.approx(0.02, rel=0.1)


def by_photutils(data, uncovered, box, **common):
    """Background and its noise by the package whose definition we follow."""
    common = {"filter_size": (3, 3), "coverage_mask": uncovered, "sigma_clip": SigmaClip(3.0)} | common
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        found = Background2D(data, box, bkg_estimator=MedianBackground(), **common)
        return found.background, found.background_rms


@settings(deadline=None, max_examples=20)
@given(st.integers(12, 130), st.integers(0, 1000), st.booleans())
def test_the_background_is_that_of_the_definition_for_any_box(box, seed, holes):
    rng = np.random.default_rng(seed)
    data = field(rng) + np.linspace(0, 0.1, SHAPE[1], dtype=np.float32)
    uncovered = NOWHERE.copy()
    if holes:
        uncovered[: rng.integers(1, 60), : rng.integers(1, 110)] = True
        data[rng.random(SHAPE) < 0.01] = np.nan
    try:
        expected = by_photutils(data, uncovered, box)
    except ValueError:
        # No box is full enough: one for all.
        expected = by_photutils(data, uncovered, SHAPE, exclude_percentile=100.0)
    sky = estimate_sky(data, uncovered, box)
    np.testing.assert_allclose(sky.level, expected[0], rtol=1e-6)
    np.testing.assert_allclose(sky.noise, expected[1], rtol=1e-5, atol=1e-9)


def test_an_image_without_data_has_no_background():
    assert estimate_sky(np.full(SHAPE, np.nan, np.float32), ~NOWHERE, 50) is None


@pytest.mark.parametrize("fwhm", [2.0, 2.5, 4.0])
def test_smoothing_agrees_with_astropy(fwhm):
    rng = np.random.default_rng(2)
    data = rng.normal(size=SHAPE)
    mask = rng.random(SHAPE) < 0.1
    expected = convolve(data, Gaussian2DKernel(fwhm * gaussian_fwhm_to_sigma), mask=mask)
    np.testing.assert_allclose(smooth(data, fwhm, mask), expected, rtol=1e-6, atol=1e-9)


def test_each_source_is_a_segment_and_nothing_else_is():
    data = field(np.random.default_rng(3)) - 1
    found = find_segments(data, np.full(SHAPE, 0.06), NOWHERE, 2.0, 10)
    assert found.count == len(PLACES)
    for x, y in PLACES:
        assert found.labels[round(y), round(x)] > 0


def test_touching_sources_are_told_apart():
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    data = sum(np.exp(-0.5 * ((xx - x) ** 2 + (yy - 50) ** 2) / 2.0**2) for x in (50, 58))
    whole = find_segments(data, np.full(SHAPE, 0.02), NOWHERE, 2.0, 10, deblend=False)
    apart = find_segments(data, np.full(SHAPE, 0.02), NOWHERE, 2.0, 10)
    assert (whole.count, apart.count) == (1, 2)
    np.testing.assert_array_equal(apart.parts, [2, 2])


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10_000),
    st.integers(1, 30),
    st.sampled_from([4, 8]),
    st.sampled_from(["exponential", "linear", "sinh"]),
    st.sampled_from([0.0, 0.001, 0.05, 1.0]),
    st.integers(2, 40),
)
def test_segments_are_those_of_photutils(seed, npixels, connectivity, mode, contrast, nlevels):
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 60)
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    data = rng.normal(0, 0.02, SHAPE)
    for x, y, peak, sigma in rng.uniform((0, 0, -2, 0.8), (SHAPE[1], SHAPE[0], 3, 4), (count, 4)):
        data += 10**peak * np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / sigma**2)
    data = data.astype(np.float32)
    mask = rng.random(SHAPE) < 0.02
    threshold = np.full(SHAPE, 0.03, np.float32)
    found = find_segments(data, threshold, mask, 2.0, npixels, connectivity, True, nlevels, contrast, mode)
    finder = SourceFinder(
        n_pixels=npixels,
        connectivity=connectivity,
        mode=mode,
        contrast=contrast,
        n_levels=nlevels,
        progress_bar=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = finder(found.smoothed, threshold, mask=mask)
    labels = np.zeros(SHAPE, int) if expected is None else expected.data
    np.testing.assert_array_equal(found.labels, labels)
    assert found.count == labels.max()


def test_a_crowd_of_touching_stars_is_told_apart_at_even_levels():
    yy, xx = np.mgrid[:200, :200]
    data = np.full((200, 200), 0.1, np.float32)
    for x in range(6, 200, 11):
        for y in range(6, 200, 11):
            data += np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / 4).astype(np.float32)
    nowhere = np.zeros(data.shape, bool)
    found = find_segments(data, np.full(data.shape, 0.05, np.float32), nowhere, 2.0, 5)
    assert MANY_SEEDS < 18**2
    assert found.count == 18**2
    assert set(found.parts) == {18**2}
    assert (np.bincount(found.labels.ravel())[1:] > 50).all()


def test_noise_has_no_segments():
    noise = np.random.default_rng(5).normal(0, 0.02, SHAPE)
    assert find_segments(noise, np.full(SHAPE, 0.06), NOWHERE, 2.0, 25).count == 0
