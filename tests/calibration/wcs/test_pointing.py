"""From the telescope's angles to the sky, against plain trigonometry."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.wcs.pointing import Pointing, local_roll, pointing_of, v2v3_to_sky, velocity_aberration

POINTINGS = st.builds(
    Pointing,
    v2_ref=st.floats(-600, 600),
    v3_ref=st.floats(-800, 0),
    ra_ref=st.floats(0, 359.99),
    dec_ref=st.floats(-85, 85),
    roll_ref=st.floats(0, 359.99),
    va_scale=st.floats(0.9999, 1.0001),
)


def separation(ra1, dec1, ra2, dec2):
    """Great circle distance [arcsec], by the haversine."""
    a1, d1, a2, d2 = np.radians([ra1, dec1, ra2, dec2])
    half = np.sin((d2 - d1) / 2) ** 2 + np.cos(d1) * np.cos(d2) * np.sin((a2 - a1) / 2) ** 2
    return 3600 * np.degrees(2 * np.arcsin(np.sqrt(half)))


@settings(deadline=None)
@given(POINTINGS)
def test_the_reference_point_looks_where_the_header_says(pointing):
    ra, dec = v2v3_to_sky(pointing)(pointing.v2_ref, pointing.v3_ref)
    assert separation(ra, dec, pointing.ra_ref, pointing.dec_ref) < 1e-6


@settings(deadline=None)
@given(POINTINGS, st.floats(-60, 60), st.floats(-60, 60))
def test_angles_in_the_focal_plane_are_angles_on_the_sky(pointing, dv2, dv3):
    to_sky = v2v3_to_sky(pointing)
    ra, dec = to_sky(pointing.v2_ref + dv2, pointing.v3_ref + dv3)
    expected = separation(
        pointing.v2_ref / 3600, pointing.v3_ref / 3600, (pointing.v2_ref + dv2) / 3600, (pointing.v3_ref + dv3) / 3600
    )
    assert separation(ra, dec, pointing.ra_ref, pointing.dec_ref) == pytest.approx(expected, abs=1e-6)


def test_without_roll_v3_points_north_and_v2_east():
    pointing = Pointing(0, 0, 150.0, 0.0, 0.0)
    to_sky = v2v3_to_sky(pointing)
    north, east = to_sky(0.0, 36.0), to_sky(36.0, 0.0)
    assert north[1] == pytest.approx(0.01, abs=1e-9)
    assert east[0] == pytest.approx(150.01, abs=1e-9)


@settings(deadline=None)
@given(POINTINGS)
def test_the_local_roll_at_the_reference_point_is_roll_ref(pointing):
    difference = local_roll(pointing, pointing.v2_ref, pointing.v3_ref) - pointing.roll_ref
    assert abs((difference + 180) % 360 - 180) < 1e-4


@settings(deadline=None)
@given(POINTINGS, st.floats(-500, 500), st.floats(-500, 500))
def test_aberration_scales_about_the_reference_point(pointing, v2, v3):
    model = velocity_aberration(pointing)
    assert model(pointing.v2_ref, pointing.v3_ref) == pytest.approx((pointing.v2_ref, pointing.v3_ref), abs=1e-9)
    x, y = model(v2, v3)
    assert x - pointing.v2_ref == pytest.approx(pointing.va_scale * (v2 - pointing.v2_ref), abs=1e-9)
    assert y - pointing.v3_ref == pytest.approx(pointing.va_scale * (v3 - pointing.v3_ref), abs=1e-9)


@settings(deadline=None)
@given(POINTINGS, st.floats(-500, 500), st.floats(-500, 500))
def test_the_way_back_from_the_sky_is_the_inverse(pointing, v2, v3):
    model = velocity_aberration(pointing) | v2v3_to_sky(pointing)
    assert model.inverse(*model(v2, v3)) == pytest.approx((v2, v3), abs=1e-7)


def test_missing_keywords_are_named():
    with pytest.raises(ValueError, match="missing RA_REF, ROLL_REF"):
        pointing_of({"V2_REF": 1.0, "V3_REF": 2.0, "DEC_REF": 3.0})


def test_an_impossible_pointing_is_an_error():
    with pytest.raises(ValueError, match="no pointing"):
        Pointing(0, 0, 10, 95, 0)
    with pytest.raises(ValueError, match="no pointing"):
        Pointing(0, 0, float("nan"), 5, 0)
