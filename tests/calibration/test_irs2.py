"""IRS2: the correction against its definition and against noise that we put in; what replaces bad reference pixels."""

import numpy as np
import pytest

from calibration import dq
from calibration.interleaving import LINES, OUTPUTS, SECTION, WIDTH, reference_rows, science_rows
from calibration.ramps.irs2 import (
    LINE,
    PASS,
    TAPER,
    Weights,
    choose_sources,
    excluded_pairs,
    find_bad_rows,
    mean_levels,
    prepare_weights,
    subtract_interleaved_references,
)
from calibration.ramps.refpix import Readout
from calibration.simulate import detector as simulated
from calibration.simulate import irs2 as simulate
from calibration.simulate.references import SENSORS, make_area
from calibration.strips import threads
from calibration.subarrays import Subarray

ITSELF = np.tile(np.arange(WIDTH), (2, 1))


def readout(lines, detector="NRS1"):
    sensor = SENSORS[detector]
    return Readout(Subarray(1, 1, lines, WIDTH), sensor.fastaxis, sensor.slowaxis, 4)


def made_up_weights(lines, seed):
    """Any complex numbers, as columns of the file: also such whose spectra are not symmetric."""
    rng = np.random.default_rng(seed)
    total = LINE * lines
    smooth = 1 / (1 + np.minimum(np.arange(total), total - np.arange(total)) / 300)
    columns = smooth * np.exp(2j * np.pi * rng.random((2, 4, 1))) + 0.05 * rng.standard_normal((2, 4, total))
    return columns.astype(np.complex64)


