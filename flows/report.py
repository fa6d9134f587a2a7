"""The report of a run: one self-contained page with what was made, what failed, and the pictures and spectra to judge it by.

The page needs nothing but itself: pictures and plots are inside, no font, script or style is fetched, and a policy in its
head forbids the browser to try. What a product shows is read from the product, not from the run: the page is also a check
that the files open.
"""

import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from flows.report_plots import (
    Bar,
    Box,
    Curve,
    Picture,
    draw_graph,
    draw_picture,
    draw_points,
    draw_spectrum,
    draw_timeline,
    format_seconds,
    merge_alike,
    nice_ticks,
)
from flows.report_products import (
    DRAWN_SPECTRA,
    KINDS,
    SINGLE,
    STAMP_RADIUS,
    Entry,
    Mosaic,
    Source,
    Spectrum,
    Truth,
    anchor_of,
    best_spectra,
    bin_onto,
    blur,
    group_by_source,
    lines_of,
    match_sources,
    missed_sources,
    optics_of,
    read_products,
    read_truth,
    signal_to_noise,
    sky_offsets,
    stamp_of,
    tones_of,
    true_spectrum,
)
from flows.report_sources import SOURCES_PAGE, compose_sources
from infra.products.header import Header, keywords
from infra.products.names import stem_of, suffix_of
from infra.storage.store import folder_of, join, write_text

log = logging.getLogger(__name__)

STAGES = ("detector1", "dark", "guider", "image2", "image3", "spec2", "spec3")  # in the order of the page
MERGED_GRAPH = 40  # from so many products on, the graph shows groups first
TONES = 7  # colours of the style sheet


def write_report(run: Mapping[str, Any], output: str, page: str, truth: str | None = None) -> None:
    """Write the report of one run.

    Parameters
    ----------
    run : mapping
        The record of the run, as in ``run.json``: program, times, versions, context, nodes.
    output : str
        URL of the folder that holds the products.
    page : str
        URL of the page, made or replaced. Links to products are relative to it.
    truth : str
        URL of the folder with the simulator's truth tables, where there is one.
    """
    begun = time.perf_counter()
    given = [str(url) for url in run.get("overrides", {}).get("spec2", {}).values() if url]
    entries, mosaics, spectra = read_products(run["nodes"], output, page, given)
    known = None if truth is None else read_truth(truth)
    text = compose(run, entries, mosaics, spectra, known)
    write_text(page, text)
    size = len(text.encode())
    if spectra:
        text = compose_sources(run, mosaics, spectra, known, output, page)
        write_text(join(folder_of(page), SOURCES_PAGE), text)
        size += len(text.encode())
    log.info("report: %d products on pages of %.1f MB in %.1f s", len(entries), size / 1e6, time.perf_counter() - begun)


def compose(
    run: Mapping[str, Any],
    entries: Sequence[Entry],
    mosaics: Sequence[Mosaic],
    spectra: Sequence[Spectrum],
    truth: Truth | None,
) -> str:
    """The text of the page."""
    sources = {mosaic.entry.name: match_sources(mosaic, truth) for mosaic in mosaics}
    prefix = f"jw{run['program']}"
    sections = (
        ("failures", "Failures", _failures(run, entries)),
        ("workflow", "Workflow", _workflow(run, prefix)),
        ("mosaics", "Mosaic" if len(mosaics) == 1 else "Mosaics", _mosaics(mosaics, sources, spectra, truth)),
        ("spectra", "Spectra", _spectra(mosaics, sources, spectra, truth)),
        ("images", "Images", _images(entries)),
        ("products", "Products", _products(run, entries)),
    )
    shown = [(name, title, body) for name, title, body in sections if body]
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title, _ in shown)
    links += f'<a href="{SOURCES_PAGE}">All sources</a>' if spectra else ""
    body = "".join(f'<section id="{name}"><h2>{title}</h2>{content}</section>' for name, title, content in shown)
    here = Path(__file__)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
        f"<title>Program {escape(str(run['program']))} · Calweave</title>"
        f"<style>{here.with_name('report.css').read_text(encoding='utf-8')}</style></head><body>"
        f"{_head(run, entries, mosaics, sources, spectra, truth, links)}<main>{body}</main>"
        '<dialog id="viewer" aria-label="Enlarged picture"><form method="dialog"><p></p><button>Close</button></form>'
        '<div><img alt=""></div></dialog>'
        f"<script>{here.with_name('report.js').read_text(encoding='utf-8')}</script></body></html>\n"
    )


