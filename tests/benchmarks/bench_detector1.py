"""Stage 1 of a NIRISS full frame of ten groups, ours and the official pipeline's side by side, on the same files.

``CALWEAVE_PEER_PYTHON=... python tests/benchmarks/bench_detector1.py [--repeat 3] [--program FOLDER]``, where FOLDER holds a
program that this benchmark made before (default: it makes one, in a temporary folder). Each row of the table is a process
of its own, measured from outside for its peak memory; CPU is user and system time. "Warm" is the second exposure and later
in one process, files in and out included. Medians; the rows take turns, so that the load of the machine is fair to all.
Bars: warm CPU a tenth of the peer's, the wall time of a cold start a quarter, and 0.9 GiB. Writes ``benchmarks/detector1.md``.
"""

import argparse
import itertools
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
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

GIB = 2**30
#: Exposures that one worker process calibrates, of which the first is not counted.
EXPOSURES = 4

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


def worker(exposure: str, output: str, through_prefect: bool) -> list[tuple[float, float]]:
    """(CPU, wall) seconds of the imports, and of each of ``EXPOSURES`` exposures in this process."""
    laps = [(0.0, time.perf_counter())]

    def lap() -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        laps.append((usage.ru_utime + usage.ru_stime, time.perf_counter()))

    from infra.monitoring import quiet_prefect

    quiet_prefect()
    from flows.detector1 import detector1

    lap()
    for _ in range(EXPOSURES):
        if through_prefect:
            detector1(exposure, output)
        else:
            calibrate(exposure, output)
        lap()
    return [(c1 - c0, w1 - w0) for (c0, w0), (c1, w1) in itertools.pairwise(laps)]


def calibrate(exposure: str, output: str) -> None:
    """The flow ``detector1`` without Prefect."""
    from flows.detector1 import all_steps, gain_scale, ramp_fit, steps_for
    from flows.stage import prepare, save
    from infra.products.names import rename
    from infra.products.ramp import read_ramp
    from tasks.products import load

    ramp = load(exposure, read_ramp)
    references, options = prepare(ramp.header, all_steps(ramp.header), None, "detector1")
    for step in steps_for(ramp.header):
        ramp = step.fn(ramp, references, options)
    rate, _ = ramp_fit.fn(ramp, references, options)
    save(gain_scale.fn(rate, references, options), output, rename(exposure, "rate"), references)


def run(command: list[str], folder: Path, crds: Path) -> tuple[float, float, float, str]:
    """CPU and wall seconds and peak memory [GiB] of a process, and what it printed last.

    CPU and memory include the processes that it waited for.
    """
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
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024 / GIB, printed[-1] if printed else ""


def floor(exposure: Path, output: Path, crds: Path) -> str:
    """What moving the bytes costs on this machine, whatever is computed."""
    from flows.detector1 import all_steps
    from flows.stage import prepare
    from infra.products.ramp import read_ramp

    ramp = read_ramp(exposure)
    references, _ = prepare(ramp.header, all_steps(ramp.header), None, "detector1")
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
        f"Physical floor: uncal, {len(used)} references and rate are {files / 1e6:.0f} MB, the ramp in float32 "
        f"{ramp.data.nbytes / 1e6:.0f} MB. One core copies {bandwidth / 1e9:.1f} GB/s here: {files / bandwidth:.3f} s to move "
        f"the files once, {ramp.data.nbytes / bandwidth:.3f} s for each step that makes a new ramp."
    )


def make_exposure(folder: Path) -> None:
    from infra.synthetic.program import write_program

    write_program(folder, dithers=1, grism_dithers=1, ngroups=10)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3, help="processes of each kind")
    parser.add_argument("--program", type=Path, help="folder of a program made before, or to be made")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        kind, exposure, output = asked.worker
        print(json.dumps(worker(exposure, output, kind == "prefect")))
        return 0
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        program = (asked.program or folder / "program").resolve()
        if not (program / "uncal").exists():
            make_exposure(program)
        lines, ok = compare(folder, program, asked.repeat)
    text = "\n".join(lines)
    print(text)
    report = REPOSITORY / "benchmarks" / "detector1.md"
    report.parent.mkdir(exist_ok=True)
    report.write_text(text + "\n")
    return 0 if ok else 1


