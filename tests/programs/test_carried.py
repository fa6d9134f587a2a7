"""Exposures of one detector, one after the other, by the command line: what the first leaves, the second is told."""

import numpy as np
from astropy.io import fits

from calibration import dq
from infra.products.persistence import read_suspects
from infra.products.ramp import read_ramp
from infra.synthetic.miri import write_miri_exposure


def test_suspect_pixels_are_handed_from_exposure_to_exposure(calweave, tmp_path):
    light = np.zeros((64, 72))
    light[20, 30] = 1e6  # [e-/s], saturates at once
    first = write_miri_exposure(tmp_path / "a", 1, 6, "SUB64", rate=light, seed=1)
    second = write_miri_exposure(tmp_path / "b", 1, 6, "SUB64", rate=light * 0, seed=2)
    with fits.open(second.uncal, mode="update") as hdus:
        hdus["INT_TIMES"].data["int_start_MJD_UTC"] += 60 / 86_400
    options = ["-p", "persistence.skip=false", "-p", "persistence.persistence_time=500", "-p", "ramp_fit.skip=true"]
    done = calweave(
        "stage", "detector1", first.uncal, "--out", tmp_path / "out", *options, "-p", "persistence.save_persistence=true",
        crds=first.crds,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (handed,) = (tmp_path / "out").glob("*_persistence.asdf")
    assert str(handed) in done.stdout.split()
    assert read_suspects(handed).detectors["MIRIMAGE"].pers_time == 500
    done = calweave(
        "stage", "detector1", second.uncal, "--out", tmp_path / "later", *options,
        "-p", f"persistence.persistence_array_file={handed}", crds=second.crds,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "later").glob("*_ramp.fits")
    ramp = read_ramp(path)
    suspect = (ramp.groupdq[0] & dq.GROUP["PERSISTENCE"]) != 0
    assert suspect[:, 20, 30].all()
    assert suspect.mean() < 0.1
