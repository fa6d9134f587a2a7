"""The sky levels of overlapping images, so that a mosaic has no steps.

Where two images overlap they see the same sky; the difference of their sky levels there is one equation for the
difference of their offsets, weighted with the number of pixels, and least squares solve them all together. Only
differences are known: the lowest level is set to zero ("match"), or to the sky itself ("global+match").

A sky level is the mode of the pixels, after clipping: faint sources make the distribution lopsided, and move its peak
the least. Images that observed together (detectors side by side) get one level.

References
----------
JWST pipeline documentation, "skymatch". The mode is the one of IRAF's imstatistics: the peak, by a parabola through
three bins, of a histogram in steps of a tenth of a standard deviation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gwcs import WCS

from calibration.jit import kernel
from calibration.wcs.imaging import pixel_box


@dataclass(frozen=True)
class SkyStatistic:
    """How a sky level is measured.

    Attributes
    ----------
    kind : "mode", "median", "mean" or "midpt"
    lower, upper : float
        Values beyond these are not looked at.
    nclip : int
        Rounds of clipping.
    lsigma, usigma : float
        What is further below or above the mean is clipped [sigma].
    binwidth : float
        Step of the histogram [sigma].
    """

    kind: str = "mode"
    lower: float = -np.inf
    upper: float = np.inf
    nclip: int = 5
    lsigma: float = 4.0
    usigma: float = 4.0
    binwidth: float = 0.1


@dataclass(frozen=True)
class SkyImage:
    """An image whose sky is measured: ``data`` (ny, nx) float32, ``good`` (ny, nx) bool, ``wcs``."""

    data: np.ndarray
    good: np.ndarray
    wcs: WCS


def sky_level(data: np.ndarray, use: np.ndarray, statistic: SkyStatistic) -> tuple[float, int]:
    """The sky level of an image and the number of pixels that it was measured with.

    Parameters
    ----------
    data : (ny, nx) float32
    use : (ny, nx) bool
        Pixels to look at; NaN is left out.
    statistic : SkyStatistic

    Returns
    -------
    level : float
        NaN if no pixel can be used.
    npix : int
    """
    low, high = statistic.lower, statistic.upper
    for _ in range(statistic.nclip + 1):
        npix, mean, spread, least, most = _moments(data, use, low, high)
        if npix == 0:
            return np.nan, 0
        clip = low, high
        low = max(statistic.lower, mean - statistic.lsigma * spread)
        high = min(statistic.upper, mean + statistic.usigma * spread)
    if statistic.kind == "mean":
        return mean, npix
    if statistic.kind == "median":
        with np.errstate(invalid="ignore"):
            values = data[use & (data >= clip[0]) & (data <= clip[1])]
        return float(np.median(values)), npix
    width = statistic.binwidth * spread
    if not width > 0 or most - least < width:
        return mean, npix
    nbins = int((most - least) / width) + 1
    counts = np.zeros(nbins, np.int64)
    _histogram(data, use, least, (most - least) / (nbins - 1), counts)
    return least + width * (_peak(counts) if statistic.kind == "mode" else _middle(counts)), npix


# y = row, x = column
@kernel
def _moments(data, use, low, high):
    n, total, squares, least, most = 0, 0.0, 0.0, np.inf, -np.inf
    # Sums about a typical value keep their digits.
    origin = np.nan
    ny, nx = data.shape
    for y in range(ny):
        for x in range(nx):
            value = np.float64(data[y, x])
            if use[y, x] and value >= low and value <= high:
                if n == 0:
                    origin = value
                n += 1
                total += value - origin
                squares += (value - origin) ** 2
                least = min(least, value)
                most = max(most, value)
    if n == 0:
        return 0, np.nan, np.nan, np.nan, np.nan
    mean = total / n
    return n, origin + mean, np.sqrt(max(squares / n - mean * mean, 0.0)), least, most


@kernel
def _histogram(data, use, start, width, counts):
    ny, nx = data.shape
    for y in range(ny):
        for x in range(nx):
            if use[y, x] and data[y, x] >= start:
                bin = int((data[y, x] - start) / width)
                if bin < len(counts):
                    counts[bin] += 1


def _peak(counts: np.ndarray) -> float:
    """Where the histogram peaks [bins from its start]."""
    top = int(np.argmax(counts))
    if 0 < top < len(counts) - 1:
        before, after = int(counts[top] - counts[top - 1]), int(counts[top] - counts[top + 1])
        if before + after > 0:
            return top + 0.5 + 0.5 * (before - after) / (before + after)
    return top + 0.5


def _middle(counts: np.ndarray) -> float:
    """Where half of the pixels are below [bins from the start of the histogram]."""
    share = np.cumsum(counts) / counts.sum()
    at = int(np.argmax(share >= 0.5))
    before = share[at - 1] if at else 0.0
    return at + (0.5 - before) / (share[at] - before)


def match_skies(
    images: Sequence[SkyImage],
    groups: Sequence[Sequence[int]],
    method: str = "match",
    match_down: bool = True,
    statistic: SkyStatistic = SkyStatistic(),
) -> list[float]:
    """The sky level to subtract from each image.

    Parameters
    ----------
    images : sequence of SkyImage
    groups : sequence of sequences of int
        Which images observed together.
    method : "local", "global", "match" or "global+match"
        The level of each image; the lowest of all; what makes them equal where they overlap; that and the lowest.
    match_down : bool
        Match to the lowest level rather than to the highest.
    statistic : SkyStatistic

    Returns
    -------
    list of float
        NaN for an image that has no sky or, with "match", overlaps none.
    """
    offsets = np.zeros(len(groups))
    if "match" in method:
        offsets = _matched(images, groups, statistic)
        known = np.isfinite(offsets)
        if known.any():
            offsets[known] -= offsets[known].min() if match_down else offsets[known].max()
    if method != "match":
        levels = np.array([min(sky_level(images[k].data, images[k].good, statistic)[0] for k in g) for g in groups])
        if "global" in method:
            rest = levels - np.nan_to_num(offsets)
            levels = np.full(len(groups), np.nanmin(rest) if np.isfinite(rest).any() else np.nan)
            offsets = np.nan_to_num(offsets) + levels
        else:
            offsets = levels
    result = [np.nan] * len(images)
    for group, offset in zip(groups, offsets, strict=True):
        for k in group:
            result[k] = float(offset)
    return result


def _matched(images: Sequence[SkyImage], groups: Sequence[Sequence[int]], statistic: SkyStatistic) -> np.ndarray:
    level, weight = np.full((2, len(groups), len(groups)), np.nan)
    for a in range(len(groups)):
        for b in range(len(groups)):
            if a != b:
                level[a, b], weight[a, b] = _level_in_overlap(images, groups[a], groups[b], statistic)
    rows, values = [], []
    for a in range(len(groups)):
        for b in range(a + 1, len(groups)):
            if weight[a, b] > 0 and weight[b, a] > 0:
                mean = (weight[a, b] + weight[b, a]) / 2
                row = np.zeros(len(groups))
                row[a], row[b] = mean, -mean
                rows.append(row)
                values.append(mean * (level[a, b] - level[b, a]))
    offsets = np.full(len(groups), np.nan)
    if rows:
        matrix = np.array(rows)
        solved = np.linalg.pinv(matrix, rcond=1e-12) @ np.array(values)
        connected = matrix.any(axis=0)
        offsets[connected] = solved[connected]
    return offsets


def _level_in_overlap(
    images: Sequence[SkyImage], group: Sequence[int], other: Sequence[int], statistic: SkyStatistic
) -> tuple[float, float]:
    """The sky level of a group where another group looks too, and its number of pixels."""
    total, count = 0.0, 0
    for k in group:
        image = images[k]
        shared = np.zeros(image.data.shape, bool)
        for m in other:
            shared |= covered_by(image.wcs, image.data.shape, images[m].wcs, images[m].data.shape)
        shared &= image.good
        level, npix = sky_level(image.data, shared, statistic)
        if npix:
            total += level * npix
            count += npix
    return (total / count, float(count)) if count else (np.nan, 0.0)


def covered_by(wcs: WCS, shape: tuple[int, int], other: WCS, other_shape: tuple[int, int]) -> np.ndarray:
    """(ny, nx) bool: which pixels of an image another one covers, by its outline with eight points along a side."""
    (x0, x1), (y0, y1) = pixel_box(other, other_shape)
    along = np.linspace(0, 1, 8, endpoint=False)
    x = np.concatenate([x0 + (x1 - x0) * along, np.full(8, x1), x1 - (x1 - x0) * along, np.full(8, x0)])
    y = np.concatenate([np.full(8, y0), y0 + (y1 - y0) * along, np.full(8, y1), y1 - (y1 - y0) * along])
    px, py = wcs.invert(*other(x, y, with_bounding_box=False), with_bounding_box=False)
    covered = np.zeros(shape, np.bool_)
    if np.isfinite(px).all() and np.isfinite(py).all():
        _fill(np.asarray(px, float), np.asarray(py, float), covered)
    return covered


# y = row, e = edge
@kernel
def _fill(px, py, covered):
    ny, nx = covered.shape
    for y in range(ny):
        left, right = np.inf, -np.inf
        for e in range(len(px)):
            f = (e + 1) % len(px)
            if (py[e] <= y) != (py[f] <= y):
                crossing = px[e] + (y - py[e]) * (px[f] - px[e]) / (py[f] - py[e])
                left, right = min(left, crossing), max(right, crossing)
        if left <= right:
            first, last = max(0, int(np.ceil(left))), min(nx - 1, int(np.floor(right)))
            for x in range(first, last + 1):
                covered[y, x] = True
