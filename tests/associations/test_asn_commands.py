import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from tiny_pools import direct, exposure, grism, pool_text

from associations.association import AssociationError, read_association
from associations.pool import PoolError, read_pool
from flows.asn import app
from infra.storage.store import StorageError, listing, read_text
from tasks.options import OptionError

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*words: str | Path) -> int:
    return app([str(word) for word in words], result_action="return_value", exit_on_error=False)


@pytest.fixture
def pool(tmp_path) -> Path:
    path = tmp_path / "a_pool.csv"
    slitless = [direct(1, 1, expspcin="1"), grism(1, 2, expspcin="2"), direct(1, 3, expspcin="3")]
    rows = [*slitless, direct(2, 1), exposure(2, 9, exp_type="nis_dark")]
    path.write_text(pool_text(*rows))
    return path


def write_exposure(path: Path, **cards) -> Path:
    """A raw exposure, as far as a pool needs it: its primary header and a SCI extension."""
    base = {
        "TELESCOP": "JWST", "PROGRAM": "01571", "OBSERVTN": "001", "EXP_TYPE": "NIS_IMAGE", "INSTRUME": "NIRISS",
        "DETECTOR": "NIS", "FILTER": "CLEAR", "PUPIL": "F200W", "SUBARRAY": "FULL", "TARGNAME": "M 31", "VISITGRP": "02",
        "SEQ_ID": "1", "ACT_ID": "01", "TSOVISIT": False, "VISITYPE": "PRIME_TARGETED_FIXED",
    }  # fmt: skip
    header = fits.Header({**base, **cards})
    fits.HDUList([fits.PrimaryHDU(header=header), fits.ImageHDU(np.zeros((2, 2), np.uint16), name="SCI")]).writeto(path)
    return path


def test_generate_writes_each_association_into_its_file(pool, tmp_path, capsys):
    assert run("generate", pool, "-o", tmp_path / "out", "--save-orphans") == 0
    printed = capsys.readouterr().out.split()
    written = sorted(path for path in (tmp_path / "out").glob("*_asn.json"))
    assert [Path(line) for line in sorted(printed)] == written
    assert len(written) == 8
    assert all(read_association(path.read_text(), path.name).code_version for path in written)
    orphans = read_pool((tmp_path / "out" / "orphaned.csv").read_text(), "orphaned.csv")
    assert [row["exp_type"] for row in orphans.rows] == ["nis_dark"]


def test_generate_writes_to_a_store(pool):
    assert run("generate", pool, "-o", "memory://asn-commands/out", "-i", "o002") == 0
    assert len(listing("memory://asn-commands/out", "*_asn.json")) == 2


