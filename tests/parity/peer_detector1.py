"""Runs the steps of stage 1 of the official package, one after the other, on files that our test made; by its interpreter.

Argument: a JSON file with a list of {name, exposure, references, steps, options}, beside which appears
``<name>_<step>.npz``; or of {name, exposure, pipeline, options, crds}: a whole pipeline, ``<name>_<pipeline>.npz``.
"""

import json
import logging
import os
import sys
import traceback
from pathlib import Path

import numpy as np
from jwst import pipeline
from jwst.charge_migration import ChargeMigrationStep
from jwst.clean_flicker_noise import CleanFlickerNoiseStep
from jwst.dark_current import DarkCurrentStep
from jwst.dq_init import DQInitStep
from jwst.emicorr import EmiCorrStep
from jwst.firstframe import FirstFrameStep
from jwst.flatfield import FlatFieldStep
from jwst.gain_scale import GainScaleStep
from jwst.group_scale import GroupScaleStep
from jwst.guider_cds import GuiderCdsStep
from jwst.ipc import IPCStep
from jwst.jump import JumpStep
from jwst.lastframe import LastFrameStep
from jwst.linearity import LinearityStep
from jwst.persistence import PersistenceStep
from jwst.picture_frame import PictureFrameStep
from jwst.ramp_fitting import RampFitStep
from jwst.refpix import RefPixStep
from jwst.reset import ResetStep
from jwst.rscd import RscdStep
from jwst.saturation import SaturationStep
from jwst.superbias import SuperBiasStep
from stdatamodels.jwst import datamodels

STEPS = {
    "charge_migration": ChargeMigrationStep, "dark_current": DarkCurrentStep, "dq_init": DQInitStep,
    "flat_field": FlatFieldStep, "gain_scale": GainScaleStep, "group_scale": GroupScaleStep,
    "guider_cds": GuiderCdsStep, "ipc": IPCStep, "jump": JumpStep, "linearity": LinearityStep,
    "persistence": PersistenceStep, "ramp_fit": RampFitStep, "refpix": RefPixStep, "saturation": SaturationStep,
    "superbias": SuperBiasStep, "firstframe": FirstFrameStep, "lastframe": LastFrameStep, "reset": ResetStep,
    "rscd": RscdStep, "emicorr": EmiCorrStep, "clean_flicker_noise": CleanFlickerNoiseStep,
    "picture_frame": PictureFrameStep,
}  # fmt: skip
RATES = ("data", "err", "dq", "var_poisson", "var_rnoise")
RAMPS = ("data", "pixeldq", "groupdq", "zeroframe")


def run(case: dict, folder: Path) -> None:
    if "pipeline" in case:
        # The client remembers the rules of a context by its name: each cache has a process of its own.
        child = os.fork()
        if child == 0:
            try:
                run_pipeline(case, folder)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"{case['name']}: {case['pipeline']} failed")
        return
    model = getattr(datamodels, case.get("model", "RampModel"))(case["exposure"])
    for name in case["steps"]:
        step = STEPS[name](**case["options"].get(name, {}))
        step.skip = False
        for reftype in step.reference_file_types:
            if case["references"].get(reftype):
                setattr(step, f"override_{reftype}", case["references"][reftype])
        model = step.run(model) if not isinstance(model, tuple) else tuple(step.run(one) for one in model)
        products = model if isinstance(model, tuple) else (model,)
        for suffix, one in zip(("", "ints"), products, strict=False):
            status = getattr(one.meta.cal_step, {"dark_current": "dark_sub"}.get(name, name))
            save(folder / f"{case['name']}_{name}{suffix}.npz", one, status)


def run_pipeline(case: dict, folder: Path) -> None:
    """The pipeline at its defaults, with the references of the cache; rates of the integrations come out as a file."""
    name = case["pipeline"]
    os.environ["CRDS_PATH"] = case["crds"]
    work = folder / f"{case['name']}_{name}"
    work.mkdir()
    made = getattr(pipeline, name).call(
        case["exposure"], steps=case["options"], save_results=True, output_dir=str(work)
    )
    save(folder / f"{case['name']}_{name}.npz", made, "COMPLETE")
    for path in work.glob("*_rateints.fits"):
        with datamodels.open(path) as ints:
            save(folder / f"{case['name']}_{name}ints.npz", ints, "COMPLETE")


def save(path: Path, model: datamodels.JwstDataModel, status: str) -> None:
    planes = {key: getattr(model, key) for key in {*RATES, *RAMPS, "int_times"} if model.hasattr(key)}
    np.savez(path, status=status, **planes)


if __name__ == "__main__":
    logging.disable(logging.INFO)
    jobs = Path(sys.argv[1])
    for job in json.loads(jobs.read_text()):
        run(job, jobs.parent)
