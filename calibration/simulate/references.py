"""The near-infrared detectors: what the reference files say about them, made up from one seed.

All are HAWAII-2RG; sizes are about those of the JWST documentation ("detector performance" of each instrument), the patterns
are invented.
"""

from dataclasses import dataclass

import numpy as np

from calibration import dq
from calibration.subarrays import Subarray

REFERENCE_BORDER = 4  # [pixel], reference pixels at each edge of the full frame
FULL_SIZE = 2048  # [pixel]

MEAN_BIAS = 11_500.0  # [DN]
IPC_NEIGHBOUR = 0.0055  # part of the signal seen by each direct neighbour


@dataclass(frozen=True)
class Sensor:
    """What tells one detector from another.

    Parameters
    ----------
    gain
        [e-/DN]
    read_noise
        Of one read [DN].
    dark
        [e-/s]
    well
        Linear signal at which a pixel is full [DN].
    fastaxis, slowaxis
        As the keywords: 1 for x, 2 for y of the file, negative where the readout runs backwards.
    """

    gain: float
    read_noise: float
    dark: float
    well: float
    fastaxis: int
    slowaxis: int


#: By the names of the detectors.
SENSORS = {
    "NIS": Sensor(1.61, 6.5, 0.02, 51_000.0, -2, -1),
    "NRCA1": Sensor(2.05, 5.4, 0.002, 51_000.0, -1, 2),
    "NRCA2": Sensor(2.05, 5.4, 0.002, 51_000.0, 1, -2),
    "NRCA3": Sensor(2.05, 5.4, 0.002, 51_000.0, -1, 2),
    "NRCA4": Sensor(2.05, 5.4, 0.002, 51_000.0, 1, -2),
    "NRCB1": Sensor(2.05, 5.4, 0.002, 51_000.0, 1, -2),
    "NRCB2": Sensor(2.05, 5.4, 0.002, 51_000.0, -1, 2),
    "NRCB3": Sensor(2.05, 5.4, 0.002, 51_000.0, 1, -2),
    "NRCB4": Sensor(2.05, 5.4, 0.002, 51_000.0, -1, 2),
    "NRCALONG": Sensor(1.82, 5.2, 0.034, 45_800.0, -1, 2),
    "NRCBLONG": Sensor(1.82, 5.2, 0.034, 45_800.0, 1, -2),
    "GUIDER1": Sensor(1.9, 7.0, 0.02, 48_000.0, -2, -1),
    "GUIDER2": Sensor(1.9, 7.0, 0.02, 48_000.0, 2, -1),
    "NRS1": Sensor(1.02, 6.8, 0.009, 50_000.0, 2, 1),
    "NRS2": Sensor(1.14, 6.1, 0.006, 50_000.0, -2, -1),
}
MEAN_GAIN = SENSORS["NIS"].gain


