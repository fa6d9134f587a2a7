"""Stage 1 beside the official pipeline, on the same files and the same machine: speed, memory, scaling; one table.

``CALWEAVE_PEER_PYTHON=... python tests/benchmarks/bench_detector1.py [--repeat 5] [--peer-repeat 3] [--folder FOLDER]``, where
FOLDER keeps the simulated exposures (default: a temporary folder). Each measurement is a process of its own, looked at from
outside for its peak memory. CPU is user and system time, in a worker that lives: one exposure is not counted, then the
median; files in and out are part of it. The official pipeline's is its best of two exposures in one process, the imports
apart. "Cold" is the wall time of a whole command, from its start to its end, one exposure at the defaults, for the
official pipeline imports and one exposure of a process. Writes ``benchmarks/detector1.md``, and with ``--readme`` the
section of the README. The bars are those that the project has set for itself; a bar that is missed makes the exit code 1.
"""

import argparse
import itertools
import json
import logging
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

GIB = 2**30
#: Bytes of raw data of the time series, and the memory that the command is given for it.
LONG, LONG_MEMORY = 2e9, "1.5GB"
#: Exposures side by side on two cores.
SCALES = (1, 2, 4, 8)

PEER = """
import json, resource, sys, time

def now():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, time.perf_counter()

wall = time.perf_counter()
from jwst.pipeline import Detector1Pipeline
laps = [(0.0, wall), now()]
for _ in range(2):
    Detector1Pipeline.call(sys.argv[1], save_results=True, output_dir=sys.argv[2])
    laps.append(now())
print(json.dumps([[b - a for a, b in zip(x, y)] for x, y in zip(laps, laps[1:])]))
"""


@dataclass(frozen=True)
class Kind:
    """An exposure to measure: its simulator, the bar of its CPU over the official pipeline's, that of its memory [GiB]."""

    name: str
    make: Callable[[Path], Any]
    cpu_bar: float
    memory_bar: float | None = None


def near_infrared(mode: str, nints: int, ngroups: int) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        from infra.synthetic.near_infrared import write_near_infrared_exposure

        return write_near_infrared_exposure(folder, mode, nints, ngroups)

    return make


def nirspec(folder: Path) -> Any:
    from infra.synthetic.nirspec import write_nirspec_exposure

    return write_nirspec_exposure(folder, "irs2-rapid", 1, 10)


def mid_infrared(folder: Path) -> Any:
    from infra.synthetic.miri import write_miri_exposure

    return write_miri_exposure(folder, 1, 20)


STRIP = "substrip256-20x5"
KINDS = {
    "nircam-1x10": Kind("NIRCam full frame 1 x 10", near_infrared("nircam-image", 1, 10), 1 / 10, 0.9),
    "niriss-1x10": Kind("NIRISS full frame 1 x 10", near_infrared("niriss-image", 1, 10), 1 / 10, 0.9),
    STRIP: Kind("NIRISS SUBSTRIP256 20 x 5", near_infrared("niriss-substrip256", 20, 5), 1 / 10),
    "nirspec-1x10": Kind("NIRSpec IRS2 1 x 10", nirspec, 1 / 10),
    "miri-1x20": Kind("MIRI full frame 1 x 20", mid_infrared, 1 / 6),
}


@dataclass(frozen=True)
class Run:
    """A process that ended: CPU and wall [s], peak memory [GiB], and what it printed last."""

    cpu: float
    wall: float
    memory: float
    printed: str


