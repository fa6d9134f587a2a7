"""The mid-infrared imager: a Si:As detector, and what its readout does to a ramp.

    light and dark current -> Poisson -> charge, particles -> gain, pedestal -> full well
    -> switch charge decay after a bright integration, first and last frame -> non-linearity
    -> reset anomaly -> drifts of the amplifiers, interference, read noise -> 16 bits

Four amplifiers read neighbouring columns at the same time: column ``x`` belongs to amplifier ``x % 4``. The first and the
last four columns of the detector are reference pixels. After each integration the detector is reset row by row; the reset
spoils the last frame, and charge that its switches hold spoils the first frames of the next integration, the more the
brighter the pixel was. Numbers are those of the JWST documentation ("MIRI detector performance", "MIRI detector
subarrays") where it gives them; the patterns are invented.
"""

from dataclasses import dataclass

import numpy as np

from calibration import dq
from calibration.ramps.emicorr import Clock, read_phases
from calibration.simulate.cosmic_rays import cosmic_ray_charge
from calibration.simulate.detector import TOP, RawExposure, Readout, bend, join_hits, list_hits
from calibration.simulate.large_events import showers
from calibration.subarrays import Subarray

MEAN_GAIN = 3.1  # [e-/DN]
READ_NOISE = 4.2  # [DN], one read
PEDESTAL = 9_000.0  # [DN], level after a reset, linear
RESET_NOISE = 12.0  # [DN], differs from integration to integration
MEAN_DARK = 0.12  # [e-/s]
WELL = 58_000.0  # [DN], linear level at which a pixel is full
DRIFT = 3.0  # [DN], of the even or the odd rows of an amplifier, from frame to frame

RESET_ANOMALY = 25.0  # [DN], in the first group
RESET_DECAY = 2.5  # [groups]
RESET_LATER = 1.4  # factor in the integrations after the first
SETTLING = 6.0  # [DN], what the dark of the first integration rises by, beyond its rate
SETTLING_TIME = 12.0  # [s]
DECAY_FRACTION = 0.05  # part of the last signal that the switches hold
DECAY = 0.8  # [groups]
FIRST_FRAME = 0.05  # part of the signal that the first frame lacks
LAST_FRAME = 0.04  # part of the signal that the last frame lacks

#: Readout areas, each with the clocks from row to row and of a whole frame [10 us].
SUBARRAYS = {
    "FULL": (Subarray(1, 1, 1032, 1024), Clock(271, 277_504)),
    "BRIGHTSKY": (Subarray(457, 51, 512, 512), Clock(162, 86_528)),
    "SUB256": (Subarray(413, 51, 256, 256), Clock(96, 29_952)),
    "SUB128": (Subarray(1, 889, 136, 128), Clock(44, 11_904)),
    "SUB64": (Subarray(1, 779, 72, 64), Clock(28, 8_512)),
    "SLITLESSPRISM": (Subarray(1, 529, 72, 416), Clock(28, 15_904)),
}
DETECTOR = SUBARRAYS["FULL"][0]
REFERENCE_COLUMNS = 4  # at each side


