"""Reference pixels: offsets that we put in are taken out, for every way a detector is read."""

import numpy as np
import pytest

from calibration import dq
from calibration.ramps.refpix import (
    Readout,
    _running_median,
    count_reference_pixels,
    prepare_side_kernels,
    subtract_mid_infrared_reference_pixels,
    subtract_reference_pixels,
)
from calibration.subarrays import Subarray

REFERENCE, DO_NOT_USE = dq.PIXEL["REFERENCE_PIXEL"], dq.PIXEL["DO_NOT_USE"]
AXES = [(1, 2), (-1, 2), (1, -2), (2, 1), (-2, -1), (2, -1)]


def stripe(fastaxis, noutputs=4, width=16):
    """A stripe with the first detector rows, all columns; and the reference flags."""
    shape = (2048, width) if abs(fastaxis) == 2 else (width, 2048)
    return Subarray(1, 1, shape[1], shape[0]), reference_flags(1, 1, shape)


def reference_flags(xstart, ystart, shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    y, x = y + ystart - 1, x + xstart - 1
    return np.where((x < 4) | (x > 2043) | (y < 4) | (y > 2043), REFERENCE, np.uint32(0))


@pytest.mark.parametrize(("fastaxis", "slowaxis"), AXES)
def test_offsets_of_amplifiers_and_columns_are_removed(fastaxis, slowaxis):
    subarray, pixeldq = stripe(fastaxis)
    readout = Readout(subarray, fastaxis, slowaxis, 4)
    rng = np.random.default_rng(3)
    offsets = rng.normal(0, 20, (2, 8))
    data = np.zeros((1, 2, *subarray.shape), np.float32)
    fast = np.arange(2048)
    for g in range(2):
        readout.to_detector(data[0, g])[:] += offsets[g][(fast // 512) * 2 + fast % 2]
    data[..., 8, 8] += 500
    corrected = subtract_reference_pixels(data, pixeldq, readout)
    expected = np.zeros_like(data)
    expected[..., 8, 8] = 500
    np.testing.assert_allclose(corrected, expected, atol=1e-4)


@pytest.mark.parametrize(("fastaxis", "slowaxis"), AXES)
def test_a_slow_drift_is_followed_by_the_side_pixels(fastaxis, slowaxis):
    # The whole slow direction, so that both sides are there; the detector's other rows are out of the subarray.
    shape = (64, 2048) if abs(fastaxis) == 1 else (2048, 64)
    y, x = (1001, 1) if abs(fastaxis) == 1 else (1, 1001)
    subarray = Subarray(x, y, shape[1], shape[0])
    readout = Readout(subarray, fastaxis, slowaxis, 4)
    drift = np.linspace(-5, 5, 64)
    data = np.zeros((1, 1, *shape), np.float32)
    readout.to_detector(data[0, 0])[:] += drift[:, None]
    corrected = subtract_reference_pixels(data, reference_flags(x, y, shape), readout)
    inner = readout.to_detector(corrected[0, 0])[6:-6]
    np.testing.assert_allclose(inner, 0, atol=1e-5)


def test_a_bad_reference_pixel_has_no_say():
    subarray, pixeldq = stripe(1)
    data = np.full((1, 1, *subarray.shape), 7, np.float32)
    data[..., 2, 1000] = 1e6
    pixeldq[2, 1000] |= DO_NOT_USE
    corrected = subtract_reference_pixels(data, pixeldq, Readout(subarray, 1, 2, 4))
    np.testing.assert_allclose(corrected[..., 4:, :], 0, atol=1e-5)


def test_an_outlier_is_clipped():
    subarray, pixeldq = stripe(1)
    data = np.full((1, 1, *subarray.shape), 7, np.float32) + np.float32(0.1) * (np.arange(2048) // 2 % 2)
    data[..., 2, 1000] = 1e4
    corrected = subtract_reference_pixels(data, pixeldq, Readout(subarray, 1, 2, 4), use_side_pixels=False)
    assert np.abs(corrected[0, 0, 8]).max() < 0.06


def test_a_subarray_with_one_output_is_levelled_by_all_its_reference_pixels():
    shape = (32, 40)
    pixeldq = reference_flags(2009, 1, shape)
    data = np.zeros((1, 1, *shape), np.float32)
    data[..., 0::2, :] += 3
    data[..., 1::2, :] -= 2
    readout = Readout(Subarray(2009, 1, 40, 32), -2, -1, 1)
    np.testing.assert_allclose(subtract_reference_pixels(data, pixeldq, readout), 0, atol=1e-6)


def test_without_reference_pixels_nothing_is_subtracted():
    data = np.ones((1, 1, 8, 8), np.float32)
    for noutputs in (1, 4):
        readout = Readout(Subarray(1001, 1001, 8, 8), 1, 2, noutputs)
        assert count_reference_pixels(np.zeros((8, 8), np.uint32), readout) == 0
        np.testing.assert_array_equal(subtract_reference_pixels(data, np.zeros((8, 8), np.uint32), readout), data)


def test_the_running_median_is_reflected_at_the_edge_of_the_detector():
    rng = np.random.default_rng(4)
    values = rng.normal(size=(2048, 4)).astype(np.float32)
    good = rng.random((2048, 4)) > 0.2
    median = np.full(2048, np.nan)
    _running_median(values, good, 0, 11, median)
    padded = np.pad(np.where(good, values, np.nan), ((5, 5), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 11, axis=0)
    np.testing.assert_allclose(median, np.nanmedian(windows, axis=(1, 2)), rtol=1e-6)


def test_axes_that_are_none_are_an_error():
    with pytest.raises(ValueError, match="FASTAXIS and SLOWAXIS"):
        Readout(Subarray(1, 1, 8, 8), 1, 1, 4)


def test_the_drift_of_a_miri_amplifier_since_the_first_group_is_removed():
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:1024, :1032]
    pixeldq = np.where((x < 4) | (x >= 1028), REFERENCE, np.uint32(0))
    first = rng.integers(9000, 11_000, (1024, 1032))
    drift = rng.normal(0, 30, (3, 2, 4))
    data = np.stack([first + (drift[g][y % 2, x % 4] if g else 0) for g in range(3)])[None].astype(np.float32)
    data[0, 1:, 500, 500] += 250
    corrected = subtract_mid_infrared_reference_pixels(data, pixeldq)
    expected = np.broadcast_to(first, data.shape).copy()
    expected[0, 1:, 500, 500] += 250
    np.testing.assert_allclose(corrected, expected, atol=2e-3)


def test_miri_groups_without_reference_pixels_of_an_amplifier_stay_as_they_are():
    pixeldq = np.zeros((1024, 1032), np.uint32)
    pixeldq[:, 0] = DO_NOT_USE
    data = np.ones((1, 2, 1024, 1032), np.float32)
    data[0, 1] += 5
    np.testing.assert_array_equal(subtract_mid_infrared_reference_pixels(data, pixeldq), data)


def test_a_part_of_a_miri_detector_is_an_error():
    with pytest.raises(ValueError, match="whole detector"):
        subtract_mid_infrared_reference_pixels(np.zeros((1, 2, 8, 8), np.float32), np.zeros((8, 8), np.uint32))


@pytest.mark.parametrize(("fastaxis", "slowaxis"), [(2, 1), (-1, 2)])
def test_kernels_of_sirs_take_out_a_drift_of_each_amplifier_of_its_own(fastaxis, slowaxis):
    whole = Subarray(1, 1, 2048, 2048)
    readout = Readout(whole, fastaxis, slowaxis, 4)
    drift = np.linspace(-20, 20, 2048)
    share = np.array([1.0, 0.5, -0.5, 1.0])
    data = np.zeros((1, 1, *whole.shape), np.float32)
    frame = readout.to_detector(data[0, 0])
    frame[:] = drift[:, None] * np.repeat(share, 512)
    frame[300, 1] = frame[900:902, :4] = 1e5
    # Flat spectra are kernels of one row: half of what either side says, times the share of the amplifier.
    flat = 0.5 * np.ones((4, 1025)) * share[:, None]
    kernels = prepare_side_kernels(flat, flat, 0.1, 3)
    np.testing.assert_allclose(kernels.left, 0.5 * share[:, None] * (np.arange(7) == 3), atol=1e-12)
    pixeldq = reference_flags(1, 1, whole.shape)
    corrected = subtract_reference_pixels(data, pixeldq, readout, odd_even_columns=False, sirs=kernels)
    # Rows of which a side has no usable pixel are corrected by the other only.
    left = np.delete(readout.to_detector(corrected[0, 0]), [900, 901], axis=0)[4:-4]
    np.testing.assert_allclose(left[:, 4:], 0, atol=2e-3)


def test_sirs_needs_a_whole_detector_and_enough_coefficients():
    subarray, pixeldq = stripe(1)
    kernels = prepare_side_kernels(np.ones((4, 1025)), np.ones((4, 1025)), 1.0, 30)
    with pytest.raises(ValueError, match="whole detector"):
        subtract_reference_pixels(
            np.zeros((1, 1, *subarray.shape), np.float32), pixeldq, Readout(subarray, 1, 2, 4), sirs=kernels
        )
    with pytest.raises(ValueError, match="more than 30 coefficients"):
        prepare_side_kernels(np.ones((4, 20)), np.ones((4, 20)), 1.0, 30)
