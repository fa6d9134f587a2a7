"""Interference that the readout of MIRI picks up: a wave of known frequency and shape, of unknown height and phase.

The four amplifiers read at the same time, one read every 10 us, so that the wave is a pattern in the image whose phase
runs on from row to row, group to group and integration to integration. Each pixel's ramp is a straight line and the wave
at the phases of its reads: for a trial phase the height is a linear least-squares problem in which the lines drop out by
projection. Reads are summed by phase first, so that a trial costs little, whatever the number of pixels.

That is the joint algorithm (``remove_interference``). The sequential one (``remove_folded_interference``) does not need to
know the wave: lines are fitted first, what is left of the first integrations is folded by phase, and the mean wave that
appears, or a known wave shifted and scaled to it, is subtracted.

Source: JWST pipeline documentation, "emicorr". In its joint algorithm the phase of later integrations is rounded to the
trial phases during the fit; here it is exact. In its sequential one the last reference pixels of a row of the full frame
are read 2**32 clocks late, which here they are not.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from calibration.jit import kernel
from calibration.robust import Ordered, clip
from calibration.strips import integrations_of, zeros

log = logging.getLogger(__name__)

#: Duration of one clock of the readout [s].
CLOCK = 10e-6
#: Rows of the detector, and clocks that a row costs which is not read out.
ROWS, SKIPPED_ROW = 1024, 7
#: Phases that are tried.
TRIALS = 500
#: Samples of one period in the table from which the wave is read.
SAMPLES = 8192
#: Columns, of four pixels each, that do not take part: they lie beside the left reference pixels and are bad.
BAD_COLUMNS = (1, 2)
#: Clocks by which the last reference pixels of a row come late, and the columns of four pixels of a whole row.
LATE, COLUMNS = 3, 258
#: Bins of a folded wave at most.
MOST_BINS = 500


@dataclass(frozen=True)
class Clock:
    """Clocks [10 us] from row to row, and of the reset frame between integrations (0 where there is none)."""

    row: int
    reset: int

    def frame(self, nrows: int) -> int:
        """Clocks from group to group of a subarray of ``nrows`` rows."""
        return nrows * self.row + (ROWS - nrows) * SKIPPED_ROW


#: Clocks of the readout of each area, for waves that no reference file describes (JWST documentation, "emicorr").
CLOCKS = {
    "FULL_FAST": (271, 277_504), "FULL_SLOW": (2333, 2_388_992), "BRIGHTSKY": (162, 86_528), "SUB256": (96, 29_952),
    "SUB128": (44, 11_904), "SUB64": (28, 8_512), "SLITLESSPRISM": (28, 15_904), "MASKLYOT": (90, 32_400),
    "MASK1065": (82, 23_968), "MASK1140": (82, 23_968), "MASK1550": (82, 23_968),
}  # fmt: skip


def read_phases(
    shape: tuple[int, ...], clock: Clock, frequency: float, nsamples: int, integration: int, group: int, ngroups: int
) -> np.ndarray:
    """Phase (ny, nx / 4) of each read of a group, from 0 to 1; columns of four pixels are read at once.

    Parameters
    ----------
    shape : (..., ny, nx)
    clock : Clock
    frequency : float
        [Hz]
    nsamples : int
        Clocks per read: 1 in the fast mode, 9 in the slow mode.
    integration, group : int
        From 0.
    ngroups : int
        Groups per integration.
    """
    ny, nx = shape[-2:]
    since = clock.frame(ny) * (integration * ngroups + group) + integration * clock.reset
    times = since + np.arange(ny)[:, None] * clock.row + np.arange(nx // 4)[None, :] * nsamples
    return (times * (CLOCK * frequency)) % 1


def remove_interference(
    data: np.ndarray,
    pixeldq: np.ndarray,
    wave: np.ndarray,
    frequency: float,
    clock: Clock,
    nsamples: int = 1,
    separately: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Ramps without the wave.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN].
    pixeldq : (ny, nx) uint32
        A pixel with any flag takes no part in the fit.
    wave : (n,) float
        One period, as means over each n-th of it, of any height.
    frequency : float
        [Hz]
    clock : Clock
    nsamples : int
        Clocks per read.
    separately : bool
        Whether height and phase are fitted for each integration by itself.

    Returns
    -------
    corrected : (nints, ngroups, ny, nx) float32
    heights : (nints,) float64
        Of the wave in each integration, in units of ``wave``; 0 where it cannot be fitted.
    """
    nints, ngroups, ny, nx = data.shape
    if ngroups < 3:
        raise ValueError(f"interference can be told from a slope with 3 groups or more, but there are {ngroups}")
    if pixeldq.shape != (ny, nx) or nx % 4:
        raise ValueError(f"pixeldq must be (ny, nx) = {(ny, nx)} with nx a multiple of 4, but is {pixeldq.shape}")
    table = _tabulate(wave)
    per_clock = CLOCK * frequency
    step, read = clock.frame(ny) * per_clock, nsamples * per_clock
    gap = ngroups * step + clock.reset * per_clock
    pieces = integrations_of(data)
    largest = 2 * _median(lambda: (_scatter_of(data[piece]) for piece in pieces))
    sums = np.zeros((nints, wave.size, ngroups))
    counts = np.zeros((nints, wave.size))
    for piece in pieces:
        usable = (_scatter_of(data[piece]) < largest) & (pixeldq == 0)
        for column in BAD_COLUMNS:
            usable[:, :, 4 * column : 4 * column + 4] = False
        _sum_by_phase(data[piece], usable, clock.row * per_clock, read, sums[piece], counts[piece])
    groups = [slice(i, i + 1) for i in range(nints)] if separately else [slice(0, nints)]
    heights, phases = np.zeros(nints), np.zeros(nints)
    for part in groups:
        heights[part], start = _fit(sums[part], counts[part], table, step, gap, part.start)
        phases[part] = start + gap * np.arange(nints)[part]
    corrected = zeros(data, data.shape, np.float32)
    for piece in pieces:
        ramps = data[piece]
        without = np.empty_like(ramps)
        _subtract(ramps, table, heights[piece], phases[piece] % 1, step, clock.row * per_clock, read, without)
        corrected[piece] = without
    return corrected, heights


