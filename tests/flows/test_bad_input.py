"""Bad input on the command line: one line that says what to do, exit code 1 (2 for wrong usage), nothing half-written."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from infra.synthetic.program import write_program


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_program(folder, size=64, ngroups=3, grism_ngroups=3, dithers=1, grism_dithers=1)
    return folder


@pytest.fixture
def exposure(program, tmp_path) -> Path:
    """A good exposure, to be spoiled: a direct image."""
    source = next(path for path in sorted(program.glob("uncal/*")) if fits.getval(path, "EXP_TYPE") == "NIS_IMAGE")
    return Path(shutil.copy(source, tmp_path))


def refuse(done, *words: str, code: int = 1) -> None:
    """The command ended with ``code`` and one line that has all ``words``."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if "error:" in line.lower() or "│" in line]
    text = " ".join(lines)
    for word in words:
        assert word in text, done.stderr


def nothing_in(folder: Path) -> bool:
    return not folder.exists() or not list(folder.iterdir())


def test_a_truncated_exposure(calweave, program, exposure, tmp_path):
    whole = exposure.read_bytes()
    exposure.write_bytes(whole[: len(whole) // 2])
    done = calweave("stage", "detector1", exposure, "--out", tmp_path / "out", crds=program / "crds")
    refuse(done, exposure.name, "cut short", "fetch")
    assert nothing_in(tmp_path / "out")


def test_a_file_that_is_not_fits(calweave, program, tmp_path):
    (tmp_path / "a_uncal.fits").write_text("hello")
    done = calweave("stage", "detector1", tmp_path / "a_uncal.fits", "--out", tmp_path / "out", crds=program / "crds")
    refuse(done, "a_uncal.fits", "expected a FITS file")
    assert nothing_in(tmp_path / "out")


@pytest.mark.parametrize("keyword", ["EXP_TYPE", "INSTRUME", "SUBSTRT1", "NGROUPS", "TGROUP"])
def test_a_missing_keyword(calweave, program, exposure, tmp_path, keyword):
    with fits.open(exposure, mode="update") as hdulist:
        del hdulist[0].header[keyword]
    done = calweave("stage", "detector1", exposure, "--out", tmp_path / "out", crds=program / "crds")
    refuse(done, keyword)
    assert nothing_in(tmp_path / "out")


def test_a_header_that_does_not_fit_the_data(calweave, program, exposure, tmp_path):
    fits.setval(exposure, "NGROUPS", value=7)
    done = calweave("stage", "detector1", exposure, "--out", tmp_path / "out", crds=program / "crds")
    refuse(done, exposure.name, "(7, 64, 64)", "(3, 64, 64)")
    assert nothing_in(tmp_path / "out")


def test_an_input_that_fails_does_not_stop_the_others(calweave, program, exposure, tmp_path):
    (tmp_path / "a_uncal.fits").write_text("hello")
    out = tmp_path / "out"
    done = calweave("stage", "detector1", tmp_path / "a_uncal.fits", exposure, "--out", out, crds=program / "crds")
    refuse(done, "a_uncal.fits")
    assert [path.name for path in out.iterdir()] == [exposure.name.replace("uncal", "rate")]


def test_an_unknown_exposure_type(calweave, program, exposure, tmp_path):
    fits.setval(exposure, "EXP_TYPE", value="NIS_IMAGES")
    done = calweave("stage", "detector1", exposure, "--out", tmp_path / "out", crds=program / "crds")
    refuse(done, "NIS_IMAGES", "did you mean NIS_IMAGE?")
    assert nothing_in(tmp_path / "out")


def association(folder: Path, expname: str, **more: object) -> Path:
    members = [{"expname": expname, "exptype": "science"}]
    text = {"asn_type": "image2", "asn_id": "o001", "products": [{"name": "a", "members": members}], **more}
    path = folder / "jw09801-o001_image2_00001_asn.json"
    path.write_text(json.dumps(text))
    return path


def test_an_association_that_names_an_absent_file(calweave, program, tmp_path):
    path = association(tmp_path, "jw09801001001_02103_00001_nis_rate.fits")
    done = calweave("stage", "image2", path, "--out", tmp_path / "out", crds=program / "crds")
    refuse(done, path.name, "jw09801001001_02103_00001_nis_rate.fits", "neither in")
    assert nothing_in(tmp_path / "out")


def test_an_association_of_level_2_with_two_science_members(calweave, program, exposure, tmp_path):
    path = association(tmp_path, exposure.name)
    tree = json.loads(path.read_text())
    tree["products"][0]["members"] *= 2
    path.write_text(json.dumps(tree))
    done = calweave("stage", "image2", path, "--out", tmp_path / "out", crds=program / "crds")
    refuse(done, path.name, "one science member", "has 2")
    assert nothing_in(tmp_path / "out")


@pytest.mark.parametrize("expname", ["../secret_rate.fits", "/etc/secret_rate.fits"])
def test_an_association_that_leaves_its_folder(calweave, program, tmp_path, expname):
    path = association(tmp_path, expname)
    done = calweave("stage", "image2", path, "--out", tmp_path / "out", crds=program / "crds")
    refuse(done, path.name, expname)
    assert nothing_in(tmp_path / "out")


def test_an_association_that_is_no_json_names_line_and_column(calweave, program, tmp_path):
    path = tmp_path / "jw1_image2_asn.json"
    path.write_text('{"products": [\n  {"name": }]}')
    done = calweave("stage", "image2", path, "--out", tmp_path / "out", crds=program / "crds")
    refuse(done, path.name, "line 2")


def test_an_output_folder_that_is_a_file(calweave, program, exposure, tmp_path):
    (tmp_path / "out").write_text("I am a file")
    done = calweave("stage", "detector1", exposure, "--out", tmp_path / "out", crds=program / "crds")
    refuse(done, "out")
    assert (tmp_path / "out").read_text() == "I am a file"


def test_an_output_folder_that_cannot_be_written(calweave, program, exposure):
    done = calweave("stage", "detector1", exposure, "--out", "/proc/calweave", crds=program / "crds")
    refuse(done, "/proc/calweave", "correct the path")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "none", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_an_output_folder_that_is_full(calweave, program, exposure, small_disk):
    done = calweave("stage", "detector1", exposure, "--out", small_disk, crds=program / "crds")
    refuse(done, str(small_disk), "No space left", "free some")
    assert nothing_in(small_disk)


def test_no_reference_cache(calweave, exposure, tmp_path):
    done = calweave("stage", "detector1", exposure, "--out", tmp_path / "out")
    refuse(done, "CRDS_PATH")
    assert nothing_in(tmp_path / "out")


def test_an_option_that_does_not_exist(calweave, program, exposure, tmp_path):
    words = ("stage", "detector1", exposure, "--out", tmp_path / "out", "-p", "jump.rejection_treshold=5")
    refuse(calweave(*words, crds=program / "crds"), "did you mean 'rejection_threshold'", code=2)


def test_an_unknown_stage_is_wrong_usage(calweave, tmp_path):
    assert calweave("stage", "detector7", "x.fits", "--out", tmp_path).returncode == 2


def test_an_empty_folder(calweave, tmp_path):
    (tmp_path / "in").mkdir()
    refuse(calweave("run", tmp_path / "in", "--out", tmp_path / "out", crds=tmp_path), "uncal")
    assert nothing_in(tmp_path / "out")


def test_one_bad_exposure_stops_only_what_needs_it(calweave, program, tmp_path):
    shutil.copytree(program, tmp_path / "program")
    bad = sorted((tmp_path / "program" / "uncal").iterdir())[0]
    bad.write_bytes(bad.read_bytes()[:20_000])
    done = calweave("run", tmp_path / "program", "--out", tmp_path / "out", crds=program / "crds")
    assert done.returncode == 1
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    states = {node["name"]: node["state"] for node in run["nodes"] if node["stage"] == "detector1"}
    assert sorted(states.values()) == ["done", "done", "failed"]
    assert bad.name in done.stderr
    assert not list((tmp_path / "out").glob(bad.name.replace("uncal", "rate")))


def test_the_option_is_recorded_in_the_product(calweave, program, exposure, tmp_path):
    words = ("stage", "detector1", exposure, "--out", tmp_path / "out", "-p", "jump.rejection_threshold=7")
    done = calweave(*words, crds=program / "crds")
    assert done.returncode == 0, done.stderr
    from infra.products.image import read_image

    (rate,) = (tmp_path / "out").glob("*_rate.fits")
    image = read_image(rate)
    assert image.recipe["jump"]["options"]["rejection_threshold"] == 7
    assert np.isfinite(image.data).any()
