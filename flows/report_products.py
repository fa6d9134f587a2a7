"""What a report shows of a run's products: pictures, spectra, sources, and the truth of a simulated program.

Products are read one at a time and only a picture of each is kept (and the mosaics, for cutouts around the sources).
"""

import logging
import math
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import QTable, Table, vstack
from scipy.spatial import cKDTree

from flows.report_plots import Picture, draw_labels, draw_picture
from infra.products.catalog import read_catalog
from infra.products.direct_image import read_direct_image
from infra.products.fits import Contents, read_fits
from infra.products.header import Header
from infra.products.names import base_of, rename, suffix_of
from infra.products.spectrum import read_spectra
from infra.storage.store import exists, fetch, folder_of, is_local, join, local_path, name_of, read_text

log = logging.getLogger(__name__)

#: The kinds of image product, by suffix, in the order of the page.
KINDS = {
    "i2d": "Mosaics and segmentation maps",
    "segm": "Mosaics and segmentation maps",
    "cal": "Calibrated exposures",
    "calints": "Calibrated integrations",
    "crf": "Exposures with outliers flagged",
    "rate": "Count rates",
    "rateints": "Count rates per integration",
}
SINGLE = "Resampled exposures"
#: Arrays that no picture needs.
UNSHOWN = "ERR VAR_POISSON VAR_RNOISE VAR_FLAT AREA WHT CON WAVELENGTH GROUPDQ PIXELDQ INT_TIMES GROUP".split()

PICTURE_BYTES = 7_000_000  # for all thumbnails together, before base64
BYTES_PER_PIXEL = 0.35  # of a noisy JPEG
MOSAIC_EDGE = 1600  # [pixel]
DRAWN_SPECTRA = 300  # more would make the report slow; the brightest are drawn
STAMP_RADIUS = 24  # [pixel of the mosaic]
MATCH_RADIUS = 0.2  # [arcsec] between a source and its truth: three pixels of NIRISS
DO_NOT_USE = 1
NO_HEADER = Header({})  # of what has none, or cannot be read
#: Lines that are marked where a redshift is known: name, wavelength in vacuum [um] (NIST Atomic Spectra Database; of blends
#: the mean).
COMMON_LINES = (
    ("Lyα", 0.12157), ("Mg II", 0.27996), ("[O II]", 0.37288), ("Hβ", 0.48627), ("[O III]", 0.50082), ("Hα", 0.65646),
    ("[S II]", 0.67255), ("[S III]", 0.90711), ("[S III]", 0.95332), ("He I", 1.08333), ("Paβ", 1.28216), ("Paα", 1.87561),
)  # fmt: skip
GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ"}


@dataclass(frozen=True)
class Entry:
    """One product of the run as the page shows it.

    ``unit`` is that of its picture, ``link`` its address, and ``error`` says why it could not be read.
    """

    name: str
    node: Mapping[str, Any]
    link: str
    size: int | None = None
    header: Header = NO_HEADER
    recipe: Mapping[str, Any] = field(default_factory=dict)
    picture: Picture | None = None
    unit: str = ""
    error: str | None = None

    with_ = replace

    @property
    def suffix(self) -> str:
        return suffix_of(self.name) or ""

    @property
    def kind(self) -> str:
        """The heading that its picture stands under."""
        if self.suffix == "i2d" and self.node["stage"] != "image3":
            return SINGLE
        return KINDS[self.suffix]


@dataclass(frozen=True)
class Mosaic:
    """A direct image with the sources that are marked on it (or None), and the name of their catalog.

    That is the catalog that was made from it, unless spectra are numbered by one of the user's.
    """

    entry: Entry
    data: np.ndarray
    wcs: Any
    picture: Picture
    sources: QTable | None
    catalog: str


@dataclass(frozen=True)
class Truth:
    """What the simulator put on the sky, a row per source.

    Attributes
    ----------
    folder : str
        URL of the truth tables.
    number : int
        As in the tables.
    ra, dec : float
        [deg]
    magnitude : float
        AB, in the filter of the direct image.
    spectrum : sequence of str
        Base names of the tables with the spectra.
    lines : mapping
        Number -> emission lines (name, wavelength [um]).
    """

    folder: str
    number: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    magnitude: np.ndarray
    spectrum: Sequence[str]
    lines: Mapping[int, Sequence[tuple[str, float]]]


