"""Reference files are chosen by the real client from a hand-made cache, fetched once, and checked."""

import hashlib
import time

import pytest
from tiny_cache import CONTEXT, copy_cache, references_folder, write_cache

from infra.references.client import ReferenceCacheError
from infra.references.content import ReferenceNotFound
from infra.references.select import choose_references, select_references

HEADER = {
    "INSTRUME": "NIRISS", "DETECTOR": "NIS", "SUBARRAY": "FULL", "EXP_TYPE": "NIS_IMAGE", "DATE-OBS": "2023-05-01",
    "TIME-OBS": "00:00:00.000", "FILENAME": "jw_test_uncal.fits", "TSOVISIT": False,
}  # fmt: skip
RULES = {
    "mask": {("NIS", "FULL|SUB64"): "jwst_niriss_mask_0001.fits"},
    "gain": {
        ("NIS", "FULL", "2022-01-01 00:00:00"): "jwst_niriss_gain_0001.fits",
        ("NIS", "FULL", "2023-01-01 00:00:00"): "jwst_niriss_gain_0002.fits",
    },
    "rscd": "N/A",
    "pars-jumpstep": {("NIS", "SUB64"): "jwst_niriss_pars-jumpstep_0001.asdf"},
}
CONTENT = b"the pixels of a mask"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = write_cache(tmp_path / "cache", RULES)
    for name in ("mask_0001", "gain_0001", "gain_0002"):
        (references_folder(folder) / f"jwst_niriss_{name}.fits").write_bytes(CONTENT)
    monkeypatch.setenv("CRDS_PATH", str(folder))
    monkeypatch.delenv("CRDS_CONTEXT", raising=False)
    monkeypatch.delenv("CRDS_SERVER_URL", raising=False)
    return folder


def test_files_are_chosen_by_the_keywords_and_the_date(cache):
    references = select_references(HEADER, ["mask", "gain", "rscd"])
    assert references.context == CONTEXT
    assert references.name("mask") == "jwst_niriss_mask_0001.fits"
    assert references.name("gain") == "jwst_niriss_gain_0002.fits"
    assert references.path("mask") == str(references_folder(cache) / "jwst_niriss_mask_0001.fits")
    assert references.path("rscd") is None
    earlier = select_references({**HEADER, "DATE-OBS": "2022-05-01"}, ["gain"])
    assert earlier.name("gain") == "jwst_niriss_gain_0001.fits"
    assert select_references({**HEADER, "SUBARRAY": "SUB64"}, ["mask"]).name("mask") == "jwst_niriss_mask_0001.fits"


def test_the_sha1_of_every_used_file_is_recorded(cache):
    references = select_references(HEADER, ["mask", "rscd"])
    assert references.sha1 == {"jwst_niriss_mask_0001.fits": hashlib.sha1(CONTENT).hexdigest()}


def test_a_type_of_another_variant_of_a_step_may_be_absent_from_the_context(cache):
    assert select_references(HEADER, ["trapdensity", "pastasoss"]).files == {"trapdensity": None, "pastasoss": None}
    with pytest.raises(ReferenceNotFound, match="no rules at all for SATURATION"):
        select_references(HEADER, ["saturation"])
    write_cache(cache, {**RULES, "trapdensity": {("NIS", "SUB64"): "jwst_niriss_trapdensity_0001.fits"}})
    with pytest.raises(ReferenceNotFound, match="TRAPDENSITY"):
        select_references(HEADER, ["trapdensity"])


def test_a_type_without_a_match_is_named_with_the_keywords_that_did_not_match(cache):
    with pytest.raises(ReferenceNotFound) as caught:
        select_references({**HEADER, "SUBARRAY": "SUB80"}, ["mask", "gain"])
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "jw_test_uncal.fits",
        "MASK",
        "GAIN",
        CONTEXT,
        "SUBARRAY=SUB80 is none of FULL, SUB64",
        "DETECTOR=NIS",
    ):
        assert part in message


def test_a_missing_keyword_is_named(cache):
    header = {key: value for key, value in HEADER.items() if key != "SUBARRAY"}
    with pytest.raises(ReferenceNotFound, match="SUBARRAY is missing"):
        select_references(header, ["mask"])
    with pytest.raises(ReferenceNotFound, match="INSTRUME"):
        select_references({}, ["mask"])


def test_an_exposure_before_the_first_rule_has_no_reference(cache):
    with pytest.raises(ReferenceNotFound, match="DATE-OBS=2001-01-01"):
        select_references({**HEADER, "DATE-OBS": "2001-01-01"}, ["gain"])


