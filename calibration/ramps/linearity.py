"""The detector's response, made linear by a polynomial per pixel.

The corrected signal is ``c0 + c1 F + c2 F^2 + ...`` of the measured signal ``F``. Where the coefficients are not known the
signal is left as it is and the pixel flagged.

The mean of several frames is not the signal of their mean time when the response bends. Where the inverse polynomial is
known, each group is taken apart: the linear rate between the first and the last good group predicts the frames, the
inverse polynomial what the detector made of them, the group itself their common level; each frame is then corrected, and
the mean taken again. Source: JWST pipeline documentation, "linearity".
"""

import numpy as np

from calibration import dq
from calibration.jit import kernel

_SATURATED = dq.GROUP["SATURATED"]


def flag_uncorrected(coefficients: np.ndarray, reference_dq: np.ndarray) -> np.ndarray:
    """The flags of the linearity reference, with ``NO_LIN_CORR`` where a pixel has no valid coefficients.

    Parameters
    ----------
    coefficients : (ncoefficients, ny, nx) float32
        Lowest order first. Not valid: a NaN among them, or no linear term.
    reference_dq : (ny, nx) uint32
    """
    invalid = np.isnan(coefficients).any(axis=0) | (coefficients[1] == 0)
    return np.where(invalid, reference_dq | dq.PIXEL["NO_LIN_CORR"], reference_dq)


def linearize(data: np.ndarray, groupdq: np.ndarray, coefficients: np.ndarray, reference_dq: np.ndarray) -> np.ndarray:
    """Ramps with a linear response.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN], bias subtracted.
    groupdq : (nints, ngroups, ny, nx) uint8
        A saturated group is left as it is.
    coefficients : (ncoefficients, ny, nx) float32
        Lowest order first [DN^(1 - order)].
    reference_dq : (ny, nx) uint32
        From ``flag_uncorrected``; a pixel with ``NO_LIN_CORR`` is left as it is.

    Returns
    -------
    (nints, ngroups, ny, nx) float32
    """
    if coefficients.ndim != 3 or coefficients.shape[0] < 2 or coefficients.shape[-2:] != data.shape[-2:]:
        raise ValueError(
            f"coefficients must be (2 or more, {data.shape[-2]}, {data.shape[-1]}), but have the shape "
            f"{coefficients.shape}; cut the reference to the subarray first"
        )
    corrected = np.empty_like(data)
    keep = (reference_dq & dq.PIXEL["NO_LIN_CORR"]) != 0
    _evaluate(data, groupdq, coefficients, keep, corrected)
    return corrected


def linearize_averages(
    data: np.ndarray,
    groupdq: np.ndarray,
    coefficients: np.ndarray,
    inverse: np.ndarray,
    reference_dq: np.ndarray,
    nframes: int,
) -> np.ndarray:
    """Ramps of averaged groups with a linear response, frame by frame.

    Parameters
    ----------
    data, groupdq, coefficients, reference_dq
        As in ``linearize``.
    inverse : (ninverse, ny, nx) float32
        Coefficients of the measured signal as a polynomial of the linear one, lowest order first; those of a pixel with
        a NaN among them, or no linear term, leave the signal as it is.
    nframes : int
        Frames averaged per group. Gaps between groups are not looked at, as in the official pipeline.

    Returns
    -------
    (nints, ngroups, ny, nx) float32
    """
    for name, array in (("coefficients", coefficients), ("inverse", inverse)):
        if array.ndim != 3 or array.shape[0] < 2 or array.shape[-2:] != data.shape[-2:]:
            raise ValueError(
                f"{name} must be (2 or more, {data.shape[-2]}, {data.shape[-1]}), but have the shape {array.shape}; "
                "cut the reference to the subarray first"
            )
    corrected = np.empty_like(data)
    keep = (reference_dq & dq.PIXEL["NO_LIN_CORR"]) != 0
    keep_inverse = keep | np.isnan(inverse).any(axis=0) | (inverse[1] == 0)
    _evaluate_frames(data, groupdq, coefficients, inverse, keep, keep_inverse, nframes, corrected)
    return corrected


