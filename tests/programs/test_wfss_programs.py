"""Small slitless programs of NIRCam and MIRI, from raw ramps to spectra, against their truth.

A line of 30 sigma has a centre good to some 0.05 spectral pixel and a flux good to 3 per cent. A cut-out has no reference
pixels, so that the drift of the amplifiers stays in whole rows: that is some per cent of the brightest star of NIRCam.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from stdatamodels.jwst import datamodels

from flows.program import calibrate
from infra.products.catalog import read_catalog
from infra.products.spectrum import read_spectra
from infra.synthetic.compare import Comparison, compare_with_truth
from infra.synthetic.slitless import write_wfss_program

#: Preset -> its grisms, and by how much the continuum of the brightest star may be off.
PROGRAMS = {"nircam-wfss": (("GRISMR", "GRISMC"), 0.10), "miri-wfss": (("P750L",), 0.02)}


@dataclass(frozen=True)
class Calibrated:
    """A calibrated program, and how its products compare with the truth."""

    preset: str
    program: Path
    products: Path
    states: set[str]
    comparison: Comparison

    @property
    def grisms(self) -> set[str]:
        return set(PROGRAMS[self.preset][0])


@pytest.fixture(scope="module", params=PROGRAMS)
def done(request, tmp_path_factory) -> Calibrated:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    folder = tmp_path_factory.mktemp(request.param)
    program, products = folder / "program", folder / "products"
    write_wfss_program(program, request.param, size=256, dithers=2, grism_dithers=1)
    with pytest.MonkeyPatch.context() as patch, temporary_settings(restore_defaults={PREFECT_API_URL}):
        patch.setenv("CRDS_PATH", str(program / "crds"))
        for name in ("CRDS_SERVER_URL", "CRDS_CONTEXT"):
            patch.delenv(name, raising=False)
        run = calibrate([str(program)], str(products), {}, 2)
    states = {node["state"] for node in run["nodes"]}
    return Calibrated(request.param, program, products, states, compare_with_truth(products, program / "truth"))


def test_every_product_of_the_program_is_there(done):
    assert done.states == {"done"}
    grisms = len(done.grisms)
    for pattern, count in (
        ("*_rate.fits", 2 + grisms),
        ("*_cal.fits", 2 + grisms),
        ("*_cat.ecsv", 1),
        ("*_c1d.fits", grisms),
    ):
        assert len(list(done.products.glob(pattern))) == count, pattern


def test_every_file_opens_in_the_data_models_without_a_warning(done):
    types = ("specwcs", "wavelengthrange", "photom", "apcorr", "bkg", "filteroffset")
    references = [path for name in types for path in done.program.glob(f"crds/references/jwst/*/*_{name}_*")]
    assert len(references) >= 8
    for path in (*done.program.glob("uncal/*_02101_*"), *references, *done.products.glob("*_c1d.fits")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with datamodels.open(str(path)) as model:
                model.validate()


def test_every_step_of_slitless_spectra_was_run(done):
    for path in done.products.glob("*_cal.fits"):
        header = fits.getheader(path)
        if header["EXP_TYPE"].endswith("WFSS"):
            steps = ["S_WCS", "S_BKDSUB", "S_FLAT", "S_EXTR2D", "S_SRCTYP", "S_PHOTOM"]
            assert {step: header[step] for step in steps} == dict.fromkeys(steps, "COMPLETE")


def test_sources_are_found_and_keep_their_numbers(done):
    assert done.comparison.expected >= 7
    assert done.comparison.missing == ()
    (catalog,) = done.products.glob("*_cat.ecsv")
    labels = set(map(int, read_catalog(catalog).table["label"]))
    for path in done.products.glob("*_c1d.fits"):
        for table in read_spectra(path).tables:
            assert set(map(int, table.rows["SOURCE_ID"])) <= labels


def test_emission_lines_are_at_their_wavelengths_and_have_their_fluxes(done):
    lines = done.comparison.lines[done.comparison.lines["snr"] > 20]
    assert set(lines["filter"]) == done.grisms
    assert len(lines) >= 3 * len(done.grisms)
    assert np.abs(lines["offset"]).max() < 0.2
    assert np.abs((lines["flux_ratio"] - 1) * lines["snr"]).max() < 4
    assert np.mean(lines["flux_ratio"]) == pytest.approx(1, abs=0.03)


def test_the_continuum_of_the_brightest_star_is_right(done):
    brightest = done.comparison.continua[done.comparison.continua["source"] == 1]
    assert set(brightest["filter"]) == done.grisms
    assert np.abs(brightest["ratio"] - 1).max() < PROGRAMS[done.preset][1]


def test_a_program_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(ValueError, match="preset must be one of nircam-wfss, miri-wfss, not 'niriss-wfss'"):
        write_wfss_program(tmp_path, "niriss-wfss")
