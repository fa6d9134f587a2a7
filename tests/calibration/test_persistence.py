"""Persistence in both forms: suspect pixels that are flagged, and trapped charge that is subtracted."""

import numpy as np
import pytest

from calibration import dq
from calibration.ramps.persistence import flag_persistence
from calibration.ramps.traps import Clocking, TrapFamilies, correct_persistence, release
from calibration.simulate.persistence import capture, released_signal

SATURATED, PERSISTENCE, DO_NOT_USE = (dq.GROUP[name] for name in ("SATURATED", "PERSISTENCE", "DO_NOT_USE"))
FAMILIES = TrapFamilies(
    np.array([180.0, 65.0, 50.0]), -1 / np.array([400.0, 60.0, 8.0]), np.array([120.0, 30.0, 5.0]),
    -1 / np.array([3000.0, 300.0, 40.0]),
)  # fmt: skip
GROUP_TIME, FRAME_TIME = 10.0, 10.0
CLOCKING = Clocking(GROUP_TIME, FRAME_TIME, FRAME_TIME)
SHAPE = (4, 5)
FULL = np.full(SHAPE, 60_000, np.float32)
DENSITY = np.random.default_rng(4).uniform(0.5, 1.5, SHAPE).astype(np.float32)


def test_a_saturated_pixel_stays_suspect_for_the_window_across_integrations():
    data = np.zeros((3, 3, 1, 1), np.float32)
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[0, 1:] = SATURATED
    flagged, until = flag_persistence(data, groupdq, np.array([0.0, 40, 80]), group_time=10.0, window=50.0)
    suspect = (flagged & PERSISTENCE) != 0
    # It saturates at 20 s and is suspect until 70 s.
    assert suspect[..., 0, 0].tolist() == [[False, True, True], [True, True, True], [False, False, False]]
    assert until.item() == 0


def test_what_an_exposure_leaves_is_carried_to_the_next():
    data = np.zeros((1, 2, 1, 2), np.float32)
    data[0, 1, 0, 0] = 500
    groupdq = np.zeros(data.shape, np.uint8)
    _, until = flag_persistence(data, groupdq, np.array([0.0]), 10.0, 100.0, signal_threshold=400)
    assert until.tolist() == [[120, 0]]
    flagged, _ = flag_persistence(data * 0, groupdq, np.array([90.0]), 10.0, 100.0, exclude=True, until=until)
    assert flagged[0, :, 0].tolist() == [[PERSISTENCE | DO_NOT_USE, 0], [PERSISTENCE | DO_NOT_USE, 0]]


def test_a_window_of_no_time_is_an_error():
    with pytest.raises(ValueError, match="above 0 s"):
        flag_persistence(np.zeros((1, 1, 1, 1), np.float32), np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1), 10.0, 0.0)


def test_the_groups_that_persistence_spoils_are_the_ones_flagged():
    """Light saturates a pixel in one exposure; in the next, after the window, its traps add no more than the noise."""
    window = 400.0
    families = TrapFamilies(np.array([0.0]), np.array([-1.0]), np.array([100.0]), np.array([-1 / 100.0]))
    bright = np.zeros((1, 5, *SHAPE), np.float32)
    groupdq = np.zeros(bright.shape, np.uint8)
    groupdq[0, 4, 1, 1] = SATURATED
    _, until = flag_persistence(bright, groupdq, np.zeros(1), GROUP_TIME, window)
    filled = np.zeros((1, *SHAPE))
    filled[0, 1, 1] = 100.0
    times = 60 + GROUP_TIME * np.arange(1, 61)
    signal = released_signal(filled, families, times - 50)
    flagged, _ = flag_persistence(signal[None].astype(np.float32), np.zeros((1, 60, *SHAPE), np.uint8), np.array([60.0]),
                                  GROUP_TIME, window, until=until)  # fmt: skip
    spoilt = np.diff(signal[:, 1, 1], prepend=0) > 0.2  # [DN per group]
    suspect = (flagged[0, :, 1, 1] & PERSISTENCE) != 0
    assert suspect[spoilt].all()
    assert not suspect[-1]
    assert np.count_nonzero(flagged) == suspect.sum()


def after_bright_exposure(rate):
    """The ramp of an exposure of 12 groups, and the traps that our model and the simulator have filled after it."""
    ngroups = 12
    ramp = (rate * (FRAME_TIME + GROUP_TIME * np.arange(1, ngroups + 1))[:, None, None])[None].astype(np.float32)
    _, filled, *_ = correct_persistence(
        ramp, np.zeros(ramp.shape, np.uint8), np.zeros((3, *SHAPE)), DENSITY, FULL, FAMILIES, CLOCKING
    )
    return filled, capture(rate, FULL, DENSITY, FAMILIES, FRAME_TIME + ngroups * GROUP_TIME)


def test_traps_fill_as_in_the_simulator():
    rate = np.linspace(5, 400, 20).reshape(SHAPE)
    filled, truth = after_bright_exposure(rate)
    np.testing.assert_allclose(filled, truth, rtol=1e-4)


