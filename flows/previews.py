"""Previews of the sources of a slitless run: one light picture each, to judge a spectrum by what it was taken from.

The direct image, the cutouts in each grism (as the detector saw them and the model of the neighbours, where wfss_contam left
one; and what is left), and the spectra, all along one axis of wavelengths with lines marked where they are known. They are
made on request: ``calweave wfss previews``.
"""

import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flows.report_products import (
    Group,
    Spectrum,
    Truth,
    anchor_of,
    bin_onto,
    blur,
    group_by_source,
    lines_of,
    match_sources,
    optics_of,
    read_products,
    read_truth,
    signal_to_noise,
    stamp_of,
    tones_of,
    true_spectrum,
)
from flows.report_sources import PREVIEWS, SOURCES_PAGE, compose_sources
from infra.products.header import ProductError
from infra.products.image import read_image
from infra.products.names import rename, suffix_of
from infra.products.slits import Slit, read_slits
from infra.storage.store import exists, fetched, join, read_text, write_text, writing

log = logging.getLogger(__name__)

TONES = ("#c8500a", "#0b6bb3", "#0b8a68", "#a0528b", "#9a7500", "#3a8fb7", "#7a5c3e")  # as on the report
STRIPS = 9  # more do not fit


@dataclass(frozen=True)
class Strip:
    """A cutout with its wavelengths along x: what it shows, the pixels (ny, nx), first and last wavelength [um]."""

    optics: str
    label: str
    data: np.ndarray
    first: float
    last: float


def write_previews(
    folder: str, sources: Sequence[int] | None = None, most: int = 100, truth: str | None = None
) -> list[str]:
    """Write previews of the sources of a run into its folder ``previews``, and its page of sources anew; returns their URLs.

    Parameters
    ----------
    folder : str
        URL of the output folder of a run.
    sources : sequence of int, optional
        Their numbers; by default the brightest.
    most : int
        How many of the brightest.
    truth : str, optional
        URL of the folder with the simulator's truth tables.

    Raises
    ------
    ProductError
        If the folder has no run with spectra, or not one of the sources has a spectrum.
    """
    page = join(folder, "run.json")
    if not exists(page):
        raise ProductError(
            f"{folder}: expected the output folder of a run, but there is no run.json; give that of --out"
        )
    run = json.loads(read_text(page))
    given = [str(url) for url in run.get("overrides", {}).get("spec2", {}).values() if url]
    _, mosaics, spectra = read_products(run["nodes"], folder, join(folder, "report.html"), given)
    known = None if truth is None else read_truth(truth)
    groups = group_by_source(mosaics, {one.entry.name: match_sources(one, known) for one in mosaics}, spectra)
    if sources is None:
        groups = groups[:most]
    else:
        absent = set(sources) - {source.number for source, _, _ in groups}
        if absent:
            raise ProductError(
                f"{folder}: source {', '.join(map(str, sorted(absent)))} has no spectrum; {len(groups)} sources have one, see "
                "sources.html"
            )
        groups = [group for group in groups if group[0].number in set(sources)]
    if not groups:
        raise ProductError(f"{folder}: expected a run with spectra of slitless sources, but it has none")
    strips = read_strips(run["nodes"], folder, {group[0].number for group in groups})
    begun = time.perf_counter()
    tones = tones_of(spectra)
    made = []
    painter = Painter()
    for group in groups:
        url = join(folder, f"{PREVIEWS}/{anchor_of(group[0])}.png")
        with writing(url) as path:
            painter.draw(group, strips.get(group[0].number, ()), tones, known, path)
        made.append(url)
    log.info("previews: %d in %.1f s", len(made), time.perf_counter() - begun)
    text = compose_sources(run, mosaics, spectra, known, folder, join(folder, "report.html"))
    write_text(join(folder, SOURCES_PAGE), text)
    return made


def read_strips(nodes: Sequence[Mapping], folder: str, numbers: set[int]) -> dict[int, list[Strip]]:
    """Source number -> its cutouts: of each optics the one that has the most pixels with a value."""
    best: dict[tuple[int, str], tuple[int, list[Strip]]] = {}
    for node in nodes:
        for name in node["products"]:
            if node["stage"] != "spec2" or suffix_of(name) != "cal":
                continue
            with fetched(join(folder, name)) as path:
                slits = read_slits(path)
            mine = [slit for slit in slits.slits if slit.source_id in numbers and slit.order == 1]
            better = []
            for slit in mine:
                count = int(np.isfinite(slit.data).sum())
                key = slit.source_id, optics_of(slits.header)
                if count and count > best.get(key, (0, []))[0]:
                    best[key] = count, [_strip(slit, key[1], "cutout", slit.data)]
                    better.append((key, count, slit))
            for key, count, found in _with_contamination(folder, name, better):
                best[key] = count, found
    strips: dict[int, list[Strip]] = {}
    for (number, _), (_, found) in sorted(best.items()):
        strips.setdefault(number, []).extend(found)
    return {number: found[:STRIPS] for number, found in strips.items()}


