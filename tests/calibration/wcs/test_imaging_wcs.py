"""The WCS of images: frames, subarrays, filters, footprint, FITS approximation and fast maps."""

import warnings

import asdf
import numpy as np
import pytest
from astropy.modeling import bind_bounding_box
from astropy.modeling.models import Pix2Sky_TAN, RotateNative2Celestial
from astropy.wcs import WCS as FitsWcs
from hypothesis import given, settings
from hypothesis import strategies as st
from imaging_scene import distortion, pointing
from scipy.interpolate import make_interp_spline

from calibration.wcs.imaging import filter_offset, footprint, imaging_wcs, region, sample_map, sip_keywords
from calibration.wcs.pointing import Pointing, v2v3_to_sky, velocity_aberration

FULL = imaging_wcs(pointing(0, 0), distortion(), (2048, 2048))


def test_frames_have_the_names_of_the_archive():
    assert FULL.available_frames == ["detector", "v2v3", "v2v3vacorr", "world"]
    assert FULL.bounding_box.bounding_box(order="F") == ((-0.5, 2047.5), (-0.5, 2047.5))


def test_the_wcs_is_distortion_then_aberration_then_pointing():
    x, y = np.array([1000.0, 1100.0]), np.array([1200.0, 990.0])
    at = pointing(0, 0)
    expected = v2v3_to_sky(at)(*velocity_aberration(at)(*distortion()(x, y)))
    np.testing.assert_array_equal(FULL(x, y), expected)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 1800), st.integers(1, 1800))
def test_a_pixel_of_a_subarray_looks_where_the_same_pixel_of_the_full_frame_does(xstart, ystart):
    part = imaging_wcs(pointing(0, 0), distortion(), (64, 32), (xstart, ystart))
    np.testing.assert_allclose(part(10.0, 20.0), FULL(10.0 + xstart - 1, 20.0 + ystart - 1), rtol=0, atol=1e-12)
    assert part.bounding_box.bounding_box(order="F") == ((-0.5, 31.5), (-0.5, 63.5))


def test_the_shift_of_a_filter_moves_the_pixels():
    shifted = imaging_wcs(pointing(0, 0), distortion(), (2048, 2048), offset=(0.25, -0.5))
    np.testing.assert_allclose(shifted(1000.0, 1000.0), FULL(1000.25, 999.5), rtol=0, atol=1e-13)


def test_the_reference_is_left_as_it_is():
    model = distortion()
    imaging_wcs(pointing(0, 0), model, (2048, 2048))
    with pytest.raises(NotImplementedError):
        _ = model.bounding_box


def test_a_bounding_box_of_the_reference_is_kept_for_the_full_frame():
    model = distortion()
    bind_bounding_box(model, ((3.5, 1027.5), (-0.5, 1023.5)), order="F")
    wcs = imaging_wcs(pointing(0, 0), model, (1024, 1032))
    assert wcs.bounding_box.bounding_box(order="F") == ((3.5, 1027.5), (-0.5, 1023.5))


def test_filter_offsets_are_found_by_filter_and_pupil():
    rows = [
        {"filter": "F200W", "pupil": "CLEAR", "column_offset": 1.0, "row_offset": 2.0},
        {"filter": "CLEAR", "pupil": "F200W", "column_offset": 3.0, "row_offset": 4.0},
        {"filter": "F770W", "pupil": "N/A", "column_offset": 5.0, "row_offset": 6.0},
        {"filter": "F560W", "pupil": "N/A", "column_offset": "N/A", "row_offset": "N/A"},
    ]
    assert filter_offset(rows, "CLEAR", "F200W") == (3.0, 4.0)
    assert filter_offset(rows, "F770W", None) == (5.0, 6.0)
    assert filter_offset(rows, "F560W", None) is None
    assert filter_offset(rows, "CLEAR", "F150W") is None
    assert filter_offset([rows[0], rows[0]], "F200W", "CLEAR") == (1.0, 2.0)
    with pytest.raises(ValueError, match=r"one shift of filter F200W and pupil CLEAR .* but it has 2"):
        filter_offset([rows[0], rows[0] | {"row_offset": 7.0}], "F200W", "CLEAR")


def test_the_footprint_has_the_outer_corners_of_the_pixels():
    corners = footprint(FULL, (2048, 2048))
    expected = [
        FULL(x, y, with_bounding_box=False) for x, y in ((-0.5, -0.5), (-0.5, 2047.5), (2047.5, 2047.5), (2047.5, -0.5))
    ]
    np.testing.assert_allclose(corners, expected, rtol=0, atol=1e-12)
    text = region(corners)
    assert text.startswith("POLYGON ICRS  ")
    np.testing.assert_allclose(np.array(text.split()[2:], float).reshape(4, 2), corners, rtol=0, atol=1e-9)


