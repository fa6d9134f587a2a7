"""The dispersion: arrays against the gwcs of the file, and both against their definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wfss_scene import ORDERS, VELOSYS, WHEEL, specwcs, wcs_of

from calibration.wcs.grism import (
    NIRISS_AXIS,
    SPEED_OF_LIGHT,
    dispersion_of,
    exposure_wcs,
    grism_wcs,
    place,
    slit_wcs,
    wavelengths_along,
)

GRISMS = pytest.mark.parametrize("grism", ["GR150R", "GR150C"])
X0, Y0 = np.array([12.0, 400.5, 250.0]), np.array([33.3, 90.0, 511.0])


@GRISMS
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("curvature", [0.0, 4.0])
def test_light_falls_where_the_gwcs_says(grism, order, curvature):
    wcs = wcs_of(grism, 512, curvature=curvature)
    dispersion = dispersion_of(wcs)
    backward = wcs.get_transform("detector", "grism_detector")
    wavelength = np.array([1.7, 2.0, 2.28])
    x, y = place(dispersion, np.full(3, dispersion.index(order)), X0, Y0, wavelength)
    for k, value in enumerate(wavelength):
        xg, yg, *_ = backward(X0, Y0, np.full(3, value), np.full(3, order))
        np.testing.assert_allclose(x[:, k], xg, atol=1e-9)
        np.testing.assert_allclose(y[:, k], yg, atol=1e-9)


@GRISMS
@given(
    x0=st.floats(0, 2047), y0=st.floats(0, 2047), curvature=st.sampled_from([0.0, 6.0]), start=st.integers(-50, 1500)
)
@settings(max_examples=25, deadline=None)
def test_wavelengths_along_a_trace_lead_back_to_their_pixels(grism, x0, y0, curvature, start):
    dispersion = dispersion_of(wcs_of(grism, 512, curvature=curvature))
    index, x0, y0 = np.array([dispersion.index(1)]), np.array([x0]), np.array([y0])
    origin = start + (x0 if dispersion.axis == 1 else y0).astype(int) - 300
    wavelength = wavelengths_along(dispersion, index, x0, y0, origin, 30)
    x, y = place(dispersion, index, x0, y0, wavelength)
    np.testing.assert_allclose((x if dispersion.axis == 1 else y)[0], origin + np.arange(30), atol=1e-7)


@GRISMS
def test_the_wavelength_of_the_gwcs_is_that_of_the_arrays_when_the_wheel_stands_as_in_the_reference(grism):
    wcs = wcs_of(grism, 512, turn=0.0)
    dispersion = dispersion_of(wcs)
    along = np.arange(100.0, 130.0)
    x, y = (along, np.full(30, 37.0)) if dispersion.axis == 1 else (np.full(30, 37.0), along)
    found = wcs.get_transform("grism_detector", "detector")(x, y, np.full(30, 240.0), np.full(30, 250.0), np.ones(30))[
        2
    ]
    index = np.array([dispersion.index(1)])
    mine = wavelengths_along(dispersion, index, np.array([240.0]), np.array([250.0]), np.array([100]), 30)[0]
    np.testing.assert_allclose(mine, found, rtol=1e-12)


@GRISMS
def test_the_trace_turns_with_the_wheel(grism):
    still, turned = (dispersion_of(wcs_of(grism, 512, turn=turn)) for turn in (0.0, 90.0))
    index, at = np.array([0]), np.array([200.0])
    x, y = place(still, index, at, at, np.array([2.0]))
    xt, yt = place(turned, index, at, at, np.array([2.0]))
    np.testing.assert_allclose([xt - 200, yt - 200], [y - 200, 200 - x], atol=1e-9)


def test_wavelengths_are_barycentric():
    dispersion = dispersion_of(wcs_of("GR150R", 512))
    assert dispersion.velocity == pytest.approx(1 / (1 + VELOSYS / SPEED_OF_LIGHT), rel=1e-15)
    imaging = wcs_of("GR150R", 512)
    plain = grism_wcs(_imaging(imaging), specwcs("GR150R"), "GR150R", WHEEL["GR150R"])
    assert dispersion_of(plain).velocity == 1.0


def _imaging(grism):
    from wfss_scene import POINTING, distortion

    from calibration.wcs.imaging import imaging_wcs

    return imaging_wcs(POINTING, distortion(512), (512, 512))


@GRISMS
def test_a_slit_sees_the_sky_where_its_source_is(grism):
    wcs = wcs_of(grism, 512)
    direct = (210.0, 305.0)
    slit = slit_wcs(wcs, 40, 50, (20, 11), direct, 1)
    assert slit.available_frames == ["grism_slit", *wcs.available_frames]
    ra, dec, wavelength, order = slit(3.0, 4.0)
    np.testing.assert_allclose((ra, dec), wcs.get_transform("detector", "world")(*direct, 1, 1)[:2], rtol=1e-12)
    assert order == 1
    x, y, x0, y0, _ = wcs.get_transform("world", "grism_detector")(ra, dec, wavelength, order)
    # Across the dispersion the trace goes its own way.
    assert (x - 40 if NIRISS_AXIS[grism] == 1 else y - 50) == pytest.approx(
        3.0 if NIRISS_AXIS[grism] == 1 else 4.0, abs=0.15
    )
    assert (x0, y0) == pytest.approx(direct, abs=0.1)
    assert exposure_wcs(slit).available_frames == wcs.available_frames


def test_slits_share_the_transforms_of_their_exposure():
    wcs = wcs_of("GR150R", 512)
    one, other = (slit_wcs(wcs, x, 50, (20, 11), (x, 60.0), 1) for x in (40, 80))
    assert one.pipeline[1].transform is other.pipeline[1].transform


def test_an_unknown_grism_is_refused():
    wcs = wcs_of("GR150R", 512)
    with pytest.raises(ValueError, match=r"GR150C', 'GR150R'.*but it is CLEAR"):
        grism_wcs(wcs, specwcs("GR150R"), "CLEAR", 33.6)


def test_an_incomplete_reference_is_refused():
    tree = {key: value for key, value in specwcs("GR150R").items() if key not in ("dispx", "fwcpos_ref")}
    with pytest.raises(ValueError, match=r"no dispx, fwcpos_ref"):
        grism_wcs(wcs_of("GR150R", 512), tree, "GR150R", 33.6)


def test_a_wcs_without_a_grism_is_refused():
    with pytest.raises(ValueError, match=r"expected a WCS with a frame grism_detector.*run assign_wcs"):
        dispersion_of(_imaging(None))


def test_an_unknown_order_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"orders \[-1, 0, 1, 2\], but order 7"):
        dispersion_of(wcs_of("GR150R", 512)).index(7)
