"""1/f noise: what was put in is taken out, by either method, and light stays."""

import numpy as np
import pytest

from calibration import dq
from calibration.ramps import flicker_noise, fourier_noise
from calibration.ramps.flicker_noise import (
    Model,
    background_pixels,
    choose_parameters,
    clean_images,
    clean_ramps,
    fill_flat,
    find_noise,
    light_of,
    scene_of_integrations,
)
from calibration.ramps.known_sources import soss_traces
from calibration.simulate.flicker import flicker_noise as make_noise

WHITE = 1.0  # [DN], noise of a pixel
RED = 2.0  # [DN]


def ramp_of(fast_axis, ngroups=4, shape=(256, 64), seed=11):
    """A ramp with 1/f noise and a star, and the same without the noise."""
    rng = np.random.default_rng(seed)
    sky = 20 * np.arange(ngroups)[:, None, None] * np.ones(shape)
    clean = sky + rng.normal(0, WHITE, sky.shape)
    clean[:, 30:34, 30:34] += 500 * np.arange(ngroups)[:, None, None]
    noise = np.stack([make_noise(shape, fast_axis, RED, rng) for _ in range(ngroups)])
    return (clean + noise).astype(np.float32)[None], clean[None]


def noise_left(data, clean):
    """Scatter of what the differences of groups have too much."""
    return (np.diff(data, axis=1) - np.diff(clean, axis=1)).std(axis=(2, 3)).max()


@pytest.mark.parametrize("method", ["median", "fft"])
@pytest.mark.parametrize("background", ["median", "smooth", "none"])
@pytest.mark.parametrize(("fast_axis", "shape"), [(0, (64, 256)), (1, (256, 64))])
def test_noise_is_removed_and_light_stays(fast_axis, shape, background, method):
    data, clean = ramp_of(fast_axis, shape=shape)
    mask = background_pixels((data[0, -1] - data[0, 0]) / 3, n_sigma=2.0)
    assert not mask[30:34, 30:34].any()
    before = data.copy()
    model = Model(method, fast_axis, background, flipped=fast_axis == 0)
    cleaned = clean_ramps(data, np.zeros(data.shape, np.uint8), mask, model)
    assert noise_left(data, clean) > 2.7
    # What varies within a line, of the time of 64 pixels, is beyond both methods.
    assert noise_left(cleaned, clean) < 0.72 * noise_left(data, clean)
    if background != "none":
        star = np.diff(cleaned, axis=1)[0, :, 30:34, 30:34] - np.diff(clean, axis=1)[0, :, 30:34, 30:34]
        assert abs(star.mean()) < 1.5
        assert np.median(np.diff(cleaned, axis=1)) == pytest.approx(20, abs=1.0)
    np.testing.assert_array_equal(cleaned[0, 0], data[0, 0])
    np.testing.assert_array_equal(data, before)


def test_amplifiers_have_noises_of_their_own_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(flicker_noise, "FULL_SIZE", 64)
    image = np.repeat(np.repeat([[1.0, 3.0, -2.0, 5.0]], 16, axis=1), 32, axis=0).astype(np.float32)
    mask = np.ones(image.shape, np.bool_)
    apart, _ = find_noise(image, mask, Model(background="none", by_amplifier=True))
    np.testing.assert_array_equal(apart, image)
    together, _ = find_noise(image, mask, Model(background="none"))
    np.testing.assert_array_equal(together, np.full(image.shape, 2.0))


def test_a_line_without_background_keeps_its_noise():
    image = np.ones((8, 16), np.float32)
    mask = np.ones(image.shape, np.bool_)
    mask[3] = False
    noise, _ = find_noise(image, mask, Model(background="none"))
    assert noise.sum(axis=1).tolist() == [16, 16, 16, 0, 16, 16, 16, 16]


