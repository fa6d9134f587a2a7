"""Measuring sources, against definitions and what was put in."""

import warnings

import numpy as np
import pytest
from astropy.stats import SigmaClip
from hypothesis import given, settings
from hypothesis import strategies as st
from imaging_scene import ROLL, SCALE, START, distortion, pointing
from photutils.aperture import CircularAperture, aperture_photometry
from photutils.segmentation import SegmentationImage, SourceCatalog

from calibration.sources.catalog import BLENDED, CROWDED, INCOMPLETE, Light, Plane, measure_sources
from calibration.sources.detect import find_segments
from calibration.sources.isophotes import measure_isophotes, measure_kron
from calibration.sources.photometry import (
    Apertures,
    ab_magnitudes,
    circle_fluxes,
    nearest_neighbours,
    ring_background,
    star_statistics,
)
from calibration.wcs.imaging import footprint, imaging_wcs
from calibration.wcs.mosaic import Orientation, mosaic_wcs

SHAPE = (90, 100)


def gaussian(x, y, sigma, flux=1.0):
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = flux * np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / sigma**2) / (2 * np.pi * sigma**2)
    return image.astype(np.float32)


@settings(deadline=None, max_examples=20)
@given(st.floats(-5, 105), st.floats(-5, 95), st.integers(0, 1000))
def test_the_ring_agrees_with_its_definition(x, y, seed):
    rng = np.random.default_rng(seed)
    data = rng.normal(2, 0.1, SHAPE).astype(np.float32)
    data[rng.random(SHAPE) < 0.05] += 50
    data[rng.random(SHAPE) < 0.05] = np.nan
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    r2 = (xx - x) ** 2 + (yy - y) ** 2
    labels = (rng.random(SHAPE) < 0.1).astype(np.int32) if seed % 2 else None
    free = True if labels is None else labels == 0
    values = data[free & (r2 < 12.0**2) & (r2 >= 8.0**2) & np.isfinite(data)]
    values = SigmaClip(3.0, maxiters=5)(values, masked=False)
    level, error = ring_background(data, np.array([x]), np.array([y]), 8.0, 12.0, labels)[:, 0]
    if len(values) == 0:
        assert np.isnan(level)
    else:
        assert level == pytest.approx(np.median(values), rel=1e-6)
        assert error == pytest.approx(np.sqrt(np.pi / 2 / len(values)) * np.std(values), rel=1e-4)


def test_a_source_without_a_position_has_no_ring_and_no_flux():
    data = np.ones(SHAPE, np.float32)
    at = np.array([np.nan]), np.array([20.0])
    assert np.isnan(ring_background(data, *at, 8.0, 12.0)).all()
    flux, _ = circle_fluxes(data, data, *at, [2.0], np.zeros(1))
    assert np.isnan(flux).all()


def test_circles_hold_the_light_that_a_gaussian_has_there():
    sigma = 2.0
    data = gaussian(50.2, 40.7, sigma, 5.0) + 0.01
    err = np.full(SHAPE, 0.1, np.float32)
    radii = [2.0, 4.0, 8.0]
    flux, flux_err = circle_fluxes(data, err, np.array([50.2]), np.array([40.7]), radii, np.array([0.01]))
    # A pixel's value counts for its area: the box widens the Gaussian.
    expected = 5 * (1 - np.exp(-0.5 * np.square(radii) / (sigma**2 + 1 / 12)))
    np.testing.assert_allclose(flux[:, 0], expected, rtol=3e-3)
    np.testing.assert_allclose(flux_err[:, 0], 0.1 * np.sqrt(np.pi) * np.array(radii), rtol=1e-3)


def test_a_pixel_without_data_makes_the_flux_unknown():
    data = np.ones(SHAPE, np.float32)
    data[40, 50] = np.nan
    flux, _ = circle_fluxes(
        data, np.ones(SHAPE, np.float32), np.array([50.0, 20.0]), np.array([41.0, 20.0]), [3.0], np.zeros(2)
    )
    assert np.isnan(flux[0, 0])
    assert flux[0, 1] == pytest.approx(9 * np.pi, rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.floats(-4, 104), st.floats(-4, 94), st.floats(0.3, 9), st.integers(0, 1000))
