"""Alignment by stars: injected pointing errors come back, and what cannot be believed is not."""

from dataclasses import replace

import numpy as np
import pytest
from imaging_scene import START, distortion, make_field, pointing
from tweakwcs import JWSTWCSCorrector

from calibration.mosaics.tweakreg import (
    Exposure,
    Fit,
    Map,
    Stars,
    _solve,
    align,
    align_to_catalog,
    match,
    tangent_correction,
)
from calibration.wcs.imaging import imaging_wcs

SIZE = 400
DISTORTION = distortion()
FIELD = make_field(np.random.default_rng(4), SIZE, 60)
# Stars of this field are 3 arcsec apart.
FIT = Fit(tolerance=0.3, separation=0.6)


def stars(group, said=(0.0, 0.0), error=(0.0, 0.0), count=60, noise=0.02, roll=0.0, seed=1, field=FIELD):
    """Positions as a star finder would measure them, of an exposure whose header is wrong by ``error``."""
    rng = np.random.default_rng(seed + group)
    real = pointing(said[0] + error[0], said[1] + error[1], roll)
    x, y = imaging_wcs(real, DISTORTION, (SIZE, SIZE), (START, START)).invert(
        field.ra, field.dec, with_bounding_box=False
    )
    x, y = x + rng.normal(0, noise, x.shape), y + rng.normal(0, noise, y.shape)
    at = pointing(*said)
    wcs = imaging_wcs(at, DISTORTION, (SIZE, SIZE), (START, START))
    order = np.argsort(-field.flux)[:count]
    error = np.full(count, noise)
    return Stars(x[order], y[order], error, field.flux[order], wcs, (SIZE, SIZE), at, group, f"image {group}")


def error_of(alignment, image, real):
    """Largest distance [mas] between where an aligned WCS and the real one see four pixels."""
    x, y = np.array([20.0, 380.0, 380.0, 20.0]), np.array([20.0, 20.0, 380.0, 380.0])
    ours, truth = alignment.wcs(x, y), imaging_wcs(real, DISTORTION, (SIZE, SIZE), (START, START))(x, y)
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
    # Two of 1.3 mas along each of two axes.
    assert 0.0018 < found[1].rms < 0.0034
    assert found[2].roll == pytest.approx(360, abs=3)
    assert max(one.offset for one in found) < 1e-3
    assert not any(one.left_out for one in found)


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


def test_a_wcs_of_another_place_on_the_sky_is_said_so_and_spoils_nothing():
    wild = [replace(stars(k), wcs=wcs_at(*away)) for k, away in enumerate([(400.0, 0.0), (3e5, 2e5)])]
    found = align([*wild, *(stars(k, (0.3 * k, 0), (0.03, 0.0)) for k in (2, 3, 4))], FIT)
    assert [one.status for one in found[2:]] == ["reference", "aligned", "aligned"]
    for one, image in zip(found[:2], wild, strict=True):
        assert one.status == "it does not overlap with the images of the reference"
        assert one.wcs is image.wcs
        # It may well be another tile.
        assert not one.left_out


def wcs_at(dra, ddec):
    return imaging_wcs(pointing(dra, ddec), DISTORTION, (SIZE, SIZE), (START, START))


@pytest.mark.parametrize("place", [0, 1, 3])
def test_an_exposure_displaced_by_more_than_is_searched_is_left_out(place):
    images = [stars(k, (0.3 * k, 0.1), (3.1, -2.2) if k == place else (0.01 * k, 0.0)) for k in range(4)]
    found = align(images, FIT)
    assert [one.left_out for one in found] == [k == place for k in range(4)]
    assert "than by chance with those of the reference" in found[place].status
    assert found[place].wcs is images[place].wcs
    others = [k for k in range(4) if k != place]
    assert [found[k].status for k in others] == ["reference", "aligned", "aligned"]
    # The reference keeps its own error.
    for k in others[1:]:
        assert error_of(found[k], images[k], pointing(0.3 * k + 0.01 * (k - others[0]), 0.1)) < 1.5


