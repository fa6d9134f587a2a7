"""The page of sources and the previews: what a user of slitless spectra looks at."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image as Pillow
from report_scene import GRISM, MOSAIC, PIXEL, RATE, Elements, node, page_of, small_run

from flows.previews import read_strips, write_previews
from flows.report import write_report
from flows.report_products import COMMON_LINES
from infra.products.catalog import Catalog, read_catalog, write_catalog
from infra.products.header import Header, ProductError
from infra.products.slits import Slit, SlitSet, write_slits
from infra.products.spectrum import read_spectra, write_spectra


@pytest.fixture
def run(tmp_path):
    return small_run(tmp_path)


CAL = RATE.replace("_rate", "_cal")


def sources_of(folder):
    """The rows of the page, and its text."""
    text = (folder / "sources.html").read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(data), text


def test_every_source_with_a_spectrum_is_a_row_brightest_first(run):
    page = page_of(run)
    rows, text = sources_of(run[1])
    assert [row["number"] for row in rows] == [1, 2]
    assert [row["magnitude"] for row in rows] == [21.6, 23.1]
    assert all(8 < row["noise"] < 12 for row in rows), "a flux of ten sigma"
    assert all(row["picture"].startswith("data:image/jpeg;base64,") for row in rows)
    assert [row["products"] for row in rows] == [[["GR150R F200W", f"{GRISM}_c1d.fits"]]] * 2
    assert all((run[1] / product).is_file() for row in rows for _, product in row["products"])
    for row in rows:
        ((tone, path),) = row["curves"]
        assert tone == 0
        points = np.array([point.split() for point in path.removeprefix("M").split("L")], float)
        assert points[0, 0] == 0
        assert points[-1, 0] == 220
        assert ((points[:, 1] >= 0) & (points[:, 1] <= 44)).all()
        assert f'id="{row["anchor"]}"' in page, "its card on the report"
    assert 'href="sources.html"' in page
    assert 'href="report.html"' in text


def test_the_page_of_sources_needs_nothing_from_elsewhere(run):
    page_of(run, run[2])
    _, text = sources_of(run[1])
    elements = Elements(text)
    assert not elements.of("link")
    assert "https://" not in text
    assert all(attributes.get("src", "data:").startswith("data:") for _, attributes in elements.found)
    policy = next(meta["content"] for meta in elements.of("meta") if meta.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert {button["data-key"] for button in elements.of("button") if "data-key" in button} == {
        "number",
        "magnitude",
        "noise",
        "ra",
        "dec",
    }


def test_names_in_the_rows_are_text_and_never_markup(run):
    content, folder, _ = run
    bad = "</script><script>alert(1)"
    write_report({**content, "program": bad}, str(folder), str(folder / "report.html"))
    _, text = sources_of(folder)
    assert "<script>alert" not in text
    assert len(Elements(text).of("script")) == 2


def test_a_thousand_sources_take_three_kilobytes_each(run):
    _, folder, _ = run
    spectra = read_spectra(folder / f"{GRISM}_c1d.fits")
    (table,) = spectra.tables
    rows = np.resize(table.rows, 1000)
    rows["SOURCE_ID"] = np.arange(1, 1001)
    catalog = read_catalog(folder / f"{MOSAIC}_cat.ecsv").table
    catalog = catalog[np.arange(1000) % 2]
    catalog["label"] = np.arange(1, 1001)
    write_spectra(spectra.with_(tables=(table.with_(rows=rows),)), folder / f"{GRISM}_c1d.fits")
    write_catalog(Catalog(catalog), folder / f"{MOSAIC}_cat.ecsv")
    page = page_of(run)
    found, text = sources_of(folder)
    assert len(found) == 1000
    assert len(text) < 1000 * 3000 + 100_000
    assert sum(row["card"] for row in found) == 300 == page.count("<article")
    assert "700 fainter ones are on the page of all sources" in page


def test_a_run_without_spectra_has_no_page_of_sources(run):
    content, folder, truth = run
    page = page_of(({**content, "nodes": content["nodes"][:2]}, folder, truth))
    assert not (folder / "sources.html").exists()
    assert "sources.html" not in page


def own_catalog(folder, label=(501, 502), **columns):
    """The catalog as spec2 makes it of a user's, in place of that of the mosaic, and spectra that are numbered by it."""
    table = read_catalog(folder / f"{MOSAIC}_cat.ecsv").table
    table["label"] = label
    for name, values in columns.items():
        table[name] = values
    table.meta["calweave_user_catalog"] = "my.csv"
    write_catalog(Catalog(table), folder / f"{CAL.removesuffix('_cal')}_cat.ecsv")
    spectra = read_spectra(folder / f"{GRISM}_c1d.fits")
    (spectrum,) = spectra.tables
    rows = spectrum.rows.copy()
    rows["SOURCE_ID"] = label
    return spectra.with_(tables=(spectrum.with_(rows=rows),))


