"""A program calibrated with a catalog of the user's own: its numbers to the end, and what is made anew when it changes."""

from collections import Counter

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from small_program import RATES, SPEC2, SPEC3, made

from calibration.wcs.mosaic import fits_keywords
from flows.program import make_plan
from infra.products.catalog import read_catalog
from infra.products.image import read_image, read_segmentation
from infra.products.slits import read_slits
from infra.products.spectrum import read_spectra

SPECTRA = {*SPEC2.values(), *SPEC3.values()}


@pytest.fixture
def own(program, tmp_path):
    """The true sources as a survey has them, and the mosaic as drizzle writes it."""
    truth = Table.read(program.folder / "truth" / "sources.ecsv")
    table = Table({"NUMBER": truth["id"] + 5000, "ALPHA_J2000": truth["ra"], "DELTA_J2000": truth["dec"]})
    table.write(tmp_path / "survey.csv", format="ascii.csv")
    (mosaic,) = program.products.glob("*_t001_*_i2d.fits")
    image = read_image(mosaic)
    header = fits.Header({**fits_keywords(image.wcs), "BUNIT": "MJy/sr"})
    fits.PrimaryHDU(image.data, header).writeto(tmp_path / "survey_drz.fits")
    return {"catalog": str(tmp_path / "survey.csv"), "direct_image": str(tmp_path / "survey_drz.fits")}


def test_numbers_run_from_the_users_catalog_to_the_combined_spectra(program, own, tmp_path):
    overrides = {"spec2": own}
    assert made(program.run(overrides)) == SPECTRA, "images do not follow from the catalog"
    numbers = set(Table.read(own["catalog"])["NUMBER"].tolist())
    seen = set()
    for path in program.products.glob("*_nis_cat.ecsv"):
        assert set(read_catalog(path).table["label"].tolist()) == numbers
        labels = set(np.unique(read_segmentation(str(path).replace("_cat.ecsv", "_segm.fits")).data).tolist())
        assert labels & numbers
        slits = read_slits(str(path).replace("_cat.ecsv", "_cal.fits"))
        assert slits.header["SCATFILE"] == "survey.csv"
        found = {slit.source_id for slit in slits.slits}
        assert found <= numbers
        assert {
            int(number)
            for table in read_spectra(str(path).replace("_cat.ecsv", "_x1d.fits")).tables
            for number in table.rows["SOURCE_ID"]
        } == found
        seen |= found
    combined = {
        int(number)
        for path in program.products.glob("*_c1d.fits")
        for table in read_spectra(path).tables
        for number in table.rows["SOURCE_ID"]
    }
    assert combined
    assert combined <= seen

    assert made(program.run(overrides)) == set(), "all is current"
    table = Table.read(own["catalog"])
    table[:-1].write(own["catalog"], format="ascii.csv", overwrite=True)
    plan = make_plan([str(program.folder)], str(program.products), overrides, 1)
    reasons = {node["name"]: node["reasons"] for node in plan["nodes"] if not node["current"]}
    assert set(reasons) == SPECTRA
    assert all("input changed: the file of spec2.catalog" in reasons[name] for name in SPEC2.values())
    # Without it, image3's catalog is back, and what was derived of the other is gone.
    assert made(program.run()) == SPECTRA
    assert not list(program.products.glob("*_nis_cat.ecsv"))


def test_grism_exposures_without_a_direct_image_need_only_the_users_catalog(program, own, tmp_path):
    inputs = [str(program.uncal(RATES[grism])) for grism in SPEC2]

    def stages(overrides):
        return Counter(node["stage"] for node in make_plan(inputs, str(tmp_path / "alone"), overrides, 1)["nodes"])

    assert stages({}) == {"detector1": 2, "spec3": 2}
    assert stages({"spec2": own}) == {"detector1": 2, "spec2": 2, "spec3": 2}


def test_a_catalog_that_is_not_there_stops_the_spectra_by_name(program, own):
    run = program.run({"spec2": {**own, "catalog": "/nowhere/gone.csv"}})
    failed = {node["name"]: node["error"] for node in run["nodes"] if node["state"] == "failed"}
    assert set(failed) == set(SPEC2.values())
    assert all("/nowhere/gone.csv does not exist" in error for error in failed.values())
    # The spectra of the run before are not lost.
    assert len(list(program.products.glob("*_c1d.fits"))) == len(SPEC3)


def test_a_grism_with_a_filter_that_the_reference_does_not_know(program, calweave, tmp_path):
    rate = next(program.products.glob("*_02101_*_rate.fits"))
    fits.setval(rate, "PUPIL", value="F090W")
    asn = next(path for path in program.products.glob("*_spec2_*_asn.json") if rate.name in path.read_text())
    done = calweave("stage", "spec2", asn, "--out", program.products, crds=program.crds)
    assert done.returncode == 1, done.stderr
    assert "F090W" in done.stderr
    assert "Traceback" not in done.stderr
