"""Finding stars."""

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from calibration.sources.stars import find_peaks, find_stars

SHAPE = (100, 120)
NOWHERE = np.zeros(SHAPE, bool)
PLACES = np.array([[20.3, 30.6], [80.0, 22.4], [55.5, 71.2], [100.8, 80.1]])


def field(rng, peak=3.0, sigma=1.3, noise=0.02, sky=1.0):
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.full(SHAPE, sky)
    for x, y in PLACES:
        image += peak * np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / sigma**2)
    return (image + rng.normal(0, noise, SHAPE)).astype(np.float32)


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
