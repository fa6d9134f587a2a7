"""The grid of a mosaic."""

import tracemalloc

import numpy as np
import pytest
from astropy.wcs import WCS as FitsWcs
from hypothesis import given, settings
from hypothesis import strategies as st
from imaging_scene import DEC, RA, ROLL, SCALE, START, distortion, pointing

from calibration.wcs.imaging import footprint, imaging_wcs
from calibration.wcs.mosaic import Orientation, centre_of, fits_keywords, hull, mosaic_wcs, pixel_map, pixel_scale

SHAPE = (160, 160)
ORIENTATION = Orientation(ROLL, -0.57, -1)


def exposure(dx=0.0, dy=0.0):
    return imaging_wcs(pointing(dx, dy), distortion(), SHAPE, (START, START))


WCSS = [exposure(*at) for at in ((0, 0), (2.0, 1.0), (-3.0, 2.5))]
CORNERS = [footprint(wcs, SHAPE) for wcs in WCSS]
GRID = mosaic_wcs(CORNERS, SCALE / 3600, ORIENTATION)


def test_the_scale_is_the_one_of_the_optics():
    # 0.0656 arcsec, one part in 1e5 more by velocity aberration and the small shear.
    assert 3600 * pixel_scale(WCSS[0], RA, DEC) == pytest.approx(SCALE, rel=2e-4)


def test_every_exposure_is_inside_the_mosaic():
    nx, ny = GRID.pixel_shape
    for corners in CORNERS:
        x, y = GRID.invert(*corners.T, with_bounding_box=False)
        assert x.min() > -0.51
        assert y.min() > -0.51
        assert x.max() < nx + 0.51
        assert y.max() < ny + 0.51


def test_the_mosaic_lies_as_the_detector_does():
    mapped = pixel_map(WCSS[0], SHAPE, GRID)
    step = mapped[80, 120] - mapped[80, 80]
    assert np.degrees(np.arctan2(step[1], step[0])) == pytest.approx(0, abs=1.5)
    assert np.hypot(*step) == pytest.approx(40, rel=1e-3)


@given(st.floats(-180, 180))
@settings(max_examples=15, deadline=None)
def test_a_given_rotation_is_the_position_angle_of_the_columns(rotation):
    grid = mosaic_wcs(CORNERS, SCALE / 3600, ORIENTATION, rotation=rotation)
    x, y = grid.pixel_shape[0] / 2, grid.pixel_shape[1] / 2
    ra, dec = np.radians(grid(np.array([x, x]), np.array([y, y + 1])))
    angle = np.degrees(np.arctan2((ra[1] - ra[0]) * np.cos(dec[0]), dec[1] - dec[0]))
    assert abs((angle - rotation + 180) % 360 - 180) < 0.01


def test_reference_point_size_and_scale_can_be_given():
    grid = mosaic_wcs(CORNERS, 0.03 / 3600, ORIENTATION, crval=(RA, DEC), crpix=(200.0, 100.0), shape=(300, 500))
    assert grid.pixel_shape == (500, 300)
    assert grid(200.0, 100.0, with_bounding_box=False) == pytest.approx((RA, DEC), abs=1e-12)
    assert 3600 * pixel_scale(grid, RA, DEC) == pytest.approx(0.03, rel=1e-6)


def test_fits_keywords_say_the_same():
    fits_wcs = FitsWcs(fits_keywords(GRID), naxis=2)
    x, y = np.array([0.0, 50.0, 170.0]), np.array([3.0, 160.0, 20.0])
    np.testing.assert_allclose(fits_wcs.all_pix2world(x, y, 0), GRID(x, y), rtol=0, atol=1e-11)


def test_a_mosaic_across_the_zero_of_right_ascension_is_small():
    corners = [np.array([[359.999, 1.0], [359.999, 1.002], [0.001, 1.002], [0.001, 1.0]])]
    assert centre_of(corners)[0] == pytest.approx(0, abs=1e-9) or centre_of(corners)[0] == pytest.approx(360, abs=1e-9)
    grid = mosaic_wcs(corners, 1e-5, ORIENTATION)
    assert max(grid.pixel_shape) < 400


def test_too_small_a_mosaic_is_an_error():
    with pytest.raises(ValueError, match="at least 2 x 2"):
        mosaic_wcs(CORNERS, 1.0, ORIENTATION)


def test_pixel_maps_agree_with_the_exact_transform():
    mapped = pixel_map(WCSS[1], SHAPE, GRID)
    x, y = np.meshgrid(np.arange(160.0), np.arange(160.0))
    exact = np.stack(GRID.invert(*WCSS[1](x, y), with_bounding_box=False), axis=-1)
    assert np.abs(mapped - exact).max() < 1e-4
    np.testing.assert_array_equal(pixel_map(WCSS[1], SHAPE, GRID, max_error=0), exact)


def test_the_map_of_a_full_frame_takes_no_memory_but_its_own():
    wcs = imaging_wcs(pointing(0, 0), distortion(), (2048, 2048))
    pixel_map(wcs, SHAPE, GRID)
    tracemalloc.start()
    mapped = pixel_map(wcs, (2048, 2048), GRID)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert mapped.nbytes < peak < 1.1 * mapped.nbytes


def test_pixels_outside_the_bounding_box_have_no_place():
    wcs = exposure()
    wcs.bounding_box = ((3.5, 150.5), (-0.5, 159.5))
    mapped = pixel_map(wcs, SHAPE, GRID)
    assert np.isnan(mapped[:, :4]).all()
    assert np.isnan(mapped[:, 151:]).all()
    assert np.isfinite(mapped[:, 4:151]).all()


def test_the_hull_holds_all_corners():
    around = hull(CORNERS)
    assert 4 <= len(around) <= 12
    everything = np.concatenate(CORNERS)
    assert {tuple(corner) for corner in around} <= {tuple(corner) for corner in everything}
    assert around[:, 0].max() == everything[:, 0].max()
    assert around[:, 1].min() == everything[:, 1].min()


def test_an_exposure_that_points_elsewhere_is_told_before_memory_runs_out():
    astray = CORNERS[0] + [0.0, 20.0]
    with pytest.raises(ValueError, match="one of them probably points elsewhere"):
        mosaic_wcs([*CORNERS, astray], SCALE / 3600, ORIENTATION)
