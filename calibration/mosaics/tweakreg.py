"""Align exposures by the stars that they share.

The telescope points to a few tens of milliarcseconds; stars in overlapping exposures tell the rest. The stars of all
exposures are laid out in one plane, tangent to the sky, and every two exposures that overlap are matched: the offset that most
pairs of stars have in common is searched, and around it stars that are one another's nearest are told to be the same, ever more
narrowly. How many pairs would agree by chance is counted from all the other offsets; fewer than six standard deviations above
that are no match, and two offsets that fit nearly as well are none either.

Then a shift and a rotation (or what is asked for) of each exposure is fitted to all its matches by least squares, weighted by
the errors of the positions; detectors that observed together move as one. One exposure stays where it is, the reference: the
first that is matched with most of the others and whose own pointing is not the odd one. At last each exposure is held against
all others once more. One whose stars are elsewhere is to be left out: wrong stars are worse in a mosaic than none.

The correction goes into the WCS where, and in the form in which, `tweakwcs` puts it, so that files read the same everywhere.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from astropy.modeling import Model
from astropy.modeling.models import AffineTransformation2D, Const1D, Identity, Mapping, RotationSequence3D, Scale
from gwcs import WCS
from gwcs.geometry import CartesianToSpherical, SphericalToCartesian
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

from calibration.wcs.imaging import pixel_box
from calibration.wcs.pointing import Pointing, v2v3_frame

log = logging.getLogger(__name__)

#: Standard deviations above chance, and pairs beyond that, that a match needs.
SIGNIFICANT, AT_LEAST = 6.0, 4
#: Share of the pairs of the best offset from which on another is as good.
RIVAL = 0.6
#: Error that all positions have beside their own [pixel]: what an undersampled star, or the distortion, is off by.
FLOOR = 0.02
#: Rounds of matching, ever more narrowly, at most.
ROUNDS = 8
#: Stars of an exposure, the brightest, with which offsets are searched.
SEARCHED = 1000
#: Windows in which pairs are counted [pixel]; a roll spreads the pairs over the wider one.
WINDOWS = (3, 9)
#: What two exposures may be apart after all without being at odds [pixel].
ODD = 0.3

#: Names of the correction and of the frame behind it, of `tweakwcs`.
CORRECTION, CORRECTED = "JWST tangent-plane linear correction. v1", "v2v3corr"

_TURN, _GROW = np.array([[0.0, -1.0], [1.0, 0.0]]), np.eye(2)
_UNITS = tuple(np.outer(a, b) for a in np.eye(2) for b in np.eye(2))
#: What a geometry may do beside shifting: generators of linear maps.
GENERATORS = {"shift": (), "rshift": (_TURN,), "rscale": (_TURN, _GROW), "general": _UNITS}


@dataclass(frozen=True)
class Stars:
    """The stars of an image: zero-based pixels ``x``, ``y``, their ``error`` [pixel] and ``flux``; the image itself.

    ``group`` is a number that images of one exposure share; the image has a ``wcs``, a ``shape`` and a ``pointing``.
    """

    x: np.ndarray
    y: np.ndarray
    error: np.ndarray
    flux: np.ndarray
    wcs: WCS
    shape: tuple[int, int]
    pointing: Pointing
    group: int
    name: str


@dataclass(frozen=True)
class Fit:
    """How stars are matched and what is fitted.

    Attributes
    ----------
    minobj : int
        Least number of stars in common.
    geometry : "shift", "rshift", "rscale" or "general"
        Shift; and rotation; and scale; or any linear map.
    nclip, sigma
        Rounds and limit of clipping [rms].
    searchrad, separation, tolerance : float
        Largest shift that is searched, least distance from a brighter star, largest distance of a match [arcsec].
    use2dhist : bool
        Search the shift by the histogram of all pairs; else it is ``offset``, of the stars of an image from those of the
        reference, east and north [arcsec].
    """

    minobj: int = 15
    geometry: str = "rshift"
    nclip: int = 3
    sigma: float = 3.0
    searchrad: float = 2.0
    separation: float = 1.0
    tolerance: float = 0.7
    use2dhist: bool = True
    offset: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.separation <= np.sqrt(2) * self.tolerance:
            raise ValueError(
                f"separation ({self.separation} arcsec) must be more than sqrt(2) times tolerance ({self.tolerance} "
                "arcsec), else a star could match two; lower the tolerance"
            )

    @property
    def farthest(self) -> float:
        """How far a fit is believed to move a corner of an image [arcsec]."""
        return 2 * (self.tolerance + (self.searchrad if self.use2dhist else max(map(abs, self.offset))))


@dataclass(frozen=True)
class Alignment:
    """What became of one image.

    Attributes
    ----------
    wcs : WCS
        Corrected, or as it was.
    status : "reference", "aligned" or the reason why it was not.
    shift : float
        How far the corners of the image moved, at most [arcsec].
    roll : float
        By how much the image was turned, from north over east [arcsec].
    rms : float
        Scatter of the stars about the fit [arcsec]; NaN if there is no fit.
    nstars : int
        Stars that the fit used.
    offset : float
        What is left between its stars and those of all others after the fit, on average [arcsec]; NaN if not known.
    left_out : bool
        Its stars are elsewhere than those of the others, which agree: it must not go into a mosaic with them.
    """

    wcs: WCS
    status: str
    shift: float = 0.0
    roll: float = 0.0
    rms: float = np.nan
    nstars: int = 0
    offset: float = np.nan
    left_out: bool = False


@dataclass(frozen=True)
class Map:
    """A linear map of the plane: ``matrix @ position + shift`` [arcsec]."""

    matrix: np.ndarray
    shift: np.ndarray

    def __call__(self, at: np.ndarray) -> np.ndarray:
        return at @ self.matrix.T + self.shift

    def after(self, first: "Map") -> "Map":
        return Map(self.matrix @ first.matrix, self.matrix @ first.shift + self.shift)

    def inverse(self) -> "Map":
        back = np.linalg.inv(self.matrix)
        return Map(back, -back @ self.shift)


STAY = Map(np.eye(2), np.zeros(2))


@dataclass(frozen=True)
class Exposure:
    """The stars of images that move together, in the plane.

    ``at`` (n, 2) are positions and ``error`` (n,) their errors [arcsec], brightest first; ``corners`` (nimages, 4, 2)
    outline the images, in turn; None is everywhere (a catalog). ``scale`` is the size of a pixel [arcsec].
    """

    at: np.ndarray
    error: np.ndarray
    corners: np.ndarray | None
    scale: float

    @property
    def bright(self) -> np.ndarray:
        """The positions with which offsets are searched; a catalog does not say which of its stars are bright."""
        return self.at if self.corners is None else self.at[:SEARCHED]

    def covers(self, at: np.ndarray) -> np.ndarray:
        """Whether each position is in one of the images."""
        if self.corners is None:
            return np.ones(len(at), bool)
        inside = np.zeros(len(at), bool)
        for corners in self.corners:
            edge = np.roll(corners, -1, axis=0) - corners
            side = edge[:, 0] * (at[:, None, 1] - corners[:, 1]) - edge[:, 1] * (at[:, None, 0] - corners[:, 0])
            inside |= (side >= 0).all(axis=1) | (side <= 0).all(axis=1)
        return inside

    def moved(self, by: Map) -> "Exposure":
        return replace(self, at=by(self.at), corners=None if self.corners is None else by(self.corners))


@dataclass(frozen=True)
class Link:
    """What two exposures have in common.

    ``first``, ``second`` (n,) are the numbers of their stars that are the same and ``shift`` by how much the second's are
    away [arcsec]; ``reason`` tells why they are no match, in words, or is empty. ``common`` is the number of stars that each
    has where the other looked.
    """

    first: np.ndarray
    second: np.ndarray
    shift: np.ndarray
    common: int
    reason: str = ""

    @property
    def matched(self) -> bool:
        return not self.reason

    @property
    def contradicts(self) -> bool:
        """There are enough stars, and they do not agree."""
        return bool(self.reason) and not len(self.first)


def align(images: Sequence[Stars], fit: Fit, expand: bool = False, in_order: bool = False) -> list[Alignment]:
    """Align images relative to one another.

    Parameters
    ----------
    images : sequence of Stars
    fit : Fit
    expand : bool
        Use the matches of all exposures with all; else of each with the reference alone.
    in_order : bool
        The reference is the first exposure that is matched with any; else the first that agrees with most of the others.
    """
    plane = Plane.of(images)
    exposures = plane.exposures(images, fit.separation)
    reasons = {g: _few(len(one.at), fit) for g, one in exposures.items() if len(one.at) < fit.minobj}
    usable = {g: one for g, one in exposures.items() if g not in reasons}
    links = _link_all(usable, fit)
    reference = _choose_reference(usable, links, fit, expand, in_order)
    used = {pair: link for pair, link in links.items() if link.matched and (expand or reference in pair)}
    left_out: dict[int, str] = {}
    while True:
        placed = _reach(used, reference)
        maps, fits = _solve(usable, {pair: link for pair, link in used.items() if pair[0] in placed}, reference, fit)
        gaps = {p: _gap(p, links[p], usable, maps) for p in links if links[p].matched and placed.issuperset(p)}
        # What is at odds with the rest spoils it, and goes: matches one by one, and then exposures.
        pair = max((p for p in used if p in gaps and gaps[p].odd), key=lambda p: gaps[p].size, default=None)
        if pair is not None:
            used.pop(pair)
            continue
        size = {g: _mean_gap(g, gaps, links) for g in placed}
        odd = [g for g in placed - {reference} if _at_odds(g, gaps)]
        if not odd:
            break
        worst = max(odd, key=lambda g: size[g])
        left_out[worst] = f"its stars disagree with those of the others by {1000 * size[worst]:.0f} mas"
        used = {p: link for p, link in used.items() if worst not in p}
    for g in usable.keys() - placed - left_out.keys():
        reasons[g] = _reason(g, links, None if expand else reference)
        if _contradicted(g, links, placed, fit):
            left_out[g] = reasons[g]
    reasons |= left_out
    found = []
    for image in images:
        g = image.group
        if g in reasons:
            found.append(Alignment(image.wcs, reasons[g], left_out=g in left_out))
        elif g == reference:
            found.append(Alignment(image.wcs, "reference", 0.0, 0.0, *fits[g], size[g]))
        else:
            found.append(_judge(image, _correct(image, plane, maps[g]), fits[g], size[g], fit))
    return found


def align_to_catalog(
    images: Sequence[Stars], found: Sequence[Alignment], ra: np.ndarray, dec: np.ndarray, fit: Fit
) -> list[Alignment]:
    """Align images to a catalog of positions [deg], those that were aligned with one another as one.

    Parameters
    ----------
    images : sequence of Stars
    found : sequence of Alignment
        What became of them relative to one another. An image that was not aligned is aligned to the catalog alone, if it can
        be, and moves with the others otherwise.
    ra, dec : (n,)
    fit : Fit
    """
    known = np.isfinite(ra) & np.isfinite(dec)
    if np.count_nonzero(known) < fit.minobj:
        raise ValueError(
            f"the reference catalog has {np.count_nonzero(known)} stars, but {fit.minobj} are needed; give a deeper one"
        )
    now = [replace(image, wcs=one.wcs) for image, one in zip(images, found, strict=True)]
    plane = Plane.of(now)
    exposures = plane.exposures(now, fit.separation)
    together = {image.group for image, one in zip(images, found, strict=True) if one.status in ("aligned", "reference")}
    bodies = [sorted(together)] if together else []
    bodies += [[g] for g in exposures if g not in together]
    stars_at = plane.to(ra[known], dec[known])
    outline = np.concatenate([one.corners.reshape(-1, 2) for one in exposures.values()])
    near = (stars_at >= outline.min(axis=0) - fit.searchrad) & (stars_at <= outline.max(axis=0) + fit.searchrad)
    stars_at = stars_at[near.all(axis=1)]
    results: dict[int, tuple[Map, tuple[float, int], float, str]] = {}
    for body in bodies:
        stars = _merge([exposures[g] for g in body])
        catalog = Exposure(stars_at, np.zeros(len(stars_at)), None, stars.scale)
        link = match(catalog, stars, fit) if len(stars.at) >= fit.minobj else None
        if link is not None and link.matched:
            pair = {0: catalog, 1: stars}
            maps, fits = _solve(pair, {(0, 1): link}, 0, fit)
            gap = _gap((0, 1), link, pair, maps).size
            results |= dict.fromkeys(body, (maps[1], fits[1], gap, ""))
        else:
            reason = _few(len(stars.at), fit) if link is None else f"{link.reason} of the reference catalog"
            results |= dict.fromkeys(body, (STAY, (np.nan, 0), np.nan, reason))
    moves = next((results[g][0] for g in sorted(together)), STAY)
    aligned = []
    for image, current, one in zip(images, now, found, strict=True):
        by, scatter, gap, reason = results[image.group]
        if reason:
            status = reason if one.status in ("aligned", "reference") else f"{one.status}; {reason}"
            wcs = one.wcs if moves is STAY else _correct(current, plane, moves)
            shift, roll = _movement(image, wcs)
            aligned.append(replace(one, wcs=wcs, status=status, shift=shift, roll=roll))
        else:
            after = _judge(current, _correct(current, plane, by), scatter, gap, fit)
            shift, roll = _movement(image, after.wcs)
            aligned.append(replace(after, shift=shift, roll=roll))
    return aligned


@dataclass(frozen=True)
class Plane:
    """A plane that touches the sky in the middle of the images: east and north of there [arcsec].

    Distances from there are kept (zenithal equidistant), so that no place on the sky is outside of it.
    """

    axes: np.ndarray

    @classmethod
    def of(cls, images: Sequence[Stars]) -> "Plane":
        sky = [
            image.wcs((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2, with_bounding_box=False) for image in images
        ]
        # The median: an image with a wild WCS does not move it.
        middle = np.median(_unit_vectors(*np.transpose(sky)), axis=0)
        middle /= np.linalg.norm(middle)
        east = np.cross([0.0, 0.0, 1.0], middle)
        east = east / np.linalg.norm(east) if east.any() else np.array([0.0, 1.0, 0.0])
        return cls(np.array([east, np.cross(middle, east), middle]))

    def to(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """(n, 2) of the plane from degrees."""
        x, y, z = self.axes @ _unit_vectors(ra, dec).T
        sine = np.hypot(x, y)
        stretch = np.where(sine > 0, np.arctan2(sine, z) / np.where(sine > 0, sine, 1), 1)
        return 3600 * np.degrees(np.column_stack([x, y]) * stretch[:, None])

    def back(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Right ascension and declination [deg]."""
        angle = np.radians(at / 3600)
        far = np.hypot(*angle.T)
        x, y, z = self.axes.T @ np.vstack([(np.sinc(far / np.pi)[:, None] * angle).T, np.cos(far)])
        return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))

    def exposures(self, images: Sequence[Stars], separation: float) -> dict[int, "Exposure"]:
        """The stars of each group, brightest first, without those that are closer than this to a brighter one [arcsec]."""
        found = {}
        for g in sorted({image.group for image in images}):
            at, error, flux, corners, scale = [], [], [], [], 0.0
            for image in (image for image in images if image.group == g):
                (x0, x1), (y0, y1) = pixel_box(image.wcs, image.shape)
                inside = (image.x > x0) & (image.x < x1) & (image.y > y0) & (image.y < y1)
                at.append(self.to(*image.wcs(image.x[inside], image.y[inside], with_bounding_box=False)))
                x, y = np.array([x0, x0, x1, x1]), np.array([y0, y1, y1, y0])
                corners.append(self.to(*image.wcs(x, y, with_bounding_box=False)))
                scale = np.sqrt(abs(_area(corners[-1]) / ((x1 - x0) * (y1 - y0))))
                error.append(scale * np.hypot(image.error[inside], FLOOR))
                flux.append(image.flux[inside])
            order = np.argsort(-np.concatenate(flux), kind="stable")
            positions = np.concatenate(at)[order]
            alone = _alone(positions, separation)
            found[g] = Exposure(positions[alone], np.concatenate(error)[order][alone], np.array(corners), float(scale))
        return found


