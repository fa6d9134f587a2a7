"""The drift of the readout electronics, seen by pixels that see no light.

A near-infrared detector is read by four amplifiers, each a quarter of its columns; even and odd columns have offsets of
their own. The mean of the reference pixels at the bottom and the top of an amplifier is its offset in one group. What
then remains drifts slowly from row to row, and is followed by a running median of the reference pixels at both sides.
A small subarray is read by one amplifier, and what reference pixels it has give the offsets of its even and odd columns.
Instead of the running median, SIRS convolves the means of the side pixels with kernels that were fitted to darks, for each
amplifier its own (Simple Improved Reference Subtraction, Rauscher et al. 2022, Proc. SPIE 12180).

"Rows" and "columns" here are those of the detector: a row is read fast. Files have the science orientation, which
FASTAXIS and SLOWAXIS relate to it.

A MIRI detector has its four amplifiers in turn along each row, and reference pixels left and right; their drift since the
first group is followed for even and odd rows. Source: JWST pipeline documentation, "refpix".
"""

from dataclasses import dataclass

import numpy as np

from calibration import dq
from calibration.jit import kernel
from calibration.subarrays import Subarray

#: Rows and columns of a near-infrared detector [pixel].
DETECTOR_SIZE = 2048
#: Rows and columns of reference pixels along each edge [pixel].
EDGE = 4
#: Rows and columns of a MIRI detector [pixel].
MIRI_SHAPE = (1024, 1032)
#: Columns that one amplifier reads [pixel].
AMPLIFIER_WIDTH = 512


@dataclass(frozen=True)
class Readout:
    """How an exposure was read.

    ``fastaxis`` and ``slowaxis`` as in the keywords: 1 is x and 2 is y of the file, negative when read backwards.
    """

    subarray: Subarray
    fastaxis: int
    slowaxis: int
    noutputs: int

    def __post_init__(self):
        if {abs(self.fastaxis), abs(self.slowaxis)} != {1, 2}:
            raise ValueError(
                f"FASTAXIS and SLOWAXIS must be 1 and 2 in some order and sign, but are {self.fastaxis} and "
                f"{self.slowaxis}"
            )

    @property
    def is_transposed(self) -> bool:
        """Whether a fast row of the detector is a column of the file."""
        return abs(self.fastaxis) == 2

    def to_detector(self, array: np.ndarray) -> np.ndarray:
        """A view (..., slow, fast) of an array (..., ny, nx) of the file."""
        x, y = (self.slowaxis, self.fastaxis) if self.is_transposed else (self.fastaxis, self.slowaxis)
        turned = array[..., :: 1 if y > 0 else -1, :: 1 if x > 0 else -1]
        return np.swapaxes(turned, -2, -1) if self.is_transposed else turned

    @property
    def origin(self) -> tuple[int, int]:
        """Place of the first (slow, fast) pixel of the view on the detector, from 0."""
        return self._first(self.slowaxis), self._first(self.fastaxis)

    def _first(self, axis: int) -> int:
        start, size = (
            (self.subarray.xstart, self.subarray.xsize)
            if abs(axis) == 1
            else (self.subarray.ystart, self.subarray.ysize)
        )
        return start - 1 if axis > 0 else DETECTOR_SIZE - (start - 1 + size)


@dataclass(frozen=True)
class SideKernels:
    """How the means of the side pixels are convolved: (4, 2 * halfwidth + 1) float64 for each amplifier and side."""

    left: np.ndarray
    right: np.ndarray


def prepare_side_kernels(left: np.ndarray, right: np.ndarray, smoothing: float, halfwidth: int) -> SideKernels:
    """Kernels of SIRS from their Fourier coefficients.

    Parameters
    ----------
    left, right : (4, n) complex
        Coefficients of the frequencies 0 to half the number of rows: GAMMA and ZETA of the reference file.
    smoothing : float
        Width of the Gaussian that the kernels are smoothed with [row].
    halfwidth : int
        Rows of a kernel on each side of its middle.
    """
    for coefficients in (left, right):
        if coefficients.ndim != 2 or coefficients.shape[0] != 4 or coefficients.shape[1] <= halfwidth:
            raise ValueError(
                f"the kernels of SIRS need more than {halfwidth} coefficients for each of 4 amplifiers, but have the shape "
                f"{coefficients.shape}"
            )
    step = np.arange(-halfwidth, halfwidth + 1)
    bell = np.exp(-0.5 * (step / smoothing) ** 2)
    bell /= bell.sum()

    def kernels(coefficients: np.ndarray) -> np.ndarray:
        full = np.fft.irfft(coefficients, axis=1)
        return np.array([np.convolve(one[step], bell, mode="same") for one in full])

    return SideKernels(kernels(left), kernels(right))


