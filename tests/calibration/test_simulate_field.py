"""The map between the sky and the detector."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from calibration.simulate import niriss
from calibration.simulate.field import ARCSEC, Pointing, angles_to_sky, pixel_to_sky, sky_to_pixel, step_on_sky

POINTING = Pointing(ra_ref=359.999, dec_ref=61.3, roll_ref=211.0, va_scale=1.00005)
DISTORTION = niriss.distortion("CLEAR", "F200W")


def test_the_sky_and_the_detector_are_inverse_to_each_other():
    x, y = np.random.default_rng(3).uniform(-20, 2068, (2, 500))
    back = sky_to_pixel(DISTORTION, POINTING, *pixel_to_sky(DISTORTION, POINTING, x, y))
    np.testing.assert_allclose(back, (x, y), atol=1e-6)


def test_the_reference_pixel_looks_at_the_reference_point():
    ra, dec = pixel_to_sky(DISTORTION, POINTING, DISTORTION.x_ref, DISTORTION.y_ref)
    assert ra == pytest.approx(POINTING.ra_ref, abs=1e-10)
    assert dec == pytest.approx(POINTING.dec_ref, abs=1e-10)


def test_v3_points_along_the_roll_angle():
    here = SkyCoord(POINTING.ra_ref, POINTING.dec_ref, unit="deg")
    ra, dec = angles_to_sky(DISTORTION, POINTING, DISTORTION.v2_ref, DISTORTION.v3_ref + 1.0)
    there = SkyCoord(ra, dec, unit="deg")
    assert here.position_angle(there).to_value("deg") == pytest.approx(POINTING.roll_ref, abs=1e-4)
    assert here.separation(there).to_value("arcsec") == pytest.approx(POINTING.va_scale, rel=1e-6)


def test_the_area_of_a_pixel_is_the_area_of_its_outline_on_the_sky():
    pointing = Pointing(30.0, 0.0, 57.0, 1.0)
    for x, y in ((100.0, 150.0), (1023.5, 1023.5), (2000.0, 1700.0)):
        corners_x, corners_y = x + np.array([-0.5, 0.5, 0.5, -0.5]), y + np.array([-0.5, -0.5, 0.5, 0.5])
        corners = SkyCoord(*pixel_to_sky(DISTORTION, pointing, corners_x, corners_y), unit="deg")
        plane = corners.transform_to(corners[0].skyoffset_frame())
        a, b = plane.lon.wrap_at(180 * u.deg).to_value("arcsec"), plane.lat.to_value("arcsec")
        outline = 0.5 * abs(np.dot(a, np.roll(b, 1)) - np.dot(b, np.roll(a, 1)))
        assert DISTORTION.pixel_area(x, y) == pytest.approx(outline, rel=1e-5)


def test_the_map_of_areas_holds_the_area_of_each_pixel():
    y, x = np.indices((7, 5))
    areas = DISTORTION.pixel_area_map((7, 5), (1500, 200))
    np.testing.assert_allclose(areas, DISTORTION.pixel_area(x + 1500, y + 200), rtol=1e-12)


def test_a_step_of_the_telescope_moves_the_sources_the_other_way():
    stepped = step_on_sky(DISTORTION, POINTING, 0.7, -0.4)
    x, y = np.array([300.0, 1000.0, 1900.0]), np.array([1800.0, 1000.0, 100.0])
    moved = sky_to_pixel(DISTORTION, stepped, *pixel_to_sky(DISTORTION, POINTING, x, y))
    v2, v3 = DISTORTION.to_v2v3(x, y)
    v2_moved, v3_moved = DISTORTION.to_v2v3(*moved)
    np.testing.assert_allclose(v2_moved - v2, -0.7, atol=1e-3)
    np.testing.assert_allclose(v3_moved - v3, 0.4, atol=1e-3)


def test_the_nominal_pixel_area_is_that_of_the_centre():
    centre = niriss.distortion("", "").pixel_area(niriss.CENTRE, niriss.CENTRE)
    assert pytest.approx(centre * ARCSEC**2, rel=1e-12) == niriss.PIXEL_AREA
