"""Nothing that an association or a pool says makes a command read or write outside the folders that it was given."""

import json
import os
import shutil
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from associations.pool import COLUMNS
from flows import cli
from infra.storage import store
from infra.storage.lock import locked
from infra.storage.store import StorageError, join, write_text

SECRET = "jw09801001001_02103_00001_nis_rate.fits"

_touched: list[str] | None = None


def _note(event: str, words: tuple) -> None:
    """What Python tells of files before it touches them; it cannot be told to stop telling."""
    if _touched is not None and event.split(".")[0] in ("open", "os", "shutil", "pathlib", "glob"):
        _touched.extend(os.fsdecode(word) for word in words if isinstance(word, str | bytes | os.PathLike))


sys.addaudithook(_note)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """``in`` with an association or pool, ``out`` for products, and ``outside``, which nobody may touch."""
    base = tmp_path_factory.mktemp("roots")
    (base / "outside" / "deep").mkdir(parents=True)
    for name in (SECRET, "a_pool.csv", "deep/a_cal.fits", SECRET.replace("_rate", "_uncal")):
        (base / "outside" / name).write_bytes(b"SIMPLE  =                    T")
    (base / "in").mkdir()
    os.environ["CRDS_PATH"] = str(base / "crds")
    yield base
    del os.environ["CRDS_PATH"]


def names(base="{outside}"):
    """Names of files that lead out, or look so, in all the ways that are known to us."""
    ways = [
        "../outside/NAME", "./../outside/NAME", "../outside/deep/../NAME", f"{base}/NAME", "..//outside/NAME",
        "../in/../outside/NAME", "deep/../../outside/NAME", "..\\outside\\NAME",
        f"file://{base}/NAME", f"local://{base}/NAME", f"simplecache::file://{base}/NAME", f"//{base}/NAME",
        "~/NAME", "$HOME/NAME", "%2e%2e/outside/NAME", "..%2foutside%2fNAME", "../outside/NAME\0.fits",
        "../outside\n/NAME", "in/../../outside/NAME", "．．/outside/NAME", "s3://bucket/NAME", "memory://x/NAME", "..", ".", "",
        " ", "NAME/", "-rf", "*", "a\tb", "\x7f", "\ud800", "a" * 300, "NAME;ls", "`ls`", "../outside",
    ]  # fmt: skip
    stems = [SECRET, SECRET.removesuffix("_rate.fits"), SECRET.replace("_rate", "_uncal"), "deep/a_cal.fits", "a"]
    known = st.sampled_from(ways[:6]).map(lambda way: way.replace("NAME", SECRET))
    alike = st.builds(lambda way, stem: way.replace("NAME", stem), st.sampled_from(ways), st.sampled_from(stems))
    return known | alike | st.text(st.sampled_from("./\\:~$% \0\nab_"), min_size=1, max_size=25)


def run(place, *words):
    """Run a command in this process; what it touched, and how it ended."""
    global _touched
    _touched = []
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
    finally:
        touched, _touched = _touched, None
    return touched, ended.value.code


def refuse_to_leave(place, touched):
    outside = os.path.realpath(place / "outside")
    led = [path for path in touched if outside in path or outside in os.path.realpath(path.split("\0")[0])]
    assert led == []
    assert sorted(path.name for path in (place / "outside").rglob("*.*")) == sorted(
        [SECRET, "a_pool.csv", "a_cal.fits", SECRET.replace("_rate", "_uncal")]
    )
    assert {path.name for path in place.iterdir()} <= {"in", "out", "outside"}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_an_association_leads_nowhere_else(place, data):
    evil = names(str(place / "outside"))
    products = [
        {
            "name": data.draw(st.just("a") | evil),
            "members": [{"expname": data.draw(evil), "exptype": data.draw(st.sampled_from(["science", "background"]))}],
        }
        for _ in range(data.draw(st.integers(1, 2)))
    ]
    tree = {
        "asn_type": data.draw(st.sampled_from(["image2", "spec2", "image3"]) | evil),
        "asn_id": data.draw(st.just("o001") | evil),
        "asn_pool": data.draw(st.just("pool") | evil),
        "products": products,
    }
    asn = place / "in" / "jw09801-o001_image2_00001_asn.json"
    asn.write_text(json.dumps(tree))
    for words in (("stage", "image2", asn), ("run", asn, "--workers", 1)):
        shutil.rmtree(place / "out", ignore_errors=True)
        touched, code = run(place, *words, "--out", place / "out")
        assert code == 1, "none of them can be calibrated"
        refuse_to_leave(place, touched)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_a_pool_leads_nowhere_else(place, data):
    evil = names(str(place / "outside"))
    row = {name: "NULL" for name in COLUMNS} | {
        "filename": SECRET, "program": "09801", "obs_num": "1", "visit": "1", "visit_grp": "2", "visit_id": "09801001001",
        "instrume": "NIRISS", "detector": "NIS", "exp_type": "NIS_IMAGE", "filter": "CLEAR", "pupil": "F200W", "targetid": "1",
        "asn_candidate": "[('o001', 'observation')]", "exp_seq": "1", "act_id": "01", "opt_elem": "F200W",
    }  # fmt: skip
    for column in [*data.draw(st.lists(st.sampled_from(sorted(row)), min_size=1, max_size=3)), "filename"]:
        row[column] = data.draw(evil)
    pool = place / "in" / "jw09801_pool.csv"
    text = "|".join(row) + "\n" + "|".join(row.values()) + "\n"
    pool.write_bytes(text.encode("utf-8", "surrogatepass"))
    shutil.rmtree(place / "out", ignore_errors=True)
    touched, code = run(place, "asn", "generate", pool, "--path", place / "out")
    refuse_to_leave(place, touched)
    touched, code = run(place, "run", pool, "--out", place / "out", "--workers", 1)
    assert code in (1, 64)
    refuse_to_leave(place, touched)


@given(name=names("/outside"))
def test_no_name_joined_to_a_folder_leads_out_of_it(name):
    for folder in ("/data/out", "out", "s3://bucket/out", f"memory://{uuid.uuid4().hex}"):
        try:
            url = join(folder, name)
        except StorageError:
            continue
        if store.is_local(url):
            assert Path(os.path.normpath(url)).is_relative_to(folder)
        assert url.startswith(folder + "/")
        assert not {"..", ".", ""} & set(url.split("/")[3:])
        assert url.isprintable()


@pytest.mark.parametrize("name", ["a\0.fits", "a\n.fits", "a" * 300])
def test_a_name_that_no_file_can_have_is_an_error_of_one_line(tmp_path, name):
    for url in (str(tmp_path / "x"), "s3://bucket/x"):
        with pytest.raises(StorageError) as caught:
            write_text(join(url, name), "x")
        assert "\n" not in str(caught.value)
        if url.startswith("s3"):
            break


def test_a_link_in_the_output_folder_does_not_lead_out_of_it(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "real").mkdir()
    out = tmp_path / "out"
    out.symlink_to(tmp_path / "real")
    (tmp_path / "real" / "deep").symlink_to(tmp_path / "outside")
    (tmp_path / "real" / "a.txt").symlink_to(tmp_path / "outside" / "a.txt")
    with locked(str(out)):
        write_text(join(str(out), "a.txt"), "in its place")
        with pytest.raises(StorageError, match="remove the link"):
            write_text(join(str(out), "deep/b.txt"), "outside")
    assert list((tmp_path / "outside").iterdir()) == []
    assert not (tmp_path / "real" / "a.txt").is_symlink()
