"""Runs single steps of the official package on files that our test made; by its interpreter.

Argument: a JSON file with a list of {name, step, model, exposure, options, references}. Of each appears, in the folder
``name`` beside it, ``made.npz`` with the arrays of the product and its status, and what the step itself writes.
"""

import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
from jwst.charge_migration import ChargeMigrationStep
from jwst.clean_flicker_noise import CleanFlickerNoiseStep
from jwst.emicorr import EmiCorrStep
from jwst.firstframe import FirstFrameStep
from jwst.lastframe import LastFrameStep
from jwst.persistence import PersistenceStep
from jwst.pipeline import GuiderPipeline
from jwst.reset import ResetStep
from jwst.rscd import RscdStep
from stdatamodels.jwst import datamodels

STEPS = {
    "charge_migration": ChargeMigrationStep, "clean_flicker_noise": CleanFlickerNoiseStep,
    "emicorr": EmiCorrStep, "firstframe": FirstFrameStep, "guider": GuiderPipeline, "lastframe": LastFrameStep,
    "persistence": PersistenceStep, "reset": ResetStep, "rscd": RscdStep,
}  # fmt: skip


def run(case: dict, folder: Path) -> None:
    work = folder / case["name"]
    work.mkdir(exist_ok=True)
    os.chdir(work)
    step = STEPS[case["step"]](**case["options"])
    step.skip = False
    if case["step"] == "guider":
        made, status = step.run(case["exposure"]), "COMPLETE"
    else:
        for reftype, path in case["references"].items():
            setattr(step, f"override_{reftype}", path)
        made = step.run(getattr(datamodels, case["model"])(case["exposure"]))
        status = getattr(made.meta.cal_step, case["step"])
    planes = {name: getattr(made, name) for name in ("data", "err", "dq", "pixeldq", "groupdq") if made.hasattr(name)}
    np.savez("made.npz", status=status, **planes)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    jobs = Path(sys.argv[1])
    for job in json.loads(jobs.read_text()):
        run(job, jobs.parent)
