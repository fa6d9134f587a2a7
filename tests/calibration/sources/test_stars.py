"""Finding stars, and measuring where they are."""

import time

import numpy as np
import pytest
from photutils import use_future_column_names
from photutils.detection import DAOStarFinder, IRAFStarFinder
from scipy.ndimage import maximum_filter
from scipy.special import erf

from calibration.sources.stars import POOR, Kernel, find_peaks, find_stars, fit_positions

NOWHERE = np.zeros((240, 260), bool)


def field(rng, count, sigma, noise, shape=NOWHERE.shape, low=1.0, high=3.0):
    """Round Gaussians integrated over the pixels, at random places; the image without sky, and x, y and flux."""
    x, y = rng.uniform(8, shape[1] - 9, count), rng.uniform(8, shape[0] - 9, count)
    flux = 10 ** rng.uniform(low, high, count)
    image = rng.normal(0, noise, shape)
    reach = np.arange(-8, 9)
    edges = np.append(reach - 0.5, 8.5)
    for a, b, c in zip(x, y, flux, strict=True):
        i, j = round(a), round(b)
        along_x, along_y = (np.diff(0.5 * erf((edges - d) / (np.sqrt(2) * sigma))) for d in (a - i, b - j))
        image[j - 8 : j + 9, i - 8 : i + 9] += c * np.outer(along_y, along_x)
    return image.astype(np.float32), x, y, flux


@pytest.mark.parametrize("fwhm", [2.5, 4.0])
@pytest.mark.parametrize(("finder", "peer"), [("iraf", IRAFStarFinder), ("dao", DAOStarFinder)])
def test_stars_are_those_of_photutils(finder, peer, fwhm):
    image, *_ = field(np.random.default_rng(6), 300, 0.9, 0.05)
    sharpness, roundness = (0.3, 1.6), (0.0, 0.3)
    with use_future_column_names():
        expected = peer(
            0.5,
            fwhm,
            min_separation=2,
            sharpness_range=sharpness,
            roundness_range=roundness,
            n_brightest=50,
            peak_max=90.0,
        )(image)
    found = find_stars(image, 0.5, NOWHERE, finder, fwhm, sharpness, roundness, 2, 50, 90.0)
    assert len(found.x) == len(expected) == 50
    np.testing.assert_allclose(found.flux, expected["flux"], rtol=1e-5)
    # Their positions are drawn to the middle of the pixel, ours are not.
    assert np.hypot(found.x - expected["x_centroid"], found.y - expected["y_centroid"]).max() < 1


@pytest.mark.parametrize(("finder", "peer"), [("iraf", IRAFStarFinder), ("dao", DAOStarFinder)])
def test_a_fit_begins_where_photutils_ends(finder, peer, monkeypatch):
    monkeypatch.setattr("calibration.sources.stars.ROUNDS", 0)
    image, *_ = field(np.random.default_rng(7), 80, 0.9, 0.05)
    with use_future_column_names():
        expected = peer(0.5, 2.5, min_separation=2, sharpness_range=(0.2, 2), roundness_range=(-1, 1), n_brightest=60)(
            image
        )
    found = find_stars(image, 0.5, NOWHERE, finder, 2.5, (0.2, 2), (-1, 1), 2, 60, None)
    np.testing.assert_allclose(found.x, expected["x_centroid"], atol=1e-4)
    np.testing.assert_allclose(found.y, expected["y_centroid"], atol=1e-4)


def nearest(found, x, y):
    """Errors in x and y of stars found within half a pixel of one, and which."""
    far = np.hypot(found.x[:, None] - x, found.y[:, None] - y)
    which, near = far.argmin(axis=1), far.min(axis=1) < 0.5
    return np.array([found.x - x[which], found.y - y[which]])[:, near], which[near], near


@pytest.mark.parametrize(("sigma", "bias"), [(0.45, 8e-3), (0.6, 2e-3), (1.1, 1e-4), (2.5, 1e-4)])
def test_positions_do_not_depend_on_where_in_a_pixel_a_star_is(sigma, bias):
    rng = np.random.default_rng(8)
    for shift in rng.uniform(-0.5, 0.5, (20, 2)):
        one, *_ = field(np.random.default_rng(0), 0, sigma, 0.0, (40, 40))
        reach = np.append(np.arange(40) - 0.5, 39.5)
        along = [np.diff(0.5 * erf((reach - 20 - d) / (np.sqrt(2) * sigma))) for d in shift]
        one += (100 * np.outer(along[1], along[0])).astype(np.float32)
        found = find_stars(one, 0.2, np.zeros(one.shape, bool), "iraf", 2.5, (0.0, 3), (0, 1), 2, None, None)
        assert len(found.x) == 1
        np.testing.assert_allclose([found.x[0] - 20, found.y[0] - 20], shift, atol=2 * bias)


