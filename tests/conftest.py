"""Fixtures of all tests."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

# In continuous integration a property is tried on the same examples each time; elsewhere on new ones.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

REPOSITORY = Path(__file__).resolve().parents[1]

Command = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def prefect_backend():
    """Prefect with a database of its own, for tests that run a flow in this process."""
    from prefect.testing.utilities import prefect_test_harness

    from infra.monitoring import quiet_prefect

    quiet_prefect()
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def without_server():
    """Runs in this process report to no Prefect server, even where other tests of the session started one."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory):
    """A small slitless program (``small_program``) after a first run, which nobody changes."""
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from small_program import ALL, SmallProgram, made

    from infra.synthetic.program import write_program

    folder = tmp_path_factory.mktemp("calibrated")
    write_program(folder / "program", size=192, ngroups=3, grism_ngroups=3, dithers=2, grism_dithers=1)
    program = SmallProgram(folder / "program", folder / "products")
    with pytest.MonkeyPatch.context() as patch, temporary_settings(restore_defaults={PREFECT_API_URL}):
        program.set_environment(patch)
        assert made(program.run()) == ALL
    return program


@pytest.fixture(scope="session")
def calweave_process(tmp_path_factory) -> Command:
    """Run the command line as a user does, in a process of its own: ``calweave_process("demo", "--out", folder)``."""
    home = tmp_path_factory.mktemp("prefect")

    def run(*words: object, crds: object = None, **environment: str) -> subprocess.CompletedProcess:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PREFECT_"))}
        clean |= {"PREFECT_HOME": str(home), "COLUMNS": "200"} | environment
        if crds is not None:
            clean["CRDS_PATH"] = str(crds)
        command = [sys.executable, "-m", "flows.cli", *map(str, words)]
        return subprocess.run(command, cwd=REPOSITORY, env=clean, capture_output=True, text=True, timeout=900)

    return run


@pytest.fixture
def calweave(prefect_backend, monkeypatch, capsys) -> Command:
    """Run the command line within this process: the same words, output and exit code, without the time to start."""
    from flows.cli import main

    def run(*words: object, crds: object = None) -> subprocess.CompletedProcess:
        monkeypatch.setenv("COLUMNS", "200")
        for name in ("CRDS_PATH", "CRDS_SERVER_URL", "CRDS_CONTEXT"):
            monkeypatch.delenv(name, raising=False)
        if crds is not None:
            monkeypatch.setenv("CRDS_PATH", str(crds))
        with pytest.raises(SystemExit) as end:
            main(list(map(str, words)))
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(words, end.value.code, out, err)

    return run


@dataclass(frozen=True)
class DemoRun:
    """A synthetic NIRISS WFSS program and what the command line made of it."""

    program: Path
    products: Path
    output: str

    @property
    def crds(self) -> Path:
        return self.program / "crds"


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory, calweave_process) -> DemoRun:
    """One whole program, simulated and calibrated by ``calweave demo``: 512 pixels, eight exposures."""
    folder = tmp_path_factory.mktemp("demo")
    done = calweave_process("demo", "--out", folder, "--size", 512)
    assert done.returncode == 0, done.stderr
    return DemoRun(folder / "program", folder / "products", done.stderr)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and expected results beside the checkout."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder ../shared with real data is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def peer() -> str:
    """The Python interpreter that has the official jwst package."""
    interpreter = os.environ.get("CALWEAVE_PEER_PYTHON", "")
    if not interpreter or not Path(interpreter).exists():
        pytest.skip("the official jwst package is not installed here: run `make peer` first")
    return interpreter
