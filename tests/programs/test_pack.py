"""Calibrate without a network: a pack holds all that a run needs."""

import json
import shutil
import socket
from pathlib import Path

import pytest
from astropy.io import fits

from infra.products.image import read_image
from infra.synthetic.program import write_program


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_program(folder, size=64, ngroups=3, grism_ngroups=3, dithers=1, grism_dithers=1)
    return folder


@pytest.fixture
def no_network(monkeypatch):
    """Connections to other machines fail; Prefect's own server on this one may be reached."""
    connect = socket.socket.connect

    def refuse(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"this test has no network, but {address} was asked for")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


def images(program: Path) -> list[Path]:
    return [path for path in sorted(program.glob("uncal/*")) if fits.getval(path, "EXP_TYPE") == "NIS_IMAGE"]


def test_a_stage_runs_from_a_pack_alone(calweave, program, tmp_path, no_network):
    (exposure,) = images(program)
    whole = calweave("stage", "detector1", exposure, "--out", tmp_path / "whole", crds=program / "crds")
    assert whole.returncode == 0, whole.stderr

    packed = calweave("references", "pack", program, "--out", tmp_path / "pack", crds=program / "crds")
    assert packed.returncode == 0, packed.stderr
    assert f"CRDS_PATH={tmp_path / 'pack'}" in packed.stderr.replace("\n", "")

    # The first cache is out of reach, as it is on another machine.
    shutil.move(program / "crds", tmp_path / "away")
    try:
        done = calweave("stage", "detector1", exposure, "--out", tmp_path / "out", crds=tmp_path / "pack")
    finally:
        shutil.move(tmp_path / "away", program / "crds")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").iterdir()
    assert fits.FITSDiff(path, tmp_path / "whole" / path.name, ignore_keywords=["DATE"]).identical
    assert read_image(path).header["CRDS_CTX"] == "jwst_0001.pmap"


def test_a_pack_has_what_every_stage_of_the_program_needs(calweave, program, tmp_path):
    packed = calweave("references", "pack", program, "--out", tmp_path / "pack", crds=program / "crds")
    assert packed.returncode == 0, packed.stderr
    done = calweave("run", program, "--out", tmp_path / "out", crds=tmp_path / "pack")
    states = {node["name"]: node["state"] for node in json.loads((tmp_path / "out" / "run.json").read_text())["nodes"]}
    # A field of 64 pixels has spectra that lie off the detector: nothing to do is no failure.
    assert "failed" not in states.values(), done.stderr
    assert list(states.values()).count("done") > len(images(program)) * 2


def test_a_pack_of_one_exposure_lacks_what_another_kind_needs(calweave, program, tmp_path):
    (exposure,) = images(program)
    packed = calweave("references", "pack", exposure, "--out", tmp_path / "pack", crds=program / "crds")
    assert packed.returncode == 0, packed.stderr
    grism = next(path for path in sorted(program.glob("uncal/*")) if fits.getval(path, "EXP_TYPE") == "NIS_WFSS")
    done = calweave("stage", "detector1", grism, "--out", tmp_path / "out", crds=tmp_path / "pack")
    assert done.returncode == 1
    assert "jwst_niriss_dark" in done.stderr
    assert not list((tmp_path / "out").glob("*"))
