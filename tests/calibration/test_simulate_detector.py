"""The simulated detector: what it does to light, and how noisy it is."""

import dataclasses

import numpy as np
import pytest

from calibration.simulate import cosmic_rays
from calibration.simulate.cosmic_rays import cosmic_ray_charge
from calibration.simulate.detector import DRIFT, PINK_NOISE, Readout, bend, expose, line_noise, pink_noise
from calibration.simulate.references import IPC_NEIGHBOUR, Detector, deconvolution_kernel, make_detector

RAPID = Readout(nints=1, ngroups=5, nframes=1, groupgap=0, tframe=10.0)


def quiet(detector: Detector, **changes) -> Detector:
    """The detector without dark current, read noise and bad pixels."""
    shape = detector.shape
    plain = {
        "efficiency": np.ones(shape, np.float32),
        "dark": np.zeros(shape, np.float32),
        "read_noise": np.zeros(shape, np.float32),
        "gain": np.full(shape, 2.0, np.float32),
    }
    return dataclasses.replace(detector, **(plain | changes))


@pytest.fixture
def without_particles(monkeypatch):
    monkeypatch.setattr(cosmic_rays, "RATE", 0.0)


@pytest.fixture(scope="module")
def detector():
    return make_detector(128, np.random.default_rng(11))


def test_the_measured_signal_is_that_whose_polynomial_gives_the_linear_one(detector):
    linear = np.random.default_rng(2).uniform(-50, 50_000, detector.shape).astype(np.float32)
    measured = bend(linear, detector.linearity).astype(float)
    c = detector.linearity.astype(float)
    corrected = c[0] + measured * (c[1] + measured * (c[2] + measured * c[3]))
    np.testing.assert_allclose(corrected, linear, atol=0.02, rtol=1e-6)
    assert np.all(measured[linear > 40_000] < 0.97 * linear[linear > 40_000])


def test_a_ramp_rises_by_the_light_that_falls_in(detector, without_particles):
    straight = np.zeros_like(detector.linearity)
    straight[1] = 1
    ramp = expose(
        np.full(detector.shape, 100.0), quiet(detector, linearity=straight), RAPID, np.random.default_rng(4)
    ).ramp
    steps = np.diff(ramp[0].astype(float), axis=0).mean(axis=(1, 2))
    # 100 e-/s for 10 s at 2 e-/DN; the drift of the one amplifier is common to all pixels.
    np.testing.assert_allclose(steps, 500.0, atol=6 * DRIFT)
    assert steps.mean() == pytest.approx(500.0, abs=2 * DRIFT)


def test_the_noise_of_the_light_is_poisson(detector, without_particles):
    straight = np.zeros_like(detector.linearity)
    straight[1] = 1
    alone = np.zeros((3, 3))
    alone[1, 1] = 1
    still = quiet(detector, linearity=straight, ipc=alone)
    ramp = expose(np.full(detector.shape, 400.0), still, RAPID, np.random.default_rng(5)).ramp.astype(float)
    step = ramp[0, 1] - ramp[0, 0]
    # Rows and columns share drifts and 1/f noise: take them out before looking at the scatter.
    step -= step.mean(axis=0, keepdims=True)
    step -= step.mean(axis=1, keepdims=True)
    electrons = 400.0 * RAPID.tgroup
    expected = electrons / 2.0**2 + 2 / 12  # two roundings to whole numbers
    assert step.var() == pytest.approx(expected, rel=0.04)


def test_the_read_noise_is_that_of_the_detector(detector, without_particles):
    noisy = quiet(detector, read_noise=np.full(detector.shape, 7.0, np.float32))
    ramp = expose(np.zeros(detector.shape), noisy, RAPID, np.random.default_rng(6)).ramp.astype(float)
    step = ramp[0, 3] - ramp[0, 2]
    step -= step.mean(axis=0, keepdims=True)
    step -= step.mean(axis=1, keepdims=True)
    assert step.std() == pytest.approx(7.0 * np.sqrt(2), rel=0.03)


def test_averaging_frames_lowers_the_read_noise(detector, without_particles):
    noisy = quiet(detector, read_noise=np.full(detector.shape, 12.0, np.float32))
    averaged = Readout(1, 2, 4, 0, 10.0)
    ramp = expose(np.zeros(detector.shape), noisy, averaged, np.random.default_rng(7)).ramp.astype(float)
    step = ramp[0, 1] - ramp[0, 0]
    step -= step.mean(axis=0, keepdims=True)
    step -= step.mean(axis=1, keepdims=True)
    assert step.std() == pytest.approx(12.0 * np.sqrt(2 / 4), rel=0.03)


def test_dropped_frames_still_gather_light(detector, without_particles):
    still = quiet(detector)
    gapped = Readout(1, 2, 1, 3, 10.0)
    assert gapped.tgroup == 40.0
    ramp = expose(np.full(detector.shape, 50.0), still, gapped, np.random.default_rng(8)).ramp.astype(float)
    assert (ramp[0, 1] - ramp[0, 0]).mean() == pytest.approx(50 * 40 / 2.0, abs=5 * DRIFT)


