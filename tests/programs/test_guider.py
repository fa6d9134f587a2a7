"""A real exposure of the fine guidance sensor, an acquisition of a guide star, calibrated by the command line."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from infra.products.guider import read_guider

EXPOSURE = "jw01019001001_gs-acq1_2022117003102_uncal.fits"
PRODUCT = EXPOSURE.replace("uncal", "cal")
STAR = (94.5, 64.5)  # row and column of its middle [pixel]

PEER = """
import sys
from jwst.pipeline import GuiderPipeline
GuiderPipeline.call(sys.argv[1], save_results=True, output_dir=sys.argv[2])
"""


@pytest.fixture(scope="module")
def raw(shared) -> Path:
    return shared / "real" / "uncal" / EXPOSURE


@pytest.fixture(scope="module")
def ours(raw, demo_run, calweave_process, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("guider")
    done = calweave_process("stage", "guider", raw, "--out", folder, crds=demo_run.crds)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(folder / PRODUCT)]
    return folder / PRODUCT


@pytest.fixture(scope="module")
def theirs(raw, demo_run, peer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("guider-peer")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PYTHON"))}
    environment |= {"CRDS_PATH": str(demo_run.crds), "CRDS_SERVER_URL": "https://jwst-serverless-mode.stsci.edu"}
    command = [peer, "-c", PEER, shutil.copy(raw, folder), folder]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stderr or done.stdout)[-3000:]
    return folder / PRODUCT


def test_the_guide_star_is_where_it_was_seen_in_every_integration(ours):
    """The star saturates: the difference of the two reads is a ring about its middle, some 6 pixels across."""
    images = read_guider(ours).data
    assert images.shape == (6, 128, 128)
    for image in images:
        ring = np.argwhere(image > 30_000)
        np.testing.assert_allclose(ring.mean(axis=0), STAR, atol=1)
        assert (np.ptp(ring, axis=0) < 10).all()


def test_images_are_the_difference_of_two_reads_over_the_flat_field(ours, raw, demo_run):
    assert fits.getheader(ours, "SCI")["BUNIT"] == "DN/s"
    header = fits.getheader(raw)
    (path,) = demo_run.crds.glob("references/jwst/fgs/jwst_fgs_flat_*.fits")
    where = fits.getheader(path)
    x, y = (header[key] - where[key] for key in ("SUBSTRT1", "SUBSTRT2"))
    flat = fits.getdata(path, "SCI")[y : y + header["SUBSIZE2"], x : x + header["SUBSIZE1"]]
    reads = fits.getdata(raw, "SCI").astype(float)
    expected = (reads[:, 1] - reads[:, 0]) / header["TGROUP"] / flat
    good = fits.getdata(ours, "DQ") == 0
    assert good.mean() > 0.99
    np.testing.assert_allclose(fits.getdata(ours, "SCI")[:, good], expected[:, good], rtol=1e-5)


def test_the_product_names_its_steps_and_references(ours):
    header = fits.getheader(ours)
    assert [header[key] for key in ("S_DQINIT", "S_GUICDS", "S_FLAT")] == ["COMPLETE"] * 3
    assert header["R_MASK"].startswith("crds://jwst_fgs_mask")
    assert header["R_FLAT"].startswith("crds://jwst_fgs_flat")


def test_the_official_pipeline_gives_the_same(ours, theirs):
    """The same keywords but for the version, the same flags and units; SCI and ERR to float32 rounding."""
    with fits.open(ours) as a, fits.open(theirs) as b:
        assert [hdu.name for hdu in a] == [hdu.name for hdu in b]
        np.testing.assert_array_equal(a["DQ"].data, b["DQ"].data)
        for name in ("SCI", "ERR"):
            assert a[name].data.dtype == b[name].data.dtype
            np.testing.assert_allclose(a[name].data, b[name].data, rtol=3e-7, err_msg=name)
        for name in ("PRIMARY", "SCI", "ERR", "DQ"):
            cards = {
                key: value for key, value in b[name].header.items() if key not in ("", "COMMENT", "DATE", "CAL_VER")
            }
            cards = {key: value for key, value in cards.items() if not (key.startswith("R_") and value == "N/A")}
            mine = {key: a[name].header.get(key) for key in cards}
            assert mine == cards
