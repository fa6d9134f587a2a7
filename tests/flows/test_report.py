"""The report of a run: what stands on the page, and what its drawings mean."""

import base64
import io
import itertools
import re

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from report_scene import (
    MOSAIC,
    RATE,
    SOURCES,
    Elements,
    node,
    page_of,
    record,
    small_run,
    tangent_wcs,
)

from flows.report import write_report
from flows.report_plots import (
    Bar,
    Box,
    Curve,
    draw_graph,
    draw_labels,
    draw_picture,
    draw_spectrum,
    draw_timeline,
    labelled_ticks,
    merge_alike,
    nice_ticks,
    shrink,
)
from flows.report_products import bin_onto, blur
from infra.storage.store import publish, read_text


@pytest.fixture
def run(tmp_path):
    return small_run(tmp_path)


def section(page, name):
    return re.search(rf'<section id="{name}">.*?</section>', page, re.S).group()


def test_every_product_has_a_row_with_a_link_that_leads_to_it(run):
    page = page_of(run)
    content, folder, _ = run
    links = {link["href"] for link in Elements(section(page, "products")).of("a")}
    assert links == {name for one in content["nodes"] for name in one["products"]}
    assert all((folder / link).is_file() for link in links)


def test_every_image_product_has_a_picture_with_a_text_in_its_stead(run):
    pictures = Elements(section(page_of(run), "images")).of("img")
    for name in (f"{RATE}.fits", f"{MOSAIC}_i2d.fits", f"{MOSAIC}_segm.fits"):
        assert sum(name in picture["alt"] for picture in pictures) == 1


