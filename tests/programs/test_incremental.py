"""A run makes what is stale and nothing else, and what it leaves is what a clean run would have made, byte for byte."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from small_program import FROM_IMAGES, IMAGE2, IMAGE3, RATES, SPEC2, SPEC3, made, states, tree

from flows import plan
from flows.graph import gather
from flows.program import calibrate, make_plan
from infra.products.fits import read_fits
from infra.provenance import code_of


def assert_as_clean(program, tmp_path, overrides=None):
    program.run(overrides, out=tmp_path / "clean")
    assert tree(program.products) == tree(tmp_path / "clean")


def scale(path, factor):
    """Change the values of a file, not its size."""
    with fits.open(path, mode="update") as hdulist:
        hdulist["SCI"].data = (hdulist["SCI"].data * factor).astype(hdulist["SCI"].data.dtype)


def test_a_run_after_a_run_makes_nothing_and_still_reports_all(program, calibrated):
    run = program.run()
    assert set(states(run).values()) == {"current"}, "a copy of the tree is as good as the tree"
    assert {name for node in run["nodes"] for name in node["products"]} == {
        path.name for path in calibrated.products.glob("jw*") if not path.name.endswith(".json")
    }
    assert tree(program.products) == tree(calibrated.products)
    assert "jw09801-o001" in (program.products / "report.html").read_text()


def test_touched_files_change_nothing_and_are_read_once(program, monkeypatch):
    for path in (program.uncal(RATES["first"]), *program.products.glob("*_rate.fits"), *program.crds.rglob("*_flat_*")):
        os.utime(path, (1, 1))
    assert made(program.run()) == set()
    monkeypatch.setattr(plan, "sha256_of", lambda path: pytest.fail(f"{path} was read again"))
    assert made(program.run()) == set()


def test_one_exposure_remakes_its_branch(program, tmp_path):
    scale(program.uncal(RATES["GR150R"]), 1.01)
    assert made(program.run()) == {RATES["GR150R"], SPEC2["GR150R"], SPEC3["GR150R"]}
    assert_as_clean(program, tmp_path)


def test_one_reference_remakes_what_read_it_and_what_follows(program, tmp_path):
    darks = {fits.getheader(path)["R_DARK"] for path in program.products.glob("*_02103_*_rate.fits")}
    (name,) = {dark.removeprefix("crds://") for dark in darks}
    scale(next(program.crds.rglob(name)), 1.01)
    run = program.run()
    assert made(run) == FROM_IMAGES
    reasons = {node["name"]: node["reasons"] for node in run["nodes"]}
    assert reasons[RATES["first"]] == [f"reference changed: dark: content of {name}"]
    assert reasons[IMAGE2["first"]] == [f"upstream remade: {RATES['first']}"]
    assert_as_clean(program, tmp_path)


def test_one_option_remakes_what_has_the_step_and_what_follows(program, tmp_path):
    overrides = {"source_catalog": {"snr_threshold": 5.0}}
    run = program.run(overrides)
    assert made(run) == {IMAGE3, *SPEC2.values(), *SPEC3.values()}
    reasons = {node["name"]: node["reasons"] for node in run["nodes"]}
    assert reasons[IMAGE3] == ["option changed: source_catalog.snr_threshold 3.0 -> 5.0"]
    assert_as_clean(program, tmp_path, overrides)
    assert made(program.run()) == {IMAGE3, *SPEC2.values(), *SPEC3.values()}, "and back"


def test_an_option_of_a_step_that_is_off_changes_nothing(program):
    assert made(program.run({"persistence": {"persistence_time": 50}})) == set()


def test_a_step_that_is_switched_off_takes_its_product_along(program, tmp_path):
    overrides = {"combine_1d": {"skip": True}}
    assert made(program.run(overrides)) == set(SPEC3.values())
    assert not list(program.products.glob("*_c1d.fits"))
    assert_as_clean(program, tmp_path, overrides)


def test_edited_code_remakes_the_stage_that_reaches_it(program, monkeypatch):
    edited = {"flows.spec2": {**code_of("flows.spec2"), "sources": "edited"}}
    monkeypatch.setattr(plan, "code_of", lambda module: edited.get(module) or code_of(module))
    assert made(program.run()) == {*SPEC2.values(), *SPEC3.values()}


def test_the_code_behind_the_ramps_is_not_that_of_the_spectra():
    from infra.provenance import import_closure

    ramps, spectra = import_closure("flows.detector1"), import_closure("flows.spec2")
    assert "calibration.ramps.jump" in ramps - spectra
    assert "calibration.spectra.extract_1d" in spectra - ramps
    assert {"infra.products.fits", "calibration.dq"} <= ramps & spectra


@pytest.mark.parametrize("change", ["deleted", "cut short", "other bytes"])
def test_a_product_that_is_gone_or_damaged_is_made_again_and_nothing_after_it(program, calibrated, change):
    path = program.products / f"{RATES['second']}.fits"
    content = path.read_bytes()
    if change == "deleted":
        path.unlink()
    else:
        path.write_bytes(content[:-2880] if change == "cut short" else content[:-2880] + bytes(2880))
    run = program.run()
    assert made(run) == {RATES["second"]}
    (node,) = (node for node in run["nodes"] if node["state"] == "done")
    assert node["reasons"][0].startswith("missing" if change == "deleted" else "changed on disk")
    assert tree(program.products) == tree(calibrated.products)


def test_a_product_that_changed_behind_the_clock_is_found_by_reading(program):
    path = program.products / f"{RATES['second']}.fits"
    assert made(program.run()) == set()
    status = path.stat()
    content = path.read_bytes()
    with path.open("rb+") as file:  # the same file, size and time
        file.write(content[:-2880] + bytes(2880))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert made(program.run()) == set()
    assert made(program.run(verify=True)) == {RATES["second"]}


def test_a_lost_record_is_made_again_with_the_same_products(program, calibrated):
    (program.products / ".calweave" / f"{IMAGE3}.json").unlink()
    assert made(program.run()) == {IMAGE3}, "what follows is current: its inputs have the fingerprints that they had"
    assert tree(program.products) == tree(calibrated.products)


def test_a_record_that_is_no_record_is_as_good_as_none(program, calibrated):
    (program.products / ".calweave" / f"{IMAGE3}.json").write_text('{"format": 1, "products": 7}')
    assert made(program.run()) == {IMAGE3}
    assert tree(program.products) == tree(calibrated.products)


def test_an_exposure_that_is_withdrawn_is_reported_and_its_products_stay(program, caplog):
    program.uncal(RATES["second"]).unlink()
    pool = next(program.folder.glob("*_pool.csv"))
    lines = pool.read_text().splitlines(keepends=True)
    pool.write_text("".join(line for line in lines if "02103_00002" not in line))
    run = program.run()
    orphans = run["plan"]["orphans"]
    assert f"{RATES['second']}.fits" in orphans[RATES["second"]]
    assert (program.products / f"{RATES['second']}.fits").exists()
    reasons = {node["name"]: node["reasons"] for node in run["nodes"]}
    assert any("02103_00002" in reason for reason in reasons[IMAGE3]), reasons[IMAGE3]
    assert RATES["first"] not in made(run)


def test_every_product_tells_its_fingerprint_inputs_and_code(program):
    for path in program.products.glob("*.fits"):
        origin = read_fits(path).made_of
        records = [json.loads(text.read_text()) for text in (program.products / ".calweave").glob("*.json")]
        (record,) = (record for record in records if path.name in record["products"])
        assert origin["fingerprint"] == record["fingerprint"]
        assert origin["inputs"] == record["recipe"]["inputs"]
        assert origin["code"] == record["recipe"]["code"]["sources"]


def test_the_plan_knows_the_reference_files_that_the_steps_read(program):
    for text in (program.products / ".calweave").glob("*.json"):
        record = json.loads(text.read_text())
        planned = {
            tuple(named)
            for part in record["recipe"]["settings"].values()
            for named in part["references"].values()
            if named
        }
        for name in record["products"]:
            if name.endswith(".fits") and record["stage"] in ("detector1", "image2"):
                steps = read_fits(program.products / name).recipe
                mine = record["recipe"]["settings"][next(iter(record["recipe"]["settings"]))]["options"]
                read = {
                    pair
                    for step, entry in steps.items()
                    if step in mine
                    for pair in entry.get("references", {}).items()
                }
                assert read
                assert read <= planned


def test_a_plan_writes_nothing_and_says_what_the_run_then_does(program):
    scale(program.uncal(RATES["GR150C"]), 1.01)
    before = {path: path.stat().st_mtime_ns for path in program.products.rglob("*")}
    page = make_plan([str(program.folder)], str(program.products), {}, 2)
    assert {path: path.stat().st_mtime_ns for path in program.products.rglob("*")} == before
    planned = {node["name"] for node in page["nodes"] if not node["current"]}
    assert planned == {RATES["GR150C"], SPEC2["GR150C"], SPEC3["GR150C"]}
    assert made(program.run()) == planned
    of_one = make_plan([str(program.folder)], str(program.products), {}, 2, product=f"{RATES['first']}.fits")
    assert [node["name"] for node in of_one["nodes"]] == [RATES["first"]]


def test_estimates_come_from_the_records(program):
    page = make_plan([str(program.folder)], str(program.products), {"gain_scale": {"skip": True}}, 2)
    costs = {node["name"]: node for node in page["nodes"]}
    mine = np.array([costs[name]["cpu_seconds"] for name in RATES.values()])
    assert (mine > 0).all()
    assert page["bytes_out"] == pytest.approx(
        sum(path.stat().st_size for path in program.products.glob("jw*") if ".json" not in path.name), rel=0.5
    )


def test_a_file_that_an_option_names_is_an_input(program, tmp_path):
    mask = tmp_path / "mask.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((192, 192), np.uint8), name="SCI")]).writeto(mask)
    overrides = {"clean_flicker_noise": {"skip": False, "user_mask": str(mask)}}
    planned = make_plan([str(program.folder)], str(program.products), overrides, 2, product=f"{RATES['first']}.fits")
    assert planned["to_make"] == 1
    one = [str(program.uncal(RATES["first"]))]
    calibrate(one, str(tmp_path / "one"), overrides)
    assert make_plan(one, str(tmp_path / "one"), overrides, 1)["to_make"] == 0
    os.utime(mask, (1, 1))
    assert make_plan(one, str(tmp_path / "one"), overrides, 1)["to_make"] == 0
    scale(mask, 0)
    plan_of_one = make_plan(one, str(tmp_path / "one"), overrides, 1)
    assert plan_of_one["nodes"][0]["reasons"] == ["input changed: the file of clean_flicker_noise.user_mask"]


def test_exposures_and_products_may_share_a_folder(program):
    folder = str(program.folder)
    first = gather([folder], folder)[1]
    assert len(first) == 7
    assert gather([folder], folder)[1] == first, "what a run generated is generated anew, not taken as given"
    program.uncal(RATES["second"]).unlink()
    next(program.folder.glob("*_pool.csv")).unlink()
    assert len(gather([folder], folder, write=False)[1]) == 6
    (edited,) = (Path(url) for url in first if "image3" in url)
    edited.write_text(edited.read_text().replace("_cal.fits", "_mine_cal.fits"))
    assert list(gather([folder], folder, write=False)[1]) == [str(edited)], "an edited one is somebody's"
