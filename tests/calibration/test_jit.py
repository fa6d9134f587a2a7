"""Kernels are compiled once for each version of the sources, and never again at run time."""

import os
import subprocess
import sys
from pathlib import Path

from calibration import jit

CODE = """
import sys, tempfile
from pathlib import Path
from numba.core import event

sys.path.insert(0, "tests")
from hard_ramps import Exposure, make_exposure
from flows.detector1 import steps_for
from tasks.ramp_fit import ramp_fit
from tasks.step import Options

compiled = event.RecordingListener()
event.register("numba:compile", compiled)
exposures = (
    Exposure("nir", (2, 5, 16, 2048), start=(1, 1), noutputs=1, zeroframe=True, nframes=2),
    Exposure("mir", (2, 7, 8, 72), "MIRI", "MIRIMAGE", cards={"EXP_TYPE": "MIR_IMAGE", "READPATT": "FASTR1"}),
)
for exposure in exposures:
    with tempfile.TemporaryDirectory() as folder:
        ramp, references = make_exposure(Path(folder), exposure)
        for step in (*steps_for(ramp.header), ramp_fit):
            ramp = step(ramp, references, Options())
names = {record.data["dispatcher"].py_func.__name__ for _, record in compiled.buffer}
print("compiled", " ".join(sorted(names)))
"""


def compile_in_a_new_process(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "PYTHONPATH": ".", **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip().splitlines()[-1]


def test_nothing_is_compiled_on_a_warm_cache():
    compile_in_a_new_process()
    assert compile_in_a_new_process() == "compiled"


def test_a_module_gets_new_kernels_when_what_it_imports_changes(tmp_path, monkeypatch):
    room = tmp_path / "calibration"
    (room / "ramps").mkdir(parents=True)
    (room / "dq.py").write_text("SATURATED = 2\n")
    (room / "other.py").write_text("A = 1\n")
    (room / "ramps" / "level.py").write_text("from calibration import dq\n")
    (room / "ramps" / "fit.py").write_text("from calibration.ramps.level import something\n")
    monkeypatch.setattr(jit, "_ROOM", room)
    fit = room / "ramps" / "fit.py"

    def digest() -> str:
        jit.digest_of.cache_clear()
        jit._imports.cache_clear()
        return jit.digest_of(fit)

    before = digest()
    (room / "other.py").write_text("A = 2\n")
    assert digest() == before
    (room / "dq.py").write_text("SATURATED = 4\n")
    assert digest() != before
