"""Who made a product: the versions that its header names."""

from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from infra.products.header import Header


@cache
def calweave_version() -> str:
    """The version of this package."""
    try:
        return version("calweave")
    except PackageNotFoundError:
        return "unknown"


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
