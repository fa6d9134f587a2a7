"""Kill runs of a small program at random moments, run again, and compare what is left with an undisturbed run.

    python tests/kills.py FOLDER --kills 200 --seed 1

A script of its own, because it forks: everything is imported and compiled once, and each run is a fork of it that is
killed with SIGKILL at a random time of its life. A round starts from an empty folder or from the tree of a run with
other options, and goes on until a run ends by itself; then the tree must be that of a clean run. With
``--engine processes`` it is the workers that are killed, and the run must get over it.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

OPTIONS = ({}, {"source_catalog": {"snr_threshold": 5.0}, "combine_1d": {"skip": True}})


def main() -> None:
    """Run the campaign; print one line of JSON, and end with 1 where a tree differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", default="threads", choices=("threads", "processes"))
    parser.add_argument("--program", type=Path, help="a program that is there; default: one is simulated into FOLDER")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)

    from small_program import EPOCH, SmallProgram, tree

    from infra.synthetic.program import write_program

    folder = arguments.folder
    program = SmallProgram(arguments.program or folder / "program", folder / "work")
    if not program.folder.exists():
        write_program(program.folder, size=192, ngroups=3, grism_ngroups=3, dithers=2, grism_dithers=1)
    os.environ |= {"SOURCE_DATE_EPOCH": EPOCH, "CRDS_PATH": str(program.crds)}
    clean, seconds = [], []
    for number, overrides in enumerate(OPTIONS):
        shutil.rmtree(folder / f"clean{number}", ignore_errors=True)
        run = program.run(overrides, out=folder / f"clean{number}")
        failed = [node["error"] for node in run["nodes"] if node["state"] != "done"]
        if failed:
            raise RuntimeError(f"an undisturbed run failed: {failed}")
        clean.append(tree(folder / f"clean{number}"))
    shutil.rmtree(program.products, ignore_errors=True)
    program.run(OPTIONS[0])  # with everything compiled
    clock = time.monotonic()
    shutil.rmtree(program.products)
    program.run(OPTIONS[0])
    seconds = time.monotonic() - clock
    assert threading.active_count() == 1, "a fork would take only one thread along"

    result = {"kills": 0, "runs": 0, "rounds": 0, "seconds": seconds, "during_write": 0, "wrong": []}
    disturb = kill_run if arguments.engine == "threads" else kill_workers
    number = 0
    while result["kills"] < arguments.kills:
        if rng.random() < 0.5:
            shutil.rmtree(program.products, ignore_errors=True)
        number = int(rng.integers(len(OPTIONS)))
        disturb(program, OPTIONS[number], arguments, result, rng)
        result["rounds"] += 1
        left = tree(program.products)
        differ = sorted(
            name for name in left.keys() | clean[number].keys() if left.get(name) != clean[number].get(name)
        )
        if differ:
            result["wrong"].append({"round": result["rounds"], "options": number, "files": differ})
            shutil.copytree(program.products, folder / f"wrong{result['rounds']}")
    print(json.dumps(result))
    sys.exit(1 if result["wrong"] else 0)


def start(program, overrides, engine) -> int:
    """Fork a run; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        run = program.run(overrides, engine=engine)
        states = {node["state"] for node in run["nodes"]}
        os._exit(0 if states <= {"done", "current"} else 3)
    except BaseException:
        os._exit(4)


def kill_run(program, overrides, arguments, result, rng) -> None:
    """Kill runs of one round at random moments, until one ends."""
    while True:
        child = start(program, overrides, "threads")
        result["runs"] += 1
        if result["kills"] < arguments.kills and not ended(child, rng.uniform(0, result["seconds"] * 1.1)):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            result["kills"] += 1
            result["during_write"] += any(program.products.rglob(".part-*"))
        elif finish(child) == 0:
            return


def kill_workers(program, overrides, arguments, result, rng) -> None:
    """Kill random workers of a run now and then; it is run again where a node failed of it."""
    while True:
        child = start(program, overrides, "processes")
        result["runs"] += 1
        while not ended(child, rng.uniform(0.1, result["seconds"] / 2)):
            workers = workers_of(child)
            if workers and result["kills"] < arguments.kills:
                os.kill(int(rng.choice(workers)), signal.SIGKILL)
                result["kills"] += 1
        if finish(child) == 0:
            return


def ended(child: int, seconds: float) -> bool:
    """Whether a child ends within so many seconds; it stays to be waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        time.sleep(0.01)
    return False


def finish(child: int) -> int:
    """The exit code of a child, when it has ended; 4 is an exception, which no kill of a worker may cause."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 3):
        raise RuntimeError(f"a run ended with {code}")
    return code


def workers_of(child: int) -> list[int]:
    """The worker processes of a run: children of the fork server, which is a child of the run."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    servers = {pid for pid, parent in parents.items() if parent == child}
    return sorted(pid for pid, parent in parents.items() if parent in servers)


if __name__ == "__main__":
    main()
