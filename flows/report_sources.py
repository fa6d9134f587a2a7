"""The page of sources of a run: a row for each source with spectra, to sort and to search, with its picture and its spectra.

It is as self-contained as the report, beside which it lies. The rows are data inside the page of which the browser draws a
hundred at a time, so that thousands of sources are no burden; a source takes about 2 kB. What is larger (the products, and
the previews that ``calweave wfss previews`` makes) is in files beside it, which are opened when they are asked for.
"""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from flows.report_plots import draw_picture
from flows.report_products import (
    DRAWN_SPECTRA,
    STAMP_RADIUS,
    Mosaic,
    Spectrum,
    Truth,
    anchor_of,
    group_by_source,
    lines_of,
    match_sources,
    signal_to_noise,
    stamp_of,
    tones_of,
)
from infra.storage.store import exists, join, listing, name_of

SOURCES_PAGE = "sources.html"
PREVIEWS = "previews"  # folder beside the page

#: Size of the small spectra [px], and points of each.
WIDTH, HEIGHT, POINTS = 220.0, 44.0, 64
TONES = 7  # colours of the style sheet


def compose_sources(
    run: Mapping[str, Any],
    mosaics: Sequence[Mosaic],
    spectra: Sequence[Spectrum],
    truth: Truth | None,
    output: str,
    page: str,
) -> str:
    """The text of the page; ``page`` is the URL of the report beside which it goes."""
    sources = {mosaic.entry.name: match_sources(mosaic, truth) for mosaic in mosaics}
    folder = join(output, PREVIEWS)
    previews = {name_of(url) for url in listing(folder, "*.png")} if exists(folder) else set()
    tones = tones_of(spectra)
    span = _span(spectra)
    rows = []
    for place, (source, mosaic, group) in enumerate(group_by_source(mosaics, sources, spectra)):
        anchor = anchor_of(source)
        cut = stamp_of(source, mosaic)
        preview = f"{anchor}.png"
        rows.append(
            {
                "number": source.number,
                "anchor": anchor,
                "card": place < DRAWN_SPECTRA,
                "magnitude": _rounded(source.magnitude, 3),
                "noise": _rounded(signal_to_noise(group), 2),
                "ra": _rounded(source.ra, 6),
                "dec": _rounded(source.dec, 6),
                "redshift": _rounded(source.redshift, 4),
                "lines": len(lines_of(source, truth)),
                "picture": "" if cut is None else draw_picture(cut, 2 * STAMP_RADIUS + 1).address,
                "curves": [
                    [tones[one.optics] % TONES, path]
                    for one, path in zip(group, _paths(group, span), strict=True)
                    if path
                ],
                "products": sorted({(one.optics, one.product) for one in group}),
                "preview": f"{PREVIEWS}/{quote(preview)}" if preview in previews else "",
            }
        )
    legend = "".join(
        f'<li class="curve tone-{tone % TONES}"><span></span>{escape(name)}</li>' for name, tone in tones.items()
    )
    columns = [("magnitude", "Magnitude"), ("noise", "S/N"), ("ra", "α [deg]"), ("dec", "δ [deg]")]
    columns += [("redshift", "z")] if any(row["redshift"] is not None for row in rows) else []
    heads = "".join(
        f'<th scope="col" class="number"><button type="button" data-key="{key}">{title}</button></th>'
        for key, title in columns
    )
    here = Path(__file__)
    program = escape(str(run["program"]))
    # A "<" in the data could end the element that it stands in.
    data = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data: 'self' file:; "
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
        f"<title>Sources of program {program} · Calweave</title>"
        f"<style>{here.with_name('report.css').read_text(encoding='utf-8')}</style></head><body>"
        f'<header><div class="title"><div><p class="over">Program {program}</p><h1>Sources with spectra</h1></div></div>'
        f'<p class="summary">{len(rows)} sources.</p>'
        f'<nav aria-label="Pages"><a href="{escape(quote(name_of(page)))}">Report of the run</a></nav></header>'
        '<main><section><form class="tools" id="choose">'
        '<label>Find <input name="find" type="search" placeholder="number, or α δ [deg]" autocomplete="off"></label>'
        '<label>Brighter than <input name="limit" type="number" step="0.5" placeholder="any"> mag</label>'
        '<label>S/N at least <input name="noise" type="number" step="1" min="0" placeholder="any"></label>'
        '<label><input name="lines" type="checkbox"> With lines or redshift</label>'
        f'<output name="count"></output></form><ul class="legend">{legend}</ul>'
        '<table class="sources"><thead><tr><th scope="col">Image</th>'
        '<th scope="col"><button type="button" data-key="number">Source</button></th>'
        f'{heads}<th scope="col">Spectrum, {span[0]:.2f} to {span[1]:.2f} µm</th><th scope="col">Files</th></tr></thead>'
        '<tbody id="rows"></tbody></table>'
        '<p class="pages"><button type="button" id="before">Before</button> <span id="place"></span> '
        '<button type="button" id="after">Next</button></p>'
        "<noscript><p>The rows are drawn by a script of this page, which this browser does not run.</p></noscript>"
        '</section></main><dialog id="viewer" aria-label="Preview"><form method="dialog"><p></p><button>Close</button>'
        f'</form><div><img alt=""></div></dialog><script type="application/json" id="data">{data}</script>'
        f"<script>const REPORT = {json.dumps(quote(name_of(page)))};\n"
        f"{here.with_name('report_sources.js').read_text(encoding='utf-8')}</script></body></html>\n"
    )


