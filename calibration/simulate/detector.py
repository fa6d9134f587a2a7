"""From photons to raw counts: the inverse of stage 1.

    photons and dark current  -> Poisson -> charge, particles -> capacitive coupling -> gain -> full well
    -> non-linearity -> bias, reset noise -> drifts of the amplifiers, 1/f noise, read noise -> average of frames -> 16 bits

Every frame is simulated, also those that the detector averages into a group or drops between groups. The full frame has four
amplifiers and reference pixels that see all drifts; a subarray has one amplifier, or four where it is as wide as the detector.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibration.jit import kernel
from calibration.ramps.traps import release
from calibration.simulate.cosmic_rays import cosmic_ray_charge
from calibration.simulate.large_events import snowballs
from calibration.simulate.persistence import Traps
from calibration.simulate.references import Detector

RESET_NOISE = 14.0  # [DN], differs from integration to integration
DRIFT = 4.0  # [DN], of an amplifier, from frame to frame
PARITY_DRIFT = 1.0  # [DN], of odd against even columns of an amplifier
PINK_NOISE = 1.5  # [DN], 1/f noise, one value per line read
TOP = 65_535  # [DN], largest number of the converter


#: A pixel that a particle hit: where it is, the first group that has the charge [e-], and how much of it that group has (a
#: hit in the middle of an averaged group is seen by its later frames only). All indices from 0.
HIT = np.dtype(
    [("integration", "i4"), ("group", "i4"), ("y", "i4"), ("x", "i4"), ("charge", "f4"), ("part", "f4")]
)  # fmt: skip
FAINTEST_HIT = 1.0  # [e-]


@dataclass(frozen=True)
class Readout:
    """How the detector is read: integrations, groups, frames averaged and dropped, seconds per frame.

    ``divisor`` is what the sum of the frames of a group is divided by on board, FRMDIVSR (0: their number).
    """

    nints: int
    ngroups: int
    nframes: int
    groupgap: int
    tframe: float
    divisor: int = 0

    @property
    def tgroup(self) -> float:
        """Seconds from group to group."""
        return (self.nframes + self.groupgap) * self.tframe

    @property
    def frames(self) -> int:
        """Frames from the first to the last of an integration."""
        return self.ngroups * self.nframes + (self.ngroups - 1) * self.groupgap


@dataclass(frozen=True)
class RawExposure:
    """What comes from the detector, and what particles did to it.

    Attributes
    ----------
    ramp : (nints, ngroups, ny, nx) uint16
        Raw ramps [DN], DMS orientation.
    zeroframe : (nints, ny, nx) uint16
        The first frame of each integration [DN].
    hits : (n,) HIT
        Pixels that were hit, in the order of integrations and groups.
    """

    ramp: np.ndarray
    zeroframe: np.ndarray
    hits: np.ndarray


def expose(
    rate: np.ndarray,
    detector: Detector,
    readout: Readout,
    rng: np.random.Generator,
    particles: float = 1.0,
    snowball_rate: float = 0.0,
    drifts: float = 1.0,
    traps: Traps | None = None,
) -> RawExposure:
    """Simulate an exposure.

    Parameters
    ----------
    rate : (ny, nx) float
        Electrons per second that light makes in each pixel.
    detector
        The pixels.
    readout
        Groups and frames.
    rng
        Source of all noise.
    particles
        How many times the cosmic rays at L2.
    snowball_rate
        Large events on a whole detector of 2048 x 2048 pixels [1/s].
    drifts
        How many times the drifts and the 1/f noise of the readout.
    traps
        That are filled from an exposure before, and release their charge in this one.

    Raises
    ------
    ValueError
        If ``rate`` covers another area than ``detector``, or is negative or not finite.
    """
    if rate.shape != detector.shape:
        raise ValueError(f"rate must cover the detector area, {detector.shape}, but has shape {rate.shape}")
    if not np.all(np.isfinite(rate)) or np.any(rate < 0):
        raise ValueError("rate must be finite and not negative; check the scene that made it")
    shape = detector.shape
    per_frame = (np.where(detector.reference, 0, rate) + detector.dark) * readout.tframe
    ramp = np.empty((readout.nints, readout.ngroups, *shape), np.uint16)
    zeroframe = np.empty((readout.nints, *shape), np.uint16)
    hits: list[np.ndarray] = []
    filled = None if traps is None else traps.filled
    for i in range(readout.nints):
        charge = np.zeros(shape, np.float32)
        if traps is not None:
            filled = release(filled, traps.families, readout.tframe)  # into the reset
        start = detector.bias + np.float32(RESET_NOISE) * rng.standard_normal(shape, dtype=np.float32)
        for g in range(readout.ngroups):
            total = np.zeros(shape, np.float32)
            dropped = readout.groupgap if g else 0
            for frame in range(dropped + readout.nframes):
                charge += rng.poisson(per_frame)
                if traps is not None:
                    left = release(filled, traps.families, readout.tframe)
                    charge += rng.poisson(np.where(detector.reference, 0, (filled - left).sum(axis=0) * detector.gain))
                    filled = left
                struck = np.where(detector.reference, 0, cosmic_ray_charge(shape, readout.tframe * particles, rng))
                if snowball_rate:
                    struck += np.where(detector.reference, 0, snowballs(shape, readout.tframe * snowball_rate, rng))
                charge += struck
                hits.append(list_hits(struck, i, g, min(1.0, 1 - (frame - dropped) / readout.nframes)))
                if frame < dropped:
                    continue
                sample = read(charge, detector, start, rng, drifts)
                total += sample
                if frame == g == 0:
                    zeroframe[i] = np.rint(sample)
            ramp[i, g] = np.clip(np.rint(total / (readout.divisor or readout.nframes)), 0, TOP)
    return RawExposure(ramp, zeroframe, join_hits(hits))


def list_hits(struck: np.ndarray, integration: int, group: int, part: float = 1.0) -> np.ndarray:
    """The pixels (n,) ``HIT`` with a charge in ``struck`` (ny, nx) [e-]."""
    y, x = np.nonzero(struck >= FAINTEST_HIT)
    found = np.empty(y.size, HIT)
    found["integration"], found["group"], found["part"] = integration, group, part
    found["y"], found["x"], found["charge"] = y, x, struck[y, x]
    return found


def join_hits(hits: Sequence[np.ndarray]) -> np.ndarray:
    """One list (n,) ``HIT`` of several."""
    return np.concatenate(hits) if hits else np.empty(0, HIT)


def couple(charge: np.ndarray, detector: Detector) -> np.ndarray:
    """What the pixels (ny, nx) float32 see of ``charge``, their own and that of their neighbours."""
    signal = np.empty(charge.shape, np.float32)
    _couple(charge, detector.ipc, detector.reference, signal)
    return signal


def read(
    charge: np.ndarray, detector: Detector, start: np.ndarray, rng: np.random.Generator, drifts: float = 1.0
) -> np.ndarray:
    """One frame (ny, nx) float32 [DN] of the accumulated ``charge`` [e-], clipped as the converter clips it."""
    signal = couple(charge, detector)
    signal /= detector.gain
    np.minimum(signal, detector.well, out=signal)
    measured = np.empty_like(signal)
    _bend(signal, detector.linearity, measured)
    measured += start
    measured += detector.read_noise * rng.standard_normal(charge.shape, dtype=np.float32)
    measured += np.float32(drifts) * line_noise(charge.shape, rng, detector.amplifiers, detector.sensor.fastaxis)
    return np.clip(measured, 0, TOP)


def line_noise(shape: tuple[int, int], rng: np.random.Generator, amplifiers: int, fastaxis: int) -> np.ndarray:
    """Drifts and 1/f noise of one frame (ny, nx) float32 [DN].

    An amplifier reads a band of pixels along the fast axis, of which the even and the odd ones ("columns" of the detector)
    drift apart; a line of them is read in one go and shares its 1/f noise. The fast axis of NIRCam is DMS x, that of NIRISS
    and FGS DMS y.
    """
    along_x = abs(fastaxis) == 1
    slow, fast = shape if along_x else shape[::-1]
    band = np.repeat(rng.normal(0.0, DRIFT, amplifiers), fast // amplifiers)
    parity = np.repeat(rng.normal(0.0, PARITY_DRIFT, amplifiers), fast // amplifiers)
    parity *= np.where(np.arange(fast) % 2, 1, -1)
    noise = pink_noise(slow, rng)[:, None] + (band + parity)[None, :]
    return (noise if along_x else noise.T).astype(np.float32)


def pink_noise(n: int, rng: np.random.Generator) -> np.ndarray:
    """``n`` values of 1/f noise with standard deviation ``PINK_NOISE`` [DN]."""
    frequency = np.fft.rfftfreq(n)
    frequency[0] = np.inf
    amplitude = 1.0 / np.sqrt(frequency)
    spectrum = amplitude * (rng.normal(size=frequency.size) + 1j * rng.normal(size=frequency.size))
    expected = np.sqrt(2 * np.sum(amplitude**2) * 2) / n
    return np.fft.irfft(spectrum, n) * PINK_NOISE / expected


def bend(linear: np.ndarray, coeffs: np.ndarray) -> np.ndarray:
    """The measured signal whose linearity polynomial gives ``linear`` (ny, nx) [DN]; ``coeffs`` (4, ny, nx)."""
    measured = np.empty(linear.shape, np.float32)
    _bend(np.asarray(linear, np.float32), coeffs, measured)
    return measured


# y = row, x = column
@kernel
def _bend(linear, coeffs, measured):
    ny, nx = linear.shape
    for y in range(ny):
        for x in range(nx):
            target = linear[y, x]
            c1, c2, c3 = coeffs[1, y, x], coeffs[2, y, x], coeffs[3, y, x]
            m = np.float64(target)
            for _ in range(4):
                value = m * (c1 + m * (c2 + m * c3)) - target
                m -= value / (c1 + m * (2.0 * c2 + m * 3.0 * c3))
            measured[y, x] = m


# y = row, x = column, v, u = their neighbours
@kernel
def _couple(charge, ipc, reference, signal):
    ny, nx = charge.shape
    for y in range(ny):
        for x in range(nx):
            if reference[y, x]:
                signal[y, x] = charge[y, x]
                continue
            total = 0.0
            for v in range(-1, 2):
                for u in range(-1, 2):
                    # Beyond the array the pixel stands in for its neighbour, so that flat light stays flat.
                    inside = 0 <= y + v < ny and 0 <= x + u < nx and not reference[y + v, x + u]
                    total += ipc[v + 1, u + 1] * (charge[y + v, x + u] if inside else charge[y, x])
            signal[y, x] = total
