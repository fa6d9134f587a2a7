"""The detector: what the reference files say about it, made up from one seed.

Sizes are those of a NIRISS HAWAII-2RG (JWST documentation, "NIRISS detector performance"); the patterns are invented.
"""

from dataclasses import dataclass

import numpy as np

from calibration import dq

REFERENCE_BORDER = 4  # [pixel], reference pixels at each edge of the full frame
FULL_SIZE = 2048  # [pixel]

MEAN_GAIN = 1.61  # [e-/DN]
READ_NOISE = 6.5  # [DN], one read
MEAN_BIAS = 11_500.0  # [DN]
MEAN_DARK = 0.02  # [e-/s]
WELL = 51_000.0  # [DN], linear signal at which a pixel is full
IPC_NEIGHBOUR = 0.0055  # part of the signal seen by each direct neighbour


@dataclass(frozen=True)
class Detector:
    """Properties of each pixel of one detector area, DMS orientation.

    Parameters
    ----------
    origin
        Full-frame column and row of pixel (0, 0), zero-based.
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

    origin: tuple[int, int]
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
    """A square area of ``size`` pixels about the centre of the detector; the whole of it for 2048.

    Raises
    ------
    ValueError
        If the size is odd, below 64, or above 2048.
    """
    if not 64 <= size <= FULL_SIZE or size % 2:
        raise ValueError(f"size must be an even number of pixels from 64 to {FULL_SIZE}, not {size}")
    start = (FULL_SIZE - size) // 2
    shape = (size, size)
    y, x = np.indices(shape, dtype=np.float32) + np.float32(start)
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

    gain = (MEAN_GAIN * (1 + 0.01 * u + scatter(0.003))).astype(np.float32)
    read_noise = np.maximum(READ_NOISE * (1 + scatter(0.06)), 0.5 * READ_NOISE).astype(np.float32)
    # One amplifier per 512 rows; the amplifiers read along the rows' direction of the detector, which is DMS y.
    amplifier = (y // 512).astype(int)
    bias = MEAN_BIAS + np.array([180.0, -60.0, 40.0, -150.0], np.float32)[amplifier]
    bias = (bias + 25.0 * (y % 2) + 60.0 * u * u + scatter(110.0)).astype(np.float32)

    dark = np.abs(MEAN_DARK * (1 + 0.3 * v + scatter(0.25))).astype(np.float32)
    dark[hot] = np.exp(rng.normal(1.2, 0.9, int(hot.sum())))
    dark[reference] = 0

    linearity = np.zeros((4, *shape), np.float32)
    linearity[1] = 1
    linearity[2] = np.where(reference, 0, 1.1e-6 * (1 + 0.08 * u + scatter(0.02)))
    linearity[3] = np.where(reference, 0, 3.0e-12 * (1 + scatter(0.02)))
    well = (WELL * (1 - 0.02 * v + scatter(0.01))).astype(np.float32)

    ipc = np.zeros((3, 3))
    ipc[0, 1] = ipc[1, 0] = ipc[1, 2] = ipc[2, 1] = IPC_NEIGHBOUR
    ipc[1, 1] = 1 - ipc.sum()

    flags = np.zeros(shape, np.uint32)
    flags[dead] |= dq.PIXEL["DEAD"] | dq.PIXEL["DO_NOT_USE"]
    flags[hot] |= dq.PIXEL["HOT"]
    flags[dark > 6.0] |= dq.PIXEL["DO_NOT_USE"]
    flags[reference] |= dq.PIXEL["REFERENCE_PIXEL"]
    return Detector(
        (start, start),
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
