"""NIRSpec's IRS2 readout: what reference pixels read between the others say about the noise of the electronics.

``calibration.interleaving`` tells where the pixels are. In order of time the samples of an output are an even sequence: a
line takes 712, with one for each step out to reference pixels or back, and eight for the start of a line. The correlated
part of the noise of an amplifier is, frequency by frequency, a weighted sum of what its reference pixels (BETA of the
reference file) and the reference output (ALPHA) saw at the same time.

Before that, each pixel's mean over the groups is set aside, since the sky and the bias are in it; a straight line through
the reference pixels at the first and last four lines takes out the drift of an output during a frame; and in the reference
output, where the time series has gaps, they are filled with its own slow part. Only real parts count in the end, so that
half of each spectrum is enough. A frame has 2048 x 712 = 89 x 16384 samples, coprime factors: the Fourier transform is that
of a plane of 89 x 16384 samples in which sample ``n`` stands at ``(n % 89, n % 16384)`` (Good 1958), and its short side
is a small matrix product: the two take a third of the time of a transform of the series as it is.

Sources: Moseley et al. 2010 (Proc. SPIE 7742, 77421B); Rauscher et al. 2017 (PASP 129, 105003); JWST pipeline
documentation, "refpix", section "NIRSpec IRS2".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # its parts are loaded as they are used

from calibration import dq
from calibration.interleaving import (
    LINES,
    NORMAL,
    OUTPUTS,
    PERIOD,
    REFERENCE,
    SECTION,
    WIDTH,
    reference_rows,
    science_rows,
)
from calibration.jit import kernel
from calibration.ramps.refpix import EDGE, Readout, clipped_mean
from calibration.strips import map_each

#: Samples of a visit with the steps out and back, and of a line with the pause at its end.
VISIT, LINE = PERIOD + 2, 712
#: Prime factor of the number of samples of a frame that its other factors have not.
PRIME = 89
#: The slow part of the reference output: frequencies up to the first are kept, then fewer and fewer over the second; and the
#: same at the upper end of the spectrum, for what alternates from sample to sample [1 / duration of a whole frame]. These
#: numbers, and the two below, are those of the official pipeline (jwst 3.0.0).
PASS, TAPER = 30_268, 5_000
#: How often the gaps are filled with the slow part of the series that has them filled.
ROUNDS = 3
#: Columns of a transform along the short side that are taken together: they fit in the cache.
STRIP = 512
#: Half the width of the bell that fills the gaps first [samples].
BELL = 16


@dataclass(frozen=True)
class Weights:
    """How much of the reference signals is in each amplifier, per frequency; symmetric, on the grid of this module.

    ``pixels``, ``output`` : (4, 45, 8 * lines) complex64
        Weights of the interleaved reference pixels and of the reference output.
    """

    pixels: np.ndarray
    output: np.ndarray

    @property
    def lines(self) -> int:
        """Lines of the frames that they are for."""
        return self.pixels.shape[-1] * PRIME // LINE


def prepare_weights(pixels: Sequence[np.ndarray], output: Sequence[np.ndarray]) -> Weights:
    """Weights from the columns BETA and ALPHA of the reference file.

    Parameters
    ----------
    pixels, output : 4 times (2 * samples,) float32
        For each amplifier, real and imaginary parts in turn of all frequencies of a frame of ``samples`` samples.
    """
    sizes = {len(column) for column in (*pixels, *output)}
    if (len(pixels), len(output), len(sizes)) != (OUTPUTS - 1, OUTPUTS - 1, 1) or min(sizes) % (2 * LINE):
        raise ValueError(
            f"IRS2 weights must be 4 and 4 columns of a multiple of {2 * LINE} numbers (for a whole frame "
            f"{2 * LINE * LINES}), but are {len(pixels)} and {len(output)} of {', '.join(map(str, sorted(sizes)))}"
        )
    frequency = _grid(min(sizes) // (2 * LINE)).frequency

    def half(columns: Sequence[np.ndarray]) -> np.ndarray:
        folded = np.empty((OUTPUTS - 1, *frequency.shape), np.complex64)
        for amplifier, column in enumerate(columns):
            weight = np.ascontiguousarray(column, np.float32).view(np.complex64)
            # The real part of a series belongs to the symmetric part of its spectrum.
            symmetric = 0.5 * (weight + np.conj(np.roll(weight[::-1], 1)))
            folded[amplifier] = symmetric[frequency]
        return folded

    return Weights(half(pixels), half(output))


def find_bad_rows(data: np.ndarray, known: np.ndarray, clip: float = 3.0) -> np.ndarray:
    """Interleaved reference pixels that are not like the others of their output.

    A pair of reads of the same reference pixel is bad when, in an integration, the mean difference of the two, their mean or
    their scatter is far above that of the other pairs.

    Parameters
    ----------
    data : (nints, ngroups, 3200, lines) float32
        [DN]
    known : (3200,) bool
        Rows known to be bad; they are not looked at again.
    clip : float
        How far above [sigma].

    Returns
    -------
    (3200,) bool
        With those that are known.
    """
    from astropy.stats import sigma_clipped_stats

    _require_interleaved(data)
    bad = known.copy()
    firsts = np.flatnonzero(reference_rows())[::2]
    statistics = np.empty((3, firsts.size))
    for i in range(data.shape[0]):
        _pair_statistics(data[i], firsts, statistics)
        for output in range(OUTPUTS):
            usable = (firsts // SECTION == output) & ~known[firsts] & ~known[firsts + 1]
            if not usable.any():
                continue
            for values in statistics[:, usable]:
                mean, _, sigma = sigma_clipped_stats(values, sigma=clip)
                high = firsts[usable][values - mean > clip * sigma]
                bad[high] = bad[high + 1] = True
    return bad


def choose_sources(bad: np.ndarray, excluded: np.ndarray, fastaxis: int) -> np.ndarray:
    """From which rows the value of each row is taken: the mean of two, which are the row itself where it is good.

    A bad reference pixel has the mean of those of the same parity in the visits before and after, or that of the only
    good one, or of the other parity in the same visit. Where all are bad it has no value.

    Parameters
    ----------
    bad : (3200,) bool
        Bad interleaved rows.
    excluded : (n, 2) int
        Pairs of rows that the reference file excludes, in its order (``excluded_pairs``).
    fastaxis : int
        As in the keyword.

    Returns
    -------
    (2, 3200) intp
        -1 for no value.
    """
    bad = bad & reference_rows()
    sources = np.tile(np.arange(WIDTH), (2, 1))
    for row in np.flatnonzero(bad).tolist():
        sources[:, row] = _substitute(row, bad, 1)
    bad = bad.copy()
    for pair in excluded.tolist():
        new = [row for row in pair if not bad[row]]
        bad[new] = True
        for row in new:
            sources[:, row] = _substitute(row, bad, 1 if fastaxis > 0 else -1)
    return sources


def excluded_pairs(output: np.ndarray, odd_even: np.ndarray, mask: np.ndarray, fastaxis: int) -> np.ndarray:
    """Pairs of rows that the table DQ of the reference file excludes.

    Parameters
    ----------
    output, odd_even, mask : (n,) integers
        Columns of the table: the amplifier (1 to 4), 1 or 2 for the odd or even pixels, a bit for each of the 32 visits,
        in the order of the detector's columns.
    fastaxis : int
        As in the keyword.

    Returns
    -------
    (m, 2) intp
    """
    pairs = []
    for amplifier, parity, bits in zip(output.astype(int), odd_even.astype(int), mask.astype(int), strict=True):
        # Amplifiers are read in alternating directions, hence odd and even change places in every other.
        second = (parity == 2) != (amplifier % 2 == 0)
        for visit in range(SECTION // PERIOD):
            if bits >> visit & 1:
                first = amplifier * SECTION + NORMAL // 2 + visit * PERIOD + 2 * second
                pairs.append((first, first + 1))
    columns = np.array(pairs, np.intp).reshape(-1, 2)
    return columns if fastaxis > 0 else WIDTH - 1 - columns


def mean_levels(
    data: np.ndarray, pixeldq: np.ndarray, readout: Readout, odd_even: bool = True, clip: float = 3.0
) -> np.ndarray:
    """The offset of each row of one integration, as the reference pixels at both ends of it say.

    Parameters
    ----------
    data : (ngroups, 3200, lines) float32
        [DN]
    pixeldq : (3200, lines) uint32
        A reference pixel with ``DO_NOT_USE`` is not used.
    readout : Readout
    odd_even : bool
        Whether odd and even columns of an output have offsets of their own.
    clip : float
        Clipping of the means [sigma].

    Returns
    -------
    (ngroups, 3200) float32
        [DN]; 0 for an output without usable reference pixels.
    """
    fast = np.arange(WIDTH)
    # Reference pixels are read in pairs, of which the first is odd.
    parity = np.where(reference_rows(), fast % 4 // 2, fast % 2) if odd_even else np.zeros(WIDTH, int)
    good = readout.to_detector((pixeldq & dq.PIXEL["DO_NOT_USE"]) == 0)
    levels = np.zeros((data.shape[0], WIDTH), np.float32)
    for g, frame in enumerate(data):
        turned = readout.to_detector(frame)
        for output in range(OUTPUTS):
            offsets = []
            for kind in range(1 + odd_even):
                columns = np.flatnonzero((fast // SECTION == output) & (parity == kind))
                ends = [clipped_mean(turned[e, columns][good[e, columns]], clip) for e in _ends(turned.shape[0])]
                offsets.append(ends[0] if np.isnan(ends[1]) else ends[1] if np.isnan(ends[0]) else 0.5 * sum(ends))
                levels[g, columns] = offsets[-1]
            if np.isnan(offsets).any():
                levels[g, fast // SECTION == output] = 0
    return levels if readout.fastaxis > 0 else levels[:, ::-1]


def subtract_interleaved_references(
    data: np.ndarray,
    readout: Readout,
    weights: Weights,
    sources: np.ndarray,
    keep: bool = False,
) -> np.ndarray:
    """One integration without the noise that the interleaved reference pixels and the reference output see.

    Parameters
    ----------
    data : (ngroups, 3200, lines) float32
        Ramp signal [DN], bias subtracted.
    readout : Readout
        Its fast axis is y.
    weights : Weights
    sources : (2, 3200) intp
        From ``choose_sources``.
    keep : bool
        Whether the reference pixels stay in the frames.

    Returns
    -------
    (ngroups, 2048, lines) float32
        Or (ngroups, 3200, lines): the reference pixels then are without their mean over the groups.
    """
    _require_interleaved(data)
    ngroups, _, lines = data.shape
    if not readout.is_transposed:
        raise ValueError(f"the fast axis of an IRS2 frame must be y (FASTAXIS 2 or -2), but is {readout.fastaxis}")
    if weights.lines != lines:
        raise ValueError(f"IRS2 weights must be for {lines} lines, as the data, but are for {weights.lines}")
    grid = _grid(lines)
    mean = np.zeros((WIDTH, lines))
    _mean_of_groups(data, mean)
    rows, at = _rows_in_time(readout.fastaxis), _sample_of_pixels()
    is_reference = reference_rows()[:SECTION]
    kept = np.arange(WIDTH) if keep else science_rows(readout.fastaxis)
    targets = np.full(WIDTH, -1)
    targets[kept] = np.arange(kept.size)
    backwards = readout.slowaxis < 0
    corrected = np.empty((ngroups, kept.size, lines), np.float32)

    def correct(g: int) -> None:
        frame, out = data[g], corrected[g]
        series = np.empty((PRIME, grid.columns), np.float32)
        drift = _drift_line(frame, mean, sources, rows[0], at, backwards)
        _gather(frame, mean, sources, rows[0], at, grid.pixels, drift, backwards, series)
        filled = _fill_gaps(series, grid)
        if keep:
            _put_output(filled, mean, sources, rows[0], at, backwards, out)
        common = grid.forward(filled)
        for amplifier in range(1, OUTPUTS):
            drift = _drift_line(frame, mean, sources, rows[amplifier], at, backwards)
            _gather(frame, mean, sources, rows[amplifier], at, grid.references, drift, backwards, series)
            spectrum = grid.forward(series)
            _weigh(spectrum, weights.pixels[amplifier - 1], common, weights.output[amplifier - 1])
            noise = grid.backward(spectrum)
            _subtract(
                frame, mean, sources, rows[amplifier], grid.pixels, targets, is_reference, drift, noise, backwards, out
            )

    map_each(correct, range(ngroups))
    return corrected


def _require_interleaved(data: np.ndarray) -> None:
    if data.shape[-2] != WIDTH:
        raise ValueError(f"IRS2 frames must have {WIDTH} rows, but data have the shape {data.shape}")


def _substitute(row: int, bad: np.ndarray, direction: int) -> tuple[int, int]:
    def usable(other: int) -> bool:
        return 0 <= other < WIDTH and other // SECTION == row // SECTION and not bad[other]

    visits = [other for other in (row - PERIOD, row + PERIOD) if usable(other)]
    if visits:
        return visits[0], visits[-1]
    is_reference = reference_rows()
    for other in (row - 2 * direction, row + 2 * direction):
        if usable(other) and is_reference[other]:
            return other, other
    return -1, -1


def _ends(lines: int) -> tuple[slice, slice]:
    """The lines of reference pixels at both ends of a frame."""
    return slice(0, EDGE), slice(lines - EDGE, lines)


def _rows_in_time(fastaxis: int) -> np.ndarray:
    """Rows of a raw frame in the order in which each output reads them: (5, 640) intp."""
    rows = np.arange(WIDTH).reshape(OUTPUTS, SECTION).copy()
    # The reference output and every other amplifier are read from right to left.
    rows[::2] = rows[::2, ::-1]
    return rows if fastaxis > 0 else WIDTH - 1 - rows


def _sample_of_pixels() -> np.ndarray:
    """Sample of a line at which an output reads each of its 640 pixels."""
    pixel = np.arange(SECTION)
    visit, place = np.divmod(pixel - NORMAL // 2, PERIOD)
    return np.where(place < REFERENCE, pixel + 2 * visit + 1, pixel + 2 * visit + 2)


@dataclass(frozen=True)
class _Grid:
    """The samples of a frame of one output in time, on a plane of coprime sides, and their Fourier transform.

    ``pixels``, ``references`` : (712,) int64
        Pixel of the output that each sample of a line shows, and the reference pixel that stands for it; -1 for none.
    ``frequency`` : (45, columns) int64
        Frequency [1 / duration of a frame] of each place of a transform.
    ``pass_band`` : (45, columns) float32
        What is kept of each frequency in the slow part of the reference output.
    ``is_pixel`` : (89, columns) bool
        The samples at which pixels of the sky, not reference pixels, are read.
    ``cosine``, ``sine`` : (45, 45) float32
        Fourier transform along the short side, of the symmetric and of the antisymmetric part of its samples.
    """

    columns: int
    pixels: np.ndarray
    references: np.ndarray
    frequency: np.ndarray
    pass_band: np.ndarray
    is_pixel: np.ndarray
    cosine: np.ndarray
    sine: np.ndarray

    def forward(self, series: np.ndarray) -> np.ndarray:
        """Spectrum (45, columns) complex64 of a series (89, columns) float32."""
        spectrum = np.empty((PRIME // 2 + 1, self.columns), np.complex64)
        _transform_short(series, self.cosine, self.sine, spectrum)
        return scipy.fft.fft(spectrum, axis=1, overwrite_x=True)

    def backward(self, spectrum: np.ndarray) -> np.ndarray:
        """The real series (89, columns) of a symmetric spectrum; ``spectrum`` is used up."""
        series = np.empty((PRIME, self.columns), np.float32)
        _restore_short(scipy.fft.ifft(spectrum, axis=1, overwrite_x=True), self.cosine, self.sine, series)
        return series


@lru_cache(maxsize=2)
def _grid(lines: int) -> _Grid:
    columns = lines * LINE // PRIME
    total = columns * PRIME
    if math.gcd(columns, PRIME) != 1:
        raise ValueError(f"the number of lines must not be a multiple of {PRIME}, but is {lines}")
    half = PRIME // 2 + 1
    frequency = (columns * np.arange(half)[:, None] + PRIME * np.arange(columns)) % total

    pixels = np.full(LINE, -1)
    pixels[_sample_of_pixels()] = np.arange(SECTION)
    is_reference = reference_rows()[:SECTION]
    # Of each visit the first and the third pixel stand in for the time up to its middle, the others for that after it.
    references = np.full(LINE, -1)
    first = NORMAL // 2 + 1
    for visit in range(0, LINE - VISIT, VISIT):
        for place, taken in zip(range(first - 2, first + 6), (0, 2, 0, 2, 1, 3, 1, 3), strict=True):
            references[visit + place] = pixels[visit + first + taken]

    time = np.arange(total)
    seen = pixels[time % LINE]
    is_pixel = np.zeros((PRIME, columns), np.bool_)
    is_pixel[time % PRIME, time % columns] = (seen >= 0) & ~is_reference[seen]

    turn = np.arange(half)[:, None] * np.arange(half) % PRIME * (2 * np.pi / PRIME)
    return _Grid(
        columns,
        pixels,
        references,
        frequency,
        _pass_band(np.minimum(frequency, total - frequency), total),
        is_pixel,
        np.cos(turn).astype(np.float32),
        np.sin(turn).astype(np.float32),
    )


def _pass_band(frequency: np.ndarray, total: int) -> np.ndarray:
    from_end = np.minimum(frequency, total // 2 - 1 - frequency)
    above = (from_end * (LINE * LINES / total) - PASS) / TAPER
    return (0.5 * (1 + np.cos(np.pi * np.clip(above, 0, 1)))).astype(np.float32)


def _fill_gaps(series: np.ndarray, grid: _Grid) -> np.ndarray:
    """The reference output with its slow part wherever it is not read in step with the pixels of the sky."""
    bell = np.sin(np.arange(1, 2 * BELL) * np.pi / (2 * BELL)).astype(np.float32)
    bridged = series.copy()
    _bridge(series, bell, bridged)
    filled = bridged
    for _ in range(ROUNDS):
        spectrum = grid.forward(filled)
        spectrum *= grid.pass_band
        filled = grid.backward(spectrum)
        np.copyto(filled, bridged, where=grid.is_pixel)
    return filled


# k = frequency, n = sample along the short side, x = column
@kernel
def _transform_short(series, cosine, sine, spectrum):
    rows, columns = series.shape
    half = cosine.shape[0]
    even, odd = np.empty((half, STRIP), np.float32), np.empty((half, STRIP), np.float32)
    real, imaginary = np.empty(STRIP, np.float32), np.empty(STRIP, np.float32)
    for start in range(0, columns, STRIP):
        size = min(STRIP, columns - start)
        even[0, :size] = series[0, start : start + size]
        odd[0, :size] = 0
        for n in range(1, half):
            low, high = series[n, start : start + size], series[rows - n, start : start + size]
            for x in range(size):
                even[n, x] = low[x] + high[x]
                odd[n, x] = low[x] - high[x]
        for k in range(half):
            real[:] = 0
            imaginary[:] = 0
            for n in range(half):
                c, s, with_c, with_s = cosine[k, n], sine[k, n], even[n], odd[n]
                for x in range(size):
                    real[x] += c * with_c[x]
                    imaginary[x] -= s * with_s[x]
            out = spectrum[k, start : start + size]
            for x in range(size):
                out[x] = complex(real[x], imaginary[x])


@kernel
def _restore_short(spectrum, cosine, sine, series):
    rows, columns = series.shape
    half = cosine.shape[0]
    real, imaginary = np.empty((half, STRIP), np.float32), np.empty((half, STRIP), np.float32)
    even, odd = np.empty(STRIP, np.float32), np.empty(STRIP, np.float32)
    for start in range(0, columns, STRIP):
        size = min(STRIP, columns - start)
        for k in range(half):
            # The upper half of the frequencies has the conjugate values.
            weight = np.float32((1.0 if k == 0 else 2.0) / rows)
            for x in range(size):
                value = spectrum[k, start + x]
                real[k, x] = weight * value.real
                imaginary[k, x] = weight * value.imag
        for n in range(half):
            even[:] = 0
            odd[:] = 0
            for k in range(half):
                c, s, with_c, with_s = cosine[k, n], sine[k, n], real[k], imaginary[k]
                for x in range(size):
                    even[x] += c * with_c[x]
                    odd[x] += s * with_s[x]
            low = series[n, start : start + size]
            for x in range(size):
                low[x] = even[x] - odd[x]
            if n > 0:
                high = series[rows - n, start : start + size]
                for x in range(size):
                    high[x] = even[x] + odd[x]


# g = group, y = row of the file, x = its column, s = line, t = sample of a line, p = pixel of an output in time
@kernel
def _pair_statistics(data, firsts, statistics):
    ngroups, _, nx = data.shape
    for k in range(firsts.size):
        apart, total, squares = 0.0, 0.0, 0.0
        for g in range(ngroups):
            first, second = data[g, firsts[k]], data[g, firsts[k] + 1]
            for x in range(nx):
                a, b = np.float64(first[x]), np.float64(second[x])
                apart += abs(b - a)
                total += a + b
                squares += a * a + b * b
        n = ngroups * nx
        mean = total / (2 * n)
        statistics[0, k] = apart / n
        statistics[1, k] = mean
        statistics[2, k] = np.sqrt(max(0.0, squares / (2 * n) - mean * mean))


@kernel
def _mean_of_groups(data, mean):
    ngroups, ny, nx = data.shape
    for y in range(ny):
        row = mean[y]
        for g in range(ngroups):
            for x in range(nx):
                row[x] += np.float64(data[g, y, x])
        for x in range(nx):
            row[x] /= ngroups


@kernel
def _value(frame, mean, a, b, x):
    # A row without a value is as a row whose value is the mean.
    if a < 0:
        return np.float32(0)
    if a == b:
        return np.float32(np.float64(frame[a, x]) - mean[a, x])
    return np.float32(0.5 * (np.float64(frame[a, x]) - mean[a, x] + np.float64(frame[b, x]) - mean[b, x]))


@kernel
def _without_drift(value, time, intercept, slope):
    # What is exactly at its mean counts as not read.
    if value == 0:
        return value
    return value - np.float32(intercept + time * slope)


@kernel
def _drift_line(frame, mean, sources, rows, at, backwards):
    # Least squares line through the reference pixels at the ends of a frame; time from the middle of the frame.
    lines = frame.shape[1]
    middle = 0.5 * (lines * LINE - 1)
    n, sum_t, sum_v, sum_tt, sum_tv = 0, 0.0, 0.0, 0.0, 0.0
    for p in range(SECTION):
        a, b = sources[0, rows[p]], sources[1, rows[p]]
        for e in range(2 * EDGE):
            s = e if e < EDGE else lines - 2 * EDGE + e
            value = np.float64(_value(frame, mean, a, b, lines - 1 - s if backwards else s))
            if value != 0:
                time = s * LINE + at[p] - middle
                n += 1
                sum_t += time
                sum_v += value
                sum_tt += time * time
                sum_tv += time * value
    if n == 0:
        return 0.0, 0.0
    slope = (sum_tv - sum_t * sum_v / n) / (sum_tt - sum_t * sum_t / n)
    return (sum_v - slope * sum_t) / n, slope


@kernel
def _gather(frame, mean, sources, rows, at, pixels, drift, backwards, series):
    intercept, slope = drift
    lines = frame.shape[1]
    columns = series.shape[1]
    middle = 0.5 * (lines * LINE - 1)
    series[:] = 0
    for short in range(PRIME):
        line = series[short]
        for t in range(short, LINE, PRIME):
            p = pixels[t]
            if p < 0:
                continue
            a, b = sources[0, rows[p]], sources[1, rows[p]]
            place = t % columns
            for s in range(lines):
                value = _value(frame, mean, a, b, lines - 1 - s if backwards else s)
                line[place] = _without_drift(value, s * LINE + at[p] - middle, intercept, slope)
                place += LINE
                if place >= columns:
                    place %= columns


@kernel
def _bridge(series, bell, bridged):
    # Where nothing was read: the mean of what was read nearby, with the weights of the bell.
    rows, columns = series.shape
    reach = bell.size // 2
    for short in range(rows):
        for long in range(columns):
            if series[short, long] == 0:
                total, weight = 0.0, 0.0
                y, x = (short - reach) % rows, (long - reach) % columns
                for step in range(bell.size):
                    value = series[y, x]
                    if value != 0:
                        total += np.float64(bell[step]) * np.float64(value)
                        weight += np.float64(bell[step])
                    y = y + 1 if y + 1 < rows else 0
                    x = x + 1 if x + 1 < columns else 0
                if weight > 0:
                    bridged[short, long] = np.float32(total) / np.float32(weight)


@kernel
def _weigh(spectrum, of_pixels, common, of_output):
    rows, columns = spectrum.shape
    for short in range(rows):
        for long in range(columns):
            spectrum[short, long] = (
                spectrum[short, long] * of_pixels[short, long] + common[short, long] * of_output[short, long]
            )


@kernel
def _subtract(frame, mean, sources, rows, pixels, targets, is_reference, drift, noise, backwards, out):
    # In the order of the rows of the grid, of which one fits in the cache.
    intercept, slope = drift
    lines = frame.shape[1]
    columns = noise.shape[1]
    middle = 0.5 * (lines * LINE - 1)
    for short in range(PRIME):
        source = noise[short]
        for t in range(short, LINE, PRIME):
            p = pixels[t]
            if p < 0 or targets[rows[p]] < 0:
                continue
            result = out[targets[rows[p]]]
            a, b = sources[0, rows[p]], sources[1, rows[p]]
            place = t % columns
            for s in range(lines):
                x = lines - 1 - s if backwards else s
                value = _without_drift(_value(frame, mean, a, b, x), s * LINE + t - middle, intercept, slope)
                value -= source[place]
                # The mean of a reference pixel is an offset of its own, not of the sky.
                result[x] = value if is_reference[p] else np.float32(np.float64(value) + mean[a, x])
                place += LINE
                if place >= columns:
                    place %= columns


@kernel
def _put_output(series, mean, sources, rows, at, backwards, out):
    lines = out.shape[1]
    columns = series.shape[1]
    for p in range(SECTION):
        a, b = sources[0, rows[p]], sources[1, rows[p]]
        source = series[at[p] % PRIME]
        place = at[p] % columns
        for s in range(lines):
            x = lines - 1 - s if backwards else s
            offset = 0.5 * (mean[a, x] + mean[b, x]) if a >= 0 else 0.0
            out[rows[p], x] = np.float32(np.float64(source[place]) + offset)
            place += LINE
            if place >= columns:
                place %= columns
