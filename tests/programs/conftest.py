"""A small program that was calibrated once, and copies of it to change."""

import pytest
from small_program import ALL, EPOCH, SmallProgram, made

from infra.synthetic.program import write_program


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory) -> SmallProgram:
    """The program after a first run."""
    folder = tmp_path_factory.mktemp("small")
    write_program(folder / "program", size=192, ngroups=3, grism_ngroups=3, dithers=2, grism_dithers=1)
    program = SmallProgram(folder / "program", folder / "products")
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, program)
        assert made(program.run()) == ALL
    return program


@pytest.fixture
def program(calibrated, tmp_path, monkeypatch, without_server) -> SmallProgram:
    """A copy of it to change."""
    copy = calibrated.copy(tmp_path)
    set_environment(monkeypatch, copy)
    return copy


def set_environment(patch, program):
    patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    patch.setenv("CRDS_PATH", str(program.crds))
    for name in ("CRDS_SERVER_URL", "CRDS_CONTEXT"):
        patch.delenv(name, raising=False)