def test_errors_of_positions_are_what_is_said():
    image, x, y, _ = field(np.random.default_rng(9), 250, 0.9, 0.3, (500, 500), 1.8, 2.2)
    found = find_stars(image, 3.0, np.zeros(image.shape, bool), "iraf", 2.5, (0.3, 2), (0, 0.5), 2, None, None)
    wrong, _, near = nearest(found, x, y)
    assert near.sum() > 200
    inside = found.error[near] < POOR
    ratio = np.median(np.abs(wrong[:, inside])) / np.median(found.error[near][inside]) / 0.6745
    assert 0.8 < ratio < 1.25


def test_a_fit_that_goes_astray_keeps_the_moment():
    image = np.zeros((9, 9), np.float32)
    image[4, 4], image[2, 2], image[6, 6] = 1, 50, 50
    x, y, error = fit_positions(image, np.array([[4, 4]]), np.array([[0.25, -0.1]]), Kernel.of(2.5, 1.5))
    assert (x[0], y[0], error[0]) == (4.25, 3.9, POOR)


def test_a_field_of_fifty_thousand_stars_takes_seconds():
    image, x, y, _ = field(np.random.default_rng(10), 50_000, 0.6, 0.02, (2048, 2048))
    mask = np.zeros(image.shape, bool)
    find_stars(image[:64, :64], 1.0, mask[:64, :64], "iraf", 2.5, (0.5, 2), (0, 0.2), 2, 200, None)
    begin = time.process_time()
    found = find_stars(image, 1.0, mask, "iraf", 2.5, (0.5, 2), (0, 0.2), 2, 200, None)
    assert time.process_time() - begin < 3
    assert len(found.x) == 200
    assert np.median(np.abs(nearest(found, x, y)[0])) < 0.03


@pytest.mark.parametrize("finder", ["iraf", "dao"])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_an_empty_image_has_no_stars(finder, value):
    image = np.full(NOWHERE.shape, value, np.float32)
    found = find_stars(image, 0.5, NOWHERE, finder, 3.0, (0.2, 2), (-1, 1), 2, 200, None)
    assert [len(each) for each in (found.x, found.y, found.error, found.flux)] == [0] * 4


def test_a_star_that_the_edge_cuts_or_bad_pixels_spoil_is_none():
    dy, dx = np.mgrid[:40, :40] - 20
    good, saturated, cut = (
        1000 * np.exp(-0.5 * ((dx - x) ** 2 + (dy - y) ** 2) / 1.5**2) for x, y in ((10, 0), (0, 0), (0, -19.5))
    )
    image = (good + saturated + cut).astype(np.float32)
    image[19:22, 19:22] = np.nan
    found = find_stars(image, 1.0, np.zeros(image.shape, bool), "iraf", 2.5, (0.0, 2), (0, 1), 2, None, None)
    # Nor are the wings of a saturated star stars, though no pixel beside them that is known is brighter.
    assert [(round(x), round(y)) for x, y in zip(found.x, found.y, strict=True)] == [(30, 20)]


@pytest.mark.parametrize("separation", [1, 2, 3.5])
def test_peaks_are_those_of_a_maximum_filter(separation):
    rng = np.random.default_rng(3)
    image = rng.integers(-3, 9, (60, 70)).astype(np.float32)  # with equal neighbours
    image[20:22, 30] = np.nan
    mask = rng.random(image.shape) < 0.05
    reach = int(separation)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    highest = maximum_filter(
        np.where(np.isnan(image), 10, image), footprint=dy**2 + dx**2 <= separation**2, mode="constant", cval=0.0
    )
    expected = np.argwhere((image == highest) & (image > 2) & ~mask)[:, ::-1]
    np.testing.assert_array_equal(find_peaks(image, 2.0, mask, separation), expected)
