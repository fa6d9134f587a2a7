"""Drawings of the report: arrays and nodes in, text of HTML out; nothing here knows of files.

Pictures become JPEG or PNG inside a ``data:`` address. Plots are SVG whose colours come from the page's style sheet, so
that they follow its light and dark scheme and stay sharp in print.
"""

import base64
import graphlib
import io
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np

STATE_MARKS = {"done": "✓", "failed": "✕", "blocked": "–", "empty": "○"}

CHARACTER = 6.7  # width of one character of 11 px monospace type [px]
BAR_CHARACTER = 5.5  # and of the 9 px type of the time line
BOX_HEIGHT = 38
ROW_GAP = 10
COLUMN_GAP = 46
PASSAGE = 8  # height left for a line that passes a column


# --- pictures ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A picture for the page.

    Attributes
    ----------
    address : str
        ``data:`` address.
    width, height : int
        Size [pixel of the picture].
    step : int
        Pixels of the data along the side of one pixel of the picture.
    black, white : float
        Values that are drawn black and white; NaN where colours are no measure.
    """

    address: str
    width: int
    height: int
    step: int
    black: float = math.nan
    white: float = math.nan


def draw_picture(data: np.ndarray, edge: int) -> Picture:
    """An image as a grey picture, first row at the bottom, no side longer than ``edge``.

    The stretch is asinh above the sky: linear within about 2 sigma of the median, logarithmic beyond, from 2 sigma below
    it up to the 99.95th percentile. Pixels without a value (NaN) are slate blue.

    Parameters
    ----------
    data : (ny, nx) float
    edge
        Longest side [pixel of the picture].
    """
    small = shrink(data, edge)
    values = small[np.isfinite(small)]
    grey = np.zeros(small.shape, np.float32)
    black = white = math.nan
    if values.size:
        sky = float(np.median(values))
        sigma = float(1.4826 * np.median(np.abs(values - sky)))
        top = float(np.percentile(values, 99.95))
        if sigma <= 0:
            sigma = max(float(values.std()), abs(sky) * 1e-6, 1e-30)
        black, white = sky - 2.0 * sigma, max(top, sky + 8.0 * sigma)
        low, high = np.arcsinh((black - sky) / (2 * sigma)), np.arcsinh((white - sky) / (2 * sigma))
        grey = np.clip((np.arcsinh((np.nan_to_num(small, nan=sky) - sky) / (2 * sigma)) - low) / (high - low), 0, 1)
    rgb = np.repeat((255 * grey).astype(np.uint8)[:, :, None], 3, axis=2)
    rgb[~np.isfinite(small)] = (52, 66, 88)
    return _encode(rgb[::-1], "JPEG", _step(data, edge), black, white)


def draw_labels(data: np.ndarray, edge: int) -> Picture:
    """A segmentation map as a picture with one colour per label, first row at the bottom; label 0 is dark."""
    step = _step(data, edge)
    labels = data[::step, ::step].astype(np.int64)
    colours = np.array(
        [
            (136, 204, 238),
            (68, 170, 153),
            (153, 153, 51),
            (221, 204, 119),
            (204, 102, 119),
            (170, 68, 153),
            (238, 238, 238),
        ],
        np.uint8,
    )
    # Neighbours in number are often neighbours on the sky: a multiplier keeps their colours apart.
    rgb = np.where(labels[:, :, None] > 0, colours[(labels * 5) % len(colours)], np.array((22, 26, 34), np.uint8))
    return _encode(rgb[::-1].astype(np.uint8), "PNG", step)


def _step(data: np.ndarray, edge: int) -> int:
    return max(1, math.ceil(max(data.shape) / edge))


def shrink(data: np.ndarray, edge: int) -> np.ndarray:
    """``data`` averaged in square blocks, NaN left out, until no side is longer than ``edge``; float32."""
    data = np.asarray(data, np.float32)
    step = _step(data, edge)
    if step == 1:
        return data
    ny, nx = (math.ceil(side / step) for side in data.shape)
    padded = np.full((ny * step, nx * step), np.nan, np.float32)
    padded[: data.shape[0], : data.shape[1]] = data
    blocks = padded.reshape(ny, step, nx, step)
    good = np.isfinite(blocks)
    count = good.sum(axis=(1, 3), dtype=np.int32)
    total = np.where(good, blocks, 0).sum(axis=(1, 3), dtype=np.float32)
    return np.divide(total, count, out=np.full((ny, nx), np.nan, np.float32), where=count > 0)


def _encode(rgb: np.ndarray, form: str, step: int, black: float = math.nan, white: float = math.nan) -> Picture:
    from PIL import Image as Pillow  # slow to import, and only pages need it

    buffer = io.BytesIO()
    options = {"quality": 82} if form == "JPEG" else {"optimize": True}
    Pillow.fromarray(np.ascontiguousarray(rgb)).save(buffer, form, **options)
    text = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/{form.lower()};base64,{text}", rgb.shape[1], rgb.shape[0], step, black, white)


# --- the graph of products --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Box:
    """A node of the graph, or several alike (``members``), their seconds added up; ``label`` is what is written on it."""

    name: str
    label: str
    stage: str
    state: str
    needs: tuple[str, ...]
    seconds: float | None
    members: tuple[str, ...] = ()

    with_ = replace


def merge_alike(boxes: Sequence[Box]) -> list[Box]:
    """Boxes of one stage and state that have like needs and like users made into one box each.

    The coarsest partition is refined until no two boxes of a part differ in the parts that they need or feed: a failure
    therefore keeps what it blocked apart from what went on.
    """
    users = _users(boxes)
    part: dict[str, object] = {box.name: (box.stage, box.state) for box in boxes}
    while True:
        finer = {
            box.name: (
                part[box.name],
                frozenset(part[need] for need in box.needs if need in part),
                frozenset(part[user] for user in users[box.name]),
            )
            for box in boxes
        }
        numbers = {key: n for n, key in enumerate(dict.fromkeys(finer.values()))}
        settled = len(numbers) == len(set(part.values()))
        part = {name: numbers[key] for name, key in finer.items()}
        if settled:
            break
    parts = defaultdict(list)
    for box in boxes:
        parts[part[box.name]].append(box)
    leader = {box.name: group[0].name for group in parts.values() for box in group}
    merged = []
    for group in parts.values():
        needs = dict.fromkeys(leader[need] for box in group for need in box.needs if need in leader)
        seconds = [box.seconds for box in group if box.seconds is not None]
        merged.append(
            group[0].with_(
                needs=tuple(needs),
                seconds=sum(seconds) if seconds else None,
                members=tuple(box.label for box in group),
            )
        )
    return merged


def draw_graph(boxes: Sequence[Box], prefix: str = "") -> str:
    """The graph of products as SVG: a column per depth, a line from each product to those that need it.

    ``prefix`` is left out of the names that are drawn.
    """
    if not boxes:
        return ""
    depth = _depths(boxes)
    columns, links = _columns(boxes, depth)
    by_name = {box.name: box for box in boxes}
    heights = [sum(_height(name, by_name) + ROW_GAP for name in column) for column in columns]
    total = max(heights) + ROW_GAP
    place: dict[str, tuple[float, float, float]] = {}  # left, centre, width
    left = 12.0
    for column, height in zip(columns, heights, strict=True):
        drawn = [by_name[name] for name in column if name in by_name]
        width = max(max(map(len, _text(box, prefix))) for box in drawn) * CHARACTER + 30
        top = (total - height + ROW_GAP) / 2
        for name in column:
            high = _height(name, by_name)
            place[name] = (left, top + high / 2, width)
            top += high + ROW_GAP
        left += width + COLUMN_GAP
    parts = [f'<g class="links">{"".join(_link(place, chain) for chain in links)}</g>']
    parts += [_box(by_name[name], place[name], prefix) for name in place if name in by_name]
    width = left - COLUMN_GAP + 12
    return (
        f'<svg class="graph" style="--wide:{width:.0f}px" viewBox="0 0 {width:.0f} {total:.0f}" role="img" '
        f'aria-label="Graph of {len(boxes)} products and what they need">{"".join(parts)}</svg>'
    )


def _users(boxes: Iterable[Box]) -> dict[str, list[str]]:
    users: dict[str, list[str]] = defaultdict(list)
    for box in boxes:
        for need in box.needs:
            users[need].append(box.name)
    return users


def _depths(boxes: Sequence[Box]) -> dict[str, int]:
    """Column of each box: one more than the deepest that it needs."""
    needs = {box.name: box.needs for box in boxes}
    order = graphlib.TopologicalSorter(
        {name: [n for n in of if n in needs] for name, of in needs.items()}
    ).static_order()
    depth: dict[str, int] = {}
    for name in order:
        depth[name] = max((depth[need] + 1 for need in needs[name] if need in needs), default=0)
    return depth


def _columns(boxes: Sequence[Box], depth: Mapping[str, int]) -> tuple[list[list[str]], list[list[str]]]:
    """Names per column in drawing order, and each link as the chain of places that it goes through.

    A link across several columns gets a passage in each between; boxes and passages are then ordered by the mean place of
    what they are linked to, which keeps lines from crossing (Sugiyama, Tagawa & Toda 1981).
    """
    columns: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for box in boxes:
        columns[depth[box.name]].append(box.name)
    links = []
    before: dict[str, list[str]] = defaultdict(list)
    after: dict[str, list[str]] = defaultdict(list)
    for box in boxes:
        for need in box.needs:
            if need not in depth:
                continue
            passages = [f"{need}\n{box.name}\n{at}" for at in range(depth[need] + 1, depth[box.name])]
            for at, passage in enumerate(passages, depth[need] + 1):
                columns[at].append(passage)
            chain = [need, *passages, box.name]
            links.append(chain)
            for here, there in itertools.pairwise(chain):
                after[here].append(there)
                before[there].append(here)
    for _ in range(4):
        for sweep, linked in ((columns[1:], before), (columns[-2::-1], after)):
            rank = {name: row / len(column) for column in columns for row, name in enumerate(column)}
            for column in sweep:
                column.sort(
                    key=lambda name: _mean(rank[other] for other in linked[name]) if linked[name] else rank[name]
                )
                rank.update({name: row / len(column) for row, name in enumerate(column)})
    return columns, links


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def _height(name: str, by_name: Mapping[str, Box]) -> int:
    return BOX_HEIGHT if name in by_name else PASSAGE


def _text(box: Box, prefix: str) -> tuple[str, str]:
    seconds = "" if box.seconds is None else f" · {format_seconds(box.seconds)}"
    if len(box.members) > 1:
        return f"{len(box.members)} × {box.stage}", f"{box.state}{seconds} in all" if seconds else box.state
    return _short(box.label, prefix), f"{box.stage}{seconds}" + ("" if box.state == "done" else f" · {box.state}")


def _short(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lstrip("-_") or name


def _box(box: Box, place: tuple[float, float, float], prefix: str) -> str:
    left, centre, width = place
    first, second = _text(box, prefix)
    members = "\n".join(box.members) if len(box.members) > 1 else box.label
    mark = STATE_MARKS.get(box.state, "?")
    return (
        f'<g class="node {_class(box.state)}"><title>{escape(members)}: {escape(box.stage)}, {escape(box.state)}</title>'
        f'<rect x="{left:.1f}" y="{centre - BOX_HEIGHT / 2:.1f}" width="{width:.1f}" height="{BOX_HEIGHT}" rx="4"/>'
        f'<text class="mark" x="{left + 9:.1f}" y="{centre - 3:.1f}">{mark}</text>'
        f'<text class="name" x="{left + 23:.1f}" y="{centre - 3:.1f}">{escape(first)}</text>'
        f'<text class="what" x="{left + 23:.1f}" y="{centre + 12:.1f}">{escape(second)}</text></g>'
    )


def _class(state: str) -> str:
    return state if state in STATE_MARKS else "other"


def _link(place: Mapping[str, tuple[float, float, float]], chain: Sequence[str]) -> str:
    path = ""
    for here, there in itertools.pairwise(chain):
        left, y0, width = place[here]
        x0, (x1, y1, _) = left + width, place[there]
        if path:
            path += f"L{x0:.1f} {y0:.1f}"  # straight through the column that it passes
        else:
            path = f"M{x0:.1f} {y0:.1f}"
        bend = (x1 - x0) / 2
        path += f"C{x0 + bend:.1f} {y0:.1f} {x1 - bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
    return f'<path d="{path}"/>'


# --- the time line ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """Work in time: from ``start`` [s after the run's start], ``seconds`` long; ``tone`` is the number of its colour."""

    name: str
    start: float
    seconds: float
    tone: int
    state: str
    note: str


def draw_timeline(bars: Sequence[Bar], wall: float, prefix: str = "") -> str:
    """Work against time as SVG, packed into as many rows as ran at once; ``wall`` [s] is the whole time."""
    bars = sorted(bars, key=lambda bar: bar.start)
    end = max([wall, *(bar.start + bar.seconds for bar in bars)])
    if not bars or end <= 0:
        return ""
    free: list[float] = []  # when each row is free again
    rows = []
    for bar in bars:
        row = next((n for n, until in enumerate(free) if until <= bar.start + 1e-3 * end), len(free))
        free[row:] = [bar.start + bar.seconds, *free[row + 1 :]]
        rows.append(row)
    width, height, left = 1000.0, 26.0, 8.0
    scale = (width - 2 * left) / end
    bottom = len(free) * height + 6
    parts = []
    for tick in nice_ticks(0, end, 8):
        x = left + tick * scale
        anchor = "start" if tick == 0 else "middle" if x < width - 30 else "end"
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{bottom:.1f}"/>')
        label = f"{tick:g} s" if end < 600 else f"{tick / 60:.3g} min"
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14:.1f}" text-anchor="{anchor}">{label}</text>')
    for bar, row in zip(bars, rows, strict=True):
        x, wide, y = left + bar.start * scale, max(bar.seconds * scale, 1.5), row * height + 4
        room = int((wide - 6) / BAR_CHARACTER)
        text = _short(bar.name, prefix)
        label = text if len(text) <= room else f"{text[: room - 1]}…" if room >= 6 else ""
        parts.append(
            f'<g class="bar tone-{bar.tone} {_class(bar.state)}"><title>{escape(bar.note)}</title>'
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{height - 4:.0f}" rx="2"/>'
            + (f'<text x="{x + 4:.1f}" y="{y + 15:.1f}">{escape(label)}</text>' if label else "")
            + "</g>"
        )
    label = f"{len(bars)} pieces of work over {format_seconds(end)}, at most {len(free)} at once"
    return _svg("timeline", width, bottom + 20, label, parts)