def test_the_page_needs_nothing_from_elsewhere(run):
    page = page_of(run, run[2])
    elements = Elements(page)
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"@import|url\(", page)
    for _, attributes in elements.found:
        assert attributes.get("src", "data:").startswith("data:")
        assert not attributes.get("href", "#").startswith("/")
    assert not elements.of("link")
    policy = next(
        meta["content"] for meta in elements.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy


def test_the_head_says_what_was_found(run):
    page = page_of(run)
    assert "1 exposure gave 1 mosaic, 2 sources and 2 spectra (2 in GR150R F200W)." in page
    assert "jwst_0001.pmap" in page
    assert "complete" in page


def test_the_reason_of_a_skipped_step_is_in_the_row_of_its_product(run):
    row = section(page_of(run), "products").split(f"{RATE}.fits".replace("_", "_<wbr>"))[1].split("</tr>")[0]
    assert re.search(r"<b>ipc</b> SKIPPED <span>off by default</span>", row)
    assert "jwst_niriss_mask_0001.fits" in row


def test_steps_are_listed_in_the_order_in_which_they_ran(run):
    row = section(page_of(run), "products").split(f"{RATE}.fits".replace("_", "_<wbr>"))[1].split("</tr>")[0]
    assert re.findall(r"<b>(\w+)</b>", row) == ["dq_init", "ipc", "ramp_fit"]


def test_a_product_that_cannot_be_read_is_an_error_in_its_row_and_the_others_are_shown(run):
    path = run[1] / f"{RATE}.fits"
    path.write_bytes(path.read_bytes()[:20_000])
    page = page_of(run)
    assert "cut short" in section(page, "failures")
    assert "cut short" in section(page, "products").split("image3")[0]
    assert "Source 1" in section(page, "spectra")


def test_a_product_that_is_not_there_is_an_error_in_its_row(run):
    (run[1] / f"{MOSAIC}_cat.ecsv").unlink()
    page = page_of(run)
    assert "does not exist" in section(page, "failures")
    assert f"{MOSAIC}_i2d.fits" in section(page, "mosaics").replace("<wbr>", "")


def test_failures_stand_on_top_with_the_remedy_and_what_they_stopped(run):
    content, folder, truth = run
    extra = [
        node("jw01234001001_03101_00001_nis_rate", "detector1", state="failed", error="no DARK file; set CRDS_CONTEXT"),
        node("spec2", "spec2", needs=["jw01234001001_03101_00001_nis_rate"], state="blocked"),
        node("later", "spec3", needs=["spec2"], state="blocked"),
    ]
    page = page_of(({**content, "nodes": content["nodes"] + extra}, folder, truth))
    assert page.index('id="failures"') < page.index('id="workflow"')
    failures = section(page, "failures")
    assert "no DARK file; set CRDS_CONTEXT" in failures
    assert "2 products not made" in failures
    assert "3 not made" in page


def test_a_run_without_failures_has_no_such_section(run):
    assert 'id="failures"' not in page_of(run)


def test_names_are_text_and_never_markup(run):
    content, folder, truth = run
    bad = '<script>alert("x")</script>'
    nodes = [*content["nodes"], node(bad, bad, state="failed", error=bad, products=())]
    page = page_of(({**content, "program": bad, "input": bad, "context": bad, "nodes": nodes}, folder, truth))
    assert "<script>alert" not in page
    assert len(Elements(page).of("script")) == 1


def test_without_a_truth_nothing_of_it_is_on_the_page(run):
    page = page_of(run)
    assert 'class="missed"' not in page
    assert 'class="curve tone-truth"' not in page
    assert "Against the truth" not in page


def test_the_truth_is_drawn_and_what_was_not_found_is_marked(run):
    page = page_of(run, run[2])
    assert "2 of 3 simulated sources found." in page
    mosaics, spectra = section(page, "mosaics"), section(page, "spectra")
    assert "2 of 3 true sources in the mosaic found, 0 in the catalog without a true one." in mosaics
    assert "Median distance 6.5 mas." in mosaics  # a tenth of a pixel
    assert "true magnitude +0.100" in mosaics
    assert mosaics.count('<g class="missed"><title>true source 9,') == 1
    assert spectra.count('<polyline class="curve tone-truth"') == 2
    assert "Hα" in spectra.split('id="source-2-')[1]
    assert "Hα" not in spectra.split('id="source-2-')[0]


def test_sources_are_marked_where_they_are_with_row_zero_at_the_bottom(run):
    marks = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', section(page_of(run), "mosaics"))
    assert [(float(x), float(y)) for x, y in marks[:2]] == [(x + 0.5, 64 - y - 0.5) for x, y, _ in SOURCES]


def test_a_true_source_is_matched_by_the_nearest_of_the_catalog_only(run):
    _, folder, truth = run
    path = folder / f"{MOSAIC}_cat.ecsv"
    table = QTable.read(path)
    table.insert_row(0, table[0])
    table["label"][0] = 3
    x = np.array([SOURCES[0][0] + 1.5])
    ra, dec = tangent_wcs()(x, np.array([SOURCES[0][1]]))
    table["sky_centroid"][0] = SkyCoord(ra[0], dec[0], unit="deg")
    table.write(path, format="ascii.ecsv", overwrite=True)
    page = page_of(run, truth)
    assert "2 of 3 true sources in the mosaic found, 1 in the catalog without a true one." in page


def test_a_mark_on_the_mosaic_leads_to_the_spectrum_of_its_source(run):
    page = page_of(run)
    targets = [link["href"].removeprefix("#") for link in Elements(section(page, "mosaics")).of("a")]
    cards = [card["id"] for card in Elements(section(page, "spectra")).of("article")]
    assert len(targets) == 2
    assert sorted(targets) == sorted(cards)


def test_two_reports_of_one_run_are_the_same(run):
    assert page_of(run, run[2]) == page_of(run, run[2])


def test_a_run_that_made_nothing_has_a_page(tmp_path):
    page = page_of((record([node("a", "detector1", state="failed", error="why")]), tmp_path, None))
    assert "why" in section(page, "failures")
    Elements(page)


def test_products_and_page_may_be_in_an_object_store(run):
    content, folder, _ = run
    for path in folder.iterdir():
        publish(path, f"memory://report/out/{path.name}")
    write_report(content, "memory://report/out", "memory://report/report.html")
    links = [link["href"] for link in Elements(section(read_text("memory://report/report.html"), "products")).of("a")]
    assert f"out/{RATE}.fits" in links


def pixels(picture):
    raw = base64.b64decode(picture.address.partition(",")[2])
    return np.asarray(Pillow.open(io.BytesIO(raw)).convert("RGB"))


def test_a_picture_has_its_first_row_at_the_bottom_and_no_value_in_blue():
    data = np.random.default_rng(3).normal(10, 1, (32, 32)).astype(np.float32)
    data[:8, :8], data[24:, 24:] = 100, np.nan
    drawn = pixels(draw_picture(data, 32)).astype(int)
    assert drawn[28, 3].min() > 230
    red, _, blue = drawn[3, 28]
    assert blue > red + 20


@pytest.mark.parametrize("data", [np.full((4, 4), np.nan), np.zeros((4, 4)), np.full((1, 9), 5.0)])
def test_a_picture_without_contrast_can_be_drawn(data):
    assert pixels(draw_picture(data, 8)).shape[2] == 3


def test_labels_that_follow_each_other_have_different_colours():
    drawn = pixels(draw_labels(np.array([[0, 1, 2, 3, 4, 5, 6, 7]], np.uint32), 8))[0]
    assert len({tuple(colour) for colour in drawn}) == 8


@given(shape=st.tuples(st.integers(1, 30), st.integers(1, 30)), edge=st.integers(1, 12), seed=st.integers(0, 99))
def test_shrinking_takes_the_mean_of_what_has_a_value(shape, edge, seed):
    rng = np.random.default_rng(seed)
    data = np.where(rng.uniform(size=shape) < 0.2, np.nan, rng.normal(size=shape)).astype(np.float32)
    small = shrink(data, edge)
    assert max(small.shape) <= edge
    step = -(-max(shape) // edge)
    for (j, i), value in np.ndenumerate(small):
        block = data[j * step : (j + 1) * step, i * step : (i + 1) * step]
        good = block[np.isfinite(block)]
        expected = good.mean() if good.size else np.nan
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def boxes(spec):
    return [Box(name, name, stage, state, tuple(needs), 1.0) for name, stage, state, needs in spec]


def test_alike_boxes_are_merged_and_what_a_failure_stopped_stays_apart():
    graph = boxes(
        [(f"rate{n}", "detector1", "failed" if n == 0 else "done", ()) for n in range(6)]
        + [(f"cal{n}", "image2", "blocked" if n == 0 else "done", (f"rate{n}",)) for n in range(6)]
        + [("a", "image3", "blocked", ("cal0", "cal1")), ("b", "image3", "done", ("cal2", "cal3", "cal4", "cal5"))]
    )
    merged = merge_alike(graph)
    assert sorted(len(box.members) for box in merged) == [1, 1, 1, 1, 1, 1, 4, 4]
    assert sum(box.seconds for box in merged) == len(graph)
    names = {box.name for box in merged}
    assert all(set(box.needs) <= names for box in merged)


def test_every_box_and_every_link_of_the_graph_is_drawn():
    graph = boxes([("a", "s", "done", ()), ("b", "s", "done", ("a",)), ("c", "s", "failed", ("a", "b", "elsewhere"))])
    drawn = draw_graph(graph)
    assert drawn.count('<g class="node') == 3
    assert drawn.count('<g class="node failed"') == 1
    assert drawn.count("<path") == 3
    lefts = [float(x) for x in re.findall(r'<rect x="([\d.]+)"', drawn)]
    assert lefts == sorted(lefts)
    assert len(set(lefts)) == 3


def test_boxes_of_one_column_do_not_overlap():
    graph = boxes([(f"r{n}", "s", "done", ()) for n in range(9)] + [("m", "t", "done", [f"r{n}" for n in range(5)])])
    rects = re.findall(r'<rect x="([\d.]+)" y="([\d.-]+)" width="[\d.]+" height="(\d+)"', draw_graph(graph))
    column = sorted((float(y), float(high)) for x, y, high in rects if x == rects[0][0])
    assert len(column) == 9
    assert all(y + high <= below for (y, high), (below, _) in itertools.pairwise(column))


def test_the_time_line_has_as_many_rows_as_ran_at_once():
    bars = [Bar(f"b{n}", start, 10.0, 0, "done", "") for n, start in enumerate((0, 0, 10, 10, 15, 25))]
    assert "at most 3 at once" in draw_timeline(bars, 40.0)


def test_a_spectrum_is_in_the_unit_that_suits_it():
    wavelength = np.linspace(1, 2, 20)
    curve = Curve("x", wavelength, np.full(20, 3e-6), np.full(20, 1e-7), 0)
    assert "flux density [µJy]" in draw_spectrum([curve], [], "Jy", "t")
    assert "flux density [DN/s]" in draw_spectrum([curve], [], "DN/s", "t")


def test_a_spectrum_without_values_is_not_drawn():
    assert draw_spectrum([Curve("x", np.arange(1.0, 9), np.full(8, np.nan), None, 0)], [], "Jy", "t") == ""


def test_binning_a_spectrum_conserves_its_flux():
    fine = np.linspace(1.0, 3.0, 4001)
    flux = 1 + 50 * np.exp(-0.5 * ((fine - 2.0123) / 0.004) ** 2)
    grid = np.linspace(1.5, 2.5, 101)
    total = bin_onto(grid, fine, flux).sum() * 0.01
    inside = (fine >= 1.495) & (fine <= 2.505)
    np.testing.assert_allclose(total, np.trapezoid(flux[inside], fine[inside]), rtol=1e-3)


@given(sigma=st.floats(0.3, 5), line=st.integers(45, 55))
def test_blurring_conserves_a_line_and_gives_it_the_width_of_the_source(sigma, line):
    flux = np.zeros(101)
    flux[line] = 3
    blurred = blur(flux, sigma)
    np.testing.assert_allclose(blurred.sum(), 3, rtol=1e-6)
    if sigma > 1:
        width = np.sqrt((blurred * (np.arange(101) - line) ** 2).sum() / 3)
        np.testing.assert_allclose(width, sigma, rtol=0.01)


def test_blurring_leaves_gaps_and_a_flat_continuum_as_they_are():
    flux = np.full(50, 2.0)
    flux[[0, 20, 21]] = np.nan
    np.testing.assert_allclose(blur(flux, 2.5), flux)
    np.testing.assert_array_equal(blur(flux, np.nan), flux)


def test_binning_has_no_value_where_the_truth_has_none():
    binned = bin_onto(np.linspace(0.5, 2.5, 21), np.linspace(1.0, 2.0, 1001), np.ones(1001))
    assert np.isnan(binned[[0, -1]]).all()
    np.testing.assert_allclose(binned[8:12], 1)


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6), about=st.integers(2, 9))
def test_ticks_are_inside_and_evenly_spaced(low, width, about):
    ticks = nice_ticks(low, low + width, about)
    assert len(ticks) <= about + 1
    assert all(low - 1e-6 * width <= tick <= low + width + 1e-6 * width for tick in ticks)
    if len(ticks) > 2:
        np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0], rtol=1e-3)


def test_ticks_have_the_decimals_that_they_need_and_a_real_minus():
    assert [text for _, text in labelled_ticks(-1, 1, 4)] == ["−1.0", "−0.5", "0.0", "0.5", "1.0"]
