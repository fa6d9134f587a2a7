"""Missing pixels of a trace, against what was there."""

import numpy as np
import pytest

from calibration import dq as flags
from calibration.spectra.photom import Cutout
from calibration.spectra.pixel_replace import fit_profiles, replace_pixels

BAD, NOTHING, ESTIMATED = (flags.PIXEL[name] for name in ("DO_NOT_USE", "NON_SCIENCE", "FLUX_ESTIMATED"))
HOLES = ((5, 20), (6, 40), (4, 41), (5, 60), (9, 0), (2, 79))


def trace(noise=0.01):
    """A spectrum that rises and has a line at column 60, on 11 rows."""
    x, y = np.arange(80), np.arange(11)[:, None]
    spectrum = 10 + 0.1 * x + 30 * np.exp(-0.5 * ((x - 60) / 1.5) ** 2)
    truth = spectrum * np.exp(-0.5 * ((y - 5.2) / 1.2) ** 2)
    data = (truth + np.random.default_rng(8).normal(0, noise, truth.shape)).astype(np.float32)
    dq = np.zeros(truth.shape, np.uint32)
    for hole in HOLES:
        dq[hole], data[hole] = BAD, np.nan
    plane = np.where(dq > 0, np.nan, noise).astype(np.float32)
    return truth, Cutout(data, plane, dq, plane**2 / 2, plane**2 / 2, None)


def turned(cutout):
    return Cutout(*(None if plane is None else plane.T for plane in vars(cutout).values()))


def test_the_profile_of_the_columns_beside_gives_what_was_there():
    truth, cutout = trace()
    done, count = fit_profiles(cutout, 1)
    assert count == len(HOLES)
    for hole in HOLES:
        # At a line too: its profile is that of the continuum, and its height is in its own column.
        assert done.data[hole] == pytest.approx(truth[hole], rel=0.02, abs=0.05)
        assert done.dq[hole] == ESTIMATED
        assert done.err[hole] == pytest.approx(0.01, rel=1.0)
        assert done.var_rnoise[hole] == pytest.approx(done.err[hole] ** 2 / 2, rel=0.01)
    kept = cutout.dq == 0
    np.testing.assert_array_equal(done.data[kept], cutout.data[kept])
    np.testing.assert_array_equal(done.err[kept], cutout.err[kept])
    assert done.var_flat is None


@pytest.mark.parametrize("n_adjacent_cols", [1, 3, 6])
def test_along_the_columns_it_is_the_same(n_adjacent_cols):
    _, cutout = trace()
    rows, _ = fit_profiles(cutout, 1, n_adjacent_cols)
    columns, _ = fit_profiles(turned(cutout), 2, n_adjacent_cols)
    for one, other in zip(vars(rows).values(), vars(turned(columns)).values(), strict=True):
        if one is not None:
            np.testing.assert_array_equal(one, other)


def test_noise_is_not_scaled():
    rng = np.random.default_rng(1)
    data = rng.normal(0, 1, (7, 30)).astype(np.float32)
    dq = np.zeros(data.shape, np.uint32)
    dq[3, 10] = BAD
    one = np.ones_like(data)
    done, _ = fit_profiles(Cutout(data, one, dq, None, None, None), 1)
    assert done.data[3, 10] == pytest.approx(np.median(data[3, [7, 8, 9, 11, 12, 13]]))


@pytest.mark.parametrize("replace", [replace_pixels, lambda cutout: fit_profiles(cutout, 1)])
def test_what_cannot_be_told_stays(replace):
    _, cutout = trace()
    dq, data = cutout.dq.copy(), cutout.data.copy()
    dq[:, 50] = BAD  # a whole column, and the light of its neighbours says nothing of it
    dq[3, 25] = BAD | NOTHING
    data[dq > 0] = np.nan
    done, _ = replace(Cutout(data, cutout.err, dq, cutout.var_poisson, cutout.var_rnoise, None))
    assert done.dq[3, 25] == BAD | NOTHING
    assert np.isnan(done.data[3, 25])
    empty = Cutout(np.full_like(data, np.nan), cutout.err, np.full_like(dq, BAD), None, None, None)
    done, count = replace(empty)
    assert count == 0
    assert np.isnan(done.data).all()
    np.testing.assert_array_equal(done.dq, empty.dq)


def test_the_least_gradient_is_along_a_trace_and_across_a_line():
    data = np.zeros((5, 9), np.float32)
    data[2], data[:, 6] = 10, 20
    data[3, 7] = 1
    dq = np.zeros(data.shape, np.uint32)
    for hole in ((2, 3), (3, 6)):
        dq[hole], data[hole] = BAD, np.nan
    one = np.ones_like(data)
    done, count = replace_pixels(Cutout(data, one, dq, one, None, None))
    assert count == 2
    assert (done.data[2, 3], done.data[3, 6]) == (10, 20)