def _rounded(value: float, digits: int) -> float | None:
    """A number for JSON, which has no NaN."""
    return round(float(value), digits) if math.isfinite(value) else None


def _span(spectra: Sequence[Spectrum]) -> tuple[float, float]:
    """Shortest and longest wavelength of all spectra [um]."""
    ends = [one.wavelength[np.isfinite(one.flux) & (one.wavelength > 0)] for one in spectra]
    known = [wavelength for wavelength in ends if wavelength.size]
    if not known:
        return 0.0, 1.0
    low, high = min(float(one.min()) for one in known), max(float(one.max()) for one in known)
    return low, max(high, low + 1e-6)


def _paths(group: Sequence[Spectrum], span: tuple[float, float]) -> list[str]:
    """The spectra of a source as SVG paths in one small box, each averaged in a few dozen bins; "" where there is none.

    ``span`` holds the wavelengths [um] of the left and the right edge of the box.
    """
    binned = [_binned(one) for one in group]
    known = [(x, y) for x, y in binned if x.size > 1]
    if not known:
        return [""] * len(group)
    flux = np.sort(np.concatenate([y for _, y in known]))
    # All but one or two points in a hundred are in the box.
    low, high = min(0.0, float(flux[flux.size // 50])), float(flux[-1 - flux.size // 100])
    height = high - low or 1.0
    paths = []
    for x, y in binned:
        if x.size < 2:
            paths.append("")
            continue
        across = (x - span[0]) / (span[1] - span[0]) * WIDTH
        up = HEIGHT - 2 - np.clip((y - low) / height, -0.04, 1.04) * (HEIGHT - 4)
        paths.append("M" + "L".join(f"{a:.0f} {b:.1f}" for a, b in zip(across.tolist(), up.tolist(), strict=True)))
    return paths


def _binned(one: Spectrum) -> tuple[np.ndarray, np.ndarray]:
    """Wavelength and flux of a spectrum, rising, in at most ``POINTS`` bins; without values of very large error."""
    good = np.isfinite(one.flux) & np.isfinite(one.wavelength) & (one.wavelength > 0)
    if (good & (one.error > 0)).any():
        good &= ~(one.error > 5 * np.median(one.error[good & (one.error > 0)]))
    x, y = one.wavelength[good].astype(float), one.flux[good].astype(float)
    if not x.size:
        return x, y
    order = np.argsort(x)
    starts = np.linspace(0, x.size, min(POINTS, x.size), endpoint=False).astype(int)
    counts = np.diff(starts, append=x.size)
    return np.add.reduceat(x[order], starts) / counts, np.add.reduceat(y[order], starts) / counts
