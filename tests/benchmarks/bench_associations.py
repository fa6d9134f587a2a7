"""Speed and memory of the association generator: against the official one, and up to 100 000 exposures.

Run by hand: ``CALWEAVE_PEER_PYTHON=... python tests/benchmarks/bench_associations.py [POOL]``. The pool is by default the
largest of ``../shared/fixtures/associations`` that gives associations, else a made-up one. Both generators are measured in
process, by CPU time, without their imports; ours is the median of five, the official one runs once. Writes the plot of
time against exposures into ``benchmarks/associations.png``. Bars: 100 times faster, 100 000 exposures in 60 s and 4 GB.
"""

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

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from tiny_pools import direct, exposure, grism, pool_text  # noqa: E402

from associations.generator import generate  # noqa: E402
from associations.pool import read_pool  # noqa: E402

HELPER = REPOSITORY / "tests" / "parity" / "peer_associations.py"
LARGEST = 100_000


def program(number: int) -> list[dict[str, str]]:
    """100 exposures of five observations: slitless spectra with direct images, nodded spectra, and a mosaic."""
    rows = []
    for observation in range(1, 6):
        tile = (("c1001", "mosaic"),) if observation < 3 else ()
        common = {"program": str(10000 + number)}
        for n in range(1, 21):
            if observation == 5:
                columns = {"exp_type": "nrs_msaspec", "instrume": "nirspec", "filter": "f170lp", "grating": "g235m",
                           "pupil": "null", "msametfl": "a.fits", "patt_num": str(n % 3 + 1), "numdthpt": "3",
                           "subpxpts": "1", "mostilno": str(n), "expspcin": str((n + 2) // 3)}  # fmt: skip
                rows.append(exposure(observation, n, "nrs1", **common, **columns))
            elif n % 5 == 0:
                rows.append(direct(observation, n, candidates=tile, expspcin=str(n), **common))
            else:
                rows.append(grism(observation, n, candidates=tile, expspcin=str(n), **common))
    return rows


def measure(text: str) -> tuple[int, float]:
    """Associations made, and CPU seconds to read the pool, make them and write their JSON."""
    start = time.process_time()
    made = generate(read_pool(text, "bench_pool.csv"))
    for association in made:
        association.to_json()
    return len(made), time.process_time() - start


def measure_peer(peer: str, pool: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([peer, HELPER, "generate", pool, folder], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def largest_fixture() -> Path | None:
    folder = REPOSITORY.parent / "shared" / "fixtures" / "associations" / "pools"
    pools = [path for path in folder.glob("*.csv") if measure(path.read_text())[0]]
    return max(pools, key=lambda path: path.read_text().count("\n"), default=None)


def main() -> int:
    logging.disable(logging.WARNING)
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else largest_fixture()
    ok = True
    with tempfile.TemporaryDirectory() as folder:
        if chosen is None:
            chosen = Path(folder) / "made_up_pool.csv"
            chosen.write_text(pool_text(*program(0)))
        text = chosen.read_text()
        made, _ = measure(text)
        ours = statistics.median(measure(text)[1] for _ in range(5))
        rows = len(read_pool(text, chosen.name).rows)
        print(f"{chosen.name}: {rows} exposures, {made} associations: {ours:.3f} s")
        peer = os.environ.get("CALWEAVE_PEER_PYTHON", "")
        if peer:
            theirs = measure_peer(peer, chosen)
            ok &= theirs >= 100 * ours
            print(f"  the official generator: {theirs:.2f} s, {theirs / ours:.0f} times as long (bar: 100)")
        else:
            print("  set CALWEAVE_PEER_PYTHON to compare with the official generator")

    counts, times = [], []
    for count in (LARGEST // 16, LARGEST // 4, LARGEST):
        text = pool_text(*(row for number in range(count // 100) for row in program(number)))
        made, seconds = measure(text)
        counts.append(count // 100 * 100)
        times.append(seconds)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{counts[-1]:7d} exposures, {made:7d} associations: {seconds:6.2f} s, {memory:.2f} GB at most")
    ok &= times[-1] < 60 and memory < 4
    plot(counts, times)
    return 0 if ok else 1


def plot(counts: list[int], times: list[float]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.loglog(counts, times, "o-", label="measured")
    axes.loglog(counts, [times[-1] * count / counts[-1] for count in counts], "--", color="0.6", label="linear")
    axes.set_xlabel("exposures")
    axes.set_ylabel("CPU time [s]")
    axes.legend()
    folder = REPOSITORY / "benchmarks"
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / "associations.png", dpi=120)
    print(f"wrote {folder / 'associations.png'}")


if __name__ == "__main__":
    sys.exit(main())
