import numpy as np
import pytest
from astropy.io import fits

from calibration.subarrays import Subarray
from infra.products.header import Header, ProductError, format_cards, keyword_of, keywords, parse_cards


def test_the_schemas_tell_where_a_keyword_lives():
    assert keyword_of("meta.exposure.type") == "EXP_TYPE"
    assert keywords()["EXP_TYPE"].hdu == "PRIMARY"
    assert keywords()["VA_SCALE"].hdu == "SCI"


def test_the_science_aperture_wins_over_the_guide_star():
    assert keywords()["V2_REF"].path == "meta.wcsinfo.v2_ref"


def test_setting_a_keyword_leaves_the_header_as_it_was():
    before = Header({"FILTER": "CLEAR"})
    after = before.set(FILTER="GR150R", NINTS=np.int64(2))
    assert before["FILTER"] == "CLEAR"
    assert dict(after) == {"FILTER": "GR150R", "NINTS": 2}
    assert type(after["NINTS"]) is int


def test_none_removes_a_keyword():
    assert "FILTER" not in Header({"FILTER": "CLEAR"}).set(FILTER=None)


def test_an_unknown_keyword_is_refused_with_the_nearest():
    with pytest.raises(KeyError, match="did you mean EXP_TYPE"):
        Header({}).set(EXP_TYP="NIS_IMAGE")


def test_an_array_is_no_header_value():
    with pytest.raises(TypeError, match="ndarray"):
        Header({}).set(NINTS=np.zeros(2))


def test_every_missing_keyword_is_named():
    with pytest.raises(ProductError, match=r"NINTS.*NGROUPS") as error:
        Header({"FILENAME": "a.fits"}).require("NINTS", "NGROUPS")
    assert "a.fits" in str(error.value)


def test_the_subarray_is_read_from_its_four_keywords():
    header = Header({"SUBSTRT1": 3, "SUBSTRT2": 5, "SUBSIZE1": 64, "SUBSIZE2": 32})
    assert header.subarray == Subarray(3, 5, 64, 32)
    assert header.subarray.shape == (32, 64)


def test_cards_come_back_as_they_were_written():
    header = Header({"TELESCOP": "JWST", "TSOVISIT": False, "NINTS": 3, "VA_SCALE": 1.00000399112588})
    primary = fits.Header(format_cards(header, "PRIMARY"))
    sci = fits.Header(format_cards(header, "SCI"))
    assert dict(parse_cards({"PRIMARY": primary, "SCI": sci})) == dict(header)


def test_a_card_that_no_model_knows_is_kept_where_it_was():
    header = parse_cards({"PRIMARY": fits.Header([("MYCARD", 7, "mine")]), "SCI": fits.Header()})
    assert header["MYCARD"] == 7
    assert ("MYCARD", 7, "mine") in format_cards(header.set(NINTS=1), "PRIMARY")
    assert not format_cards(header, "SCI")


def test_not_a_number_is_refused_in_words():
    with pytest.raises(ProductError, match="VA_SCALE is nan"):
        format_cards(Header({"VA_SCALE": float("nan")}), "SCI")


def test_the_map_that_is_kept_on_disk_is_the_one_of_the_schemas(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keywords.cache_clear()
    read = keywords()
    keywords.cache_clear()
    kept = keywords()
    keywords.cache_clear()
    assert len(list((tmp_path / "calweave").glob("keywords-*.json"))) == 1
    assert list(kept.items()) == list(read.items())
