"""A program on a real Prefect server: deployed, failed, put right, retried; and what the pages of Prefect show of it.

One server, one served deployment and one browser for all: each takes seconds to start.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from small_program import IMAGE2, IMAGE3, RATES

from flows.deploy import deployments
from infra.deployments.pools import DeploymentError, ensure_pool, kind_of_pool
from infra.synthetic.program import write_program

REPOSITORY = Path(__file__).resolve().parents[2]
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYtestKEY"


@dataclass(frozen=True)
class Server:
    """A Prefect server: its address and its folder."""

    address: str
    home: Path

    def ask(self, path: str, content: dict | None = None):
        """What its API answers: to GET, or to POST with a content."""
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"{self.address}/api{path}", data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def environment(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PREFECT_"))}
        return clean | {
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": f"{self.address}/api",
            "PREFECT_SERVER_UI_API_URL": f"{self.address}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }


@contextlib.contextmanager
def running(words: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    """A process of its own, with its children, that ends with the context."""
    with log.open("w") as file:
        process = subprocess.Popen(
            words, cwd=REPOSITORY, env=environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def until(what, log: Path, seconds: float = 300):
    """Ask until the answer is true; gives it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if answer := what():
                return answer
        time.sleep(0.3)
    pytest.fail(f"nothing came in {seconds} s; {log.name} ends with: {log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one = Server(f"http://127.0.0.1:{port}", folder / "home")
    words = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running(words, folder / "log", one.environment()):
        until(lambda: one.ask("/health"), folder / "log")
        yield one


@dataclass(frozen=True)
class Retried:
    """A run that failed and was retried: as it was, as it is, and its output."""

    failed: dict
    done: dict
    output: Path
    first: dict
    second: dict


@pytest.fixture(scope="module")
def retried(server, tmp_path_factory) -> Retried:
    """Two direct images, one of them cut short: served, run, put right, retried."""
    folder = tmp_path_factory.mktemp("served")
    write_program(folder / "made", size=192, ngroups=3, grism_ngroups=3, dithers=2, grism_dithers=1)
    program, output = folder / "program", folder / "products"
    program.mkdir()
    exposures = [
        folder / "made" / "uncal" / f"{RATES[which].removesuffix('_rate')}_uncal.fits" for which in ("first", "second")
    ]
    for exposure in exposures:
        shutil.copyfile(exposure, program / exposure.name)
    (program / exposures[1].name).write_bytes(exposures[1].read_bytes()[:20_000])

    environment = server.environment() | {"CRDS_PATH": str(folder / "made" / "crds"), "AWS_SECRET_ACCESS_KEY": SECRET}
    words = [sys.executable, "-m", "flows.cli", "serve", str(program), "--out", str(output)]
    log = folder / "log"
    with running(words, log, environment):
        (deployment,) = until(
            lambda: server.ask("/deployments/filter", {"deployments": {"name": {"any_": ["program"]}}}), log
        )
        until(lambda: "until Ctrl-C" in log.read_text(), log)
        run = server.ask(f"/deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})

        def ended(count: int):
            now = server.ask(f"/flow_runs/{run['id']}")
            over = now["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            return now if over and now["run_count"] == count else None

        failed = until(lambda: ended(1), log)
        first = json.loads((output / "run.json").read_text())
        shutil.copyfile(exposures[1], program / exposures[1].name)
        # What the button Retry of the page sends.
        server.ask(
            f"/flow_runs/{run['id']}/set_state",
            {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": False},
        )
        done = until(lambda: ended(2), log)
        second = json.loads((output / "run.json").read_text())
    return Retried(failed, done, output, first, second)


def states(record: dict) -> dict[str, str]:
    return {node["name"]: node["state"] for node in record["nodes"]}


def test_a_run_with_a_failure_fails_and_says_why(retried):
    assert retried.failed["state_type"] == "FAILED"
    assert "fetch or make it again" in retried.failed["state"]["message"]
    found = states(retried.first)
    assert found[RATES["first"]] == "done"
    assert found[RATES["second"]] == "failed"


def test_retry_resumes(retried):
    assert retried.done["state_type"] == "COMPLETED"
    found = states(retried.second)
    # The mosaic was made of one exposure, as there was no other, and is made of both now.
    assert found.pop(IMAGE3) == "done"
    made_before = {name for name, state in states(retried.first).items() if state == "done"} - {IMAGE3}
    assert made_before == {RATES["first"], IMAGE2["first"]}
    reasons = {node["name"]: node["reasons"] for node in retried.second["nodes"]}
    assert {name for name, state in found.items() if state == "current"} == made_before, reasons
    assert {name for name, state in found.items() if state == "done"} == {RATES["second"], IMAGE2["second"]}
    assert (retried.output / f"{RATES['second']}.fits").is_file()


def test_runs_are_named_and_tagged_by_what_they_work_on(retried, server):
    assert retried.done["name"] == "program 09801"
    assert {"program:09801", "obs:001", "instrument:NIRISS"} <= set(retried.done["tags"])
    until(lambda: any(run["name"].startswith("ramp_fit") for run in task_runs(server)), retried.output / "run.json", 20)
    by_name = {run["name"]: run for run in task_runs(server)}
    node = by_name[f"detector1 {RATES['second']}"]
    exposure = RATES["second"].removesuffix("_rate")
    assert {f"exposure:{exposure}", "stage:detector1", "program:09801", "obs:001"} <= set(node["tags"])
    assert f"jump {exposure}" in by_name
    assert f"ramp_fit {exposure}" in by_name


def task_runs(server: Server) -> list[dict]:
    return server.ask("/task_runs/filter", {"limit": 200, "sort": "NAME_ASC"})


def artifacts(server: Server) -> dict[str, dict]:
    """The latest artifact of each key."""
    return {one["key"]: one for one in server.ask("/artifacts/latest/filter", {"limit": 100})}


def test_every_run_leaves_its_graph_plan_progress_figures_and_summary(retried, server):
    found = artifacts(server)
    assert "data:image/svg+xml;base64," in found["program-09801-graph"]["data"]
    assert float(found["program-09801-progress"]["data"]) == 100.0
    assert "input changed" in found["program-09801-plan"]["data"] or "new" in found["program-09801-plan"]["data"]
    assert found["program-09801-summary"]["data"].startswith("# All is well")
    product = found[f"{RATES['first']}-detector1".replace("_", "-")]
    assert "data:image/jpeg;base64," in product["data"]
    assert "background" in product["data"]
    assert product["task_run_id"], "it is on the page of the product's own run"


def test_nothing_that_prefect_keeps_holds_a_credential(retried, server):
    files = [path for path in server.home.rglob("*") if path.is_file()]
    assert any(path.name.startswith("prefect.db") for path in files)
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path.name


def test_deploy_registers_with_a_work_pool_what_was_served_before(retried, server, calweave_process):
    where = {"PREFECT_API_URL": f"{server.address}/api", "PREFECT_HOME": str(server.home)}
    words = ["deploy", "s3://raw/*", "--out", "s3://products", "--pool", "cluster", "--kind", "kubernetes"]
    done = calweave_process(*words, "--cron", "5 4 * * *", **where)
    assert done.returncode == 0, done.stderr
    pool = server.ask("/work_pools/cluster")
    assert pool["type"] == "kubernetes"
    assert "credentials_secret" in pool["base_job_template"]["variables"]["properties"]
    found = {one["name"]: one for one in server.ask("/deployments/filter", {})}
    assert set(found) == {"program", "part", "campaign", "new-context"}
    assert {one["work_pool_name"] for one in found.values()} == {"cluster"}
    assert not any(one["paused"] for one in found.values()), "the end of serve had paused them"
    (when,) = found["campaign"]["schedules"]
    assert (when["active"], when["schedule"]["cron"]) == (True, "5 4 * * *")
    assert not found["program"]["schedules"][0]["active"], "there is no one program to make"
    assert found["campaign"]["parameters"] == {"programs": "s3://raw/*", "output": "s3://products", "slots": 1}
    assert found["campaign"]["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    (step,) = found["campaign"]["pull_steps"]
    assert step["prefect.deployments.steps.set_working_directory"] == {"directory": "/"}, "no folder is copied"

    with temporary_settings({PREFECT_API_URL: where["PREFECT_API_URL"]}):
        with pytest.raises(DeploymentError, match="runs kubernetes jobs, not process"):
            ensure_pool("cluster", "process")
        assert kind_of_pool("cluster") == "kubernetes"
        with pytest.raises(DeploymentError, match="there is no work pool elsewhere"):
            kind_of_pool("elsewhere")


def test_an_address_with_credentials_is_refused():
    with pytest.raises(DeploymentError, match="everybody could read in Prefect's pages") as error:
        deployments("s3://key:password@raw/1", "s3://products", "0 3 * * *", 1)
    assert "password@" not in str(error.value)


@pytest.fixture(scope="module")
def page(server, tmp_path_factory):
    """The page at a path, as the browser shows it: its DOM once its scripts have run."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine to look at the pages with")
    profile = tmp_path_factory.mktemp("browser")

    def look(path: str) -> str:
        words = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
        words += ["--window-size=1400,1200", "--virtual-time-budget=20000", f"{server.address}{path}"]
        return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout

    return look


def test_the_page_of_a_run_shows_its_name_tags_and_artifacts(retried, page):
    dom = page(f"/v2/runs/flow-run/{retried.done['id']}?tab=Artifacts")
    for text in ("program 09801", "program:09801", "instrument:NIRISS", "Completed", "program-09801-summary"):
        assert text in dom, text


def test_the_page_of_an_artifact_draws_the_graph_and_tells_what_was_made(retried, server, page):
    dom = page(f"/v2/artifacts/artifact/{artifacts(server)['program-09801-summary']['latest_id']}")
    assert "All is well" in dom
    assert 'src="data:image/svg+xml;base64,' in dom