@dataclass(frozen=True)
class Spectrum:
    """One spectrum of one source: its catalog, its number there, the optics, the values (um, ``unit``), and its file.

    ``ra``, ``dec`` [deg] say where the source is.
    """

    catalog: str | None
    source: int
    optics: str
    order: int
    rank: int
    wavelength: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    unit: str
    product: str = ""
    ra: float = math.nan
    dec: float = math.nan


def read_products(
    nodes: Sequence[Mapping], output: str, page: str, given: Sequence[str] = ()
) -> tuple[list[Entry], list[Mosaic], list[Spectrum]]:
    """Every product of the run, read one at a time; ``given`` names files of the user's own that it was made with."""
    products = [(node, name) for node in nodes for name in node["products"]]
    pictures = sum(name.endswith(".fits") and suffix_of(name) in KINDS for _, name in products)
    edge = math.sqrt(PICTURE_BYTES / BYTES_PER_PIXEL / max(pictures, 1))
    edge = int(min(max(edge, 180), 1000))
    entries, mosaics, spectra = [], [], []
    catalogs: dict[str, QTable] = {}
    fields: dict[str, str] = {}  # catalog that spectra are numbered by -> direct image
    for node, name in products:
        entry = Entry(name, node, _link(join(output, name), folder_of(page)))
        try:
            path = Path(fetch(join(output, name)))
            entry = entry.with_(size=path.stat().st_size)
            if not name.endswith(".fits"):
                if entry.suffix == "cat":
                    catalog = read_catalog(path)
                    own = catalog.table.meta.get("calweave_user_catalog", name)
                    catalogs[own] = _union(catalogs.get(own), catalog.table)
                    entry = entry.with_(recipe=catalog.recipe)
            else:
                contents = read_fits(path, skip=UNSHOWN)
                entry = entry.with_(header=contents.header, recipe=contents.recipe)
                if entry.suffix in KINDS:
                    data, unit = image_of(contents)
                    draw = draw_labels if entry.suffix == "segm" else draw_picture
                    entry = entry.with_(picture=draw(data, edge), unit=unit)
                if entry.suffix == "i2d" and node["stage"] == "image3":
                    by = rename(name, "cat", "ecsv")
                    mosaics.append(Mosaic(entry, data, contents.wcs, draw_picture(data, MOSAIC_EDGE), None, by))
                if entry.suffix in ("x1d", "c1d"):
                    by = contents.header.get("SCATFILE") or _catalog_of(node, nodes)
                    spectra += _spectra_of(path, entry, by)
                    if by is not None:
                        fields[by] = contents.header.get("DIRIMAGE", "")
        except Exception as error:
            # Whatever is wrong with one product belongs into its row: the page is how people learn of it.
            log.warning("report: cannot show %s: %s", name, error)
            entry = entry.with_(error=_one_line(error))
        entries.append(entry)
    mosaics = [replace(one, sources=catalogs.get(one.catalog)) for one in mosaics]
    places = [output, *dict.fromkeys(folder_of(node["target"]) for node in nodes if node.get("target"))]
    for by, image in fields.items():
        if all(one.catalog != by for one in mosaics):
            mosaics = _with_field(mosaics, by, image, catalogs.get(by), places, given)
    return entries, mosaics, spectra


def _union(one: QTable | None, other: QTable) -> QTable:
    """The sources of two tables of one catalog: one is as near to one exposure as the other is to another."""
    if one is None:
        return other
    new = ~np.isin(other["label"], one["label"])
    return vstack([one, other[new]], metadata_conflicts="silent") if new.any() else one


def _with_field(
    mosaics: Sequence[Mosaic],
    catalog: str,
    image: str,
    table: QTable | None,
    places: Sequence[str],
    given: Sequence[str],
) -> list[Mosaic]:
    """The mosaics with a catalog that is none of theirs, on its direct image: of another run, or the user's own."""

    def find(name: str) -> str | None:
        candidates = [*(url for url in given if name_of(url) == name), *(join(place, name) for place in places)]
        return next((url for url in candidates if exists(url)), None)

    try:
        if table is None:
            url = find(catalog)
            table = None if url is None else read_catalog(fetch(url)).table
        if table is None:
            return list(mosaics)
        if any(one.entry.name == image for one in mosaics):
            return [replace(one, sources=table, catalog=catalog) if one.entry.name == image else one for one in mosaics]
        url = find(image)
        if url is None:
            return list(mosaics)
        direct = read_direct_image(fetch(url))
        unit = str(direct.header.get("BUNIT", ""))
        entry = Entry(image, {"name": "", "stage": "image3"}, "", header=direct.header, unit=unit)
        picture = draw_picture(direct.data, MOSAIC_EDGE)
        return [*mosaics, Mosaic(entry, direct.data, direct.wcs, picture, table, catalog)]
    except Exception as error:
        # As above: the spectra are shown without it.
        log.warning("report: cannot show the sources of %s on %s: %s", catalog, image, error)
        return list(mosaics)