def test_a_dry_run_writes_nothing(pool, tmp_path, capsys):
    assert (
        run("generate", pool, "-o", tmp_path / "out", "--dry-run", "--version-id", "v1", "--merge", "--level", "2") == 0
    )
    assert "jw01571-o001_v1_image2_00001_asn.json" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [("--discover", "--all-candidates"), ("-i", "o001", "--discover"), ("--DMS",), ("--version-id", "../x")],
)
def test_options_that_exclude_each_other_are_wrong_usage(pool, tmp_path, words):
    with pytest.raises(OptionError):
        run("generate", pool, "-o", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_a_broken_pool_leaves_nothing_behind(pool, tmp_path):
    pool.write_bytes(pool.read_bytes() + b"\xff\xfe\n")
    with pytest.raises(PoolError, match="UTF-8"):
        run("generate", pool, "-o", tmp_path / "out")
    with pytest.raises(StorageError):
        run("generate", tmp_path / "none.csv", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_ends_with_one_line_and_its_exit_code(pool, tmp_path):
    def code(*words: str | Path) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", "from flows.cli import main; main()", "asn", *words],
            cwd=REPOSITORY, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    missing, message = code("generate", tmp_path / "none.csv")
    assert missing == 1
    assert message.startswith("error: ")
    assert len(message.splitlines()) == 1
    assert code("generate", pool, "--discover", "--all-candidates")[0] == 2


def test_a_pool_is_made_of_headers_and_grows(tmp_path):
    first = write_exposure(tmp_path / "jw01571001001_02101_00001_nis_uncal.fits")
    assert run("pool", first, "-o", tmp_path / "p.csv") == 0
    write_exposure(tmp_path / "jw01571001001_02102_00001_nis_uncal.fits", ACT_ID="02", TARGNAME="M 33")
    assert run("pool", tmp_path, "-o", tmp_path / "p.csv", "--candidate", "c1001:mosaic", "--set", "dms_note=x") == 0
    rows = read_pool((tmp_path / "p.csv").read_text(), "p.csv").rows
    assert [(row["targetid"], row["dms_note"], row["asn_candidate"]) for row in rows] == [
        ("1", None, "[('o001', 'observation')]"),
        ("2", "x", "[('o001', 'observation'), ('c1001', 'mosaic')]"),
    ]
    assert run("generate", tmp_path / "p.csv", "-o", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*_asn.json"))) == 4


def test_a_pool_of_a_store_is_that_of_the_local_files(tmp_path):
    from infra.storage.store import publish

    path = write_exposure(tmp_path / "jw01571001001_02101_00001_nis_uncal.fits")
    publish(path, "memory://asn-commands/raw/" + path.name)
    assert run("pool", path, "-o", tmp_path / "local.csv") == 0
    assert run("pool", "memory://asn-commands/raw", "-o", "memory://asn-commands/p.csv") == 0
    assert read_text("memory://asn-commands/p.csv") == (tmp_path / "local.csv").read_text()


def test_real_headers_make_a_pool_and_a_real_association_is_read(shared, tmp_path, capsys):
    assert run("pool", *sorted((shared / "real" / "headers").glob("jw01075*")), "-o", tmp_path / "p.csv") == 0
    rows = read_pool((tmp_path / "p.csv").read_text(), "p.csv").rows
    assert {(row["exp_type"], row["pupil"], row["is_psf"], row["patt_num"]) for row in rows} == {
        ("nrc_coron", "maskrnd", "t", "9")
    }
    assert run("generate", tmp_path / "p.csv", "-o", tmp_path / "out") == 0
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == [f"jw01075-o001_image2_0000{n}_asn.json" for n in (1, 2, 3, 4)]
    assert run("show", shared / "real" / "asn") == 0
    assert "jw01386022001_04101_00001_mirimage_calints.fits science" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("--candidate", "c1001"), ("--set", "wizard=1"), ("--set", "is_psf")])
def test_a_pool_refuses_what_it_does_not_know(tmp_path, words):
    with pytest.raises(OptionError):
        run("pool", tmp_path, "-o", tmp_path / "p.csv", *words)


def test_a_list_becomes_an_association_beside_its_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        run("from-list", "a_cal.fits", "night/b_cal.fits", "-o", "l3_asn.json", "--product", "all", "--type", "image3")
        == 0
    )
    tree = json.loads(Path("l3_asn.json").read_text())
    assert [member["expname"] for member in tree["products"][0]["members"]] == ["a_cal.fits", "night/b_cal.fits"]
    with pytest.raises(AssociationError, match="expected a file in"):
        run("from-list", "../b_cal.fits", "-o", "other_asn.json", "--product", "all")
    assert not Path("other_asn.json").exists()


def test_gather_copies_the_members_and_then_the_association(tmp_path):
    asn = tmp_path / "l3_asn.json"
    (tmp_path / "night").mkdir()
    (tmp_path / "a_cal.fits").write_text("a")
    (tmp_path / "night" / "b_cal.fits").write_text("b")
    files = [tmp_path / "a_cal.fits", tmp_path / "night" / "b_cal.fits"]
    assert run("from-list", *files, "-o", asn, "--product", "all") == 0
    assert run("gather", asn, tmp_path / "there") == 0
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["a_cal.fits", "b_cal.fits", "l3_asn.json"]
    gathered = read_association((tmp_path / "there" / "l3_asn.json").read_text(), "l3_asn.json")
    assert [member.expname for member in gathered.members] == ["a_cal.fits", "b_cal.fits"]


