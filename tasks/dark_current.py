"""Subtract the signal that the detector makes in the dark."""

import logging

import numpy as np
from pydantic import BaseModel, Field

from calibration.ramps.dark_current import is_dark_fine_enough, subtract_dark
from infra.products.ramp import Ramp
from infra.references.content import ReferenceInvalid, References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


class DarkCurrentOptions(BaseModel, frozen=True, extra="forbid"):
    """The average dark current, whose noise remains."""

    average_dark_current: float | None = Field(
        None, ge=0, description="average dark current for the Poisson variance, else that of the reference [e-/s]"
    )


@step("dark_current", references=("dark",), options=DarkCurrentOptions)
def dark_current(ramp: Ramp, references: References, options: DarkCurrentOptions) -> Ramp:
    """Subtract the signal that the detector makes in the dark."""
    about = references.header("dark")
    if about is None:
        raise StepSkipped("no DARK reference file matches this exposure")
    nframes, groupgap = ramp.header.require("NFRAMES", "GROUPGAP")
    of_dark = int(about["NFRAMES"]), int(about["GROUPGAP"])
    if not is_dark_fine_enough(nframes, groupgap, *of_dark):
        raise StepSkipped("the dark averages or drops more frames than the exposure")
    # One dark per subarray and readout: it is not cut.
    dark = references.on_disk("dark")
    if dark.shape[-2:] != ramp.data.shape[-2:]:
        raise ReferenceInvalid(
            f"{references.name('dark')} must have the rows and columns of the exposure, {ramp.data.shape[-2:]}, but has the "
            f"shape {dark.shape}: a dark is never cut; check SUBARRAY and the rules that chose it"
        )
    flags = references.dq("dark")
    if flags.ndim > 2:
        flags = np.bitwise_or.reduce(flags.reshape(-1, *flags.shape[-2:]), axis=0)
    data = subtract_dark(ramp.data, dark, nframes, groupgap, *of_dark, ramp.header.get("INTSTART", 1))
    log.info("dark_current: dark of %d groups, NFRAMES %d, GROUPGAP %d", dark.shape[-3], *of_dark)
    return ramp.with_(
        data=data,
        pixeldq=ramp.pixeldq | flags,
        average_dark_current=_average(references, options.average_dark_current, ramp.data.shape[-2:]),
    )


def _average(references: References, chosen: float | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """Average dark current [e-/s]: that of the user, else the map of the reference, else its number."""
    if chosen is None:
        if references.has("dark", "AVDRKCUR"):
            average = references.array("dark", "AVDRKCUR")
            if average.shape == shape and average.sum() != 0:
                return average.astype(np.float32, copy=False)
        chosen = float(references.header("dark").get("AVDRKCUR", 0))
    return np.full(shape, chosen, np.float32) if chosen else None