def run(command: list[str], folder: Path, crds: Path) -> Run:
    """Run a process to its end; CPU and memory include the processes that it waited for."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PREFECT_"))}
    environment |= {"CRDS_PATH": str(crds), "PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": str(REPOSITORY)}
    start = time.perf_counter()
    with (folder / "out.txt").open("w") as out, (folder / "errors.txt").open("w") as errors:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode:
        log = (folder / "errors.txt").read_text()
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{log[-3000:]}")
    printed = (folder / "out.txt").read_text().splitlines()
    return Run(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024 / GIB, printed[-1] if printed else "")


def worker(exposure: str, output: str, repeat: int) -> list[tuple[float, float, float]]:
    """(CPU, wall, memory in GiB after it) of one exposure after the other in this process; the first is not to be counted."""
    from flows.detector1 import detector1
    from infra.machine import resident_memory

    rows = []
    for _ in range(repeat + 1):
        before = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        detector1(exposure, output)
        after = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        cpu = sum(getattr(after[0], name) - getattr(before[0], name) for name in ("ru_utime", "ru_stime"))
        rows.append((cpu, after[1] - before[1], resident_memory() / GIB))
    return rows


def scaling(exposure: str, output: str) -> list[tuple[int, float]]:
    """Wall time of so many exposures side by side in the threads of a worker, one core each."""
    from flows.detector1 import detector1

    detector1(exposure, output)
    walls = []
    for number in SCALES:
        folders = [f"{output}/{k}" for k in range(number)]
        times = []
        for _ in range(3):
            start = time.perf_counter()
            with ThreadPoolExecutor(min(2, number)) as pool:
                list(pool.map(lambda folder: detector1(exposure, folder), folders))
            times.append(time.perf_counter() - start)
        walls.append((number, statistics.median(times)))
    return walls


def make_long(short: Path, path: Path) -> int:
    """A time series as long as ``LONG``: the integrations of ``short`` over and over; returns how many there are."""
    from infra.products.ramp import read_ramp, write_uncal

    ramp = read_ramp(short)
    times = int(np.ceil(LONG / (2 * ramp.data.size)))
    header = ramp.header.set(NINTS=times * len(ramp.data), INTEND=times * len(ramp.data))
    write_uncal(path, header, np.tile(ramp.data.astype(np.uint16), (times, 1, 1, 1)))
    return times * len(ramp.data)


def floor(exposure: Path, output: Path) -> str:
    """What moving the bytes costs on this machine, whatever is computed."""
    from flows.detector1 import all_steps
    from flows.stage import prepare
    from infra.products.fits import read_header
    from infra.products.ramp import open_ramp

    with open_ramp(exposure) as file:
        samples = int(np.prod(file.shape))
    header = read_header(exposure)
    references, _ = prepare(header, all_steps(header), None, "detector1")
    used = {Path(path) for path in references.files.values() if path}
    files = sum(path.stat().st_size for path in (exposure, output, *used))
    source, target = np.ones(2**25), np.empty(2**25)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - start)
    bandwidth = source.nbytes / min(times[1:])
    return (
        f"Physical floor of the first row: the raw file, {len(used)} references and the rates are {files / 1e6:.0f} MB, "
        f"the ramp in float32 {4 * samples / 1e6:.0f} MB. One core copies {bandwidth / 1e9:.1f} GB/s here: "
        f"{files / bandwidth:.2f} s to move the files once, {4 * samples / bandwidth:.3f} s for a step that makes a new ramp."
    )


class Table:
    """The rows of the report, with their bars."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.met = True

    def add(self, what: str, measure: str, ours: float, theirs: float | None, bar: str, met: bool | None) -> None:
        ratio = "" if theirs is None else f"1 / {theirs / ours:.1f}"
        verdict = "" if met is None else "met" if met else "**missed**"
        self.met &= met is not False
        other = "" if theirs is None else f"{theirs:.2f}"
        self.rows.append(f"| {what} | {measure} | {ours:.2f} | {other} | {ratio} | {bar} | {verdict} |")


def measure(folder: Path, kinds: list[str], repeat: int, peer_repeat: int) -> tuple[list[str], bool]:
    """The lines of the report, and whether all bars are met."""
    peer = os.environ.get("CALWEAVE_PEER_PYTHON", "")
    table, notes = Table(), []
    for key in kinds:
        kind, home = KINDS[key], folder / key
        if not (home / "crds").exists():
            # In a process of its own: the peak memory of a child counts what its parent had when it was started.
            subprocess.run([sys.executable, __file__, "--make", key, str(home)], check=True)
        exposure, crds = next(home.rglob("*_uncal.fits")), home / "crds"
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch)
            ours = [sys.executable, __file__, "--worker", str(exposure), str(out), str(repeat)]
            cold = [sys.executable, "-m", "flows.cli", "stage", "detector1", str(exposure), "--out", str(out)]
            # Compiles the kernels and brings the files into the page cache.
            run(cold, out, crds)
            lives = run(ours, out, crds)
            warm = json.loads(lives.printed)[1:]
            colds = [run(cold, out, crds) for _ in range(repeat)]
            peers = [
                run([peer, "-c", PEER, str(exposure), str(out)], out, crds) for _ in range(peer_repeat if peer else 0)
            ]
            rates = [path for path in out.iterdir() if "_rate" in path.name and "peer" not in path.name]
            if key == kinds[0]:
                rate = next(path for path in rates if path.name.endswith("_rate.fits"))
                notes.append(run([sys.executable, __file__, "--floor", str(exposure), str(rate)], out, crds).printed)
        cpu, wall = (statistics.median(row[k] for row in warm) for k in (0, 1))
        whole, peak = statistics.median(one.wall for one in colds), max(lives.memory, *(one.memory for one in colds))
        laps = [json.loads(one.printed) for one in peers]
        best = statistics.median(min(first[0], second[0]) for _, first, second in laps) if laps else None
        theirs = statistics.median(imports[1] + first[1] for imports, first, _ in laps) if laps else None
        over = best is not None and theirs is not None
        table.add(kind.name, "CPU, warm [s]", cpu, best, f"1 / {1 / kind.cpu_bar:.0f}",
                  cpu <= kind.cpu_bar * best if over else None)  # fmt: skip
        best_wall = statistics.median(min(first[1], second[1]) for _, first, second in laps) if laps else None
        table.add("", "wall, warm, one core [s]", wall, best_wall, "", None)
        table.add("", "wall, cold start [s]", whole, theirs, "1 / 4", whole <= 0.25 * theirs if over else None)
        memory = statistics.median(one.memory for one in peers) if peers else None
        bar = kind.memory_bar
        table.add("", "peak memory [GiB]", peak, memory, f"{bar} GiB" if bar else "", peak <= bar if bar else None)
        if key == kinds[0]:
            grown = [row[2] for row in warm]
            notes.append(
                f"A worker holds {grown[0]:.2f} GiB after 2 exposures and {grown[-1]:.2f} GiB after {repeat + 1}."
            )
    if STRIP in kinds:
        measure_scaling(folder, table)
        measure_long(folder, table, notes)
    lines = [
        f"{measured_on(peer)} Ours: median of {repeat}; theirs: median of {peer_repeat}, each the better of two exposures of "
        "one process. CPU is user and system time with files in and out, warm in a worker; a cold start is the wall time of "
        "the whole command. `python tests/benchmarks/bench_detector1.py` repeats it.",
        "",
        "| exposure | | Calweave | `jwst` | ratio | bar | |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
        *table.rows,
        "",
        *itertools.chain.from_iterable((note, "") for note in notes),
    ]  # fmt: skip
    return lines[:-1], table.met


