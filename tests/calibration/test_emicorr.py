"""Interference that we put in is found and taken out."""

import numpy as np
import pytest

from calibration.ramps.emicorr import (
    Clock,
    _median,
    _tabulate,
    read_phases,
    remove_folded_interference,
    remove_interference,
)

CLOCK = Clock(28, 8_512)
FREQUENCY = 390.625
MIDDLES = (np.arange(64) + 0.5) / 64
WAVE = np.sin(2 * np.pi * MIDDLES) + 0.4 * np.cos(4 * np.pi * MIDDLES)


def ramps(height, start, nints=2, ngroups=6, shape=(64, 72), noise=1.0, clock=CLOCK, frequency=FREQUENCY):
    """Ramps with and without the wave of this height and phase at the first read."""
    rng = np.random.default_rng(4)
    slope = rng.uniform(5, 20, shape)
    clean = 9000 + slope * np.arange(ngroups)[:, None, None] + rng.normal(0, noise, (nints, ngroups, *shape))
    data = clean.copy()
    for i in range(nints):
        for g in range(ngroups):
            phase = read_phases(shape, clock, frequency, 1, i, g, ngroups) + start
            wave = np.sin(2 * np.pi * phase) + 0.4 * np.cos(4 * np.pi * phase)
            data[i, g] += np.repeat(height * wave, 4, axis=1)
    return data.astype(np.float32), clean


@pytest.mark.parametrize("separately", [False, True])
@pytest.mark.parametrize("start", [0.0, 0.123, 0.9985])
def test_the_wave_is_taken_out(separately, start):
    data, clean = ramps(5.0, start)
    before = data.copy()
    corrected, heights = remove_interference(
        data, np.zeros((64, 72), np.uint32), WAVE, FREQUENCY, CLOCK, separately=separately
    )
    # 9000 pixels of noise 1 DN tell height and phase to some 0.02 DN.
    np.testing.assert_allclose(heights, 5.0, atol=0.1)
    assert np.std(corrected - clean) < 0.1
    np.testing.assert_array_equal(data, before)


def test_height_is_relative_to_the_wave_that_was_given():
    data, clean = ramps(5.0, 0.3)
    corrected, heights = remove_interference(data, np.zeros((64, 72), np.uint32), WAVE / 50, FREQUENCY, CLOCK)
    np.testing.assert_allclose(heights, 250, rtol=0.02)
    assert np.std(corrected - clean) < 0.1


def test_without_interference_nothing_much_is_taken_out():
    data, _ = ramps(0.0, 0.0)
    corrected, heights = remove_interference(data, np.zeros((64, 72), np.uint32), WAVE, FREQUENCY, CLOCK)
    assert np.all(np.abs(heights) < 0.1)
    assert np.std(corrected - data) < 0.1


def test_flagged_and_bright_pixels_have_no_say():
    data, clean = ramps(5.0, 0.3)
    pixeldq = np.zeros((64, 72), np.uint32)
    rng = np.random.default_rng(5)
    flagged = rng.random((64, 72)) < 0.2
    pixeldq[flagged] = 2
    data[:, :, flagged] += rng.normal(0, 400, (2, 6, flagged.sum())).astype(np.float32)
    bright = ~flagged & (rng.random((64, 72)) < 0.1)
    data[:, :, bright] += (1000 * np.arange(6)[:, None] ** 1.5 * rng.random(bright.sum())).astype(np.float32)
    corrected, _ = remove_interference(data, pixeldq, WAVE, FREQUENCY, CLOCK)
    usual = ~flagged & ~bright
    assert np.std((corrected - clean)[:, :, usual]) < 0.1


def test_ramps_that_tell_nothing_stay_as_they_are(caplog):
    data, _ = ramps(5.0, 0.3)
    corrected, heights = remove_interference(data, np.ones((64, 72), np.uint32), WAVE, FREQUENCY, CLOCK)
    np.testing.assert_array_equal(corrected, data)
    assert not heights.any()
    assert "do not tell the phase" in caplog.text