def test_circles_agree_with_photutils(x, y, radius, seed):
    rng = np.random.default_rng(seed)
    data, err = rng.normal(1, 1, (2, *SHAPE)).astype(np.float32)
    expected = aperture_photometry(data, CircularAperture((x, y), radius), error=err)
    flux, flux_err = circle_fluxes(data, err, np.array([x]), np.array([y]), [radius], np.array([0.2]))
    np.testing.assert_allclose(flux[0, 0], expected["aperture_sum"][0] - 0.2 * np.pi * radius**2, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(flux_err[0, 0], expected["aperture_sum_err"][0], rtol=1e-5)


def crowd(seed, count=25):
    """Blended galaxies and stars with noise and holes: data, err, mask, segments."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    data = rng.normal(0, 0.02, SHAPE)
    for x, y, angle, a, q in rng.uniform((0, 0, 0, 1, 0.3), (SHAPE[1], SHAPE[0], np.pi, 4, 1), (count, 5)):
        u, v = (xx - x) * np.cos(angle) + (yy - y) * np.sin(angle), (yy - y) * np.cos(angle) - (xx - x) * np.sin(angle)
        data += rng.uniform(0.3, 5) * np.exp(-0.5 * (u**2 + (v / q) ** 2) / a**2)
    data, err = data.astype(np.float32), rng.uniform(0.01, 0.03, SHAPE).astype(np.float32)
    mask = rng.random(SHAPE) < 0.01
    data[rng.random(SHAPE) < 0.005] = np.nan
    return data, err, mask, find_segments(data, np.full(SHAPE, 0.06, np.float32), mask, 2.0, 8)


@pytest.mark.parametrize("neighbours", ["correct", "mask", "none"])
@pytest.mark.parametrize("params", [(2.5, 1.4, 0.0), (2.0, 3.0, 6.0)])
def test_isophotes_and_kron_ellipses_agree_with_photutils(neighbours, params):
    data, err, mask, segments = crowd(3)
    found = measure_isophotes(data, err, segments.smoothed, segments.labels, segments.count, mask)
    kron = measure_kron(data, err, segments.labels, mask, found, params, neighbours, np.zeros(segments.count))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = SourceCatalog(
            data,
            SegmentationImage(segments.labels),
            convolved_data=segments.smoothed,
            error=err,
            mask=mask,
            kron_params=params,
            aperture_mask_method=neighbours,
        )
        pairs = {
            "x": theirs.x_centroid,
            "y": theirs.y_centroid,
            "flux": theirs.segment_flux,
            "flux_err": theirs.segment_flux_err,
            "area": theirs.area.value,
            "major": theirs.semimajor_axis.value,
            "minor": theirs.semiminor_axis.value,
            "x0": theirs.bbox_xmin,
            "x1": theirs.bbox_xmax,
            "y0": theirs.bbox_ymin,
            "y1": theirs.bbox_ymax,
        }
        for name, expected in pairs.items():
            np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-4, err_msg=name)
        turned = np.degrees(found.orientation) - theirs.orientation.value
        np.testing.assert_allclose((turned + 90) % 180 - 90, 0, atol=0.05)
        # Eight strips of a pixel at the rim, where theirs is exact. They mirror at the middle of a pixel, we at the centre.
        rtol = 0.05 if neighbours == "correct" else 1e-3
        np.testing.assert_allclose(kron.flux, theirs.kron_flux, rtol=rtol)
        np.testing.assert_allclose(kron.flux_err, theirs.kron_flux_err, rtol=rtol)
    assert segments.count > 15


def test_a_source_thinner_than_a_pixel_has_the_variance_of_one():
    labels = np.zeros(SHAPE, np.int32)
    labels[40, 50] = 1
    data = np.where(labels, np.float32(2), np.float32(0))
    found = measure_isophotes(data, None, data, labels, 1, labels > 1)
    assert found.major[0] == pytest.approx(np.sqrt(1 / 12))
    assert (found.x[0], found.y[0], found.flux[0], found.flux_err[0]) == (50, 40, 2, 0)


def test_magnitudes_are_those_of_the_definition():
    magnitude, error = ab_magnitudes(np.array([3631.0, 1e-6, -1.0]), np.array([36.31, 1e-7, 1.0]))
    assert magnitude[0] == pytest.approx(0, abs=1e-3)
    assert magnitude[1] == pytest.approx(23.9)
    assert error[1] == pytest.approx(2.5 * np.log10(1.1))
    assert np.isnan(magnitude[2])
    assert np.isnan(error[2])


def test_the_nearest_neighbour_is_the_nearest():
    x, y, labels = np.array([0.0, 3.0, 10.0, np.nan]), np.array([0.0, 4.0, 0.0, 1.0]), np.array([7, 8, 9, 10], np.int32)
    label, distance = nearest_neighbours(x, y, labels)
    np.testing.assert_array_equal(label, [8, 7, 8, -1])
    np.testing.assert_allclose(distance, [5, 5, np.hypot(7, 4), np.nan])
    label, distance = nearest_neighbours(np.array([1.0]), np.array([1.0]), np.array([1], np.int32))
    assert (label[0], np.isnan(distance[0])) == (-1, True)


def test_a_star_is_round_and_a_bar_is_not():
    star = gaussian(50, 40, 2.0 / 2.3548)
    sharpness, roundness = star_statistics(star, np.array([50.0]), np.array([40.0]), 2.0)
    assert 0.2 < sharpness[0] < 1.0
    assert roundness[0] == pytest.approx(0, abs=1e-6)
    bar = np.zeros(SHAPE, np.float32)
    bar[40, 46:55] = 1
    assert abs(star_statistics(bar, np.array([50.0]), np.array([40.0]), 2.0)[1][0]) > 0.5


APERTURES = Apertures((30, 50, 70), (1.5, 2.4, 4.0), (1.0, 1.0, 1.16), 10.0, 14.0)
WCS = mosaic_wcs(
    [footprint(imaging_wcs(pointing(0, 0), distortion(), SHAPE, (START, START)), SHAPE)],
    SCALE / 3600,
    Orientation(ROLL, -0.57, -1),
    shape=SHAPE,
)
JANSKY = 0.25


def measure(data, err=1e-4, background=0.0, **light):
    """``data`` are in Jy per pixel."""
    data, err, background = ((np.full(SHAPE, one) / JANSKY).astype(np.float32) for one in (data, err, background))
    plane = Plane(data, err, data - background, ~np.isfinite(err), WCS, (50.0, 40.0), JANSKY)
    found = find_segments(plane.signal, 10 * err, plane.mask, 2.0, 10)
    return measure_sources(plane, found, APERTURES, 1.7, Light((2.0, 1.8), 2.0, **light))


def test_a_source_is_measured_as_it_was_made():
    table = measure(gaussian(50.3, 40.6, 2.0, 3.0) + 0.05, background=0.05)
    assert len(table) == 1
    row = table[0]
    assert (row["xcentroid"], row["ycentroid"]) == pytest.approx((50.3, 40.6), abs=0.01)
    assert row["isophotal_flux"].value == pytest.approx(3.0, rel=0.01)
    assert row["isophotal_abmag"] == pytest.approx(8.9 - 2.5 * np.log10(3.0), abs=0.01)
    assert row["isophotal_vegamag"] == pytest.approx(row["isophotal_abmag"] - 1.7)
    assert row["aper_bkg_flux"].value == pytest.approx(0.05, abs=1e-3)
    assert row["aper70_flux"].value == pytest.approx(3 * (1 - np.exp(-0.5 * 4)), rel=0.01)
    assert row["aper_total_flux"].value == pytest.approx(1.16 * row["aper70_flux"].value)
    assert row["CI_70_30"] == pytest.approx(row["aper70_flux"] / row["aper30_flux"])
    # Moments are those of the smoothed image.
    assert row["semimajor_sigma"].value == pytest.approx(np.hypot(2.0, 2.0 / 2.3548), rel=0.05)


def test_the_corners_of_a_source_enclose_it_on_the_sky():
    row = measure(gaussian(50.3, 40.6, 2.0, 3.0))[0]
    x = {
        name: WCS.invert(row[f"sky_bbox_{name}"].ra.deg, row[f"sky_bbox_{name}"].dec.deg)
        for name in ("ll", "lr", "ul", "ur")
    }
    assert x["ll"][0] == pytest.approx(x["ul"][0], abs=1e-6)
    assert x["ll"][1] == pytest.approx(x["lr"][1], abs=1e-6)
    assert x["ll"][0] < 46 < 54 < x["ur"][0]
    assert x["ll"][1] < 36 < 45 < x["ur"][1]


def test_a_wide_source_is_extended_and_a_narrow_one_is_not():
    table = measure(gaussian(30, 40, 0.8, 3.0) + gaussian(70, 40, 4.0, 3.0))
    order = np.argsort(table["xcentroid"])
    np.testing.assert_array_equal(table["is_extended"][order], [False, True])


def test_the_position_angle_on_the_sky_follows_the_image():
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    u, v = (xx - 50) * np.cos(0.5) + (yy - 40) * np.sin(0.5), -(xx - 50) * np.sin(0.5) + (yy - 40) * np.cos(0.5)
    row = measure(np.exp(-0.5 * (u**2 / 16 + v**2 / 4)))[0]
    assert row["orientation"].value == pytest.approx(np.degrees(0.5), abs=0.5)
    ra, dec = np.radians(WCS(np.array([50, 50 + np.cos(0.5)]), np.array([40, 40 + np.sin(0.5)])))
    angle = np.degrees(np.arctan2((ra[1] - ra[0]) * np.cos(dec[0]), dec[1] - dec[0]))
    difference = row["sky_orientation"].value - angle
    assert abs((difference + 90) % 180 - 90) < 0.5


def test_a_galaxy_has_its_light_in_the_kron_ellipse():
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    u, v = (xx - 50) * np.cos(0.5) + (yy - 40) * np.sin(0.5), -(xx - 50) * np.sin(0.5) + (yy - 40) * np.cos(0.5)
    profile = np.exp(-np.hypot(u, v / 0.6) / 4.5)
    row = measure(3.0 * profile / profile.sum() + 0.05, background=0.05)[0]
    assert row["is_extended"]
    # An exponential disk has 96 % and more of its light there (Graham and Driver 2005, PASA 22, 118).
    assert 0.95 < row["kron_flux"].value / 3.0 < 1.0
    assert row["total_flux"] == row["kron_flux"]
    assert row["kron_abmag"] == pytest.approx(8.9 - 2.5 * np.log10(row["kron_flux"].value))
    assert row["kron_vegamag"] == pytest.approx(row["kron_abmag"] - 1.7)
    assert row["kron_radius"].value > row["semimajor_sigma"].value


def test_the_light_left_of_the_background_is_taken_away_on_request():
    data = gaussian(50.3, 40.6, 2.0, 3.0) + 2e-4
    with_sky = measure(data)[0]
    without = measure(data, sky_width=8)[0]
    for name in ("isophotal_flux", "kron_flux"):
        assert with_sky[name].value > 3.0
        assert without[name].value == pytest.approx(with_sky[name].value, rel=0.05)
        assert without[name] < with_sky[name]


def moffat(x, y, flux, width=1.2, power=2.5):
    """A star with wings, each pixel the mean of 11 by 11 samples; all its light is ``flux``."""
    sub = (np.arange(11) - 5) / 11
    xx = (np.arange(SHAPE[1])[:, None] + sub).ravel() - x
    yy = (np.arange(SHAPE[0])[:, None] + sub).ravel() - y
    fine = (1 + (yy[:, None] ** 2 + xx**2) / width**2) ** -power * (power - 1) / (np.pi * width**2)
    return (flux * fine.reshape(SHAPE[0], 11, SHAPE[1], 11).mean(axis=(1, 3))).astype(np.float32)


def test_the_total_of_stars_is_unbiased_alone_next_to_another_and_at_the_edge(monkeypatch):
    radius, inner, outer = 3.0, 10.0, 14.0
    # The correction by its definition, from a star of known light: circle less ring.
    star = moffat(50, 40, 1.0)
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    r = np.hypot(xx - 50, yy - 40)
    ring = np.median(star[(r >= inner) & (r < outer)])
    ones = np.ones(SHAPE, np.float32)
    inside = circle_fluxes(star, ones, np.array([50.0]), np.array([40.0]), [radius], np.array([ring]))[0][0, 0]
    monkeypatch.setitem(globals(), "APERTURES", Apertures((30, 50, 70), (1.2, 2, radius), (1, 1, 1 / inside), 10, 14))
    rng = np.random.default_rng(9)
    places = [(20.3, 20.6, 3.0), (50.8, 70.2, 2.0), (56.9, 70.4, 1.0), (97.6, 40.1, 3.0)]
    data = sum(moffat(*one) for one in places) + rng.normal(0, 2e-4, SHAPE)
    table = measure(data, err=2e-4)
    assert len(table) == len(places)
    for x, y, flux in places:
        row = table[np.argmin(np.hypot(table["xcentroid"] - x, table["ycentroid"] - y))]
        tolerance = 0.01 if x < 90 else 0.03
        assert row["total_flux"].value == pytest.approx(flux, rel=tolerance)
        if x < 50:
            assert row["aper_total_flux"].value == pytest.approx(flux, rel=0.01)
            assert row["flags"] == 0
        assert bool(row["flags"] & INCOMPLETE) == (x > 90)
        assert bool(row["flags"] & BLENDED) == (50 < x < 60)


def test_a_neighbour_in_the_aperture_is_flagged():
    table = measure(gaussian(50, 40, 1.2, 3.0) + gaussian(50, 46, 1.2, 3.0))
    np.testing.assert_array_equal(table["flags"], [BLENDED | CROWDED] * 2)


def test_a_core_without_data_leaves_a_flagged_source():
    data = gaussian(50.3, 40.6, 3.0, 300.0)
    data[39:43, 49:53] = np.nan
    row = measure(data)[0]
    assert row["flags"] & INCOMPLETE
    assert np.hypot(row["xcentroid"] - 50.3, row["ycentroid"] - 40.6) < 0.5
    assert np.isnan(row["aper_total_flux"])
    assert np.isnan(row["total_flux"])
    assert row["isophotal_flux"].value > 0


def test_no_source_is_a_valid_catalog_with_all_columns():
    full = measure(gaussian(50.3, 40.6, 2.0, 3.0))
    empty = measure(np.zeros(SHAPE))
    assert len(empty) == 0
    assert empty.colnames == full.colnames
    for name in full.colnames:
        assert getattr(empty[name], "unit", None) == getattr(full[name], "unit", None), name
