"""Finding sources: background, smoothing and segments."""

import numpy as np
import pytest
from astropy.convolution import Gaussian2DKernel, convolve
from astropy.stats import SigmaClip, gaussian_fwhm_to_sigma
from photutils.background import Background2D, MedianBackground

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


def test_the_background_agrees_with_photutils():
    data = (field(np.random.default_rng(4)) + np.linspace(0, 1, SHAPE[1])).astype(np.float32)
    uncovered = NOWHERE.copy()
    uncovered[:, :7] = True
    expected = Background2D(
        data,
        30,
        filter_size=(3, 3),
        coverage_mask=uncovered,
        sigma_clip=SigmaClip(3.0),
        bkg_estimator=MedianBackground(),
    )
    sky = estimate_sky(data, uncovered, 30)
    # Theirs is interpolated in single precision.
    np.testing.assert_allclose(sky.level, expected.background, rtol=2e-5)
    np.testing.assert_allclose(sky.noise, expected.background_rms, rtol=2e-5)


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
    assert found.map.n_labels == len(PLACES)
    for x, y in PLACES:
        assert found.map.data[round(y), round(x)] > 0


def test_touching_sources_are_told_apart():
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    data = sum(np.exp(-0.5 * ((xx - x) ** 2 + (yy - 50) ** 2) / 2.0**2) for x in (50, 58))
    whole = find_segments(data, np.full(SHAPE, 0.02), NOWHERE, 2.0, 10, deblend=False)
    apart = find_segments(data, np.full(SHAPE, 0.02), NOWHERE, 2.0, 10)
    assert (whole.map.n_labels, apart.map.n_labels) == (1, 2)


def test_noise_has_no_segments():
    noise = np.random.default_rng(5).normal(0, 0.02, SHAPE)
    assert find_segments(noise, np.full(SHAPE, 0.06), NOWHERE, 2.0, 25).map is None