def test_spectra_of_a_users_catalog_have_its_numbers_positions_and_lines(run):
    content, folder, truth = run
    spectra = own_catalog(folder, redshift=[2.0, np.nan])
    header = spectra.header.set(SCATFILE="my.csv", DIRIMAGE=f"{MOSAIC}_i2d.fits")
    write_spectra(spectra.with_(header=header), folder / f"{GRISM}_c1d.fits")
    nodes = [*content["nodes"], node("spec2", "spec2", [f"{CAL.removesuffix('_cal')}_cat.ecsv"])]
    page = page_of(({**content, "nodes": nodes}, folder, truth))
    rows, text = sources_of(folder)
    assert [row["number"] for row in rows] == [501, 502]
    assert [row["magnitude"] for row in rows] == [21.6, 23.1]
    assert [row["redshift"] for row in rows] == [2.0, None]
    assert [row["lines"] for row in rows] == [len(COMMON_LINES), 0]
    assert 'data-key="redshift"' in text
    cards = page.split('id="source-502')
    assert "Hα" not in cards[1]
    assert "[S II]" in cards[0] or "Hα" in cards[0], "Hα at 1.969 um is on the spectrum of the first"
    assert page.count('<g class="source"><title>source 501') == 1, "and it is marked on the mosaic"


def test_without_a_direct_image_there_are_numbers_and_positions(run):
    content, folder, truth = run
    spectra = own_catalog(folder)
    (table,) = spectra.tables
    rows = table.rows.copy()
    rows["SOURCE_RA"], rows["SOURCE_DEC"] = [53.1, 53.2], -27.8
    header = spectra.header.set(SCATFILE="my.csv")
    write_spectra(spectra.with_(header=header, tables=(table.with_(rows=rows),)), folder / f"{GRISM}_c1d.fits")
    page_of(({**content, "nodes": content["nodes"][2:]}, folder, truth))
    rows, _ = sources_of(folder)
    assert [(row["number"], row["ra"], row["dec"]) for row in rows] == [(501, 53.1, -27.8), (502, 53.2, -27.8)]
    assert [row["magnitude"] for row in rows] == [None, None]


def test_a_users_direct_image_is_shown_with_its_sources(run):
    content, folder, truth = run
    spectra = own_catalog(folder)
    with fits.open(folder / f"{MOSAIC}_i2d.fits") as hdulist:
        data = hdulist["SCI"].data.copy()
    cards = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": 53.16,
        "CRVAL2": -27.79,
        "CRPIX1": 33.0,
        "CRPIX2": 33.0,
    }
    fits.PrimaryHDU(data, fits.Header({**cards, "CDELT1": -PIXEL, "CDELT2": PIXEL, "BUNIT": "MJy/sr"})).writeto(
        folder.parent / "my_drz.fits"
    )
    header = spectra.header.set(SCATFILE="my.csv", DIRIMAGE="my_drz.fits")
    write_spectra(spectra.with_(header=header), folder / f"{GRISM}_c1d.fits")
    nodes = [*content["nodes"][2:], node("spec2", "spec2", [f"{CAL.removesuffix('_cal')}_cat.ecsv"])]
    overrides = {"spec2": {"direct_image": str(folder.parent / "my_drz.fits")}}
    page = page_of(({**content, "nodes": nodes, "overrides": overrides}, folder, truth))
    rows, _ = sources_of(folder)
    assert all(row["picture"] for row in rows)
    assert "my_<wbr>drz.fits" in page


def test_a_re_extraction_finds_the_catalog_and_mosaic_of_its_run(run, tmp_path):
    content, folder, truth = run
    spectra = read_spectra(folder / f"{GRISM}_c1d.fits")
    again = tmp_path / "out" / "reextracted-1"
    again.mkdir()
    header = spectra.header.set(SCATFILE=f"{MOSAIC}_cat.ecsv", DIRIMAGE=f"{MOSAIC}_i2d.fits")
    write_spectra(spectra.with_(header=header), again / f"{GRISM}_c1d.fits")
    one = {**node("spec3", "spec3", [f"{GRISM}_c1d.fits"]), "target": str(folder / "a_spec3_00001_asn.json")}
    page_of(({**content, "nodes": [one]}, again, truth))
    rows, _ = sources_of(again)
    assert [row["magnitude"] for row in rows] == [21.6, 23.1]
    assert all(row["picture"] for row in rows)


