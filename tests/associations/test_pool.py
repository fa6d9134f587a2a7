import logging
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_pools import exposure, grism, make, pool_text

from associations.generator import generate
from associations.pool import COLUMNS, PoolError, candidates_of, make_pool, merge_pools, pool_row, read_pool

GOOD = pool_text(exposure(1, 1), exposure(1, 2))


def refusal(text: str) -> str:
    with pytest.raises(PoolError) as caught:
        read_pool(text, "p.csv")
    message = str(caught.value)
    assert message.startswith("p.csv")
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_case_spaces_comments_and_line_ends_do_not_matter():
    expected = read_pool(GOOD, "p.csv")
    assert read_pool("# a comment\n\n" + GOOD.upper(), "p.csv").rows == expected.rows
    assert read_pool("\ufeff" + GOOD.replace("\n", "\r\n").replace("|", " | "), "p.csv").rows == expected.rows


@pytest.mark.parametrize("value", ["null", "NULL", "--", "", "n", "F", "false", "N/A"])
def test_a_value_that_means_not_set_is_none(value):
    (row,) = read_pool(pool_text(exposure(1, 1, patttype=value)), "p.csv").rows
    assert row["patttype"] is None


def test_none_and_zero_are_values():
    (row,) = read_pool(pool_text(exposure(1, 1, patttype="NONE", nints="0")), "p.csv").rows
    assert (row["patttype"], row["nints"]) == ("none", "0")


def test_columns_that_a_pool_lacks_are_not_set():
    (row,) = read_pool("filename|exp_type\na_uncal.fits|nis_image\n", "p.csv").rows
    assert set(row) == set(COLUMNS)
    assert row["program"] is None


def test_the_older_name_of_the_sub_pixel_points_is_known():
    (row,) = read_pool("filename|exp_type|subpxpns\na_uncal.fits|nrs_msaspec|3\n", "p.csv").rows
    assert row["subpxpts"] == "3"


def test_another_delimiter_is_refused_with_a_hint():
    message = refusal(GOOD.replace("|", ","))
    assert "line 1" in message
    assert "separated by ','" in message


def test_an_empty_file_is_refused():
    assert "empty" in refusal("")
    assert "empty" in refusal("# only a comment\n")


def test_columns_that_a_pool_must_have_are_named():
    assert "exp_type is missing" in refusal("filename|program\na|1\n")


def test_a_column_that_stands_twice_is_refused():
    assert "column 3: 'filename' stands twice" in refusal("filename|exp_type|FILENAME\na|b|c\n")


def test_a_short_line_is_refused_with_its_number():
    message = refusal(GOOD + "jw_uncal.fits|1571\n")
    assert "line 4" in message
    assert "found 2" in message


def test_a_nul_byte_is_refused_where_it_is():
    assert "line 3, column 8: expected text, but found a NUL" in refusal(
        GOOD.replace("\njw01571001001_02101_00002", "\njw01571\x001001_02101_00002")
    )


def test_a_line_of_ten_megabytes_is_refused_in_a_short_message():
    assert "line 4" in refusal(GOOD + "x" * 10_000_000 + "\n")


def test_a_candidate_list_of_ten_megabytes_is_refused():
    assert "column asn_candidate" in refusal(pool_text(exposure(1, 1, asn_candidate="[" * 10_000_000)))


@pytest.mark.parametrize(
    "text", ["[('o001', 'observation'", "[1, 2]", "[('o001',)]", "[('o001', 7)]", "[('', 'x')]", "[__import__('os')]"]
)
def test_a_broken_candidate_list_is_refused_with_line_and_column(text):
    assert "line 2, column asn_candidate" in refusal(pool_text(exposure(1, 1, asn_candidate=text)))


def test_a_row_without_a_file_is_refused():
    assert "line 2, column filename" in refusal(pool_text(exposure(1, 1, filename="null")))


def test_a_folder_in_the_name_of_a_file_is_left_out():
    pool = read_pool(pool_text(exposure(1, 1, filename="/data/raw/jw01571001001_02101_00001_nis_uncal.fits")), "p.csv")
    assert [a.products[0].members[0].expname[:8] for a in generate(pool)] == ["jw015710"] * 2


def test_text_that_is_no_list_makes_the_exposure_a_member_of_no_candidate(caplog):
    pool = read_pool(pool_text(exposure(1, 1, asn_candidate="1000")), "p.csv")
    assert candidates_of(pool.rows[0]["asn_candidate"]) == ()
    assert "asn_candidate of 1 lines" in caplog.text


