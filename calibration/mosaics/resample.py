"""Put exposures on one grid by drizzling, and propagate their errors.

Each input pixel gives its surface brightness to the output pixels that it covers, in proportion to the area and its
weight (`calibration.mosaics.drizzle`). The weight of a pixel is the inverse of its readout variance, so that bright
sources, whose photon noise is theirs, do not weigh themselves.

The variances of an exposure are resampled with the same weights as standard deviations, as neighbouring output pixels
share their input; the exposures then combine with the inverse of the resampled readout variance.

References
----------
JWST pipeline documentation, "resample", sections "Error propagation" and "Weighting".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from calibration.jit import kernel as compiled
from calibration.mosaics.drizzle import spread

#: The noise components, in the order of the files.
NOISES = ("var_rnoise", "var_poisson", "var_flat")


@dataclass(frozen=True)
class Exposure:
    """What is drizzled.

    Attributes
    ----------
    data : (ny, nx) float32
        Surface brightness, sky subtracted; NaN where there is none.
    weight : (ny, nx) float32
        0 where a pixel must not be used.
    pixmap : (ny, nx, 2) float64
        Where its pixels stand in the mosaic; NaN where they do not.
    variances : mapping
        Name of `NOISES` -> (ny, nx) float32; those that there are.
    exptime : float
        Exposure time [s].
    """

    data: np.ndarray
    weight: np.ndarray
    pixmap: np.ndarray
    variances: Mapping[str, np.ndarray]
    exptime: float


@dataclass(frozen=True)
class Mosaic:
    """A mosaic: arrays (ny, nx) float32, NaN where no exposure contributes.

    Attributes
    ----------
    data, weight
        Surface brightness and the sum of the weights.
    context : (nplanes, ny, nx) int32 or None
        Exposure n contributes where bit n % 32 of plane n // 32 is set.
    variances : mapping
        Name of `NOISES` -> variance.
    err : ndarray
        Standard deviation: the root of their sum.
    """

    data: np.ndarray
    weight: np.ndarray
    context: np.ndarray | None
    variances: Mapping[str, np.ndarray]
    err: np.ndarray


def drizzle_weight(
    dq: np.ndarray, good_bits: int, weight_type: str | None, var_rnoise: np.ndarray | None, exptime: float
) -> np.ndarray:
    """The weight of each pixel.

    Parameters
    ----------
    dq : (ny, nx) uint32
        A pixel with any flag but ``good_bits`` gets the weight 0.
    weight_type : "ivm", "exptime" or None
        Inverse readout variance, exposure time, or 1.
    var_rnoise : (ny, nx) float32 or None
        Without it, "ivm" is 1.
    exptime : float
        Measurement time [s].

    Returns
    -------
    (ny, nx) float32
    """
    usable = (dq & ~np.uint32(good_bits)) == 0
    if weight_type == "exptime":
        return np.where(usable, np.float32(exptime), np.float32(0))
    if weight_type == "ivm" and var_rnoise is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = np.float32(1) / var_rnoise
        return np.where(usable & np.isfinite(weight), weight, np.float32(0)).astype(np.float32, copy=False)
    return usable.astype(np.float32)


def drizzle(
    exposures: Iterable[Exposure],
    shape: tuple[int, int],
    count: int,
    kernel: str = "square",
    pixfrac: float = 1.0,
    scale_ratio: float = 1.0,
    with_errors: bool = True,
    with_context: bool = True,
    weight_type: str | None = "ivm",
    fill: float = np.nan,
) -> Mosaic:
    """Put exposures on one grid, one after the other: memory holds one of them and the mosaic.

    Parameters
    ----------
    exposures : iterable of Exposure
    shape : (int, int)
        (ny, nx) of the mosaic.
    count : int
        How many exposures there are.
    kernel, pixfrac
        How an input pixel is spread: "square", "gaussian", "point", "turbo", "lanczos2" or "lanczos3", and the
        fraction of its side that it covers.
    scale_ratio : float
        Side of an output pixel over that of an input pixel.
    with_errors, with_context : bool
        Whether to make those planes.
    weight_type : str or None
        How exposures combine in the variances: "ivm" by their readout noise, else by exposure time.
    fill : float
        Value of ``data`` where nothing contributes.
    """
    data = np.zeros(shape, np.float32)
    weight = np.zeros(shape, np.float32)
    context = np.zeros(((count - 1) // 32 + 1, *shape), np.int32) if with_context else None
    sums = {name: np.zeros(shape, np.float32) for name in NOISES} if with_errors else {}
    weights = {name: np.zeros(shape, np.float32) for name in sums}
    for n, exposure in enumerate(exposures):
        window = _window(exposure.pixmap, shape)
        if window is None:
            continue
        names = tuple(name for name in exposure.variances if with_errors)
        planes = [exposure.data, *(np.sqrt(exposure.variances[name]) for name in names)]
        rows, columns = window
        spreads, share = spread(
            planes,
            exposure.weight,
            exposure.pixmap,
            (columns.start, rows.start),
            (rows.stop - rows.start, columns.stop - columns.start),
            kernel,
            pixfrac,
            scale_ratio,
        )
        data[window] += spreads[0]
        weight[window] += share
        if context is not None:
            # The 32nd bit is the sign.
            context[(n // 32, *window)] |= np.where(share != 0, np.uint32(1 << n % 32).astype(np.int32), np.int32(0))
        deviations = dict(zip(names, spreads[1:], strict=True))
        rnoise = deviations.get("var_rnoise") if weight_type == "ivm" else None
        for name, deviation in deviations.items():
            by = share * np.float32(exposure.exptime**-0.5) if rnoise is None else rnoise
            _accumulate(deviation, by, share, sums[name][window], weights[name][window])
    err = np.full(shape, np.nan, np.float32)
    if with_errors:
        _finish(*(sums[name] for name in NOISES), *(weights[name] for name in NOISES), scale_ratio**-2, err)
    _normalise(data, weight, fill)
    return Mosaic(data, weight, context, sums, err)


def _window(pixmap: np.ndarray, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """The part of the mosaic that an exposure can reach; None if there is none."""
    low_x, low_y, high_x, high_y = _extent(pixmap)
    if not low_x <= high_x or max(abs(low_x), abs(low_y), abs(high_x), abs(high_y)) > 1e9:
        return None
    x0, y0 = max(int(low_x) - 3, 0), max(int(low_y) - 3, 0)
    x1, y1 = min(int(high_x) + 4, shape[1]), min(int(high_y) + 4, shape[0])
    return (slice(y0, y1), slice(x0, x1)) if x1 > x0 and y1 > y0 else None


@compiled
def _extent(pixmap):
    """Least x and y, largest x and y, of what is not NaN; the least is above the largest where all is."""
    ny, nx = pixmap.shape[:2]
    low_x, low_y, high_x, high_y = np.inf, np.inf, -np.inf, -np.inf
    for y in range(ny):
        for x in range(nx):
            at_x, at_y = pixmap[y, x, 0], pixmap[y, x, 1]
            # NaN compares false.
            if at_x < low_x:
                low_x = at_x
            if at_x > high_x:
                high_x = at_x
            if at_y < low_y:
                low_y = at_y
            if at_y > high_y:
                high_y = at_y
    return low_x, low_y, high_x, high_y


# y = row, x = column
@compiled
def _normalise(data, weight, fill):
    ny, nx = data.shape
    for y in range(ny):
        for x in range(nx):
            data[y, x] = data[y, x] / weight[y, x] if weight[y, x] != 0 else fill


@compiled
def _accumulate(deviation, by, share, total, weights):
    """Add the variance of an exposure with the weight 1 / ``by`` squared; both come times the exposure's ``share``."""
    ny, nx = deviation.shape
    for y in range(ny):
        for x in range(nx):
            norm = share[y, x] * share[y, x]
            if norm > 0:
                reference = by[y, x] * by[y, x] / norm
                variance = deviation[y, x] * deviation[y, x] / norm
                if reference > 0 and variance >= 0:
                    weight = np.float32(1) / reference
                    total[y, x] += variance * weight * weight
                    weights[y, x] += weight


@compiled
def _finish(rnoise, poisson, flat, rnoise_weight, poisson_weight, flat_weight, scale, err):
    """Turn sums into variances, in place, and fill in their root sum."""
    ny, nx = err.shape
    for y in range(ny):
        for x in range(nx):
            known = False
            total = np.float32(0)
            for noise, weight in ((rnoise, rnoise_weight), (poisson, poisson_weight), (flat, flat_weight)):
                if weight[y, x] > 0:
                    noise[y, x] = noise[y, x] / weight[y, x] / weight[y, x] * scale
                    total += noise[y, x]
                    known = True
                else:
                    noise[y, x] = np.nan
            if known:
                err[y, x] = np.sqrt(total)