def test_the_reference_is_none_whose_own_pointing_is_the_odd_one():
    images = [stars(k, (0.3 * k, 0.1), (1.4, -1.2) if k == 0 else (0.0, 0.0)) for k in range(4)]
    found = align(images, FIT)
    assert [one.status for one in found] == ["aligned", "reference", "aligned", "aligned"]
    assert found[0].shift == pytest.approx(np.hypot(1.4, 1.2), rel=0.01)
    found = align(images, FIT, in_order=True)
    assert [one.status for one in found] == ["reference", "aligned", "aligned", "aligned"]


def test_an_exposure_whose_stars_are_double_is_left_out():
    double = stars(3, (0.1, 0.2), count=30)
    double = replace(double, **{
        key: np.concatenate([getattr(double, key), getattr(double, key) + step])
        for key, step in (("x", 11.0), ("y", -4.0), ("flux", 0.0), ("error", 0.0))
    })  # fmt: skip
    found = align([stars(0), double, stars(1, (1.2, 0.7)), stars(2, (0.5, 0.5))], FIT)
    assert "fit at two places" in found[1].status
    assert [one.left_out for one in found] == [False, True, False, False]


def test_of_two_exposures_that_disagree_none_is_left_out():
    found = align([stars(0), stars(1, error=(4.0, 0.0))], FIT)
    assert not any(one.left_out or one.status in ("aligned", "reference") for one in found)


@pytest.mark.parametrize("expand", [True, False])
def test_a_row_of_tiles_hangs_together_where_all_stars_help(expand):
    errors = [(0.0, 0.0), (0.1, -0.05), (-0.2, 0.1), (0.05, 0.2)]
    wide = make_field(np.random.default_rng(5), 1100, 450)
    # Each 180 pixels to the right of the one before and 90 above it.
    step = np.arange(4)
    ra, dec = wcs_at(0, 0)(254.5 + 180 * step, 254.5 + 90 * step, with_bounding_box=False)
    places = np.column_stack([(ra - ra[0]) * np.cos(np.radians(dec[0])), dec - dec[0]]) * 3600
    order = (0, 2, 1, 3)
    images = []
    for k in order:
        image = stars(k, places[k], errors[k], count=450, field=wide)
        inside = (image.x > 0) & (image.x < SIZE) & (image.y > 0) & (image.y < SIZE)
        images.append(replace(image, **{key: getattr(image, key)[inside] for key in ("x", "y", "error", "flux")}))
    found = align(images, Fit(minobj=12, tolerance=0.3, separation=0.6), expand)
    assert [one.status == "aligned" for one in found] == [False, expand, True, expand]
    assert not any(one.left_out for one in found)
    for one, image, k in zip(found, images, order, strict=True):
        if one.status == "aligned":
            # Each link adds its own error, of some twenty stars at one corner, which the other feels threefold.
            assert error_of(one, image, pointing(*(places[k] + errors[k]))) < 5


def test_an_offset_that_is_given_is_not_searched():
    images = [stars(0), stars(1, (0.3, 0.2), (1.5, -0.8))]
    # An image that points 1.5 arcsec farther east than it knows sees its stars as much farther west.
    fit = Fit(tolerance=0.2, separation=0.4, use2dhist=False, offset=(-1.5, 0.8))
    assert error_of(align(images, fit)[1], images[1], pointing(1.8, -0.6)) < 1.5
    lost = align(images, replace(fit, offset=(0.0, 0.0)))
    assert lost[1].status not in ("aligned", "reference")


def crowd(rng, count, size=100.0):
    """Stars at random in a square [arcsec], and its corners."""
    corners = np.array([[[0.0, 0.0], [0.0, size], [size, size], [size, 0.0]]])
    return Exposure(rng.uniform(0, size, (count, 2)), np.full(count, 2e-3), corners, 0.065)


def seen_again(rng, one, shift, noise=2e-3):
    return replace(one, at=one.at + shift + rng.normal(0, noise, one.at.shape))


@pytest.mark.parametrize("count", [3, 30, 200, 1000])
def test_unrelated_stars_never_match(count):
    rng = np.random.default_rng(count)
    for _ in range(25):
        link = match(crowd(rng, count), crowd(rng, count), Fit(minobj=3))
        assert link.contradicts


