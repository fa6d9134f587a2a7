"""NIRSpec's IRS2 readout: raw frames with reference pixels between the rows, and the correlated noise that they see.

In time, an amplifier has slow noise of its own and a part of slow noise that it shares with the other amplifiers and the
reference output. Its interleaved reference pixels are read by the same electronics in between and see the same noise; the
reference output sees the shared one only. All add white noise of each read. The weights of the reference file are then known:
those of the best linear estimate of the noise of an amplifier (a Wiener filter).
"""

import numpy as np

from calibration import dq
from calibration.interleaving import NORMAL, OUTPUTS, PERIOD, REFERENCE, SECTION, WIDTH, reference_rows, science_rows
from calibration.ramps.irs2 import LINE, VISIT
from calibration.simulate.detector import TOP, Readout
from calibration.simulate.references import MEAN_BIAS, Detector

SHARED_NOISE = 6.0  # [DN], slow noise of the reference output
OWN_NOISE = 3.0  # [DN], slow noise of an amplifier that no other shares
SHARES = (1.0, 0.8, -0.6, 1.1)  # how much of the shared noise each amplifier has
CORNER = 1 / 200  # [cycles per sample], above which slow noise falls faster than 1/f
OUTPUT_BIAS = 7_000.0  # [DN], of the reference output

#: First of the two reads of bad reference pixels, columns of the detector: known to the mask, to the reference file, to nobody.
BAD_IN_MASK, BAD_IN_FILE, BAD_UNKNOWN = 650, 1388, 2150
WILD = 15.0  # how many times the read noise of a bad one