def test_a_group_that_no_pixel_uses_is_left_as_it_is():
    data, _ = ramp_of(1)
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[0, -1] = dq.GROUP["DO_NOT_USE"]
    cleaned = clean_ramps(data, groupdq, np.ones(data.shape[-2:], np.bool_), Model())
    np.testing.assert_array_equal(cleaned[0, -1], data[0, -1])
    assert not np.array_equal(cleaned[0, -2], data[0, -2])


def test_jumps_have_no_say():
    data, _ = ramp_of(1)
    hit, groupdq = data.copy(), np.zeros(data.shape, np.uint8)
    hit[0, 2:, 100, :40] += 30
    groupdq[0, 2, 100, :40] = dq.GROUP["JUMP_DET"]
    mask = np.ones(data.shape[-2:], np.bool_)
    cleaned = clean_ramps(hit, groupdq, mask, Model(n_sigma=0))
    same = clean_ramps(data, groupdq, mask, Model(n_sigma=0))
    np.testing.assert_allclose(cleaned[0, 2, 100, :40] - same[0, 2, 100, :40], 30, atol=1e-3)


def test_a_pixel_without_value_stays_without():
    data, _ = ramp_of(1)
    data[0, 1, 5, 5] = np.nan
    cleaned = clean_ramps(data, np.zeros(data.shape, np.uint8), np.ones(data.shape[-2:], np.bool_), Model())
    assert np.isnan(cleaned[0, :, 5, 5]).tolist() == [False, True, True, True]
    assert np.isfinite(cleaned[0, :, 5, 6]).all()


def test_structure_of_the_flat_is_no_noise():
    rng = np.random.default_rng(3)
    flat = (1 + 0.1 * np.sin(np.arange(128)[:, None] / 3) * np.ones((1, 64))).astype(np.float32)
    image = (100 * flat + rng.normal(0, 0.1, flat.shape)).astype(np.float32)
    mask = np.ones(flat.shape, np.bool_)
    with_flat, _ = find_noise(image, mask, Model(), flat)
    without, _ = find_noise(image, mask, Model())
    assert np.abs(with_flat).max() < 0.1
    assert np.abs(without).max() > 5


def test_holes_of_the_flat_get_the_level_about_them():
    flat = np.tile(np.linspace(0.9, 1.1, 512, dtype=np.float32), (256, 1))
    holed = flat.copy()
    holed[5, 400], holed[70, 100] = 0, np.nan
    # It is the level of a box of 32 pixels and its neighbours: 0.012 to either side.
    np.testing.assert_allclose(fill_flat(holed), flat, atol=0.012)
    with pytest.raises(ValueError, match="no value at all"):
        fill_flat(np.zeros((3, 3), np.float32))


def test_the_scene_of_a_time_series_is_not_taken_for_noise():
    rng = np.random.default_rng(5)
    clean = rng.normal(0, WHITE, (9, 3, 128, 32))
    light = np.array([1, 1.02, 0.98, 1.01, 1.0, 0.99, 1.0, 1.01, 1.0])
    clean[:, :, 60:68] += 300 * np.arange(1, 4)[:, None, None] * light[:, None, None, None]
    noise = np.stack([make_noise((128, 32), 0, RED, rng) for _ in range(27)]).reshape(clean.shape)
    data = (clean + noise).astype(np.float32)
    rateints = (data[:, -1] - data[:, 0]) / 2
    source = np.zeros((128, 32), np.bool_)
    source[60:68] = True
    scene = scene_of_integrations(data, np.array([light_of(rate, source) for rate in rateints]))
    cleaned = clean_ramps(
        data, np.zeros(data.shape, np.uint8), ~source, Model(fast_axis=0, background="none"), scene=scene
    )
    assert (cleaned - clean).std() < 0.85 * noise.std()  # the scene has its share of the noise
    on_source = (cleaned - clean)[:, :, source].mean(axis=-1)
    assert np.abs(on_source).max() < 3
    with pytest.raises(ValueError, match="two or more"):
        scene_of_integrations(data[:1], np.ones(1))
    with pytest.raises(ValueError, match="no light"):
        scene_of_integrations(data, np.full(9, np.nan))


