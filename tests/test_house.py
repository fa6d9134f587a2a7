"""The rules of the house that a machine can check."""

import ast
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "calibration": set(),
    "associations": set(),
    "infra": {"calibration"},
    "tasks": {"calibration", "infra"},
    "flows": {"tasks", "associations", "infra"},
}
SOURCES = [path for room in MAY_IMPORT for path in sorted((REPOSITORY / room).rglob("*.py"))]


def imported_modules(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return names


def imported_rooms(tree: ast.Module) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(tree)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_imports_point_one_way(path):
    room = path.relative_to(REPOSITORY).parts[0]
    rooms = imported_rooms(ast.parse(path.read_text())) & set(MAY_IMPORT)
    assert rooms <= MAY_IMPORT[room] | {room}


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "__init__.py"], ids=str)
def test_a_room_opens_with_a_docstring_and_nothing_else(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_no_file_shadows_the_standard_library_or_a_room():
    top = {path.stem for room in MAY_IMPORT for path in (REPOSITORY / room).glob("*.py")}
    assert not (top - {"__init__"}) & (sys.stdlib_module_names | set(MAY_IMPORT))


def test_the_numerics_know_no_files_and_no_scheduler():
    banned = {"prefect", "fsspec", "stdatamodels", "crds", "pathlib", "os"}
    for path in SOURCES:
        if path.relative_to(REPOSITORY).parts[0] == "calibration" and path.name != "jit.py":
            # The transforms are the classes that a WCS in a file is made of.
            modules = {
                name
                for name in imported_modules(ast.parse(path.read_text()))
                if not name.startswith("stdatamodels.jwst.transforms")
            }
            found = {name.split(".")[0] for name in modules} & banned
            assert not found, f"{path} imports {found}"


def test_the_top_level_is_the_one_that_the_user_fixed():
    allowed = {"pyproject.toml", "flows", "tasks", "calibration", "associations", "infra", "tests", "README.md"}
    allowed |= {"Makefile", "LICENSE", "constraints.txt"}
    made_by_use = {"demo", "benchmarks", "dist", "__pycache__"}
    found = {path.name for path in REPOSITORY.iterdir() if not path.name.startswith(".")}
    assert found - made_by_use <= allowed
