"""Optimal extraction against a trace whose light is known."""

import numpy as np
import pytest
from scipy.special import erf

from calibration import dq as flags
from calibration.spectra.extract_1d import extract_box, extract_optimal

HEIGHT, LENGTH, GAIN = 11, 130, 0.02
BAD = flags.PIXEL["DO_NOT_USE"]


def trace(level, seed, noise=0.02, line=3.0, drift=1.0):
    """A spectrum that falls, with a line; its cutout with Poisson and read noise; and both variances."""
    rng = np.random.default_rng(seed)
    x, y = np.arange(LENGTH), np.arange(HEIGHT)
    truth = level * (1 - 0.004 * (x - 65) + line * np.exp(-0.5 * ((x - 80.3) / 1.6) ** 2))
    centre = 5.1 + drift * (x / LENGTH - 0.5)
    across = sum(
        w * 0.5 * (erf((y[:, None] - centre + 0.5) / s / 2**0.5) - erf((y[:, None] - centre - 0.5) / s / 2**0.5))
        for w, s in ((0.76, 0.62), (0.24, 1.3))
    )
    across /= across.sum(axis=0)
    light = truth * across
    poisson = GAIN * light + 1e-5
    data = light + rng.normal(0, np.sqrt(poisson + noise**2))
    # The variance that a file has follows the noise of the signal.
    estimated = np.maximum(GAIN * data, 0) + 1e-5
    wavelength = np.broadcast_to(1.7 + 0.0047 * x, data.shape).astype(np.float32)
    planes = (data.astype(np.float32), np.zeros(data.shape, np.uint32), wavelength)
    return truth, planes, (estimated.astype(np.float32), np.full(data.shape, noise**2, np.float32), None)


@pytest.mark.parametrize(("level", "bias"), [(1.0, 0.01), (8.0, 0.003)])
def test_the_flux_is_unbiased_and_its_error_right(level, bias):
    ratios, pulls, lines = [], [], []
    for seed in range(12):
        truth, planes, variances = trace(level, seed)
        found = extract_optimal(*planes, 1, *variances)
        error = np.sqrt(found.var_poisson + found.var_rnoise)
        ratios.append(found.total.sum() / truth.sum())
        pulls.append((found.total - truth) / error)
        lines.append(found.total[74:88].sum() / truth[74:88].sum())
    assert np.mean(ratios) == pytest.approx(1, abs=bias)
    assert np.mean(lines) == pytest.approx(1, abs=0.02)
    assert np.std(pulls) == pytest.approx(1, abs=0.07)


def test_it_is_quieter_than_the_sum_where_the_readout_dominates():
    _, planes, variances = trace(0.5, 1)
    best, summed = extract_optimal(*planes, 1, *variances), extract_box(*planes, 1, *variances)
    assert np.median(best.var_rnoise) < 0.55 * np.median(summed.var_rnoise)


def test_along_the_columns_it_is_the_same():
    _, planes, variances = trace(3.0, 2)
    rows = extract_optimal(*planes, 1, *variances)
    columns = extract_optimal(*(plane.T for plane in planes), 2, *(None if one is None else one.T for one in variances))
    for name in vars(rows):
        np.testing.assert_allclose(getattr(rows, name), getattr(columns, name))


def test_a_missing_pixel_and_a_cosmic_ray_cost_no_flux():
    truth, (data, dq, wavelength), variances = trace(8.0, 3)
    whole = extract_optimal(data, dq, wavelength, 1, *variances)
    data, dq = data.copy(), dq.copy()
    dq[5, 30], data[6, 90] = BAD, data[6, 90] + 40
    data[5, 40] = np.nan
    dq[:, 100] = BAD
    found = extract_optimal(data, dq, wavelength, 1, *variances)
    error = np.sqrt(found.var_poisson + found.var_rnoise)
    for x in (30, 40, 90):
        assert abs(found.total[x] - truth[x]) < 5 * error[x] + 0.03 * truth[x]
        assert found.npixels[x] == HEIGHT - 1
        assert error[x] > np.sqrt(whole.var_poisson + whole.var_rnoise)[x]
    assert np.isnan(found.total[100])
    assert found.dq[100] == BAD


def test_a_source_that_is_too_faint_has_no_profile():
    _, planes, variances = trace(0.002, 4)
    assert extract_optimal(*planes, 1, *variances) is None


def test_a_cutout_without_values_has_none():
    _, (data, dq, wavelength), variances = trace(3.0, 5)
    assert extract_optimal(np.full_like(data, np.nan), dq, wavelength, 1, *variances) is None
