"""Fit count rates to ramps."""

import logging

import numpy as np
from pydantic import BaseModel, Field

from calibration import dq
from calibration.ramps.ramp_fit import Rates, Timing, fit_ramps
from infra.products.image import Image
from infra.products.ramp import Ramp
from infra.references.content import ReferenceNotFound, References
from tasks.step import step

log = logging.getLogger(__name__)


class RampFitOptions(BaseModel, frozen=True, extra="forbid"):
    """Which groups are fitted."""

    suppress_one_group: bool = Field(True, description="give no rate to a ramp with only one good group")
    firstgroup: int | None = Field(None, ge=0, description="first group that is used, from 0")
    lastgroup: int | None = Field(None, ge=0, description="last group that is used, from 0")


@step("ramp_fit", references=("readnoise", "gain"), options=RampFitOptions)
def ramp_fit(ramp: Ramp, references: References, options: RampFitOptions) -> tuple[Image, Image | None]:
    """Fit count rates to ramps: those of the exposure, and of each integration where there are several."""
    subarray = ramp.header.subarray
    gain, readnoise = references.array("gain", "SCI", subarray), references.array("readnoise", "SCI", subarray)
    if gain is None or readnoise is None:
        raise ReferenceNotFound("ramp_fit needs a GAIN and a READNOISE reference file, but none matches this exposure")
    frame_time, group_time, nframes = ramp.header.require("TFRAME", "TGROUP", "NFRAMES")
    rate, rateints = fit_ramps(
        ramp.data,
        _select_groups(ramp.groupdq, options.firstgroup, options.lastgroup),
        ramp.pixeldq,
        gain,
        readnoise,
        Timing(frame_time, group_time, nframes),
        ramp.average_dark_current,
        ramp.zeroframe,
        options.suppress_one_group,
        drop_unused=ramp.header.get("INSTRUME") == "MIRI",
    )
    lost = np.count_nonzero(rate.dq & dq.PIXEL["DO_NOT_USE"])
    # One pixel in 16 tells the level; the median of all would take a quarter of the time of the fit.
    log.info("ramp_fit: median rate %.4g DN/s, %d pixels without", np.nanmedian(rate.data[::4, ::4]), lost)
    return _image(ramp, rate), None if rateints is None else _image(ramp, rateints)


def _select_groups(groupdq: np.ndarray, first: int | None, last: int | None) -> np.ndarray:
    ngroups = groupdq.shape[1]
    first, last = first or 0, ngroups - 1 if last is None else min(last, ngroups - 1)
    if first == 0 and last == ngroups - 1:
        return groupdq
    if first >= last:
        raise ValueError(
            f"ramp_fit needs firstgroup below lastgroup, but they are {first} and {last} of {ngroups} groups (from 0)"
        )
    selected = groupdq.copy()
    selected[:, :first] |= dq.GROUP["DO_NOT_USE"]
    selected[:, last + 1 :] |= dq.GROUP["DO_NOT_USE"]
    return selected


def _image(ramp: Ramp, rates: Rates) -> Image:
    return Image(
        header=ramp.header.set(BUNIT="DN/s"),
        data=rates.data,
        err=rates.err,
        dq=rates.dq,
        var_poisson=rates.var_poisson,
        var_rnoise=rates.var_rnoise,
        int_times=ramp.int_times if rates.data.ndim == 3 else None,
        recipe=ramp.recipe,
    )
