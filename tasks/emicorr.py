"""Remove interference of known frequency from MIRI ramps."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from calibration.ramps.emicorr import Clock, remove_interference
from infra.products.ramp import Ramp
from infra.references.content import ReferenceInvalid, References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)

#: Readout patterns that are known; those with R1 have a reset frame between integrations.
PATTERNS = ("FAST", "FASTR1", "SLOW", "SLOWR1")


class EmicorrOptions(BaseModel, frozen=True, extra="forbid"):
    """How the wave is fitted."""

    fit_ints_separately: bool = Field(False, description="fit height and phase for each integration by itself")


@step("emicorr", references=("emicorr",), options=EmicorrOptions, default=False)
def emicorr(ramp: Ramp, references: References, options: EmicorrOptions) -> Ramp:
    """Remove interference of known frequency from MIRI ramps."""
    tree = references.asdf("emicorr")
    if tree is None:
        raise StepSkipped("no EMICORR reference file matches this exposure")
    subarray, pattern, detector, nsamples = ramp.header.require("SUBARRAY", "READPATT", "DETECTOR", "NSAMPLES")
    if pattern not in PATTERNS:
        raise StepSkipped(f"the readout {pattern} is none of {', '.join(PATTERNS)}")
    if ramp.data.shape[1] < 3:
        raise StepSkipped("interference cannot be told from a slope with fewer than 3 groups")
    speed = pattern.removesuffix("R1")
    case = tree["subarray_cases"].get(f"FULL_{speed}" if subarray == "FULL" else subarray)
    names = case["freqs"].get(speed) if case is not None else None
    if names is not None and speed == "SLOW":
        names = names.get(detector)
    if case is None or not names:
        raise StepSkipped(
            f"the EMICORR reference file has no waves for the subarray {subarray} and the readout {pattern}"
        )
    clock = Clock(int(case["rowclocks"]), int(case["frameclocks"]) if pattern.endswith("R1") else 0)
    data = ramp.data
    for name in names:
        frequency, wave = _wave(tree, name, references.name("emicorr"))
        data, heights = remove_interference(
            data, ramp.pixeldq, wave, frequency, clock, nsamples, options.fit_ints_separately
        )
        log.info("emicorr: %.6g Hz, %.3g DN rms", frequency, np.abs(heights).mean() * wave.std())
    return ramp.with_(data=data)


def _wave(tree: Mapping[str, Any], name: str, file_name: str | None) -> tuple[float, np.ndarray]:
    entry = tree["frequencies"].get(name)
    if entry is None:
        raise ReferenceInvalid(
            f"{file_name}: its subarray_cases name the wave {name}, but its frequencies have only "
            f"{', '.join(tree['frequencies'])}; choose another reference file"
        )
    frequency, wave = float(entry["frequency"]), np.asarray(entry["phase_amplitudes"], np.float64)
    if not frequency > 0 or wave.ndim != 1 or wave.size < 2 or not np.isfinite(wave).all():
        raise ReferenceInvalid(
            f"{file_name}: the wave {name} must have a frequency above 0 and 2 or more finite values, but has {frequency} Hz "
            f"and an array of the shape {wave.shape}; choose another reference file"
        )
    return frequency, wave
