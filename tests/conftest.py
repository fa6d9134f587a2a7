"""Fixtures of all tests."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

Command = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def calweave(tmp_path_factory) -> Command:
    """Run the command line as a user does, in a process of its own: ``calweave("stage", "guider", ...)``."""
    home = tmp_path_factory.mktemp("prefect")

    def run(*words: object, crds: object = None, **environment: str) -> subprocess.CompletedProcess:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PREFECT_"))}
        clean |= {"PREFECT_HOME": str(home), "COLUMNS": "200"} | environment
        if crds is not None:
            clean["CRDS_PATH"] = str(crds)
        command = [sys.executable, "-m", "flows.cli", *map(str, words)]
        return subprocess.run(command, cwd=REPOSITORY, env=clean, capture_output=True, text=True, timeout=900)

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
def demo_run(tmp_path_factory, calweave) -> DemoRun:
    """One whole program, simulated and calibrated by ``calweave demo``: 512 pixels, eight exposures."""
    folder = tmp_path_factory.mktemp("demo")
    done = calweave("demo", "--out", folder, "--size", 512)
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
