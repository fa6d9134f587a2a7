"""What a run does about exposures that cannot be calibrated, members that are missing, and processes that die."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from astropy.io import fits
from rich.console import Console
from small_program import IMAGE2, IMAGE3, RATES, SmallProgram, made, states, tree

from flows import detector1 as detector1_module
from flows.program import calibrate, summarise
from infra import errors
from infra.observed import ObservedFlow
from infra.products.fits import read_fits
from infra.storage.local import PART, machine
from infra.storage.lock import OutputLocked, locked
from infra.synthetic.program import write_program

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def twelve(tmp_path_factory) -> SmallProgram:
    """Twelve exposures, too small to show a spectrum."""
    folder = tmp_path_factory.mktemp("twelve")
    write_program(folder / "program", size=64, ngroups=3, grism_ngroups=3, dithers=4, grism_dithers=4)
    return SmallProgram(folder / "program", folder / "products")


@pytest.fixture
def program(twelve, tmp_path, monkeypatch, without_server) -> SmallProgram:
    twelve.products.mkdir(exist_ok=True)
    copy = twelve.copy(tmp_path)
    copy.set_environment(monkeypatch)
    return copy


def corrupt(path: Path) -> bytes:
    """Cut an exposure short, as a transfer does; returns what it was."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return content


def test_one_corrupt_exposure_of_twelve_stops_only_its_branch_and_is_put_right_by_a_rerun(program, tmp_path):
    whole = corrupt(program.uncal(RATES["GR150R"]))
    first = program.run()
    assert len([node for node in first["nodes"] if node["stage"] == "detector1"]) == 12
    spec2 = "jw09801-o001_spec2_00001"
    failed = {name: state for name, state in states(first).items() if state in ("failed", "blocked")}
    assert failed == {RATES["GR150R"]: "failed", spec2: "blocked", "jw09801-o001_spec3_00002": "blocked"}
    (node,) = (node for node in first["nodes"] if node["state"] == "failed")
    assert node["failure"] == "input"
    assert "cut short" in node["error"]
    program.uncal(RATES["GR150R"]).write_bytes(whole)
    second = program.run()
    again = {node["name"] for node in second["nodes"] if node["state"] in ("done", "empty") and node["started"]}
    assert again == {RATES["GR150R"], spec2}
    calibrate([str(program.folder)], str(tmp_path / "clean"), {}, 2)
    assert tree(program.products) == tree(tmp_path / "clean")


def test_a_stage_3_product_waits_for_its_members(program):
    corrupt(program.uncal(RATES["second"]))
    run = program.run()
    assert states(run)[IMAGE2["second"]] == "blocked"
    assert states(run)[IMAGE3] == "blocked"
    assert summarise(run, Console(quiet=True)) == 1


def test_or_it_is_made_without_them_and_says_so_and_heals_when_they_come_back(program, tmp_path, capsys):
    whole = corrupt(program.uncal(RATES["second"]))
    run = program.run(missing_members="leave-out")
    member = RATES["second"].replace("_rate", "_cal.fits")
    assert states(run)[IMAGE3] == "done"
    (node,) = (node for node in run["nodes"] if node["name"] == IMAGE3)
    assert list(node["left_out"]) == [member]
    (mosaic,) = program.products.glob("*clear-f200w*_i2d.fits")
    assert member in str(fits.getheader(mosaic)["HISTORY"])
    assert read_fits(mosaic).made_of["left_out"] == [member]
    assert not list(program.products.glob("*02103_00002*_crf.fits"))
    assert summarise(run, Console()) == 1
    assert f"made without {member}" in capsys.readouterr().out

    again = program.run(missing_members="leave-out")
    assert states(again)[IMAGE3] == "current", "what could not be changed is not made again"
    program.uncal(RATES["second"]).write_bytes(whole)
    healed = program.run()
    assert {RATES["second"], IMAGE2["second"], IMAGE3} <= {n["name"] for n in healed["nodes"] if n["state"] == "done"}
    reasons = {node["name"]: node["reasons"] for node in healed["nodes"]}
    assert f"member is back: {member}" in reasons[IMAGE3]
    calibrate([str(program.folder)], str(tmp_path / "clean"), {}, 2)
    assert tree(program.products) == tree(tmp_path / "clean")


