"""Alignment by stars: injected pointing errors come back, and what cannot be believed is not."""

from dataclasses import replace

import numpy as np
import pytest
from imaging_scene import START, distortion, make_field, pointing

from calibration.mosaics.tweakreg import Fit, Stars, align, align_to_catalog
from calibration.wcs.imaging import imaging_wcs

SIZE = 400
FIELD = make_field(np.random.default_rng(4), SIZE, 60)
# Stars of this field are 3 arcsec apart.
FIT = Fit(tolerance=0.3, separation=0.6)


def stars(group, said=(0.0, 0.0), error=(0.0, 0.0), count=60, noise=0.02, roll=0.0, seed=1):
    """Positions as a star finder would measure them, of an exposure whose header is wrong by ``error``."""
    rng = np.random.default_rng(seed + group)
    real = pointing(said[0] + error[0], said[1] + error[1], roll)
    x, y = imaging_wcs(real, distortion(), (SIZE, SIZE), (START, START)).invert(
        FIELD.ra, FIELD.dec, with_bounding_box=False
    )
    x, y = x + rng.normal(0, noise, x.shape), y + rng.normal(0, noise, y.shape)
    at = pointing(*said)
    wcs = imaging_wcs(at, distortion(), (SIZE, SIZE), (START, START))
    order = np.argsort(-FIELD.flux)[:count]
    error = np.full(count, noise)
    return Stars(x[order], y[order], error, FIELD.flux[order], wcs, (SIZE, SIZE), at, group, f"image {group}")


def error_of(alignment, image, real):
    """Largest distance [mas] between where an aligned WCS and the real one see four pixels."""
    x, y = np.array([20.0, 380.0, 380.0, 20.0]), np.array([20.0, 20.0, 380.0, 380.0])
    ours, truth = alignment.wcs(x, y), imaging_wcs(real, distortion(), (SIZE, SIZE), (START, START))(x, y)
    return 3.6e6 * np.hypot((ours[0] - truth[0]) * np.cos(np.radians(truth[1])), ours[1] - truth[1]).max()


def test_injected_pointing_errors_come_back():
    images = [stars(0), stars(1, (1.2, 0.7), (0.025, -0.015)), stars(2, (-0.7, 1.4), (0.5, 0.1), roll=0.1)]
    found = align(images, FIT)
    assert [one.status for one in found] == ["reference", "aligned", "aligned"]
    # 60 stars of 0.02 pixel (1.3 mas) each: 0.2 mas in the middle, some three times that at the corners.
    assert error_of(found[1], images[1], pointing(1.225, 0.685)) < 1.5
    assert error_of(found[2], images[2], pointing(-0.2, 1.5, 0.1)) < 1.5
    assert found[1].shift == pytest.approx(0.029, abs=0.003)
    assert found[1].nstars > 40
    assert found[1].rms < 0.004


def test_an_image_with_too_few_stars_keeps_its_wcs_and_does_not_spoil_the_others():
    images = [stars(0), stars(1, (1.2, 0.7), (0.03, 0.0)), stars(2, (0.5, 0.5), count=5)]
    found = align(images, FIT)
    assert found[2].status == "only 5 stars, 15 are needed"
    assert found[2].wcs is images[2].wcs
    assert found[1].status == "aligned"


def test_an_image_of_another_place_is_not_aligned():
    images = [stars(0), stars(1, (1.2, 0.7), (0.03, 0.0))]
    rng = np.random.default_rng(8)
    stray = replace(stars(2), x=rng.uniform(0, SIZE, 60), y=rng.uniform(0, SIZE, 60))
    found = align([*images, stray], Fit(tolerance=0.1, separation=0.3))
    assert found[2].status not in ("aligned", "reference")
    assert found[2].wcs is stray.wcs
    assert found[1].status == "aligned"


def test_nothing_is_aligned_when_only_one_image_has_stars():
    found = align([stars(0), stars(1, count=3)], FIT)
    assert not any(one.status == "aligned" for one in found)


def test_detectors_of_one_exposure_move_together():
    one = stars(0)
    pair = [stars(1, (1.2, 0.7), (0.03, 0.02)), replace(stars(1, (1.2, 0.7), (0.03, 0.02), seed=5), name="other")]
    found = align([one, *pair], FIT)
    moved = [
        np.array(a.wcs(200.0, 200.0)) - np.array(b.wcs(200.0, 200.0)) for a, b in zip(found[1:], pair, strict=True)
    ]
    np.testing.assert_allclose(moved[0], moved[1], rtol=0, atol=1e-12)


def test_all_images_align_to_a_catalog():
    images = [stars(0, error=(0.2, -0.1)), stars(1, (1.2, 0.7), (0.2, -0.1))]
    found = align_to_catalog(images, align(images, FIT), FIELD.ra, FIELD.dec, FIT)
    assert [one.status for one in found] == ["aligned", "aligned"]
    assert error_of(found[0], images[0], pointing(0.2, -0.1)) < 1.5


def test_a_short_catalog_is_an_error():
    with pytest.raises(ValueError, match="has 3 stars, but 15 are needed"):
        align_to_catalog([stars(0)], align([stars(0)], FIT), FIELD.ra[:3], FIELD.dec[:3], FIT)


def test_a_tolerance_that_confuses_stars_is_an_error():
    with pytest.raises(ValueError, match="lower the tolerance"):
        Fit(tolerance=1.0, separation=1.0)


@pytest.mark.parametrize("displaced", [(2.0, 0.0), (-1.2, 1.2)])
def test_an_exposure_displaced_by_two_arcsec_is_brought_back(displaced):
    # The search of the shift must reach as far, and stars be further apart than what is tolerated.
    images = [stars(0), stars(1, (1.2, 0.7)), stars(2, (0.5, 0.5), displaced)]
    found = align(images, Fit(tolerance=0.2, separation=0.4, searchrad=2.5))
    assert found[2].status == "aligned"
    assert error_of(found[2], images[2], pointing(0.5 + displaced[0], 0.5 + displaced[1])) < 1.5
    assert found[2].shift == pytest.approx(np.hypot(*displaced), rel=0.01)
    assert error_of(found[1], images[1], pointing(1.2, 0.7)) < 1.5
