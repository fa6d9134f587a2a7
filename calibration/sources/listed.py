"""Sources that a list names: their pixels in a direct image, their boxes, light and size there.

A list from elsewhere has positions, and what else spec2 needs is in the direct image. What is above the noise there is cut
into the sources of the list by a watershed that starts at their positions: the list says how many sources there are, where
`calibration.sources.detect` must guess. What is above the noise and in no source of the list is kept under numbers of its
own, for its light falls into the spectra of others all the same.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.segmentation import watershed

from calibration.sources.detect import estimate_sky, smooth

#: Of the smoothing, and of a source that nobody listed: as source_catalog has them.
FWHM, THRESHOLD, NPIXELS, BOX = 2.0, 3.0, 25, 1000
NPIXELS_LISTED = 5
#: How far from its position the light of a source may begin [pixel].
REACH = 3.0
#: A source is extended if its profile is so much wider than that of the narrowest of the image.
WIDER = 1.3
_EIGHT = np.ones((3, 3), int)


@dataclass(frozen=True)
class Segmented:
    """What a direct image has at the positions of a list.

    Attributes
    ----------
    labels : (ny, nx) uint32
        Source number of each pixel, 0 for none; numbers above all of the list are of sources that it does not have.
    unlisted : (m,) int
        Those numbers.
    x0, x1, y0, y1 : (n,) float64
        Box of each source of the list: edges of its pixels, zero-based; NaN where it has no pixel.
    total : (n,) float64
        Its light above the background, in the unit of the image times pixels; NaN where it has no pixel.
    extended : (n,) bool
        Whether it is wider than a point source; False where it has no pixel.
    found_x, found_y : (k,) float64
        Centroids of all that is above the noise before it is cut up, brightest first.
    """

    labels: np.ndarray
    unlisted: np.ndarray
    x0: np.ndarray
    x1: np.ndarray
    y0: np.ndarray
    y1: np.ndarray
    total: np.ndarray
    extended: np.ndarray
    found_x: np.ndarray
    found_y: np.ndarray


def segment_listed(data: np.ndarray, x: np.ndarray, y: np.ndarray, number: np.ndarray) -> Segmented:
    """The pixels of the sources of a list.

    Parameters
    ----------
    data : (ny, nx) float32
        Direct image, with its background; NaN where there is none.
    x, y : (n,) float64
        Positions [pixel, zero-based]; may be off the image.
    number : (n,) int
        Source numbers, positive, each once.
    """
    uncovered = ~np.isfinite(data)
    sky = estimate_sky(np.where(uncovered, 0, data).astype(np.float32), uncovered, BOX)
    if sky is None:
        nothing = np.zeros(0)
        return measure_labels(np.zeros_like(data), np.zeros(data.shape, np.uint32), number, nothing, nothing)
    signal = np.where(uncovered, 0, data - sky.level).astype(np.float32)
    smoothed = smooth(signal, FWHM, uncovered)
    above = ~uncovered & (smoothed > THRESHOLD * sky.noise)
    zones, count = ndimage.label(above, _EIGHT)
    sizes = np.bincount(zones.ravel(), minlength=count + 1)
    light = np.bincount(zones.ravel(), weights=signal.ravel(), minlength=count + 1)
    big = np.flatnonzero(sizes >= NPIXELS)[1 if sizes[0] >= NPIXELS else 0 :]
    big = big[np.argsort(-light[big], kind="stable")]
    centre = np.array(ndimage.center_of_mass(signal, zones, big)).reshape(-1, 2)

    seeds = _seeds(above & (sizes[zones] >= NPIXELS_LISTED), x, y, number)
    named = np.zeros(count + 1, bool)
    named[zones[seeds > 0]] = True
    labels = watershed(-smoothed, seeds, mask=above & named[zones], connectivity=2)
    rest = big[~named[big]]
    to_new = np.zeros(count + 1, np.int64)
    to_new[rest] = number.max(initial=0) + 1 + np.arange(rest.size)
    labels = np.where(labels > 0, labels, to_new[zones]).astype(np.uint32)
    return measure_labels(signal, labels, number, centre[:, 1], centre[:, 0])


def _seeds(above: np.ndarray, x: np.ndarray, y: np.ndarray, number: np.ndarray) -> np.ndarray:
    """(ny, nx) int64, a pixel with the number of each source: the nearest above the noise, unless another source has it."""
    seeds = np.zeros(above.shape, np.int64)
    rows, columns = np.nonzero(above)
    if rows.size == 0 or x.size == 0:
        return seeds
    there = np.isfinite(x) & np.isfinite(y)
    index = np.flatnonzero(there)
    distance, nearest = cKDTree(np.column_stack([columns, rows])).query(
        np.column_stack([x[index], y[index]]), distance_upper_bound=REACH
    )
    for k in np.argsort(distance, kind="stable"):
        if not np.isfinite(distance[k]):
            break
        at = rows[nearest[k]], columns[nearest[k]]
        if seeds[at] == 0:
            seeds[at] = number[index[k]]
    return seeds


def measure_labels(
    signal: np.ndarray, labels: np.ndarray, number: np.ndarray, found_x: np.ndarray, found_y: np.ndarray
) -> Segmented:
    """Boxes, light and size of the sources of a list in a map of them.

    Parameters
    ----------
    signal : (ny, nx) float32
        Direct image without its background; NaN counts as 0.
    labels : (ny, nx) uint32
    number : (n,) int
        Source numbers of the list.
    found_x, found_y : (k,) float64
        For the result.
    """
    rows, columns = np.nonzero(labels)
    of = labels[rows, columns].astype(np.int64)
    present, which = np.unique(of, return_inverse=True)
    light = np.nan_to_num(signal[rows, columns]).astype(np.float64)
    total = np.bincount(which, weights=light, minlength=present.size)
    low_x, low_y = (np.full(present.size, np.iinfo(np.int64).max) for _ in range(2))
    high_x, high_y = (np.full(present.size, -1) for _ in range(2))
    for low, high, at in ((low_x, high_x, columns), (low_y, high_y, rows)):
        np.minimum.at(low, which, at)
        np.maximum.at(high, which, at)
    width = _widths(which, columns, rows, np.clip(light, 0, None), present.size)

    place = np.searchsorted(present, number)
    place[place == present.size] = 0
    has = present[place] == number if present.size else np.zeros(number.size, bool)

    def take(values: np.ndarray) -> np.ndarray:
        return np.where(has, values[place], np.nan) if present.size else np.full(number.size, np.nan)

    # As in the archive's catalogs, the box reaches one pixel beyond the last one of the source.
    sizes = np.bincount(which, minlength=present.size)
    sharp = width[(sizes >= NPIXELS) & (width > 0)]
    narrowest = np.percentile(sharp, 10) if sharp.size else np.inf
    return Segmented(
        labels=labels,
        unlisted=np.setdiff1d(present, number),
        x0=take(low_x - 0.5),
        x1=take(high_x + 1.5),
        y0=take(low_y - 0.5),
        y1=take(high_y + 1.5),
        total=take(total),
        extended=take(width) > WIDER * narrowest,
        found_x=found_x,
        found_y=found_y,
    )


def _widths(which: np.ndarray, x: np.ndarray, y: np.ndarray, light: np.ndarray, n: int) -> np.ndarray:
    """(n,) standard deviation of the light of each source, mean of both axes [pixel]; 0 where there is no light."""
    total = np.bincount(which, weights=light, minlength=n)
    squares = np.zeros(n)
    for at in (x, y):
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.bincount(which, weights=light * at, minlength=n) / total
            squares += np.bincount(which, weights=light * (at - mean[which]) ** 2, minlength=n) / total
    return np.sqrt(np.nan_to_num(squares) / 2)


@dataclass(frozen=True)
class Offset:
    """How a list of positions lies on another: moved by ``east`` and ``north`` [arcsec].

    ``matched`` of ``possible`` sources agree there, ``as_given`` agree without the offset.
    """

    east: float
    north: float
    matched: int
    possible: int
    as_given: int

    @property
    def distance(self) -> float:
        """[arcsec]"""
        return float(np.hypot(self.east, self.north))


def systematic_offset(
    east: np.ndarray,
    north: np.ndarray,
    other_east: np.ndarray,
    other_north: np.ndarray,
    reach: float = 15.0,
    radius: float = 0.3,
) -> Offset | None:
    """The offset of a list of positions from another, by which most of them agree; None where no offset stands out.

    All pairs closer than ``reach`` vote for the difference of their positions; the difference with the most votes within
    ``radius`` wins, if it is more than chance would gather (five times the mean density of votes, and three) and a third
    of the shorter list.

    Parameters
    ----------
    east, north, other_east, other_north : (n,), (m,) float64
        Positions on a tangent plane [arcsec]; the offset is the first less the second.
    reach, radius : float
        [arcsec]
    """
    if not east.size or not other_east.size:
        return None
    mine, other = np.column_stack([east, north]), np.column_stack([other_east, other_north])
    pairs = cKDTree(mine).sparse_distance_matrix(cKDTree(other), reach, output_type="coo_matrix")
    if pairs.nnz == 0:
        return None
    votes = mine[pairs.row] - other[pairs.col]
    tree = cKDTree(votes)
    counts = tree.query_ball_point(votes, radius, return_length=True)
    best = int(np.lexsort((np.hypot(*votes.T), -counts))[0])
    near = tree.query_ball_point(votes[best], radius)
    middle = np.median(votes[near], axis=0)
    near = tree.query_ball_point(middle, radius)
    matched = _both(pairs.row[near], pairs.col[near])
    here = tree.query_ball_point([0.0, 0.0], radius)
    as_given = _both(pairs.row[here], pairs.col[here])
    possible = min(east.size, other_east.size)
    chance = len(votes) * (radius / reach) ** 2
    if matched < max(3, 5 * chance, possible / 3):
        return None
    return Offset(float(middle[0]), float(middle[1]), matched, possible, as_given)


def _both(one: np.ndarray, other: np.ndarray) -> int:
    """How many pairs there are in which each stands once, at most."""
    return min(np.unique(one).size, np.unique(other).size)
