"""What the workflow itself costs: a plan and a dry campaign of thousands of exposures, and its share of a real program.

Run by hand: ``python tests/benchmarks/bench_workflow.py [--exposures 10000] [--size 512]``. CPU and wall time of this
process, without a Prefect server. The exposures of the campaign have the headers of a real program but no arrays, and
their stage flows do nothing; each node still writes its record. Bars: a plan of 10 000 exposures in 60 s; the campaign in
bounded memory; 0.3 s of wall time per node, and 5 % of the CPU of a real program, outside the stage flows.
"""

import argparse
import importlib
import logging
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from flows import making, program  # noqa: E402
from infra.synthetic.program import write_program  # noqa: E402

BLOCK = 2880


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--exposures", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        share(Path(folder) / "real", arguments.size)
        campaign(Path(folder) / "dry", arguments.exposures)


def share(folder: Path, size: int) -> None:
    """A real program: what of its time and CPU is not in the stage flows; and a second run, which makes nothing."""
    write_program(folder / "program", size=size)
    os.environ["CRDS_PATH"] = str(folder / "program" / "crds")
    inputs = [str(folder / "program")]
    program.calibrate(inputs, str(folder / "warm"), {}, 1)  # compiles
    inside = {"cpu": 0.0, "wall": 0.0, "report": 0.0}
    restore = [watched(stage, inside) for stage in making.STAGES]
    report = importlib.import_module("flows.report")
    write_report = report.write_report

    def timed(*args: Any) -> None:
        cpu = time.process_time()
        write_report(*args)
        inside["report"] += time.process_time() - cpu

    report.write_report = timed
    wall, cpu = time.monotonic(), time.process_time()
    run = program.calibrate(inputs, str(folder / "out"), {}, 1)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    nodes = len(run["nodes"])
    outside = cpu - inside["cpu"] - inside["report"]
    print(f"a real program, {size} x {size} pixels, {nodes} nodes: {wall:.1f} s, {cpu:.1f} s of CPU")
    print(f"  outside stage flows and report: {outside:.2f} s of CPU, {100 * outside / cpu:.1f} % (bar 5 %)")
    print(f"  per node, wall: {(wall - inside['wall'] - inside['report']) / nodes:.3f} s (bar 0.3 s)")
    wall, cpu = time.monotonic(), time.process_time()
    program.calibrate(inputs, str(folder / "out"), {}, 1)
    print(
        f"  a second run, which makes nothing: {time.monotonic() - wall:.1f} s, {time.process_time() - cpu:.1f} s of CPU"
    )
    for undo in restore:
        undo()
    report.write_report = write_report


def watched(stage: str, inside: dict[str, float]) -> Any:
    """Add up what a stage flow takes; returns what undoes it."""
    module = importlib.import_module(f"flows.{stage}")
    flow = getattr(module, stage)

    def timed(*args: Any, **more: Any) -> Any:
        wall, cpu = time.monotonic(), time.thread_time()
        try:
            return flow(*args, **more)
        finally:
            inside["cpu"] += time.thread_time() - cpu
            inside["wall"] += time.monotonic() - wall

    setattr(module, stage, timed)
    return lambda: setattr(module, stage, flow)


def campaign(folder: Path, count: int) -> None:
    """So many exposures with headers only: the plan, the run whose steps do nothing, and the plan after it."""
    write_exposures(folder, count)
    inputs, output = [str(folder)], str(folder.parent / "products")
    before = memory()
    page = timed_plan(inputs, output, f"the plan of {count} exposures, all new")
    print(f"  {len(page['nodes'])} nodes; bar 60 s")
    for stage in making.STAGES:
        setattr(importlib.import_module(f"flows.{stage}"), stage, lambda *args, **more: [])
    importlib.import_module("flows.report").write_report = lambda *args: None
    wall, cpu = time.monotonic(), time.process_time()
    run = program.calibrate(inputs, output, {}, 2)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    states = {node["state"] for node in run["nodes"]}
    nodes = len(run["nodes"])
    print(
        f"a dry campaign: {wall:.0f} s, {cpu:.0f} s of CPU, {1e3 * cpu / nodes:.1f} ms per node; all are {', '.join(states)}"
    )
    print(f"  memory: {before / 1e6:.0f} MB before, {memory() / 1e6:.0f} MB at most")
    timed_plan(inputs, output, "the plan after it")


def timed_plan(inputs: list[str], output: str, what: str) -> dict[str, Any]:
    """Plan, and print what it took."""
    wall, cpu = time.monotonic(), time.process_time()
    page = program.make_plan(inputs, output, {}, 2)
    took = f"{time.monotonic() - wall:.1f} s, {time.process_time() - cpu:.1f} s of CPU"
    print(f"{what}: {took}; {page['to_make']} to make, {page['current']} current")
    return page


def memory() -> int:
    """The largest memory of this process so far [bytes]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_exposures(folder: Path, count: int) -> None:
    """Programs of slitless observations, four exposures each: the headers of a simulated one with other numbers."""
    write_program(folder.parent / "template", size=64, ngroups=2, grism_ngroups=2, dithers=2, grism_dithers=1)
    os.environ["CRDS_PATH"] = str(folder.parent / "template" / "crds")
    templates = [path.read_bytes() for path in sorted((folder.parent / "template" / "uncal").glob("*.fits"))]
    starts = [content[: _end_of_science_header(content)] for content in templates]
    names = [path.name for path in sorted((folder.parent / "template" / "uncal").glob("*.fits"))]
    (folder / "uncal").mkdir(parents=True)
    for number in range(count):
        observation = number // 4
        program_id, observation_id = f"{1000 + observation // 900:05d}", f"{observation % 900 + 1:03d}"
        text, name = starts[number % 4], names[number % 4]
        new = f"jw{program_id}{observation_id}{name[10:]}"
        for before, after in (
            (name, new),
            ("V09801001", f"V{program_id}{observation_id}"),
            ("'09801001001'", f"'{program_id}{observation_id}001'"),
            ("PROGRAM = '09801", f"PROGRAM = '{program_id}"),
            ("OBSERVTN= '001", f"OBSERVTN= '{observation_id}"),
        ):
            text = text.replace(before.encode(), after.encode())
        (folder / "uncal" / new).write_bytes(text)


def _end_of_science_header(content: bytes) -> int:
    at = 0
    for _ in range(2):
        while b"END" + b" " * 77 not in content[at : at + BLOCK]:
            at += BLOCK
        at += BLOCK
    return at


if __name__ == "__main__":
    main()