@dataclass(frozen=True)
class MidInfraredDetector:
    """Properties of each pixel of an area of the detector.

    Parameters
    ----------
    area
        What is covered.
    reference : (ny, nx) bool
        Reference pixels: no light, no dark current.
    gain : (ny, nx) float32
        [e-/DN]
    read_noise : (ny, nx) float32
        Of one read [DN].
    pedestal : (ny, nx) float32
        Linear level after a reset [DN].
    dark : (ny, nx) float32
        [e-/s]
    linearity : (4, ny, nx) float32
        Coefficients of linear level = sum of c[i] * measured**i [DN].
    anomaly : (ny, nx) float32
        Reset anomaly of the first group, relative to ``RESET_ANOMALY``.
    dq : (ny, nx) uint32
        The bad-pixel mask.
    """

    area: Subarray
    reference: np.ndarray
    gain: np.ndarray
    read_noise: np.ndarray
    pedestal: np.ndarray
    dark: np.ndarray
    linearity: np.ndarray
    anomaly: np.ndarray
    dq: np.ndarray

    def cut(self, area: Subarray) -> "MidInfraredDetector":
        """The part that covers ``area`` of the whole detector."""
        y, x = (
            slice(area.ystart - 1, area.ystart - 1 + area.ysize),
            slice(area.xstart - 1, area.xstart - 1 + area.xsize),
        )
        parts = {name: value[..., y, x] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return MidInfraredDetector(area, **parts)


@dataclass(frozen=True)
class Interference:
    """A wave of one frequency [Hz] that the readout picks up; ``wave`` (n,) [DN] is one period of it, at the middles of
    its n-ths; ``phase`` that of the first read."""

    frequency: float
    wave: np.ndarray
    phase: float


def make_detector(rng: np.random.Generator) -> MidInfraredDetector:
    """The whole detector."""
    shape = DETECTOR.shape
    y, x = np.indices(shape, dtype=np.float32)
    reference = (x < REFERENCE_COLUMNS) | (x >= DETECTOR.xsize - REFERENCE_COLUMNS)

    def scatter(sigma: float) -> np.ndarray:
        return np.float32(sigma) * rng.standard_normal(shape, dtype=np.float32)

    u, v = x / 515.5 - 1, y / 511.5 - 1
    dead = ~reference & (rng.random(shape) < 1e-3)
    hot = ~reference & ~dead & (rng.random(shape) < 2e-3)
    dark = np.abs(MEAN_DARK * (1 + 0.2 * u + scatter(0.2)))
    dark[hot] = np.exp(rng.normal(2.0, 0.8, int(hot.sum())))
    dark[reference] = 0
    linearity = np.zeros((4, *shape), np.float32)
    linearity[1] = 1
    linearity[2] = np.where(reference, 0, 1.4e-6 * (1 + 0.05 * v + scatter(0.02)))
    linearity[3] = np.where(reference, 0, 8.0e-12 * (1 + scatter(0.02)))
    flags = np.zeros(shape, np.uint32)
    flags[dead] |= dq.PIXEL["DEAD"] | dq.PIXEL["DO_NOT_USE"]
    flags[hot] |= dq.PIXEL["HOT"]
    flags[reference] |= dq.PIXEL["REFERENCE_PIXEL"]
    return MidInfraredDetector(
        area=DETECTOR,
        reference=reference,
        gain=(MEAN_GAIN * (1 + scatter(0.005))).astype(np.float32),
        read_noise=np.maximum(READ_NOISE * (1 + scatter(0.05)), 0.5 * READ_NOISE).astype(np.float32),
        pedestal=(PEDESTAL + 300 * u * v + 40 * (x % 4) + scatter(150)).astype(np.float32),
        dark=dark.astype(np.float32),
        linearity=linearity,
        anomaly=np.where(reference, 0, 1 + 0.3 * v + scatter(0.05)).astype(np.float32),
        dq=flags,
    )


def reset_anomaly(detector: MidInfraredDetector, integration: int, group: int) -> np.ndarray:
    """What a reset leaves in a group (ny, nx) float32 [DN]; integrations and groups from 0."""
    height = RESET_ANOMALY * (1.0 if integration == 0 else RESET_LATER) * np.exp(-group / RESET_DECAY)
    return np.float32(height) * detector.anomaly


def settling(detector: MidInfraredDetector, integration: int, seconds: float) -> np.ndarray:
    """How far the first integration (0) has drifted ``seconds`` after its reset, (ny, nx) float32 [DN, linear]."""
    drift = SETTLING * (1 - np.exp(-seconds / SETTLING_TIME)) if integration == 0 else 0.0
    return np.where(detector.reference, np.float32(0), np.float32(drift))


def dark_signal(detector: MidInfraredDetector, integration: int, seconds: float) -> np.ndarray:
    """Mean dark signal (ny, nx) float32 [DN, linear] ``seconds`` after the reset; integrations from 0."""
    return detector.dark / detector.gain * np.float32(seconds) + settling(detector, integration, seconds)


def expose(
    rate: np.ndarray,
    detector: MidInfraredDetector,
    readout: Readout,
    rng: np.random.Generator,
    interference: tuple[Interference, Clock] | None = None,
    particles: float = 1.0,
    shower_rate: float = 0.0,
) -> RawExposure:
    """Simulate an exposure.

    Parameters
    ----------
    rate : (ny, nx) float
        Electrons per second that light makes in each pixel.
    detector
        The pixels.
    readout
        Integrations and groups, of one frame each.
    rng
        Source of all noise.
    interference
        A wave and the clock of the readout that picks it up.
    particles
        How many times the cosmic rays at L2.
    shower_rate
        Showers on the area [1/s].
    """
    shape = detector.reference.shape
    if rate.shape != shape:
        raise ValueError(f"rate must cover the detector area, {shape}, but has shape {rate.shape}")
    if not np.all(np.isfinite(rate)) or np.any(rate < 0):
        raise ValueError("rate must be finite and not negative; check the scene that made it")
    if (readout.nframes, readout.groupgap) != (1, 0):
        raise ValueError(
            f"the groups of MIRI are single frames, but {readout.nframes} frames and a gap of {readout.groupgap} were asked"
        )
    per_frame = np.where(detector.reference, 0, rate * readout.tframe + detector.dark * readout.tframe)
    ramp = np.empty((readout.nints, readout.ngroups, *shape), np.uint16)
    previous = np.zeros(shape, np.float32)
    hits: list[np.ndarray] = []
    for i in range(readout.nints):
        charge = np.zeros(shape, np.float32)
        start = detector.pedestal + np.float32(RESET_NOISE) * rng.standard_normal(shape, dtype=np.float32)
        for g in range(readout.ngroups):
            charge += rng.poisson(per_frame)
            struck = np.where(detector.reference, 0, cosmic_ray_charge(shape, readout.tframe * particles, rng))
            if shower_rate:
                struck += np.where(detector.reference, 0, showers(shape, readout.tframe * shower_rate, rng))
            charge += struck
            hits.append(list_hits(struck, i, g))
            signal = charge / detector.gain
            signal += settling(detector, i, (g + 1) * readout.tframe)
            level = start + signal + np.float32(DECAY_FRACTION * np.exp(-(g + 1) / DECAY)) * previous
            if g == 0:
                level -= np.float32(FIRST_FRAME) * signal
            if g == readout.ngroups - 1:
                level -= np.float32(LAST_FRAME) * signal
            measured = bend(np.minimum(level, np.float32(WELL)), detector.linearity)
            measured += reset_anomaly(detector, i, g)
            measured += detector.read_noise * rng.standard_normal(shape, dtype=np.float32)
            measured += amplifier_drift(detector.area, rng)
            if interference is not None:
                measured += _pickup(*interference, shape, i, g, readout.ngroups)
            ramp[i, g] = np.clip(np.rint(measured), 0, TOP)
        previous = signal
    return RawExposure(ramp, ramp[:, 0], join_hits(hits))


def reference_output(readout: Readout, rng: np.random.Generator) -> np.ndarray:
    """The fifth amplifier of the full frame, which reads no pixel: (nints, ngroups, 256, 1032) uint16 [DN].

    It has a value for every four pixels; the files lay them out as a quarter of the rows.
    """
    shape = (readout.nints, readout.ngroups, DETECTOR.ysize // 4, DETECTOR.xsize)
    return np.rint(PEDESTAL + READ_NOISE * rng.standard_normal(shape, dtype=np.float32)).astype(np.uint16)


def amplifier_drift(area: Subarray, rng: np.random.Generator) -> np.ndarray:
    """Offset (ny, nx) float32 [DN] of one frame: of even and odd rows of each of the four amplifiers."""
    offsets = rng.normal(0, DRIFT, (2, 4)).astype(np.float32)
    y, x = np.arange(area.ysize)[:, None] + area.ystart - 1, np.arange(area.xsize)[None, :] + area.xstart - 1
    return offsets[y % 2, x % 4]


def _pickup(
    interference: Interference, clock: Clock, shape: tuple[int, ...], integration: int, group: int, ngroups: int
) -> np.ndarray:
    phases = read_phases(shape, clock, interference.frequency, 1, integration, group, ngroups) + interference.phase
    middles = (np.arange(interference.wave.size) + 0.5) / interference.wave.size
    return np.repeat(np.interp(phases, middles, interference.wave, period=1).astype(np.float32), 4, axis=1)
