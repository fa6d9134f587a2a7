"""The ways to fit ramps that the step offers, and what it makes beside the rates."""

import warnings

import numpy as np
import pytest
from hard_ramps import Exposure, make_exposure
from stdatamodels.jwst import datamodels

from calibration import dq
from infra.products.fit_output import PLANES, read_fit_output, write_fit_output
from infra.products.stored import store
from tasks.ramp_fit import RampFitOptions, ramp_fit
from tasks.saturation import SaturationOptions, saturation


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    exposure = Exposure("some", (2, 6, 12, 16), start=(1001, 1001), noutputs=1)
    ramp, references = make_exposure(tmp_path_factory.mktemp("fit"), exposure)
    return saturation.fn(ramp, references, SaturationOptions()), references


def test_the_likelihood_fit_agrees_with_least_squares_within_the_errors(made):
    ramp, references = made
    rate, rateints = ramp_fit.fn(ramp, references, RampFitOptions(algorithm="LIKELY", save_opt=True))
    least_squares, _ = ramp_fit.fn(ramp, references, RampFitOptions())
    quiet = (ramp.groupdq == 0).all(axis=(0, 1)) & (rate.dq == 0) & (least_squares.dq == 0)
    assert np.count_nonzero(quiet) > 30
    assert np.median(np.abs(rate.data - least_squares.data)[quiet] / rate.err[quiet]) < 0.5
    assert rateints.data.shape == (2, 12, 16)
    assert list(rate.side) == ["likely_chisq"]
    # Two integrations of five differences less a rate each, and a drift that the read noise knows nothing of.
    assert 5 < np.median(rate.side["likely_chisq"].data[quiet]) < 20
    assert rateints.side == least_squares.side == {}


def test_three_groups_are_fitted_by_least_squares(made):
    ramp, references = made
    short = ramp.with_(data=ramp.data[:, :3].copy(), groupdq=ramp.groupdq[:, :3].copy())
    likely, _ = ramp_fit.fn(short, references, RampFitOptions(algorithm="LIKELY"))
    np.testing.assert_array_equal(likely.data, ramp_fit.fn(short, references, RampFitOptions())[0].data)


def test_the_fit_output_adds_up_to_the_rate_and_opens_without_warnings(made, tmp_path):
    ramp, references = made
    hit = ramp.groupdq.copy()
    hit[0, 3, 5] |= dq.GROUP["JUMP_DET"]
    rate, rateints = ramp_fit.fn(ramp.with_(groupdq=hit), references, RampFitOptions(save_opt=True))
    fit = rate.side["fitopt"]
    assert fit.slope.shape == (2, 2, 12, 16)
    good = np.isfinite(rateints.data)
    mean = (fit.slope * fit.weights).sum(axis=1)[good] / fit.weights.sum(axis=1)[good]
    np.testing.assert_allclose(mean, rateints.data[good], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(1 / fit.weights.sum(axis=1)[good], rateints.var_rnoise[good], rtol=1e-4)
    rise = ramp.data[0, 3, 5] - ramp.data[0, 2, 5]
    np.testing.assert_allclose(fit.crmag[0, 0, 5], np.where(hit[0, 3, 5] & 3 | hit[0, 2, 5] & 3, np.nan, rise))
    write_fit_output(fit, tmp_path / "a_fitopt.fits")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with datamodels.open(tmp_path / "a_fitopt.fits") as model:
            assert isinstance(model, datamodels.RampFitOutputModel)
    again = read_fit_output(tmp_path / "a_fitopt.fits")
    for plane in PLANES:
        np.testing.assert_array_equal(getattr(again, plane), getattr(fit, plane))


def test_ramps_on_disk_are_fitted_as_those_in_memory(made):
    ramp, references = made
    on_disk = {name: store(ramp.data.shape, getattr(ramp, name).dtype, 5) for name in ("data", "groupdq")}
    for name, array in on_disk.items():
        array[:] = getattr(ramp, name)
    for options in (
        RampFitOptions(firstgroup=1, lastgroup=4, save_opt=True),
        RampFitOptions(algorithm="LIKELY", firstgroup=1),
    ):
        rate, rateints = ramp_fit.fn(ramp, references, options)
        other, others = ramp_fit.fn(ramp.with_(**on_disk), references, options)
        np.testing.assert_array_equal(rate.data, other.data)
        np.testing.assert_array_equal(rateints.err, others.err[:])
        if options.save_opt:
            np.testing.assert_array_equal(rate.side["fitopt"].yint, other.side["fitopt"].yint)
