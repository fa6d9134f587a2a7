"""Stage 1 of a full frame of each imager, ours beside the official pipeline's: in how many pixels the products differ.

``CALWEAVE_PEER_PYTHON=... python tests/benchmarks/bench_full_frame_parity.py [PRESET ...]``. Too large for continuous
integration, which compares subarrays of the same instruments step by step (``tests/parity``). The bars are those of
``stage1_parity``: 1e-4 of the pixels. Beside them stands the truth: the mean ratio of rate and true rate of stars at a
signal-to-noise ratio above 20, and the width of (rate - true rate) / ERR. The ratio is chosen by ERR, which is smaller where
noise made the rate smaller; the bars on the truth are those of ``tests/tasks/test_stage1_truth.py``, on level light.
Writes ``benchmarks/full_frame_parity.md``.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from stage1_parity import SHARE, differences, load, pipeline_job, run_jobs  # noqa: E402

from infra.products.image import read_image  # noqa: E402
from infra.synthetic.presets import EXPOSURES  # noqa: E402

PRESETS = ("nircam-image", "niriss-image", "fgs-image", "miri-image")
NGROUPS = 5
COLUMNS = ("flags", "jumps only", "NaN", "rate", "var_poisson", "var_rnoise", "err")


def compare(preset: str, folder: Path, peer: str) -> list[str]:
    """One row of the table."""
    exposure = EXPOSURES[preset](folder / "exposure", nints=1, ngroups=NGROUPS, seed=31)
    run_jobs(peer, folder, [pipeline_job("peer", exposure.uncal, exposure.crds)])
    command = [sys.executable, "-m", "flows.cli", "stage", "detector1", exposure.uncal, "--out", folder / "ours"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CRDS_")}
    subprocess.run(
        [*command, "--crds", exposure.crds], cwd=REPOSITORY, env=environment, check=True, capture_output=True
    )
    (path,) = (folder / "ours").glob("*_rate.fits")
    image = read_image(path)
    share = differences(image, load(folder, "peer", "Detector1Pipeline"))
    good = np.isfinite(image.data) & (image.dq == 0) & (exposure.rate > 0)
    bright = good & (exposure.rate > 20 * image.err)
    ratio = np.mean(image.data[bright] / exposure.rate[bright]) - 1
    pull = np.std((image.data - exposure.rate)[good] / image.err[good])
    cells = [f"{share[name]:.1e}" + ("" if share[name] <= SHARE else " (!)") for name in COLUMNS]
    return [preset, *cells, f"{ratio:+.1e} ({bright.sum()})", f"{pull:.3f}"]


def main() -> None:
    peer = os.environ.get("CALWEAVE_PEER_PYTHON", "")
    if not peer:
        sys.exit("CALWEAVE_PEER_PYTHON must name the Python interpreter that has the official jwst package (make peer)")
    heads = ["exposure", *COLUMNS, "ratio to truth - 1 (pixels)", "pull"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for preset in sys.argv[1:] or PRESETS:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(f"| {' | '.join(compare(preset, Path(folder), peer))} |")
        print(lines[-1], flush=True)
    table = "\n".join(lines)
    (REPOSITORY / "benchmarks" / "full_frame_parity.md").write_text(
        f"Share of pixels that differ from jwst 3.0.0 by more than the bars; 1 integration of {NGROUPS} groups.\n\n{table}\n"
    )


if __name__ == "__main__":
    main()
