"""A user simulates an exposure on the command line, calibrates it, and gets the light that went in."""

import numpy as np
import pytest
from astropy.io import fits

from infra.products.image import read_image

#: Preset, and how far the typical rate may be off: the drift of an amplifier is common to a small window.
PRESETS = {"nircam-sub160": 0.01, "miri-sub64": 0.02, "niriss-sub80": 0.03}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_simulated_exposure_becomes_its_true_rates(calweave, tmp_path, preset):
    out = tmp_path / "exposure"
    done = calweave("simulate", preset, "--out", out, "--groups", 10, "--integrations", 2)
    assert done.returncode == 0, done.stderr
    (raw,) = out.glob("*_uncal.fits")
    done = calweave("stage", "detector1", raw, "--out", tmp_path / "products", crds=out / "crds")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "products").glob("*_rate.fits")
    rate = read_image(path)
    with fits.open(out / "truth.fits") as hdulist:
        truth = hdulist["RATE"].data
    bright = np.isfinite(rate.data) & (truth > 20 * rate.err) & (rate.dq == 0)
    assert bright.sum() > 20
    assert np.median(rate.data[bright] / truth[bright]) == pytest.approx(1, abs=PRESETS[preset])


def test_a_preset_that_nobody_knows_lists_all(calweave, tmp_path):
    done = calweave("simulate", "nircam-imag", "--out", tmp_path / "x")
    assert done.returncode == 1
    for name in ("nircam-image", "miri-image", "nirspec-irs2", "fgs-image"):
        assert name in done.stderr


def test_options_of_a_program_and_of_an_exposure_are_not_mixed(calweave, tmp_path):
    assert (
        "--size is for the program" in calweave("simulate", "miri-sub64", "--size", 64, "--out", tmp_path / "x").stderr
    )
    assert "for single exposures" in calweave("simulate", "niriss-wfss", "--groups", 4, "--out", tmp_path / "x").stderr
