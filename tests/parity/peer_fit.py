"""Runs jump or ramp_fit of the official package on ramps that our test made; by its interpreter.

Argument: a JSON file with a list of {name, exposure, step, references, options}, beside which appears ``<name>.npz``: group
flags, or the planes of the rate (``data`` ...), of the rates of the integrations (``ints_data`` ...), of the fit output
(``opt_slope`` ...), and chi squared.
"""

import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
from jwst.jump import JumpStep
from jwst.ramp_fitting import RampFitStep
from stdatamodels.jwst import datamodels

RATES = ("data", "err", "dq", "var_poisson", "var_rnoise")
FIT = ("slope", "sigslope", "var_poisson", "var_rnoise", "yint", "sigyint", "pedestal", "weights", "crmag")


def run(case: dict, folder: Path) -> None:
    work = folder / case["name"]
    work.mkdir()
    os.chdir(work)
    with datamodels.RampModel(case["exposure"]) as model:
        step = {"jump": JumpStep, "ramp_fit": RampFitStep}[case["step"]](**case["options"])
        for reftype, path in case["references"].items():
            setattr(step, f"override_{reftype}", path)
        made = step.run(model)
    planes = {}
    if case["step"] == "jump":
        planes["groupdq"], planes["pixeldq"] = made.groupdq, made.pixeldq
    else:
        for prefix, one in zip(("", "ints_"), made, strict=True):
            planes |= {prefix + key: getattr(one, key) for key in RATES}
        for path in work.glob("*_fitopt.fits"):
            with datamodels.RampFitOutputModel(path) as fit:
                planes |= {f"opt_{key}": np.array(getattr(fit, key)) for key in FIT}
        for path in work.glob("*_likely_chisq.fits"):
            with datamodels.ImageModel(path) as chi_squared:
                planes["chi_squared"] = np.array(chi_squared.data)
    np.savez(folder / f"{case['name']}.npz", **planes)


if __name__ == "__main__":
    logging.disable(logging.INFO)
    jobs = Path(sys.argv[1])
    for job in json.loads(jobs.read_text()):
        run(job, jobs.parent)