def _unit_vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    ra, dec = np.radians(np.atleast_1d(ra)), np.radians(np.atleast_1d(dec))
    return np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def _area(corners: np.ndarray) -> float:
    """Of a polygon, positive if it is turned from x to y."""
    x, y = corners.T
    return float(0.5 * (x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def _alone(at: np.ndarray, separation: float) -> np.ndarray:
    """Which positions have none before them in the list that is closer than this."""
    alone = np.ones(len(at), bool)
    if len(at):
        alone[cKDTree(at).query_pairs(separation, output_type="ndarray").max(axis=1, initial=0)] = False
        alone[0] = True
    return alone


def _merge(exposures: Sequence[Exposure]) -> Exposure:
    """One list of stars: what several aligned exposures saw is their mean."""
    if len(exposures) == 1:
        return exposures[0]
    at, weight = exposures[0].at, exposures[0].error ** -2.0
    for one in exposures[1:]:
        here, there = _nearest(at, one.at, ODD * one.scale)
        more = one.error[there] ** -2.0
        at, weight = at.copy(), weight.copy()
        at[here] = (weight[here, None] * at[here] + more[:, None] * one.at[there]) / (weight[here] + more)[:, None]
        weight[here] += more
        new = np.setdiff1d(np.arange(len(one.at)), there)
        at, weight = np.concatenate([at, one.at[new]]), np.concatenate([weight, one.error[new] ** -2.0])
    return Exposure(at, weight**-0.5, np.concatenate([one.corners for one in exposures]), exposures[0].scale)


def match(a: Exposure, b: Exposure, fit: Fit, offset: tuple[float, float] | None = None) -> Link:
    """Which stars two exposures have in common.

    Parameters
    ----------
    a, b : Exposure
    fit : Fit
    offset : (float, float), optional
        Of the stars of ``b`` from those of ``a``, if it is not to be searched [arcsec].
    """
    none = np.zeros(0, int)
    common = int(min(np.count_nonzero(b.covers(a.at)), np.count_nonzero(a.covers(b.at))))
    pixel = max(a.scale, b.scale)
    start = _search(a.bright, b.bright, fit.searchrad, pixel) if offset is None else np.array(offset)
    if start is None:
        reason = f"no offset within {fit.searchrad:g} arcsec at which more stars agree than by chance with those"
        return Link(none, none, np.zeros(2), common, reason)
    to_a, radius = Map(np.eye(2), -start), fit.tolerance
    first, second = _nearest(a.at, to_a(b.at), radius)
    for _ in range(ROUNDS):
        if len(first) < 2:
            break
        to_a, scatter = _fit_robustly(a.at[first], b.at[second])
        radius = min(fit.tolerance, max(5 * scatter, 2 * ODD * pixel))
        before = second
        first, second = _nearest(a.at, to_a(b.at), radius)
        if np.array_equal(before, second):
            break
    best, rival, enough = _count_agreeing(a.bright, to_a(b.bright), fit.searchrad, pixel)
    shift = (b.at[second] - a.at[first]).mean(axis=0) if len(second) else np.zeros(2)
    if best < enough:
        return Link(none, none, shift, common, "its stars agree no better than by chance with those")
    if rival >= max(enough, RIVAL * best):
        return Link(
            none, none, shift, common, "its stars fit at two places (its own may be double), so with none of those"
        )
    reason = (
        "" if len(first) >= fit.minobj else f"only {len(first)} stars in common, {fit.minobj} are needed, with those"
    )
    return Link(first, second, shift, common, reason)


def _histogram(a: np.ndarray, b: np.ndarray, radius: float, pixel: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets of all pairs of stars: counts in bins of a pixel, the middle of which is none; distances of the bins; offsets."""
    half = int(np.ceil(radius / pixel))
    reach = half + max(WINDOWS)
    pairs = cKDTree(a).sparse_distance_matrix(cKDTree(b), np.sqrt(2) * reach * pixel, output_type="ndarray")
    away = b[pairs["j"]] - a[pairs["i"]]
    bins = np.rint(away / pixel).astype(int) + reach
    size = 2 * reach + 1
    bins = bins[((bins >= 0) & (bins < size)).all(axis=1)]
    counts = np.bincount(bins[:, 1] * size + bins[:, 0], minlength=size * size).reshape(size, size).astype(float)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return counts, np.hypot(x, y) <= half + 0.5, away


def _by_chance(counts: np.ndarray, elsewhere: np.ndarray) -> float:
    """How many pairs at one offset are more than those at all others can be by chance."""
    others = counts[elsewhere]
    mean = others.mean() if others.size else 0.0
    return float(mean + SIGNIFICANT * max(np.sqrt(mean), others.std() if others.size else 0.0) + AT_LEAST)


def _search(a: np.ndarray, b: np.ndarray, radius: float, pixel: float) -> np.ndarray | None:
    """The offset of ``b`` from ``a`` that most pairs have in common; None where no more have it than by chance."""
    if not (len(a) and len(b)):
        return None
    counts, allowed, away = _histogram(a, b, radius, pixel)
    middle, found, best = counts.shape[0] // 2, None, 1.0
    for window in WINDOWS:
        near = np.rint(uniform_filter(counts, window, mode="constant") * window**2)
        y, x = np.unravel_index(np.argmax(np.where(allowed, near, -1)), near.shape)
        elsewhere = allowed.copy()
        elsewhere[max(y - window, 0) : y + window + 1, max(x - window, 0) : x + window + 1] = False
        excess = near[y, x] / _by_chance(near, elsewhere)
        if excess >= best:
            inside = (np.abs(away / pixel - (x - middle, y - middle)) <= window / 2).all(axis=1)
            found, best = np.median(away[inside], axis=0), excess
    return found


def _count_agreeing(a: np.ndarray, b: np.ndarray, radius: float, pixel: float) -> tuple[float, float, float]:
    """Pairs of stars at no offset; at the best other; and how many are more than chance."""
    if not (len(a) and len(b)):
        return 0.0, 0.0, 1.0
    counts, allowed, _ = _histogram(a, b, radius, pixel)
    window = WINDOWS[0]
    near = np.rint(uniform_filter(counts, window, mode="constant") * window**2)
    middle = near.shape[0] // 2
    elsewhere = allowed.copy()
    elsewhere[middle - window : middle + window + 1, middle - window : middle + window + 1] = False
    rival = near[elsewhere].max(initial=0)
    # What is about a rival is part of it.
    quiet = elsewhere & (near < RIVAL * near[middle, middle])
    return float(near[middle, middle]), float(rival), _by_chance(near, quiet)


def _nearest(a: np.ndarray, b: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the positions of ``a`` and ``b`` that are one another's nearest, and closer than ``radius``."""
    if not (len(a) and len(b)):
        return np.zeros(0, int), np.zeros(0, int)
    there = cKDTree(b).query(a, distance_upper_bound=radius)[1]
    here = cKDTree(a).query(b, distance_upper_bound=radius)[1]
    first = np.flatnonzero(there < len(b))
    first = first[here[there[first]] == first]
    return first, there[first]


def _fit_robustly(a: np.ndarray, b: np.ndarray) -> tuple[Map, float]:
    """The shift and rotation from ``b`` to ``a`` that most agree on, and their scatter along one axis."""
    keep = np.ones(len(a), bool)
    for _ in range(6):
        from_a, from_b = a[keep].mean(axis=0), b[keep].mean(axis=0)
        (x, y), (u, v) = (a[keep] - from_a).T, (b[keep] - from_b).T
        angle = np.arctan2(u @ y - v @ x, u @ x + v @ y)
        matrix = np.cos(angle) * _GROW + np.sin(angle) * _TURN
        to_a = Map(matrix, from_a - matrix @ from_b)
        left = np.hypot(*(a - to_a(b)).T)
        scatter = float(np.median(left[keep]) / np.sqrt(2 * np.log(2)))
        now = left <= max(3.5 * scatter, 1e-9)
        if np.count_nonzero(now) < 2 or np.array_equal(now, keep):
            break
        keep = now
    return to_a, scatter


Links = dict[tuple[int, int], Link]


def _link_all(exposures: dict[int, Exposure], fit: Fit) -> Links:
    """The matches of all exposures that overlap; where the offset is not searched, it is that from the first."""
    boxes = {g: (each.corners.min(axis=(0, 1)), each.corners.max(axis=(0, 1))) for g, each in exposures.items()}
    links, start = {}, next(iter(exposures), None)
    for a, b in combinations(exposures, 2):
        offset = None if fit.use2dhist else fit.offset if a == start else (0.0, 0.0)
        reach = fit.searchrad if offset is None else np.hypot(*offset)
        if (boxes[a][0] <= boxes[b][1] + reach).all() and (boxes[b][0] <= boxes[a][1] + reach).all():
            links[a, b] = match(exposures[a], exposures[b], fit, offset)
    return links


def _partners(g: int, links: Links) -> list[int]:
    """Exposures that one is matched with."""
    return [sum(pair) - g for pair, link in links.items() if link.matched and g in pair]


def _reach(links: Links, start: int) -> set[int]:
    """All that hang together with one."""
    found, waiting = {start}, [start]
    while waiting:
        new = set(_partners(waiting.pop(), links)) - found
        found |= new
        waiting += new
    return found


def _choose_reference(exposures: Iterable[int], links: Links, fit: Fit, expand: bool, in_order: bool) -> int:
    """Which exposure stays where it is; -1 if no two are matched."""
    partners = {g: _partners(g, links) for g in exposures}
    matched = [g for g in exposures if partners[g]]
    if not matched:
        return -1
    if in_order or not fit.use2dhist:
        return matched[0]
    if expand:
        rank = {g: len(_reach(links, g)) for g in matched}
    else:
        rank = {g: 2 * len(partners[g]) for g in matched}
    good = [g for g in matched if rank[g] >= max(rank.values()) * (1.0 if expand else 0.5)]
    away = {
        g: np.median([np.hypot(*link.shift) for pair, link in links.items() if link.matched and g in pair])
        for g in good
    }
    return next(g for g in good if away[g] <= min(away.values()) + fit.tolerance)


def _solve(
    exposures: dict[int, Exposure], links: Links, reference: int, fit: Fit
) -> tuple[dict[int, Map], dict[int, tuple[float, int]]]:
    """The map of each exposure that brings its stars onto those of the others, the reference being fixed.

    Returns
    -------
    maps : by exposure
    fits : by exposure
        The scatter of its stars about the fit [arcsec], and their number.
    """
    groups = sorted({g for pair in links for g in pair} | {reference})
    column = {g: k for k, g in enumerate(g for g in groups if g != reference)}
    maps = dict.fromkeys(groups, STAY)
    if not column:
        return maps, {reference: (np.nan, 0)}
    generators = GENERATORS[fit.geometry]
    size = 2 + len(generators)
    middle = {g: exposures[g].at.mean(axis=0) for g in column}
    error = {p: np.hypot(exposures[p[0]].error[k.first], exposures[p[1]].error[k.second]) for p, k in links.items()}
    keep = {p: np.ones(len(link.first), bool) for p, link in links.items()}

    def left(pair: tuple[int, int]) -> np.ndarray:
        one, other = (maps[g](exposures[g].at[k]) for g, k in zip(pair, _stars_of(links[pair]), strict=True))
        return one - other

    for clip in range(fit.nclip + 1):
        for _ in range(3):
            normal, gradient = np.zeros((len(column), size) * 2), np.zeros((len(column), size))
            for pair, link in links.items():
                use, weight = keep[pair], error[pair][keep[pair]] ** -2.0
                slopes = {}
                for g, k, sign in zip(pair, _stars_of(link), (1, -1), strict=True):
                    if g in column:
                        # Arcminutes: all slopes are about 1.
                        at = (maps[g](exposures[g].at[k[use]]) - maps[g](middle[g])) / 60
                        turns = [at @ each.T for each in generators]
                        ones = [np.broadcast_to(each, at.shape) for each in np.eye(2)]
                        slopes[column[g]] = sign * np.stack([*ones, *turns], axis=-1)
                rest = left(pair)[use]
                for i, slope in slopes.items():
                    gradient[i] += np.einsum("nds,nd,n->s", slope, rest, weight)
                    for j, other in slopes.items():
                        normal[i, :, j] += np.einsum("nds,ndt,n->st", slope, other, weight)
            square = normal.reshape(len(column) * size, -1)
            step = -np.linalg.lstsq(square, gradient.ravel(), rcond=1e-12)[0].reshape(len(column), size)
            for g, i in column.items():
                matrix = _exponential(
                    sum((q / 60 * each for q, each in zip(step[i, 2:], generators, strict=True)), 0 * _GROW)
                )
                centre = maps[g](middle[g])
                maps[g] = Map(matrix, centre + step[i, :2] - matrix @ centre).after(maps[g])
        far = {pair: np.hypot(*left(pair).T) / error[pair] for pair in links}
        limit = fit.sigma * np.sqrt(np.mean(np.concatenate([far[pair][keep[pair]] for pair in links]) ** 2))
        now = {pair: far[pair] < limit if limit > 0 else keep[pair] for pair in links}
        enough = all(np.count_nonzero(each) >= size for each in now.values())
        if clip == fit.nclip or not enough or all(np.array_equal(now[pair], keep[pair]) for pair in links):
            break
        keep = now
    fits = {}
    for g in groups:
        mine = [pair for pair in links if g in pair]
        rest = np.concatenate([left(pair)[keep[pair]] for pair in mine])
        stars = np.concatenate([_stars_of(links[pair])[pair.index(g)][keep[pair]] for pair in mine])
        fits[g] = (float(np.sqrt((rest**2).sum(axis=1).mean())), len(np.unique(stars)))
    return maps, fits


def _exponential(small: np.ndarray) -> np.ndarray:
    """Of a matrix of a few milliradians: a rotation then stays one, to 1e-12."""
    return _GROW + small @ (_GROW + small @ (_GROW + small / 3) / 2)


def _stars_of(link: Link) -> tuple[np.ndarray, np.ndarray]:
    return link.first, link.second


@dataclass(frozen=True)
class Gap:
    """What is left between two exposures after all, of the second from the first [arcsec], and what it may be."""

    vector: np.ndarray
    allowed: float

    @property
    def size(self) -> float:
        return float(np.hypot(*self.vector))

    @property
    def odd(self) -> bool:
        return self.size > self.allowed


def _gap(pair: tuple[int, int], link: Link, exposures: dict[int, Exposure], maps: dict[int, Map]) -> Gap:
    one, other = (maps[g](exposures[g].at[k]) for g, k in zip(pair, _stars_of(link), strict=True))
    vector = np.median(other - one, axis=0)
    scatter = np.median(np.hypot(*(other - one - vector).T)) / np.sqrt(2 * np.log(2))
    pixel = max(exposures[g].scale for g in pair)
    return Gap(vector, max(ODD * pixel, 5 * 1.25 * float(scatter) / np.sqrt(len(one))))


def _mean_gap(g: int, gaps: dict[tuple[int, int], Gap], links: Links) -> float:
    """The offset of an exposure from all others, weighted by the stars in common [arcsec]; NaN if there is none."""
    mine = [pair for pair in gaps if g in pair]
    if not mine:
        return np.nan
    vectors = [gaps[pair].vector * (1 if pair[1] == g else -1) for pair in mine]
    return float(np.hypot(*np.average(vectors, axis=0, weights=[len(links[pair].first) for pair in mine])))


def _at_odds(g: int, gaps: dict[tuple[int, int], Gap]) -> bool:
    """Whether an exposure disagrees with more than half of the others."""
    odd = [gap.odd for pair, gap in gaps.items() if g in pair]
    return 2 * sum(odd) > len(odd)


def _few(nstars: int, fit: Fit) -> str:
    return f"only {nstars} stars, {fit.minobj} are needed"


def _reason(g: int, links: Links, reference: int | None) -> str:
    """Why an exposure is not aligned: what it is to the reference, or to the one that it has most in common with."""
    if reference is not None and reference >= 0:
        link = links.get((min(g, reference), max(g, reference)))
        others = "of the reference"
    else:
        mine = [link for pair, link in links.items() if g in pair]
        link = max(mine, key=lambda each: (each.common, len(each.first)), default=None)
        others = "of the others"
    if link is None or (link.common == 0 and not len(link.first)):
        return f"it does not overlap with the images {others}"
    if link.matched:
        return f"it is matched with exposures that have no stars in common with those {others}"
    return f"{link.reason} {others}"


def _contradicted(g: int, links: Links, placed: Iterable[int], fit: Fit) -> bool:
    """Whether the stars of an exposure are not where those of the others are, which have theirs in common."""
    placed = set(placed)
    among = [link for pair, link in links.items() if link.matched and placed.issuperset(pair)]
    if not among or np.median([len(link.first) / max(link.common, 1) for link in among]) < 0.3:
        return False
    mine = [link for pair, link in links.items() if g in pair and sum(pair) - g in placed and link.common >= fit.minobj]
    against = [
        link for link in mine if link.contradicts or (not link.matched and np.hypot(*link.shift) > fit.tolerance)
    ]
    return 2 * len(against) > len(mine)


def _correct(image: Stars, plane: Plane, by: Map) -> WCS:
    """The WCS of an image with a map of the plane in it, as a linear correction in the image's own tangent plane.

    A correction that the WCS has already goes into the new one.
    """
    frames = image.wcs.available_frames
    telescope = next((name for name in ("v2v3vacorr", "v2v3") if name in frames), None)
    if telescope is None:
        raise ValueError(
            f"{image.name}: a WCS with the frame v2v3 is needed to align it, but its frames are {', '.join(frames)}; run "
            "assign_wcs again"
        )
    at = image.pointing
    to_sphere, turn, to_plane = _to_tangent_plane(at)
    to_tangent = to_sphere | turn | to_plane
    box = pixel_box(image.wcs, image.shape)
    x, y = (each.ravel() for each in np.meshgrid(*(np.linspace(*side, 3) for side in box)))
    sky = plane.back(by(plane.to(*image.wcs(x, y, with_bounding_box=False))))
    steps = image.wcs.pipeline
    before = np.transpose(to_tangent(*image.wcs.get_transform(frames[0], telescope)(x, y)))
    after = np.transpose(to_tangent(*steps[-2].transform.inverse(*sky)))
    middle = before.mean(axis=0)
    solution = np.linalg.lstsq(np.column_stack([before - middle, np.ones(len(before))]), after, rcond=None)[0]
    matrix = solution[:2].T
    correction = tangent_correction(at, matrix, solution[2] - matrix @ middle)
    first = frames.index(telescope)
    corrected = v2v3_frame(CORRECTED)
    return WCS(
        [
            *((step.frame, step.transform) for step in steps[:first]),
            (steps[first].frame, correction),
            (corrected, steps[-2].transform),
            (steps[-1].frame, None),
        ],
        name=image.wcs.name,
    )


def tangent_correction(pointing: Pointing, matrix: np.ndarray, shift: np.ndarray) -> Model:
    """The model from V2, V3 to corrected ones [arcsec]: linear in the plane that touches the sky at the reference point.

    It has the form and the names of the corrections of `tweakwcs`, by which those who read the files know it.

    Parameters
    ----------
    pointing : Pointing
    matrix : (2, 2)
    shift : (2,)
        [rad]
    """
    back = np.linalg.inv(matrix)
    correction, inverse = (
        _in_tangent_plane(pointing, AffineTransformation2D(linear, translation, name=name))
        for linear, translation, name in ((matrix, shift, "tp_affine"), (back, -back @ shift, "tp_affine_inv"))
    )
    correction.name, inverse.name = CORRECTION, f"Inverse {CORRECTION}"
    correction.inverse = inverse
    return correction


def _to_tangent_plane(pointing: Pointing) -> tuple[Model, Model, Model]:
    """From V2, V3 [arcsec] to the unit sphere, turned to the reference point and north, and projected."""
    arcsec = Scale(1 / 3600, name="arcsec_to_deg_1D")
    degrees = arcsec & arcsec
    degrees.name = "arcsec_to_deg_2D"
    angles = [pointing.v2_ref / 3600, -pointing.v3_ref / 3600, pointing.roll_ref]
    turn = RotationSequence3D(angles, "zyx", name="det_to_optic_axis")
    project = (Mapping((0, 1, 2), name="xyz") / Mapping((0, 0, 0), n_inputs=3, name="xxx")) | Mapping(
        (1, 2), name="xtyt"
    )
    project.name = "Cartesian 3D to TAN"
    return degrees | SphericalToCartesian(name="s2c", wrap_lon_at=180), turn, project


def _in_tangent_plane(pointing: Pointing, affine: Model) -> Model:
    to_sphere, turn, project = _to_tangent_plane(pointing)
    turn_back = turn.inverse
    turn_back.name = "optic_axis_to_det"
    lift = Mapping((0, 0, 1), n_inputs=2, name="xtyt2xyz") | (Const1D(1, name="one") & Identity(2, name="I(2D)"))
    lift.name = "TAN to cartesian 3D"
    degree = Scale(3600.0, name="deg_to_arcsec_1D")
    arcseconds = degree & degree
    arcseconds.name = "deg_to_arcsec_2D"
    to_angles = CartesianToSpherical(name="c2s", wrap_lon_at=180)
    return to_sphere | turn | project | affine | lift | turn_back | to_angles | arcseconds


def _judge(image: Stars, wcs: WCS, scatter: tuple[float, int], gap: float, fit: Fit) -> Alignment:
    """What a fit is, if it is believed; ``image`` has the WCS from before."""
    moved, roll = _movement(image, wcs)
    if moved > fit.farthest:
        reason = f"the fit would move it by {moved:.2f} arcsec, {fit.farthest:.2f} are believed"
        return Alignment(image.wcs, reason, 0.0, 0.0, *scatter)
    return Alignment(wcs, "aligned", moved, roll, *scatter, gap)


def _movement(image: Stars, wcs: WCS) -> tuple[float, float]:
    """How far the corners of an image move at most, and how it turns from north over east [arcsec]."""
    (x0, x1), (y0, y1) = pixel_box(image.wcs, image.shape)
    x, y = np.array([x0, x0, x1, x1]), np.array([y0, y1, y1, y0])
    plane = Plane.of([image])
    old, new = (plane.to(*each(x, y, with_bounding_box=False)) for each in (image.wcs, wcs))
    step = new - old
    (a, b), (u, v) = (old - old.mean(axis=0)).T, (new - new.mean(axis=0)).T
    angle = np.arctan2(a @ v - b @ u, a @ u + b @ v)
    return float(np.hypot(*step.T).max()), float(-3600 * np.degrees(angle))
