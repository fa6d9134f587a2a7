"""Tell touching sources apart.

The light of a group of connected pixels is cut at many levels; where a piece falls apart into several that are large
enough, each of them is the seed of a source (Bertin and Arnouts 1996, A&AS 117, 393, section 2.4). The pixels between
the seeds go to the one that is reached first from above, as water rises over the image turned upside down (Meyer 1994,
Signal Processing 38, 113). A source with too small a share of the light of its group is given to its neighbours, the
faintest first.

The result is that of `photutils.segmentation.deblend_sources`, which calls a package for each level of each group; here
a group that is one star costs some microseconds, and what a removed source leaves is flooded alone.
"""

import heapq

import numpy as np

from calibration.jit import kernel

#: With more seeds than this in a group, the levels are spaced evenly, so that noise far down is not taken for sources.
MANY_SEEDS = 200


def deblend(
    values: np.ndarray,
    labels: np.ndarray,
    count: int,
    npixels: int,
    connectivity: int,
    nlevels: int,
    contrast: float,
    mode: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Separate the sources of each group of connected pixels.

    Parameters
    ----------
    values : (ny, nx) float32
        The image in which the groups were found; above zero in a group for levels of equal ratio.
    labels : (ny, nx) int32
        Which group a pixel belongs to, 1 to ``count``; 0 is none.
    npixels : int
        Least number of pixels of a source.
    connectivity : 4 or 8
    nlevels : int
    contrast : float
        Least share of the light of its group that a source has.
    mode : "exponential", "linear" or "sinh"
        Spacing of the levels between the faintest and the brightest pixel; linear for a group that reaches below zero.

    Returns
    -------
    labels : (ny, nx) int32
        1 to the number of sources without a gap: groups that are one source in their order, then the parts of others.
    parents : (nsources,) int32
        The number of sources that were in the group that a source comes from; 1 where it is alone.
    """
    lowest, highest = np.full(count + 1, np.inf, np.float32), np.full(count + 1, -np.inf, np.float32)
    total, area = np.zeros(count + 1), np.zeros(count + 1, np.int64)
    box = np.empty((count + 1, 4), np.int64)
    _survey(values, labels, lowest, highest, total, area, box)
    groups = np.flatnonzero((area >= 2 * npixels) & (lowest < highest))
    groups = groups[groups > 0]
    low, high = lowest[groups, None], highest[groups, None]
    even = low + np.arange(1, nlevels + 1, dtype=np.float32) * ((high - low) / np.float32(nlevels + 1))
    levels = even
    if mode != "linear" and len(groups):
        share = (even - low) / (high - low)
        if mode == "sinh":
            levels = low + np.sinh(share / np.float32(0.25)) / np.sinh(np.float32(4.0)) * (high - low)
        else:
            positive = low > 0
            ratio = np.where(positive, high, 1) / np.where(positive, low, 1)
            levels = np.where(positive, low * ratio**share, even)
    separated = labels.copy()
    parts = np.ones(count + 1, np.int32)
    steps = np.array([(-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)][:connectivity])
    last = _separate(
        values,
        labels,
        groups,
        box,
        total,
        area,
        levels,
        even,
        mode != "linear",
        npixels,
        contrast,
        steps,
        separated,
        parts,
    )
    number, parents = np.zeros(last + 1, np.int32), np.zeros(last + 1, np.int32)
    _members(labels, separated, parts, parents)
    present = np.flatnonzero(parents)
    number[present] = np.arange(1, len(present) + 1)
    _relabel(separated, number)
    return separated, parents[present]


# j, y = row, i, x = column, s = source or group
@kernel
def _survey(values, labels, lowest, highest, total, area, box):
    """Extremes, sum, number of pixels and box (first and last row, first and last column) of each group."""
    ny, nx = labels.shape
    for j in range(ny):
        for i in range(nx):
            s = labels[j, i]
            if s == 0:
                continue
            value = values[j, i]
            lowest[s], highest[s] = min(lowest[s], value), max(highest[s], value)
            total[s] += value
            if area[s] == 0:
                box[s, 0], box[s, 2], box[s, 3] = j, i, i
            area[s] += 1
            box[s, 1], box[s, 2], box[s, 3] = j, min(box[s, 2], i), max(box[s, 3], i)


@kernel
def _members(labels, separated, parts, parents):
    ny, nx = labels.shape
    for j in range(ny):
        for i in range(nx):
            if separated[j, i]:
                parents[separated[j, i]] = parts[labels[j, i]]


@kernel
def _relabel(labels, number):
    ny, nx = labels.shape
    for j in range(ny):
        for i in range(nx):
            labels[j, i] = number[labels[j, i]]


@kernel
def _separate(
    values, labels, groups, box, total, area, levels, even, retry, npixels, contrast, steps, separated, parts
):
    """Write the parts of each group into ``separated``, numbered after all that there are; return the last number."""
    last = len(total) - 1
    for g in range(len(groups)):
        s = groups[g]
        y0, x0 = box[s, 0] - 1, box[s, 2] - 1
        # One pixel of border: no neighbour is out of bounds.
        width = box[s, 3] - x0 + 2
        height = box[s, 1] - y0 + 2
        near = steps[:, 0] * width + steps[:, 1]
        light = np.zeros(height * width)
        inside = np.zeros(height * width, np.bool_)
        pixels = np.empty(area[s], np.int64)
        n = 0
        for j in range(1, height - 1):
            for i in range(1, width - 1):
                if labels[y0 + j, x0 + i] == s:
                    at = j * width + i
                    pixels[n], inside[at], light[at] = at, True, values[y0 + j, x0 + i]
                    n += 1
        seeds, count = _seeds(light, pixels, levels[g], npixels, near)
        if retry and count > MANY_SEEDS:
            seeds, count = _seeds(light, pixels, even[g], npixels, near)
        if count < 2:
            continue
        count = _share_out(light, inside, pixels, seeds, count, near, contrast, total[s])
        if count < 2:
            continue
        for at in pixels:
            separated[y0 + at // width, x0 + at % width] = last + seeds[at]
        last += count
        parts[s] = count
    return last


@kernel
def _seeds(light, pixels, levels, npixels, near):
    """The pieces that a group falls apart into, numbered in the order of their first pixels; and how many there are."""
    seeds = np.zeros(light.size, np.int32)
    pieces = np.zeros(light.size, np.int32)
    stack = np.empty(pixels.size, np.int64)
    nseeds = 0
    above = pixels
    for level in levels:
        above = above[light[above] > level]
        if above.size < 2 * npixels:
            break
        npieces = _pieces(above, npixels, near, pieces, stack)
        if npieces < 2:
            pass
        elif nseeds == 0:
            for at in above:
                seeds[at] = max(pieces[at], 0)
            nseeds = npieces
        else:
            children = np.zeros(nseeds + 1, np.int32)
            seen = np.zeros(npieces + 1, np.bool_)
            for at in above:
                if pieces[at] > 0 and not seen[pieces[at]]:
                    seen[pieces[at]] = True
                    children[seeds[at]] += 1
            children[0] = 0
            if (children > 1).any():
                for at in pixels:
                    if seeds[at] and children[seeds[at]] > 1 and pieces[at] <= 0:
                        seeds[at] = 0
                # Number anew in the order of the first pixels; a piece of the level and an older seed are told apart.
                renumbered = np.zeros(nseeds + npieces + 1, np.int32)
                nold, nseeds = nseeds, 0
                for at in pixels:
                    if seeds[at]:
                        key = nold + pieces[at] if children[seeds[at]] > 1 else seeds[at]
                        if renumbered[key] == 0:
                            nseeds += 1
                            renumbered[key] = nseeds
                        seeds[at] = renumbered[key]
        for at in above:
            pieces[at] = 0
    return seeds, nseeds


@kernel
def _pieces(above, npixels, near, pieces, stack):
    """Number the connected pieces of at least ``npixels`` among these pixels; smaller ones are -1."""
    for at in above:
        pieces[at] = -2
    count = 0
    for first in above:
        if pieces[first] != -2:
            continue
        pieces[first], stack[0], n, done = -1, first, 1, 0
        while done < n:
            for step in near:
                if pieces[stack[done] + step] == -2:
                    pieces[stack[done] + step] = -1
                    stack[n] = stack[done] + step
                    n += 1
            done += 1
        if n >= npixels:
            count += 1
            for k in range(n):
                pieces[stack[k]] = count
    return count


@kernel
def _share_out(light, inside, pixels, seeds, count, near, contrast, total):
    """Give each pixel to a seed, take away seeds with too little light, and return how many are left, without a gap."""
    _flood(light, inside, pixels, seeds, near)
    flux = np.zeros(count + 1)
    for at in pixels:
        flux[seeds[at]] += light[at]
    left, flux[0] = count, np.inf
    while left > 1:
        faintest = np.argmin(flux)
        if flux[faintest] / total >= contrast:
            break
        freed = pixels[seeds[pixels] == faintest]
        seeds[freed] = 0
        _flood(light, inside, freed, seeds, near)
        for at in freed:
            flux[seeds[at]] += light[at]
        flux[faintest] = np.inf
        left -= 1
    number, last = np.zeros(count + 1, np.int32), 0
    for s in range(1, count + 1):
        if flux[s] < np.inf:
            last += 1
            number[s] = last
    for at in pixels:
        seeds[at] = number[seeds[at]]
    return left


@kernel
def _flood(light, inside, pixels, seeds, near):
    """Let the seeds grow over these pixels, the brightest pixel at a shore first, then the one that was reached first."""
    shore = [(0.0, 0, 0) for _ in range(0)]
    for at in pixels:
        if seeds[at]:
            continue
        for step in near:
            if seeds[at + step]:
                heapq.heappush(shore, (-light[at + step], 0, at + step))
    age = 0
    while len(shore):
        _, _, at = heapq.heappop(shore)
        for step in near:
            new = at + step
            if inside[new] and seeds[new] == 0:
                age += 1
                seeds[new] = seeds[at]
                heapq.heappush(shore, (-light[new], age, new))