def _with_contamination(
    folder: str, name: str, slits: Iterable[tuple[Any, int, Slit]]
) -> Iterator[tuple[Any, int, list[Strip]]]:
    """The cutouts before, the model of the neighbours and what is left, where wfss_contam left its model (``_contam``).

    The first two are count rates, in one stretch; the rate has its sky in it.
    """
    model, rate = join(folder, rename(name, "contam")), join(folder, rename(name, "rate"))
    slits = list(slits)
    if not slits or not exists(model):
        return
    with fetched(model) as path:
        contamination = {(one.source_id, one.order): one for one in read_slits(path).slits}
    image = None
    if exists(rate):
        with fetched(rate) as path:
            image = read_image(path).data
    for key, count, slit in slits:
        other = contamination.get((slit.source_id, slit.order))
        if other is None or other.data.shape != slit.data.shape:
            continue
        found = []
        if image is not None:
            y, x = int(slit.header["SLTSTRT2"]) - 1, int(slit.header["SLTSTRT1"]) - 1
            ny, nx = slit.data.shape
            found.append(_strip(slit, key[1], "rate", image[y : y + ny, x : x + nx]))
        found.append(_strip(slit, key[1], "neighbours", other.data))
        found.append(_strip(slit, key[1], "residual", slit.data))
        yield key, count, found


def _strip(slit: Slit, optics: str, label: str, data: np.ndarray) -> Strip:
    wavelength = np.asarray(slit.wavelength)
    if slit.axis == 2:
        data, wavelength = data.T, wavelength.T
    along = np.nanmedian(wavelength, axis=0)
    good = np.flatnonzero(np.isfinite(along))
    data, along = data[:, good[0] : good[-1] + 1], along[good[0] : good[-1] + 1]
    if along[0] > along[-1]:
        data, along = data[:, ::-1], along[::-1]
    return Strip(optics, label, data, float(along[0]), float(along[-1]))


class Painter:
    """Draws previews; the figure of each layout is made once and filled anew, which takes a third of the time."""

    def __init__(self) -> None:
        self._figures: dict[int, Any] = {}

    def draw(
        self, group: Group, strips: Sequence[Strip], tones: Mapping[str, int], truth: Truth | None, path: str
    ) -> None:
        """Write the preview of one source."""
        source, mosaic, spectra = group
        figure, stamp, rows, plot, text = self._layout(len(strips))
        lines = lines_of(source, truth)
        low, high = _span(spectra, strips)
        cut = stamp_of(source, mosaic)
        _fill(stamp, np.full((2, 2), np.nan) if cut is None else cut, (-1, 1, -1, 1))
        place = f"α {source.ra:.5f}°\nδ {source.dec:+.5f}°\n" if math.isfinite(source.ra) else ""
        magnitude = f"{source.magnitude:.2f} mag (AB)\n" if math.isfinite(source.magnitude) else "no magnitude\n"
        redshift = f"z = {source.redshift:.4f}\n" if math.isfinite(source.redshift) else ""
        noise = signal_to_noise(spectra)
        text.set_text(
            f"Source {source.number}\n{magnitude}{place}{redshift}"
            + (f"S/N {noise:.3g} per pixel" if math.isfinite(noise) else "")
        )
        scales = _scales(strips)
        for axes, strip, scale in zip(rows, strips, scales, strict=True):
            _fill(axes, strip.data, (strip.first, strip.last, 0, 1), scale)
            axes.set_xlim(low, high)
            axes.set_title(f"{strip.optics}: {strip.label}", loc="left", fontsize=7, pad=1.5)
            for line in axes.lines:
                line.set_xdata([np.nan, np.nan])
            for line, (_, wavelength) in zip(axes.lines, lines, strict=False):
                line.set_xdata([wavelength, wavelength])
        _plot(plot, source, spectra, tones, lines, truth, (low, high))
        figure.savefig(path, format="png", pil_kwargs={"compress_level": 4})

    def _layout(self, nstrips: int) -> Any:
        if nstrips not in self._figures:
            height = 2.6 + 0.42 * nstrips
            figure = Figure(figsize=(8.0, height), dpi=90)
            FigureCanvasAgg(figure)
            up = 1 / height
            stamp = figure.add_axes((0.01, 1 - 1.75 * up, 1.65 / 8, 1.65 * up))
            text = figure.text(0.015, 1 - 1.85 * up, "", fontsize=8, va="top")
            rows = []
            for k in range(nstrips):
                axes = figure.add_axes((0.31, 1 - (0.40 + 0.42 * k) * up, 0.67, 0.24 * up))
                for _ in range(12):
                    axes.axvline(np.nan, color="#4fd0ee", linewidth=0.8, alpha=0.8)
                rows.append(axes)
            for axes in (stamp, *rows):
                axes.imshow(np.zeros((2, 2)), origin="lower", aspect="auto", cmap=_grey(), interpolation="nearest")
                axes.set_xticks([])
                axes.set_yticks([])
            plot = figure.add_axes((0.31, 0.42 * up, 0.67, (height - 0.92 - 0.42 * nstrips) * up))
            plot.tick_params(labelsize=7)
            plot.set_xlabel("wavelength [µm]", fontsize=7, labelpad=1)
            self._figures[nstrips] = figure, stamp, rows, plot, text
        return self._figures[nstrips]