@pytest.mark.parametrize("count", [20, 200, 3000])
def test_stars_match_themselves(count):
    rng = np.random.default_rng(count)
    for _ in range(10):
        one = crowd(rng, count)
        shift = rng.uniform(-1.4, 1.4, 2)
        link = match(one, seen_again(rng, one, shift), Fit())
        assert link.matched
        np.testing.assert_array_equal(link.first, link.second)
        assert len(link.first) >= 0.95 * count
        np.testing.assert_allclose(link.shift, shift, atol=3e-3)


def test_a_few_stars_among_many_others_still_match():
    rng = np.random.default_rng(4)
    one, other = crowd(rng, 200), crowd(rng, 200)
    other = replace(other, at=np.concatenate([np.add(one.at[:40], (0.7, -0.9)), other.at[40:]]))
    link = match(one, other, Fit())
    assert link.matched
    assert set(range(40)) <= set(link.first[link.first == link.second])
    assert len(link.first) < 50


def test_pairs_of_stars_within_the_tolerance_are_told_apart():
    rng = np.random.default_rng(5)
    one = crowd(rng, 100)
    one = replace(one, at=np.concatenate([one.at, one.at + rng.normal(0, 0.2, (100, 2))]), error=np.full(200, 2e-3))
    link = match(one, seen_again(rng, one, (0.3, 0.2)), Fit())
    assert link.matched
    assert (link.first == link.second).mean() > 0.98


def test_too_few_stars_in_common_are_counted():
    rng = np.random.default_rng(6)
    one = crowd(rng, 8)
    link = match(one, seen_again(rng, one, (0.1, 0.0)), Fit())
    assert link.reason.startswith("only 8 stars in common, 15 are needed")
    assert not link.contradicts
    nothing = replace(one, at=one.at[:0], error=one.error[:0])
    for few in (nothing, replace(one, at=one.at[:1], error=one.error[:1])):
        assert not match(one, few, Fit(minobj=1)).matched
        assert not match(few, few, Fit(minobj=1)).matched


@pytest.mark.parametrize("geometry", ["shift", "rshift", "rscale", "general"])
def test_each_geometry_is_found_in_spite_of_outliers(geometry):
    rng = np.random.default_rng(7)
    one = crowd(rng, 300)
    turn, grow = 1e-3, 1 + 3e-4
    matrix = {
        "shift": np.eye(2),
        "rshift": np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]),
        "rscale": grow * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]),
        "general": np.array([[1.0003, -2e-4], [5e-4, 0.9998]]),
    }[geometry]
    real = Map(matrix, np.array([0.4, -0.3]))
    other = seen_again(rng, one.moved(real.inverse()), 0.0)
    other = replace(other, at=other.at + 0.1 * (np.arange(300) % 10 == 0)[:, None])
    fit = Fit(geometry=geometry, nclip=5)
    maps, fits = _solve({0: one, 1: other}, {(0, 1): match(one, other, fit)}, 0, fit)
    corners = one.corners[0]
    assert np.abs(maps[1](real.inverse()(corners)) - corners).max() < 1.5e-3
    assert fits[1][0] == pytest.approx(2.83e-3, rel=0.1)
    assert 240 <= fits[1][1] <= 270


def test_a_field_of_fifty_thousand_stars_is_matched():
    rng = np.random.default_rng(8)
    one = crowd(rng, 50_000, 130.0)
    link = match(one, seen_again(rng, one, (1.2, -0.7)), Fit())
    assert link.matched
    assert (link.first == link.second).sum() > 45_000


def test_what_is_not_aligned_with_the_others_moves_with_them_to_a_catalog():
    images = [
        stars(0, error=(0.2, -0.1)),
        stars(1, (1.2, 0.7), (0.2, -0.1)),
        stars(2, (0.5, 0.5), (0.2, -0.1), count=5),
    ]
    found = align_to_catalog(images, align(images, FIT), FIELD.ra, FIELD.dec, FIT)
    assert [one.status == "aligned" for one in found] == [True, True, False]
    assert error_of(found[2], images[2], pointing(0.7, 0.4)) < 1.5
    assert found[2].shift == pytest.approx(np.hypot(0.2, 0.1), rel=0.02)


