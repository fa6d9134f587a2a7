"""Spread the pixels of one exposure over the pixels of another grid.

A pixel is a small parallelogram on the output grid: its centre and its two sides come from where it and its neighbours
stand. It gives each output pixel the share of its area that lies there (the square kernel of Fruchter and Hook 2002, PASP
114, 144). The overlap of a parallelogram and a pixel is the sum, over its four edges, of the signed area under the edge
inside the pixel. All planes of an exposure share one pass over this geometry.

A pixel that lies half outside the output gives what lies inside, where the `drizzle` package drops all of it. The other
kernels are those of that package, one pass for each plane.
"""

from collections.abc import Sequence

import numpy as np
from drizzle.resample import Drizzle

from calibration.jit import kernel as compiled


def spread(
    planes: Sequence[np.ndarray],
    weight: np.ndarray,
    pixmap: np.ndarray,
    origin: tuple[int, int],
    shape: tuple[int, int],
    kernel: str = "square",
    pixfrac: float = 1.0,
    scale_ratio: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """The weighted sum of some planes of an exposure on the output grid, and the sum of the weights.

    Parameters
    ----------
    planes : sequence of (ny, nx) float32
        A pixel that is NaN in the first plane does not count; NaN in another spoils what it touches in that plane.
    weight : (ny, nx) float32
        Weight of each pixel; what is not positive does not count.
    pixmap : (ny, nx, 2) float64
        Where the pixels stand (x, y) [output pixel]; NaN where they do not.
    origin : (int, int)
        Pixel (x, y) of the output grid where the returned arrays begin.
    shape : (int, int)
        (my, mx) of the returned arrays.
    kernel, pixfrac, scale_ratio
        Form of a pixel, fraction of its side that it covers, side of an output pixel over that of an input pixel.

    Returns
    -------
    sums : (nplanes, my, mx) float32
        Sum of value times weight times share.
    weights : (my, mx) float32
        Sum of weight times share.
    """
    if kernel == "square" and pixfrac > 0:
        stack = tuple(np.asarray(plane, np.float32) for plane in planes)
        weights = np.zeros(shape, np.float32)
        sums = np.zeros((len(stack), *shape), np.float32)
        # One pass for up to four planes: the kernel has a fixed number of arguments.
        for first in range(0, len(stack), 4):
            some = stack[first : first + 4]
            filled = some + (some[0],) * (4 - len(some))
            target = weights if first == 0 else np.zeros_like(weights)
            _spread_square(
                *filled, len(some), stack[0], weight, pixmap, *origin, pixfrac, sums[first : first + 4], target
            )
        return sums, weights
    sums = np.zeros((len(planes), *shape), np.float32)
    weights = np.zeros(shape, np.float32)
    counted = np.where(np.isnan(planes[0]), np.float32(0), weight)
    for k, plane in enumerate(planes):
        one = Drizzle(kernel=kernel, fillval=0.0, out_shape=shape, disable_ctx=True)
        one.add_image(
            plane,
            pixmap=pixmap - origin,
            exptime=1.0,
            weight_map=counted,
            pixfrac=pixfrac,
            pixel_scale_ratio=scale_ratio,
            in_units="cps",
        )
        weights = one.out_wht
        sums[k] = one.out_img * weights
    return sums, weights


# y, x = row and column of a pixel of the exposure; j, i = of the output
@compiled
def _spread_square(first, second, third, fourth, nplanes, judge, weight, pixmap, x0, y0, pixfrac, sums, weights):
    ny, nx = weight.shape
    my, mx = weights.shape
    half = 0.5 * pixfrac
    for y in range(ny):
        for x in range(nx):
            w = weight[y, x]
            cx, cy = pixmap[y, x, 0] - x0, pixmap[y, x, 1] - y0
            if not w > 0 or np.isnan(cx) or np.isnan(cy) or np.isnan(judge[y, x]):
                continue
            if abs(cx) > 1e9 or abs(cy) > 1e9:  # no pixel number
                continue
            ax, ay = _side(pixmap, y, x, 0, 1)
            bx, by = _side(pixmap, y, x, 1, 0)
            ax, ay, bx, by = half * ax, half * ay, half * bx, half * by
            area = 4 * abs(ax * by - ay * bx)
            if not area > 0:
                continue
            wide, high = abs(ax) + abs(bx), abs(ay) + abs(by)
            # Output pixel i reaches from i - 0.5 to i + 0.5.
            i0, i1 = int(np.floor(cx - wide + 0.5)), int(np.floor(cx + wide + 0.5))
            j0, j1 = int(np.floor(cy - high + 0.5)), int(np.floor(cy + high + 0.5))
            four = i1 == i0 + 1 and j1 == j0 + 1
            if four:
                four, lower_left, lower, left = _quarters(cx - i0 - 0.5, cy - j0 - 0.5, ax, ay, bx, by)
            for j in range(max(j0, 0), min(j1, my - 1) + 1):
                for i in range(max(i0, 0), min(i1, mx - 1) + 1):
                    if i0 == i1 and j0 == j1:
                        part = w
                    elif four:
                        if j == j0:
                            covered = lower_left if i == i0 else lower - lower_left
                        else:
                            covered = left - lower_left if i == i0 else area - left - lower + lower_left
                        part = w * np.float32(covered / area)
                    else:
                        u, v = cx - i + 0.5, cy - j + 0.5
                        covered = abs(
                            _under(u + ax + bx, v + ay + by, u + ax - bx, v + ay - by)
                            + _under(u + ax - bx, v + ay - by, u - ax - bx, v - ay - by)
                            + _under(u - ax - bx, v - ay - by, u - ax + bx, v - ay + by)
                            + _under(u - ax + bx, v - ay + by, u + ax + bx, v + ay + by)
                        )
                        part = w * np.float32(covered / area)
                    if part > 0:
                        weights[j, i] += part
                        sums[0, j, i] += part * first[y, x]
                        if nplanes > 1:
                            sums[1, j, i] += part * second[y, x]
                        if nplanes > 2:
                            sums[2, j, i] += part * third[y, x]
                        if nplanes > 3:
                            sums[3, j, i] += part * fourth[y, x]


@compiled
def _quarters(u, v, ax, ay, bx, by):
    """What a pixel covers of four output pixels that meet at the origin: the lower left one, both lower, both left ones.

    Its centre is (u, v), its half sides a and b. It must be so little turned that a line along an axis through the
    origin leaves it through opposite sides, as almost all do; the first value tells whether it is.
    """
    if abs(ax) < abs(bx):
        ax, ay, bx, by = bx, by, ax, ay
    if ax < 0:
        ax, ay = -ax, -ay
    if by < 0:
        bx, by = -bx, -by
    if not (abs(u) < ax - abs(bx) and abs(v) < by - abs(ay)):
        return False, 0.0, 0.0, 0.0
    slope, lean = ay / ax, bx / by
    half = 2 * (ax * by - ay * bx)
    corner_x, corner_y = u - ax - bx, v - ay - by
    # The quadrilateral from the corner along both sides to the axes, and to the origin.
    lower_left = 0.5 * (corner_x * (corner_y - corner_x * slope) + corner_y * (corner_x - corner_y * lean))
    return True, lower_left, half - 2 * v * (ax - ay * lean), half - 2 * u * (by - bx * slope)


@compiled
def _side(pixmap, y, x, dy, dx):
    """How far the map moves over one pixel, from both neighbours or the one that there is; 0 without any."""
    ny, nx = pixmap.shape[:2]
    before = y >= dy and x >= dx and not np.isnan(pixmap[y - dy, x - dx, 0])
    after = y + dy < ny and x + dx < nx and not np.isnan(pixmap[y + dy, x + dx, 0])
    y1, x1 = (y - dy, x - dx) if before else (y, x)
    y2, x2 = (y + dy, x + dx) if after else (y, x)
    share = 0.5 if before and after else 1.0
    return share * (pixmap[y2, x2, 0] - pixmap[y1, x1, 0]), share * (pixmap[y2, x2, 1] - pixmap[y1, x1, 1])


@compiled
def _under(x1, y1, x2, y2):
    """Signed area below the edge from (x1, y1) to (x2, y2), inside the unit square."""
    sign = 1.0
    if x1 > x2:
        x1, y1, x2, y2, sign = x2, y2, x1, y1, -1.0
    left, right = max(x1, 0.0), min(x2, 1.0)
    if left >= right:
        return 0.0
    slope = (y2 - y1) / (x2 - x1)
    low, high = y1 + slope * (left - x1), y1 + slope * (right - x1)
    if low > high:
        low, high = high, low
    if high <= 0:
        return 0.0
    width = right - left
    if low >= 1:
        return sign * width
    if low >= 0 and high <= 1:
        return sign * width * 0.5 * (low + high)
    return sign * width * (_integral(high) - _integral(low)) / (high - low)


@compiled
def _integral(t):
    """Of min(max(t, 0), 1)."""
    if t <= 0:
        return 0.0
    return 0.5 * t * t if t < 1 else t - 0.5
