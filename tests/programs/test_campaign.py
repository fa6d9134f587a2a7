"""Campaigns over many programs, and what a new context of reference files changes."""

import json
import re
import shutil

import pytest
from astropy.io import fits
from small_program import RATES, SPEC2, SPEC3, SmallProgram, tree

from flows.campaign import ProgramsFailed, campaign, find_programs, last_context, new_context
from infra.products.header import ProductError
from infra.synthetic.crds_cache import CONTEXT, add_context


def new_reference(program: SmallProgram, keyword: str, product: str, factor: float | None) -> str:
    """Put a new version of the file that ``product`` was made with into the cache, and a context that chooses it."""
    old = fits.getheader(program.products / f"{product}.fits")[keyword].removeprefix("crds://")
    new = re.sub(r"_\d+\.fits$", "_0777.fits", old)
    folder = next(program.crds.rglob(old)).parent
    shutil.copyfile(folder / old, folder / new)
    if factor is not None:
        with fits.open(folder / new, mode="update") as hdulist:
            hdulist["SCI"].data = (hdulist["SCI"].data * factor).astype(hdulist["SCI"].data.dtype)
    return add_context(program.crds, {old: new})


def test_a_context_that_was_looked_at_runs_nothing(program, monkeypatch):
    monkeypatch.setattr("flows.campaign.record_of", None)  # a run would fail
    before = tree(program.products)
    for _ in range(2):
        (row,) = new_context(str(program.folder), str(program.products))["programs"]
        assert (row["state"], row["made"]) == ("current", ())
    assert tree(program.products) == before


def test_a_new_context_that_changes_one_reference_remakes_exactly_what_read_it_and_what_follows(program, tmp_path):
    before = tree(program.products)
    dark = RATES["GR150R"]  # grisms and images have darks of their own, and the two grisms the same
    context = new_reference(program, "R_DARK", dark, 1.02)
    assert context == "jwst_0002.pmap"
    (row,) = new_context(str(program.folder), str(program.products))["programs"]
    affected = {RATES["GR150R"], RATES["GR150C"], *SPEC2.values(), *SPEC3.values()}
    assert (row["state"], set(row["made"])) == ("done", affected)
    assert last_context(str(program.products)) == context
    after = tree(program.products)
    record = json.loads((program.products / "run.json").read_text())
    remade = {name for node in record["nodes"] if node["name"] in affected for name in node["products"]}
    assert {name for name in before if before[name] != after[name]} - {f"{name}.json" for name in affected} == remade
    program.run(out=tmp_path / "clean")
    clean = tree(tmp_path / "clean")
    assert {name: after[name] for name in remade} == {name: clean[name] for name in remade}
    (row,) = new_context(str(program.folder), str(program.products))["programs"]
    assert row["state"] == "current"


def test_a_new_context_without_a_change_for_the_program_runs_nothing(program, monkeypatch):
    monkeypatch.setattr("flows.campaign.record_of", None)
    context = new_reference(program, "R_DARK", RATES["GR150R"], None)
    old_rules = program.crds / "mappings" / "jwst" / context
    # A context of a new number whose rules are those of the first.
    old_rules.write_text((program.crds / "mappings" / "jwst" / CONTEXT).read_text().replace(CONTEXT, context))
    (row,) = new_context(str(program.folder), str(program.products))["programs"]
    assert row["state"] == "current"
    assert row["detail"] == f"{CONTEXT} to {context} changes none of its reference files"
    assert last_context(str(program.products)) == context, "and it is not looked at again"


def test_a_program_that_was_never_made_is_left_to_the_campaign(program, tmp_path, monkeypatch):
    monkeypatch.setattr("flows.campaign.record_of", None)
    (row,) = new_context(str(program.folder), str(tmp_path / "elsewhere"))["programs"]
    assert row["state"] == "new"


def test_one_bad_program_does_not_stop_the_others(program, tmp_path):
    programs, output = tmp_path / "programs", tmp_path / "output"
    exposure = program.uncal(RATES["first"])
    for name in ("a_good", "b_bad", "c_good", "d_wrong"):
        (programs / name).mkdir(parents=True)
        shutil.copyfile(exposure, programs / name / exposure.name)
    (programs / "b_bad" / exposure.name).write_bytes(exposure.read_bytes()[:30_000])
    (programs / "d_wrong" / "x_asn.json").write_text("{")
    (programs / "notes").mkdir()
    options = {"overrides": {"jump": {"skip": True}}, "at_once": 2}
    with pytest.raises(ProgramsFailed, match=r"2 of 4 programs failed: b_bad: .*_uncal.fits.*; d_wrong: .*x_asn.json"):
        campaign(f"{programs}/*", str(output), **options)
    for name in ("a_good", "c_good"):
        assert (output / name / f"{RATES['first']}.fits").is_file()
    # Put right, the second campaign makes only those.
    shutil.copyfile(exposure, programs / "b_bad" / exposure.name)
    (programs / "d_wrong" / "x_asn.json").unlink()
    states = {row["name"]: row["state"] for row in campaign(f"{programs}/*", str(output), **options)["programs"]}
    assert states == {"a_good": "current", "b_bad": "done", "c_good": "current", "d_wrong": "done"}


def test_a_folder_without_programs_is_an_error(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read.me").write_text("none")
    with pytest.raises(ProductError, match="there is none; check the folder"):
        find_programs(f"{tmp_path}/*", "out")
