"""Snowballs: large cosmic ray events with a saturated core and a faint halo, in the near-infrared detectors.

A snowball shows as a large patch of jumps around pixels that saturate in the same group or in the next. Its halo reaches
farther than jumps are detected, and charge creeps out of its core later. So the ellipse with the second moments of the
patch is enlarged and flagged as a jump; the core is enlarged and flagged as saturated from that group on; and since the
core keeps charge over the reset, it is flagged as a jump in the first groups of the next integration.

A patch is a set of flagged pixels that touch, corners included; its area counts its holes, for a saturated core is a hole
in the jumps. The axes of its ellipse are four standard deviations of its pixels, less one pixel. Source: JWST pipeline
documentation, "jump", sections "Snowballs" and "Arguments".
"""

from dataclasses import dataclass

import numpy as np

from calibration import dq

_JUMP = dq.GROUP["JUMP_DET"]
_SATURATED = dq.GROUP["SATURATED"]
_TOUCHING = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Ellipse:
    """Centre ``y, x`` [pixel], full axes [pixel], and angle of the major axis from +y towards +x [degree]."""

    y: float
    x: float
    major: float
    minor: float
    angle: float

    def covers(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Which points are in the ellipse or on its edge; an ellipse without a width covers nothing."""
        if self.minor <= 0:
            return np.zeros(np.shape(y), bool)
        along, across = self._turn(y - self.y, x - self.x)
        return (2 * along / self.major) ** 2 + (2 * across / self.minor) ** 2 <= 1

    def enlarge(self, factor: float) -> "Ellipse":
        """The ellipse with its minor axis ``factor`` times as long, and its major axis longer by as many pixels."""
        more = (factor - 1) * self.minor
        return Ellipse(self.y, self.x, self.major + more, self.minor + more, self.angle)

    def draw(self, shape: tuple[int, int], largest_radius: float) -> tuple[tuple[slice, slice], np.ndarray]:
        """Where the ellipse lies in an image of ``shape``, and which pixels there it covers (bool).

        Centre and half axes are rounded to whole pixels, half axes after the cut at ``largest_radius``.
        """
        half_major, half_minor = (round(min(axis / 2, largest_radius)) for axis in (self.major, self.minor))
        y, x = round(self.y), round(self.x)
        reach = max(half_major, half_minor, 0) + 1
        rows = slice(max(y - reach, 0), min(y + reach + 1, shape[0]))
        columns = slice(max(x - reach, 0), min(x + reach + 1, shape[1]))
        if half_major <= 0 or half_minor <= 0:
            return (rows, columns), np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        v, u = np.ogrid[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
        along, across = self._turn(v, u)
        return (rows, columns), (along / half_major) ** 2 + (across / half_minor) ** 2 < 1

    def _turn(self, v, u):
        # Half a turn leaves an ellipse as it is, but not the last bit of the cosine, and pixels may lie just on the rim.
        angle = np.radians(self.angle) % np.pi
        cosine, sine = np.cos(angle), np.sin(angle)
        return v * cosine + u * sine, v * sine - u * cosine


@dataclass(frozen=True)
class Snowballs:
    """What is a snowball, and how far it reaches.

    Attributes
    ----------
    smallest_jump, smallest_core : float
        Least area of a patch of jumps and of newly saturated pixels [pixel].
    expansion : float
        How much longer the minor axis of what is flagged is than that of the patch.
    needs_core : bool
        Whether a patch must hold the centre of a saturated one, unless it is near an edge.
    edge : float
        How near [pixel]: the core may be off the detector.
    widest_kept_core : float
        Cores with a longer minor axis (full length [pixel]) are enlarged, and remembered in the next integration.
    core_growth : float
        By so much on each side [pixel].
    largest_radius : float
        Cut of all that is flagged [pixel].
    next_groups : int
        The groups before this one, but the first, remember cores of the integration before.
    """

    smallest_jump: float = 5.0
    smallest_core: float = 1.0
    expansion: float = 2.0
    needs_core: bool = True
    edge: float = 25
    widest_kept_core: float = 2.5
    core_growth: float = 2
    largest_radius: float = 200
    next_groups: int = 0


def flag_snowballs(groupdq: np.ndarray, snowballs: Snowballs) -> tuple[np.ndarray, int]:
    """Flag the reach of large events around jumps and saturated pixels that were found before.

    Parameters
    ----------
    groupdq : (nints, ngroups, ny, nx) uint8
        With ``SATURATED`` and ``JUMP_DET``.
    snowballs : Snowballs

    Returns
    -------
    groupdq : (nints, ngroups, ny, nx) uint8
        With more pixels ``JUMP_DET`` and ``SATURATED``; a jump in a group that is now saturated is none any more.
    count : int
        Snowballs found.
    """
    nints, ngroups, ny, nx = groupdq.shape
    shape = (ny, nx)
    flagged = groupdq.copy()
    count = 0
    cores = np.zeros((nints, ny, nx), bool)
    for i in range(nints):
        ramp = flagged[i]
        for g in range(1, ngroups):
            jumps = find_patches(ramp[g] & _JUMP != 0, snowballs.smallest_jump)
            if snowballs.needs_core:
                new = find_patches(_newly_saturated(ramp, g), snowballs.smallest_core)
                later = find_patches(_newly_saturated(ramp, g + 1), snowballs.smallest_core) if g + 1 < ngroups else []
                centres = np.array([(core.y, core.x) for core in new + later]).reshape(-1, 2)
                jumps = [
                    jump
                    for jump in jumps
                    if _is_near_edge(jump, shape, snowballs.edge) or jump.covers(*centres.T).any()
                ]
                _enlarge_cores(ramp[g:], cores[i], new, snowballs)
            for jump in jumps:
                where, inside = jump.enlarge(snowballs.expansion).draw(shape, snowballs.largest_radius)
                flag_unsaturated(ramp[g], where, inside)
            count += len(jumps)
    for i in range(1, nints):
        flagged[i, 1 : snowballs.next_groups, cores[i - 1]] |= _JUMP
    return flagged, count


def find_patches(mask: np.ndarray, smallest_area: float) -> list[Ellipse]:
    """Ellipses of the patches of a mask (ny, nx) bool with at least ``smallest_area`` pixels, their holes included."""
    # Here, not above: it takes a third of a second, and large events are looked for on demand.
    from scipy import ndimage
    from skimage.measure import regionprops

    labels, _ = ndimage.label(mask, _TOUCHING)
    area = np.bincount(labels.ravel())
    ellipses = []
    for p, box in enumerate(ndimage.find_objects(labels), start=1):
        pixels = labels[box] == p
        if area[p] < smallest_area and _fill(pixels) < smallest_area:
            continue
        moments = regionprops(pixels.astype(np.uint8))[0]
        y, x = (float(corner.start + mean) for corner, mean in zip(box, moments.centroid, strict=True))
        major, minor = (max(length - 1, 0.0) for length in (moments.axis_major_length, moments.axis_minor_length))
        ellipses.append(Ellipse(y, x, major, minor, float(np.degrees(moments.orientation))))
    return ellipses


def flag_unsaturated(group: np.ndarray, where: tuple[slice, slice], inside: np.ndarray) -> None:
    """Set ``JUMP_DET`` in a group (ny, nx) uint8, in place, in the pixels of ``where`` that are inside and not saturated."""
    area = group[where]
    area[inside & (area & _SATURATED == 0)] |= _JUMP


def _fill(patch: np.ndarray) -> int:
    if min(patch.shape) < 3:
        return int(np.count_nonzero(patch))
    from scipy import ndimage

    return int(np.count_nonzero(ndimage.binary_fill_holes(patch, _TOUCHING)))


def _newly_saturated(ramp: np.ndarray, g: int) -> np.ndarray:
    return (ramp[g] & ~ramp[g - 1] & _SATURATED) != 0


def _is_near_edge(jump: Ellipse, shape: tuple[int, int], edge: float) -> bool:
    return any(at < edge or at > max(0, n - edge) for at, n in zip((jump.y, jump.x), shape, strict=True))


def _enlarge_cores(groups: np.ndarray, remembered: np.ndarray, cores: list[Ellipse], snowballs: Snowballs) -> None:
    growth = 2 * snowballs.core_growth
    for core in cores:
        if core.minor <= snowballs.widest_kept_core:
            continue
        larger = Ellipse(core.y, core.x, core.major + growth, core.minor + growth, core.angle)
        where, inside = larger.draw(remembered.shape, snowballs.largest_radius)
        for group in groups:
            area = group[where]
            area[inside] = area[inside] & ~_JUMP | _SATURATED
        where, inside = core.draw(remembered.shape, np.inf)
        remembered[where] |= inside
