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

from collections.abc import Callable, Sequence
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
    """An image whose sky is measured.

    ``read`` gives its ``data`` (ny, nx) float32 and which pixels are ``good`` (ny, nx) bool; it is called once, and one
    image is in memory at a time. ``shape`` is (ny, nx).
    """

    read: Callable[[], tuple[np.ndarray, np.ndarray]]
    shape: tuple[int, int]
    wcs: WCS


@dataclass(frozen=True)
class Pixels:
    """Some pixels of an image: their ``values`` (n,) float32, and about the same in short.

    ``counts`` tells how many have about each of ``places``, which increase: rounded to a thousandth of the noise of the
    sky, which is as good for what is clipped, and makes a round of clipping cost nothing.
    """

    values: np.ndarray
    places: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Binned:
    """An image as numbers of fine bins: ``number`` (ny, nx) uint16, from ``low`` on in steps of ``width``.

    `_FAR` is a pixel beyond all bins, `_UNUSED` one that is not good.
    """

    data: np.ndarray
    number: np.ndarray
    low: float
    width: float

    def within(self, covered: np.ndarray) -> Pixels:
        """The good pixels where ``covered`` (ny, nx) bool."""
        counts, values, far = np.zeros(_BINS, np.int64), *np.empty((2, self.data.size), np.float32)
        n, beyond = _gather(self.data, self.number, covered, counts, values, far)
        bins = np.flatnonzero(counts)
        places = np.concatenate([far[:beyond].astype(float), self.low + (bins + 0.5) * self.width])
        order = np.argsort(places, kind="stable")
        return Pixels(values[:n], places[order], np.concatenate([np.ones(beyond, np.int64), counts[bins]])[order])


#: Bins of an image, and the width of one [sigma of the sky].
_BINS, _BIN = 20_000, 1e-3
_FAR, _UNUSED = 65_534, 65_535


