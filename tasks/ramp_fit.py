"""Fit count rates to ramps."""

import logging
from dataclasses import fields
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from calibration import dq
from calibration.ramps.fit_output import fit_ramps_and_segments
from calibration.ramps.ramp_fit import Rates, Timing, fit_ramps
from calibration.ramps.ramp_likelihood import FEWEST_GROUPS, fit_ramps_by_likelihood
from calibration.strips import map_rows, rows_of, zeros
from infra.products.fit_output import FitOutput
from infra.products.image import Image
from infra.products.ramp import Ramp
from infra.references.content import ReferenceNotFound, References
from tasks.step import step

log = logging.getLogger(__name__)


class RampFitOptions(BaseModel, frozen=True, extra="forbid"):
    """How ramps are fitted, and which groups."""

    algorithm: Literal["OLS_C", "LIKELY"] = Field(
        "OLS_C",
        description="weighted least squares of the stretches between jumps, or greatest likelihood (4 groups or more)",
    )
    save_opt: bool = Field(
        False, description="write what the fit found: _fitopt, or with LIKELY chi squared, _likely_chisq"
    )

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
    arrays = (
        ramp.data,
        _select_groups(ramp.groupdq, options.firstgroup, options.lastgroup),
        ramp.pixeldq,
        gain,
        readnoise,
        Timing(frame_time, group_time, nframes),
        ramp.average_dark_current,
        ramp.zeroframe,
    )
    likely = options.algorithm == "LIKELY" and ramp.data.shape[1] >= FEWEST_GROUPS
    side: dict[str, Any] = {}
    if likely:
        rate, rateints, chi_squared = fit_ramps_by_likelihood(*arrays)
        if options.save_opt:
            header = ramp.header.set(BUNIT="")
            side["likely_chisq"] = Image(header, chi_squared, np.zeros_like(chi_squared), None, recipe=ramp.recipe)
    else:
        if options.algorithm == "LIKELY":
            log.warning("ramp_fit: LIKELY needs %d groups, there are %d: OLS_C", FEWEST_GROUPS, ramp.data.shape[1])
        how = {"suppress_one_group": options.suppress_one_group, "drop_unused": ramp.header.get("INSTRUME") == "MIRI"}
        if options.save_opt:
            rate, rateints, segments = fit_ramps_and_segments(*arrays, **how)
            planes = {plane.name: getattr(segments, plane.name) for plane in fields(segments)}
            side["fitopt"] = FitOutput(ramp.header, **planes, recipe=ramp.recipe)
        else:
            rate, rateints = fit_ramps(*arrays, **how)
    lost = np.count_nonzero(rate.dq & dq.PIXEL["DO_NOT_USE"])
    # One pixel in 16 tells the level; the median of all would take a quarter of the time of the fit.
    log.info("ramp_fit: median rate %.4g DN/s, %d pixels without", np.nanmedian(rate.data[::4, ::4]), lost)
    return _image(ramp, rate).with_(side=side), None if rateints is None else _image(ramp, rateints)


def _select_groups(groupdq: np.ndarray, first: int | None, last: int | None) -> np.ndarray:
    ngroups = groupdq.shape[1]
    first, last = first or 0, ngroups - 1 if last is None else min(last, ngroups - 1)
    if first == 0 and last == ngroups - 1:
        return groupdq
    if first >= last:
        raise ValueError(
            f"ramp_fit needs firstgroup below lastgroup, but they are {first} and {last} of {ngroups} groups (from 0)"
        )
    selected = zeros(groupdq, groupdq.shape, np.uint8)

    def work(rows: slice) -> None:
        flags, top = rows_of(groupdq, rows)
        chosen = flags[:, :, rows.start - top : rows.stop - top].copy()
        chosen[:, :first] |= dq.GROUP["DO_NOT_USE"]
        chosen[:, last + 1 :] |= dq.GROUP["DO_NOT_USE"]
        selected[..., rows, :] = chosen

    map_rows(work, groupdq)
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
