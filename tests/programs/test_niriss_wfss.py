"""A whole NIRISS WFSS program, from raw ramps to spectra, held against the truth that was simulated."""

import json
import warnings

import numpy as np
import pytest
from astropy.io import fits
from stdatamodels.jwst import datamodels

from infra.products.catalog import read_catalog
from infra.products.image import read_segmentation
from infra.products.slits import read_slits
from infra.products.spectrum import read_spectra
from infra.synthetic.compare import compare_with_truth


@pytest.fixture(scope="module")
def comparison(demo_run):
    return compare_with_truth(demo_run.products, demo_run.program / "truth")


def one(demo_run, pattern):
    (path,) = demo_run.products.glob(pattern)
    return path


def test_every_product_of_the_program_is_there(demo_run):
    counts = {
        suffix: len(list(demo_run.products.glob(f"*_{suffix}"))) for suffix in ("rate.fits", "crf.fits", "cat.ecsv")
    }
    assert counts == {"rate.fits": 8, "crf.fits": 4, "cat.ecsv": 1}
    assert len(list(demo_run.products.glob("*_nis_cal.fits"))) == 8
    assert len(list(demo_run.products.glob("*_c1d.fits"))) == 2
    run = json.loads((demo_run.products / "run.json").read_text())
    assert {node["state"] for node in run["nodes"]} == {"done"}


def test_every_source_brighter_than_ten_sigma_is_found(comparison):
    assert comparison.expected >= 5
    assert comparison.missing == ()


def test_sources_are_where_they_should_be(comparison):
    assert comparison.position_worst < 0.1


def test_emission_lines_are_at_their_wavelengths(comparison):
    lines = comparison.lines[comparison.lines["snr"] > 10]
    assert len(lines) >= 2
    assert set(lines["filter"]) == {"GR150R", "GR150C"}
    assert np.abs(lines["offset"]).max() < 1


def test_source_numbers_run_unchanged_from_the_catalog_to_the_spectra(demo_run):
    labels = set(map(int, read_catalog(one(demo_run, "*_cat.ecsv")).table["label"]))
    assert set(np.unique(read_segmentation(one(demo_run, "*_segm.fits")).data)) - {0} == labels
    for path in demo_run.products.glob("*_nis_cal.fits"):
        if fits.getval(path, "EXP_TYPE") == "NIS_WFSS":
            assert {slit.source_id for slit in read_slits(path).slits} <= labels
    for path in demo_run.products.glob("*_c1d.fits"):
        for table in read_spectra(path).tables:
            assert set(map(int, table.rows["SOURCE_ID"])) <= labels


def test_every_file_opens_in_the_data_models_without_a_warning(demo_run):
    paths = sorted(demo_run.products.glob("*.fits"))
    assert paths
    for path in paths:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with datamodels.open(path) as model:
                assert type(model).__name__ == fits.getval(path, "DATAMODL")
                model.validate()


def test_every_product_names_its_steps_references_and_versions(demo_run):
    for path in demo_run.products.glob("*_rate.fits"):
        header = fits.getheader(path)
        assert header["S_RAMP"] == "COMPLETE"
        assert header["S_IPC"] in ("COMPLETE", "SKIPPED")
        assert header["R_DARK"].startswith("crds://jwst_niriss_dark")
        assert header["CRDS_CTX"] == "jwst_0001.pmap"
        assert header["CAL_VER"].startswith("calweave ")


def test_a_second_run_gives_the_same_bytes_but_for_dates(demo_run, calweave_process, tmp_path):
    done = calweave_process("run", demo_run.program, "--out", tmp_path, "--workers", 1, crds=demo_run.crds)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in demo_run.products.glob("jw*")}
    assert {path.name for path in tmp_path.glob("jw*")} == names
    for name in sorted(names):
        first, second = (folder / name for folder in (demo_run.products, tmp_path))
        if name.endswith(".fits"):
            difference = fits.FITSDiff(first, second, ignore_keywords=["DATE"])
            assert difference.identical, difference.report()
        else:
            dated = ("date", "version_id")
            lines = [
                [line for line in path.read_text().splitlines() if not any(word in line for word in dated)]
                for path in (first, second)
            ]
            assert lines[0] == lines[1], name


def test_the_page_of_the_run_is_written(demo_run):
    page = (demo_run.products / "report.html").read_text()
    assert "09801" in page
    assert "<svg" in page


def test_the_summary_tells_what_came_back(demo_run):
    assert "sources brighter than 10 sigma found" in demo_run.output
    assert "report.html" in demo_run.output