def test_a_full_pixel_stays_below_the_top_and_stops_rising(detector, without_particles):
    ramp = expose(np.full(detector.shape, 2e4), quiet(detector), RAPID, np.random.default_rng(9)).ramp.astype(float)
    assert ramp.max() <= 65_535
    rise = np.diff(ramp[0, :, 5:-5, 5:-5].mean(axis=(1, 2)))
    assert abs(rise[-1]) < 8 * DRIFT < 10_000 < ramp[0, 0].mean()


def test_coupling_gives_each_neighbour_its_part_and_keeps_the_sum(detector, without_particles):
    straight = np.zeros_like(detector.linearity)
    straight[1] = 1
    rate = np.zeros(detector.shape)
    rate[60, 70] = 2e3
    runs = [
        expose(rate, quiet(detector, linearity=straight), RAPID, np.random.default_rng(10)).ramp,
        expose(np.zeros_like(rate), quiet(detector, linearity=straight), RAPID, np.random.default_rng(10)).ramp,
    ]
    # The generator runs on differently after the bright pixel, so compare with a tolerance of the drifts.
    lit, dark = (run.astype(float)[0, -1] - run.astype(float)[0, 0] for run in runs)
    signal = 2e3 * 40 / 2.0
    excess = lit - dark
    excess -= np.median(excess)
    assert excess[59, 70] == pytest.approx(IPC_NEIGHBOUR * signal, abs=8 * PINK_NOISE + 10)
    assert excess[58:63, 68:73].sum() == pytest.approx(signal, rel=0.03)


def test_the_kernel_of_the_reference_undoes_the_coupling():
    ipc = np.zeros((3, 3))
    ipc[0, 1] = ipc[1, 0] = ipc[1, 2] = ipc[2, 1] = IPC_NEIGHBOUR
    ipc[1, 1] = 1 - ipc.sum()
    undo = deconvolution_kernel(ipc)
    both = np.zeros((7, 7))
    for v in range(3):
        for u in range(3):
            both[v : v + 5, u : u + 5] += ipc[v, u] * undo
    expected = np.zeros((7, 7))
    expected[3, 3] = 1
    np.testing.assert_allclose(both, expected, atol=2e-5)


def test_the_reference_pixels_of_the_full_frame_see_drifts_but_no_light(without_particles):
    whole = make_detector(2048, np.random.default_rng(12))
    assert whole.reference.sum() == 2048**2 - 2040**2
    ramp = expose(np.full(whole.shape, 60.0), quiet(whole), Readout(1, 2, 1, 0, 10.0), np.random.default_rng(13)).ramp
    step = ramp[0, 1].astype(float) - ramp[0, 0]
    for k in range(4):
        band = slice(512 * k, 512 * (k + 1))
        unlit, lit = step[band][whole.reference[band]], step[band, 4:-4][~whole.reference[band, 4:-4]]
        assert lit.mean() - unlit.mean() == pytest.approx(300.0, abs=3.0)


def test_amplifiers_drift_apart_and_lines_share_their_noise():
    noise = line_noise((2048, 2048), np.random.default_rng(14), 4, -2).astype(float)
    bands = noise.reshape(4, 512, 2048).mean(axis=(1, 2))
    assert np.ptp(bands) > 0.5
    flat = noise - noise.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(flat, np.broadcast_to(flat[0], flat.shape), atol=1e-3)


def test_pink_noise_has_its_size_and_more_power_at_low_frequencies():
    rng = np.random.default_rng(15)
    series = np.array([pink_noise(512, rng) for _ in range(200)])
    assert series.std() == pytest.approx(PINK_NOISE, rel=0.05)
    power = (np.abs(np.fft.rfft(series)) ** 2).mean(axis=0)
    slope = np.polyfit(np.log(np.arange(2, 200)), np.log(power[2:200]), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.1)


def test_particles_hit_at_the_rate_of_their_flux():
    charge = cosmic_ray_charge((512, 512), 500.0, np.random.default_rng(16))
    hits = cosmic_rays.RATE * cosmic_rays.PIXEL**2 * 512**2 * 500
    struck = np.count_nonzero(charge)
    assert hits < struck < 6 * hits
    assert np.median(charge[charge > 0]) > 500


def test_one_seed_gives_one_detector_and_one_ramp(detector):
    again = make_detector(128, np.random.default_rng(11))
    for field in dataclasses.fields(Detector):
        np.testing.assert_array_equal(getattr(detector, field.name), getattr(again, field.name))
    rate = np.full(detector.shape, 3.0)
    first, second = (expose(rate, detector, RAPID, np.random.default_rng(17)).ramp for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_light_of_the_wrong_shape_or_value_is_refused(detector):
    rng = np.random.default_rng(18)
    with pytest.raises(ValueError, match="must cover the detector area"):
        expose(np.zeros((5, 5)), detector, RAPID, rng)
    with pytest.raises(ValueError, match="finite and not negative"):
        expose(np.full(detector.shape, -1.0), detector, RAPID, rng)
    with pytest.raises(ValueError, match="even number of pixels"):
        make_detector(2050, rng)