def remove_folded_interference(
    data: np.ndarray,
    frequency: float,
    clock: Clock,
    nsamples: int = 1,
    folded: int = 1,
    nbins: int | None = None,
    wave: np.ndarray | None = None,
    scaled: bool = True,
    last_column: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Ramps without a wave that is seen by folding them.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN].
    frequency : float
        [Hz]
    clock : Clock
    nsamples : int
        Clocks per read.
    folded : int
        Integrations that are folded, from the first one on.
    nbins : int, optional
        Bins of the folded wave; default: half the clocks of a period. At most 500.
    wave : (n,) float, optional
        One period of a known wave, of any phase; without, the folded one is subtracted as it is.
    scaled : bool
        Whether the known wave gets the height of the folded one.
    last_column : int
        Number of the last column of four pixels on the detector: that of the reference pixels at the right, 258, is read
        a little later.

    Returns
    -------
    corrected : (nints, ngroups, ny, nx) float32
    folded : (nbins,) float64
        The wave that was seen [DN]; its median is 0.
    """
    nints, ngroups, ny, nx = data.shape
    if ngroups < 4:
        raise ValueError(f"waves are seen beside a slope with 4 groups or more, but there are {ngroups}")
    period = 1 / (frequency * CLOCK)
    nbins = min(nbins or int(period / 2), MOST_BINS)

    def phases(i: int) -> np.ndarray:
        """Phase (ngroups, ny, nx / 4) of the reads of an integration, from 0 to 1."""
        frames = clock.frame(ny) * (i * ngroups + np.arange(ngroups)) + i * clock.reset
        in_frame = np.arange(ny)[:, None] * clock.row + np.arange(nx // 4) * nsamples
        if last_column == COLUMNS:
            in_frame[:, -1] += LATE
        turns = (frames[:, None, None] + in_frame) / period
        return turns - np.floor(turns)

    # The phase 0 itself is in no bin: only the very first read has it.
    parts = [(np.ceil(phases(i).ravel() * nbins).astype(np.uint16), _rest(data[i])) for i in range(min(folded, nints))]
    bins, rest = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(bins, kind="stable")
    ends = np.searchsorted(bins[order], np.arange(nbins + 1), "right")
    seen = np.full(nbins, np.nan)
    for b in range(nbins):
        values = rest[order[ends[b] : ends[b + 1]]]
        values = values[np.isfinite(values)]
        if values.size:
            seen[b] = clip(Ordered.of(values)).mean
    seen -= np.median(seen)
    table = _resample(seen, period)
    if wave is not None:
        known = _resample(_in_phase(np.asarray(wave, np.float64), seen), period)
        table = known * (np.polyfit(known, table, 1)[0] if scaled and np.isfinite(table).all() else 1.0)
    table = np.where(np.isfinite(table), table, 0.0)
    corrected = zeros(data, data.shape, np.float32)
    for i in range(nints):
        noise = table[(phases(i) * period).astype(np.int64)]
        corrected[i] = (data[i] - np.repeat(noise, 4, axis=-1)).astype(np.float32)
    return corrected, seen


def _rest(ramp: np.ndarray) -> np.ndarray:
    """What is left of the ramps of an integration after line and level: means of the four amplifiers, flat, float64."""
    ngroups = len(ramp)
    inner = ramp[1:-1].astype(np.float64)  # the first and the last group of MIRI are spoilt
    time = np.arange(ngroups - 2) - 0.5 * (ngroups - 3)
    slope = np.tensordot(time, inner, axes=1) / (time @ time)
    left = ramp - slope * np.arange(ngroups)[:, None, None]
    level = np.nanmin(left[1:-1], axis=0) if ngroups - 2 <= 2 else np.nanmedian(left[1:-1], axis=0)
    left -= level
    columns = left.reshape(*left.shape[:-1], -1, 4).mean(axis=-1)
    for bad in BAD_COLUMNS:
        columns[..., bad] = 0.5 * (columns[..., 0] + columns[..., 3])
    return (columns - np.median(columns, axis=(1, 2), keepdims=True)).ravel()


def _resample(wave: np.ndarray, length: float) -> np.ndarray:
    """The wave on ``length`` places, the nearest value before each."""
    places = np.arange(int(np.ceil(length))) * (wave.size / length)
    return wave[np.minimum(places.astype(np.int64), wave.size - 1)]


def _in_phase(wave: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The known wave, turned to where it is most like the one that was seen."""
    like = _resample(seen, wave.size)
    if not np.isfinite(like).all() or np.ptp(wave) == 0:
        return wave
    turned = [np.corrcoef(np.roll(wave, n), like)[0, 1] for n in range(wave.size)]
    return np.roll(wave, int(np.argmax(turned)))


