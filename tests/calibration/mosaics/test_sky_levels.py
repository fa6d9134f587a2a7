"""Sky levels: the statistic, and what makes overlapping images equal."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imaging_scene import START, distortion, pointing

from calibration.mosaics.skymatch import ImagePixels, SkyImage, SkyStatistic, covered_by, match_skies, sky_level
from calibration.wcs.imaging import imaging_wcs

SHAPE = (120, 120)
EVERYWHERE = np.ones(SHAPE, bool)


def sky(level, seed=1, noise=0.1, stars=60):
    rng = np.random.default_rng(seed)
    data = rng.normal(level, noise, SHAPE)
    data[rng.integers(0, SHAPE[0], stars), rng.integers(0, SHAPE[1], stars)] += rng.exponential(5, stars)
    return data.astype(np.float32)


def image(level, at=(0, 0), seed=1, **options):
    wcs = imaging_wcs(pointing(*at), distortion(), SHAPE, (START, START))
    return SkyImage(lambda: (sky(level, seed, **options), EVERYWHERE), SHAPE, wcs)


def level_of(data, statistic):
    """The sky level of all pixels of an image."""
    return sky_level(ImagePixels(data, np.ones(data.shape, bool)).everywhere(), statistic)


def by_definition(data, statistic):
    """The sky level from the values themselves; the mode as IRAF's imstatistics has it."""
    values = data.astype(float)[np.isfinite(data)]
    values = values[(values >= statistic.lower) & (values <= statistic.upper)]
    kept = values
    for _ in range(statistic.nclip):
        low, high = kept.mean() - statistic.lsigma * kept.std(), kept.mean() + statistic.usigma * kept.std()
        kept = values[(values >= low) & (values <= high)]
    if statistic.kind in ("mean", "median"):
        return getattr(np, statistic.kind)(kept), kept.size
    width = statistic.binwidth * kept.std()
    nbins = int((kept.max() - kept.min()) / width) + 1
    counts = np.zeros(nbins + 1)
    np.add.at(counts, ((kept - kept.min()) / ((kept.max() - kept.min()) / (nbins - 1))).astype(int), 1)
    top = np.argmax(counts)
    before, after = counts[top] - counts[top - 1], counts[top] - counts[top + 1]
    return kept.min() + width * (top + 0.5 + 0.5 * (before - after) / (before + after)), kept.size


@pytest.mark.parametrize("kind", ["mode", "median", "mean"])
@pytest.mark.parametrize("limits", [(-np.inf, np.inf), (4.8, 5.3)])
@pytest.mark.parametrize("part", [slice(0, 0), slice(30, 130), slice(90, 500)])
def test_a_level_is_that_of_the_values_of_a_part(kind, limits, part):
    data = np.random.default_rng(8).normal(5.0, 0.1, (500, 500)).astype(np.float32)
    data[::9, ::11] += np.random.default_rng(9).exponential(3, data[::9, ::11].shape).astype(np.float32)
    data[5, 5:40] = np.nan
    statistic = SkyStatistic(kind, *limits)
    image = ImagePixels(data, np.ones(data.shape, bool))
    covered = np.ones(data.shape, bool)
    covered[:, part] = False
    level, npix = sky_level(image.within(covered), statistic)
    expected, number = by_definition(np.where(covered, data, np.nan), statistic)
    assert level == pytest.approx(expected, abs=1e-6)
    assert npix == number


@pytest.mark.parametrize(("kind", "tolerance"), [("mode", 0.02), ("median", 0.004), ("midpt", 0.01), ("mean", 0.01)])
def test_the_level_is_found_under_sources(kind, tolerance):
    level, npix = level_of(sky(5.0), SkyStatistic(kind))
    assert level == pytest.approx(5.0, abs=tolerance)
    assert 14_000 < npix < 14_400


def test_pixels_that_are_not_good_or_nan_are_not_looked_at():
    data = sky(1.0)
    use = EVERYWHERE.copy()
    data[:40], use[:40] = 1000, False
    data[50] = np.nan
    one = image(1.0)
    (level,) = match_skies([replace(one, read=lambda: (data, use))], [[0]], "local")
    assert level == pytest.approx(1.0, abs=0.02)
    (level,) = match_skies([replace(one, read=lambda: (data, ~EVERYWHERE))], [[0]], "local")
    assert np.isnan(level)
    assert level_of(np.full(SHAPE, np.nan, np.float32), SkyStatistic())[1] == 0


def test_a_constant_image_has_its_value():
    assert level_of(np.full(SHAPE, 2.5, np.float32), SkyStatistic())[0] == 2.5


@given(st.lists(st.floats(0, 3), min_size=4, max_size=4))
@settings(max_examples=8, deadline=None)
def test_matched_levels_undo_the_differences(levels):
    places = [(0, 0), (2, 1), (-3, 2), (1, -2)]
    images = [image(level, places[k], k) for k, level in enumerate(levels)]
    found = match_skies(images, [[0], [1], [2], [3]], statistic=SkyStatistic("median"))
    assert min(found) == 0
    # The noise of a median of some 12000 pixels is 0.0012.
    np.testing.assert_allclose(found, np.array(levels) - min(levels), atol=0.008)


def test_matching_up_sets_the_highest_to_zero():
    found = match_skies([image(1.0), image(1.5, (2, 1), 2)], [[0], [1]], match_down=False)
    assert max(found) == 0
    assert min(found) == pytest.approx(-0.5, abs=0.02)


def test_the_methods_give_what_their_names_say():
    images = [image(1.0), image(1.5, (2, 1), 2)]
    groups = [[0], [1]]
    np.testing.assert_allclose(match_skies(images, groups, "local"), [1.0, 1.5], atol=0.02)
    np.testing.assert_allclose(match_skies(images, groups, "global"), [1.0, 1.0], atol=0.02)
    np.testing.assert_allclose(match_skies(images, groups, "global+match"), [1.0, 1.5], atol=0.03)


def test_images_of_one_exposure_get_one_level():
    images = [image(1.0), image(1.0, (8.1, 0), 2), image(1.4, (4, 0), 3)]
    found = match_skies(images, [[0, 1], [2]])
    assert found[0] == found[1] == 0
    assert found[2] == pytest.approx(0.4, abs=0.02)


def test_an_image_that_overlaps_none_has_no_matched_level():
    images = [image(1.0), image(1.5, (2, 1), 2), image(9.0, (300, 0), 3)]
    found = match_skies(images, [[0], [1], [2]])
    assert np.isnan(found[2])
    assert found[:2] == pytest.approx([0, 0.5], abs=0.02)


def test_the_overlap_agrees_with_the_definition():
    one, other = image(1.0), image(1.0, (3.0, -2.0))
    a, b = one.wcs, other.wcs
    x, y = np.meshgrid(np.arange(120.0), np.arange(120.0))
    bx, by = b.invert(*a(x, y), with_bounding_box=False)
    expected = (bx >= -0.5) & (bx <= 119.5) & (by >= -0.5) & (by <= 119.5)
    covered = covered_by(one, other)
    assert 0.1 < expected.mean() < 0.9
    # Sides are followed by straight lines through eight points each: a pixel at the rim may differ.
    assert (covered != expected).sum() <= 2
