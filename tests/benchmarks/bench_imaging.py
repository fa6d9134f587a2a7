"""Imaging beside the official pipeline on the same files: image2 of a full frame, image3 of 4 and of 32; one table.

``CALWEAVE_PEER_PYTHON=... python tests/benchmarks/bench_imaging.py [--exposures 4 32] [--folder FOLDER]``, where FOLDER keeps
the simulated rates (default: a temporary folder). A field of stars and galaxies seen by one detector of NIRCam, dithered;
``_rate`` in, all products out, with the options of both at their defaults. Each measurement is a process of its own. CPU is
user and system time with files in and out, the imports apart: of ours in a worker that lives (kernels are compiled and
loaded, the median of the runs after the first; of the largest mosaic one run), of the official pipeline the better of two
images for image2 and one run for image3. The bars are those that the project has set for itself; a bar that is missed makes
the exit code 1. Writes ``benchmarks/imaging.md``, and with ``--readme`` the section of the README.
"""

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_detector1 import REPOSITORY, Table, measured_on, put_into_readme, run

PEER = """
import json, resource, sys, time

def now():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, time.perf_counter()

from jwst.pipeline import Image2Pipeline, Image3Pipeline
laps = [now()]
stage, output, *inputs = sys.argv[1:]
for each in inputs:
    {"image2": Image2Pipeline, "image3": Image3Pipeline}[stage].call(each, save_results=True, output_dir=output)
    laps.append(now())
print(json.dumps([[b - a for a, b in zip(x, y)] for x, y in zip(laps, laps[1:])]))
"""

#: Bars of image2, and of image3 by the number of exposures: CPU over the official pipeline's, peak memory [GiB].
IMAGE2_BAR = 1 / 5
IMAGE3_BARS = {4: (1 / 5, None), 32: (1 / 6, 3.0)}


def make(folder: Path, count: int) -> None:
    """The rates of ``count`` dithered full frames of a simulated program, and its reference files."""
    from flows.detector1 import detector1
    from infra.synthetic.imaging import write_imaging_program

    made = write_imaging_program(folder / "program", "nircam-imaging", 2048, ngroups=5, dithers=count)
    os.environ["CRDS_PATH"] = str(made.crds)
    for exposure in made.uncal:
        detector1(str(exposure), str(folder))


def association(folder: Path, rates: list[Path]) -> Path:
    """The stage 3 association of so many exposures, beside their ``_cal``."""
    members = [{"expname": path.name.replace("_rate", "_cal"), "exptype": "science"} for path in rates]
    program = rates[0].name[2:7]
    path = folder / f"jw{program}-o001_image3_{len(rates):05d}_asn.json"
    product = {"name": f"jw{program}-o001_t001_nircam_clear-f150w-{len(rates)}", "members": members}
    head = {"asn_type": "image3", "asn_rule": "Asn_Lv3Image", "program": program, "asn_id": "o001", "asn_pool": "none"}
    path.write_text(json.dumps(head | {"target": "t001", "products": [product]}))
    return path


def worker(stage: str, output: str, inputs: list[str]) -> list[tuple[float, float]]:
    """(CPU, wall) of one input after the other in this process."""
    from flows.image2 import image2
    from flows.image3 import image3

    rows = []
    for each in inputs:
        before = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        {"image2": image2, "image3": image3}[stage](each, output)
        after = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        cpu = sum(getattr(after[0], name) - getattr(before[0], name) for name in ("ru_utime", "ru_stime"))
        rows.append((cpu, after[1] - before[1]))
    return rows


def measure(folder: Path, counts: list[int], repeat: int) -> tuple[list[str], bool]:
    """The lines of the report, and whether all bars are met."""
    peer = os.environ.get("CALWEAVE_PEER_PYTHON", "")
    most = max(counts)
    if len(list(folder.glob("*_rate.fits"))) < most:
        subprocess.run([sys.executable, __file__, "--make", str(folder), str(most)], check=True)
    rates = sorted(folder.glob("*_rate.fits"))
    crds = folder / "program" / "crds"
    table = Table()

    def both(
        name: str, stage: str, ours: list[Path], theirs: list[Path], bar: float | None, room: float | None
    ) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch)
            mine = run([sys.executable, __file__, "--worker", stage, str(folder), *map(str, ours)], out, crds)
            other = run([peer, "-c", PEER, stage, str(out), *map(str, theirs)], out, crds) if peer else None
        laps = json.loads(mine.printed)[1:]
        cpu, wall = (statistics.median(lap[k] for lap in laps) for k in (0, 1))
        best = min(json.loads(other.printed)) if other else None
        table.add(name, "CPU, warm [s]", cpu, best and best[0], f"1 / {1 / bar:.0f}" if bar else "",
                  cpu <= bar * best[0] if bar and best else None)  # fmt: skip
        table.add("", "wall, warm, one core [s]", wall, best and best[1], "", None)
        table.add("", "peak memory [GiB]", mine.memory, other and other.memory, f"{room:g} GiB" if room else "",
                  mine.memory <= room if room else None)  # fmt: skip

    both("image2, one full frame", "image2", [rates[0], *rates[:repeat]], rates[:2], IMAGE2_BAR, None)
    missing = [path for path in rates if not path.with_name(path.name.replace("_rate", "_cal")).exists()]
    if missing:
        run([sys.executable, __file__, "--worker", "image2", str(folder), *map(str, missing)], folder, crds)
    for count in counts:
        asn = association(folder, rates[:count])
        bar, room = IMAGE3_BARS.get(count, (None, None))
        times = repeat if count < 10 else 1
        both(f"image3, {count} full frames", "image3", [asn] * (times + 1), [asn], bar, room)
    lines = [
        measured_on(peer)
        + f" Ours: median of {repeat}. CPU is user and system time with files in and out, warm in a worker. "
        "`python tests/benchmarks/bench_imaging.py` repeats it.",
        "",
        "| | | Calweave | `jwst` | ratio | bar | |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
        *table.rows,
    ]
    return lines, table.met


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--exposures", type=int, nargs="+", default=[4, 32], help="exposures of the mosaics")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of ours")
    parser.add_argument("--folder", type=Path, help="where the simulated rates are, or are to be kept")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    if asked.worker:
        stage, output, *inputs = asked.worker
        print(json.dumps(worker(stage, output, inputs)))
        return 0
    if asked.make:
        make(Path(asked.make[0]), int(asked.make[1]))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = (asked.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        lines, met = measure(folder, asked.exposures, asked.repeat)
    text = "\n".join(lines)
    print(text)
    report = REPOSITORY / "benchmarks" / "imaging.md"
    report.parent.mkdir(exist_ok=True)
    report.write_text("# Imaging beside the official pipeline\n\n" + text + "\n")
    if asked.readme:
        put_into_readme("imaging", text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
