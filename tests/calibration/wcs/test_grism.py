"""The dispersion: arrays against the gwcs of the file, and both against their definition."""

import asdf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.polynomial import polyder, polyval
from wfss_scene import (
    ORDERS,
    VELOSYS,
    WHEEL,
    miri_specwcs,
    nircam_specwcs,
    other_wcs_of,
    specwcs,
    wcs_of,
)

from calibration.wcs.grism import (
    NIRCAM_AXIS,
    NIRISS_AXIS,
    SPEED_OF_LIGHT,
    dispersion_of,
    exposure_wcs,
    grism_wcs,
    miri_disperser,
    nircam_disperser,
    niriss_disperser,
    place,
    slit_wcs,
    solve,
    wavelengths_along,
)

GRISMS = pytest.mark.parametrize("grism", ["GR150R", "GR150C"])
X0, Y0 = np.array([12.0, 400.5, 250.0]), np.array([33.3, 90.0, 511.0])


@GRISMS
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("curvature", [0.0, 4.0])
def test_light_falls_where_the_gwcs_says(grism, order, curvature):
    assert_same_places(wcs_of(grism, 512, curvature=curvature), order, np.array([1.7, 2.0, 2.28]), 1e-9)


OTHERS = {
    f"{grism} {module} {'newer' if newer else 'old'}": nircam_disperser(nircam_specwcs(grism, module, newer), grism)
    for grism in NIRCAM_AXIS
    for module in "AB"
    for newer in (False, True)
} | {"P750L": miri_disperser(miri_specwcs()), "P750L straight": miri_disperser(miri_specwcs((150.0, -290.0)))}
RANGES = {"G": np.array([3.05, 3.6, 4.8]), "P": np.array([4.4, 8.0, 13.6])}


@pytest.mark.parametrize("name", OTHERS)
def test_light_of_the_other_instruments_falls_where_the_gwcs_says(name):
    wcs = other_wcs_of(OTHERS[name], 512)
    for order in dispersion_of(wcs).orders:
        # Without an inverse the class of the file looks t up between 40 places on a line that is slightly bent. (Near the
        # last but one of them it does not interpolate but extrapolates from the end, and is off by up to 27 pixels.)
        assert_same_places(wcs, order, RANGES[name[0]], 5e-3 if "newer" in name else 1e-9)


def assert_same_places(wcs, order, wavelength, tolerance):
    dispersion = dispersion_of(wcs)
    backward = wcs.get_transform("detector", "grism_detector")
    x, y = place(dispersion, np.full(3, dispersion.index(order)), X0, Y0, wavelength)
    for k, value in enumerate(wavelength):
        for s in range(3):
            xg, yg, *_ = backward(X0[s], Y0[s], value, order)
            assert (x[s, k], y[s, k]) == pytest.approx((float(xg), float(yg)), abs=tolerance)


@pytest.mark.parametrize("name", OTHERS)
def test_wavelengths_of_the_other_instruments_are_those_of_the_gwcs(name):
    wcs = other_wcs_of(OTHERS[name], 512)
    dispersion = dispersion_of(wcs)
    forward = wcs.get_transform("grism_detector", "detector")
    for m, order in enumerate(dispersion.orders):
        index = np.full(3, m)
        ends = np.sort(place(dispersion, index, X0, Y0, RANGES[name[0]])[dispersion.axis - 1][:, [0, 2]], axis=1)
        start = ends[:, 0].astype(int)
        wavelength = wavelengths_along(dispersion, index, X0, Y0, start, 200)
        for s in range(3):
            along, zero = start[s] + np.arange(200.0), np.zeros(200)
            x, y = (along, zero) if dispersion.axis == 1 else (zero, along)
            found = forward(x, y, zero + X0[s], zero + Y0[s], zero.astype(int) + order)[2]
            # The class of the file looks t up between 10 places, which are off the bent trace of the prism.
            pixels = (found - wavelength[s]) / np.gradient(wavelength[s])
            assert np.abs(pixels).max() < (0.9 if name == "P750L" else 1e-6)