def compare(folder: Path, program: Path, repeat: int) -> tuple[list[str], bool]:
    """The lines of the report, and whether the bars are met."""
    crds, exposure = (
        program / "crds",
        max((program / "uncal").glob("*_uncal.fits"), key=lambda path: path.stat().st_size),
    )
    os.environ["CRDS_PATH"] = str(crds)
    peer = os.environ.get("CALWEAVE_PEER_PYTHON", "")
    out = {name: folder / name for name in ("ours", "peer")}
    for path in out.values():
        path.mkdir()
    arguments = [str(exposure), str(out["ours"])]
    kinds = {
        "ours, warm, steps called by .fn": [sys.executable, __file__, "--worker", "plain", *arguments],
        "ours, warm, Prefect flow": [sys.executable, __file__, "--worker", "prefect", *arguments],
        "ours, cold: calweave stage detector1": [
            sys.executable, "-m", "flows.cli", "stage", "detector1", str(exposure), "--out", str(out["ours"])
        ],
    }  # fmt: skip
    if peer:
        kinds["peer"] = [peer, "-c", PEER, str(exposure), str(out["peer"])]
    runs: dict[str, list[tuple[float, float, float, str]]] = {name: [] for name in kinds}
    # Compiles the kernels, makes the database of Prefect, brings the files into the page cache.
    run(kinds["ours, cold: calweave stage detector1"], folder, crds)
    for _ in range(repeat):
        for name, command in kinds.items():
            runs[name].append(run(command, folder, crds))

    warm, flow, cold = (rows_of(runs[name]) for name in list(kinds)[:3])
    table = [
        ("ours, warm in a worker, steps by `.fn`", *warm["warm"]),
        ("ours, warm in a worker, Prefect flow", *flow["warm"]),
        ("ours, first exposure of a worker, Prefect flow", *flow["first"]),
        ("ours, imports of a worker", *flow["imports"]),
        ("ours, cold start, `calweave stage detector1`, whole process", *cold["whole"]),
    ]
    verdicts = []
    ok = True

    def bar(what: str, value: float, limit: float) -> None:
        nonlocal ok
        ok &= value <= limit
        verdicts.append(f"- {what}: {value:.2f}, bar {limit:.2f}: {'met' if value <= limit else 'NOT met'}")

    bar("peak memory, cold start [GiB]", cold["whole"][2], 0.9)
    bar("peak memory, worker [GiB]", warm["warm"][2], 0.9)
    if peer:
        theirs = rows_of(runs["peer"])
        table += [
            ("peer, imports", *theirs["imports"]),
            ("peer, first exposure of a process", *theirs["first"]),
            ("peer, second exposure of a process", *theirs["warm"]),
        ]
        best = min(theirs["first"][0], theirs["warm"][0])
        bar("warm CPU over the peer's best", warm["warm"][0] / best, 1 / 10)
        bar("warm CPU through Prefect over the peer's best", flow["warm"][0] / best, 1 / 10)
        bar("cold wall over the peer's, imports and first exposure",
            cold["whole"][1] / (theirs["imports"][1] + theirs["first"][1]), 1 / 4)  # fmt: skip
    else:
        verdicts.append("- set CALWEAVE_PEER_PYTHON to compare with the official pipeline")
    rate = out["ours"] / exposure.name.replace("_uncal", "_rate")
    return [
        f"# detector1, NIRISS full frame, 1 integration of 10 groups ({exposure.stat().st_size / 1e6:.0f} MB)",
        "",
        f"Median of {repeat} processes, {os.cpu_count()} cores.",
        "",
        "| | CPU [s] | wall [s] | peak memory of the process [GiB] |",
        "| --- | ---: | ---: | ---: |",
        *(f"| {name} | {cpu:.2f} | {wall:.2f} | {memory:.2f} |" for name, cpu, wall, memory in table),
        "",
        *verdicts,
        "",
        floor(exposure, rate, crds),
    ], ok


def rows_of(runs: list[tuple[float, float, float, str]]) -> dict[str, tuple[float, float, float]]:
    """Medians of (CPU, wall, memory) of the whole processes, of their imports, of their first exposures, and of the others."""
    memory = statistics.median(peak for _, _, peak, _ in runs)

    def medians(laps: list[Any]) -> tuple[float, float, float]:
        return statistics.median(lap[0] for lap in laps), statistics.median(lap[1] for lap in laps), memory

    rows = {"whole": medians(runs)}
    if runs[0][3].startswith("["):
        laps = [json.loads(printed) for *_, printed in runs]
        rows |= {"imports": medians([each[0] for each in laps]), "first": medians([each[1] for each in laps])}
        rows["warm"] = medians([lap for each in laps for lap in each[2:]])
    return rows


if __name__ == "__main__":
    sys.exit(main())
