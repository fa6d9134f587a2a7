"""Measure sources by the map of them: light, centroid, shape, box; and in ellipses and circles without the neighbours.

Centroid and second moments are those of the smoothed image, as in SExtractor (Bertin and Arnouts 1996, A&AS 117, 393):
its negative pixels count as 0, and a source thinner than a pixel gets the variance of one, 1/12. All sources are measured
in one pass over the map. The definitions are those of `photutils.segmentation.SourceCatalog`.
"""

from dataclasses import dataclass

import numpy as np

from calibration.jit import kernel

#: The ellipse in which the radius of Kron is measured, in semi-axes (Kron 1980, ApJS 43, 305; the value of SExtractor).
KRON_REACH = 6.0
#: How pixels of other sources count in an ellipse: as the pixel on the other side of the centre, not at all, or as they are.
NEIGHBOURS = ("correct", "mask", "none")


@dataclass(frozen=True)
class Isophotes:
    """What the pixels of each source say: arrays (nsources,), source 1 first; NaN where a source has no light.

    Attributes
    ----------
    x, y : float
        Centroid, zero-based pixel.
    flux, flux_err : float
        Sum and its standard deviation, in the unit of the image.
    area : int
        Pixels that have data.
    missing : int
        Pixels that have none.
    major, minor, orientation : float
        Semi-axes [pixel] at one standard deviation, and the angle from x to the major one [radian].
    x0, x1, y0, y1 : int
        First and last column and row.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    flux_err: np.ndarray
    area: np.ndarray
    missing: np.ndarray
    major: np.ndarray
    minor: np.ndarray
    orientation: np.ndarray
    x0: np.ndarray
    x1: np.ndarray
    y0: np.ndarray
    y1: np.ndarray


def measure_isophotes(
    data: np.ndarray, err: np.ndarray | None, smoothed: np.ndarray, labels: np.ndarray, count: int, mask: np.ndarray
) -> Isophotes:
    """Measure every source by its pixels.

    Parameters
    ----------
    data : (ny, nx) float32
        Background subtracted.
    err : (ny, nx) float32 or None
        Without it the errors are 0.
    smoothed : (ny, nx)
        For the moments.
    labels : (ny, nx) int32
        1 to ``count``; 0 is no source.
    mask : (ny, nx) bool
        Pixels without data.
    """
    sums, box = np.zeros((count, 10)), np.zeros((count, 4), np.int64)
    box[:, :2] = -1
    _sum(data, data if err is None else err, err is not None, smoothed, labels, mask, sums, box)
    total, mx, my, mxx, mxy, myy, flux, variance, area, missing = sums.T
    flux, flux_err = np.where(area > 0, flux, np.nan), np.sqrt(np.where(area > 0, variance, np.nan))
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = mx / total, my / total
        xx, xy, yy = mxx / total - x * x, mxy / total - x * y, myy / total - y * y
    xx, yy = _thicken(xx, xy, yy)
    middle, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    with np.errstate(invalid="ignore"):
        major, minor = np.sqrt(middle + half), np.sqrt(middle - half)
    return Isophotes(
        box[:, 2] + x,
        box[:, 0] + y,
        flux,
        flux_err,
        area.astype(np.int64),
        missing.astype(np.int64),
        major,
        minor,
        0.5 * np.arctan2(2 * xy, xx - yy),
        box[:, 2],
        box[:, 3],
        box[:, 0],
        box[:, 1],
    )


def _thicken(xx: np.ndarray, xy: np.ndarray, yy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances of at least a pixel: 1/12 more along both axes until the ellipse is that large; NaN if it is none."""
    pixel = 1 / 12
    none = xx * yy - xy * xy < 0
    xx, yy = np.where(none, np.nan, xx), np.where(none, np.nan, yy)
    while (thin := xx * yy - xy * xy < pixel**2).any():
        xx, yy = xx + pixel * thin, yy + pixel * thin
    return xx, yy


# j = row, i = column, s = source
@kernel
def _sum(data, err, has_err, smoothed, labels, mask, sums, box):
    ny, nx = labels.shape
    for j in range(ny):
        for i in range(nx):
            s = labels[j, i] - 1
            if s < 0:
                continue
            if box[s, 0] < 0:
                box[s, 0], box[s, 2], box[s, 3] = j, i, i
            box[s, 1], box[s, 3] = j, max(box[s, 3], i)
            box[s, 2] = min(box[s, 2], i)
    for j in range(ny):
        for i in range(nx):
            s = labels[j, i] - 1
            if s < 0:
                continue
            if mask[j, i]:
                sums[s, 9] += 1
                continue
            value = smoothed[j, i]
            if np.isfinite(value) and value > 0:
                dx, dy = i - box[s, 2], j - box[s, 0]
                sums[s, 0] += value
                sums[s, 1] += value * dx
                sums[s, 2] += value * dy
                sums[s, 3] += value * dx * dx
                sums[s, 4] += value * dx * dy
                sums[s, 5] += value * dy * dy
            if np.isfinite(data[j, i]):
                sums[s, 6] += data[j, i]
                sums[s, 8] += 1
                if has_err:
                    sums[s, 7] += err[j, i] ** 2
            else:
                sums[s, 9] += 1