def test_the_phase_runs_on_from_row_to_row_and_over_the_reset():
    phases = read_phases((64, 72), CLOCK, 250.0, 9, 0, 0, 3)
    # 250 Hz: 400 clocks. A row takes 28, a column of four pixels 9.
    np.testing.assert_allclose(phases[:2, :3], [[0, 9 / 400, 18 / 400], [28 / 400, 37 / 400, 46 / 400]], atol=1e-12)
    frame = 64 * 28 + 960 * 7
    assert read_phases((64, 72), CLOCK, 250.0, 9, 0, 1, 3)[0, 0] == pytest.approx(frame / 400 % 1)
    assert read_phases((64, 72), CLOCK, 250.0, 9, 1, 0, 3)[0, 0] == pytest.approx((3 * frame + 8512) / 400 % 1)


def test_the_table_of_the_wave_is_periodic_and_smooth():
    table = _tabulate(WAVE)
    phase = np.linspace(0, 1, table.size)
    assert table[0] == pytest.approx(table[-1])
    np.testing.assert_allclose(table, np.sin(2 * np.pi * phase) + 0.4 * np.cos(4 * np.pi * phase), atol=1e-4)


def test_two_groups_are_an_error():
    with pytest.raises(ValueError, match="3 groups or more"):
        remove_interference(np.zeros((1, 2, 4, 8), np.float32), np.zeros((4, 8), np.uint32), WAVE, FREQUENCY, CLOCK)


@pytest.mark.parametrize("sizes", [(1,), (2,), (5, 4), (3, 3, 1), (400, 333)])
def test_the_median_of_pieces_is_that_of_all(sizes):
    rng = np.random.default_rng(sum(sizes))
    pieces = [rng.exponential(3, (size, 2)).astype(np.float32).round(1) for size in sizes]
    assert _median(lambda: pieces) == np.median(np.concatenate(pieces))
    pieces[-1][0] = np.nan
    assert np.isnan(_median(lambda: pieces))


@pytest.mark.parametrize(("wave", "bound"), [(None, 0.6), (np.roll(WAVE, 20) / 7, 0.6)])
def test_a_wave_is_seen_by_folding(wave, bound):
    # A pixel sees this wave at 12 phases that differ; that of 390.625 Hz at four only, and its line is bent by it.
    data, clean = ramps(5.0, 0.123, ngroups=12, frequency=307.3)
    before = data.copy()
    corrected, seen = remove_folded_interference(data, 307.3, CLOCK, folded=2, wave=wave)
    assert seen.size == 162
    phase = (np.arange(162) + 0.5) / 162 + 0.123
    expected = 5 * (np.sin(2 * np.pi * phase) + 0.4 * np.cos(4 * np.pi * phase))
    np.testing.assert_allclose(seen, expected - np.median(expected), atol=1.0)
    # The wave is 3.9 DN; each of its bins is the mean of some 200 reads of 0.5 DN, on a line that was fitted to the wave, too.
    assert np.std(data - clean) > 3.7
    assert np.std(corrected - clean) < bound
    np.testing.assert_array_equal(data, before)


def test_a_known_wave_is_not_scaled_where_nobody_asks_for_it():
    data, clean = ramps(5.0, 0.3, ngroups=12)
    corrected, _ = remove_folded_interference(data, FREQUENCY, CLOCK, wave=WAVE, scaled=False, nbins=64)
    # A fifth of the wave is gone: it was given with the height 1.
    assert np.std(corrected - clean) == pytest.approx(0.8 * np.std(data - clean), rel=0.02)


def test_folding_needs_four_groups():
    with pytest.raises(ValueError, match="4 groups or more"):
        remove_folded_interference(np.zeros((1, 3, 4, 16), np.float32), FREQUENCY, CLOCK)