def linearize_zeroframe(zeroframe: np.ndarray, coefficients: np.ndarray, reference_dq: np.ndarray) -> np.ndarray:
    """First frames with a linear response; 0 stays 0, which marks an unusable value.

    Parameters
    ----------
    zeroframe : (nints, ny, nx) float32
        [DN]
    coefficients, reference_dq
        As in ``linearize``.
    """
    unusable = np.where(zeroframe == 0, _SATURATED, np.uint8(0))
    return linearize(zeroframe[:, None], unusable[:, None], coefficients, reference_dq)[:, 0]


# i = integration, g = group, y = row, x = column, j = order
@kernel
def _evaluate(data, groupdq, coefficients, keep, corrected):
    nints, ngroups, ny, nx = data.shape
    order = coefficients.shape[0] - 1
    signal = np.empty(nx)
    # All groups of a row together: its coefficients stay in the cache.
    for y in range(ny):
        for i in range(nints):
            for g in range(ngroups):
                measured = data[i, g, y]
                highest = coefficients[order, y]
                for x in range(nx):
                    signal[x] = highest[x]
                for j in range(order - 1, -1, -1):
                    coefficient = coefficients[j, y]
                    for x in range(nx):
                        signal[x] = signal[x] * measured[x] + coefficient[x]
                flags, kept, out = groupdq[i, g, y], keep[y], corrected[i, g, y]
                for x in range(nx):
                    as_it_is = kept[x] or flags[x] & _SATURATED != 0
                    out[x] = measured[x] if as_it_is else np.float32(signal[x])


@kernel
def _polynomial(coefficients, y, x, keep, signal):
    if keep:
        return signal
    total = np.float64(coefficients[coefficients.shape[0] - 1, y, x])
    for j in range(coefficients.shape[0] - 2, -1, -1):
        total = total * signal + coefficients[j, y, x]
    return total


# f = frame of a group
@kernel
def _evaluate_frames(data, groupdq, coefficients, inverse, keep, keep_inverse, nframes, corrected):
    nints, ngroups, ny, nx = data.shape
    expected = np.empty(nframes)
    for y in range(ny):
        for i in range(nints):
            for x in range(nx):
                good = 0
                for g in range(ngroups):
                    good += groupdq[i, g, y, x] & _SATURATED == 0
                # The last good group may be saturated in part: the one before it is taken, but never the first.
                last = min(max(good - 1, 2) - 1, ngroups - 1)
                first_signal, last_signal = np.float64(data[i, 0, y, x]), np.float64(data[i, last, y, x])
                if groupdq[i, 0, y, x] & _SATURATED == 0:
                    first_signal = _polynomial(coefficients, y, x, keep[y, x], first_signal)
                if groupdq[i, last, y, x] & _SATURATED == 0:
                    last_signal = _polynomial(coefficients, y, x, keep[y, x], last_signal)
                rate = (last_signal - first_signal) / (last * nframes) if last > 0 else 0.0
                for g in range(ngroups):
                    if groupdq[i, g, y, x] & _SATURATED != 0:
                        corrected[i, g, y, x] = data[i, g, y, x]
                        continue
                    mean = 0.0
                    for f in range(nframes):
                        linear = first_signal + rate * (g * nframes + f - 0.5 * (nframes - 1))
                        expected[f] = _polynomial(inverse, y, x, keep_inverse[y, x], linear)
                        mean += expected[f] / nframes
                    total = 0.0
                    for f in range(nframes):
                        frame = expected[f] + np.float64(data[i, g, y, x]) - mean
                        total += _polynomial(coefficients, y, x, keep[y, x], frame)
                    corrected[i, g, y, x] = total / nframes
