"""Subtract the drift of the readout that the reference pixels see."""

import logging

import numpy as np
from pydantic import BaseModel, Field

from calibration import dq
from calibration.ramps.refpix import (
    MIRI_SHAPE,
    Readout,
    count_reference_pixels,
    subtract_mid_infrared_reference_pixels,
    subtract_reference_pixels,
)
from infra.products.header import ProductError
from infra.products.ramp import Ramp
from infra.references.content import References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)

#: NIRSpec subarrays without reference pixels, whose first and last four columns take their place.
EDGELESS = ("SUB512", "SUB512S", "SUB32")


class RefpixOptions(BaseModel, frozen=True, extra="forbid"):
    """Which reference pixels are used, and how they are averaged."""

    odd_even_columns: bool = Field(True, description="even and odd columns have offsets of their own")
    use_side_ref_pixels: bool = Field(True, description="follow the drift from row to row with the side pixels")
    side_smoothing_length: int = Field(11, ge=1, le=2047, description="height of the running median [pixel]")
    side_gain: float = Field(1.0, description="factor on the signal of the side pixels")
    odd_even_rows: bool = Field(True, description="even and odd rows of MIRI have a drift of their own")
    siglimit: float = Field(3.0, gt=0, description="clipping of the means of reference pixels [sigma]")


@step("refpix", options=RefpixOptions)
def refpix(ramp: Ramp, references: References, options: RefpixOptions) -> Ramp:
    """Subtract the drift of the readout that the reference pixels see."""
    header = ramp.header
    if "IRS2" in header.get("READPATT", "") or "MSTR_RD1" in header:
        kind = "multistripe" if "MSTR_RD1" in header else header["READPATT"]
        raise ProductError(
            f"{header.get('FILENAME', 'the exposure')}: refpix cannot correct {kind} data yet; skip it with "
            "-p refpix.skip=true"
        )
    if header.require("INSTRUME") == "MIRI":
        if ramp.data.shape[-2:] != MIRI_SHAPE:
            raise StepSkipped("subarrays of MIRI are not corrected")
        log.info("refpix: drift since the first group, by amplifier")
        data = subtract_mid_infrared_reference_pixels(ramp.data, ramp.pixeldq, options.odd_even_rows, options.siglimit)
        return ramp.with_(data=data)
    fastaxis, slowaxis, noutputs = header.require("FASTAXIS", "SLOWAXIS", "NOUTPUTS")
    readout = Readout(header.subarray, fastaxis, slowaxis, noutputs)
    pixeldq = ramp.pixeldq
    if header["INSTRUME"] == "NIRSPEC" and header.get("SUBARRAY") in EDGELESS:
        pixeldq = pixeldq.copy()
        pixeldq[:, :4] |= dq.PIXEL["REFERENCE_PIXEL"]
        pixeldq[:, -4:] |= dq.PIXEL["REFERENCE_PIXEL"]
    count = count_reference_pixels(pixeldq, readout)
    if count == 0:
        raise StepSkipped("the exposure has no usable reference pixels")

    def corrected(data: np.ndarray) -> np.ndarray:
        return subtract_reference_pixels(
            data,
            pixeldq,
            readout,
            options.odd_even_columns,
            options.use_side_ref_pixels,
            options.side_smoothing_length,
            options.side_gain,
            options.siglimit,
        )

    zeroframe = ramp.zeroframe
    if zeroframe is not None:
        zeroframe = np.where(zeroframe == 0, np.float32(0), corrected(zeroframe[:, None])[:, 0])
    log.info("refpix: offsets from %d reference pixels", count)
    return ramp.with_(data=corrected(ramp.data), zeroframe=zeroframe)