def _grey() -> Any:
    return mpl.colormaps["gray"].with_extremes(bad="#344258")


def _fill(axes: Any, data: np.ndarray, extent: tuple[float, ...], scale: tuple[float, float] | None = None) -> None:
    (image,) = axes.images
    image.set_data(np.ma.masked_invalid(data))
    image.set_extent(extent)
    image.set_clim(*(_scale([data]) if scale is None else scale))
    axes.set_xlim(extent[:2])
    axes.set_ylim(extent[2:])


def _scales(strips: Sequence[Strip]) -> list[tuple[float, float]]:
    """Black and white of each strip: the rate and the model of its neighbours above its sky, in one range of values."""
    scales: list[tuple[float, float]] = []
    for k, strip in enumerate(strips):
        if strip.label == "neighbours" and k and strips[k - 1].label == "rate":
            low, high = scales[-1]
            scales.append((0.0, high - low))
        else:
            scales.append(_scale([strip.data]))
    return scales


def _scale(planes: Sequence[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([plane[np.isfinite(plane)] for plane in planes])
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, (10, 99.5))
    return float(low), float(high) if high > low else float(low) + 1.0


def _span(spectra: Sequence[Spectrum], strips: Sequence[Strip]) -> tuple[float, float]:
    """Shortest and longest wavelength of what is drawn [um]."""
    known = [one.wavelength[np.isfinite(one.flux) & (one.wavelength > 0)] for one in spectra]
    ends = [float(end) for one in known if one.size for end in (one.min(), one.max())]
    ends += [end for strip in strips for end in (strip.first, strip.last)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    return low, high if high > low else low + 1e-3


def _plot(
    axes: Any,
    source: Any,
    spectra: Sequence[Spectrum],
    tones: Mapping[str, int],
    lines: Sequence[tuple[str, float]],
    truth: Truth | None,
    span: tuple[float, float],
) -> None:
    """The spectra of a source, in µJy or the unit that they have, with the truth where it is known."""
    # To clear the axes would make their ticks anew, which takes as long as all the rest.
    for artist in (*axes.lines, *axes.collections, *axes.texts):
        artist.remove()
    unit = spectra[0].unit
    factor, unit = (1e6, "µJy") if unit == "Jy" else (1.0, unit)
    heights = []
    for one in sorted(spectra, key=lambda one: one.optics):
        good = np.isfinite(one.flux) & (one.wavelength > 0)
        order = np.argsort(one.wavelength[good])
        x, y = one.wavelength[good][order], factor * one.flux[good][order]
        error = factor * one.error[good][order]
        colour = TONES[tones[one.optics] % len(TONES)]
        axes.plot(x, y, color=colour, linewidth=0.9, label=one.optics, drawstyle="steps-mid")
        axes.fill_between(x, y - error, y + error, color=colour, alpha=0.18, linewidth=0, step="mid")
        usual = np.isfinite(error) & (error < 4 * np.median(error)) if x.size else np.zeros(0, bool)
        heights.append(y[usual])
    if truth is not None and source.truth is not None and spectra[0].unit == "Jy":
        grid = np.sort(max((one.wavelength[one.wavelength > 0] for one in spectra), key=np.size))
        if grid.size > 1:
            flux = factor * blur(bin_onto(grid, *true_spectrum(truth, source.truth)), source.sigma)
            axes.plot(grid, flux, color="#1c2126", linewidth=0.7, label="truth")
    values = np.concatenate(heights)
    if values.size:
        low, high = min(0.0, float(np.percentile(values, 0.5))), float(values.max())
        axes.set_ylim(low - 0.05 * (high - low), high + 0.22 * (high - low) if high > low else low + 1)
    axes.set_xlim(span)
    for name, wavelength in lines:
        if span[0] < wavelength < span[1]:
            axes.axvline(wavelength, color="#59636e", linewidth=0.7, linestyle=":")
            axes.text(wavelength, 0.98, name, transform=axes.get_xaxis_transform(), fontsize=7, ha="center", va="top")
    axes.set_ylabel(f"flux density [{unit}]", fontsize=7)
    axes.legend(fontsize=6, loc="lower right", bbox_to_anchor=(1.01, 0.97), frameon=False, ncols=4)