def subtract_reference_pixels(
    data: np.ndarray,
    pixeldq: np.ndarray,
    readout: Readout,
    odd_even_columns: bool = True,
    use_side_pixels: bool = True,
    side_smoothing_length: int = 11,
    side_gain: float = 1.0,
    clip: float = 3.0,
    sirs: SideKernels | None = None,
    sirs_clip: float = 4.0,
) -> np.ndarray:
    """Near-infrared ramps without the drift of the readout.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN], bias subtracted.
    pixeldq : (ny, nx) uint32
        ``REFERENCE_PIXEL`` tells the reference pixels of a subarray with one output; one with ``DO_NOT_USE`` is not used.
    readout : Readout
    odd_even_columns : bool
        Whether even and odd columns have offsets of their own.
    use_side_pixels : bool
        Whether to follow the drift from row to row (four outputs only).
    side_smoothing_length : int
        Height of the running median [pixel]; an even one is raised by one.
    side_gain : float
        Factor on the signal of the side pixels.
    clip : float
        Clipping of the means [sigma].
    sirs : SideKernels, optional
        What the side pixels of a whole detector are convolved with, instead of the running median.
    sirs_clip : float
        Clipping of the side pixels for it [sigma].

    Returns
    -------
    (nints, ngroups, ny, nx) float32
    """
    if sirs is not None and data.shape[-2:] != (DETECTOR_SIZE, DETECTOR_SIZE):
        raise ValueError(f"SIRS is for a whole detector of {DETECTOR_SIZE} rows and columns, not for {data.shape[-2:]}")
    if data.shape[-2:] != readout.subarray.shape or pixeldq.shape != readout.subarray.shape:
        raise ValueError(
            f"data and pixeldq must cover {readout.subarray}, {readout.subarray.shape}, but have the shapes "
            f"{data.shape} and {pixeldq.shape}"
        )
    corrected = np.empty_like(data)
    good = readout.to_detector((pixeldq & dq.PIXEL["DO_NOT_USE"]) == 0)
    is_reference = readout.to_detector((pixeldq & dq.PIXEL["REFERENCE_PIXEL"]) != 0) & good
    height = side_smoothing_length + 1 - side_smoothing_length % 2
    zero_y, zero_x = np.zeros(data.shape[-2], np.float32), np.zeros(data.shape[-1], np.float32)
    for i in range(data.shape[0]):
        for g in range(data.shape[1]):
            frame = readout.to_detector(data[i, g])
            if readout.noutputs == 4:
                fast = _amplifier_offsets(frame, good, readout, odd_even_columns, clip)
                if use_side_pixels and sirs is None:
                    slow = side_gain * _side_drift(frame, good, fast, readout, height)
                else:
                    slow = np.zeros(frame.shape[0])
            else:
                fast = _single_output_offsets(frame, is_reference, readout, odd_even_columns, clip)
                slow = np.zeros(frame.shape[0])
            fast = fast[:: 1 if readout.fastaxis > 0 else -1]
            slow = slow[:: 1 if readout.slowaxis > 0 else -1]
            if readout.is_transposed:
                _subtract(data[i, g], fast, zero_x, zero_y.astype(np.float64), slow, corrected[i, g])
            else:
                _subtract(data[i, g], zero_y, fast, slow, zero_x.astype(np.float64), corrected[i, g])
            if readout.noutputs == 4 and use_side_pixels and sirs is not None:
                _subtract_convolved(readout.to_detector(corrected[i, g]), sirs, sirs_clip)
    return corrected