def test_images_are_cleaned_like_differences():
    data, _ = ramp_of(1)
    mask = background_pixels(data[0, 1] - data[0, 0], n_sigma=2.0)
    difference = data[:, 1] - data[:, 0]
    backgrounds = np.zeros_like(difference)
    cleaned = clean_images(difference, mask, Model(), backgrounds=backgrounds)
    ramp = clean_ramps(data, np.zeros(data.shape, np.uint8), mask, Model())
    np.testing.assert_allclose(cleaned, ramp[:, 1] - ramp[:, 0], atol=1e-4)
    assert np.ptp(backgrounds) == 0
    assert backgrounds[0, 0, 0] == pytest.approx(20, abs=1)
    np.testing.assert_array_equal(clean_images(difference[0], mask, Model()), cleaned[0])


def test_a_mask_of_another_area_is_an_error():
    data, _ = ramp_of(1)
    with pytest.raises(ValueError, match="mask must have"):
        clean_ramps(data, np.zeros(data.shape, np.uint8), np.ones((3, 3), bool), Model())


def test_the_scatter_may_come_from_a_histogram():
    rng = np.random.default_rng(8)
    rate = rng.normal(1.0, 0.1, (200, 200)).astype(np.float32)
    rate[:60] += rng.exponential(0.3, (60, 200)).astype(np.float32)
    by_histogram = background_pixels(rate, 2.0, by_histogram=True)
    # The tail of the sources draws the clipped level and scatter up, the peak of the histogram less so.
    assert 1.2 < rate[by_histogram].max() < 1.25
    assert rate[background_pixels(rate, 2.0)].max() > rate[by_histogram].max() + 0.01
    assert background_pixels(rate, 0.0).all()
    excluded = rate > 1.1
    assert not background_pixels(rate, 0.0, excluded=excluded)[excluded].any()


def by_definition(image, mask, weight, k, length, ticks):
    """The one-sided complex series, solved as it stands: the columns of a matrix, one by one."""
    basis = np.exp(2j * np.pi * ticks[:, None] * k / length)
    solution = np.linalg.lstsq(basis * weight[:, None], weight * image, rcond=None)[0]
    return solution


def test_the_fit_of_a_full_frame_agrees_with_its_definition(monkeypatch):
    rng = np.random.default_rng(2)
    image = rng.normal(0, 1, (24, 1024)).astype(np.float32)
    mask = rng.random(image.shape) < 0.7
    mask[7] = False
    monkeypatch.setattr(fourier_noise, "SMOOTHING", 1e-3)
    monkeypatch.setattr(fourier_noise, "OFF_CENTRE", 0)
    monkeypatch.setattr(fourier_noise, "_smooth", lambda coefficients: coefficients)
    found = fourier_noise.fit_full_frame(image, mask)
    assert not found[[0, 3, 7, 20, 23]].any()
    weight = fourier_noise._inverse_density(mask)
    gain = fourier_noise._low_pass(np.fft.rfftfreq(1024))
    k = np.flatnonzero(gain > 0)
    assert k.tolist() == [0, 1, 2, 3, 4]
    for y in (4, 12, 19):
        x = np.flatnonzero(mask[y])
        values = image[y, x].copy()
        middle = np.median(values)
        values[np.abs(values - middle) > 3 * 1.4826 * np.median(np.abs(values - middle))] = middle
        solution = by_definition(values, mask[y], weight[y, x], k, 1024, x) * gain[k]
        series = np.zeros(513, complex)
        series[k] = solution * 1024
        np.testing.assert_allclose(found[y], np.fft.irfft(series, 1024), atol=2e-5)