def _scatter_of(data: np.ndarray) -> np.ndarray:
    """Standard deviation of the reads of each ramp, (nints, ny, nx) float32."""
    scatter = np.empty((data.shape[0], *data.shape[2:]), np.float32)
    _scatter(data, scatter)
    return scatter


def _median(pieces: Callable[[], Iterable[np.ndarray]]) -> np.float32:
    """Median of float32 values from 0 up, which come in pieces, twice; NaN if one of them is.

    As integers the bits of such numbers are in their order: the first time the upper half of the bits is counted, the
    second time the lower half where the middle is.
    """
    upper = np.zeros(2**16, np.int64)
    for piece in pieces():
        if np.isnan(piece).any():
            return np.float32(np.nan)
        upper += np.bincount(piece.ravel().view(np.uint32) >> np.uint32(16), minlength=2**16)
    total = int(upper.sum())
    ranks = sorted({(total - 1) // 2, total // 2})
    below = np.cumsum(upper)
    places = [int(np.searchsorted(below, rank, "right")) for rank in ranks]
    lower = {place: np.zeros(2**16, np.int64) for place in places}
    for piece in pieces():
        bits = piece.ravel().view(np.uint32)
        for place, counts in lower.items():
            there = bits[bits >> np.uint32(16) == place]
            counts += np.bincount(there & np.uint32(0xFFFF), minlength=2**16)
    values = []
    for rank, place in zip(ranks, places, strict=True):
        within = rank - int(below[place] - upper[place])
        low = int(np.searchsorted(np.cumsum(lower[place]), within, "right"))
        values.append(np.array([place << 16 | low], np.uint32).view(np.float32)[0])
    return np.float32(np.mean(np.array(values, np.float32)))


def _tabulate(wave: np.ndarray) -> np.ndarray:
    """``SAMPLES`` + 1 values of the wave from phase 0 to 1, by a periodic cubic spline through the middles of its bins."""
    # Here, not above: near-infrared exposures do without.
    from scipy.interpolate import CubicSpline

    middles = (np.arange(wave.size + 1) + 0.5) / wave.size
    spline = CubicSpline(middles, np.append(wave, wave[0]), bc_type="periodic")
    return spline(np.linspace(0, 1, SAMPLES + 1))


def _fit(
    sums: np.ndarray, counts: np.ndarray, table: np.ndarray, step: float, gap: float, first: int
) -> tuple[float, float]:
    """Height, and phase at the start of the exposure, with which the ramps are straightest."""
    # What is left of a ramp after the best line: the wave is compared with that.
    ngroups = sums.shape[-1]
    time = np.arange(ngroups) - 0.5 * (ngroups - 1)
    bent = sums - sums.mean(axis=-1, keepdims=True) - (sums @ time)[..., None] * time / (time @ time)

    def match(trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        both = np.empty((2, trials.size))
        _match(bent, counts, table, trials, step, gap, first, both)
        return both[0], both[1]

    trials = np.arange(TRIALS) / TRIALS
    product, norm = match(trials)
    if not np.all(norm > 1e-8) or not np.isfinite(product).all():
        log.warning("emicorr: the ramps do not tell the phase of the wave, which is left in them")
        return 0.0, 0.0
    gain = product**2 / norm
    best = int(np.argmax(gain))
    before, at, after = gain[best - 1], gain[best], gain[(best + 1) % TRIALS]
    curvature = before - 2 * at + after
    shift = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
    phase = np.array([(trials[best] + shift / TRIALS) % 1])
    product, norm = match(phase)
    return float(product[0] / norm[0]), float(phase[0])


@kernel
def _look_up(table, phase):
    place = (phase - np.floor(phase)) * (table.size - 1)
    k = min(int(place), table.size - 2)
    return table[k] + (place - k) * (table[k + 1] - table[k])


# i = integration, g = group, y = row, x = column, q = column of four pixels, b = bin of phase, t = trial phase
@kernel
def _scatter(data, scatter):
    nints, ngroups, ny, nx = data.shape
    total, square = np.empty(nx), np.empty(nx)
    for i in range(nints):
        for y in range(ny):
            total[:] = 0.0
            square[:] = 0.0
            first = data[i, 0, y]
            for g in range(ngroups):
                row = data[i, g, y]
                for x in range(nx):
                    rise = np.float64(row[x]) - np.float64(first[x])
                    total[x] += rise
                    square[x] += rise * rise
            for x in range(nx):
                mean = total[x] / ngroups
                scatter[i, y, x] = np.sqrt(max(square[x] / ngroups - mean * mean, 0.0))


@kernel
def _sum_by_phase(data, usable, row, read, sums, counts):
    nints, ngroups, ny, nx = data.shape
    nbins = counts.shape[1]
    for i in range(nints):
        for y in range(ny):
            for g in range(ngroups):
                for q in range(nx // 4):
                    phase = y * row + q * read
                    b = min(int((phase - np.floor(phase)) * nbins), nbins - 1)
                    for x in range(4 * q, 4 * q + 4):
                        if usable[i, y, x]:
                            sums[i, b, g] += data[i, g, y, x]
                            if g == 0:
                                counts[i, b] += 1.0


@kernel
def _match(bent, counts, table, trials, step, gap, first, both):
    nints, nbins, ngroups = bent.shape
    spread = ngroups * (ngroups * ngroups - 1.0) / 12.0
    for t in range(trials.size):
        product, norm = 0.0, 0.0
        for i in range(nints):
            for b in range(nbins):
                start = trials[t] + (b + 0.5) / nbins + (first + i) * gap
                total, tilt, square = 0.0, 0.0, 0.0
                for g in range(ngroups):
                    z = _look_up(table, start + g * step)
                    total += z
                    tilt += z * (g - 0.5 * (ngroups - 1))
                    square += z * z
                    product += bent[i, b, g] * z
                norm += counts[i, b] * (square - total * total / ngroups - tilt * tilt / spread)
        both[0, t], both[1, t] = product, norm


@kernel
def _subtract(data, table, heights, phases, step, row, read, corrected):
    nints, ngroups, ny, nx = data.shape
    for i in range(nints):
        for g in range(ngroups):
            for y in range(ny):
                start = phases[i] + g * step + y * row
                for q in range(nx // 4):
                    wave = heights[i] * _look_up(table, start + q * read)
                    for x in range(4 * q, 4 * q + 4):
                        corrected[i, g, y, x] = data[i, g, y, x] - wave