def subtract_mid_infrared_reference_pixels(
    data: np.ndarray, pixeldq: np.ndarray, odd_even_rows: bool = True, clip: float = 3.0
) -> np.ndarray:
    """MIRI full-frame ramps without the drift of the readout since the first group.

    Parameters
    ----------
    data : (nints, ngroups, 1024, 1032) float32
        Ramp signal [DN].
    pixeldq : (1024, 1032) uint32
        A reference pixel with ``DO_NOT_USE`` is not used.
    odd_even_rows : bool
        Whether even and odd rows have a drift of their own.
    clip : float
        Clipping of the means [sigma].

    Returns
    -------
    (nints, ngroups, 1024, 1032) float32
        From the first group on of which an amplifier has no reference pixels, as it was.
    """
    if data.shape[-2:] != MIRI_SHAPE or pixeldq.shape != MIRI_SHAPE:
        raise ValueError(
            f"data and pixeldq must be of the whole detector, {MIRI_SHAPE}, but have the shapes {data.shape} and "
            f"{pixeldq.shape}"
        )
    corrected = data.copy()
    good = (pixeldq & dq.PIXEL["DO_NOT_USE"]) == 0
    parts = [slice(start, None, 2) for start in (0, 1)] if odd_even_rows else [slice(None)]
    for i in range(data.shape[0]):
        for g in range(1, data.shape[1]):
            drift = np.zeros((MIRI_SHAPE[0], EDGE), np.float32)
            for rows in parts:
                for amplifier in range(EDGE):
                    sides = []
                    for column in (amplifier, MIRI_SHAPE[1] - EDGE + amplifier):
                        since = data[i, g, rows, column] - data[i, 0, rows, column]
                        sides.append(clipped_mean(since[good[rows, column]], clip))
                    drift[rows, amplifier] = 0.5 * (sides[0] + sides[1])
            if np.isnan(drift).any():
                break
            corrected[i, g] -= np.tile(drift, MIRI_SHAPE[1] // EDGE)
    return corrected


def count_reference_pixels(pixeldq: np.ndarray, readout: Readout) -> int:
    """How many usable reference pixels an exposure has for this correction."""
    good = readout.to_detector((pixeldq & dq.PIXEL["DO_NOT_USE"]) == 0)
    if readout.noutputs == 4:
        rows, columns = _edges(readout, good.shape)
        return int(sum(good[edge].sum() for edge in rows) + sum(good[:, edge].sum() for edge in columns))
    return int((readout.to_detector((pixeldq & dq.PIXEL["REFERENCE_PIXEL"]) != 0) & good).sum())


def _edges(readout: Readout, shape: tuple[int, ...]) -> tuple[list[slice], list[slice]]:
    """Bottom and top rows, and left and right columns, of the detector's edge that are in the view."""

    def both(first: int, size: int) -> list[slice]:
        low = slice(0, max(0, min(size, EDGE - first)))
        high = slice(min(size, max(0, DETECTOR_SIZE - EDGE - first)), size)
        return [low, high]

    s, f = readout.origin
    return both(s, shape[0]), both(f, shape[1])


def _amplifier_offsets(
    frame: np.ndarray, good: np.ndarray, readout: Readout, odd_even: bool, clip: float
) -> np.ndarray:
    """Offset of each column of the view [DN]: the mean of what bottom and top say, 0 where nobody says."""
    first = readout.origin[1]
    columns = np.arange(frame.shape[1]) + first
    kind = (columns // AMPLIFIER_WIDTH) * 2 + (columns % 2 if odd_even else 0)
    means = np.full((2, 8), np.nan)
    for e, rows in enumerate(_edges(readout, frame.shape)[0]):
        if rows.stop > rows.start:
            values, usable = np.ascontiguousarray(frame[rows]), np.ascontiguousarray(good[rows])
            for k in np.unique(kind):
                means[e, k] = clipped_mean(values[:, kind == k][usable[:, kind == k]], clip)
    offset = np.where(np.isnan(means[0]), means[1], np.where(np.isnan(means[1]), means[0], 0.5 * means.sum(axis=0)))
    if odd_even:
        # Even and odd columns are corrected together or not at all.
        offset = np.where(np.isnan(offset.reshape(4, 2)).any(axis=1, keepdims=True), 0, offset.reshape(4, 2)).ravel()
    return np.nan_to_num(offset)[kind].astype(np.float32)


def _single_output_offsets(
    frame: np.ndarray, is_reference: np.ndarray, readout: Readout, odd_even: bool, clip: float
) -> np.ndarray:
    """Offset of each column of the view [DN], of all reference pixels that a subarray has."""
    parity = (np.arange(frame.shape[1]) + readout.origin[1]) % 2 if odd_even else np.zeros(frame.shape[1], int)
    offset = np.array(
        [clipped_mean(frame[:, parity == k][is_reference[:, parity == k]], clip) for k in range(2 if odd_even else 1)]
    )
    # Even and odd columns are corrected together or not at all.
    return (np.zeros(2) if np.isnan(offset).any() else offset)[parity].astype(np.float32)


def _side_drift(frame: np.ndarray, good: np.ndarray, fast: np.ndarray, readout: Readout, height: int) -> np.ndarray:
    """Drift of each row of the view [DN]: the mean of the running medians left and right, 0 where there is neither."""
    sides = []
    for columns in _edges(readout, frame.shape)[1]:
        values = np.ascontiguousarray(frame[:, columns]) - fast[columns]
        median = np.full(frame.shape[0], np.nan)
        if values.shape[1]:
            _running_median(values, np.ascontiguousarray(good[:, columns]), readout.origin[0], height, median)
        sides.append(median)
    left, right = sides
    both = np.where(np.isnan(left), right, np.where(np.isnan(right), left, 0.5 * (left + right)))
    return np.nan_to_num(both)


def _subtract_convolved(frame: np.ndarray, kernels: SideKernels, clip: float) -> None:
    """Subtract, from each amplifier of a frame (rows, columns) in place, its drift as the side pixels and SIRS say."""
    drift = np.zeros((len(kernels.left), frame.shape[0]))
    for columns, of_amplifiers in ((slice(0, EDGE), kernels.left), (slice(-EDGE, None), kernels.right)):
        values = frame[:, columns].astype(np.float64)
        deviation = np.abs(values - np.median(values))
        good = deviation <= clip * 1.48 * np.median(deviation)
        total, count = np.where(good, values, 0).sum(axis=1) / EDGE, good.sum(axis=1) / EDGE
        for amplifier, kernel_ in enumerate(of_amplifiers):
            # Where pixels were thrown out, the others speak for them.
            every, used = (np.convolve(part, kernel_, mode="same") for part in (np.ones(count.shape), count))
            weight = np.divide(every, used, out=np.zeros_like(used), where=used != 0)
            drift[amplifier] += np.convolve(total, kernel_, mode="same") * weight
    for amplifier, of_rows in enumerate(drift):
        part = frame[:, amplifier * AMPLIFIER_WIDTH : (amplifier + 1) * AMPLIFIER_WIDTH]
        part[:] = part - of_rows[:, None]


def clipped_mean(values: np.ndarray, clip: float) -> float:
    """Mean of what is within ``clip`` sigma of the mean, until nothing more is thrown out; NaN of nothing."""
    kept = values.astype(np.float64)
    while kept.size:
        mean, limit = kept.mean(), clip * kept.std()
        inside = np.abs(kept - mean) <= limit
        if limit == 0 or inside.all():
            return float(mean)
        kept = kept[inside]
    return np.nan


# s = row of the detector in the view, y = row, x = column
@kernel
def _running_median(values, good, first, height, median):
    ns, nc = values.shape
    window = np.empty(height * nc, np.float32)
    for s in range(ns):
        n = 0
        for step in range(-(height // 2), height // 2 + 1):
            # The window is reflected at the edge of the detector; the edge itself counts once.
            row = first + s + step
            if row < 0:
                row = -row
            if row >= DETECTOR_SIZE:
                row = 2 * (DETECTOR_SIZE - 1) - row
            row -= first
            if row < 0 or row >= ns:
                continue
            for c in range(nc):
                if good[row, c]:
                    # Kept in order as they come: some forty values.
                    value = values[row, c]
                    k = n
                    while k > 0 and window[k - 1] > value:
                        window[k] = window[k - 1]
                        k -= 1
                    window[k] = value
                    n += 1
        if n > 0:
            median[s] = 0.5 * (np.float64(window[(n - 1) // 2]) + np.float64(window[n // 2]))


@kernel
def _subtract(frame, fast_y, fast_x, slow_y, slow_x, corrected):
    # One of fast_y and fast_x is zero, and one of slow_y and slow_x.
    ny, nx = frame.shape
    for y in range(ny):
        row, out = frame[y], corrected[y]
        for x in range(nx):
            levelled = row[x] - fast_y[y] - fast_x[x]
            out[x] = levelled - (slow_y[y] + slow_x[x])
