"""Jump: the kernel against its definition in plain NumPy, pixel by pixel; and hits that we put in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import dq
from calibration.medians import sort_first
from calibration.ramps.jump import Aftermath, Detection, flag_bad_gain, flag_jumps
from calibration.strips import threads
from infra.products.stored import store

JUMP, SATURATED, DO_NOT_USE = (dq.GROUP[name] for name in ("JUMP_DET", "SATURATED", "DO_NOT_USE"))
ALONE = Detection(flag_neighbours=False)


def by_definition(data, groupdq, readnoise, detection):
    """Jumps of one pixel (nints, ngroups) of gain 1 and one frame per group."""
    bad = (groupdq & (SATURATED | DO_NOT_USE)) != 0
    signal = np.where(bad, np.nan, data.astype(np.float64))
    differences = np.diff(signal, axis=1)
    jumps = np.zeros(differences.shape, bool)
    if data.shape[1] - 1 >= detection.single_pass_differences:
        median = np.nanmedian(differences)
        sigma = np.sqrt(abs(median) + readnoise**2)
        return np.abs(differences - median) / sigma > detection.threshold
    size = np.abs(differences)
    thresholds = {2: detection.three_group_threshold, 3: detection.four_group_threshold}
    while (usable := np.count_nonzero(~np.isnan(size))) >= 2:
        rest = size[~np.isnan(size)]
        if usable >= 4:
            rest = rest[rest != rest.max()]
        if rest.size == 0:
            break
        median = rest.min() if usable == 2 else np.median(rest)
        ratio = np.abs(size - median) / np.sqrt(median + readnoise**2)
        if not np.nanmax(ratio) > thresholds.get(usable, detection.threshold):
            break
        worst = ratio == np.nanmax(ratio)
        jumps |= worst
        size = np.where(worst, np.nan, size)
    return jumps


def flag(data, groupdq=None, readnoise=10.0, **options):
    groupdq = np.zeros(data.shape, np.uint8) if groupdq is None else groupdq
    before = groupdq.copy()
    ones = np.ones(data.shape[-2:], np.float32)
    flagged, hits = flag_jumps(data, groupdq, ones, ones * np.float32(readnoise), 1, **options)
    np.testing.assert_array_equal(groupdq, before, err_msg="the input must stay as it was")
    return flagged, hits


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), nints=st.sampled_from([1, 2, 9]), ngroups=st.integers(3, 14))
def test_agrees_with_the_definition(seed, nints, ngroups):
    rng = np.random.default_rng(seed)
    shape = (nints, ngroups, 5, 6)
    steps = rng.normal(20, 12, shape) + np.where(rng.random(shape) < 0.1, rng.exponential(100, shape), 0)
    data = np.floor(np.cumsum(steps, axis=1)).astype(np.float32)
    groupdq = np.where(rng.random(shape) < 0.1, rng.choice([SATURATED, DO_NOT_USE], shape), 0).astype(np.uint8)
    flagged, hits = flag(data, groupdq, detection=ALONE)
    found = (flagged[:, 1:] & JUMP) != 0
    for y, x in np.ndindex(5, 6):
        expected = by_definition(data[..., y, x], groupdq[..., y, x], 10.0, ALONE)
        np.testing.assert_array_equal(found[..., y, x], expected)
    assert hits == found.sum()
    np.testing.assert_array_equal(flagged & ~JUMP, groupdq)


def test_hits_that_we_put_in_are_found_and_few_others():
    rng = np.random.default_rng(6)
    shape, gain, readnoise = (1, 10, 200, 200), 1.6, 11.0
    electrons = np.cumsum(rng.poisson(30, shape).astype(float), axis=1)
    hit = rng.random(shape[2:]) < 0.05
    group = rng.integers(1, 10, shape[2:])
    electrons += np.where(hit & (np.arange(10)[:, None, None] >= group), 250, 0)
    data = (electrons / gain + rng.normal(0, readnoise / np.sqrt(2), shape)).astype(np.float32)
    everywhere = np.ones(shape[2:], np.float32)
    flagged, _ = flag_jumps(
        data, np.zeros(shape, np.uint8), everywhere * np.float32(gain), everywhere * np.float32(readnoise), 1, ALONE
    )
    at_hit = np.take_along_axis(flagged[0], group[None], axis=0)[0] & JUMP != 0
    assert at_hit[hit].mean() >= 0.999
    false = np.count_nonzero(flagged & JUMP) - np.count_nonzero(at_hit[hit])
    assert false / flagged.size < 3e-4  # Two tails beyond 4 sigma are 6e-5; the median of few differences scatters.


def test_four_neighbours_are_flagged_unless_they_are_saturated():
    data = np.zeros((1, 5, 3, 3), np.float32)
    data[0, 2:, 1, 1] = 500
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[0, 2:, 0, 1] = SATURATED
    flagged, hits = flag(data, groupdq)
    assert hits == 1
    assert flagged[0, 2].tolist() == [[0, SATURATED, 0], [JUMP, JUMP, JUMP], [0, JUMP, 0]]
    assert not flagged[0, [0, 1, 3, 4]][:, 1:].any()


@pytest.mark.parametrize("height", [60, 20_000])
def test_neighbours_of_a_small_or_a_huge_jump_are_spared(height):
    data = np.zeros((1, 5, 3, 3), np.float32)
    data[0, 2:, 1, 1] = height
    assert np.count_nonzero(flag(data)[0]) == 1


def test_a_large_jump_spoils_the_groups_after_it():
    data = np.zeros((1, 8, 1, 2), np.float32)
    data[0, 3:, 0, 0] = 900
    data[0, 3:, 0, 1] = 100
    flagged, _ = flag(data, aftermaths=(Aftermath(500, 2), Aftermath(800, 1)), detection=ALONE)
    assert (flagged[0, :, 0, 0] != 0).tolist() == [False] * 3 + [True] * 3 + [False] * 2
    assert (flagged[0, :, 0, 1] != 0).tolist() == [False] * 3 + [True] + [False] * 4


def test_with_many_integrations_each_difference_is_compared_with_itself():
    rng = np.random.default_rng(7)
    # A ramp that bends: its second difference is the odd one in every integration, and no jump.
    data = (np.array([0, 50, 900, 950]) + rng.normal(0, 3, (120, 4))).astype(np.float32).reshape(120, 4, 1, 1)
    data[60, 1:] += 300
    flagged, _ = flag(data, detection=ALONE)
    assert flagged[60, 1, 0, 0] == JUMP
    assert np.count_nonzero(flagged[:, 2]) < 4


def test_all_differences_of_an_exposure_can_be_clipped_together():
    rng = np.random.default_rng(7)
    data = np.cumsum(rng.normal(50, 3, (20, 26, 1, 1)), axis=1).astype(np.float32)
    data[:, 13:] += 300  # the same in all integrations: found only where all differences are compared
    together = Detection(flag_neighbours=False, same_group_only=False)
    flagged, hits = flag(data, detection=together)
    assert (flagged[:, 13] & JUMP != 0).all()
    assert 20 <= hits <= 24
    assert flag(data[:16].copy(), detection=Detection(sigma_clip_integrations=16, flag_neighbours=False))[1] < 4


def test_with_fewer_groups_than_asked_for_there_are_no_jumps():
    data = np.zeros((1, 5, 1, 1), np.float32)
    data[0, 2:] = 500
    assert flag(data, detection=Detection(fewest_groups=5))[1] == 1
    assert flag(data, detection=Detection(fewest_groups=6))[1] == 0


def test_it_does_not_matter_how_the_rows_are_cut():
    rng = np.random.default_rng(17)
    shape = (2, 6, 23, 7)
    data = np.cumsum(rng.normal(20, 12, shape) + 300 * (rng.random(shape) < 0.05), axis=1).astype(np.float32)
    groupdq = np.where(rng.random(shape) < 0.05, SATURATED, np.uint8(0))
    options = {"aftermaths": (Aftermath(200, 1), Aftermath(280, 2))}
    expected, hits = flag(data, groupdq, **options)
    assert hits > 20
    with threads(3):
        flagged, again = flag(data, groupdq, **options)
    np.testing.assert_array_equal(flagged, expected)
    ones = np.ones(shape[2:], np.float32)
    on_disk = store(shape, np.float32, 5), store(shape, np.uint8, 5)
    on_disk[0][:], on_disk[1][:] = data, groupdq
    flagged, from_disk = flag_jumps(*on_disk, ones, 10 * ones, 1, **options)
    np.testing.assert_array_equal(flagged[:], expected)
    assert again == from_disk == hits


@pytest.mark.parametrize("n", [0, 1, 24, 25, 80, 256, 300])
def test_a_sort_sorts(n):
    values = np.random.default_rng(n).integers(0, 50, n + 2).astype(np.float32)
    expected = [*np.sort(values[:n]), *values[n:]]
    sort_first(values, n)
    assert values.tolist() == expected


def test_an_infinite_sample_hides_no_hit():
    data = np.zeros((1, 8, 1, 1), np.float32)
    data[0, 3:] = 500
    data[0, 7] = np.inf
    assert flag(data)[0][0, 3, 0, 0] == JUMP


def test_fewer_than_three_usable_groups_tell_nothing():
    data = np.zeros((1, 4, 2, 2), np.float32)
    data[0, 1:] = 1e4
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[0, 2:] = DO_NOT_USE
    flagged, hits = flag(data, groupdq)
    assert hits == 0
    np.testing.assert_array_equal(flagged, groupdq)


def test_a_pixel_without_gain_is_never_a_jump_and_says_so():
    data = np.zeros((1, 5, 1, 3), np.float32)
    data[0, 2:] = 500
    gain = np.array([[np.nan, -1, 0]], np.float32)
    flagged, hits = flag_jumps(data, np.zeros(data.shape, np.uint8), gain, np.ones((1, 3), np.float32), 1)
    assert hits == 0
    assert not flagged.any()
    bad = dq.PIXEL["NO_GAIN_VALUE"] | dq.PIXEL["DO_NOT_USE"]
    assert flag_bad_gain(np.zeros((1, 3), np.uint32), gain).tolist() == [[bad] * 3]


def test_a_reference_of_another_area_is_an_error():
    data = np.zeros((1, 4, 2, 2), np.float32)
    with pytest.raises(ValueError, match="gain must cover"):
        flag_jumps(data, np.zeros(data.shape, np.uint8), np.ones((3, 3), np.float32), np.ones((2, 2), np.float32), 1)