def _svg(kind: str, width: float, height: float, label: str, parts: Sequence[str]) -> str:
    box = f'viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg class="{kind}" {box} role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


# --- spectra and points -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """A spectrum: wavelength [um], flux density and its standard deviation (or None), in the unit of the plot.

    ``tone`` is the number of its colour, or "truth".
    """

    label: str
    wavelength: np.ndarray
    flux: np.ndarray
    error: np.ndarray | None
    tone: int | str


def draw_spectrum(curves: Sequence[Curve], lines: Sequence[tuple[str, float]], unit: str, title: str) -> str:
    """Spectra of one source as SVG, each with a band of one standard deviation; ``lines`` (name, wavelength [um]) are marked.

    Returns "" where no curve has two points with a value.
    """
    curves = [curve for curve in (_finite(curve) for curve in curves) if curve.wavelength.size > 1]
    if not curves:
        return ""
    width, height, left, right, top, bottom = 460.0, 240.0, 50.0, 8.0, 34.0, 34.0
    low_x = min(float(curve.wavelength.min()) for curve in curves)
    high_x = max(float(curve.wavelength.max()) for curve in curves)
    low, high = _flux_range(curves)
    scale, unit = _scaled(unit, max(abs(low), abs(high)))
    low, high = low * scale, high * scale

    def across(wavelength):
        return left + (wavelength - low_x) / (high_x - low_x) * (width - left - right)

    def up(flux):
        return height - bottom - (flux - low) / (high - low) * (height - top - bottom)

    parts = []
    for tick, label in labelled_ticks(low, high, 4):
        y = up(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 5}" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>')
    for tick, label in labelled_ticks(low_x, high_x, 5):
        x = across(tick)
        parts.append(
            f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{height - bottom}" y2="{height - bottom + 4}"/>'
        )
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 16}" text-anchor="middle">{label}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{height - bottom}" y2="{height - bottom}"/>')
    middle = (left + width - right) / 2
    parts.append(f'<text class="unit" x="{middle}" y="{height - 3}" text-anchor="middle">wavelength [µm]</text>')
    parts.append(f'<text class="unit" x="2" y="12">flux density [{escape(unit)}]</text>')
    taken = -math.inf
    for name, wavelength in sorted(lines, key=lambda line: line[1]):
        if low_x <= wavelength <= high_x:
            x = across(wavelength)
            parts.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6}" y2="{height - bottom}"/>')
            half = 3.1 * len(name)
            if x - half > taken:
                parts.append(f'<text class="line" x="{x:.1f}" y="{top - 8}" text-anchor="middle">{escape(name)}</text>')
                taken = x + half
    inner = []
    for curve in curves:
        x, y = across(curve.wavelength), up(np.clip(curve.flux * scale, low - (high - low), high + (high - low)))
        if curve.error is not None:
            error = np.nan_to_num(curve.error * scale * (height - top - bottom) / (high - low), posinf=1e3)
            error = np.minimum(error, 2 * height)
            band = _points(np.concatenate((x, x[::-1])), np.concatenate((y - error, (y + error)[::-1])))
            inner.append(f'<polygon class="band tone-{curve.tone}" points="{band}"/>')
        inner.append(f'<polyline class="curve tone-{curve.tone}" points="{_points(x, y)}"/>')
    parts.append(
        f'<svg x="{left}" y="{top}" width="{width - left - right}" height="{height - top - bottom}" '
        f'viewBox="{left} {top} {width - left - right} {height - top - bottom}">{"".join(inner)}</svg>'
    )
    return _svg("plot", width, height, title, parts)


def _finite(curve: Curve) -> Curve:
    good = np.isfinite(curve.wavelength) & np.isfinite(curve.flux)
    good &= curve.wavelength > 0
    order = np.argsort(curve.wavelength[good])
    error = None if curve.error is None else curve.error[good][order]
    return replace(curve, wavelength=curve.wavelength[good][order], flux=curve.flux[good][order], error=error)


def _flux_range(curves: Sequence[Curve]) -> tuple[float, float]:
    """Flux range that shows the curves whole, but for points with large errors and the ends, where throughput fades."""
    lows, highs = [], []
    for curve in curves:
        first, last = curve.wavelength[[0, -1]]
        end = 0.06 * (last - first)
        keep = (curve.wavelength >= first + end) & (curve.wavelength <= last - end)
        if curve.error is not None and np.isfinite(curve.error).any():
            keep &= ~(curve.error > 4 * np.nanmedian(curve.error))
        flux = curve.flux[keep] if keep.any() else curve.flux
        lows.append(float(np.percentile(flux, 0.5)))
        highs.append(float(flux.max()))
    low, high = min(0.0, *lows), max(highs)
    if high <= low:
        high = low + max(abs(low), 1e-30)
    return low - (0.04 * (high - low) if low < 0 else 0), high + 0.08 * (high - low)


def _scaled(unit: str, largest: float) -> tuple[float, str]:
    """Factor and unit that bring ``largest`` to between 1 and 1000, for Jy; other units stay."""
    if unit != "Jy":
        return 1.0, unit
    for factor, name in ((1.0, "Jy"), (1e3, "mJy"), (1e6, "µJy")):
        if largest * factor >= 1:
            return factor, name
    return 1e9, "nJy"


def draw_points(
    x: np.ndarray, y: np.ndarray, x_label: str, y_label: str, title: str, circle: float | None = None
) -> str:
    """Points as SVG; with ``circle``, equal axes about zero and a circle of this radius."""
    good = np.isfinite(x) & np.isfinite(y)
    x, y = np.asarray(x, float)[good], np.asarray(y, float)[good]
    if not x.size:
        return ""
    width, height, left, right, top, bottom = 300.0, 240.0, 46.0, 10.0, 22.0, 34.0
    if circle is not None:
        reach = 1.15 * max(circle, float(np.percentile(np.hypot(x, y), 98)))
        low_y, high_y = -reach, reach
        wide = reach * (width - left - right) / (height - top - bottom)
        low_x, high_x = -wide, wide
    else:
        low_x, high_x = _padded(x)
        low_y, high_y = _padded(y)
    sx, sy = (width - left - right) / (high_x - low_x), (height - top - bottom) / (high_y - low_y)
    parts = []
    for tick, label in labelled_ticks(low_y, high_y, 5):
        at = height - bottom - (tick - low_y) * sy
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{left - 5}" y="{at + 3.5:.1f}" text-anchor="end">{label}</text>')
    for tick, label in labelled_ticks(low_x, high_x, 4):
        at = left + (tick - low_x) * sx
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{height - bottom}"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - bottom + 16}" text-anchor="middle">{label}</text>')
    if circle is not None:
        cx, cy = left - low_x * sx, height - bottom + low_y * sy
        parts.append(f'<circle class="limit" cx="{cx:.1f}" cy="{cy:.1f}" r="{circle * sx:.1f}"/>')
    for px, py in zip(left + (x - low_x) * sx, height - bottom - (y - low_y) * sy, strict=True):
        if left <= px <= width - right and top <= py <= height - bottom:
            parts.append(f'<circle class="point" cx="{px:.1f}" cy="{py:.1f}" r="2.6"/>')
    middle = (left + width - right) / 2
    parts.append(f'<text class="unit" x="{middle}" y="{height - 3}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text class="unit" x="2" y="12">{escape(y_label)}</text>')
    return _svg("plot", width, height, title, parts)


def _padded(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    pad = 0.06 * (high - low) or max(abs(low), 1.0) * 0.1
    return low - pad, high + pad


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) from ``low`` to ``high``, about so many."""
    rough = (high - low) / max(about, 1)
    if not rough > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{n * step:.12g}") for n in range(first, math.floor(high / step + 1e-9) + 1)]


def labelled_ticks(low: float, high: float, about: int) -> list[tuple[float, str]]:
    """The same with their text, all with as many decimals as the finest of them needs."""
    ticks = nice_ticks(low, high, about)
    decimals = max(len(f"{tick:.10f}".rstrip("0").partition(".")[2]) for tick in ticks)
    return [(tick, f"{tick:.{decimals}f}".replace("-", "−")) for tick in ticks]


def format_seconds(seconds: float) -> str:
    """A time span for people: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
