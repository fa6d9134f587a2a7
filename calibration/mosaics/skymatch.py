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
from dataclasses import dataclass, replace

import numpy as np
from gwcs import WCS

from calibration.jit import kernel
from calibration.robust import Ordered
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
    """Some pixels of an image: those of ``all`` but for those of ``without``, which are among them; None for none."""

    all: Ordered | None
    without: Ordered | None

    def between(self, low: float, high: float) -> tuple[int, float, float]:
        """Number, mean and standard deviation of the values from ``low`` to ``high``."""
        parts = [
            (sign, replace(each, low=each.begin(low), high=each.end(high)))
            for sign, each in ((1, self.all), (-1, self.without))
            if each is not None
        ]
        number = sum(sign * part.count for sign, part in parts)
        if number == 0:
            return 0, np.nan, np.nan
        parts = [(sign, part) for sign, part in parts if part.count]
        mean = sum(sign * part.count * part.mean for sign, part in parts) / number
        square = sum(sign * part.count * part.sigma_about(mean) ** 2 for sign, part in parts) / number
        return number, float(mean), float(np.sqrt(max(square, 0.0)))

    def below(self, limit: float, inclusive: bool = False) -> int:
        """How many values are below a limit, or at most there."""
        places = [
            0 if each is None else each.end(limit) if inclusive else each.begin(limit)
            for each in (self.all, self.without)
        ]
        return places[0] - places[1]

    def at(self, rank: int) -> float:
        """The value of a rank, from 0 on."""
        assert self.all is not None
        values = self.all.values
        fewer = 0 if self.without is None else self.without.values.size
        first, last = rank, min(rank + fewer, values.size - 1)
        while first < last:
            middle = (first + last) // 2
            first, last = (first, middle) if self.below(values[middle], True) > rank else (middle + 1, last)
        return float(values[first])


class ImagePixels:
    """The good pixels of an image, which are sorted once, for any part of it.

    Most overlaps are all of the image but for a rim: then the rim is looked at, and taken away.
    """

    def __init__(self, data: np.ndarray, good: np.ndarray) -> None:
        self._data, self._good = data, good & np.isfinite(data)
        self._all = _ordered(data[self._good])

    def everywhere(self) -> Pixels:
        """All of them."""
        return Pixels(self._all, None)

    def within(self, covered: np.ndarray) -> Pixels:
        """Those where ``covered`` (ny, nx) bool."""
        mostly = 2 * np.count_nonzero(covered) > covered.size
        some = np.empty(covered.size, np.float32)
        found = _ordered(some[: _gather(self._data, self._good, covered, not mostly, some)])
        return Pixels(self._all, found) if mostly else Pixels(found, None)


def _ordered(values: np.ndarray) -> Ordered | None:
    return Ordered.of(values) if values.size else None


# y = row, x = column
@kernel
def _gather(data, good, covered, inside, values):
    """Put the good pixels that are covered, or those that are not, one after the other; returns how many."""
    ny, nx = data.shape
    n = 0
    for y in range(ny):
        for x in range(nx):
            if covered[y, x] == inside and good[y, x]:
                values[n] = data[y, x]
                n += 1
    return n


def sky_level(pixels: Pixels, statistic: SkyStatistic) -> tuple[float, int]:
    """The sky level of some pixels and the number of pixels that it was measured with; NaN and 0 if there is none."""
    low, high = statistic.lower, statistic.upper
    before = -1
    for _ in range(statistic.nclip + 1):
        npix, mean, spread = pixels.between(low, high)
        if npix == 0:
            return np.nan, 0
        clip = low, high
        if npix == before:  # nothing more is clipped
            break
        before = npix
        low = max(statistic.lower, mean - statistic.lsigma * spread)
        high = min(statistic.upper, mean + statistic.usigma * spread)
    if statistic.kind == "mean":
        return mean, npix
    first = pixels.below(clip[0])
    if statistic.kind == "median":
        return (pixels.at(first + (npix - 1) // 2) + pixels.at(first + npix // 2)) / 2, npix
    least, most = pixels.at(first), pixels.at(first + npix - 1)
    width = statistic.binwidth * spread
    if not width > 0 or most - least < width:
        return mean, npix
    nbins = int((most - least) / width) + 1
    # The largest value begins a bin of its own.
    edges = least + (most - least) / (nbins - 1) * np.arange(nbins)
    histogram = np.diff([pixels.below(edge) for edge in edges], append=first + npix)
    return least + width * (_peak(histogram) if statistic.kind == "mode" else _middle(histogram)), npix


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
            image = ImagePixels(*images[k].read())
            if whole:
                levels[a] = np.fmin(levels[a], sky_level(image.everywhere(), statistic)[0])
            if not in_overlaps:
                continue
            polygons = _seen_by(images[k], outlines)
            for b, other in enumerate(groups):
                if a == b:
                    continue
                covered = np.zeros(images[k].shape, np.bool_)
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