def read_truth(folder: str) -> Truth:
    """The truth tables of a synthetic program (``infra.synthetic.program``)."""
    table = _read_ecsv(join(folder, "sources.ecsv"))
    lines = defaultdict(list)
    for row in _read_ecsv(join(folder, "lines.ecsv")):
        lines[int(row["id"])].append((str(row["line"]), float(row["wavelength"])))
    number, ra, dec, magnitude = (np.asarray(table[name]) for name in ("id", "ra", "dec", "abmag"))
    return Truth(folder, number, ra, dec, magnitude, [str(name) for name in table["spectrum"]], lines)


def true_spectrum(truth: Truth, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Wavelength [um] and flux density [Jy] of one source.

    There are hundreds of these tables, of two columns of numbers: NumPy reads one in a tenth of the time that astropy needs.
    """
    text = read_text(join(truth.folder, f"{truth.spectrum[row]}.ecsv"))
    names, *rows = [line for line in text.splitlines() if not line.startswith("#")]
    columns = dict(zip(names.split(), np.loadtxt(rows, ndmin=2).T, strict=True))
    return columns["wavelength"], columns["flux"]


def line_name(name: str) -> str:
    """The name of an emission line as papers write it: Hα for H_alpha, [S II] for S_II."""
    element, _, rest = name.partition("_")
    if rest in GREEK:
        return element + GREEK[rest]
    return f"[{element} {rest}]" if rest and set(rest) <= set("IVX") else name


def lines_of(source: "Source", truth: Truth | None) -> list[tuple[str, float]]:
    """Lines to mark on the spectra of a source (name, wavelength [um]): of the truth, or the common ones at its redshift."""
    if truth is not None and source.truth is not None:
        number = int(truth.number[source.truth])
        return [(line_name(name), wavelength) for name, wavelength in truth.lines.get(number, ())]
    if math.isfinite(source.redshift):
        return [(name, wavelength * (1 + source.redshift)) for name, wavelength in COMMON_LINES]
    return []


def _read_ecsv(url: str) -> Table:
    return Table.read(fetch(url), format="ascii.ecsv")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


def _link(url: str, folder: str) -> str:
    """Address of a product for a page in ``folder``: relative where both are on one store."""
    if is_local(url) and is_local(folder):
        return Path(os.path.relpath(local_path(url), local_path(folder))).as_posix()
    return url.removeprefix(folder + "/")


def _catalog_of(node: Mapping, nodes: Sequence[Mapping]) -> str | None:
    """The catalog that a node's sources are numbered in: the nearest one among what it needs."""
    by_name = {other["name"]: other for other in nodes}
    seen, layer = set(), [node]
    while layer:
        for one in layer:
            for name in one["products"]:
                if suffix_of(name) == "cat":
                    return name
        seen |= {one["name"] for one in layer}
        needed = dict.fromkeys(need for one in layer for need in one["needs"] if need in by_name and need not in seen)
        layer = [by_name[name] for name in needed]
    return None


def image_of(contents: Contents) -> tuple[np.ndarray, str]:
    """What to draw of a product (ny, nx) and its unit: bad pixels NaN; cubes averaged; of spectra cut out, the best ones."""
    slits = [ver for name, ver in contents.arrays if name == "SCI"]
    if len(slits) > 1:
        return _stack_cutouts(contents, slits), "times the noise of each cutout"
    data, unit = contents.require("SCI"), str(contents.header.get("BUNIT", ""))
    if data.ndim == 4:  # raw ramps of a guider
        data = data[:, -1] - data[:, 0] if data.shape[1] > 1 else data[:, 0]
    if data.dtype.kind == "u":
        return data, unit
    data = np.asarray(data, np.float32)
    dq = contents.get("DQ")
    if dq is not None and dq.shape[-2:] == data.shape[-2:]:
        bad = (dq & DO_NOT_USE) != 0
        data = np.where(bad, np.float32(np.nan), data)
    if data.ndim == 3:
        good = np.isfinite(data)
        count = good.sum(axis=0)
        total = np.where(good, data, 0).sum(axis=0)
        data = np.divide(total, count, out=np.full(total.shape, np.nan, np.float32), where=count > 0)
    return data, unit


def _stack_cutouts(contents: Contents, slits: Sequence[int], most: int = 40) -> np.ndarray:
    """The cutouts with the most signal side by side, dispersion along x, each in units of its own noise."""
    found = []
    for ver in slits:
        data = np.asarray(contents.get("SCI", ver), np.float32)
        if data.ndim != 2 or contents.cards["SCI", ver].get("SPORDER", 1) != 1 or not np.isfinite(data).any():
            continue
        data = data.T if data.shape[0] > data.shape[1] else data
        middle = np.nanmedian(data)
        sigma = 1.4826 * np.nanmedian(np.abs(data - middle)) or 1.0
        data = (data - middle) / sigma
        found.append((float(np.nansum(np.clip(data, 0, None)) / math.sqrt(data.size)), data))
    best = [data for _, data in sorted(found, key=lambda pair: -pair[0])[:most]]
    if not best:
        return np.full((8, 8), np.nan, np.float32)
    gap, width = 2, max(data.shape[1] for data in best)
    area = sum(data.shape[0] + gap for data in best) * (width + gap)
    ncolumns = max(1, round(math.sqrt(area) / (width + gap)))
    columns: list[list[np.ndarray]] = [[] for _ in range(ncolumns)]
    heights = [0] * ncolumns
    for data in best:
        column = heights.index(min(heights))
        columns[column].append(data)
        heights[column] += data.shape[0] + gap
    sheet = np.full((max(heights), ncolumns * (width + gap)), np.nan, np.float32)
    for column, cutouts in enumerate(columns):
        top, left = sheet.shape[0], column * (width + gap)
        for data in cutouts:
            ny, nx = data.shape
            sheet[top - ny : top, left : left + nx] = data  # the last row is drawn at the top
            top -= ny + gap
    return sheet


def _spectra_of(path: Path, entry: Entry, catalog: str | None) -> list[Spectrum]:
    """The spectra of an ``_x1d`` or ``_c1d`` file: a row per source (slitless), or a table per source (all others)."""
    rank = 0 if entry.suffix == "c1d" else 1 if entry.node["stage"] == "spec3" else 2
    spectra = []
    content = read_spectra(path)
    for number, table in enumerate(content.tables, 1):
        columns = table.rows.dtype.names or ()
        if "SOURCE_ID" in columns:
            rows = [(int(row["SOURCE_ID"]), row) for row in table.rows]
        else:
            rows = [(int(table.cards.get("SOURCEID", number)), table.rows)]
        error = "ERROR" if "ERROR" in columns else "FLUX_ERROR"
        optics, order = optics_of(content.header), int(table.cards.get("SPORDER", 1))
        unit = table.units.get("FLUX", "Jy")
        spectra += [
            Spectrum(
                catalog,
                source,
                optics,
                order,
                rank,
                row["WAVELENGTH"],
                row["FLUX"],
                row[error],
                unit,
                entry.name,
                *(float(row[name]) if name in columns else math.nan for name in ("SOURCE_RA", "SOURCE_DEC")),
            )
            for source, row in rows
        ]
    return spectra


def optics_of(header: Mapping[str, Any]) -> str:
    """What stood in the beam, the disperser first: ``GR150R F200W``."""
    words = [str(header[key]) for key in ("GRATING", "FILTER", "PUPIL") if key in header]
    words = [word for word in dict.fromkeys(words) if word not in ("CLEAR", "CLEARP", "N/A")]
    return " ".join(sorted(words, key=lambda word: not word.startswith(("GR", "PRISM", "G1", "G2", "G3", "P750"))))


@dataclass(frozen=True)
class Source:
    """A source of a catalog with what belongs to it.

    ``x``, ``y`` [pixel], ``ra``, ``dec`` [deg], AB magnitude, the standard deviation of its profile ``sigma`` [pixel], and
    its row in the truth table, or None, and its redshift.
    """

    catalog: str | None
    number: int
    x: float = math.nan
    y: float = math.nan
    ra: float = math.nan
    dec: float = math.nan
    magnitude: float = math.nan
    sigma: float = math.nan
    truth: int | None = None
    redshift: float = math.nan


def match_sources(mosaic: Mosaic, truth: Truth | None) -> list[Source]:
    """The sources of a mosaic's catalog, each with the truth that is nearest to it, and it nearest to that truth."""
    table = mosaic.sources
    if table is None or not len(table):
        return []
    ra, dec = _positions(table)
    magnitude = _column(table, "isophotal_abmag", "aper_total_abmag")
    matched = np.full(len(table), -1)
    if truth is not None and truth.number.size:
        for row, other in _nearest_pairs(ra, dec, truth.ra, truth.dec):
            matched[row] = other
    x, y = _column(table, "xcentroid"), _column(table, "ycentroid")
    redshift = _column(table, "redshift")
    sigma = np.sqrt((_column(table, "semimajor_sigma") ** 2 + _column(table, "semiminor_sigma") ** 2) / 2)
    return [
        Source(
            mosaic.catalog,
            int(label),
            float(x[row]),
            float(y[row]),
            float(ra[row]),
            float(dec[row]),
            float(magnitude[row]),
            float(sigma[row]),
            int(matched[row]) if matched[row] >= 0 else None,
            float(redshift[row]),
        )
        for row, label in enumerate(table["label"])
    ]


def _positions(table: QTable) -> tuple[np.ndarray, np.ndarray]:
    sky = table["sky_centroid"]
    return np.asarray(sky.ra.deg), np.asarray(sky.dec.deg)


def _column(table: QTable, *names: str) -> np.ndarray:
    for name in names:
        if name in table.colnames:
            values = getattr(table[name], "value", table[name])
            return np.ma.filled(np.ma.asarray(values, float), np.nan)
    return np.full(len(table), np.nan)


def _nearest_pairs(
    ra: np.ndarray, dec: np.ndarray, other_ra: np.ndarray, other_dec: np.ndarray
) -> list[tuple[int, int]]:
    """Rows of two lists of positions [deg] that are each other's nearest, within ``MATCH_RADIUS``."""
    here = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if not here.size or not other_ra.size:
        return []
    mine, others = _directions(ra[here], dec[here]), _directions(other_ra, other_dec)
    distance, there = cKDTree(others).query(mine)
    _, back = cKDTree(mine).query(others)
    close = (distance < np.deg2rad(MATCH_RADIUS / 3600)) & (back[there] == np.arange(here.size))
    return list(zip(here[close].tolist(), there[close].tolist(), strict=True))


def _directions(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Unit vectors (n, 3)."""
    ra, dec = np.deg2rad(ra), np.deg2rad(dec)
    return np.stack((np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)), axis=-1)


def sky_offsets(
    ra: np.ndarray, dec: np.ndarray, from_ra: np.ndarray, from_dec: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Small offsets to the east and to the north [arcsec]."""
    turn = (np.asarray(ra) - from_ra + 180.0) % 360.0 - 180.0
    return 3600.0 * turn * np.cos(np.deg2rad(from_dec)), 3600.0 * (np.asarray(dec) - from_dec)


def bin_onto(grid: np.ndarray, wavelength: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """A finely sampled spectrum averaged over the pixels around the wavelengths of ``grid``; NaN outside of it."""
    edges = np.concatenate(
        (grid[:1] - (grid[1] - grid[0]) / 2, (grid[1:] + grid[:-1]) / 2, grid[-1:] + (grid[-1] - grid[-2]) / 2)
    )
    area = np.concatenate(([0.0], np.cumsum(0.5 * (flux[1:] + flux[:-1]) * np.diff(wavelength))))
    binned = np.diff(np.interp(edges, wavelength, area)) / np.diff(edges)
    binned[(edges[:-1] < wavelength[0]) | (edges[1:] > wavelength[-1])] = np.nan
    return binned


def blur(flux: np.ndarray, sigma: float) -> np.ndarray:
    """A spectrum as a source of this size shows it without a slit: blurred by a Gaussian of ``sigma`` [pixel].

    The profile of a source along the dispersion is the line spread of its spectrum. NaN stays, and does not spread.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        return flux
    reach = math.ceil(4 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    good = np.isfinite(flux)
    total = np.convolve(np.where(good, flux, 0.0), kernel)[reach:-reach]
    weight = np.convolve(good.astype(float), kernel)[reach:-reach]
    return np.divide(total, weight, out=np.full(flux.size, np.nan), where=good)


def missed_sources(
    mosaic: Mosaic, sources: Sequence[Source], truth: Truth | None
) -> list[tuple[int, float, float, float]]:
    """True sources inside the mosaic that no source of the catalog matches: number, magnitude, x, y."""
    if truth is None or mosaic.wcs is None or mosaic.sources is None or not truth.number.size:
        return []
    found = {source.truth for source in sources}
    ny, nx = mosaic.data.shape
    missed = []
    for row, (x, y) in enumerate(zip(*mosaic.wcs.invert(truth.ra, truth.dec, with_bounding_box=False), strict=True)):
        inside = -0.5 <= x < nx - 0.5 and -0.5 <= y < ny - 0.5
        if row not in found and inside and np.isfinite(mosaic.data[round(float(y)), round(float(x))]):
            missed.append((int(truth.number[row]), float(truth.magnitude[row]), float(x), float(y)))
    return missed


def best_spectra(spectra: Sequence[Spectrum]) -> list[Spectrum]:
    """Of each source and optics, the spectra of the last stage that made any, of the first order where there is one."""
    groups: dict[tuple, list[Spectrum]] = defaultdict(list)
    for spectrum in spectra:
        groups[spectrum.catalog, spectrum.source, spectrum.optics].append(spectrum)
    best = []
    for group in groups.values():
        rank = min(one.rank for one in group)
        order = min(abs(one.order - 1) for one in group if one.rank == rank)
        best += [one for one in group if one.rank == rank and abs(one.order - 1) == order]
    return best


Group = tuple[Source, Mosaic | None, list[Spectrum]]


def group_by_source(
    mosaics: Sequence[Mosaic], sources: Mapping[str, Sequence[Source]], spectra: Sequence[Spectrum]
) -> list[Group]:
    """Each source that has spectra with its direct image and the best of them, brightest first."""
    known = {(one.catalog, one.number): (one, mosaic) for mosaic in mosaics for one in sources[mosaic.entry.name]}
    groups: dict[tuple, list[Spectrum]] = defaultdict(list)
    for spectrum in best_spectra(spectra):
        groups[spectrum.catalog, spectrum.source].append(spectrum)
    found: list[Group] = []
    for key, group in groups.items():
        unknown = Source(key[0], key[1], ra=group[0].ra, dec=group[0].dec), None
        found.append((*known.get(key, unknown), group))

    def brightness(one: Group) -> tuple:
        source = one[0]
        faint = math.isnan(source.magnitude)
        return faint, 0.0 if faint else source.magnitude, source.number, str(source.catalog)

    return sorted(found, key=brightness)


def tones_of(spectra: Sequence[Spectrum]) -> dict[str, int]:
    """The number of the colour of each optics."""
    return {name: tone for tone, name in enumerate(sorted({spectrum.optics for spectrum in spectra}))}


def signal_to_noise(group: Sequence[Spectrum]) -> float:
    """The median of signal over noise of all pixels; NaN where there is none."""
    ratios = []
    for spectrum in group:
        good = np.isfinite(spectrum.flux) & (spectrum.error > 0)
        ratios.append(np.abs(spectrum.flux[good]) / spectrum.error[good])
    found = np.concatenate(ratios) if ratios else np.zeros(0)
    return float(np.median(found)) if found.size else math.nan


def stamp_of(source: Source, mosaic: Mosaic | None) -> np.ndarray | None:
    """The direct image about a source; None where there is none."""
    if mosaic is None or not math.isfinite(source.x):
        return None
    x, y = round(source.x), round(source.y)
    cut = mosaic.data[max(y - STAMP_RADIUS, 0) : y + STAMP_RADIUS + 1, max(x - STAMP_RADIUS, 0) : x + STAMP_RADIUS + 1]
    return cut if np.isfinite(cut).any() else None


def anchor_of(source: Source) -> str:
    """The name of a source's card on the page; its number stands for another source in another catalog."""
    return f"source-{source.number}-" + re.sub(r"\W", "-", base_of(source.catalog or ""))
