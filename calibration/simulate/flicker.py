"""1/f noise of the readout: slow drifts that pixels share which are read one after the other.

The noise is one series in time, a sample per clock, through all lines of an amplifier and the clocks between the lines;
amplifiers have noises of their own. Its power falls as one over the frequency, from one over the duration of the frame on.
"""

import numpy as np

TICK = 10e-6  # [s] per pixel
OVERHEAD = 12  # [ticks] between lines


def flicker_noise(
    shape: tuple[int, int], fast_axis: int, rms: float, rng: np.random.Generator, amplifiers: int = 1
) -> np.ndarray:
    """The noise of one frame, (ny, nx) float32 [DN].

    Parameters
    ----------
    shape : (ny, nx)
    fast_axis : int
        0 when pixels that are read one after the other lie along y, 1 when along x.
    rms : float
        Of the whole frame [DN].
    rng
        Source of the noise.
    amplifiers : int
        That share the pixels of a line, side by side.
    """
    nlines, nx = shape if fast_axis == 1 else shape[::-1]
    if nx % amplifiers:
        raise ValueError(f"{amplifiers} amplifiers cannot share lines of {nx} pixels; take a number that divides it")
    width = nx // amplifiers
    length = nlines * (width + OVERHEAD)
    frequency = np.fft.rfftfreq(length, TICK)
    parts = []
    for _ in range(amplifiers):
        spectrum = np.zeros(frequency.size, complex)
        spectrum[1:] = rng.normal(size=(frequency.size - 1, 2)) @ [1, 1j] / np.sqrt(frequency[1:])
        series = np.fft.irfft(spectrum, length)
        parts.append((series * (rms / series.std())).reshape(nlines, -1)[:, :width])
    noise = np.concatenate(parts, axis=1).astype(np.float32)
    return noise if fast_axis == 1 else noise.T
