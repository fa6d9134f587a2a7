"""The simulated readout of MIRI does what it says."""

import numpy as np
import pytest

from calibration.simulate.detector import Readout
from calibration.simulate.miri import (
    DETECTOR,
    DRIFT,
    PEDESTAL,
    SUBARRAYS,
    Interference,
    amplifier_drift,
    dark_signal,
    expose,
    make_detector,
    reference_output,
    reset_anomaly,
)
from calibration.subarrays import Subarray

AREA, CLOCK = SUBARRAYS["SUB64"]


@pytest.fixture(scope="module")
def detector():
    return make_detector(np.random.default_rng(1))


@pytest.mark.parametrize("name", SUBARRAYS)
def test_the_clocks_of_a_subarray_make_its_frame_time(name):
    area, clock = SUBARRAYS[name]
    # Frames take what the documentation says: rows that are read, and rows that are skipped.
    assert abs(clock.frame(area.ysize) - clock.reset) <= 0.004 * clock.reset


def test_the_edges_of_the_detector_are_reference_pixels(detector):
    assert detector.reference.shape == DETECTOR.shape == (1024, 1032)
    assert np.flatnonzero(detector.reference.all(axis=0)).tolist() == [0, 1, 2, 3, 1028, 1029, 1030, 1031]
    assert not detector.reference[:, 4:-4].any()


def test_a_ramp_rises_by_what_light_makes(detector):
    part = detector.cut(AREA)
    rate = np.where(part.reference, 0, 1000.0)
    ramp = expose(rate, part, Readout(1, 12, 1, 0, 0.085), np.random.default_rng(2)).ramp
    assert ramp.dtype == np.uint16
    middle = np.median((ramp[0, 9].astype(float) - ramp[0, 5])[:, 4:])
    # The response bends: at 9300 DN it is 2.7 % below the linear one. The reset anomaly falls by 2.7 DN meanwhile.
    assert middle == pytest.approx(1000 * 4 * 0.085 / 3.1 / 1.027 - 2.7, abs=2.5)
    np.testing.assert_allclose(np.median(ramp[0, 0][:, :4]), PEDESTAL, rtol=0.05)


def test_the_last_frame_and_the_later_integrations_are_spoilt(detector):
    part = detector.cut(AREA)
    rate = np.where(part.reference, 0, 60_000.0)
    ramp = expose(rate, part, Readout(2, 8, 1, 0, 0.085), np.random.default_rng(3)).ramp.astype(float)
    steps = np.median(np.diff(ramp, axis=1)[:, :, :, 4:], axis=(2, 3))
    assert np.all(steps[:, -1] < 0.8 * steps[:, -2])
    first, later = ramp[:, 0, :, 4:]
    assert np.median(later - first) > 0.004 * np.median(ramp[0, -2, :, 4:] - first)


def test_the_first_integration_differs_in_anomaly_and_dark(detector):
    part = detector.cut(AREA)
    assert np.all(np.abs(reset_anomaly(part, 1, 0)[:, 4:]) >= np.abs(reset_anomaly(part, 0, 0)[:, 4:]))
    assert not reset_anomaly(part, 0, 0)[:, :4].any()
    assert np.all(dark_signal(part, 0, 20.0)[:, 4:] > dark_signal(part, 1, 20.0)[:, 4:])
    np.testing.assert_array_equal(dark_signal(part, 1, 20.0), dark_signal(part, 2, 20.0))


def test_drift_is_that_of_amplifiers_and_rows():
    drift = amplifier_drift(Subarray(1, 1, 16, 8), np.random.default_rng(4))
    assert len(np.unique(drift)) == 8
    np.testing.assert_array_equal(drift[:6, :12], drift[2:, 4:])
    assert np.abs(drift).max() < 5 * DRIFT
    shifted = amplifier_drift(Subarray(3, 2, 16, 8), np.random.default_rng(4))
    np.testing.assert_array_equal(shifted[:5, :8], drift[1:6, 2:10])


def test_the_reference_output_has_a_value_for_every_four_pixels():
    output = reference_output(Readout(2, 3, 1, 0, 2.775), np.random.default_rng(7))
    assert output.shape == (2, 3, 256, 1032)
    assert output.dtype == np.uint16
    assert output.mean() == pytest.approx(PEDESTAL, abs=0.1)


def test_interference_is_the_same_for_the_four_amplifiers(detector):
    part = detector.cut(AREA)
    readout, rate = Readout(1, 3, 1, 0, 0.085), np.zeros(part.reference.shape)
    wave = Interference(390.625, 20 * np.sin(2 * np.pi * (np.arange(64) + 0.5) / 64), 0.2)
    quiet = expose(rate, part, readout, np.random.default_rng(5)).ramp
    loud = expose(rate, part, readout, np.random.default_rng(5), (wave, CLOCK)).ramp
    added = (loud.astype(float) - quiet)[0]
    assert np.std(added) == pytest.approx(20 / np.sqrt(2), rel=0.02)
    assert np.abs(np.diff(added.reshape(3, 64, 18, 4), axis=-1)).max() <= 1


@pytest.mark.parametrize(("rate", "readout", "message"), [
    (np.zeros((3, 3)), Readout(1, 3, 1, 0, 0.1), "must cover the detector area"),
    (np.full((64, 72), -1.0), Readout(1, 3, 1, 0, 0.1), "not negative"),
    (np.zeros((64, 72)), Readout(1, 3, 4, 0, 0.1), "single frames"),
])  # fmt: skip
def test_what_cannot_be_is_an_error(detector, rate, readout, message):
    with pytest.raises(ValueError, match=message):
        expose(rate, detector.cut(AREA), readout, np.random.default_rng(6))