@pytest.mark.parametrize("name", ["GR150R", "GR150C", *OTHERS])
@given(x0=st.floats(0, 2047), y0=st.floats(0, 2047), curvature=st.sampled_from([0.0, 6.0]), share=st.floats(0.15, 0.8))
@settings(max_examples=10, deadline=None)
def test_wavelengths_along_a_trace_lead_back_to_their_pixels(name, x0, y0, curvature, share):
    wcs = wcs_of(name, 512, curvature=curvature) if name in NIRISS_AXIS else other_wcs_of(OTHERS[name], 512)
    dispersion = dispersion_of(wcs)
    index, x0, y0 = np.array([dispersion.index(1)]), np.array([x0]), np.array([y0])
    middle = {"GR": 0.75 + 1.55 * share, "P7": 4 + 10 * share}["P7" if name[0] == "P" else "GR"]
    middle = 2.5 + 2.4 * share if "GRISM" in name else middle
    at = place(dispersion, index, x0, y0, np.array([middle]))[dispersion.axis - 1]
    origin = at[:, 0].astype(int) - 10
    wavelength = wavelengths_along(dispersion, index, x0, y0, origin, 20)
    along = place(dispersion, index, x0, y0, wavelength)[dispersion.axis - 1]
    np.testing.assert_allclose(along[0], origin[0] + np.arange(20), atol=1e-7)


@given(
    rise=st.floats(0.1, 1e4), bend=st.floats(-0.45, 0.9), start=st.floats(-3000, 3000), sign=st.sampled_from([-1, 1])
)
def test_a_polynomial_is_solved_and_goes_on_straight_beyond_its_ends(rise, bend, start, sign):
    coefficients = np.array([[start, sign * rise, sign * rise * bend, 0.1 * sign * rise * abs(bend)]])
    t = np.linspace(-1, 2, 31)[None]
    inside = np.clip(t, 0, 1)
    value, slope = polyval(inside, coefficients[0]), polyval(inside, polyder(coefficients[0]))
    np.testing.assert_allclose(solve(coefficients, value + slope * (t - inside)), t, atol=1e-8)


def test_a_polynomial_that_does_not_change_has_no_solution():
    assert np.isnan(solve(np.array([[3.0, 0.0], [1.0, 2.0]]), np.array([[4.0, 5.0], [1.0, 3.0]]))).tolist() == [
        [True, True],
        [False, False],
    ]


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
    plain = grism_wcs(_imaging(imaging), niriss_disperser(specwcs("GR150R"), "GR150R", WHEEL["GR150R"]))
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
    with pytest.raises(ValueError, match=r"GR150C', 'GR150R'.*but it is CLEAR"):
        niriss_disperser(specwcs("GR150R"), "CLEAR", 33.6)


def test_an_incomplete_reference_is_refused():
    tree = {key: value for key, value in specwcs("GR150R").items() if key not in ("dispx", "fwcpos_ref")}
    with pytest.raises(ValueError, match=r"no dispx, fwcpos_ref"):
        niriss_disperser(tree, "GR150R", 33.6)


def test_a_wcs_without_a_grism_is_refused():
    with pytest.raises(ValueError, match=r"expected a WCS with a frame grism_detector.*run assign_wcs"):
        dispersion_of(_imaging(None))


def test_an_unknown_order_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"orders \[-1, 0, 1, 2\], but order 7"):
        dispersion_of(wcs_of("GR150R", 512)).index(7)


@pytest.mark.parametrize(
    ("number", "grism", "sign"), [(9, "GRISMR", -1), (10, "GRISMR", 1), (11, "GRISMC", 1), (12, "GRISMC", 1)]
)
def test_the_references_of_nircam_in_flight(shared, number, grism, sign):
    path = shared / f"real/crds/cache_0676/references/jwst/nircam/jwst_nircam_specwcs_{number:04}.asdf"
    with asdf.open(path, lazy_load=False) as file:
        wcs = other_wcs_of(nircam_disperser(file.tree, grism), 512)
    for order in (1, 2):
        assert_same_places(wcs, order, RANGES["G"], 1e-6)
    along = place(dispersion_of(wcs), np.array([0]), X0[:1], Y0[:1], np.array([3.0, 4.0]))[NIRCAM_AXIS[grism] - 1][0]
    assert along[1] - along[0] == pytest.approx(sign * 996, abs=1)


def test_a_reference_for_stripes_is_refused(shared):
    with (
        asdf.open(shared / "real/crds/jwst_tests/nircam_nrca1_specwcs.asdf", lazy_load=False) as file,
        pytest.raises(ValueError, match=r"one for stripes \(DHS\); use one for NIRCam WFSS"),
    ):
        nircam_disperser(file.tree, "GRISMR")
