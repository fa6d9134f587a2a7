"""Catalogs of users: the forms in which they come, and what is wrong with them."""

import logging

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import Angle, SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.products.header import ProductError
from infra.products.user_catalog import read_user_catalog

RA, DEC = np.array([53.16, 0.0001, 359.9999]), np.array([-27.79, 0.5, 89.5])
NAMES = [
    ("ra", "dec"),
    ("RA", "DEC"),
    ("RAJ2000", "DEJ2000"),
    ("ALPHA_J2000", "DELTA_J2000"),
    ("X_WORLD", "Y_WORLD"),
    ("Ra_deg", "Dec_deg"),
]
FORMATS = {"csv": "ascii.csv", "ecsv": "ascii.ecsv", "fits": "fits", "txt": "ascii.commented_header"}


def write(path, table, form):
    table.write(path, format=FORMATS[form], overwrite=True)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    names=st.sampled_from(NAMES),
    form=st.sampled_from(sorted(FORMATS)),
    label=st.lists(st.integers(1, 2**31 - 1), min_size=3, max_size=3, unique=True),
    numbered=st.sampled_from(["id", "ID", "NUMBER", "label", None]),
    magnitude=st.sampled_from(["MAG_AUTO", "isophotal_abmag", "mag", None]),
    ra=st.lists(st.floats(0, 359.99999), min_size=3, max_size=3),
    dec=st.lists(st.floats(-90, 90), min_size=3, max_size=3),
)
def test_positions_and_numbers_come_back_from_every_form(tmp_path, names, form, label, numbered, magnitude, ra, dec):
    table = Table({names[0]: ra, names[1]: dec})
    if numbered:
        table[numbered] = label
    if magnitude:
        table[magnitude] = [21.5, 99.0, np.nan]
    # The name of the file says nothing.
    found = read_user_catalog(write(tmp_path / "catalog.dat", table, form))
    np.testing.assert_allclose(found.ra, ra, atol=1e-9)
    np.testing.assert_allclose(found.dec, dec, atol=1e-9)
    assert found.label.tolist() == (label if numbered else [1, 2, 3])
    wanted = [21.5, np.nan, np.nan] if magnitude else [np.nan] * 3
    np.testing.assert_array_equal(found.abmag, wanted)
    assert found.extended is None


@pytest.mark.parametrize("form", ["csv", "ecsv", "fits"])
def test_sexagesimal_text_is_hours_and_degrees(tmp_path, form):
    table = Table({"RA": Angle(RA, "deg").to_string("hourangle", sep=":", precision=6)})
    table["DEC"] = Angle(DEC, "deg").to_string("deg", sep=":", precision=6, alwayssign=True)
    found = read_user_catalog(write(tmp_path / "c", table, form))
    np.testing.assert_allclose(found.ra, RA, atol=1e-7)
    np.testing.assert_allclose(found.dec, DEC, atol=1e-7)


@pytest.mark.parametrize("unit", [units.hourangle, units.rad, units.arcmin])
def test_the_unit_of_a_column_counts(tmp_path, unit):
    table = Table({"ra": (RA * units.deg).to(unit), "dec": (DEC * units.deg).to(units.rad)})
    found = read_user_catalog(write(tmp_path / "c", table, "ecsv"))
    np.testing.assert_allclose(found.ra, RA, atol=1e-9)
    np.testing.assert_allclose(found.dec, DEC, atol=1e-9)


def test_a_column_of_sky_coordinates_is_brought_to_icrs(tmp_path):
    sky = SkyCoord(RA, DEC, unit="deg")
    QTable({"label": [4, 5, 6], "sky_centroid": sky.galactic, "z": [0.5, np.nan, 2.0]}).write(
        tmp_path / "c.ecsv", format="ascii.ecsv"
    )
    found = read_user_catalog(tmp_path / "c.ecsv")
    np.testing.assert_allclose(found.ra, RA, atol=1e-8)
    np.testing.assert_array_equal(found.redshift, [0.5, np.nan, 2.0])


