"""Divide by the flat field, and mark with one voice what cannot be used.

The flat is the response of each pixel relative to the mean of the detector; its own uncertainty is a third source of
noise beside photons and readout. A pixel without a usable flat keeps its value in the division and is then invalid.

References
----------
JWST pipeline documentation, "flat_field", section "Imaging and non-NIRSpec spectroscopic data".
"""

from dataclasses import dataclass

import numpy as np

from calibration import dq as bits
from calibration.jit import kernel

DO_NOT_USE = bits.PIXEL["DO_NOT_USE"]
NO_FLAT_FIELD = bits.PIXEL["NO_FLAT_FIELD"]


@dataclass(frozen=True)
class Flattened:
    """What the division gives; arrays of the shape of the data, ``dq`` uint32 and the others float32."""

    data: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    var_poisson: np.ndarray
    var_rnoise: np.ndarray
    var_flat: np.ndarray


def divide_flat(
    data: np.ndarray,
    dq: np.ndarray,
    var_poisson: np.ndarray,
    var_rnoise: np.ndarray,
    flat: np.ndarray,
    flat_err: np.ndarray,
    flat_dq: np.ndarray,
) -> Flattened:
    """Divide an image, or one per integration, by the flat field, and propagate its errors.

    Parameters
    ----------
    data, var_poisson, var_rnoise : (..., ny, nx) float32
        Signal and its variances.
    dq : (..., ny, nx) uint32
    flat, flat_err : (ny, nx) float32
        Relative response and its standard deviation; a response that is NaN or 0 is no response.
    flat_dq : (ny, nx) uint32

    Returns
    -------
    Flattened
        ``err`` = sqrt(var_poisson + var_rnoise + var_flat). Where anything is NaN or the flags say DO_NOT_USE, all
        arrays are NaN and the flag is set.

    Raises
    ------
    ValueError
        If the flat covers another area than the data.
    """
    for name, array in (("flat", flat), ("flat_err", flat_err), ("flat_dq", flat_dq)):
        if array.shape != data.shape[-2:]:
            raise ValueError(
                f"{name} must cover the area of the data, {data.shape[-2:]}, but has the shape {array.shape}; "
                "cut the reference to the subarray first"
            )
    size = (-1, *data.shape[-2:])
    out = [np.empty(data.shape, np.float32) for _ in range(5)]
    out_dq = np.empty(data.shape, np.uint32)
    _divide(
        data.reshape(size),
        dq.reshape(size),
        var_poisson.reshape(size),
        var_rnoise.reshape(size),
        flat,
        flat_err,
        flat_dq,
        *(array.reshape(size) for array in out),
        out_dq.reshape(size),
    )
    return Flattened(out[0], out[1], out_dq, *out[2:])


# i = integration, y = row, x = column
@kernel
def _divide(data, dq, poisson, rnoise, flat, flat_err, flat_dq, sci, err, out_poisson, out_rnoise, out_flat, out_dq):
    nints, ny, nx = data.shape
    for i in range(nints):
        for y in range(ny):
            for x in range(nx):
                response = np.float64(flat[y, x])
                flags = flat_dq[y, x]
                if not (response != 0.0 and np.isfinite(response)):
                    flags |= NO_FLAT_FIELD
                if flags & NO_FLAT_FIELD:
                    flags |= DO_NOT_USE
                flags |= dq[i, y, x]
                signal = data[i, y, x] / response
                from_flat = (signal * flat_err[y, x] / response) ** 2
                from_photons = poisson[i, y, x] / response**2
                from_readout = rnoise[i, y, x] / response**2
                total = from_photons + from_readout + from_flat
                if flags & DO_NOT_USE or np.isnan(signal) or np.isnan(total):
                    flags |= DO_NOT_USE
                    signal = from_photons = from_readout = from_flat = total = np.nan
                sci[i, y, x] = signal
                err[i, y, x] = np.sqrt(total)
                out_poisson[i, y, x] = from_photons
                out_rnoise[i, y, x] = from_readout
                out_flat[i, y, x] = from_flat
                out_dq[i, y, x] = flags


def divide_flat_of_guider(
    data: np.ndarray, err: np.ndarray, dq: np.ndarray, flat: np.ndarray, flat_err: np.ndarray, flat_dq: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide guider images (n, ny, nx), which have one error and one DQ plane (ny, nx) and no variances, by the flat.

    The error of the data itself is left as it is; the one of the flat is added to it in quadrature. Pixels without a
    usable flat are not divided, and flagged.

    Returns
    -------
    data, err : (n, ny, nx) float32
    dq : (ny, nx) uint32
    """
    unusable = ~(np.isfinite(flat) & (flat != 0)) | ((flat_dq & (NO_FLAT_FIELD | DO_NOT_USE)) != 0)
    flags = flat_dq.copy()
    flags[~(np.isfinite(flat) & (flat != 0))] |= NO_FLAT_FIELD
    flags[unusable] |= DO_NOT_USE
    response = np.where(unusable, np.float32(1), flat)
    divided = data / response
    spread = np.sqrt(err**2 + (divided * flat_err / response) ** 2)
    invalid = np.isnan(divided) | np.isnan(spread)
    divided[invalid] = np.nan
    spread[invalid] = np.nan
    return divided.astype(np.float32), spread.astype(np.float32), dq | flags