def test_a_single_exposure_aligns_to_a_catalog_with_gaps():
    image = stars(0, error=(0.5, 0.4), roll=0.05)
    ra, dec = FIELD.ra.copy(), FIELD.dec.copy()
    ra[:9] = np.nan
    (found,) = align_to_catalog([image], align([image], FIT), ra, dec, FIT)
    assert found.status == "aligned"
    assert error_of(found, image, pointing(0.5, 0.4, 0.05)) < 1.5
    assert found.roll == pytest.approx(180, abs=3)


def test_a_catalog_that_is_deep_and_wide_is_searched_where_the_images_are():
    image = stars(0, error=(3.0, -2.5))
    rng = np.random.default_rng(3)
    ra = np.concatenate([FIELD.ra, rng.uniform(149.9, 150.3, 300_000)])
    dec = np.concatenate([FIELD.dec, rng.uniform(2.1, 2.5, 300_000)])
    order = np.argsort(-dec)
    (found,) = align_to_catalog([image], align([image], FIT), ra[order], dec[order], replace(FIT, searchrad=6.0))
    assert found.status == "aligned"
    assert error_of(found, image, pointing(3.0, -2.5)) < 1.5


def test_a_catalog_of_another_place_changes_nothing():
    images = [stars(0), stars(1, (1.2, 0.7), (0.03, 0.02))]
    before = align(images, FIT)
    after = align_to_catalog(images, before, FIELD.ra + 1, FIELD.dec, FIT)
    assert [one.wcs for one in after] == [one.wcs for one in before]
    assert all("of the reference catalog" in one.status for one in after)


def test_a_correction_is_what_tweakwcs_makes_of_it():
    at, wcs = pointing(0, 0), wcs_at(0, 0)
    angles = {"roll_ref": at.roll_ref, "v2_ref": at.v2_ref, "v3_ref": at.v3_ref}
    corrector = JWSTWCSCorrector(wcs, angles)
    matrix, shift = np.array([[1.0, -1e-3], [1e-3, 1.0]]), np.array([0.3, -0.2])
    corrector.set_correction(matrix, shift)
    theirs = corrector.wcs.get_transform("v2v3vacorr", "v2v3corr")
    ours = tangent_correction(at, matrix, np.radians(shift / 3600))
    v2, v3 = at.v2_ref + np.array([-60.0, 0.0, 80.0]), at.v3_ref + np.array([10.0, 0.0, -70.0])
    np.testing.assert_allclose(ours(v2, v3), theirs(v2, v3), rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.inverse(*ours(v2, v3)), (v2, v3), rtol=0, atol=1e-9)
    assert [part.name for part in ours] == [part.name for part in theirs]
    # And it takes ours for its own.
    images = [stars(0), stars(1, error=(0.1, 0.0))]
    again = JWSTWCSCorrector(align(images, FIT)[1].wcs, angles)
    assert np.hypot(*(np.array(again.det_to_tanp(200.0, 200.0)) - corrector.det_to_tanp(200.0, 200.0))) < 1


def test_aligning_again_changes_nothing_and_adds_no_frame():
    images = [stars(0), stars(1, (1.2, 0.7), (0.3, 0.2), roll=0.05)]
    once = align(images, FIT)
    twice = align([replace(image, wcs=one.wcs) for image, one in zip(images, once, strict=True)], FIT)
    assert twice[1].wcs.available_frames == once[1].wcs.available_frames
    assert twice[1].shift < 1e-6


def test_a_wcs_without_the_frames_of_the_telescope_is_named():
    images = [stars(0), stars(1, error=(0.1, 0.0))]
    steps = images[1].wcs.pipeline
    whole = images[1].wcs.forward_transform
    plain = type(images[1].wcs)([(steps[0].frame, whole), (steps[-1].frame, None)])
    with pytest.raises(ValueError, match="image 1: a WCS with the frame v2v3 is needed"):
        align([images[0], replace(images[1], wcs=plain)], FIT)
