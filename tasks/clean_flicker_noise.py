"""Remove 1/f noise of the readout from ramps."""

import logging
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from calibration.ramps.flicker_noise import background_pixels
from calibration.ramps.flicker_noise import clean_flicker_noise as clean
from calibration.ramps.ramp_fit import Timing, fit_ramps
from infra.products.header import ProductError
from infra.products.ramp import Ramp
from infra.references.content import ReferenceNotFound, References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


class CleanFlickerNoiseOptions(BaseModel, frozen=True, extra="forbid"):
    """What is taken for background, and how the noise is fitted to it."""

    fit_by_channel: bool = Field(False, description="fit the amplifiers of a full frame one by one")
    background_method: Literal["median", "model", "none"] = Field(
        "median", description="background of a difference of groups: one level, a smooth map, or none"
    )
    background_box_size: tuple[int, int] | None = Field(
        None, description="box of the smooth map: rows, columns [pixel]"
    )
    apply_flat_field: bool = Field(False, description="divide by the flat before the fit, multiply after")
    n_sigma: float = Field(2.0, ge=0, description="clipping of what is not background [sigma]")
    single_mask: bool = Field(True, description="one mask of sources for all integrations")


@step(
    "clean_flicker_noise",
    references=("gain", "readnoise", "flat"),
    options=CleanFlickerNoiseOptions,
    default=False,
)
def clean_flicker_noise(ramp: Ramp, references: References, options: CleanFlickerNoiseOptions) -> Ramp:
    """Remove 1/f noise of the readout from ramps."""
    header = ramp.header
    exp_type, slow_axis = header.require("EXP_TYPE", "SLOWAXIS")
    if exp_type.startswith("MIR") and exp_type != "MIR_IMAGE":
        raise StepSkipped(f"not for {exp_type}")
    subarray = header.subarray
    gain, readnoise = references.array("gain", "SCI", subarray), references.array("readnoise", "SCI", subarray)
    if gain is None or readnoise is None:
        raise ReferenceNotFound("clean_flicker_noise needs a GAIN and a READNOISE reference file")
    timing = Timing(*header.require("TFRAME", "TGROUP", "NFRAMES"))
    rate, rateints = fit_ramps(
        ramp.data, ramp.groupdq, ramp.pixeldq, gain, readnoise, timing, ramp.average_dark_current, ramp.zeroframe
    )
    flat = _flat(ramp, references) if options.apply_flat_field else None
    draft = rate.data if options.single_mask else rateints.data
    if flat is not None:
        draft = draft / flat
    if options.single_mask:
        mask = background_pixels(draft, options.n_sigma)
    else:
        mask = np.stack([background_pixels(one, options.n_sigma) for one in draft])
    data = clean(
        ramp.data,
        ramp.groupdq,
        mask,
        0 if exp_type.startswith("MIR") else abs(slow_axis) - 1,
        options.background_method,
        options.background_box_size,
        options.n_sigma,
        options.fit_by_channel and header.get("SUBARRAY") == "FULL" and not exp_type.startswith("MIR"),
        flat,
    )
    removed = np.std(data[:, -1] - ramp.data[:, -1]) if ramp.data.shape[1] > 1 else 0.0
    log.info(
        "clean_flicker_noise: %.3g DN rms removed, %.1f %% of the pixels are background", removed, 100 * mask.mean()
    )
    return ramp.with_(data=data)


def _flat(ramp: Ramp, references: References) -> np.ndarray:
    flat = references.array("flat", "SCI", ramp.header.subarray)
    if flat is None:
        raise ProductError(
            "clean_flicker_noise.apply_flat_field needs a FLAT reference file, but none matches; switch it off"
        )
    good = np.isfinite(flat) & (flat != 0)
    return np.where(good, flat, np.float32(np.median(flat[good])))