def test_the_fit_of_a_run_of_lines_agrees_with_its_definition():
    rng = np.random.default_rng(2)
    image = rng.normal(0, 1, (20, 32)).astype(np.float32)
    mask = rng.random(image.shape) < 0.8
    found = fourier_noise._fit_run(image, mask, (1061.0, 1211.0))
    length = 20 * 44
    ticks = (np.arange(20)[:, None] * 44 + np.arange(32))[mask]
    frequency = np.fft.rfftfreq(length, 1e-5)
    k = np.flatnonzero((frequency < 1211) | (frequency > 49_943))
    seen = np.zeros(length)
    seen[ticks] = 1
    place = np.arange(length)
    width = 1 / (4 * 2272e-5)
    distance = (ticks[:, None] - fourier_noise.OFF_CENTRE - place + length // 2) % length - length // 2
    density = (np.exp(-0.5 * (distance / width) ** 2) * seen).sum(axis=1) / width / np.sqrt(2 * np.pi)
    series = np.zeros(length // 2 + 1, complex)
    gain = np.where(frequency < 1061, 1.0, 0.5 * (1 + np.cos(np.pi * (frequency - 1061) / 150)))[k]
    gain[frequency[k] > 49_957] = 1
    series[k] = by_definition(image[mask], mask, 1 / density, k, length, ticks) * gain * length
    expected = np.fft.irfft(series, length).reshape(20, 44)[:, :32]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_lines_with_too_few_usable_pixels_are_not_fitted(caplog):
    rng = np.random.default_rng(2)
    image = rng.normal(5, 1, (400, 32)).astype(np.float32)
    mask = rng.random(image.shape) < 0.02
    assert not fourier_noise.fit_subarray(image, mask, (1061.0, 1211.0)).any()
    assert "too few usable pixels" in caplog.text
    assert not fourier_noise.fit_subarray(image, np.zeros(image.shape, np.bool_), (1061.0, 1211.0)).any()


@pytest.mark.parametrize(("step", "tilt", "crowded", "expected"), [
    (0.0, 0.0, False, ("median", False)),
    (0.0, 1e-3, False, ("smooth", False)),
    (0.3, 0.0, False, ("median", True)),
    (0.0, 1e-3, True, ("smooth", False)),
])  # fmt: skip
def test_parameters_suit_the_image(monkeypatch, step, tilt, crowded, expected):
    monkeypatch.setattr(flicker_noise, "FULL_SIZE", 256)
    rng = np.random.default_rng(7)
    image = 1 + rng.normal(0, 0.02, (256, 256))
    image += step * (np.arange(256)[:, None] // 64 % 2) + tilt * np.arange(256)[:, None]
    if crowded:
        image[rng.random(image.shape) < 0.15] += 10
    chosen = choose_parameters(image.astype(np.float32), 1, "NIRISS", None)
    assert (chosen["background"], chosen["by_amplifier"]) == expected


def test_traces_of_soss_are_where_the_wheel_turns_them():
    x = np.linspace(0, 2047, 300)
    straight = np.stack([x, np.full(300, 100.0)], axis=1)
    still = soss_traces([(straight, (1000.0, 100.0))], 0.0, "SUBSTRIP256", (256, 2048))
    assert np.flatnonzero(still[:, 5]).tolist() == list(range(84, 117))
    lower = soss_traces([(straight, (1000.0, 90.0))], 0.0, "SUBSTRIP96", (96, 2048))
    assert np.flatnonzero(lower[:, 5]).tolist() == list(range(74, 96))
    turned = soss_traces([(straight, (1000.0, 100.0))], 1.0, "SUBSTRIP256", (256, 2048))
    assert np.flatnonzero(turned[:, 1000]).tolist() == list(range(84, 117))
    # 500 columns on, 8.7 rows up.
    assert np.flatnonzero(turned[:, 1500])[[0, -1]].tolist() == [92, 125]
    steep = np.stack([x, 100 + x / 4], axis=1)
    edge = soss_traces([(steep, (0.0, 0.0))], 0.0, "SUBSTRIP256", (256, 2048))
    assert edge[239:, -1].all()
    assert not edge[:200, -1].any()
