"""The picture frame: a glow that we put in is taken out, at whatever height, and nothing else is."""

import numpy as np
import pytest

from calibration.ramps.picture_frame import find_regions, subtract_from_images, subtract_from_ramps
from calibration.simulate.picture_frame import glow_of_edges
from calibration.subarrays import Subarray

SHAPE = (2048, 2048)
GLOW = glow_of_edges(Subarray(1, 1, 2048, 2048))
EVERYWHERE = np.ones(SHAPE, np.bool_)


def test_each_group_loses_the_glow_and_the_level_that_it_has_above_the_first():
    first = np.random.default_rng(1).normal(900, 50, SHAPE).astype(np.float32)
    source = np.zeros(SHAPE, np.float32)
    source[1000:1010, 500:520] = 300
    heights, levels = (0, 40, -15), (0, 3.0, -2.0)
    data = np.stack([first + g * source + h * GLOW + v for g, (h, v) in enumerate(zip(heights, levels, strict=True))])
    corrected = subtract_from_ramps(data[None], GLOW, find_regions(source == 0))
    np.testing.assert_array_equal(corrected[0, 0], first)
    for g in (1, 2):
        # Their sum is told from medians: what is left is one number for the whole image, and small.
        np.testing.assert_allclose(corrected[0, g] - first, g * source, atol=2e-3)


def test_the_regions_are_a_square_and_a_frame_without_the_rims():
    background = EVERYWHERE.copy()
    background[30, 30] = background[100, 100] = False
    regions = find_regions(background)
    middle, edge = np.zeros(SHAPE, np.bool_), np.zeros(SHAPE, np.bool_)
    middle.ravel()[regions.middle] = True
    edge.ravel()[regions.edge] = True
    for region, inside, outside in (
        (middle, [(76, 76), (1983, 1983)], [(75, 500), (500, 1984), (100, 100)]),
        (edge, [(4, 4), (74, 1000), (1000, 1985), (2042, 2042)], [(3, 1000), (1000, 2043), (75, 1000), (30, 30)]),
    ):
        assert all(region[place] for place in inside)
        assert not any(region[place] for place in outside)
    assert not (middle & edge).any()


def test_an_image_without_finite_pixels_here_and_there_is_corrected_by_the_others():
    image = 2 * GLOW + 1
    image[::7, ::5] = np.nan
    corrected = subtract_from_images(image, GLOW, find_regions(EVERYWHERE))
    np.testing.assert_allclose(corrected[np.isfinite(image)], 0, atol=1e-5)
    assert np.isnan(corrected[::7, ::5]).all()
    cube = subtract_from_images(np.stack([image, image + 1]), GLOW, find_regions(EVERYWHERE))
    np.testing.assert_allclose(cube[1], corrected, atol=1e-5)


def test_what_cannot_be_told_is_an_error():
    with pytest.raises(ValueError, match="whole detector"):
        find_regions(np.ones((64, 64), np.bool_))
    with pytest.raises(ValueError, match="whole detector"):
        subtract_from_images(GLOW, GLOW[:64], find_regions(EVERYWHERE))
    with pytest.raises(ValueError, match="there are 0 and 0"):
        subtract_from_images(GLOW, GLOW, find_regions(~EVERYWHERE))
    with pytest.raises(ValueError, match="other levels in the middle"):
        subtract_from_images(GLOW, np.ones(SHAPE, np.float32), find_regions(EVERYWHERE))