def _head(
    run: Mapping[str, Any],
    entries: Sequence[Entry],
    mosaics: Sequence[Mosaic],
    sources: Mapping[str, Sequence[Source]],
    spectra: Sequence[Spectrum],
    truth: Truth | None,
    links: str,
) -> str:
    nodes = run["nodes"]
    headers = [entry.header for entry in entries]
    instrument = " ".join(_values(headers, "INSTRUME")) or "Unknown instrument"
    modes = ", ".join(_values(headers, "EXP_TYPE"))
    states = Counter(node["state"] for node in nodes)
    wall = _seconds_between(run["started"], run["ended"])
    cpu = sum(node.get("cpu_seconds") or 0 for node in nodes)
    facts = {
        "Run": f"{_clock(run['started'])} UTC",
        "Wall time": format_seconds(wall),
        "CPU time": format_seconds(cpu) if cpu else None,
        "Peak memory": f"{run['peak_memory_bytes'] / 1e9:.2f} GB" if run.get("peak_memory_bytes") else None,
        "Work": ", ".join(f"{count} {state}" for state, count in states.items()),
        "Volume": _bytes(sum(entry.size or 0 for entry in entries)),
        "CRDS context": run.get("context"),
        "Optics": ", ".join(sorted({optics_of(header) for header in headers} - {""})),
        "Modes": modes,
        "Input": run.get("input"),
        "Output": run.get("output"),
        "Versions": ", ".join(f"{name} {version}" for name, version in run.get("versions", {}).items()),
    }
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts.items() if value
    )
    found = "".join(
        f" {len(right)} of {_count(inside, 'simulated source')} found."
        for right, inside in (_found(mosaic, sources[mosaic.entry.name], truth) for mosaic in mosaics)
        if inside
    )
    bad = states["failed"] + states["blocked"]
    verdict = '<p class="verdict done">✓ complete</p>' if not bad else f'<p class="verdict failed">✕ {bad} not made</p>'
    return (
        f'<header><div class="title"><div><p class="over">{escape(instrument)}</p>'
        f"<h1>Program {escape(str(run['program']))}</h1></div>{verdict}</div>"
        f'<p class="summary">{_summary(nodes, entries, mosaics, sources, spectra)}{found}</p>'
        f'<dl class="facts">{cells}</dl><nav aria-label="Sections">{links}</nav></header>'
    )


def _summary(
    nodes: Sequence[Mapping],
    entries: Sequence[Entry],
    mosaics: Sequence[Mosaic],
    sources: Mapping[str, Sequence[Source]],
    spectra: Sequence[Spectrum],
) -> str:
    """One plain sentence of what was found."""
    exposures = sum(node["stage"] in STAGES[:3] and bool(node["products"]) for node in nodes)
    parts = [_count(exposures or len(entries), "exposure" if exposures else "product")]
    if mosaics:
        parts.append(_count(len(mosaics), "mosaic"))
    if any(mosaic.sources is not None for mosaic in mosaics):
        parts.append(_count(sum(map(len, sources.values())), "source"))
    if spectra:
        drawn = {(spectrum.catalog, spectrum.source, spectrum.optics) for spectrum in best_spectra(spectra)}
        optics = Counter(name for _, _, name in drawn)
        parts.append(
            f"{_count(len(drawn), 'spectrum', 'spectra')} "
            f"({', '.join(f'{count} in {escape(name)}' for name, count in sorted(optics.items()))})"
        )
    if len(parts) == 1:
        return f"{parts[0]}."
    found = f"{', '.join(parts[1:-1])} and {parts[-1]}" if len(parts) > 2 else parts[1]
    return f"{parts[0]} gave {found}."


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _values(headers: Iterable[Header], keyword: str) -> list[str]:
    return sorted({str(header[keyword]) for header in headers if keyword in header})


