"""Division by the flat field, against its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibration import dq as bits
from calibration.images.flat_field import DO_NOT_USE, NO_FLAT_FIELD, divide_flat, divide_flat_of_guider

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))


def by_definition(data, dq, poisson, rnoise, flat, flat_err, flat_dq):
    no_flat = ~np.isfinite(flat) | (flat == 0) | ((flat_dq & NO_FLAT_FIELD) != 0)
    flags = dq | flat_dq
    flags = np.where(no_flat, flags | NO_FLAT_FIELD * (~np.isfinite(flat) | (flat == 0)) | DO_NOT_USE, flags)
    with np.errstate(all="ignore"):
        flat = flat.astype(float)
        signal = data / flat
        planes = [signal, poisson / flat**2, rnoise / flat**2, (signal * flat_err / flat) ** 2]
        total = planes[1] + planes[2] + planes[3]
    bad = ((flags & DO_NOT_USE) != 0) | np.isnan(signal) | np.isnan(total)
    flags = np.where(bad, flags | DO_NOT_USE, flags).astype(np.uint32)
    return [np.where(bad, np.nan, plane) for plane in (*planes, np.sqrt(total))], flags


@settings(deadline=None)
@given(st.data(), SHAPES)
def test_agrees_with_the_definition(data, shape):
    values = st.floats(0, 1e4, width=32) | st.just(np.nan)
    science, poisson, rnoise = (data.draw(hnp.arrays(np.float32, shape, elements=values)) for _ in range(3))
    flat = data.draw(hnp.arrays(np.float32, shape[1:], elements=st.sampled_from([0.5, 0.9, 1.0, 1.25, 0.0, np.nan])))
    flat_err = data.draw(hnp.arrays(np.float32, shape[1:], elements=st.floats(0, 0.125, width=32)))
    flags = st.sampled_from([0, 1, 4, int(NO_FLAT_FIELD)])
    dq = data.draw(hnp.arrays(np.uint32, shape, elements=flags))
    flat_dq = data.draw(hnp.arrays(np.uint32, shape[1:], elements=flags))
    kept = science.copy(), dq.copy(), flat.copy()

    done = divide_flat(science, dq, poisson, rnoise, flat, flat_err, flat_dq)

    (signal, from_photons, from_readout, from_flat, err), expected_dq = by_definition(
        science, dq, poisson, rnoise, flat, flat_err, flat_dq
    )
    np.testing.assert_array_equal(done.dq, expected_dq)
    for plane, expected in (
        (done.data, signal),
        (done.var_poisson, from_photons),
        (done.var_rnoise, from_readout),
        (done.var_flat, from_flat),
        (done.err, err),
    ):
        # float32 has no numbers below 1e-45: an error of the flat of 1e-38 squares to 0.
        np.testing.assert_allclose(plane, expected, rtol=1e-6, atol=1e-40)
    for before, after in zip(kept, (science, dq, flat), strict=True):
        np.testing.assert_array_equal(before, after, "the input must stay as it was")


def test_the_flat_must_cover_the_data():
    plane, flags = np.ones((4, 4), np.float32), np.zeros((4, 4), np.uint32)
    with pytest.raises(ValueError, match="cut the reference to the subarray"):
        divide_flat(plane, flags, plane, plane, np.ones((5, 4), np.float32), plane, flags)


def test_guider_images_add_the_error_of_the_flat():
    data = np.full((2, 3, 3), 8.0, np.float32)
    err = np.full(data.shape, 3.0, np.float32)
    flat = np.full((3, 3), 2.0, np.float32)
    flat[0, 0] = np.nan
    done, spread, dq = divide_flat_of_guider(
        data, err, np.zeros((3, 3), np.uint32), flat, np.full((3, 3), 2.0, np.float32), np.zeros((3, 3), np.uint32)
    )
    assert (done[:, 1, 1] == 4).all()
    np.testing.assert_allclose(spread[:, 1, 1], np.hypot(3, 4 * 2 / 2))
    assert dq[0, 0] == bits.PIXEL["NO_FLAT_FIELD"] | bits.PIXEL["DO_NOT_USE"]
    assert dq[1, 1] == 0
    assert (done[:, 0, 0] == 8).all(), "a pixel without a flat is not divided"
