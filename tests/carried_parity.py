"""Single steps of the official package (jwst 3.0.0) on our files, with a cache of our own: what parity tests share."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infra.synthetic.crds_cache import Rule, write_mappings

INSTRUMENTS = ("NIRISS", "NIRCAM", "NIRSPEC", "FGS", "MIRI")


def write_cache(folder: Path, files: Mapping[tuple[str, str], Mapping[str, str]]) -> Path:
    """A cache with reference files of some types for (instrument, detector)."""
    rules: dict[str, list[Rule]] = {instrument: [] for instrument in INSTRUMENTS}
    for (instrument, detector), of_types in files.items():
        place = folder / "references" / "jwst" / instrument.lower()
        place.mkdir(parents=True, exist_ok=True)
        for reftype, path in of_types.items():
            name = f"jwst_{instrument.lower()}_{reftype}_{len(rules[instrument]):04d}{Path(path).suffix}"
            shutil.copyfile(path, place / name)
            rules[instrument].append(Rule(reftype, name, {"META.INSTRUMENT.DETECTOR": detector}))
    write_mappings(folder, rules)
    return folder


def run_peer(peer: str, folder: Path, crds: Path, jobs: Sequence[Mapping[str, Any]]) -> None:
    """Let the peer do the jobs (see ``parity/peer_carried.py``), in ``folder``."""
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PYTHON"))}
    environment |= {"CRDS_PATH": str(crds), "CRDS_SERVER_URL": "https://jwst-serverless-mode.stsci.edu"}
    script = Path(__file__).parent / "parity" / "peer_carried.py"
    done = subprocess.run([peer, script, path], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, (done.stderr or done.stdout)[-3000:]


def load(folder: Path, name: str) -> Mapping[str, np.ndarray]:
    """What the peer made of a job."""
    return np.load(folder / name / "made.npz")
