"""Which samples of a ramp are at full well, or below what the converter can count.

A pixel that saturates stays so until the end of the integration, and its charge spills to the pixels around it. Where a
group is the mean of several frames, some of its frames can be saturated while the mean is below the threshold: such a
group, just before the first saturated one, must not be used either.

Frames of NIRSpec's IRS2 readout have reference pixels between the rows of the detector: rows are then those of the
detector, the others are not looked at. Of such ramps the official pipeline flags less, and with another flag (see
``flag_saturation``); ours does so too.
Source: JWST pipeline documentation, "saturation".
"""

import numpy as np

from calibration import dq
from calibration.jit import kernel

#: Largest number of the 16-bit converter [DN].
CONVERTER_LIMIT = 65535.0

_SATURATED = dq.GROUP["SATURATED"]
_DO_NOT_USE = dq.GROUP["DO_NOT_USE"]
_FLOOR = dq.GROUP["AD_FLOOR"] | dq.GROUP["DO_NOT_USE"]


def prepare_threshold(threshold: np.ndarray, reference_dq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A threshold that no signal reaches where there is no check, and the flags of the reference with that said.

    Parameters
    ----------
    threshold : (ny, nx) float32
        Saturation threshold [DN]; NaN where a pixel has none.
    reference_dq : (ny, nx) uint32
        DQ of the saturation reference.

    Returns
    -------
    threshold : (ny, nx) float32
    reference_dq : (ny, nx) uint32
        With ``NO_SAT_CHECK`` where the threshold is NaN.
    """
    bit = dq.PIXEL["NO_SAT_CHECK"]
    flags = np.where(np.isnan(threshold), reference_dq | bit, reference_dq)
    unchecked = (flags & bit) != 0
    return np.where(unchecked, np.float32(CONVERTER_LIMIT + 1), threshold).astype(np.float32, copy=False), flags


def flag_saturation(
    data: np.ndarray,
    groupdq: np.ndarray,
    threshold: np.ndarray,
    reference_dq: np.ndarray,
    bias: np.ndarray | None,
    nframes: int,
    grow: int = 1,
    use_frames: bool = True,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Flag groups at or above the saturation threshold, and at the floor of the converter.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN], before bias and dark subtraction.
    groupdq : (nints, ngroups, ny, nx) uint8
        Group DQ flags so far.
    threshold, reference_dq : (ny, nx)
        From ``prepare_threshold``.
    bias : (ny, nx) float32 or None
        Superbias [DN], for the second group of an averaged ramp.
    nframes : int
        Frames averaged per group.
    grow : int
        How many pixels around a saturated one are flagged too [pixel].
    use_frames : bool
        Whether to look for groups of which only some frames are saturated.
    rows : (nrows,) int, optional
        Which rows of ``data`` are rows of the detector, ascending; default: all. Where they are not all, a hit within the
        second group is the only case of some frames that is looked for, and the flag is ``SATURATED``, also for the
        pixels around it.

    Returns
    -------
    (nints, ngroups, ny, nx) uint8
        ``groupdq`` with ``SATURATED`` from the first saturated group on, ``AD_FLOOR | DO_NOT_USE`` in every group at
        or below 0 DN, and ``DO_NOT_USE`` in a group that is saturated in part.
    """
    rows = np.arange(data.shape[-2]) if rows is None else rows
    area = (rows.size, data.shape[-1])
    for name, array in (("threshold", threshold), ("bias", bias)):
        if array is not None and array.shape != area:
            raise ValueError(
                f"{name} must cover the detector area of data, {area}, but has the shape {array.shape}; "
                "cut the reference to the subarray first"
            )
    flagged = groupdq.copy()
    _flag_full(data, rows, threshold, grow, flagged)
    if use_frames and data.shape[1] > 1:
        level = np.zeros(area, np.float32) if bias is None else bias
        if rows.size < data.shape[-2]:
            if data.shape[1] > 2:
                _flag_hit_in_second_group(data, rows, threshold, level, nframes, grow, flagged)
        else:
            if nframes > 1:
                unchecked = (reference_dq & dq.PIXEL["NO_SAT_CHECK"]) != 0
                _flag_partly_full(data, threshold, unchecked, nframes, grow, flagged)
            if data.shape[1] > 2:
                _flag_second_group(data, threshold, level, nframes, flagged)
    return flagged


def clear_saturated_zeroframe(
    zeroframe: np.ndarray, threshold: np.ndarray, grow: int = 1, rows: np.ndarray | None = None
) -> np.ndarray:
    """First frames with 0 where they are saturated, spilled into, or at the floor of the converter.

    Parameters
    ----------
    zeroframe : (nints, ny, nx) float32
        [DN]
    threshold : (ny, nx) float32
        From ``prepare_threshold`` [DN].
    grow : int
        How many pixels around a saturated one are lost too [pixel].
    rows : (nrows,) int, optional
        Which rows are rows of the detector, ascending; default: all.
    """
    flags = np.zeros((zeroframe.shape[0], 1, *zeroframe.shape[1:]), np.uint8)
    rows = np.arange(zeroframe.shape[-2]) if rows is None else rows
    _flag_full(zeroframe[:, None], rows, threshold, grow, flags)
    return np.where(flags[:, 0] != 0, np.float32(0), zeroframe)


# i = integration, g = group, y = row, x = column
@kernel
def _flag_full(data, rows, threshold, grow, groupdq):
    nints, ngroups, _, nx = data.shape
    ny = rows.size
    full = np.empty((ny, nx), np.bool_)
    spilled = np.empty((ny, nx), np.bool_)
    for i in range(nints):
        full[:] = False
        spilled[:] = False
        for g in range(ngroups):
            # A row is flagged when those that can spill into it have been seen.
            for row in range(ny + grow):
                if row < ny:
                    level = data[i, g, rows[row]]
                    for x in range(nx):
                        # A NaN threshold compares false: the pixel never saturates.
                        if level[x] >= threshold[row, x] and not full[row, x]:
                            full[row, x] = True
                            for v in range(max(0, row - grow), min(ny, row + grow + 1)):
                                for u in range(max(0, x - grow), min(nx, x + grow + 1)):
                                    spilled[v, u] = True
                y = row - grow
                if y >= 0:
                    level, flagged = data[i, g, rows[y]], groupdq[i, g, rows[y]]
                    for x in range(nx):
                        flags = flagged[x]
                        if spilled[y, x]:
                            flags |= _SATURATED
                        if level[x] <= 0:
                            flags |= _FLOOR
                        flagged[x] = flags


@kernel
def _flag_partly_full(data, threshold, unchecked, nframes, grow, groupdq):
    nints, ngroups, ny, nx = data.shape
    spilled = np.empty((ny, nx), np.bool_)
    for i in range(nints):
        for g in range(ngroups - 2, -1, -1):
            # In a steady ramp, the mean of the frames of a group over its last frame.
            ratio = (g * nframes + 0.5 * (nframes + 1)) / ((g + 1) * nframes)
            spilled[:] = False
            found = False
            for y in range(ny):
                for x in range(nx):
                    if groupdq[i, g + 1, y, x] & _SATURATED and not groupdq[i, g, y, x] & (_SATURATED | _DO_NOT_USE):
                        level = np.float64(threshold[y, x]) * (1.0 if unchecked[y, x] else ratio)
                        if data[i, g, y, x] >= level:
                            found = True
                            for v in range(max(0, y - grow), min(ny, y + grow + 1)):
                                for u in range(max(0, x - grow), min(nx, x + grow + 1)):
                                    spilled[v, u] = True
            if found:
                for y in range(ny):
                    for x in range(nx):
                        if spilled[y, x]:
                            groupdq[i, g, y, x] |= _DO_NOT_USE


@kernel
def _flag_second_group(data, threshold, bias, nframes, groupdq):
    # The third group is saturated. If the slope of the first says that it should not be, something hit the pixel;
    # if the second rose by more than one frame at full well would give, the hit was within the second.
    nints, _, ny, nx = data.shape
    for i in range(nints):
        for y in range(ny):
            for x in range(nx):
                if groupdq[i, 2, y, x] & _SATURATED and not groupdq[i, 1, y, x] & _SATURATED:
                    first, second, level = data[i, 0, y, x], data[i, 1, y, x], bias[y, x]
                    expected = np.float64(first - level) / (0.5 * (nframes + 1)) * (3 * nframes) + level
                    if expected < threshold[y, x] and second - first > (threshold[y, x] - first) / np.float32(nframes):
                        groupdq[i, 1, y, x] |= _DO_NOT_USE


@kernel
def _flag_hit_in_second_group(data, rows, threshold, bias, nframes, grow, groupdq):
    # As above, for all pixels whose third group is saturated by itself.
    nints, _, _, nx = data.shape
    ny = rows.size
    for i in range(nints):
        for y in range(ny):
            for x in range(nx):
                if data[i, 2, rows[y], x] >= threshold[y, x]:
                    first, second, level = data[i, 0, rows[y], x], data[i, 1, rows[y], x], bias[y, x]
                    expected = np.float64(first - level) / (0.5 * (nframes + 1)) * (3 * nframes) + level
                    if expected < threshold[y, x] and second - first > (threshold[y, x] - first) / np.float32(nframes):
                        for v in range(max(0, y - grow), min(ny, y + grow + 1)):
                            for u in range(max(0, x - grow), min(nx, x + grow + 1)):
                                groupdq[i, 1, rows[v], u] |= _SATURATED
