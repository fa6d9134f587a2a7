"""A small run with a mosaic, two sources and their spectra, for tests of the pages that show it."""

from html.parser import HTMLParser

import gwcs
import gwcs.coordinate_frames as frames
import numpy as np
from astropy import coordinates, units
from astropy.coordinates import SkyCoord
from astropy.modeling import models
from astropy.table import QTable, Table

from flows.report import write_report
from infra.products.catalog import Catalog, write_catalog
from infra.products.header import Header
from infra.products.image import Image, Segmentation, write_image, write_segmentation
from infra.products.spectrum import SpectrumSet, SpectrumTable, empty_rows, write_spectra

RA, DEC, PIXEL = 53.16, -27.79, 0.065 / 3600
SOURCES = ((20.0, 12.0, 21.5), (40.0, 50.0, 23.0))  # x, y, magnitude
UNSEEN = (55.0, 20.0, 25.0)
MOSAIC = "jw01234-o001_t001_niriss_clear-f200w"
GRISM = "jw01234-o001_t001_niriss_f200w-gr150r"
RATE = "jw01234001001_02101_00001_nis_rate"
VOID = {"meta", "img", "input", "br", "wbr", "path", "rect", "line", "circle", "polygon", "polyline"}


def node(name, stage, products=(), needs=(), state="done", error=None, start=0):
    ran = state in ("done", "failed")
    return {
        "name": name,
        "stage": stage,
        "needs": list(needs),
        "state": state,
        "started": f"2026-11-20T15:00:{start:02}+00:00" if ran else None,
        "seconds": 5.0 if ran else None,
        "cpu_seconds": 4.0 if ran else None,
        "products": list(products),
        "error": error,
    }


def record(nodes, **changes):
    return {
        "program": "01234",
        "input": "uncal",
        "output": "out",
        "started": "2026-11-20T15:00:00+00:00",
        "ended": "2026-11-20T15:01:00+00:00",
        "versions": {"calweave": "0.1.0"},
        "context": "jwst_0001.pmap",
        "nodes": nodes,
        "peak_memory_bytes": 10**9,
        **changes,
    }


def tangent_wcs():
    to_sky = (
        models.Shift(-32) & models.Shift(-32)
        | models.Scale(-PIXEL) & models.Scale(PIXEL)
        | models.Pix2Sky_TAN()
        | models.RotateNative2Celestial(RA, DEC, 180)
    )
    detector = frames.Frame2D(name="detector", unit=(units.pix, units.pix))
    sky = frames.CelestialFrame(reference_frame=coordinates.ICRS(), name="world")
    return gwcs.WCS([(detector, to_sky), (sky, None)])


def small_run(tmp_path):
    """A small run: one rate, a mosaic with two sources, their spectra; and the truth, with one source more."""
    rng = np.random.default_rng(1)
    folder, truth = tmp_path / "out", tmp_path / "truth"
    folder.mkdir()
    truth.mkdir()
    header = Header({}).set(INSTRUME="NIRISS", FILTER="CLEAR", PUPIL="F200W", EXP_TYPE="NIS_IMAGE", BUNIT="MJy/sr")
    data = rng.normal(0.3, 0.02, (64, 64)).astype(np.float32)
    data[12, 20] = data[50, 40] = 9
    recipe = {
        "dq_init": {"status": "COMPLETE", "references": {"jwst_niriss_mask_0001.fits": "0a1b"}},
        "ramp_fit": {"status": "COMPLETE"},
        "ipc": {"status": "SKIPPED", "reason": "off by default"},
    }
    dq = np.zeros((64, 64), np.uint32)
    write_image(Image(header.set(BUNIT="DN/s"), data, data, dq, recipe=recipe), folder / f"{RATE}.fits")
    wcs = tangent_wcs()
    write_image(Image(header, data, data, None, wcs=wcs), folder / f"{MOSAIC}_i2d.fits")
    labels = np.zeros((64, 64), np.uint32)
    labels[10:15, 18:23], labels[48:53, 38:43] = 1, 2
    write_segmentation(Segmentation(header.set(BUNIT=None), labels, wcs), folder / f"{MOSAIC}_segm.fits")
    x, y, magnitude = map(np.array, zip(*SOURCES, strict=True))
    table = QTable({"label": [1, 2], "xcentroid": x, "ycentroid": y, "is_extended": [False, True]})
    table["sky_centroid"] = SkyCoord(*wcs(x, y), unit="deg")
    for corner in ("ll", "ul", "lr", "ur"):
        table[f"sky_bbox_{corner}"] = table["sky_centroid"]
    table["isophotal_abmag"] = magnitude + 0.1
    write_catalog(Catalog(table), folder / f"{MOSAIC}_cat.ecsv")
    wavelength = np.linspace(1.8, 2.2, 60)
    rows = empty_rows("COMBINE1D", 2, 60)
    rows["SOURCE_ID"], rows["WAVELENGTH"], rows["ERROR"] = [1, 2], wavelength, 1e-7
    rows["FLUX"] = 1e-6 + rng.normal(0, 1e-7, (2, 60))
    tables = (SpectrumTable("COMBINE1D", {"SPORDER": 1}, rows, {"FLUX": "Jy", "WAVELENGTH": "um"}),)
    spectra = SpectrumSet(header.set(FILTER="GR150R", BUNIT=None), tables, "WFSSMultiCombinedSpecModel")
    write_spectra(spectra, folder / f"{GRISM}_c1d.fits")

    x, y, magnitude = map(np.array, zip(*SOURCES, UNSEEN, strict=True))
    ra, dec = wcs(x + 0.1, y)
    names = [f"spectrum_{n:04}" for n in (7, 8, 9)]
    sources = Table({"id": [7, 8, 9], "ra": ra, "dec": dec, "abmag": magnitude, "spectrum": names})
    sources.write(truth / "sources.ecsv", format="ascii.ecsv")
    lines = Table({"id": [8], "line": ["H_alpha"], "wavelength": [2.0]})
    lines.write(truth / "lines.ecsv", format="ascii.ecsv")
    for name in names:
        fine = Table({"wavelength": np.linspace(1.7, 2.3, 600), "flux": np.full(600, 1e-6)})
        fine.write(truth / f"{name}.ecsv", format="ascii.ecsv")

    products = [f"{MOSAIC}_{suffix}" for suffix in ("i2d.fits", "cat.ecsv", "segm.fits")]
    nodes = [
        node(RATE, "detector1", [f"{RATE}.fits"]),
        node("image3", "image3", products, [RATE], start=6),
        node("spec3", "spec3", [f"{GRISM}_c1d.fits"], ["image3"], start=12),
    ]
    return record(nodes), folder, truth


def page_of(run, truth=None):
    content, folder, _ = run
    write_report(content, str(folder), str(folder / "report.html"), truth and str(truth))
    return (folder / "report.html").read_text(encoding="utf-8")


class Elements(HTMLParser):
    """The elements of a page, each with its attributes; fails where they are not nested."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]
