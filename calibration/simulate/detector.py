"""From photons to raw counts: the inverse of stage 1.

    photons and dark current  -> Poisson -> charge, particles -> capacitive coupling -> gain -> full well
    -> non-linearity -> bias, reset noise -> drifts of the amplifiers, 1/f noise, read noise -> average of frames -> 16 bits

Every frame is simulated, also those that the detector averages into a group or drops between groups. The full frame has four
amplifiers and reference pixels that see all drifts; a subarray has one amplifier.
"""

from dataclasses import dataclass

import numpy as np

from calibration.jit import kernel
from calibration.simulate.cosmic_rays import cosmic_ray_charge
from calibration.simulate.references import FULL_SIZE, Detector

RESET_NOISE = 14.0  # [DN], differs from integration to integration
DRIFT = 4.0  # [DN], of an amplifier, from frame to frame
PARITY_DRIFT = 1.0  # [DN], of odd against even columns of an amplifier
PINK_NOISE = 1.5  # [DN], 1/f noise, one value per line read
TOP = 65_535  # [DN], largest number of the converter


@dataclass(frozen=True)
class Readout:
    """How the detector is read: integrations, groups, frames averaged and dropped, seconds per frame."""

    nints: int
    ngroups: int
    nframes: int
    groupgap: int
    tframe: float

    @property
    def tgroup(self) -> float:
        """Seconds from group to group."""
        return (self.nframes + self.groupgap) * self.tframe


def expose(rate: np.ndarray, detector: Detector, readout: Readout, rng: np.random.Generator) -> np.ndarray:
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

    Returns
    -------
    (nints, ngroups, ny, nx) uint16
        Raw ramps [DN], DMS orientation.

    Raises
    ------
    ValueError
        If ``rate`` covers another area than ``detector``, or is negative or not finite.
    """
    if rate.shape != detector.shape:
        raise ValueError(f"rate must cover the detector area, {detector.shape}, but has shape {rate.shape}")
    if not np.all(np.isfinite(rate)) or np.any(rate < 0):
        raise ValueError("rate must be finite and not negative; check the scene that made it")
    ny, nx = detector.shape
    per_frame = (np.where(detector.reference, 0, rate) + detector.dark) * readout.tframe
    ramp = np.empty((readout.nints, readout.ngroups, ny, nx), np.uint16)
    for i in range(readout.nints):
        charge = np.zeros((ny, nx), np.float32)
        start = detector.bias + np.float32(RESET_NOISE) * rng.standard_normal((ny, nx), dtype=np.float32)
        for g in range(readout.ngroups):
            total = np.zeros((ny, nx), np.float32)
            for frame in range(readout.nframes + (readout.groupgap if g else 0)):
                charge += rng.poisson(per_frame)
                charge += np.where(detector.reference, 0, cosmic_ray_charge((ny, nx), readout.tframe, rng))
                if frame < (readout.groupgap if g else 0):
                    continue
                total += read(charge, detector, start, rng)
            ramp[i, g] = np.clip(np.rint(total / readout.nframes), 0, TOP)
    return ramp


def read(charge: np.ndarray, detector: Detector, start: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One frame (ny, nx) float32 [DN] of the accumulated ``charge`` [e-], clipped as the converter clips it."""
    signal = np.empty(charge.shape, np.float32)
    _couple(charge, detector.ipc, detector.reference, signal)
    signal /= detector.gain
    np.minimum(signal, detector.well, out=signal)
    measured = np.empty_like(signal)
    _bend(signal, detector.linearity, measured)
    measured += start
    measured += detector.read_noise * rng.standard_normal(charge.shape, dtype=np.float32)
    measured += line_noise(charge.shape, rng)
    return np.clip(measured, 0, TOP)


def line_noise(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Drifts and 1/f noise of one frame (ny, nx) float32 [DN].

    The fast direction of the NIRISS readout is DMS y, the slow one DMS x: an amplifier is a band of rows, its odd and even
    columns are DMS rows, and a line read in one go is a DMS column.
    """
    ny, nx = shape
    amplifiers = 4 if ny == FULL_SIZE else 1
    band = np.repeat(rng.normal(0.0, DRIFT, amplifiers), ny // amplifiers)
    parity = np.repeat(rng.normal(0.0, PARITY_DRIFT, amplifiers), ny // amplifiers) * np.where(np.arange(ny) % 2, 1, -1)
    return ((band + parity)[:, None] + pink_noise(nx, rng)[None, :]).astype(np.float32)


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
