"""What Prefect's pages show of a run, as text: no server is needed."""

import base64
import logging
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from calibration import dq
from flows import artifacts
from flows.artifacts import final_state, follow, hide_credentials, show_products, show_summary, tags_of
from infra.products.figures import figures_of
from infra.products.fits import Contents
from infra.products.header import Header

EXPOSURE = "jw01234001002_02101_00003_nrcalong"


def row(name, stage="detector1", needs=(), state="done", error=None, seconds=2.0, products=()):
    return {
        "name": name, "stage": stage, "needs": needs, "state": state, "error": error, "seconds": seconds,
        "products": products,
    }  # fmt: skip


def record(*rows):
    return {
        "program": "01234",
        "seconds": 9.0,
        "context": "jwst_0001.pmap",
        "output": "s3://products/01234",
        "nodes": rows,
    }


def test_an_exposure_is_tagged_with_its_program_observation_instrument_and_stage():
    assert tags_of(f"{EXPOSURE}_rate", stage="detector1") == {
        "program:01234", "obs:001", "instrument:NIRCAM", f"exposure:{EXPOSURE}", "stage:detector1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("detector", "instrument"),
    [("nis", "NIRISS"), ("nrcb4", "NIRCAM"), ("nrs2", "NIRSPEC"), ("mirifulong", "MIRI"), ("guider1", "FGS")],
)
def test_an_instrument_is_known_by_its_detector(detector, instrument):
    assert f"instrument:{instrument}" in tags_of(f"jw01234001002_02101_00003-seg001_{detector}_cal")


def test_an_association_is_tagged_with_what_its_members_are():
    found = tags_of("jw01234-c1001_image3_00001_asn", [f"{EXPOSURE}_cal.fits"], "image3")
    assert found == {"program:01234", "candidate:c1001", "obs:001", "instrument:NIRCAM", "stage:image3"}
    assert tags_of("jw01234-o007_spec3_00001") == {"program:01234", "obs:007"}


def test_a_name_of_another_kind_has_no_tags():
    assert tags_of("notes_rate") == set()


def test_without_a_server_nothing_is_shown_and_nothing_happens(without_server, tmp_path):
    follow([row("a")])(row("a"))
    show_summary(record(row("a")))
    show_products("a", "detector1", ["no such file.fits"], str(tmp_path))
    failed = record(row("a", state="failed", error="no"))
    assert final_state(failed) is failed


def test_what_goes_wrong_with_a_page_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING), artifacts._never_fails("the graph"):
        raise ConnectionError("s3://user:wJalrXUtnFEMI@host did not answer")
    assert "Prefect's pages do not show the graph" in caplog.text
    assert "wJalrXUtnFEMI" not in caplog.text


def test_a_summary_tells_what_failed_and_what_to_do():
    bad = row("jw01234001001_02101_00001_nis_rate", state="failed", error="x.fits: it is cut short; fetch it | again")
    after = row("jw01234-o001_image3_00001", "image3", (bad["name"],), "blocked", "needs it", seconds=0.0)
    text = artifacts._summary(record(bad, after))
    assert text.startswith("# 1 failed, 1 not made because of it")
    assert "it is cut short; fetch it \\| again" in text, "a bar would end the cell of the table"
    assert artifacts._summary(record(row("a"))).startswith("# All is well")


def test_credentials_are_hidden(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    bad = row("a", state="failed", error="cannot read s3://key:pass@host/a with wJalrXUtnFEMI/K7MDENG")
    text = hide_credentials(artifacts._summary(record(bad)))
    assert "wJalrXUtnFEMI" not in text
    assert "pass@" not in text


def drawing(text):
    """The SVG inside the markdown of a graph."""
    head, _, rest = text.partition("base64,")
    assert head.endswith("(data:image/svg+xml;")
    return ElementTree.fromstring(base64.b64decode(rest.split(")")[0]))


def test_the_graph_stands_by_itself_as_a_picture():
    nodes = [row(f"{EXPOSURE}_rate"), row("jw01234-o001_image2_00001", "image2", (f"{EXPOSURE}_rate",), "failed")]
    root = drawing(artifacts._graph({node["name"]: node for node in nodes}))
    assert float(root.get("width")) > 100
    assert root.find("{*}style").text, "no page lends it colours"
    words = " ".join(root.itertext())
    assert "o001_image2_00001" in words
    assert "failed" in words


def test_a_large_graph_shows_groups_and_a_vast_one_is_small():
    rates = [row(f"jw01234001001_02101_{n:05d}_nis_rate") for n in range(400)]
    images = [row(f"jw01234-o001_image2_{n:05d}", "image2", (rates[n]["name"],)) for n in range(400)]
    text = artifacts._graph({node["name"]: node for node in rates + images})
    assert "400 × detector1" in " ".join(drawing(text).itertext())
    # Alike in nothing: a table of states in place of a drawing.
    chain = [row(f"n{n}", f"stage{n}", (f"n{n - 1}",) if n else ()) for n in range(300)]
    assert artifacts._graph({node["name"]: node for node in chain}).startswith("| stage | state | products |")


def test_a_plan_says_what_is_made_why_and_what_it_costs():
    plan = [
        {"name": "a", "stage": "spec2", "reasons": ["input changed: b", "new"], "cpu_seconds": 61.0, "memory": 2.5e9}
    ]
    text = artifacts._plan(plan, 3)
    assert text.startswith("1 to make, 2 up to date")
    assert "| a | spec2 | input changed: b; new |" in text
    assert "2.5 GB" in text


def image(data, flags, **cards):
    """A product in memory."""
    header = Header({"BUNIT": "DN/s", **cards})
    return Contents("x", header, {("SCI", 1): data, ("DQ", 1): flags}, {("SCI", 1): None, ("DQ", 1): None}, None)


def test_figures_are_those_of_the_good_pixels():
    rng = np.random.default_rng(5)
    data = rng.normal(3.0, 0.5, (200, 200)).astype(np.float32)
    flags = np.zeros((200, 200), np.uint32)
    flags[:20] = dq.PIXEL["DO_NOT_USE"]
    data[:20] = 1e6
    flags[50, :100] |= dq.PIXEL["JUMP_DET"]
    found = figures_of(image(data, flags, FILTER="CLEAR", EFFEXPTM=85.9), "rate")
    assert found["unusable"] == "10.00 %"
    assert found["hit by cosmic rays"] == "0.25 %"
    assert found["saturated"] == "0.00 %"
    assert float(found["background"].split()[0]) == pytest.approx(3.0, abs=0.02)
    assert float(found["noise"].split()[0]) == pytest.approx(0.5, abs=0.02)
    assert found["exposure time"] == "86 s"


def test_a_product_without_a_good_pixel_says_so():
    found = figures_of(image(np.full((4, 4), np.nan, np.float32), np.zeros((4, 4), np.uint32)), "cal")
    assert found["background"] == "no pixel has a value"


def test_sources_of_a_segmentation_map_are_counted_not_numbered():
    labels = np.zeros((8, 8), np.int32)
    labels[1, 1], labels[5, 5] = 3, 9
    assert figures_of(image(labels, np.zeros((8, 8), np.uint32)), "segm")["sources"] == "2"
