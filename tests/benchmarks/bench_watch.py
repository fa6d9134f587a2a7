"""How soon a watch starts what arrives, and whether it makes each association once.

50 exposures come in random order to a folder that `calweave watch` looks at, in parts, renamed, and twice.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import numpy as np
from astropy.io import fits

from associations.pool import make_pool
from infra.products.fits import read_header
from infra.synthetic.program import write_program

REPOSITORY = Path(__file__).resolve().parents[2]


def make_exposures(folder: Path, count: int) -> tuple[list[Path], Path]:
    """``count`` small exposures, five to an observation; and the reference files."""
    write_program(folder / "program", size=192, ngroups=2, dithers=1, grism_dithers=1)
    (image,) = (folder / "program" / "uncal").glob("*_02103_*_uncal.fits")
    place = folder / "exposures"
    place.mkdir()
    made = []
    for number in range(count):
        observation, dither = f"{number // 5 + 1:03}", number % 5 + 1
        path = place / f"jw09801{observation}001_02103_{dither:05}_nis_uncal.fits"
        shutil.copy(image, path)
        with fits.open(path, mode="update") as hdulist:
            hdulist[0].header.update(FILENAME=path.name, OBSERVTN=observation, PATT_NUM=dither)
        made.append(path)
    return made, folder / "program" / "crds"


def deliver(exposures: list[Path], source: Path, pause: float, seed: int) -> dict[str, float]:
    """Bring the exposures in random order; returns when each was whole (seconds since the epoch)."""
    dice = random.Random(seed)
    whole = {}
    for path in dice.sample(exposures, len(exposures)):
        data, target = path.read_bytes(), source / path.name
        kind = dice.randrange(3)
        if kind == 0:
            with target.open("wb") as file:
                for start in range(0, len(data), len(data) // 5):
                    file.write(data[start : start + len(data) // 5])
                    file.flush()
                    time.sleep(0.05)
        else:
            (source / "coming.part").write_bytes(data)
            (source / "coming.part").rename(target)
        whole[path.name.replace("_uncal.fits", "_rate")] = time.time()
        if kind == 2:
            (source / "copies").mkdir(exist_ok=True)
            shutil.copy(path, source / "copies")
        time.sleep(dice.uniform(0, 2 * pause))
    return whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exposures", type=int, default=50)
    parser.add_argument("--pause", type=float, default=1.0, help="mean time between two exposures [s]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        exposures, crds = make_exposures(folder, arguments.exposures)
        source, out = folder / "incoming", folder / "products"
        source.mkdir()
        pool = make_pool({path.name: read_header(path) for path in exposures}, "jw09801_pool.csv")
        (source / "jw09801_pool.csv").write_text(pool.to_text())
        command = [
            sys.executable,
            "-m",
            "flows.cli",
            "watch",
            source,
            "--out",
            out,
            "--crds",
            crds,
            "--stop-after",
            "10",
        ]
        process = subprocess.Popen(list(map(str, command)), cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
        time.sleep(8)  # until it watches
        whole = deliver(exposures, source, arguments.pause, 1)
        _, err = process.communicate()
        run = json.loads((out / "run.json").read_text())
        after = [
            datetime.fromisoformat(node["started"]).timestamp() - whole[node["name"]]
            for node in run["nodes"]
            if node["name"] in whole
        ]
        made = Counter(line.split(" wrote ")[1] for line in err.splitlines() if " wrote " in line)
        low, middle, high = np.percentile(after, [50, 95, 100])
        print(f"{len(after)} exposures on {os.cpu_count()} cores: from arrival to start {low:.2f} s (median), ", end="")
        print(f"{middle:.2f} s (95 %), {high:.2f} s (longest); bar: 95 % under 2 s")
        states = Counter(node["state"] for node in run["nodes"])
        print(
            f"{len(run['nodes'])} products and associations: {dict(states)}; made twice: {sum(n > 1 for n in made.values())}"
        )
        good = middle < 2 and set(states) <= {"done"} and len(after) == len(exposures) and max(made.values()) == 1
        return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
