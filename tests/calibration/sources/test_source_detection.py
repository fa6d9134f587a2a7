"""Finding sources: background, smoothing, segments and stars."""

import numpy as np
import pytest
from astropy.convolution import Gaussian2DKernel, convolve
from astropy.stats import SigmaClip, gaussian_fwhm_to_sigma
from photutils.background import Background2D, MedianBackground
from scipy.ndimage import maximum_filter

from calibration.sources.detect import estimate_sky, find_peaks, find_segments, find_stars, smooth

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


@pytest.mark.parametrize("finder", ["iraf", "dao"])
def test_stars_are_found_where_they_are_brightest_first(finder):
    rng = np.random.default_rng(6)
    options = {"sharpness": (0.2, 2.0), "roundness": (-1.0, 1.0)}
    found = find_stars(
        field(rng) - 1, 0.5, NOWHERE, finder, 3.0, minimal_separation=2, brightest=200, peak_max=None, **options
    )
    assert len(found) == len(PLACES)
    distance = np.hypot(found["x"][:, None] - PLACES[:, 0], found["y"][:, None] - PLACES[:, 1]).min(axis=1)
    # IRAF takes its centroid from a small window: a tenth of a pixel or so.
    assert distance.max() < 0.2
    assert (np.diff(found["flux"]) <= 0).all()


def test_an_empty_image_has_no_stars():
    found = find_stars(np.zeros(SHAPE), 0.5, NOWHERE, "iraf", 3.0, (0.2, 2), (-1, 1), 2, 200, None)
    assert len(found) == 0
    assert set(found.colnames) == {"x", "y", "flux"}


@pytest.mark.parametrize("separation", [1, 2, 3.5])
def test_peaks_are_those_of_a_maximum_filter(separation):
    rng = np.random.default_rng(3)
    image = rng.integers(-3, 9, (60, 70)).astype(np.float32)  # with equal neighbours
    image[20:22, 30] = np.nan
    mask = rng.random(image.shape) < 0.05
    reach = int(separation)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    lowest = np.where(np.isnan(image), -10, image)
    highest = maximum_filter(lowest, footprint=dy**2 + dx**2 <= separation**2, mode="constant", cval=0.0)
    expected = np.argwhere((lowest == highest) & (lowest > 2) & ~mask)[:, ::-1]
    np.testing.assert_array_equal(find_peaks(image, 2.0, mask, separation), expected)
