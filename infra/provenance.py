"""Who made a product, with which code, from what and when: what its header, its recipe and its record tell."""

import ast
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from infra.monitoring import ROOMS
from infra.products.header import Header

#: Packages that the numbers in a product, and its bytes, rest on.
NUMERIC = (
    "numpy", "scipy", "numba", "astropy", "gwcs", "photutils", "drizzle", "tweakwcs", "scikit-image", "stdatamodels", "asdf",
)  # fmt: skip

#: Modules that carry products, or tell of them, and can change nothing in them.
BOOKKEEPING = (
    "infra.storage.",
    "infra.monitoring",
    "infra.observed",
    "infra.errors",
    "infra.sidecar",
    "infra.deployments.",
)

_HOUSE = Path(__file__).parents[1]

#: What the products that are made now are made of: fingerprint, inputs, code. It goes into each of them.
_making: ContextVar[Mapping[str, Any] | None] = ContextVar("making", default=None)


@cache
def calweave_version() -> str:
    """The version of this package."""
    try:
        return version("calweave")
    except PackageNotFoundError:
        return "unknown"


@cache
def versions() -> dict[str, str]:
    """The versions of this package and of those that its numbers rest on."""
    packages: Iterable[str] = ("prefect", "numpy", "scipy", "numba", "astropy", "gwcs", "photutils", "drizzle", "crds")
    return {"calweave": calweave_version(), **{package: version(package) for package in packages}}


def stamp(header: Header, context: str | None) -> Header:
    """``header`` with the versions of the software and the context of the reference files."""
    cards = {"CAL_VER": f"calweave {calweave_version()}", "CAL_VCS": "RELEASE", "CRDS_VER": version("crds")}
    if context:
        cards["CRDS_CTX"] = context
    return header.set(cards)


@cache
def code_of(module: str) -> Mapping[str, str]:
    """The code behind a module: a digest of the sources that it imports, and the versions of the numeric packages.

    Only sources of ours count that the module reaches through imports, without those that carry or report products
    (``BOOKKEEPING``): an edit in the extraction of spectra makes no ramp stale.
    """
    digest = hashlib.sha256()
    for name in sorted(import_closure(module)):
        if not name.startswith(BOOKKEEPING):
            digest.update(f"{name}\n".encode() + _source(name).read_bytes())
    return {"sources": digest.hexdigest(), **{package: _version(package) for package in NUMERIC}}


def import_closure(module: str) -> set[str]:
    """The modules of our rooms that a module imports, directly or through others, with itself."""
    found = {module}
    waiting = [module]
    while waiting:
        for name in _imports(waiting.pop()) - found:
            found.add(name)
            waiting.append(name)
    return found


@cache
def _imports(module: str) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(_source(module).read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(name for name in names if name.split(".")[0] in ROOMS and _source(name).is_file())


def _source(module: str) -> Path:
    path = _HOUSE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_name(f"{path.name}.py")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


@contextmanager
def making(what: Mapping[str, Any]) -> Iterator[None]:
    """Products that are written within tell ``what`` they are made of."""
    token = _making.set(what)
    try:
        yield
    finally:
        _making.reset(token)


def made_of() -> Mapping[str, Any] | None:
    """What the products that are written now are made of, where that is known."""
    return _making.get()


def date_of_writing() -> str:
    """The DATE of a product that is written now: UTC, to the millisecond.

    ``SOURCE_DATE_EPOCH`` (seconds since 1970; reproducible-builds.org) takes the place of the clock: all else in a product
    follows from its inputs, so with it two runs write the same bytes.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.now(UTC) if not epoch else datetime.fromtimestamp(round(float(epoch), 3), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
