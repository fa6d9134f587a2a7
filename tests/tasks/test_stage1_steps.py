"""The tasks of stage 1: they adapt, record and report; what they compute is tested with the kernels."""

import dataclasses
import importlib

import numpy as np
import pytest
from hard_ramps import Exposure, make_exposure

from calibration import dq
from infra.products.guider import Guider, read_guider
from infra.products.header import Header, ProductError
from infra.references.content import ReferenceNotFound, References
from tasks.clean_flicker_noise import CleanFlickerNoiseOptions, clean_flicker_noise
from tasks.dq_init import dq_init
from tasks.gain_scale import gain_scale
from tasks.guider_cds import guider_cds
from tasks.jump import JumpOptions, jump
from tasks.persistence import PersistenceOptions, persistence
from tasks.ramp_fit import RampFitOptions, ramp_fit
from tasks.refpix import RefpixOptions, refpix
from tasks.step import STEPS, NoOptions

NAMES = "group_scale dq_init saturation ipc superbias refpix linearity dark_current charge_migration jump".split()
TASKS = {name: getattr(importlib.import_module(f"tasks.{name}"), name) for name in NAMES}
EXPOSURE = Exposure("small", (2, 5, 24, 32), noutputs=1, zeroframe=True, gain_factor=2.0, nframes=2, dark_current=0.1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_exposure(tmp_path_factory.mktemp("references"), EXPOSURE)


@pytest.fixture(scope="module")
def corrected(made):
    ramp, references = made
    for name in NAMES:
        ramp = TASKS[name].fn(ramp, references, STEPS[name].options())
    return ramp


def test_every_step_says_what_it_did(corrected):
    status = {name: corrected.recipe[name]["status"] for name in NAMES}
    assert status.pop("group_scale") == "SKIPPED"
    assert set(status.values()) == {"COMPLETE"}
    assert corrected.header["S_SATURA"] == "COMPLETE"
    assert corrected.header["R_MASK"] == "crds://small_mask.fits"
    assert corrected.recipe["jump"]["options"]["rejection_threshold"] == 4.0


def test_steps_leave_their_input_alone(made, corrected):
    ramp, _ = made
    assert not ramp.groupdq.any()
    assert not ramp.pixeldq.any()
    assert ramp.data.min() >= 0


def test_the_slope_becomes_an_image_per_exposure_and_per_integration(made, corrected):
    rate, rateints = ramp_fit.fn(corrected, made[1], RampFitOptions())
    assert rate.data.shape == (24, 32)
    assert rateints.data.shape == (2, 24, 32)
    assert rate.header["BUNIT"] == "DN/s"
    assert rate.header["S_RAMP"] == rateints.header["S_RAMP"] == "COMPLETE"
    assert "saturation" in rate.recipe
    for plane in (rate.data, rate.err, rate.var_poisson, rate.var_rnoise):
        assert plane.dtype == np.float32


def test_one_integration_has_no_image_of_its_own(made, corrected):
    one = corrected.with_(
        data=corrected.data[:1], groupdq=corrected.groupdq[:1], zeroframe=None, header=corrected.header.set(NINTS=1)
    )
    assert ramp_fit.fn(one, made[1], RampFitOptions())[1] is None


def test_groups_can_be_left_out_of_the_fit(made, corrected):
    some, _ = ramp_fit.fn(corrected, made[1], RampFitOptions(firstgroup=1, lastgroup=3))
    same, _ = ramp_fit.fn(
        corrected.with_(data=corrected.data[:, 1:4].copy(), groupdq=corrected.groupdq[:, 1:4].copy(), zeroframe=None),
        made[1],
        RampFitOptions(),
    )
    clean = ~((corrected.groupdq[:, 0] & dq.GROUP["SATURATED"]) != 0).any(axis=0)
    np.testing.assert_allclose(some.data[clean], same.data[clean], rtol=1e-5)


def test_groups_in_the_wrong_order_are_an_error(made, corrected):
    with pytest.raises(ValueError, match="firstgroup below lastgroup"):
        ramp_fit.fn(corrected, made[1], RampFitOptions(firstgroup=3, lastgroup=2))


def test_the_gain_factor_of_the_reference_scales_the_rate(made, corrected):
    rate, _ = ramp_fit.fn(corrected, made[1], RampFitOptions())
    scaled = gain_scale.fn(rate, made[1], NoOptions())
    np.testing.assert_allclose(scaled.data, 2 * rate.data)
    assert scaled.header["GAINFACT"] == 2.0


def test_without_a_reference_a_step_is_skipped_with_the_reason(made):
    ramp, references = made
    none = References(dict.fromkeys(references.files), references.context)
    for name in ("dq_init", "saturation", "ipc", "superbias", "linearity", "dark_current"):
        skipped = TASKS[name].fn(ramp, none, STEPS[name].options())
        assert skipped.recipe[name]["status"] == "SKIPPED"
        assert "reference file matches" in skipped.recipe[name]["reason"]
        assert skipped.data is ramp.data


def test_without_gain_and_read_noise_jump_and_fit_stop(made):
    ramp, references = made
    none = References(dict.fromkeys(references.files), references.context)
    for task, options in (
        (jump, JumpOptions()), (ramp_fit, RampFitOptions()), (clean_flicker_noise, CleanFlickerNoiseOptions())
    ):  # fmt: skip
        with pytest.raises(ReferenceNotFound, match="GAIN"):
            task.fn(ramp, none, options)


def test_two_groups_have_no_jumps(made):
    ramp, references = made
    short = ramp.with_(data=ramp.data[:, :2], groupdq=ramp.groupdq[:, :2])
    assert jump.fn(short, references, JumpOptions()).recipe["jump"]["status"] == "SKIPPED"


def test_a_subarray_without_reference_pixels_skips_refpix(made):
    ramp, references = made
    inner = ramp.with_(header=ramp.header.set(SUBSTRT1=1001, SUBSTRT2=1001))
    assert refpix.fn(inner, references, RefpixOptions()).recipe["refpix"]["status"] == "SKIPPED"


def test_a_readout_that_refpix_does_not_know_stops_it(made):
    ramp, references = made
    with pytest.raises(ProductError, match="multistripe"):
        refpix.fn(ramp.with_(header=ramp.header.set(MSTR_RD1=4)), references, RefpixOptions())


def test_a_dark_that_is_too_coarse_is_not_subtracted(made):
    ramp, references = made
    task = TASKS["dark_current"]
    fast = ramp.with_(header=ramp.header.set(NFRAMES=1, GROUPGAP=0))
    coarse = make_coarse(references)
    skipped = task.fn(fast, coarse, STEPS["dark_current"].options())
    assert "more frames" in skipped.recipe["dark_current"]["reason"]


def make_coarse(references):
    from astropy.io import fits

    path = references.files["dark"].replace("_dark", "_coarse_dark")
    with fits.open(references.files["dark"]) as hdus:
        hdus[0].header["NFRAMES"] = 4
        hdus.writeto(path, overwrite=True)
    return dataclasses.replace(references, files={**references.files, "dark": path})


def test_average_dark_current_comes_from_the_reference_or_the_user(made):
    ramp, references = made
    task, options = TASKS["dark_current"], STEPS["dark_current"].options
    assert task.fn(ramp, references, options()).average_dark_current[0, 0] == np.float32(0.1)
    assert task.fn(ramp, references, options(average_dark_current=0.7)).average_dark_current[0, 0] == np.float32(0.7)


def test_persistence_without_a_time_is_skipped(corrected, made):
    assert (
        "persistence_time" in persistence.fn(corrected, made[1], PersistenceOptions()).recipe["persistence"]["reason"]
    )
    done = persistence.fn(corrected, made[1], PersistenceOptions(persistence_time=50))
    assert (done.groupdq & dq.GROUP["PERSISTENCE"]).any()


def test_flicker_noise_is_cleaned_from_a_draft_rate(corrected, made):
    done = clean_flicker_noise.fn(corrected, made[1], CleanFlickerNoiseOptions())
    assert done.recipe["clean_flicker_noise"]["status"] == "COMPLETE"
    assert not np.array_equal(done.data, corrected.data)
    np.testing.assert_array_equal(done.data[:, 0], corrected.data[:, 0])


def test_a_guider_exposure_gets_flags_and_rates(made, tmp_path):
    _, references = made
    header = Header(
        {"EXP_TYPE": "FGS_ACQ1", "TGROUP": 0.5, "SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": 32, "SUBSIZE2": 24}
    )
    guider = Guider(header, np.ones((3, 2, 24, 32), np.float32), np.zeros((24, 32), np.uint32))
    guider = guider.with_(data=np.cumsum(guider.data * 5, axis=1))
    done = guider_cds.fn(dq_init.fn(guider, references, NoOptions()), references, NoOptions())
    assert (done.data == 10).all()
    assert done.data.shape == (3, 24, 32)
    assert (done.dq & dq.PIXEL["DO_NOT_USE"]).any()
    assert done.header["BUNIT"] == "DN/s"


def test_the_real_acquisition_exposure_has_the_difference_of_its_reads(made, shared):
    # Identical to what the official pipeline makes of it; the parity test says so where that is installed.
    guider = read_guider(next((shared / "real" / "uncal").glob("*_gs-acq1_*_uncal.fits")))
    _, references = made
    whole = guider.header.set(SUBSTRT1=1, SUBSTRT2=1, SUBSIZE1=32, SUBSIZE2=24)
    corner = guider.with_(header=whole, data=guider.data[..., :24, :32], dq=guider.dq[:24, :32])
    done = guider_cds.fn(corner, references, NoOptions())
    expected = (corner.data[:, 1] - corner.data[:, 0]) / np.float32(guider.header["TGROUP"])
    np.testing.assert_array_equal(done.data, expected)