@dataclass(frozen=True)
class Detector:
    """Properties of each pixel of one detector area, DMS orientation.

    Parameters
    ----------
    sensor
        What all its pixels have in common.
    origin
        Full-frame column and row of pixel (0, 0), zero-based.
    amplifiers
        How many read the area, each its own band along the fast axis.
    reference : (ny, nx) bool
        Reference pixels: no light, no dark current.
    efficiency : (ny, nx) float32
        Response relative to the mean, 0 for dead pixels.
    gain : (ny, nx) float32
        [e-/DN]
    read_noise : (ny, nx) float32
        Of one read [DN].
    bias : (ny, nx) float32
        [DN]
    dark : (ny, nx) float32
        [e-/s]
    linearity : (4, ny, nx) float32
        Coefficients of linear signal = sum of c[i] * measured**i [DN], bias removed.
    well : (ny, nx) float32
        Linear signal of a full pixel [DN].
    ipc : (3, 3) float64
        Part of a pixel's signal that each neighbour sees.
    dq : (ny, nx) uint32
        The bad-pixel mask.
    """

    sensor: Sensor
    origin: tuple[int, int]
    amplifiers: int
    reference: np.ndarray
    efficiency: np.ndarray
    gain: np.ndarray
    read_noise: np.ndarray
    bias: np.ndarray
    dark: np.ndarray
    linearity: np.ndarray
    well: np.ndarray
    ipc: np.ndarray
    dq: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)"""
        return self.reference.shape


def make_detector(size: int, rng: np.random.Generator) -> Detector:
    """A square area of ``size`` pixels about the centre of the NIRISS detector; the whole of it for 2048.

    Raises
    ------
    ValueError
        If the size is odd, below 64, or above 2048.
    """
    if not 64 <= size <= FULL_SIZE or size % 2:
        raise ValueError(f"size must be an even number of pixels from 64 to {FULL_SIZE}, not {size}")
    start = (FULL_SIZE - size) // 2 + 1
    return make_area(SENSORS["NIS"], Subarray(start, start, size, size), 4 if size == FULL_SIZE else 1, rng)


def make_area(sensor: Sensor, area: Subarray, amplifiers: int, rng: np.random.Generator) -> Detector:
    """An area of a detector, read by so many amplifiers."""
    shape = area.shape
    y, x = np.indices(shape, dtype=np.float32)
    y += np.float32(area.ystart - 1)
    x += np.float32(area.xstart - 1)
    edge = FULL_SIZE - REFERENCE_BORDER
    reference = (x < REFERENCE_BORDER) | (x >= edge) | (y < REFERENCE_BORDER) | (y >= edge)
    active = ~reference

    def scatter(sigma: float) -> np.ndarray:
        return np.float32(sigma) * rng.standard_normal(shape, dtype=np.float32)

    u, v = x / 1023.5 - 1, y / 1023.5 - 1
    efficiency = 1 + 0.03 * u - 0.02 * v + 0.025 * u * v - 0.03 * (u * u + v * v) + scatter(0.01)
    dead = active & (rng.random(shape, dtype=np.float32) < 4e-4)
    hot = active & (rng.random(shape, dtype=np.float32) < 2e-3) & ~dead
    efficiency[dead] = 0

    gain = (sensor.gain * (1 + 0.01 * u + scatter(0.003))).astype(np.float32)
    read_noise = np.maximum(sensor.read_noise * (1 + scatter(0.06)), 0.5 * sensor.read_noise).astype(np.float32)
    # One amplifier per 512 pixels of the fast axis.
    fast = x if abs(sensor.fastaxis) == 1 else y
    amplifier = (fast // 512).astype(int)
    bias = MEAN_BIAS + np.array([180.0, -60.0, 40.0, -150.0], np.float32)[amplifier]
    bias = (bias + 25.0 * (fast % 2) + 60.0 * u * u + scatter(110.0)).astype(np.float32)

    dark = np.abs(sensor.dark * (1 + 0.3 * v + scatter(0.25))).astype(np.float32)
    dark[hot] = np.exp(rng.normal(1.2, 0.9, int(hot.sum())))
    dark[reference] = 0

    linearity = np.zeros((4, *shape), np.float32)
    linearity[1] = 1
    linearity[2] = np.where(reference, 0, 1.1e-6 * (1 + 0.08 * u + scatter(0.02)))
    linearity[3] = np.where(reference, 0, 3.0e-12 * (1 + scatter(0.02)))
    well = (sensor.well * (1 - 0.02 * v + scatter(0.01))).astype(np.float32)

    ipc = np.zeros((3, 3))
    ipc[0, 1] = ipc[1, 0] = ipc[1, 2] = ipc[2, 1] = IPC_NEIGHBOUR
    ipc[1, 1] = 1 - ipc.sum()

    flags = np.zeros(shape, np.uint32)
    flags[dead] |= dq.PIXEL["DEAD"] | dq.PIXEL["DO_NOT_USE"]
    flags[hot] |= dq.PIXEL["HOT"]
    flags[dark > 6.0] |= dq.PIXEL["DO_NOT_USE"]
    flags[reference] |= dq.PIXEL["REFERENCE_PIXEL"]
    return Detector(
        sensor,
        (area.xstart - 1, area.ystart - 1),
        amplifiers,
        reference,
        efficiency.astype(np.float32),
        gain,
        read_noise,
        bias,
        dark,
        linearity,
        well,
        ipc,
        flags,
    )


def deconvolution_kernel(ipc: np.ndarray, size: int = 5) -> np.ndarray:
    """The kernel (size, size) that undoes ``ipc``: its inverse in Fourier space, cut and normalised."""
    grid = 32
    field = np.zeros((grid, grid))
    field[:3, :3] = ipc
    inverse = np.fft.ifft2(1 / np.fft.fft2(np.roll(field, (-1, -1), (0, 1)))).real
    half = size // 2
    cut = np.roll(inverse, (half, half), (0, 1))[:size, :size]
    return cut / cut.sum()