def by_definition(data, pixels, output, keep):
    """The correction of (ngroups, lines, 3200) in the order of the detector, sample by sample as it was read."""
    lines = data.shape[1]
    total, scale = LINE * lines, lines / LINES
    at, t = [], 0
    for p in range(SECTION):
        # One sample is lost at each step out to a reference pixel, one at each step back.
        t += 1 if (p - 8) % 20 in (0, 4) and p >= 8 else 0
        at.append(t)
        t += 1
    at = np.array(at)
    is_reference = reference_rows()[:SECTION]
    mean = data.mean(axis=0, dtype=np.float64)
    above = (np.minimum(np.arange(total // 2), np.arange(total // 2)[::-1]) / scale - PASS) / TAPER
    kept = np.append(0.5 * (1 + np.cos(np.pi * np.clip(above, 0, 1))), 1)
    kept = np.concatenate([kept, kept[1:-1][::-1]])
    corrected = np.empty_like(data)
    for g, frame in enumerate((data - mean).astype(np.float32)):
        series = np.zeros((OUTPUTS, lines, LINE))
        for k in range(OUTPUTS):
            section = frame[:, k * SECTION : (k + 1) * SECTION]
            series[k][:, at] = section if k % 2 else section[:, ::-1]
            ends = np.r_[0:4, lines - 4 : lines]
            seen = series[k] != 0
            time = np.arange(total).reshape(lines, LINE) - (total - 1) / 2
            of_ends = seen & np.isin(np.arange(lines), ends)[:, None]
            line = np.polyfit(time[of_ends], series[k][of_ends], 1)
            series[k][seen] -= np.polyval(line, time[seen])
        flat = series[0].ravel()
        bell = np.sin(np.arange(1, 32) * np.pi / 32)
        around = np.array([np.roll(flat, -s) for s in range(-15, 16)])
        with np.errstate(invalid="ignore"):
            nearby = (bell[:, None] * around).sum(axis=0) / (bell[:, None] * (around != 0)).sum(axis=0)
        bridged = np.where(flat == 0, np.nan_to_num(nearby), flat)
        is_pixel = np.zeros(LINE, bool)
        is_pixel[at[~is_reference]] = True
        filled = bridged
        for _ in range(3):
            filled = np.where(np.tile(is_pixel, lines), bridged, np.fft.ifft(np.fft.fft(filled) * kept).real)
        series[0] = filled.reshape(lines, LINE)
        for k in range(1, OUTPUTS):
            reference = np.zeros((lines, LINE))
            for start in range(0, 32 * 22, 22):
                a, b, c, d = (series[k][:, start + 9 + n] for n in range(4))
                reference[:, start + 7 : start + 15] = np.stack([a, c, a, c, b, d, b, d], axis=1)
            spectrum = np.fft.fft(reference.ravel()) * pixels[k - 1] + np.fft.fft(filled) * output[k - 1]
            series[k] -= np.fft.ifft(spectrum).real.reshape(lines, LINE)
        for k in range(OUTPUTS):
            section = series[k][:, at]
            offset = mean[:, k * SECTION : (k + 1) * SECTION]
            section = section if k % 2 else section[:, ::-1]
            stays = np.ones(SECTION, bool) if k == 0 else ~is_reference
            corrected[g][:, k * SECTION : (k + 1) * SECTION] = section + np.where(stays, offset, 0)
    return corrected if keep else corrected[..., science_rows(1)]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("detector", ["NRS1", "NRS2"])
def test_agrees_with_the_definition(detector, keep):
    lines, rng = 16, np.random.default_rng(3)
    data = np.rint(rng.normal(0, 6, (3, lines, WIDTH)) + rng.normal(0, 300, (lines, WIDTH))).astype(np.float32)
    pixels, output = made_up_weights(lines, 4)
    expected = by_definition(data, pixels, output, keep)
    assert (data == data.mean(axis=0)).sum() > 100, "some samples must be exactly at their mean"
    turn = slice(None) if detector == "NRS1" else slice(None, None, -1)
    of_file = np.ascontiguousarray(np.swapaxes(data[:, turn, turn], 1, 2))
    weights = prepare_weights(pixels.view(np.float32), output.view(np.float32))
    assert weights.lines == lines
    corrected = subtract_interleaved_references(of_file, readout(lines, detector), weights, ITSELF, keep)
    np.testing.assert_allclose(np.swapaxes(corrected, 1, 2)[:, turn, turn], expected, atol=3e-4)


def noisy_exposure(detector, lines=64, ngroups=6, slope=100.0):
    """Ramps of equal light with correlated noise, bias subtracted; the noise; the weights."""
    rng, sensor = np.random.default_rng(5), SENSORS[detector]
    area = make_area(sensor, Subarray(1, 1, lines, 2048), 4, rng)
    frames = simulated.Readout(1, ngroups, 1, 0, 14.6)
    lit = np.ones(lines)
    lit[:4] = lit[-4:] = 0
    white = sensor.read_noise * rng.standard_normal((1, ngroups, 2048, lines))
    ramp = np.rint(area.bias + slope * np.arange(ngroups)[:, None, None] * lit + white).astype(np.uint16)
    raw, noise = simulate.interleave(ramp, area, frames, rng)
    data = raw - simulate.interleaved_bias(area)
    pixels, output = simulate.best_weights(area, lines, 1)
    return data, noise[0], prepare_weights(pixels.view(np.float32), output.view(np.float32))


@pytest.mark.parametrize("detector", ["NRS1", "NRS2"])
def test_correlated_noise_falls_and_the_signal_stays(detector):
    data, noise, weights = noisy_exposure(detector)
    fastaxis = SENSORS[detector].fastaxis
    sources = choose_sources(find_bad_rows(data, np.zeros(WIDTH, bool)), np.empty((0, 2), int), fastaxis)

    def left(weights, sources):
        corrected = subtract_interleaved_references(data[0], readout(64, detector), weights, sources)
        removed = data[0][:, science_rows(fastaxis)] - corrected
        # The mean over the groups is set aside: noise that all of them have stays.
        return (noise - noise.mean(axis=0) - removed).std(), corrected

    before = (noise - noise.mean(axis=0)).std()
    after, corrected = left(weights, sources)
    assert before / after > 3.3
    # The steps of a ramp in a pixel are its light; their mean is off by the noise that is left, which lines share.
    steps = np.diff(corrected, axis=0)[..., 4:-4]
    np.testing.assert_allclose(steps.mean(axis=(0, 1, 2)), 100, atol=0.2)
    np.testing.assert_allclose(np.median(steps.mean(axis=(0, 2))), 100, atol=0.2)
    nothing = np.zeros_like(weights.output)
    assert left(Weights(weights.pixels, nothing), sources)[0] > 1.05 * after, "the reference output has its part"
    assert left(Weights(nothing, weights.output), sources)[0] > 1.5 * after, "the reference pixels have theirs"
    assert left(weights, ITSELF)[0] > 1.005 * after, "bad reference pixels must not be used"


def test_threads_change_nothing():
    data, _, weights = noisy_exposure("NRS2")
    alone = subtract_interleaved_references(data[0], readout(64, "NRS2"), weights, ITSELF)
    with threads(3):
        together = subtract_interleaved_references(data[0], readout(64, "NRS2"), weights, ITSELF)
    np.testing.assert_array_equal(alone, together)


def test_one_group_has_no_noise_that_can_be_told_from_signal():
    data, _, weights = noisy_exposure("NRS1", ngroups=1)
    corrected = subtract_interleaved_references(data[0], readout(64), weights, ITSELF)
    np.testing.assert_array_equal(corrected, data[0][:, science_rows(2)])


@pytest.mark.parametrize("detector", ["NRS1", "NRS2"])
def test_bad_reference_pixels_are_found_in_any_integration(detector):
    data, _, _ = noisy_exposure(detector)
    wild = simulate.bad_rows(SENSORS[detector].fastaxis)
    known = np.zeros(WIDTH, bool)
    known[wild[:2]] = True
    both = np.concatenate([data, data])
    both[0, :, wild[2:]] = data[0, :, [r - 40 for r in wild[2:]]]
    bad = find_bad_rows(both, known, clip=5.0)
    assert bad[wild].all()
    assert not (bad & ~reference_rows()).any()
    assert bad.sum() <= wild.size + 4
    np.testing.assert_array_equal(
        find_bad_rows(both[:1], known, clip=5.0)[wild], [True, True, False, False, False, False]
    )


def test_a_bad_reference_pixel_is_replaced_by_the_nearest_of_its_kind():
    bad = np.zeros(WIDTH, bool)
    first = SECTION + 8  # of the visits of the first amplifier
    bad[[first + 100, first + 101]] = True  # one pixel, both reads
    bad[[first, first + 620]] = True  # the first and the last visit: one neighbour
    bad[[first + 200 + n for n in (-20, 0, 20)]] = True  # three visits
    bad[[first + 302 + n for n in (-20, 0, 20)] + [first + 300]] = True  # and the other parity
    bad[4] = True  # not a reference pixel
    sources = choose_sources(bad, np.empty((0, 2), int), 2)
    expected = {
        first + 100: (first + 80, first + 120), first + 101: (first + 81, first + 121), first: (first + 20,) * 2,
        first + 620: (first + 600,) * 2, first + 200: (first + 202,) * 2, first + 180: (first + 160,) * 2,
        first + 302: (-1, -1), first + 300: (first + 280, first + 320), 4: (4, 4),
    }  # fmt: skip
    for row, pair in expected.items():
        assert tuple(sources[:, row]) == pair, row
    unchanged = np.flatnonzero(~bad)
    np.testing.assert_array_equal(sources[:, unchanged], [unchanged, unchanged])


@pytest.mark.parametrize("fastaxis", [2, -2])
def test_the_table_of_the_reference_file_names_pixels_of_the_detector(fastaxis):
    table = np.array(simulate.excluded_table())
    pairs = excluded_pairs(*table.T, fastaxis)
    np.testing.assert_array_equal(pairs, [simulate.bad_rows(fastaxis)[2:4]])
    sources = choose_sources(np.zeros(WIDTH, bool), pairs, fastaxis)
    changed = np.flatnonzero((sources != ITSELF).any(axis=0))
    np.testing.assert_array_equal(changed, np.sort(pairs[0]))
    # In the second amplifier the odd pixels are those of the second pair.
    np.testing.assert_array_equal(excluded_pairs(*np.array([[2, 1, 1]]).T, 2), [[2 * SECTION + 10, 2 * SECTION + 11]])


@pytest.mark.parametrize("detector", ["NRS1", "NRS2"])
@pytest.mark.parametrize("odd_even", [True, False])
def test_offsets_of_outputs_are_seen_by_the_lines_at_both_ends(detector, odd_even):
    lines, offsets = 12, np.arange(10.0).reshape(OUTPUTS, 2)
    column = np.arange(WIDTH)
    parity = np.where(reference_rows(), column % 4 >= 2, column % 2).astype(int)
    expected = offsets[column // SECTION, parity] if odd_even else offsets.mean(axis=1)[column // SECTION]
    side = readout(lines, detector)
    data = np.zeros((1, WIDTH, lines), np.float32)
    turned = side.to_detector(data[0])
    turned[:4] = turned[-4:] = offsets[column // SECTION, parity]
    turned[4:-4] = 1e4
    pixeldq = np.zeros((WIDTH, lines), np.uint32)
    turned[1, 700] = 1e4
    side.to_detector(pixeldq)[1, 700] = dq.PIXEL["DO_NOT_USE"]
    levels = mean_levels(data, pixeldq, side, odd_even)
    atol = 1e-6 if odd_even else 1e-3
    np.testing.assert_allclose(levels[0], expected if detector == "NRS1" else expected[::-1], atol=atol)


def test_an_output_without_reference_pixels_has_no_offset():
    data = np.full((1, WIDTH, 12), 5, np.float32)
    pixeldq = np.zeros((WIDTH, 12), np.uint32)
    # Those of one parity are enough: both are corrected, or none.
    row = np.arange(WIDTH)
    odd = np.where(reference_rows(), row % 4 < 2, row % 2 == 0)
    pixeldq[(row // SECTION == 1) & odd] = dq.PIXEL["DO_NOT_USE"]
    levels = mean_levels(data, pixeldq, readout(12))[0]
    assert not levels[SECTION : 2 * SECTION].any()
    assert (levels[:SECTION] == 5).all()


def test_errors_say_what_is_wrong():
    weights = prepare_weights(*(table.view(np.float32) for table in made_up_weights(16, 1)))
    data = np.zeros((2, WIDTH, 16), np.float32)
    with pytest.raises(ValueError, match="must have 3200 rows"):
        subtract_interleaved_references(data[:, :2048], readout(16), weights, ITSELF)
    with pytest.raises(ValueError, match="for 8 lines, as the data, but are for 16"):
        subtract_interleaved_references(data[..., :8], readout(8), weights, ITSELF)
    with pytest.raises(ValueError, match="fast axis of an IRS2 frame must be y"):
        subtract_interleaved_references(data, Readout(Subarray(1, 1, 16, WIDTH), 1, 2, 4), weights, ITSELF)
    with pytest.raises(ValueError, match="for a whole frame 2916352"):
        prepare_weights(np.zeros((4, 100), np.float32), np.zeros((4, 100), np.float32))
