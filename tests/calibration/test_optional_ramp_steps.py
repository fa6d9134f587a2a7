"""The steps of stage 1 that are off by default: charge migration, persistence and 1/f noise."""

import numpy as np
import pytest

from calibration import dq
from calibration.ramps.charge_migration import flag_charge_migration
from calibration.ramps.flicker_noise import background_pixels, clean_flicker_noise
from calibration.ramps.persistence import flag_persistence

SATURATED, PERSISTENCE, DO_NOT_USE = (dq.GROUP[name] for name in ("SATURATED", "PERSISTENCE", "DO_NOT_USE"))
LOST = dq.GROUP["CHARGELOSS"] | DO_NOT_USE


def test_charge_is_lost_from_the_threshold_on_and_at_four_neighbours():
    data = np.zeros((1, 4, 3, 3), np.float32)
    data[0, 2:, 1, 1] = 30_000
    flagged = flag_charge_migration(data, np.zeros(data.shape, np.uint8), 25_000)
    assert not flagged[0, :2].any()
    for g in (2, 3):
        assert flagged[0, g].tolist() == [[0, LOST, 0], [LOST, LOST, LOST], [0, LOST, 0]]


def test_a_group_that_is_not_used_tells_nothing_of_lost_charge():
    data = np.full((1, 1, 1, 1), 30_000, np.float32)
    groupdq = np.full(data.shape, DO_NOT_USE, np.uint8)
    assert flag_charge_migration(data, groupdq, 25_000).item() == DO_NOT_USE


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


def striped_ramp(fast_axis):
    """A ramp with stripes as strong as the noise of a pixel, and the same without."""
    rng = np.random.default_rng(11)
    ny, nx = 64, 80
    noise = rng.normal(0, 1, (4, ny, 1) if fast_axis == 1 else (4, 1, nx))
    sky = 20 * np.arange(4)[:, None, None] * np.ones((ny, nx))
    clean = sky + rng.normal(0, 1, sky.shape)
    clean[:, 30:34, 30:34] += 500 * np.arange(4)[:, None, None]
    return (clean + noise).astype(np.float32)[None], clean


def stripes_left(data, clean):
    """Scatter of what the differences of groups have too much, their level apart: it goes with the background."""
    return (np.diff(data[0], axis=0) - np.diff(clean, axis=0)).std(axis=(1, 2)).max()


@pytest.mark.parametrize("method", ["median", "model", "none"])
@pytest.mark.parametrize("fast_axis", [0, 1])
def test_stripes_are_removed_and_sources_stay(fast_axis, method):
    data, clean = striped_ramp(fast_axis)
    mask = background_pixels((data[0, -1] - data[0, 0]) / 3, n_sigma=2.0)
    assert not mask[30:34, 30:34].any()
    cleaned = clean_flicker_noise(data, np.zeros(data.shape, np.uint8), mask, fast_axis, method)
    assert stripes_left(data, clean) > 1.2
    # The median of some 60 pixels of a noise of 1.4 DN, clipped at 2 sigma.
    assert stripes_left(cleaned, clean) < 0.5
    np.testing.assert_array_equal(cleaned[0, 0], data[0, 0])


def test_the_sky_stays_where_it_is():
    data, _ = striped_ramp(1)
    mask = background_pixels((data[0, -1] - data[0, 0]) / 3, n_sigma=2.0)
    cleaned = clean_flicker_noise(data, np.zeros(data.shape, np.uint8), mask, 1)
    assert np.median(np.diff(cleaned[0], axis=0)) == pytest.approx(20, abs=0.3)


def test_a_mask_of_another_area_is_an_error():
    data, _ = striped_ramp(1)
    with pytest.raises(ValueError, match="mask must have"):
        clean_flicker_noise(data, np.zeros(data.shape, np.uint8), np.ones((3, 3), bool), 1)