@pytest.fixture
def with_cutouts(run):
    """The run with the slits of its two sources: a line at pixel 30 of the first, dispersion along y."""
    content, folder, truth = run
    header = Header({}).set(INSTRUME="NIRISS", FILTER="GR150R", PUPIL="F200W", EXP_TYPE="NIS_WFSS", BUNIT="MJy/sr")
    slits = []
    for number in (1, 2):
        data = np.random.default_rng(number).normal(0, 0.1, (60, 11)).astype(np.float32)
        data[30, 5] = 5.0 if number == 1 else 0.0
        wavelength = np.broadcast_to(np.linspace(2.2, 1.8, 60, dtype=np.float32)[:, None], data.shape).copy()
        cards = {"SOURCEID": number, "SPORDER": 1, "DISPAXIS": 2, "SLTSTRT1": 3 * number, "SLTSTRT2": 2}
        cards |= {"SLTSIZE1": 11, "SLTSIZE2": 60}
        slits.append(Slit(Header(cards), data, np.ones_like(data), np.zeros(data.shape, np.uint32), wavelength))
    cal = SlitSet(header, tuple(slits))
    write_slits(cal, folder / f"{CAL}.fits")
    nodes = [*content["nodes"], node("spec2", "spec2", [f"{CAL}.fits"])]
    content = {**content, "nodes": nodes}
    (folder / "run.json").write_text(json.dumps(content))
    return content, folder, truth, cal


def pixels_of(path):
    return np.asarray(Pillow.open(io.BytesIO(path.read_bytes())).convert("RGB"), float)


def test_previews_are_light_pictures_that_the_page_links_to(with_cutouts):
    _, folder, truth, _ = with_cutouts
    made = write_previews(str(folder), None, 1, str(truth))
    (path,) = (folder / "previews").iterdir()
    assert made == [str(path)]
    assert path.stat().st_size < 100_000
    rows, _ = sources_of(folder)
    assert [row["preview"] for row in rows] == [f"previews/{path.name}", ""], "the brightest one alone"
    assert (folder / rows[0]["preview"]).is_file()
    write_previews(str(folder), [2])
    rows, _ = sources_of(folder)
    assert all(row["preview"] for row in rows), "those of before stay"


def test_the_cutout_runs_with_the_wavelength(with_cutouts):
    content, folder, _, _ = with_cutouts
    strips = read_strips(content["nodes"], str(folder), {1, 2})
    assert set(strips) == {1, 2}
    (strip,) = strips[1]
    assert (strip.optics, strip.label) == ("GR150R F200W", "cutout")
    assert strip.data.shape == (11, 60)
    assert (strip.first, strip.last) == (pytest.approx(1.8), pytest.approx(2.2))
    # The first row of the slit has the longest wavelength.
    assert np.unravel_index(np.argmax(strip.data), strip.data.shape) == (5, 29)


def test_the_model_of_the_neighbours_is_drawn_where_there_is_one(with_cutouts):
    content, folder, _, cal = with_cutouts
    model = [replace(slit, data=np.full(slit.data.shape, 0.25, np.float32)) for slit in cal.slits]
    write_slits(cal.with_(slits=tuple(model)), folder / f"{CAL.replace('_cal', '_contam')}.fits")
    strips = read_strips(content["nodes"], str(folder), {1})[1]
    assert [strip.label for strip in strips] == ["rate", "neighbours", "residual"]
    assert np.all(strips[1].data == 0.25)
    with fits.open(folder / f"{RATE}.fits") as hdulist:
        cutout = hdulist["SCI"].data[1:61, 2:13]
    np.testing.assert_array_equal(strips[0].data, cutout.T[:, ::-1])


def test_without_cutouts_or_direct_image_there_is_a_preview_still(run):
    content, folder, _ = run
    (folder / "run.json").write_text(json.dumps({**content, "nodes": content["nodes"][2:]}))
    (path,) = write_previews(str(folder), [2])
    assert pixels_of(folder / "previews" / path.rsplit("/", 1)[-1]).std() > 10


def test_a_folder_without_spectra_or_a_source_without_one_is_said(with_cutouts, tmp_path):
    content, folder, _, _ = with_cutouts
    with pytest.raises(ProductError, match=r"expected the output folder of a run, but there is no run\.json"):
        write_previews(str(tmp_path))
    with pytest.raises(ProductError, match="source 7 has no spectrum; 2 sources have one"):
        write_previews(str(folder), [1, 7])
    (folder / "run.json").write_text(json.dumps({**content, "nodes": content["nodes"][:1]}))
    with pytest.raises(ProductError, match="but it has none"):
        write_previews(str(folder))