def test_the_next_exposure_has_its_true_rate_again():
    rate = np.full(SHAPE, 400.0)
    rate[0, 0] = 0
    filled, truth = after_bright_exposure(rate)
    idle, faint = 90.0, 0.05  # [s], [DN/s]
    left = release(truth, FAMILIES, idle)
    rng = np.random.default_rng(9)
    spoilt, clean = np.empty((2, 10, *SHAPE)), np.empty((2, 10, *SHAPE))
    time = GROUP_TIME * np.arange(1, 11)
    for i in range(2):
        left = release(left, FAMILIES, FRAME_TIME)
        clean[i] = 1000 * i + faint * time[:, None, None] + rng.normal(0, 1e-3, (10, *SHAPE))
        spoilt[i] = clean[i] + released_signal(left, FAMILIES, time)
        left = release(left, FAMILIES, time[-1])
    corrected, after, largest, persistence = correct_persistence(
        spoilt.astype(np.float32), np.zeros(spoilt.shape, np.uint8), release(filled, FAMILIES, idle), DENSITY, FULL,
        FAMILIES, CLOCKING, wanted=True,
    )  # fmt: skip

    def rates(ramps):
        return (ramps[:, -1] - ramps[:, 0]) / (time[-1] - time[0])

    assert rates(spoilt)[0, 1, 1] > 3 * faint
    np.testing.assert_allclose(rates(corrected), faint, rtol=0.02)
    np.testing.assert_allclose(spoilt - corrected, persistence, atol=2e-4)
    np.testing.assert_allclose(largest, persistence[:, -1].max(axis=0), rtol=1e-6)
    # What this exposure captures itself is little: it is faint.
    np.testing.assert_allclose(after, left, rtol=1e-3, atol=1e-3)
    assert not np.any(corrected[:, :, 0, 0] - spoilt[:, :, 0, 0].astype(np.float32))


def test_a_saturated_pixel_fills_all_traps_in_the_end():
    ramp = np.full((1, 500, *SHAPE), 65_000, np.float32)
    flags = np.full(ramp.shape, SATURATED)
    _, filled, *_ = correct_persistence(ramp, flags, np.zeros((3, *SHAPE)), DENSITY, FULL, FAMILIES, CLOCKING)
    every = (FAMILIES.capture0 + FAMILIES.capture2)[:, None, None] * DENSITY
    np.testing.assert_allclose(filled, every, rtol=1e-4)


def test_a_pixel_that_fills_on_the_way_lies_between():
    rate = np.full(SHAPE, 1000.0)
    time = GROUP_TIME * np.arange(1, 13)
    ramp = np.minimum(rate * time[:, None, None], 61_000)[None].astype(np.float32)
    _, filled, *_ = correct_persistence(
        ramp, np.zeros(ramp.shape, np.uint8), np.zeros((3, *SHAPE)), DENSITY, FULL, FAMILIES, Clocking(GROUP_TIME, 0, 0)
    )
    # It is as full as a ramp that just reaches saturation, and the exponential traps go on filling for 6 groups.
    reached = capture(rate, FULL, DENSITY, FAMILIES, 60.0)
    every = (FAMILIES.capture0 + FAMILIES.capture2)[:, None, None] * DENSITY
    assert (filled > reached).all()
    assert (filled < every).all()


def test_a_particle_fills_traps_for_the_time_that_is_left():
    ramp = np.zeros((1, 10, *SHAPE), np.float32)
    ramp[0, 4:, 2, 2] = 6000
    flags = np.zeros(ramp.shape, np.uint8)
    flags[0, 4, 2, 2] = dq.GROUP["JUMP_DET"]
    _, filled, *_ = correct_persistence(ramp, flags, np.zeros((3, *SHAPE)), DENSITY, FULL, FAMILIES, CLOCKING)
    held = FAMILIES.capture0 * -np.expm1(FAMILIES.capture1 * 55.0) + FAMILIES.capture2
    np.testing.assert_allclose(filled[:, 2, 2], 2 * DENSITY[2, 2] * 0.1 * held, rtol=1e-6)
    assert np.count_nonzero(filled) == 3


def test_a_pixel_without_references_releases_but_captures_nothing():
    ramp = np.full((1, 3, *SHAPE), 30_000, np.float32) * np.arange(3, dtype=np.float32)[:, None, None]
    density, full = DENSITY.copy(), FULL.copy()
    density[0, 0], full[0, 1], full[0, 2] = np.nan, 0, np.nan
    before = np.ones((3, *SHAPE))
    corrected, filled, *_ = correct_persistence(
        ramp, np.zeros(ramp.shape, np.uint8), before, density, full, FAMILIES, CLOCKING
    )
    assert np.isfinite(corrected).all()
    np.testing.assert_allclose(filled[:, 0, :3], np.exp(FAMILIES.decay * 40)[:, None] * np.ones(3), rtol=1e-9)
    assert (filled[:, 1:] > 1).all()


def test_families_and_areas_must_agree():
    ramp = np.zeros((1, 2, *SHAPE), np.float32)
    flags = np.zeros(ramp.shape, np.uint8)
    with pytest.raises(ValueError, match="3 families"):
        correct_persistence(ramp, flags, np.zeros((2, *SHAPE)), DENSITY, FULL, FAMILIES, CLOCKING)
    with pytest.raises(ValueError, match="density must cover"):
        correct_persistence(ramp, flags, np.zeros((3, *SHAPE)), DENSITY[:2], FULL, FAMILIES, CLOCKING)
    with pytest.raises(ValueError, match="below 0"):
        TrapFamilies(np.ones(1), np.ones(1), np.ones(1), -np.ones(1))
    with pytest.raises(ValueError, match="before it"):
        release(np.zeros((3, *SHAPE)), FAMILIES, -10.0)
