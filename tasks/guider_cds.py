"""Count rates of the fine guidance sensor's own exposures."""

import logging

import numpy as np

from calibration.ramps.guider_cds import difference_reads, estimate_error
from infra.products.guider import Guider
from infra.references.content import ReferenceInvalid, References
from tasks.step import NoOptions, StepSkipped, step

log = logging.getLogger(__name__)


@step("guider_cds", references=("gain", "readnoise"))
def guider_cds(guider: Guider, references: References, options: NoOptions) -> Guider:
    """Count rates of the fine guidance sensor's own exposures."""
    for reftype in ("gain", "readnoise"):
        if references.path(reftype) is None:
            raise StepSkipped(f"no {reftype.upper()} reference file matches this exposure")
    exp_type, group_time = guider.header.require("EXP_TYPE", "TGROUP")
    gain, readnoise = _reference(guider, references, "gain"), _reference(guider, references, "readnoise")
    signal = difference_reads(guider.data, exp_type)
    rate = signal / np.float32(group_time)
    log.info("guider_cds: %d images, brightest pixel %.1f DN/s", len(rate), np.nanmax(rate))
    return guider.with_(
        header=guider.header.set(BUNIT="DN/s"),
        data=rate,
        err=estimate_error(signal, gain, readnoise, group_time),
    )


def _reference(guider: Guider, references: References, reftype: str) -> np.ndarray:
    shape = guider.data.shape[-2:]
    try:
        cutout = references.array(reftype, "SCI", guider.header.subarray)
        if cutout.shape == shape:
            return cutout
    except ReferenceInvalid:
        if not guider.header["EXP_TYPE"].endswith("STACK"):
            raise
    # A stack is put together of strips: there is no one place on the detector, and the mean has to do.
    return np.full(shape, references.array(reftype, "SCI").mean(), np.float32)