def _clock(moment: str) -> str:
    return _moment(moment).strftime("%Y-%m-%d %H:%M:%S")


def _seconds_between(start: str, end: str) -> float:
    return (_moment(end) - _moment(start)).total_seconds()


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _bytes(size: int) -> str:
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"


def _failures(run: Mapping[str, Any], entries: Sequence[Entry]) -> str:
    """What failed and what to do, what that stopped, and what was made but cannot be read; empty when all is well."""
    by_name = {node["name"]: node for node in run["nodes"]}
    stopped = defaultdict(list)
    for node in run["nodes"]:
        if node["state"] == "blocked":
            for root in _roots(node, by_name):
                stopped[root].append(node["name"])
    rows = []
    for node in run["nodes"]:
        if node["state"] == "failed":
            names = stopped.get(node["name"], [])
            what = "".join(f"<li>{_name(name)}</li>" for name in names)
            effect = f"<details><summary>{_count(len(names), 'product')} not made</summary><ul>{what}</ul></details>"
            rows.append(
                (node["name"], node["stage"], node.get("error") or "no reason recorded", effect if names else "")
            )
    for entry in entries:
        if entry.error is not None:
            rows.append((entry.name, "report", f"{entry.error} (made, but it cannot be shown here)", ""))
    body = "".join(
        f'<tr><th scope="row" data-label="Product">{_name(name)}</th><td data-label="Stage">{escape(stage)}</td>'
        f'<td data-label="What happened, and what to do" class="error">{escape(error)}</td>'
        f'<td data-label="Stopped">{effect}</td></tr>'
        for name, stage, error, effect in rows
    )
    return body and (
        '<table class="cards"><thead><tr><th scope="col">Product</th><th scope="col">Stage</th>'
        '<th scope="col">What happened, and what to do</th><th scope="col">Stopped</th></tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _roots(node: Mapping, by_name: Mapping[str, Mapping]) -> list[str]:
    """The failed products that a blocked one waits for, through any number of others."""
    found, seen, open_ = [], set(), list(node["needs"])
    while open_:
        name = open_.pop()
        if name in seen or name not in by_name:
            continue
        seen.add(name)
        if by_name[name]["state"] == "failed":
            found.append(name)
        elif by_name[name]["state"] == "blocked":
            open_ += by_name[name]["needs"]
    return found


def _workflow(run: Mapping[str, Any], prefix: str) -> str:
    nodes = run["nodes"]
    if not nodes:
        return ""
    boxes = [Box(n["name"], _label(n), n["stage"], n["state"], tuple(n["needs"]), _seconds(n)) for n in nodes]
    graph = _scrolling(draw_graph(boxes, prefix), "Graph of products")
    if len(boxes) > MERGED_GRAPH:
        merged = _scrolling(draw_graph(merge_alike(boxes), prefix), "Graph of groups of products")
        graph = f"{merged}<details><summary>All {len(boxes)} products</summary>{graph}</details>"
    states = Counter(node["state"] for node in nodes)
    legend = "".join(
        f'<li class="{escape(state)}"><span></span>{escape(state)} ({count})</li>' for state, count in states.items()
    )
    stages = _ordered_stages(node["stage"] for node in nodes)
    bars = [
        Bar(
            _label(node),
            _seconds_between(run["started"], node["started"]),
            node["seconds"],
            stages.index(node["stage"]) % TONES,
            node["state"],
            f"{_label(node)}: {node['stage']}, {format_seconds(node['seconds'])}",
        )
        for node in nodes
        if _seconds(node) is not None
    ]
    timeline = draw_timeline(bars, _seconds_between(run["started"], run["ended"]), prefix)
    rows = ""
    for number, stage in enumerate(stages):
        mine = [node for node in nodes if node["stage"] == stage]
        seconds = [node["seconds"] for node in mine if _seconds(node) is not None]
        cpu = sum(node.get("cpu_seconds") or 0 for node in mine)
        rows += (
            f'<tr><th scope="row"><span class="chip tone-{number % TONES}"></span>{escape(stage)}</th><td>{len(mine)}</td>'
            f"<td>{format_seconds(sum(seconds)) if seconds else '–'}</td>"
            f"<td>{format_seconds(float(np.median(seconds))) if seconds else '–'}</td>"
            f"<td>{format_seconds(cpu) if cpu else '–'}</td></tr>"
        )
    table = (
        '<table class="numbers"><thead><tr><th scope="col">Stage</th><th scope="col">Products</th>'
        f'<th scope="col">Time in all</th><th scope="col">Median</th><th scope="col">CPU</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    times = f"<h3>Time line</h3>{_scrolling(timeline, 'Time line')}" if timeline else ""
    return f'<ul class="legend">{legend}</ul>{graph}{times}{table}'


def _label(node: Mapping[str, Any]) -> str:
    """What a node is called in drawings: its mosaic or first product, or the node itself where it made none."""
    mosaics = [name for name in node["products"] if suffix_of(name) == "i2d" and node["stage"] == "image3"]
    return stem_of([*mosaics, *node["products"]][0]) if node["products"] else node["name"]


def _seconds(node: Mapping[str, Any]) -> float | None:
    """How long a node ran; None where it never started."""
    return node["seconds"] if node.get("started") and node.get("seconds") is not None else None


def _ordered_stages(stages: Iterable[str]) -> list[str]:
    found = list(dict.fromkeys(stages))
    return sorted(found, key=lambda stage: STAGES.index(stage) if stage in STAGES else len(STAGES))


def _scrolling(content: str, label: str) -> str:
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{content}</div>'


def _mosaics(
    mosaics: Sequence[Mosaic],
    sources: Mapping[str, Sequence[Source]],
    spectra: Sequence[Spectrum],
    truth: Truth | None,
) -> str:
    drawn = {(spectrum.catalog, spectrum.source) for spectrum in spectra}
    return "".join(_mosaic(mosaic, sources[mosaic.entry.name], drawn, truth) for mosaic in mosaics)


def _mosaic(mosaic: Mosaic, sources: Sequence[Source], drawn: set, truth: Truth | None) -> str:
    picture, step = mosaic.picture, mosaic.picture.step
    width, height = picture.width * step, picture.height * step
    radius = 0.0105 * width
    marks: list[str] = []
    labelled: list[tuple[float, float]] = []
    for source in sorted(sources, key=lambda one: (math.isnan(one.magnitude), one.magnitude)):
        x, y = source.x + 0.5, height - source.y - 0.5
        note = f"source {source.number}, {_magnitude(source.magnitude)}"
        mark = f'<g class="source"><title>{note}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
        if all(abs(x - a) > 3 * radius or abs(y - b) > 1.6 * radius for a, b in labelled):
            labelled.append((x, y))
            mark += f'<text x="{x + 1.15 * radius:.1f}" y="{y - 0.75 * radius:.1f}">{source.number}</text>'
        mark += "</g>"
        if (source.catalog, source.number) in drawn:
            mark = f'<a href="#{anchor_of(source)}">{mark}</a>'
        marks.append(mark)
    missed = missed_sources(mosaic, sources, truth)
    for number, magnitude, x, y in missed:
        x, y = x + 0.5, height - y - 0.5
        d = 1.3 * radius
        marks.append(
            f'<g class="missed"><title>true source {number}, {_magnitude(magnitude)}, not found</title>'
            f'<path d="M{x - d:.1f} {y:.1f}L{x:.1f} {y - d:.1f}L{x + d:.1f} {y:.1f}L{x:.1f} {y + d:.1f}Z"/></g>'
        )
    alt = f"Mosaic {mosaic.entry.name} with {_count(len(sources), 'source')} marked"
    overlay = (
        f'<svg viewBox="0 0 {width} {height}" font-size="{1.7 * radius:.1f}" role="img" aria-label="Markers of sources">'
        f"{''.join(marks)}{_compass(mosaic, width, height)}</svg>"
    )
    legend = [f'<li class="source"><span></span>source of the catalog ({len(sources)})</li>'] if sources else []
    if missed:
        legend.append(f'<li class="missed"><span></span>true source, not found ({len(missed)})</li>')
    header = mosaic.entry.header
    return (
        f'<figure class="mosaic"><figcaption>{_name(mosaic.entry.name)}{escape(f" {optics_of(header)}".rstrip())}. '
        f"{mosaic.data.shape[1]} × {mosaic.data.shape[0]} pixels, asinh stretch "
        f"{_stretch(picture, mosaic.entry.unit)}.</figcaption>"
        '<p class="tools"><label><input type="checkbox" class="marks" checked> Marks</label>'
        f'<label><input type="checkbox" class="full"> Full size</label></p><ul class="legend">{"".join(legend)}</ul>'
        f'<div class="frame scroll" tabindex="0" role="region" aria-label="Mosaic"><div class="canvas" '
        f'style="--full:{max(picture.width, 1400)}px;--height:{picture.height / picture.width:.4f}">'
        f"{_img(picture, alt)}{overlay}</div></div></figure>"
        f"{_comparison(mosaic, sources, truth)}"
    )


def _magnitude(value: float) -> str:
    return f"{value:.2f} mag (AB)" if math.isfinite(value) else "no magnitude"


def _stretch(picture: Picture, unit: str) -> str:
    return f"{picture.black:.3g} … {picture.white:.3g} {escape(unit)}" if math.isfinite(picture.black) else "(no data)"


def _compass(mosaic: Mosaic, width: int, height: int) -> str:
    """North, east and a scale bar, from the WCS at the centre; nothing where there is none."""
    if mosaic.wcs is None:
        return ""
    ny, nx = mosaic.data.shape
    x, y = np.array([0.0, 1.0, 0.0]) + (nx - 1) / 2, np.array([0.0, 0.0, 1.0]) + (ny - 1) / 2
    ra, dec = mosaic.wcs(x, y, with_bounding_box=False)
    east, north = sky_offsets(ra[1:], dec[1:], ra[0], dec[0])  # [arcsec] of a step in x and of one in y
    pixel = math.sqrt(abs(east[0] * north[1] - east[1] * north[0]))
    if not (math.isfinite(pixel) and pixel > 0):
        return ""
    # Columns of the inverse: the steps in pixels towards east and towards north.
    towards = np.linalg.inv(np.array([[east[0], east[1]], [north[0], north[1]]]))
    size, margin = 0.032 * width, 0.03 * width
    cx, cy = width - margin - 1.2 * size, height - margin - 1.2 * size
    arrows = ""
    for name, (dx, dy) in (("E", towards[:, 0]), ("N", towards[:, 1])):
        length = math.hypot(dx, dy)
        dx, dy = size * dx / length, -size * dy / length
        arrows += (
            f'<line x1="{cx:.1f}" y1="{cy:.1f}" x2="{cx + dx:.1f}" y2="{cy + dy:.1f}"/>'
            f'<text x="{cx + 1.4 * dx:.1f}" y="{cy + 1.4 * dy:.1f}" text-anchor="middle" '
            f'dominant-baseline="central">{name}</text>'
        )
    span = nice_ticks(0, 0.2 * width * pixel, 2)[-1]
    bar = span / pixel
    left, low = margin, height - margin
    panels = _panel(cx - 1.7 * size, cy - 1.7 * size, 3.4 * size, 3.4 * size)
    panels += _panel(left - 0.4 * size, low - 1.1 * size, bar + 0.8 * size, 1.5 * size)
    return (
        f'<g class="compass">{panels}{arrows}'
        f'<line x1="{left:.1f}" x2="{left + bar:.1f}" y1="{low:.1f}" y2="{low:.1f}"/>'
        f'<text x="{left + bar / 2:.1f}" y="{low - 0.3 * size:.1f}" text-anchor="middle">{span:g}″</text></g>'
    )


def _panel(x: float, y: float, width: float, height: float) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _found(mosaic: Mosaic, sources: Sequence[Source], truth: Truth | None) -> tuple[list[tuple[Source, int]], int]:
    """The sources that are true ones, each with its row in the truth, and how many true ones are in the mosaic."""
    pairs = [(source, source.truth) for source in sources if source.truth is not None]
    return pairs, len(pairs) + len(missed_sources(mosaic, sources, truth))


def _comparison(mosaic: Mosaic, sources: Sequence[Source], truth: Truth | None) -> str:
    """The catalog against the truth: how many were found, and how far off they are."""
    pairs, inside = _found(mosaic, sources, truth)
    if truth is None or not pairs:
        return ""
    rows = np.array([row for _, row in pairs])
    east, north = sky_offsets(
        np.array([source.ra for source, _ in pairs]),
        np.array([source.dec for source, _ in pairs]),
        truth.ra[rows],
        truth.dec[rows],
    )
    true = truth.magnitude[rows]
    difference = np.array([source.magnitude for source, _ in pairs]) - true
    offset = float(np.median(np.hypot(east, north)))
    unmatched = len(sources) - len(pairs)
    text = (
        f"{len(pairs)} of {_count(inside, 'true source')} in the mosaic found, {unmatched} in the catalog without a true one. "
        f"Median distance {1000 * offset:.1f} mas."
    )
    if np.isfinite(difference).any():
        text += f" Median of measured minus true magnitude {np.nanmedian(difference):+.3f}."
    plots = draw_points(
        1000 * east,
        1000 * north,
        "Δα cos δ [mas]",
        "Δδ, measured − true [mas]",
        "Offsets of positions",
        circle=1000 * offset,
    ) + draw_points(true, difference, "true magnitude [AB]", "measured − true [mag]", "Differences of magnitudes")
    return f'<div class="truth"><h3>Against the truth</h3><p>{text}</p><div class="pair">{plots}</div></div>'


def _spectra(
    mosaics: Sequence[Mosaic],
    sources: Mapping[str, Sequence[Source]],
    spectra: Sequence[Spectrum],
    truth: Truth | None,
) -> str:
    if not spectra:
        return ""
    tones = tones_of(spectra)
    cards = group_by_source(mosaics, sources, spectra)
    text = "".join(_card(source, mosaic, group, tones, truth) for source, mosaic, group in cards[:DRAWN_SPECTRA])
    legend = "".join(
        f'<li class="curve tone-{tone % TONES}"><span></span>{escape(name)}</li>' for name, tone in tones.items()
    )
    if truth is not None:
        legend += '<li class="curve tone-truth"><span></span>truth, blurred by the size of the source</li>'
        legend += '<li class="emission"><span></span>emission line of the truth</li>'
    elif any(math.isfinite(source.redshift) for source, _, _ in cards):
        legend += '<li class="emission"><span></span>common lines at the redshift of the catalog</li>'
    legend += '<li class="band"><span></span>± 1 standard deviation</li>'
    left_out = len(cards) - DRAWN_SPECTRA
    note = (
        f"The brightest {DRAWN_SPECTRA} are drawn; {left_out} fainter ones are on the page of all sources."
        if left_out > 0
        else ""
    )
    lines = '<label><input name="lines" type="checkbox"> With emission lines</label>' if "emission" in legend else ""
    return (
        f'<ul class="legend">{legend}</ul><p>{note if left_out > 0 else ""}</p><form class="tools" id="choose">'
        '<label>Order <select name="order"><option value="magnitude">brightest first</option>'
        '<option value="number">by number</option><option value="noise">best signal-to-noise first</option></select></label>'
        '<label>Brighter than <input name="limit" type="number" step="0.5" inputmode="decimal" placeholder="any"> mag</label>'
        '<label>Number <input name="number" type="number" min="0" inputmode="numeric" placeholder="any"></label>'
        f'{lines}<output name="count">{_count(min(len(cards), DRAWN_SPECTRA), "source")}</output></form>'
        f'<div class="cards-grid">{text}</div>'
    )


def _card(
    source: Source,
    mosaic: Mosaic | None,
    group: Sequence[Spectrum],
    tones: Mapping[str, int],
    truth: Truth | None,
) -> str:
    curves, lines = [], lines_of(source, truth)
    for spectrum in sorted(group, key=lambda one: one.optics):
        curves.append(
            Curve(spectrum.optics, spectrum.wavelength, spectrum.flux, spectrum.error, tones[spectrum.optics] % TONES)
        )
    unit = group[0].unit
    if truth is not None and source.truth is not None:
        grid = np.sort(max((one.wavelength[one.wavelength > 0] for one in group), key=np.size))
        if unit == "Jy" and grid.size > 1:
            flux = blur(bin_onto(grid, *true_spectrum(truth, source.truth)), source.sigma)
            curves.append(Curve("truth", grid, flux, None, "truth"))
    plot = draw_spectrum(curves, lines, unit, f"Spectrum of source {source.number}")
    noise = signal_to_noise(group)
    cut = stamp_of(source, mosaic)
    stamp = ""
    if cut is not None:
        picture = draw_picture(cut, 2 * STAMP_RADIUS + 1)
        stamp = _img(picture, f"Direct image of source {source.number}", 'class="stamp" ')
    place = f"α {source.ra:.5f}° δ {source.dec:+.5f}°" if math.isfinite(source.ra) else ""
    magnitude = f"{source.magnitude:.3f}" if math.isfinite(source.magnitude) else ""
    return (
        f'<article id="{anchor_of(source)}" data-number="{source.number}" data-magnitude="{magnitude}" '
        f'data-noise="{"" if math.isnan(noise) else f"{noise:.3g}"}" data-lines="{len(lines)}">{stamp}'
        f"<h3>Source {source.number}</h3><p>{_magnitude(source.magnitude)}"
        + ("" if math.isnan(noise) else f" · S/N {noise:.3g} per pixel")
        + f"<br>{place}</p>{plot or '<p>No value in any spectrum.</p>'}</article>"
    )


def _images(entries: Sequence[Entry]) -> str:
    groups: dict[str, list[str]] = {KINDS["i2d"]: [], SINGLE: [], **{title: [] for title in KINDS.values()}}
    for entry in entries:
        if entry.picture is not None:
            groups[entry.kind].append(_thumbnail(entry, entry.picture))
    return "".join(
        f"<details{' open' if len(figures) <= 60 else ''}><summary>{title} <span>{len(figures)}</span></summary>"
        f'<div class="gallery">{"".join(figures)}</div></details>'
        for title, figures in groups.items()
        if figures
    )


def _img(picture: Picture, alt: str, more: str = "") -> str:
    return (
        f'<img {more}src="{picture.address}" width="{picture.width}" height="{picture.height}" loading="lazy" '
        f'alt="{escape(alt)}">'
    )


def _name(name: str) -> str:
    """The name of a product, which may break at its underscores."""
    return f"<code>{escape(name).replace('_', '_<wbr>')}</code>"


def _thumbnail(entry: Entry, picture: Picture) -> str:
    header = entry.header
    words = [optics_of(header), str(header.get("EXP_TYPE", ""))]
    words += [f"{header['EFFEXPTM']:.0f} s"] if "EFFEXPTM" in header else []
    what = " · ".join(word for word in words if word)
    stretch = "one colour per source" if entry.suffix == "segm" else f"asinh, {_stretch(picture, entry.unit)}"
    return (
        f'<figure><button type="button" class="picture" aria-label="Enlarge {escape(entry.name)}">'
        f"{_img(picture, f'{entry.name}, {what}')}</button>"
        f"<figcaption>{_name(entry.name)}<span>{escape(what)}</span><span>{stretch}</span></figcaption></figure>"
    )


def _products(run: Mapping[str, Any], entries: Sequence[Entry]) -> str:
    """Every product of every node, by stage; nodes that made none have a row too."""
    by_node = defaultdict(list)
    for entry in entries:
        by_node[entry.node["name"]].append(entry)
    text = ""
    for stage in _ordered_stages(node["stage"] for node in run["nodes"]):
        rows = ""
        for node in run["nodes"]:
            if node["stage"] == stage:
                for entry in by_node[node["name"]] or [Entry(node["name"], node, "")]:
                    rows += _product_row(entry)
        text += f'<tbody><tr class="stage"><th colspan="5" scope="rowgroup">{escape(stage)}</th></tr>{rows}</tbody>'
    return text and (
        '<table class="cards products"><thead><tr><th scope="col">Product</th><th scope="col">State</th>'
        f'<th scope="col">Size</th><th scope="col">Time</th><th scope="col">Steps</th></tr></thead>{text}</table>'
    )


def _product_row(entry: Entry) -> str:
    node, state = entry.node, entry.node["state"]
    name = _name(entry.name)
    if entry.link:
        name = f'<a href="{escape(_quoted(entry.link))}">{name}</a>'
    error = entry.error or (node.get("error") if not entry.link else None)
    seconds = _seconds(node)
    return (
        f'<tr class="{escape(state)}"><th scope="row" data-label="Product">{name}'
        + (f'<p class="error">{escape(error)}</p>' if error else "")
        + f'</th><td data-label="State"><span class="state">{escape(state)}</span></td>'
        f'<td data-label="Size" class="number">{"–" if entry.size is None else _bytes(entry.size)}</td>'
        f'<td data-label="Time" class="number">{"–" if seconds is None else format_seconds(seconds)}</td>'
        f'<td data-label="Steps">{_steps(entry)}</td></tr>'
    )


def _quoted(link: str) -> str:
    """A link that cannot be taken for a script or another site: a relative path, percent-encoded."""
    from urllib.parse import quote

    return quote(link) if "://" not in link else quote(link, safe=":/")


def _steps(entry: Entry) -> str:
    """What each step did, from the recipe of the product, or else from its ``S_*`` keywords."""
    steps = {name: dict(what) for name, what in entry.recipe.items() if isinstance(what, Mapping) and "status" in what}
    if not steps:
        steps = {
            keyword.path.removeprefix("meta.cal_step."): {"status": str(entry.header[key])}
            for key, keyword in keywords().items()
            if keyword.path.startswith("meta.cal_step.") and key in entry.header
        }
    if not steps:
        return "–"
    items = ""
    for name, what in steps.items():
        note = what.get("reason") or ", ".join(str(file) for file in what.get("references", {}))
        items += (
            f'<li class="{escape(str(what["status"]).lower())}"><b>{escape(name)}</b> {escape(str(what["status"]))}'
            + (f" <span>{escape(str(note))}</span>" if note else "")
            + "</li>"
        )
    skipped = sum(what["status"] == "SKIPPED" for what in steps.values())
    summary = _count(len(steps), "step") + (f", {skipped} skipped" if skipped else "")
    return f'<details><summary>{summary}</summary><ul class="steps">{items}</ul></details>'
