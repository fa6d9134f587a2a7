"""A pack of references is a cache from which the same run succeeds without network; parameters come from their files."""

import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

import asdf
import pytest
from tiny_cache import CONTEXT, copy_cache, references_folder, write_cache

from infra.references.client import ReferenceCacheError
from infra.references.content import ReferenceInvalid, ReferenceNotFound
from infra.references.pack import pack_references
from infra.references.parameters import parameter_reftype, step_parameters
from infra.references.select import select_references

HEADER = {
    "INSTRUME": "NIRISS", "DETECTOR": "NIS", "SUBARRAY": "FULL", "EXP_TYPE": "NIS_IMAGE", "DATE-OBS": "2023-05-01",
    "TIME-OBS": "00:00:00.000",
}  # fmt: skip
RULES = {
    "mask": {("NIS", "FULL"): "jwst_niriss_mask_0001.fits", ("NIS", "SUB64"): "jwst_niriss_mask_0002.fits"},
    "gain": {("NIS", "*"): "jwst_niriss_gain_0001.fits"},
    "rscd": "N/A",
    "pars-jumpstep": {("NIS", "FULL"): "jwst_niriss_pars-jumpstep_0001.asdf"},
    "pars-tweakregstep": {("NIS", "FULL"): "jwst_niriss_pars-tweakregstep_0001.asdf"},
    "pars-image2pipeline": {("NIS", "FULL"): "jwst_niriss_pars-image2pipeline_0001.asdf"},
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = write_cache(tmp_path / "cache", RULES)
    for name in ("mask_0001", "mask_0002", "gain_0001"):
        (references_folder(folder) / f"jwst_niriss_{name}.fits").write_bytes(name.encode() * 100)
    trees = {
        "pars-jumpstep": {
            "class": "jwst.jump.jump_step.JumpStep", "name": "jump",
            "parameters": {"rejection_threshold": 5.0, "skip": False, "output_dir": "", "save_results": True},
        },
        "pars-tweakregstep": {"name": "tweakreg", "parameters": {"fitgeometry": "shift", "minobj": 10}},
        "pars-image2pipeline": {
            "name": "Image2Pipeline", "parameters": {"save_bsub": False},
            "steps": [
                {"name": "tweakreg", "parameters": {"fitgeometry": "rshift"}},
                {"name": "resample", "parameters": {"skip": True}},
                {"name": "photom", "parameters": {}},
            ],
        },
    }  # fmt: skip
    for kind, tree in trees.items():
        asdf.AsdfFile(tree).write_to(references_folder(folder) / f"jwst_niriss_{kind}_0001.asdf")
    monkeypatch.setenv("CRDS_PATH", str(folder))
    monkeypatch.delenv("CRDS_CONTEXT", raising=False)
    monkeypatch.delenv("CRDS_SERVER_URL", raising=False)
    return folder


def names_below(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


def test_a_pack_holds_what_the_run_needs_and_nothing_else(cache, tmp_path):
    pack = pack_references([(HEADER, ["mask", "rscd", "pars-jumpstep"])], tmp_path / "pack")
    references = [name for name in names_below(pack / "references")]
    assert references == ["jwst_niriss_mask_0001.fits", "jwst_niriss_pars-jumpstep_0001.asdf"]
    assert names_below(pack / "mappings") == names_below(cache / "mappings")
    assert not [name for name in names_below(pack) if name.startswith(".")]


def test_a_pack_gives_the_same_files_when_the_first_cache_is_gone(cache, tmp_path, monkeypatch):
    wanted = ["mask", "gain", "rscd", "pars-jumpstep", "pars-refpixstep"]
    before = select_references(HEADER, wanted)
    pack = pack_references([(HEADER, wanted)], tmp_path / "pack")
    shutil.rmtree(cache)
    monkeypatch.setenv("CRDS_PATH", str(pack))
    after = select_references(HEADER, wanted)
    assert after.context == before.context == CONTEXT
    assert after.sha1 == before.sha1
    assert {kind: after.name(kind) for kind in wanted} == {kind: before.name(kind) for kind in wanted}
    assert Path(after.path("mask")).read_bytes() == b"mask_0001" * 100
    assert Path(after.path("mask")).is_relative_to(pack)


def test_what_was_not_planned_is_named_when_it_is_asked_of_a_pack(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("CRDS_PATH", str(pack_references([(HEADER, ["mask"])], tmp_path / "pack")))
    with pytest.raises(ReferenceCacheError, match=r"does not hold jwst_niriss_gain_0001\.fits"):
        select_references(HEADER, ["gain"])


def test_a_file_of_a_pack_that_was_damaged_on_the_way_is_refused(cache, tmp_path, monkeypatch):
    pack = pack_references([(HEADER, ["mask"])], tmp_path / "pack")
    monkeypatch.setenv("CRDS_PATH", str(pack))
    path = references_folder(pack) / "jwst_niriss_mask_0001.fits"
    path.write_bytes(path.read_bytes().replace(b"mask", b"mash", 1))
    with pytest.raises(ReferenceCacheError, match="SHA-1"):
        select_references(HEADER, ["mask"])


def test_more_can_be_added_to_a_pack_of_the_same_context(cache, tmp_path, monkeypatch):
    pack = pack_references([(HEADER, ["mask"])], tmp_path / "pack")
    pack_references([({**HEADER, "SUBARRAY": "SUB64"}, ["mask", "gain"])], pack)
    monkeypatch.setenv("CRDS_PATH", str(pack))
    assert select_references(HEADER, ["mask", "gain"]).sha1.keys() == {
        "jwst_niriss_mask_0001.fits",
        "jwst_niriss_gain_0001.fits",
    }


def test_a_folder_that_is_something_else_is_not_packed_into(cache, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(ReferenceCacheError, match=r"not empty.*choose a new folder"):
        pack_references([(HEADER, ["mask"])], tmp_path / "photos")
    with pytest.raises(ReferenceCacheError, match="choose a new folder"):
        pack_references([(HEADER, ["mask"])], cache)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ReferenceCacheError, match="file"):
        pack_references([(HEADER, ["mask"])], tmp_path / "file" / "pack")


def test_a_missing_reference_stops_the_pack_before_anything_is_written(cache, tmp_path):
    with pytest.raises(ReferenceNotFound, match="SUBARRAY=SUB80"):
        pack_references([({**HEADER, "SUBARRAY": "SUB80"}, ["mask"])], tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def select_as_nobody(folder, answers):
    if os.geteuid() == 0:  # permissions do not bind root
        os.setgid(65534)
        os.setuid(65534)
    os.environ["CRDS_PATH"] = str(folder)
    try:
        references = select_references(HEADER, ["mask", "rscd", "pars-jumpstep"])
    except Exception as error:
        answers.put((os.access(folder, os.W_OK), repr(error)))
    else:
        answers.put((os.access(folder, os.W_OK), references.name("mask")))


def test_a_cache_that_cannot_be_written_works(cache):
    place = Path(tempfile.mkdtemp(prefix="calweave-test-"))
    try:
        copy = shutil.copytree(cache, place / "cache")
        for path in [place, *place.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        select_references(HEADER, ["mask"])  # imports what the child may not be allowed to read
        fork = multiprocessing.get_context("fork")
        answers = fork.Queue()
        child = fork.Process(target=select_as_nobody, args=(copy, answers))
        child.start()
        writable, name = answers.get(timeout=30)
        child.join()
        assert not writable
        assert name == "jwst_niriss_mask_0001.fits"
    finally:
        for path in [place, *place.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(place)


def test_parameters_of_steps_come_from_their_files_without_what_is_about_files(cache):
    assert step_parameters(HEADER, ["jump", "refpix"]) == {"jump": {"rejection_threshold": 5.0, "skip": False}}


def test_what_the_pipeline_sets_goes_over_what_the_step_sets(cache):
    steps = ["tweakreg", "resample", "photom"]
    assert step_parameters(HEADER, steps)["tweakreg"] == {"fitgeometry": "shift", "minobj": 10}
    assert step_parameters(HEADER, steps, pipeline="image2") == {
        "tweakreg": {"fitgeometry": "rshift", "minobj": 10},
        "resample": {"skip": True},
    }
    assert step_parameters({**HEADER, "SUBARRAY": "SUB64"}, steps, pipeline="image2") == {}


def test_a_parameter_file_without_parameters_is_an_error(cache):
    path = references_folder(cache) / "jwst_niriss_pars-jumpstep_0001.asdf"
    asdf.AsdfFile({"jump": 5}).write_to(path)
    with pytest.raises(ReferenceInvalid, match=r"jwst_niriss_pars-jumpstep_0001\.asdf must be a parameter reference"):
        step_parameters(HEADER, ["jump"])


def test_parameter_types_are_named_as_the_observatory_names_them():
    assert parameter_reftype("ramp_fit") == "pars-rampfitstep"
    assert parameter_reftype("bkg_subtract") == "pars-backgroundstep"
    assert parameter_reftype("dq_init") == "pars-dqinitstep"


def test_a_pack_of_the_real_rules_gives_the_same_real_files(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("CRDS_PATH", str(copy_cache(shared / "real" / "crds" / "cache_0676", tmp_path / "real")))
    monkeypatch.delenv("CRDS_CONTEXT", raising=False)
    monkeypatch.delenv("CRDS_SERVER_URL", raising=False)
    header = {**HEADER, "EXP_TYPE": "NIS_WFSS", "FILTER": "GR150R", "PUPIL": "F200W"}
    wanted = ["distortion", "specwcs", "wavelengthrange"]
    before = select_references(header, wanted)
    pack = pack_references([(header, wanted)], tmp_path / "pack")
    monkeypatch.setenv("CRDS_PATH", str(pack))
    after = select_references(header, wanted)
    assert after.sha1 == before.sha1
    assert after.context == "jwst_0676.pmap"
    assert "model" in after.asdf("distortion")