def test_gather_copies_nothing_if_a_member_is_missing(tmp_path):
    asn = tmp_path / "l3_asn.json"
    (tmp_path / "a_cal.fits").write_text("a")
    run("from-list", tmp_path / "a_cal.fits", tmp_path / "b_cal.fits", "-o", asn, "--product", "all")
    with pytest.raises(AssociationError, match="1 of 2 members are not in"):
        run("gather", asn, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_edit_adds_and_removes_in_place(tmp_path):
    asn = tmp_path / "l3_asn.json"
    run("from-list", tmp_path / "a_cal.fits", "-o", asn, "--product", "all")
    assert run("edit", asn, "b_cal.fits", "--add", "-t", "background") == 0
    assert [m.key for m in read_association(asn.read_text(), asn.name).members][1] == ("b_cal.fits", "background")
    assert run("edit", asn, "b_rate.fits", "--remove", "-i") == 0
    before = asn.read_text()
    with pytest.raises(AssociationError):
        run("edit", asn, "a_cal.fits", "--remove")
    with pytest.raises(OptionError):
        run("edit", asn, "a_cal.fits")
    assert asn.read_text() == before
    assert [m.expname for m in read_association(before, asn.name).members] == ["a_cal.fits"]


def test_explain_prints_every_rule_and_the_condition_that_failed(pool, capsys):
    assert run("explain", "jw01571001001_02101_00002_nis_rate.fits", "--pool", pool) == 0
    printed = capsys.readouterr().out
    assert "Lv2WFSSNIS             jw01571-o001_spec2_00001_asn.json: science" in printed
    assert "Lv3Image               fails: exp_type is one of" in printed
    assert "here exp_type = nis_wfss" in printed
    assert run("explain", "jw01571002001_02101_00009_nis", "--pool", pool) == 0
    assert "in no association" in capsys.readouterr().out


def test_diff_says_what_changed_and_ends_with_1(pool, tmp_path, capsys):
    run("generate", pool, "-o", tmp_path / "out")
    capsys.readouterr()
    assert run("diff", tmp_path / "out", pool) == 0
    assert capsys.readouterr().out == ""
    run("edit", tmp_path / "out" / "jw01571-o001_image3_00001_asn.json", "x_cal.fits", "--add")
    (tmp_path / "out" / "jw01571-o002_image2_00001_asn.json").unlink()
    capsys.readouterr()
    assert run("diff", pool, tmp_path / "out") == 1
    assert capsys.readouterr().out.splitlines() == [
        "- image2 jw01571002001_02101_00001_nis",
        "~ image3 jw01571-o001_t001_niriss_clear-f200w",
        "    + x_cal.fits (science)",
    ]


def test_show_prints_a_tree_and_draws_it(pool, tmp_path, capsys):
    assert run("show", pool, "--picture", tmp_path / "p.png") == 0
    printed = capsys.readouterr().out
    assert "jw01571001001_02101_00002_nis_rate.fits science" in printed
    assert "jw01571-o001_t001_niriss_clear-f200w_segm.fits segmap" in printed
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OptionError, match="--picture"):
        run("show", pool, "--picture", tmp_path / "p.doc")


def test_names_with_brackets_are_shown_as_they_are(tmp_path, capsys):
    tree = {
        "products": [{"name": "x[red]_{source_id}", "members": [{"expname": "[a]_cal.fits", "exptype": "science"}]}]
    }
    (tmp_path / "a_asn.json").write_text(json.dumps(tree))
    assert run("show", tmp_path) == 0
    assert "x[red]_{source_id}" in (printed := capsys.readouterr().out)
    assert "[a]_cal.fits science" in printed
