"""Count rates of the fine guidance sensor's own exposures, from the difference of two reads (or of two means of reads).

Identification takes two integrations and keeps the smaller difference, which rejects cosmic rays; acquisition and track
take the second read less the first; fine guide the mean of the last four reads less that of the first four.
Source: JWST pipeline documentation, "guider_cds".
"""

import numpy as np

#: Reads averaged at either end of a fine guide integration.
FINE_GUIDE_READS = 4


def difference_reads(data: np.ndarray, exp_type: str) -> np.ndarray:
    """Signal between the first and the last reads.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Reads [DN].
    exp_type : str
        EXP_TYPE of a guider exposure.

    Returns
    -------
    (n, ny, nx) float32
        [DN]; n is 1 for FGS_ID-IMAGE and FGS_ID-STACK, nints for the others.
    """
    nints, ngroups = data.shape[:2]
    fine = exp_type == "FGS_FINEGUIDE"
    needed = FINE_GUIDE_READS if fine else 2
    if ngroups < needed:
        raise ValueError(f"{exp_type} needs {needed} or more groups per integration, but the exposure has {ngroups}")
    if fine:
        return _mean(data[:, -FINE_GUIDE_READS:]) - _mean(data[:, :FINE_GUIDE_READS])
    signal = data[:, 1] - data[:, 0]
    if exp_type.startswith("FGS_ID"):
        if nints < 2:
            raise ValueError(f"{exp_type} needs 2 integrations to compare, but the exposure has {nints}")
        return np.minimum(signal[0], signal[1])[None]
    return signal


def estimate_error(signal: np.ndarray, gain: np.ndarray, readnoise: np.ndarray, group_time: float) -> np.ndarray:
    """Standard deviation of the count rate [DN/s].

    Parameters
    ----------
    signal : (n, ny, nx) float32
        Difference of reads [DN].
    gain, readnoise : (ny, nx) float32
        [e-/DN] and [DN].
    group_time : float
        Time of a group [s].

    Returns
    -------
    (n, ny, nx) float32
        NaN or infinite where the gain is not a positive number.

    Notes
    -----
    The variance is ``2 (readnoise / t)^2 + signal / (gain t)``, as in the official pipeline (version 3.0.0). The Poisson
    term of a rate would be divided by ``t`` once more; we keep theirs, so that ERR means the same in both archives.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        poisson = signal / (gain * np.float32(group_time))
        poisson[poisson < 0] = 0
        variance = 2 * (readnoise / np.float32(group_time)) ** 2 + poisson
        return np.sqrt(variance).astype(np.float32, copy=False)


def _mean(reads: np.ndarray) -> np.ndarray:
    return reads.mean(axis=1, dtype=np.float64).astype(np.float32)