def test_a_type_or_instrument_without_rules_is_named(cache):
    with pytest.raises(ReferenceNotFound, match="no rules at all for WFSSBKG of NIRISS"):
        select_references(HEADER, ["wfssbkg"])
    with pytest.raises(ReferenceNotFound, match="INSTRUME=MIRI"):
        select_references({**HEADER, "INSTRUME": "MIRI"}, ["mask"])


def test_parameters_that_the_context_does_not_have_are_not_missing(cache):
    references = select_references(HEADER, ["pars-jumpstep", "pars-refpixstep"])
    assert references.files == {"pars-jumpstep": None, "pars-refpixstep": None}


def test_a_context_that_is_not_in_the_cache_is_an_error_that_names_those_that_are(cache, monkeypatch):
    with pytest.raises(ReferenceCacheError, match=f"jwst_0999.pmap.*holds {CONTEXT}"):
        select_references(HEADER, ["mask"], "jwst_0999.pmap")
    monkeypatch.setenv("CRDS_CONTEXT", "jwst_0998.pmap")
    with pytest.raises(ReferenceCacheError, match=r"jwst_0998\.pmap"):
        select_references(HEADER, ["mask"])


def test_without_crds_path_the_error_says_what_to_set(monkeypatch, tmp_path):
    monkeypatch.delenv("CRDS_PATH", raising=False)
    monkeypatch.delenv("CRDS_SERVER_URL", raising=False)
    with pytest.raises(ReferenceCacheError, match="CRDS_PATH is not set: set it to"):
        select_references(HEADER, ["mask"])
    monkeypatch.setenv("CRDS_PATH", str(tmp_path))
    with pytest.raises(ReferenceCacheError, match="no reference cache"):
        select_references(HEADER, ["mask"])


def test_a_file_that_the_rules_choose_and_the_cache_lacks_is_named(cache):
    (references_folder(cache) / "jwst_niriss_mask_0001.fits").unlink()
    with pytest.raises(ReferenceCacheError, match=r"does not hold jwst_niriss_mask_0001.fits.*set CRDS_SERVER_URL"):
        select_references(HEADER, ["mask"])


def test_a_file_that_is_not_what_crds_knows_is_refused(cache):
    good = {"size": str(len(CONTENT)), "sha1sum": hashlib.sha1(CONTENT).hexdigest()}
    write_cache(cache, RULES, config={"download_metadata": {"jwst_niriss_mask_0001.fits": good}})
    assert select_references(HEADER, ["mask"]).name("mask") == "jwst_niriss_mask_0001.fits"
    path = references_folder(cache) / "jwst_niriss_mask_0001.fits"
    path.write_bytes(CONTENT.replace(b"mask", b"mash"))
    with pytest.raises(ReferenceCacheError, match="SHA-1"):
        select_references(HEADER, ["mask"])
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ReferenceCacheError, match=f"{len(CONTENT) - 1} bytes where CRDS knows {len(CONTENT)}"):
        select_references(HEADER, ["mask"])


def test_a_cache_made_anew_at_the_same_place_is_seen(cache):
    assert choose_references(HEADER, ["mask"], CONTEXT) == {"mask": "jwst_niriss_mask_0001.fits"}
    write_cache(cache, {"mask": {("NIS", "FULL"): "jwst_niriss_mask_0002.fits"}})
    assert choose_references(HEADER, ["mask"], CONTEXT) == {"mask": "jwst_niriss_mask_0002.fits"}


def test_choosing_takes_milliseconds_once_the_rules_are_read(cache):
    types = list(RULES)
    choose_references(HEADER, types, CONTEXT)
    start = time.perf_counter()
    for _ in range(20):
        choose_references(HEADER, types, CONTEXT)
    assert (time.perf_counter() - start) / 20 < 0.02


def test_real_rules_choose_real_files(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("CRDS_PATH", str(copy_cache(shared / "real" / "crds" / "cache_0676", tmp_path / "real")))
    monkeypatch.delenv("CRDS_CONTEXT", raising=False)
    monkeypatch.delenv("CRDS_SERVER_URL", raising=False)
    header = {**HEADER, "EXP_TYPE": "NIS_WFSS", "FILTER": "GR150R", "PUPIL": "F200W", "READPATT": "NIS"}
    references = select_references(header, ["distortion", "specwcs", "pathloss"])
    assert references.context == "jwst_0676.pmap"
    assert references.name("distortion") == "jwst_niriss_distortion_0010.asdf"
    assert references.name("specwcs") == "jwst_niriss_specwcs_0012.asdf"
    assert references.path("pathloss") is None
    assert choose_references(header, ["flat", "dark"], "jwst_0676.pmap") == {
        "flat": "jwst_niriss_flat_0195.fits",
        "dark": "jwst_niriss_dark_0129.fits",
    }