def test_a_pool_without_candidates_gives_associations_of_the_whole_pool():
    rows = [exposure(1, n) for n in (1, 2)]
    for row in rows:
        del row["asn_candidate"]
    assert [a.asn_id for a in generate(read_pool(pool_text(*rows), "p.csv"))] == ["a3001"]


def test_a_file_that_is_listed_twice_is_there_once(caplog):
    assert len(read_pool(pool_text(exposure(1, 1), exposure(1, 1)), "p.csv").rows) == 1
    assert not caplog.records


def test_of_a_file_that_is_listed_twice_with_other_values_the_later_line_counts(caplog):
    pool = read_pool(pool_text(exposure(1, 1, targetid="1"), exposure(1, 1, targetid="2")), "p.csv")
    assert [row["targetid"] for row in pool.rows] == ["2"]
    assert "line 3 has jw01571001001_02101_00001_nis_uncal.fits as line 2, with another targetid" in caplog.text


@given(st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from("|\n\r\0#\"['(")))
def test_any_text_is_read_or_refused_with_our_error(text):
    for candidate in (text, "filename|exp_type\n" + text, "filename|exp_type|asn_candidate\na|b|[" + text):
        with suppress(PoolError):
            read_pool(candidate, "p.csv")


def test_what_is_written_is_read_as_it_was():
    pool = read_pool(GOOD, "p.csv")
    assert read_pool(pool.to_text(), "p.csv") == pool


# ---- from headers


def header(**cards):
    base = {
        "PROGRAM": "01571", "OBSERVTN": "007", "EXP_TYPE": "NIS_IMAGE", "INSTRUME": "NIRISS", "DETECTOR": "NIS",
        "FILTER": "CLEAR", "PUPIL": "F200W", "SUBARRAY": "FULL", "TARGNAME": "M 31", "VISITGRP": "02", "SEQ_ID": "1",
        "ACT_ID": "01", "TSOVISIT": False, "NINTS": 1, "VISITYPE": "PRIME_TARGETED_FIXED",
    }  # fmt: skip
    return {**base, **cards}


def test_a_header_gives_a_row_with_the_observation_as_candidate():
    row = pool_row(header())
    assert row["obs_num"] == "7"
    assert row["program"] == "1571"
    assert row["asn_candidate"] == "[('o007', 'observation')]"
    assert row["exp_type"] == "nis_image"
    assert row["pntgtype"] == "science"


def test_booleans_are_t_or_not_set():
    row = pool_row(header(TSOVISIT=True, IS_PSF=False))
    assert (row["tsovisit"], row["is_psf"]) == ("t", None)


def test_a_target_that_is_met_again_has_its_number_again():
    headers = {f"jw01571007001_02101_0000{n}_nis_uncal.fits": header(TARGNAME=t) for n, t in enumerate("ABA")}
    assert [row["targetid"] for row in make_pool(headers).rows] == ["1", "2", "1"]


def test_a_pool_grows_as_files_arrive_and_is_the_same_as_at_once():
    headers = {f"jw01571007001_02101_0000{n}_nis_uncal.fits": header(TARGNAME=t) for n, t in enumerate("ABAC")}
    items = list(headers.items())
    grown = make_pool(dict(items[2:]), start=make_pool(dict(items[:2])))
    assert grown == make_pool(headers)
    assert read_pool(grown.to_text(), grown.name).rows == grown.rows


def test_the_order_of_activities_stands_for_the_exposure_specification():
    earlier, later = (pool_row(header(VISITGRP=group, ACT_ID=act)) for group, act in (("02", "0z"), ("04", "01")))
    assert int(earlier["expspcin"]) < int(later["expspcin"])


def test_a_delimiter_in_a_value_does_not_break_the_table():
    pool = make_pool({"jw01571007001_02101_00001_nis_uncal.fits": header(TARGNAME="A|B\nC")})
    assert read_pool(pool.to_text(), "p.csv").rows[0]["targname"] == "a/b c"


def test_candidates_are_added_to_the_observation():
    (row,) = make_pool({"a_uncal.fits": header()}, candidates=[("c1001", "background")]).rows
    assert candidates_of(row["asn_candidate"]) == (("o007", "observation"), ("c1001", "background"))


def test_merged_pools_have_each_file_once_with_the_last_values(caplog):
    caplog.set_level(logging.WARNING)
    one, two = make(exposure(1, 1), exposure(1, 2)), make(exposure(1, 2, targetid="9"), grism(1, 3))
    merged = merge_pools([one, two])
    assert [row["filename"] for row in merged.rows] == [exposure(1, n)["filename"] for n in (1, 2, 3)]
    assert merged.rows[1]["targetid"] == "9"
