"""Fixtures of all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


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
