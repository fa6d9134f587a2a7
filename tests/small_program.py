"""A small slitless program, from raw ramps to spectra, and runs of it in this process, for the tests of the workflow."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.program import calibrate

EPOCH = "1700000000"

RATES = {
    "GR150R": "jw09801001001_02101_00001_nis_rate",
    "GR150C": "jw09801001001_02102_00001_nis_rate",
    "first": "jw09801001001_02103_00001_nis_rate",
    "second": "jw09801001001_02103_00002_nis_rate",
}
IMAGE2 = {"first": "jw09801-o001_image2_00001", "second": "jw09801-o001_image2_00002"}
IMAGE3 = "jw09801-o001_image3_00001"
SPEC2 = {"GR150R": "jw09801-o001_spec2_00001", "GR150C": "jw09801-o001_spec2_00002"}
SPEC3 = {"GR150C": "jw09801-o001_spec3_00001", "GR150R": "jw09801-o001_spec3_00002"}
ALL = {*RATES.values(), *IMAGE2.values(), IMAGE3, *SPEC2.values(), *SPEC3.values()}
#: Everything that follows from the direct images.
FROM_IMAGES = {RATES["first"], RATES["second"], *IMAGE2.values(), IMAGE3, *SPEC2.values(), *SPEC3.values()}


@dataclass(frozen=True)
class SmallProgram:
    """A program to calibrate and the folder of its products."""

    folder: Path
    products: Path

    @property
    def crds(self) -> Path:
        return self.folder / "crds"

    def uncal(self, rate: str) -> Path:
        """The raw exposure of a ``_rate`` node."""
        return self.folder / "uncal" / f"{rate.removesuffix('_rate')}_uncal.fits"

    def run(self, overrides: dict | None = None, out: Path | None = None, **options: Any) -> dict[str, Any]:
        """Calibrate it; returns the content of run.json."""
        return calibrate([str(self.folder)], str(out or self.products), overrides or {}, 2, **options)

    def set_environment(self, patch: Any) -> None:
        """What a run needs, and dates that do not change."""
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        patch.setenv("CRDS_PATH", str(self.crds))
        for name in ("CRDS_SERVER_URL", "CRDS_CONTEXT"):
            patch.delenv(name, raising=False)

    def copy(self, folder: Path) -> "SmallProgram":
        """A copy of the program and of its products, with the times of the files."""
        shutil.copytree(self.folder, folder / "program")
        shutil.copytree(self.products, folder / "products")
        return SmallProgram(folder / "program", folder / "products")


def states(run: dict[str, Any]) -> dict[str, str]:
    """Node -> how it ended."""
    return {node["name"]: node["state"] for node in run["nodes"]}


def made(run: dict[str, Any]) -> set[str]:
    """The nodes that a run made."""
    assert {node["state"] for node in run["nodes"]} <= {"done", "current"}, states(run)
    return {node["name"] for node in run["nodes"] if node["state"] == "done"}


def tree(products: Path) -> dict[str, str]:
    """What a run left: the hash of every product and association, and of each record what does not depend on the clock."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in products.glob("jw*")}
    for path in (products / ".calweave").glob("*.json"):
        record = json.loads(path.read_text())
        content = {name: file["sha256"] for name, file in record["products"].items()}
        found[path.name] = f"{record['fingerprint']} {record['state']} {sorted(content.items())}"
    left = [path.name for path in products.rglob("*") if ".part" in path.name]
    assert not left, "half-written files"
    return found
