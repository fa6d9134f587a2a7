"""Stage 1 on readouts with something special: zero frames, segments of a time series, averages with another divisor."""

import numpy as np
import pytest
from stage1_parity import take_steps

from infra.products.ramp import read_ramp
from infra.references.content import References
from infra.synthetic.miri import write_miri_exposure
from infra.synthetic.near_infrared import write_near_infrared_exposure

NEAR_INFRARED = "group_scale dq_init saturation superbias refpix linearity dark_current jump ramp_fit".split()
MIRI = "dq_init saturation lastframe reset linearity rscd dark_current jump ramp_fit".split()


def calibrate(exposure, steps, path=None, **options):
    files = {path.name.split("_")[2]: str(path) for path in exposure.crds.glob("references/jwst/*/*")}
    references = References({"superbias": None} | files, "jwst_0001.pmap")
    *_, (_, rates) = take_steps(read_ramp(path or exposure.uncal), references, steps, {"ramp_fit": options})
    return rates


def test_a_pixel_that_fills_within_the_first_group_has_the_rate_of_its_zero_frame(tmp_path):
    # Full in one to two frames, of which a group averages four.
    light = 45_800 * 1.82 / 0.34061 * np.linspace(0.5, 0.8, 2048)
    exposure = write_near_infrared_exposure(
        tmp_path, "nircam-subgrism64", ngroups=4, rate=np.broadcast_to(light, (64, 2048)), particles=0
    )
    (with_zero_frame,) = calibrate(exposure, NEAR_INFRARED, suppress_one_group=False)
    (without,) = calibrate(exposure, NEAR_INFRARED, suppress_one_group=True)
    lit = (exposure.rate > 0) & ((with_zero_frame.dq & 1) == 0)
    assert lit.mean() > 0.5
    assert np.all(np.isnan(without.data[lit]))
    assert np.mean(with_zero_frame.data[lit] / exposure.rate[lit]) == pytest.approx(1, abs=5e-4)
    pull = (with_zero_frame.data - exposure.rate)[lit] / with_zero_frame.err[lit]
    assert 0.97 < pull.std() < 1.05


@pytest.mark.parametrize("mode", ["nircam-sub64p", "niriss-sub80"])
def test_the_segments_of_a_time_series_are_calibrated_like_the_whole(tmp_path, mode):
    options = dict(nints=5, ngroups=4, particles=300, seed=23)
    whole = write_near_infrared_exposure(tmp_path / "whole", mode, **options)
    parts = write_near_infrared_exposure(tmp_path / "parts", mode, segments=2, **options)
    compare_segments(whole, parts, NEAR_INFRARED)


def test_the_segments_of_miri_take_the_later_integrations_of_dark_and_reset_anomaly(tmp_path):
    options = dict(nints=4, ngroups=8, subarray="SUB64", particles=100, seed=24)
    whole = write_miri_exposure(tmp_path / "whole", **options)
    parts = write_miri_exposure(tmp_path / "parts", segments=2, **options)
    compare_segments(whole, parts, MIRI)


def compare_segments(whole, parts, steps):
    rate, rateints = calibrate(whole, steps)
    pieces = [calibrate(parts, steps, path) for path in parts.files]
    # The median that hits stand out from is that of a file, and with it the photon noise; a few hits are seen in one only.
    for plane in ("data", "var_rnoise"):
        joined = np.concatenate([getattr(ints, plane) for _, ints in pieces])
        assert np.mean(np.isclose(joined, getattr(rateints, plane), rtol=1e-6, equal_nan=True)) > 0.999, plane
    first = 1
    for (mean, ints), path in zip(pieces, parts.files, strict=True):
        header = read_ramp(path).header
        assert (ints.header["INTSTART"], ints.header["INTEND"]) == (first, first + len(ints.data) - 1)
        assert mean.header["EXSEGNUM"] == ints.header["EXSEGNUM"] == header["EXSEGNUM"]
        np.testing.assert_array_equal(ints.int_times["integration_number"], np.arange(1, len(joined) + 1))
        good = np.isfinite(mean.data) & np.isfinite(ints.data).all(axis=0)
        np.testing.assert_array_less(np.min(ints.data, axis=0)[good] - 1e-3, mean.data[good])
        np.testing.assert_array_less(mean.data[good], np.max(ints.data, axis=0)[good] + 1e-3)
        first += len(ints.data)
    assert np.isfinite(rate.data).any()


@pytest.mark.parametrize("divisor", [2, 4, 16])
def test_the_rate_does_not_depend_on_the_divisor_of_the_electronics(tmp_path, divisor):
    rate = np.full((64, 64), 20_000.0)
    exposure = write_near_infrared_exposure(tmp_path, "nircam-sub64p", 4, 5, rate, divisor=divisor, particles=0)
    image, _ = calibrate(exposure, NEAR_INFRARED)
    good = np.isfinite(image.data) & (exposure.rate > 0)
    # A large divisor leaves fewer bits: 1/16 of the sum of two frames has steps of 8 DN.
    assert np.median(image.data[good] / exposure.rate[good]) == pytest.approx(1, abs=3e-3)