def bin_image(data: np.ndarray, good: np.ndarray) -> Binned:
    """An image (ny, nx) float32 in bins around its sky; pixels that are not ``good`` (ny, nx) bool, or NaN, are left out."""
    step = max(1, data.size // 100_000)
    some = data.ravel()[::step][good.ravel()[::step]]
    some = some[np.isfinite(some)]
    middle, spread = 0.0, 0.0
    for _ in range(6):
        if some.size:
            middle, spread = float(np.median(some)), float(some.std(dtype=float))
            some = some[np.abs(some - middle) <= 3 * spread]
    width = _BIN * spread
    low = middle - 0.5 * _BINS * width
    number = np.empty(data.shape, np.uint16)
    _put_into_bins(data, good, low, width, number)
    return Binned(data, number, low, width)


# y = row, x = column
@kernel
def _put_into_bins(data, good, low, width, number):
    """Without a width, all is far."""
    ny, nx = data.shape
    for y in range(ny):
        for x in range(nx):
            if not good[y, x] or not np.isfinite(data[y, x]):
                number[y, x] = _UNUSED
            else:
                bin = (np.float64(data[y, x]) - low) / width if width > 0 else -1.0
                number[y, x] = np.uint16(bin) if 0 <= bin < _BINS else _FAR


@kernel
def _gather(data, number, covered, counts, values, far):
    """Put the good pixels that are covered one after the other, and count them in bins; those that are far apart as well."""
    ny, nx = data.shape
    n, beyond = 0, 0
    for y in range(ny):
        for x in range(nx):
            bin = number[y, x]
            if covered[y, x] and bin != _UNUSED:
                values[n] = data[y, x]
                n += 1
                if bin < _BINS:
                    counts[bin] += 1
                else:
                    far[beyond] = data[y, x]
                    beyond += 1
    return n, beyond


def sky_level(pixels: Pixels, statistic: SkyStatistic) -> tuple[float, int]:
    """The sky level of some pixels and the number of pixels that it was measured with; NaN and 0 if there is none."""
    places, counts = pixels.places, pixels.counts
    if not len(places):
        return np.nan, 0
    origin = places[len(places) // 2]
    sums = np.zeros((3, len(places) + 1))
    np.cumsum([counts, counts * (places - origin), counts * (places - origin) ** 2], axis=1, out=sums[:, 1:])
    low, high = statistic.lower, statistic.upper
    before = -1.0
    for _ in range(statistic.nclip + 1):
        first, last = np.searchsorted(places, low, "left"), np.searchsorted(places, high, "right")
        number, total, squares = sums[:, last] - sums[:, first]
        if number == 0:
            return np.nan, 0
        mean = float(origin + total / number)
        spread = float(np.sqrt(max(squares / number - (total / number) ** 2, 0.0)))
        clip = low, high
        if number == before:  # nothing more is clipped
            break
        before = number
        low = max(statistic.lower, mean - statistic.lsigma * spread)
        high = min(statistic.upper, mean + statistic.usigma * spread)
    npix = round(number)
    if statistic.kind == "mean":
        return mean, npix
    if statistic.kind == "median":
        return float(np.median(pixels.values[(pixels.values >= clip[0]) & (pixels.values <= clip[1])])), npix
    # Where a mode has its bins matters: they begin with the least value itself.
    least, most = _extremes(pixels.values, *clip)
    width = statistic.binwidth * spread
    if not width > 0 or not most - least >= width:
        return mean, npix
    nbins = int((most - least) / width) + 1
    histogram = np.zeros(nbins, np.int64)
    _histogram(pixels.values, least, (most - least) / (nbins - 1), histogram)
    return least + width * (_peak(histogram) if statistic.kind == "mode" else _middle(histogram)), npix


# k = pixel
@kernel
def _extremes(values, low, high):
    """The least and the largest of the values from ``low`` to ``high``."""
    least, most = np.inf, -np.inf
    for k in range(len(values)):
        value = np.float64(values[k])
        if value >= low and value <= high:
            if value < least:
                least = value
            if value > most:
                most = value
    return least, most


@kernel
def _histogram(values, start, width, counts):
    """How many of the values from ``start`` on are in each bin; what is beyond the last one is in none."""
    scale = 1 / width
    for k in range(len(values)):
        if values[k] >= start:
            bin = int((values[k] - start) * scale)
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
    levels, overlaps = _measure(images, groups, "match" in method, method != "match", statistic)
    offsets = np.zeros(len(groups))
    if "match" in method:
        offsets = _matched(*overlaps)
        known = np.isfinite(offsets)
        if known.any():
            offsets[known] -= offsets[known].min() if match_down else offsets[known].max()
    if method != "match":
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


def _measure(
    images: Sequence[SkyImage],
    groups: Sequence[Sequence[int]],
    in_overlaps: bool,
    whole: bool,
    statistic: SkyStatistic,
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The sky of each group, and that of each where each other one looks too: levels and numbers of pixels.

    One image after the other is read.
    """
    number = len(groups)
    levels = np.full(number, np.nan)
    total, count = np.zeros((2, number, number))
    outlines = [_outline(image) for image in images]
    for a, group in enumerate(groups):
        for k in group:
            image = bin_image(*images[k].read())
            if whole:
                everywhere = np.ones(image.data.shape, np.bool_)
                levels[a] = np.fmin(levels[a], sky_level(image.within(everywhere), statistic)[0])
            if not in_overlaps:
                continue
            polygons = _seen_by(images[k], outlines)
            for b, other in enumerate(groups):
                if a == b:
                    continue
                covered = np.zeros(image.data.shape, np.bool_)
                for m in other:
                    fill_polygon(*polygons[m], covered)
                level, npix = sky_level(image.within(covered), statistic)
                if npix:
                    total[a, b] += level * npix
                    count[a, b] += npix
    with np.errstate(invalid="ignore"):
        return levels, (total / count, count)


def _matched(level: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The offset of each group by least squares; NaN for one that overlaps none."""
    number = len(level)
    rows, values = [], []
    for a in range(number):
        for b in range(a + 1, number):
            if count[a, b] > 0 and count[b, a] > 0:
                mean = (count[a, b] + count[b, a]) / 2
                row = np.zeros(number)
                row[a], row[b] = mean, -mean
                rows.append(row)
                values.append(mean * (level[a, b] - level[b, a]))
    offsets = np.full(number, np.nan)
    if rows:
        matrix = np.array(rows)
        solved = np.linalg.pinv(matrix, rcond=1e-12) @ np.array(values)
        connected = matrix.any(axis=0)
        offsets[connected] = solved[connected]
    return offsets


def _outline(image: SkyImage) -> tuple[np.ndarray, np.ndarray]:
    """The sky along the rim of an image: right ascension and declination [deg] of eight points along a side."""
    (x0, x1), (y0, y1) = pixel_box(image.wcs, image.shape)
    along = np.linspace(0, 1, 8, endpoint=False)
    x = np.concatenate([x0 + (x1 - x0) * along, np.full(8, x1), x1 - (x1 - x0) * along, np.full(8, x0)])
    y = np.concatenate([np.full(8, y0), y0 + (y1 - y0) * along, np.full(8, y1), y1 - (y1 - y0) * along])
    return image.wcs(x, y, with_bounding_box=False)


def _seen_by(image: SkyImage, outlines: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """The outlines of images, (2, 32) each, in the pixels (x, y) of one."""
    sky = np.array(outlines)
    x, y = image.wcs.invert(sky[:, 0].ravel(), sky[:, 1].ravel(), with_bounding_box=False)
    return list(np.stack([np.reshape(x, sky[:, 0].shape), np.reshape(y, sky[:, 0].shape)], axis=1).astype(float))


def covered_by(image: SkyImage, other: SkyImage) -> np.ndarray:
    """(ny, nx) bool: which pixels of an image another one covers, by its outline with eight points along a side."""
    covered = np.zeros(image.shape, np.bool_)
    fill_polygon(*_seen_by(image, [_outline(other)])[0], covered)
    return covered


# y = row, x = column, e = edge
@kernel
def fill_polygon(px, py, covered):
    """Set what is inside a convex polygon; nothing if a corner is not finite."""
    ny, nx = covered.shape
    for e in range(len(px)):
        if not (np.isfinite(px[e]) and np.isfinite(py[e])):
            return
    first_row, last_row = max(0, int(np.ceil(py.min()))), min(ny - 1, int(np.floor(py.max())))
    for y in range(first_row, last_row + 1):
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