def test_the_text_of_sextractor(tmp_path):
    text = "#   1 NUMBER      Running number\n#   2 MAG_AUTO    Kron-like  [mag]\n#   3 ALPHA_J2000 RA [deg]\n"
    text += "#   4 DELTA_J2000 Dec [deg]\n  7 21.5 53.16 -27.79\n  9 99.0 53.17 -27.80\n"
    (tmp_path / "c.cat").write_text(text)
    found = read_user_catalog(tmp_path / "c.cat")
    assert found.label.tolist() == [7, 9]
    np.testing.assert_array_equal(found.abmag, [21.5, np.nan])
    assert found.ra.tolist() == [53.16, 53.17]


def test_the_second_table_of_an_ldac_file_is_the_catalog(tmp_path):
    head = fits.BinTableHDU(Table({"Field Header Card": ["SIMPLE"]}), name="LDAC_IMHEAD")
    rows = fits.BinTableHDU(Table({"NUMBER": [3], "X_WORLD": [10.0], "Y_WORLD": [1.0]}), name="LDAC_OBJECTS")
    fits.HDUList([fits.PrimaryHDU(), head, rows]).writeto(tmp_path / "c.fits")
    assert read_user_catalog(tmp_path / "c.fits").label.tolist() == [3]


def test_what_has_no_position_is_left_out_by_number(tmp_path, caplog):
    table = Table({"id": [5, 6, 7], "ra": MaskedColumn(RA, mask=[False, True, False]), "dec": [1.0, 2.0, np.nan]})
    with caplog.at_level(logging.WARNING):
        found = read_user_catalog(write(tmp_path / "my.ecsv", table, "ecsv"))
    assert found.label.tolist() == [5]
    assert "my.ecsv: source 6, 7 without a position" in caplog.text


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"id": [1, 2], "x": [3.0, 4.0], "y": [3.0, 4.0]}, r"expected columns of positions.*it has id, x, y"),
        ({"id": [], "ra": []}, r"expected columns of positions"),
        ({"id": [3, 3], "ra": [1.0, 2.0], "dec": [1.0, 2.0]}, r"source 3 stands more than once"),
        ({"id": [0, 3], "ra": [1.0, 2.0], "dec": [1.0, 2.0]}, r"from 1 to 2147483647, but there is 0"),
        ({"id": [1.5, 3], "ra": [1.0, 2.0], "dec": [1.0, 2.0]}, r"whole numbers.*column id.*1\.5"),
        ({"id": ["a7", "b"], "ra": [1.0, 2.0], "dec": [1.0, 2.0]}, r"whole numbers.*'a7'"),
        ({"id": [1, 2], "ra": [1.0, 2.0], "dec": [1.0, 92.0]}, r"source 2 is beyond ±90"),
        ({"id": [8, 2], "ra": ["1:00:xx", "2"], "dec": [1.0, 2.0]}, r"source 8 has '1:00:xx'"),
    ],
)
def test_what_is_wrong_with_a_table_is_told_with_file_and_source(tmp_path, columns, words):
    with pytest.raises(ProductError, match=rf"my\.csv: .*{words}"):
        read_user_catalog(write(tmp_path / "my.csv", Table(columns), "csv"))


@pytest.mark.parametrize("content", [b"", b"SIMPLE  =  T", bytes(range(256)), b"\n\n"])
def test_what_is_no_table_is_an_error(tmp_path, content):
    (tmp_path / "my.csv").write_bytes(content)
    with pytest.raises(ProductError, match=r"my\.csv: expected a table of sources"):
        read_user_catalog(tmp_path / "my.csv")


def test_an_image_is_no_catalog(tmp_path):
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "my.fits")
    with pytest.raises(
        ProductError, match=r"my\.fits: expected a table of sources, but the file has none, only PRIMARY"
    ):
        read_user_catalog(tmp_path / "my.fits")


def test_an_absent_catalog_is_named(tmp_path):
    with pytest.raises(ProductError, match=r"none\.csv: there is no such catalog"):
        read_user_catalog(tmp_path / "none.csv")


def test_a_table_without_rows_is_a_catalog_without_sources(tmp_path):
    (tmp_path / "my.csv").write_text("id,ra,dec\n")
    assert len(read_user_catalog(tmp_path / "my.csv")) == 0