@dataclass(frozen=True)
class KronLight:
    """Light in the ellipse of Kron: arrays (nsources,); NaN where there is no such ellipse.

    Attributes
    ----------
    flux, flux_err : float
        In the unit of the image.
    radius : float
        Semi-major axis of the ellipse [pixel]; of a circle where it would be smaller than the least one.
    """

    flux: np.ndarray
    flux_err: np.ndarray
    radius: np.ndarray


def measure_kron(
    data: np.ndarray,
    err: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    shapes: Isophotes,
    params: tuple[float, float, float],
    neighbours: str,
    sky: np.ndarray,
) -> KronLight:
    """The light of each source in an ellipse as large as its own light makes it.

    The radius is the mean of the elliptical radius, weighted by the light, in six times the ellipse of the moments
    (Kron 1980, ApJS 43, 305); the light is summed in a multiple of it. A galaxy or a Gaussian star has 94 % and more of
    its light there, and always about the same share.

    Parameters
    ----------
    data, err : (ny, nx) float32
        Background subtracted, and its standard deviation.
    labels : (ny, nx) int32
    mask : (ny, nx) bool
        Pixels without data; they and NaN do not count.
    shapes : Isophotes
    params : (float, float, float)
        The multiple; the least radius in semi-axes; the least radius of a circle of the same area [pixel].
    neighbours : "correct", "mask" or "none"
    sky : (nsources,)
        What is left of the background around each source, per pixel.
    """
    result = np.full((3, len(shapes.x)), np.nan)
    _kron(
        data,
        err,
        labels,
        mask,
        shapes.x,
        shapes.y,
        shapes.major,
        shapes.minor,
        shapes.orientation,
        np.array(params, float),
        NEIGHBOURS.index(neighbours),
        sky,
        result,
    )
    return KronLight(*result)


# s = source, j = row, i = column
@kernel
def _kron(data, err, labels, mask, x, y, major, minor, orientation, params, neighbours, sky, result):
    ny, nx = data.shape
    for s in range(len(x)):
        if not (np.isfinite(x[s]) and np.isfinite(major[s]) and minor[s] > 0):
            continue
        cos, sin = np.cos(orientation[s]), np.sin(orientation[s])
        xx, yy = (cos / major[s]) ** 2 + (sin / minor[s]) ** 2, (sin / major[s]) ** 2 + (cos / minor[s]) ** 2
        xy = 2 * cos * sin * (1 / major[s] ** 2 - 1 / minor[s] ** 2)
        wide = KRON_REACH * np.hypot(major[s] * cos, minor[s] * sin)
        high = KRON_REACH * np.hypot(major[s] * sin, minor[s] * cos)
        weighted, light = 0.0, 0.0
        for j in range(max(0, int(np.ceil(y[s] - high))), min(ny, int(y[s] + high) + 1)):
            for i in range(max(0, int(np.ceil(x[s] - wide))), min(nx, int(x[s] + wide) + 1)):
                dx, dy = i - x[s], j - y[s]
                r2 = xx * dx * dx + xy * dx * dy + yy * dy * dy
                if r2 > KRON_REACH**2 or mask[j, i] or not np.isfinite(data[j, i]):
                    continue
                at = _seen(data, labels, mask, s + 1, x[s], y[s], j, i, neighbours)
                if at[0] >= 0:
                    weighted += np.sqrt(max(r2, 0.0)) * data[at]
                    light += data[at]
        radius = weighted / light if weighted > 0 and light > 0 else params[1]
        if radius > KRON_REACH:
            continue
        scale = params[0] * max(radius, params[1])
        if scale * np.sqrt(major[s] * minor[s]) <= params[2]:
            xx, xy, yy, scale = 1.0, 0.0, 1.0, params[2]
            wide, high = scale, scale
            result[2, s] = scale
        else:
            wide, high = wide * scale / KRON_REACH, high * scale / KRON_REACH
            result[2, s] = scale * major[s]
        flux, variance, n = 0.0, 0.0, 0
        for j in range(max(0, int(np.ceil(y[s] - high - 0.5))), min(ny, int(y[s] + high + 0.5) + 1)):
            for i in range(max(0, int(np.ceil(x[s] - wide - 0.5))), min(nx, int(x[s] + wide + 0.5) + 1)):
                if mask[j, i] or not np.isfinite(data[j, i]):
                    continue
                share = _share(i - x[s], j - y[s], xx, xy, yy, scale)
                if share <= 0:
                    continue
                at = _seen(data, labels, mask, s + 1, x[s], y[s], j, i, neighbours)
                n += 1
                if at[0] >= 0:
                    flux += share * (data[at] - sky[s])
                    variance += share * err[at] ** 2
        if n > 0:
            result[0, s], result[1, s] = flux, np.sqrt(variance)