def interleave(
    ramp: np.ndarray, detector: Detector, readout: Readout, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Raw frames of IRS2 readout, of ramps without correlated noise.

    Parameters
    ----------
    ramp : (nints, ngroups, 2048, nx) uint16
        Raw ramps with white noise only [DN]; the fast axis is y.
    detector : Detector
        Of the same area.
    readout : Readout
    rng
        Source of all noise.

    Returns
    -------
    raw : (nints, ngroups, 3200, nx) uint16
        [DN]
    noise : (nints, ngroups, 2048, nx) float32
        The correlated noise in the pixels of the detector [DN].
    """
    nints, ngroups, ny, nx = ramp.shape
    rows = science_rows(detector.sensor.fastaxis)
    if ny != rows.size or detector.shape != (ny, nx):
        raise ValueError(
            f"IRS2 needs ramps and a detector area of {rows.size} rows, but they have {ny} and {detector.shape[0]}"
        )
    white = detector.sensor.read_noise / np.sqrt(readout.nframes)
    quiet = np.full(WIDTH, white)
    quiet[bad_rows(detector.sensor.fastaxis)] *= WILD
    bias = interleaved_bias(detector)
    raw = np.empty((nints, ngroups, WIDTH, nx), np.uint16)
    noise = np.empty((nints, ngroups, ny, nx), np.float32)
    for i in range(nints):
        for g in range(ngroups):
            correlated = correlated_noise(nx, readout.nframes, rng)
            if detector.sensor.fastaxis < 0:
                correlated = correlated[::-1]
            if detector.sensor.slowaxis < 0:
                correlated = correlated[:, ::-1]
            noise[i, g] = correlated[rows]
            frame = bias + quiet[:, None] * rng.standard_normal((WIDTH, nx), dtype=np.float32)
            frame[rows] = ramp[i, g]
            raw[i, g] = np.clip(np.rint(frame + correlated), 0, TOP)
    return raw, noise


def correlated_noise(lines: int, nframes: int, rng: np.random.Generator) -> np.ndarray:
    """Slow noise of one group, the mean of ``nframes`` frames, in the order of the detector: (3200, lines) float32 [DN]."""
    total = LINE * lines
    frequency = np.arange(total // 2 + 1)
    shape = np.sqrt(_power(frequency, total) * total / (2 * nframes))
    shape[0] = 0

    def series() -> np.ndarray:
        spectrum = shape * (rng.standard_normal(frequency.size) + 1j * rng.standard_normal(frequency.size))
        return np.fft.irfft(spectrum, total).reshape(lines, LINE)

    at = _samples()
    shared = SHARED_NOISE * series()
    noise = np.empty((OUTPUTS, SECTION, lines), np.float32)
    noise[0] = shared[:, at].T
    for amplifier, share in enumerate(SHARES, start=1):
        noise[amplifier] = (share * shared + OWN_NOISE * series())[:, at].T
    # Every other output is read from right to left.
    noise[::2] = noise[::2, ::-1]
    return noise.reshape(WIDTH, lines)


def best_weights(detector: Detector, lines: int, nframes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the interleaved reference pixels (BETA) and of the reference output (ALPHA): (4, samples) complex64 each."""
    total = LINE * lines
    frequency = np.arange(total)
    # The step takes out a line through both ends of the frame first, which leaves power at 0.
    slow = _power(np.maximum(1, np.minimum(frequency, total - frequency)), total) / nframes
    white = detector.sensor.read_noise**2 / nframes
    # The reference series has a number in eight samples of a visit, each of four reads twice, and zero in the others.
    filled = 2 * REFERENCE * (LINE // VISIT) / LINE
    scatter = white * 4 * REFERENCE * (LINE // VISIT) / LINE / filled**2
    shared, own = SHARED_NOISE**2 * slow, OWN_NOISE**2 * slow
    pixels, output = np.zeros((2, OUTPUTS - 1, total), np.complex64)
    for k, share in enumerate(SHARES):
        seen = share**2 * shared + own
        determinant = (seen + scatter) * (shared + white) - (share * shared) ** 2
        pixels[k] = (seen * (shared + white) - (share * shared) ** 2) / determinant / filled
        output[k] = share * shared * scatter / determinant
    return pixels, output


def interleaved_bias(detector: Detector) -> np.ndarray:
    """Bias of a raw frame (3200, nx) float32 [DN]: each row between those of the detector has a level of its own."""
    row = np.arange(WIDTH)
    level = MEAN_BIAS + 400 * np.sin(0.37 * row) + 30 * (row % 2)
    is_output = row < SECTION if detector.sensor.fastaxis > 0 else row >= WIDTH - SECTION
    level[is_output] += OUTPUT_BIAS - MEAN_BIAS
    bias = np.tile(level[:, None], (1, detector.shape[1])).astype(np.float32)
    bias[science_rows(detector.sensor.fastaxis)] = detector.bias
    return bias


def interleaved_flags(detector: Detector) -> np.ndarray:
    """Pixel flags of a raw frame (3200, nx) uint32, as the bad-pixel mask has them."""
    flags = np.where(
        reference_rows()[:, None] | np.zeros(detector.shape[1], np.bool_), dq.PIXEL["REFERENCE_PIXEL"], np.uint32(0)
    )
    rows = science_rows(detector.sensor.fastaxis)
    flags[rows] = detector.dq
    flags[bad_rows(detector.sensor.fastaxis)[:2]] |= dq.PIXEL["BAD_REF_PIXEL"] | dq.PIXEL["DO_NOT_USE"]
    return flags


def bad_rows(fastaxis: int) -> np.ndarray:
    """Rows of the file with noisy reference pixels, two reads of each: first those of the mask, (6,) intp."""
    columns = np.array([(first, first + 1) for first in (BAD_IN_MASK, BAD_IN_FILE, BAD_UNKNOWN)]).ravel()
    return columns if fastaxis > 0 else WIDTH - 1 - columns


def excluded_table() -> list[tuple[int, int, int]]:
    """Rows (OUTPUT, ODD_EVEN, MASK) of the table DQ of the reference file."""
    amplifier, column = divmod(BAD_IN_FILE, SECTION)
    visit, place = divmod(column - NORMAL // 2, PERIOD)
    second = place >= REFERENCE // 2
    rows = []
    for output in range(1, OUTPUTS):
        for parity in (1, 2):
            # Every other amplifier counts odd and even the other way round.
            is_it = output == amplifier and second == ((parity == 2) != (output % 2 == 0))
            rows.append((output, parity, 1 << visit if is_it else 0))
    return rows


def _power(frequency: np.ndarray, total: int) -> np.ndarray:
    """Power per sample of slow noise of unit variance: 1/f, falling faster above the corner; none at 0."""
    k = np.arange(1, total // 2 + 1)

    def shape(k: np.ndarray) -> np.ndarray:
        return 1 / (np.maximum(k, 1) * (1 + (k / (CORNER * total)) ** 2))

    return np.where(frequency > 0, shape(frequency), 0) * total / (2 * shape(k).sum())


def _samples() -> np.ndarray:
    """Sample of a line at which each of the 640 pixels of an output is read: one is lost at each step out or back."""
    order = np.arange(SECTION)
    steps_out = (order + NORMAL // 2 + REFERENCE) // PERIOD
    return order + 2 * steps_out - reference_rows()[:SECTION]
