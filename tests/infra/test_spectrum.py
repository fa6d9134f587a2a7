"""Tables of spectra and their files."""

import warnings

import numpy as np
import pytest
from stdatamodels.jwst import datamodels

from infra.products.header import Header, ProductError
from infra.products.image import Image, write_image
from infra.products.spectrum import (
    SpectrumSet,
    SpectrumTable,
    empty_rows,
    read_spectra,
    wfss_columns,
    wfss_units,
    write_spectra,
)

EXPOSURE = {"TELESCOP": "JWST", "INSTRUME": "NIRISS", "EXP_TYPE": "NIS_WFSS", "PUPIL": "F200W", "FILTER": "GR150R"}


def make_set(kind="EXTRACT1D", model="WFSSMultiSpecModel"):
    rows = empty_rows(kind, 3, 20)
    rows["SOURCE_ID"], rows["N_ALONGDISP"] = [4, 7, 9], [20, 15, 0]
    rows["WAVELENGTH"][:2] = np.linspace(1.8, 2.2, 20)
    rows["FLUX"][0] = 1e-6
    rows["DQ"][0] = 2**31
    rows["SOURCE_TYPE"] = "POINT"
    cards = {"SPORDER": 1, "DISPAXIS": 2}
    if kind == "EXTRACT1D":
        cards |= {"EXPGRPID": "jw01001001001_02101_1_1", "EFFEXPTM": 100.0}
    tables = tuple(
        SpectrumTable(kind, cards | {"SPORDER": order}, rows, wfss_units(kind, "Jy", "MJy/sr")) for order in (1, 2)
    )
    return SpectrumSet(Header(EXPOSURE), tables, model, {"extract_1d": {"status": "COMPLETE"}})


BOTH = pytest.mark.parametrize(
    ("kind", "model"), [("EXTRACT1D", "WFSSMultiSpecModel"), ("COMBINE1D", "WFSSMultiCombinedSpecModel")]
)


@BOTH
def test_a_set_comes_back_as_it_was_written(tmp_path, kind, model):
    made = make_set(kind, model)
    write_spectra(made, tmp_path / "jw_x1d.fits")
    found = read_spectra(tmp_path / "jw_x1d.fits")
    assert found.model == model
    assert found.recipe == made.recipe
    for one, other in zip(found.tables, made.tables, strict=True):
        assert (one.extname, one.cards, one.units) == (other.extname, other.cards, other.units)
        for name in other.rows.dtype.names:
            expected = other.rows[name].astype(str) if name == "SOURCE_TYPE" else other.rows[name]
            np.testing.assert_array_equal(one.rows[name], expected)


@BOTH
def test_the_data_models_open_the_file_without_a_warning(tmp_path, kind, model):
    write_spectra(make_set(kind, model), tmp_path / "jw_x1d.fits")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with datamodels.open(tmp_path / "jw_x1d.fits") as opened:
            assert type(opened).__name__ == model
            opened.validate()
            assert [spec.spectral_order for spec in opened.spec] == [1, 2]
            table = opened.spec[0].spec_table
            assert table["SOURCE_ID"].tolist() == [4, 7, 9]
            assert table["DQ"][0, 0] == 2**31
            assert table.columns["FLUX"].unit == "Jy"
            assert table.dtype.names == tuple(name for name, _, _ in wfss_columns(kind))


def test_units_are_those_of_the_archive():
    units = wfss_units("EXTRACT1D", "Jy", "MJy/sr")
    assert (units["FLUX_ERROR"], units["FLUX_VAR_FLAT"], units["SB_VAR_FLAT"]) == ("Jy", "Jy^2", "MJy^2 / sr^2")
    assert (units["BACKGROUND"], units["SOURCE_XPOS"], units["EXTRACT2D_XSTOP"]) == ("MJy/sr", "pix", "pix")
    assert "NPIXELS" not in units
    assert "SOURCE_ID" not in units
    assert wfss_units("COMBINE1D", "DN/s", "DN/s")["ERROR"] == "DN/s"


def test_an_empty_row_holds_nothing():
    rows = empty_rows("EXTRACT1D", 1, 3)
    assert np.isnan(rows["FLUX"]).all()
    assert (rows["DQ"] == 1).all()
    assert (rows["SOURCE_ID"][0], rows["N_ALONGDISP"][0]) == (-999, 0)


def test_real_spectra_of_other_modes_open(shared):
    for path in sorted((shared / "real" / "products").glob("*_x1d.fits")):
        found = read_spectra(path)
        assert found.tables
        assert {"WAVELENGTH", "FLUX"} <= set(found.tables[0].rows.dtype.names)


def test_a_file_without_spectra_is_refused(tmp_path):
    plane = np.zeros((4, 4), np.float32)
    write_image(Image(Header(EXPOSURE), plane, plane, plane.astype(np.uint32)), tmp_path / "jw_cal.fits")
    with pytest.raises(ProductError, match=r"jw_cal.fits: expected a table EXTRACT1D or COMBINE1D"):
        read_spectra(tmp_path / "jw_cal.fits")