def test_a_store_that_fails_twice_costs_time_and_nothing_else(program, monkeypatch):
    fails = {"left": 2}
    real = detector1_module.detector1

    def flaky(exposure, output, overrides=None, **more):
        if RATES["first"].removesuffix("_rate") in exposure and fails["left"]:
            fails["left"] -= 1
            raise ConnectionResetError("reset by peer")
        return real(exposure, output, overrides, **more)

    monkeypatch.setitem(errors.POLICIES, "transient", errors.Policy(3, delay=0.01))
    monkeypatch.setattr(detector1_module, "detector1", ObservedFlow(flaky, "flaky", "flaky"))
    run = calibrate([str(program.uncal(RATES["first"]))], str(program.products), {}, 2)
    (node,) = (node for node in run["nodes"] if node["name"] == RATES["first"])
    assert (node["state"], node["attempts"]) == ("done", 3)


def test_an_exposure_that_changes_while_it_is_read_is_read_again(program, monkeypatch):
    real = detector1_module.detector1
    path = program.uncal(RATES["first"])
    seen = []

    def slow(exposure, output, overrides=None, **more):
        if exposure == str(path) and not seen:
            seen.append(1)
            os.utime(path, (1, 1))
        return real(exposure, output, overrides, **more)

    monkeypatch.setattr(detector1_module, "detector1", ObservedFlow(slow, "slow", "slow"))
    monkeypatch.setitem(errors.POLICIES, "transient", errors.Policy(3, delay=0.01))
    run = calibrate([str(path)], str(program.products), {}, 2)
    (node,) = (node for node in run["nodes"] if node["name"] == RATES["first"])
    assert (node["state"], node["attempts"]) == ("done", 2)


def test_two_runs_at_once_on_one_output_are_refused(program):
    with locked(str(program.products)), pytest.raises(OutputLocked, match=str(os.getpid())):
        program.run()


def test_what_a_killed_run_left_half_written_is_gone_after_the_next(program):
    one = [str(program.uncal(RATES["first"]))]
    calibrate(one, str(program.products), {})
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    for folder in (program.products, program.products / ".calweave"):
        left = folder / f"{PART}{machine()}-{int(gone.stdout)}-0123abcd"
        left.mkdir()
        (left / "half.json").write_text("{")
    assert made(calibrate(one, str(program.products), {})) == set()
    assert not list(program.products.rglob(f"{PART}*"))


def test_a_node_that_takes_too_long_is_stopped_where_a_process_can_be(program):
    run = program.run(engine="processes", timeout=0.001)
    raw = [node for node in run["nodes"] if node["stage"] == "detector1"]
    assert {(node["state"], node["failure"]) for node in raw} == {("failed", "timeout")}
    assert not list(program.products.glob("*.fits"))


def test_worker_processes_write_the_bytes_that_threads_write(calibrated, tmp_path, monkeypatch, without_server):
    calibrated.set_environment(monkeypatch)
    run = calibrated.run(out=tmp_path / "out", engine="processes")
    assert {node["state"] for node in run["nodes"]} == {"done"}
    assert all(node["peak_memory_bytes"] > 5e7 for node in run["nodes"])
    assert tree(tmp_path / "out") == tree(calibrated.products)


def test_dask_workers_write_the_bytes_that_threads_write(calibrated, tmp_path, monkeypatch, without_server):
    pytest.importorskip("distributed", reason="Dask is an optional engine: pip install 'calweave[dask]'")
    calibrated.set_environment(monkeypatch)
    run = calibrated.run(out=tmp_path / "out", engine="dask")
    assert {node["state"] for node in run["nodes"]} == {"done"}
    assert tree(tmp_path / "out") == tree(calibrated.products)


@pytest.mark.parametrize(("engine", "kills"), [("threads", 6), ("processes", 2)])
def test_whatever_is_killed_the_next_run_leaves_the_tree_of_a_clean_one(tmp_path, calibrated, engine, kills):
    words = [tmp_path, "--kills", kills, "--engine", engine, "--seed", 3, "--program", calibrated.folder]
    script = REPOSITORY / "tests" / "kills.py"
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PREFECT_"))}
    clean |= {"PREFECT_HOME": str(tmp_path / "prefect")}
    done = subprocess.run(
        [sys.executable, script, *map(str, words)], env=clean, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] == kills
    assert result["wrong"] == []
