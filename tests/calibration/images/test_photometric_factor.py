"""The row of a filter and its fading."""

import numpy as np
import pytest
from astropy import units

from calibration.images.photom import MJSR_TO_UJA2, fading, find_photom_row

TABLE = np.array([("CLEAR", "F200W ", 1.0), ("CLEAR", "F150W", 2.0), ("GR150C", "F200W", 3.0)],
                 [("filter", "U12"), ("pupil", "U12"), ("photmjsr", "f4")])  # fmt: skip


def test_rows_match_whatever_the_case_and_the_blanks():
    assert find_photom_row(TABLE, {"filter": "clear", "pupil": "F200W"}) == 0
    assert find_photom_row(TABLE, {"filter": "CLEAR", "pupil": "F444W"}) is None


def test_two_matching_rows_are_an_error():
    with pytest.raises(ValueError, match="must have one row for filter CLEAR, but has 2"):
        find_photom_row(TABLE, {"filter": "CLEAR"})


def test_the_unit_factor_is_the_one_of_astropy():
    assert pytest.approx((1 * units.MJy / units.sr).to_value(units.uJy / units.arcsec**2), rel=1e-12) == MJSR_TO_UJA2


def test_trends_are_one_at_day_zero_and_multiply():
    linear = {"t0": 60000.0, "lossperyear": 0.01}
    assert fading({"linear": linear}, 60000.0) == 1
    assert fading({"linear": linear}, 60730.0) == pytest.approx(0.98)
    exponential = {"t0": 60000.0, "amplitude": 0.2, "tau": 100.0, "const": 0.8}
    assert fading({"exponential": exponential}, 60100.0) == pytest.approx(0.8 + 0.2 / np.e)
    power = {"t0": 60000.0, "year1value": 0.9, "tsoft": 1.0, "alpha": -0.5}
    assert fading({"powerlaw": power}, 60365.0) == pytest.approx(0.9)
    both = fading({"linear": linear, "exponential": exponential}, 60100.0)
    assert both == pytest.approx((1 - 0.01 * 100 / 365) * (0.8 + 0.2 / np.e))


def test_an_unknown_trend_is_an_error():
    with pytest.raises(ValueError, match="linear, exponential or powerlaw"):
        fading({"cubic": {"t0": 1.0}}, 2.0)
