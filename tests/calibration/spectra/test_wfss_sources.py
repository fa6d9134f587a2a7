"""What is wrong with a catalog is told, and what is missing in it does not stop the rest."""

import logging

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from wfss_scene import Place, catalog_of, wcs_of

from calibration.spectra.sources import sources_of

WCS = wcs_of("GR150R", 512)


def catalog(*places):
    return catalog_of(list(places), WCS)


def test_sources_come_brightest_first_with_those_of_unknown_magnitude_last(caplog):
    table = catalog(
        Place(4, 100, 100, abmag=np.nan), Place(9, 200, 200, abmag=24.0), Place(2, 300, 300, abmag=19.0, extended=True)
    )
    with caplog.at_level(logging.WARNING):
        sources = sources_of(table, "field_cat.ecsv")
    assert sources.label.tolist() == [2, 9, 4]
    assert sources.extended.tolist() == [True, False, False]
    assert caplog.messages == ["field_cat.ecsv: no magnitude for source 4, taken as the faintest"]


def test_a_masked_magnitude_is_an_unknown_one():
    table = catalog(Place(1, 100, 100), Place(2, 200, 200))
    table["isophotal_abmag"] = np.ma.masked_array([20.0, 21.0], [True, False])
    sources = sources_of(table)
    assert sources.label.tolist() == [2, 1]
    assert np.isnan(sources.abmag[1])


def test_corners_stay_with_their_source():
    sources = sources_of(catalog(Place(1, 100, 100, abmag=25), Place(2, 300, 200, abmag=20, half=8)))
    to_pixel = WCS.get_transform("world", "detector")
    x, y = to_pixel(sources.corner_ra[0], sources.corner_dec[0], np.ones(4), np.ones(4))[:2]
    assert (np.ptp(x), np.ptp(y)) == pytest.approx((16, 16), abs=0.1)


def test_a_source_number_that_stands_twice_is_refused():
    with pytest.raises(ValueError, match=r"field_cat.ecsv: source number 7 stands more than once"):
        sources_of(catalog(Place(7, 100, 100), Place(7, 200, 200), Place(8, 300, 300)), "field_cat.ecsv")


def test_missing_columns_are_named():
    table = catalog(Place(1, 100, 100))
    table.remove_columns(["sky_bbox_ul", "isophotal_abmag"])
    with pytest.raises(ValueError, match=r"mine.csv: missing columns sky_bbox_ul, isophotal_abmag; expected"):
        sources_of(table, "mine.csv")


def test_a_source_without_a_position_is_left_out_and_named(caplog):
    table = catalog(Place(1, 100, 100), Place(2, 200, 200))
    centre = table["sky_centroid"]
    table["sky_centroid"] = SkyCoord([centre.ra[0].deg, np.nan], [centre.dec[0].deg, np.nan], unit="deg")
    with caplog.at_level(logging.WARNING):
        assert sources_of(table, "cat").label.tolist() == [1]
    assert "cat: no position for source 2, left out" in caplog.messages


def test_an_empty_catalog_has_no_sources():
    assert len(sources_of(catalog(Place(1, 100, 100))[:0])) == 0