def measure_circles(
    data: np.ndarray,
    err: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    radius: float,
    sky: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The light in a circle around each source as if it were alone and whole, and its error: (nsources,).

    For a pixel of another source, without data, or beyond the edge stands the one on the other side of the centre. Where
    there is none, another source counts as dark, and a pixel without data makes the light unknown (NaN).

    Parameters
    ----------
    data, err : (ny, nx) float32
        Background subtracted, and its standard deviation.
    labels : (ny, nx) int32
        Source ``s`` has the label ``s + 1``.
    mask : (ny, nx) bool
        Pixels without data.
    x, y : (nsources,) float
        Zero-based pixel.
    radius : float
        [pixel]
    sky : (nsources,)
        What is left of the background around each source, per pixel.
    """
    flux, variance = np.full((2, len(x)), np.nan)
    _circle(data, err, labels, mask, x, y, radius, sky, flux, variance)
    return flux, np.sqrt(variance)


# s = source, j = row, i = column
@kernel
def _circle(data, err, labels, mask, x, y, radius, sky, flux, variance):
    ny, nx = data.shape
    for s in range(len(x)):
        if not (np.isfinite(x[s]) and np.isfinite(y[s])):
            continue
        light, noise = 0.0, 0.0
        for j in range(int(np.ceil(y[s] - radius - 0.5)), int(np.floor(y[s] + radius + 0.5)) + 1):
            for i in range(int(np.ceil(x[s] - radius - 0.5)), int(np.floor(x[s] + radius + 0.5)) + 1):
                share = _share(i - x[s], j - y[s], 1.0, 0.0, 1.0, radius)
                if share <= 0:
                    continue
                good = 0 <= j < ny and 0 <= i < nx and not mask[j, i] and np.isfinite(data[j, i])
                other = good and labels[j, i] != 0 and labels[j, i] != s + 1
                at = (j, i) if good and not other else _opposite(data, labels, mask, s + 1, x[s], y[s], j, i)
                if at[0] >= 0:
                    light += share * (data[at] - sky[s])
                    noise += share * err[at] ** 2
                elif not other:
                    light = np.nan
        flux[s], variance[s] = light, noise


@kernel
def _seen(data, labels, mask, own, x, y, j, i, neighbours):
    """The pixel that stands for this one: itself, or the one on the other side of the centre; -1 if neither is good."""
    other = labels[j, i] != 0 and labels[j, i] != own
    if neighbours == 2 or not other:
        return j, i
    if neighbours == 1:
        return -1, -1
    return _opposite(data, labels, mask, own, x, y, j, i)


@kernel
def _opposite(data, labels, mask, own, x, y, j, i):
    """The pixel on the other side of the centre, if it has data and is of no other source; else -1."""
    ny, nx = data.shape
    j, i = int(np.floor(2 * y - j + 0.5)), int(np.floor(2 * x - i + 0.5))
    if j < 0 or i < 0 or j >= ny or i >= nx or mask[j, i] or not np.isfinite(data[j, i]):
        return -1, -1
    if labels[j, i] != 0 and labels[j, i] != own:
        return -1, -1
    return j, i


@kernel
def _share(dx, dy, xx, xy, yy, scale):
    """The share of a pixel at (dx, dy) that is in the ellipse xx dx^2 + xy dx dy + yy dy^2 = scale^2: eight strips."""
    total = 0.0
    for k in range(8):
        u = dx - 0.5 + (k + 0.5) / 8
        root = (xy * u) ** 2 - 4 * yy * (xx * u * u - scale * scale)
        if root > 0:
            middle, half = -xy * u / (2 * yy), np.sqrt(root) / (2 * yy)
            total += max(0.0, min(dy + 0.5, middle + half) - max(dy - 0.5, middle - half))
    return total / 8
