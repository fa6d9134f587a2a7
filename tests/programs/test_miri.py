"""A simulated MIRI exposure through the command line: references are chosen by the rules, rates written."""

import numpy as np

from infra.products.image import read_image
from infra.products.ramp import read_ramp
from infra.synthetic.miri import write_miri_exposure

LIGHT = 3000.0  # [e-/s]


def test_a_miri_exposure_becomes_rates(calweave, tmp_path):
    exposure = write_miri_exposure(tmp_path, 2, 12, "SUB64", rate=np.full((64, 72), LIGHT), emi=5.0)
    done = calweave(
        "stage", "detector1", exposure.uncal, "--out", tmp_path / "out", "-p", "emicorr.skip=false",
        "-p", "detector1.save_calibrated_ramp=true", "-p", "ramp_fit.save_opt=true", crds=exposure.crds,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [path.name.rsplit("_", 1)[1] for path in sorted((tmp_path / "out").iterdir())] == [
        "fitopt.fits",
        "ramp.fits",
        "rate.fits",
        "rateints.fits",
    ]
    (ramp,) = map(read_ramp, (tmp_path / "out").glob("*_ramp.fits"))
    assert ramp.data.shape == (2, 12, 64, 72)
    assert ramp.header["S_JUMP"] == "COMPLETE"
    assert "S_RAMP" not in ramp.header
    (path,) = (tmp_path / "out").glob("*_rate.fits")
    rate = read_image(path)
    for keyword in ("S_MIREMI", "S_LASTFR", "S_RESET", "S_RSCD", "S_DARK", "S_LINEAR", "S_JUMP", "S_RAMP"):
        assert rate.header[keyword] == "COMPLETE", keyword
    assert rate.header["S_FRSTFR"] == rate.header["S_IPC"] == rate.header["S_REFPIX"] == "SKIPPED"
    good = np.isfinite(rate.data) & (exposure.rate > 0)
    np.testing.assert_allclose(np.median(rate.data[good] / exposure.rate[good]), 1, atol=4e-3)