def test_a_footprint_that_is_not_finite_has_no_region():
    assert region(np.full((4, 2), np.nan)) is None


def test_fits_keywords_approximate_the_wcs_within_a_hundredth_of_a_pixel():
    cards = sip_keywords(FULL, (1024.5, 1024.5))
    fits_wcs = FitsWcs({key: value for key, value in cards.items()}, naxis=2)
    x, y = np.meshgrid(np.linspace(0, 2047, 9), np.linspace(0, 2047, 9))
    back = FULL.invert(*fits_wcs.all_pix2world(x, y, 0), with_bounding_box=False)
    # The inverse of the scene's optics is itself good to some 1e-3 pixel over the whole detector only.
    assert np.hypot(back[0] - FULL.invert(*FULL(x, y))[0], back[1] - FULL.invert(*FULL(x, y))[1]).max() < 0.01


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 200), st.integers(1, 200))
def test_a_sampled_map_is_as_good_as_it_says(ny, nx):
    def curved(x, y):
        return np.sin(x / 60) * 3 + y, np.cos(y / 50) * 2 + x

    values, error = sample_map(curved, (ny, nx), 1e-4)
    exact = np.array(curved(*np.meshgrid(np.arange(nx), np.arange(ny))))
    assert np.abs(values - exact).max() <= max(error, 1e-12) <= 1e-4


def test_a_sampled_map_is_the_tensor_product_of_cubic_splines():
    def curved(x, y):
        return np.sin(x / 60) * np.cos(y / 90), np.cos(y / 50) + x * y / 1e4

    ny, nx = 150, 333
    out = np.full((ny, nx, 2), np.nan)
    values, _ = sample_map(curved, (ny, nx), 1.0, out=np.moveaxis(out, -1, 0))
    assert np.shares_memory(values, out)
    # For 128 pixels: four nodes at least, and those between.
    x, y = np.linspace(0, nx - 1, 7), np.linspace(0, ny - 1, 7)
    nodes = np.array(curved(*np.meshgrid(x, y)))
    expected = make_interp_spline(x, make_interp_spline(y, nodes, axis=1)(np.arange(ny)), axis=2)(np.arange(nx))
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)


def test_no_error_allowed_means_every_pixel(monkeypatch):
    monkeypatch.setattr("calibration.wcs.imaging._STRIP", 1000)
    asked = []

    def count(x, y):
        asked.append(x.size)
        return (np.sin(x) + y,)

    values, error = sample_map(count, (50, 130), 0)
    np.testing.assert_array_equal(values[0], np.sin(np.arange(130.0)) + np.arange(50.0)[:, None])
    assert error == 0
    assert sum(asked) == 50 * 130
    assert max(asked) <= 1000, "in strips, to spare memory"


def test_a_map_that_is_not_smooth_is_evaluated_everywhere():
    def rough(x, y):
        return ((x * 7919 + y * 104729) % 13,)

    values, error = sample_map(rough, (20, 30))
    np.testing.assert_array_equal(values[0], rough(*np.meshgrid(np.arange(30.0), np.arange(20.0)))[0])
    assert error == 0


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("niriss/jwst_niriss_distortion_0010", (2048, 2048)),
        ("nircam/jwst_nircam_distortion_0090", (2048, 2048)),
        ("nircam/jwst_nircam_distortion_0096", (2048, 2048)),
        ("miri/jwst_miri_distortion_0028", (1024, 1032)),
    ],
)
def test_a_real_distortion_is_mapped_as_well_as_is_said(shared, name, shape):
    """Within a tenth of what is said: the values come from a grid twice as fine as the one that was found good."""
    with (
        asdf.open(shared / f"real/crds/cache_0676/references/jwst/{name}.asdf", lazy_load=False, memmap=False) as tree,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        model = tree["model"]
    v2, v3 = model(shape[1] / 2, shape[0] / 2)
    wcs = imaging_wcs(Pointing(float(v2), float(v3), 30.0, -60.0, 100.0), model, shape)
    # On a tangent plane at the middle, in pixels.
    plane = Pix2Sky_TAN() | RotateNative2Celestial(*wcs(shape[1] / 2, shape[0] / 2), 180)
    side = 0.11 if "miri" in name else 0.031

    def project(x, y):
        return tuple(value * 3600 / side for value in plane.inverse(*wcs(x, y, with_bounding_box=False)))

    values, error = sample_map(project, shape)
    assert error <= 1e-3
    x, y = np.meshgrid(np.arange(0, shape[1], 9), np.arange(0, shape[0], 7))
    assert np.abs(values[:, y, x] - np.array(project(x, y))).max() < 0.1 * error