def measure_scaling(folder: Path, table: Table) -> None:
    exposure = next((folder / STRIP).rglob("*_uncal.fits"))
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        done = run([sys.executable, __file__, "--scaling", str(exposure), str(out)], out, folder / STRIP / "crds")
    (_, one), *more = json.loads(done.printed)
    table.add(KINDS[STRIP].name + ", side by side", "wall of 1 on one core [s]", one, None, "", None)
    for number, wall in more:
        efficiency = number * one / (2 * wall)
        table.add("", f"efficiency of {number} on two cores", efficiency, None, "0.85", efficiency >= 0.85)


def measure_long(folder: Path, table: Table, notes: list[str]) -> None:
    home = folder / "long"
    path = home / "jw09801002001_04101_00001_nis_uncal.fits"
    home.mkdir(exist_ok=True)
    if not path.exists():
        short = next((folder / STRIP).rglob("*_uncal.fits"))
        subprocess.run([sys.executable, __file__, "--make-long", str(short), str(path)], check=True)
    out = home / "out"
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "flows.cli", "stage", "detector1", str(path), "--out", str(out)]
    done = run([*command, "--memory", LONG_MEMORY], out, folder / STRIP / "crds")
    shutil.rmtree(out)
    size = path.stat().st_size
    table.add(
        f"SUBSTRIP256 time series, {size / 1e9:.1f} GB", f"peak memory, --memory {LONG_MEMORY} [GiB]", done.memory, None,
        "1.5 GiB", done.memory <= 1.5,
    )  # fmt: skip
    table.add("", "wall of the whole command [s]", done.wall, None, "", None)
    notes.append(
        f"The time series takes {done.cpu:.0f} s of CPU, {done.cpu / size * 1e9:.1f} s for each GB of raw data."
    )


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", about.read_text()) if about.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


def _version(peer: str) -> str:
    if not peer:
        return "(not measured: set CALWEAVE_PEER_PYTHON)"
    code = "from importlib.metadata import version; print(version('jwst'))"
    return subprocess.run([peer, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def measured_on(peer: str) -> str:
    """When, on what machine and beside which release of the official package."""
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores ({_processor()}), {_memory():.0f} GiB of memory, "
        f"beside `jwst` {_version(peer)}."
    )


def put_into_readme(name: str, text: str) -> None:
    """Replace what stands between the marks of a benchmark."""
    readme = REPOSITORY / "README.md"
    start, end = f"<!-- bench_{name} -->\n", f"<!-- end of bench_{name} -->"
    before, rest = readme.read_text().split(start)
    readme.write_text(f"{before}{start}{text}\n{end}{rest.split(end)[1]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5, help="measurements of ours")
    parser.add_argument("--peer-repeat", type=int, default=3, help="processes of the official pipeline")
    parser.add_argument("--folder", type=Path, help="where the simulated exposures are, or are to be kept")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS), help="exposures to measure")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    for of_a_process in ("--scaling", "--make", "--make-long", "--floor"):
        parser.add_argument(of_a_process, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    if asked.worker:
        exposure, output, repeat = asked.worker
        print(json.dumps(worker(exposure, output, int(repeat))))
        return 0
    if asked.make:
        KINDS[asked.make[0]].make(Path(asked.make[1]))
        return 0
    if asked.make_long:
        make_long(*map(Path, asked.make_long))
        return 0
    if asked.floor:
        print(floor(*map(Path, asked.floor)))
        return 0
    if asked.scaling:
        print(json.dumps(scaling(*asked.scaling)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = (asked.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        lines, met = measure(folder, asked.only, asked.repeat, asked.peer_repeat)
    text = "\n".join(lines)
    print(text)
    report = REPOSITORY / "benchmarks" / "detector1.md"
    report.parent.mkdir(exist_ok=True)
    report.write_text("# Stage 1 beside the official pipeline\n\n" + text + "\n")
    if asked.readme:
        put_into_readme("detector1", text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
