"""Copies of a small program that was calibrated once, to change."""

import pytest
from small_program import SmallProgram


@pytest.fixture
def program(calibrated, tmp_path, monkeypatch, without_server) -> SmallProgram:
    """A copy of the small program and of its products."""
    copy = calibrated.copy(tmp_path)
    copy.set_environment(monkeypatch)
    return copy
