"""Subtract the drift of the readout that the reference pixels see."""

import logging
import os
from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from calibration import dq, interleaving
from calibration.ramps import irs2
from calibration.ramps.refpix import (
    MIRI_SHAPE,
    Readout,
    SideKernels,
    count_reference_pixels,
    prepare_side_kernels,
    subtract_mid_infrared_reference_pixels,
    subtract_reference_pixels,
)
from calibration.strips import zeros
from infra.products.header import Header, ProductError
from infra.products.ramp import Ramp
from infra.references.content import ReferenceNotFound, References
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
    refpix_algorithm: Literal["median", "sirs"] = Field(
        "median", description="side pixels of a whole near-infrared detector: running median, or the kernels of SIRS"
    )
    sigreject: float = Field(4.0, gt=0, description="clipping of the side pixels for SIRS [sigma]")
    gaussmooth: float = Field(1.0, gt=0, description="width of the Gaussian that smooths the kernels of SIRS [row]")
    halfwidth: int = Field(30, ge=0, le=1023, description="rows of a kernel of SIRS on each side of its middle")
    ovr_corr_mitigation_ftr: float = Field(
        3.0, gt=0, description="how far above the others a bad interleaved reference pixel of IRS2 is [sigma]"
    )
    irs2_mean_subtraction: bool = Field(False, description="subtract the means of reference pixels before IRS2")
    preserve_irs2_refpix: bool = Field(False, description="leave the reference pixels of IRS2 in the frames")

    @property
    def reftypes(self) -> tuple[str, ...]:
        """Reference types that these options need, beside those that all do."""
        return ("sirskernel",) if self.refpix_algorithm == "sirs" else ()


def wanted(header: Header) -> tuple[str, ...]:
    """Reference types of the step."""
    return ("refpix",) if "IRS2" in header.get("READPATT", "") else ()


@step("refpix", references=wanted, options=RefpixOptions)
def refpix(ramp: Ramp, references: References, options: RefpixOptions) -> Ramp:
    """Subtract the drift of the readout that the reference pixels see."""
    header = ramp.header
    if "MSTR_RD1" in header:
        raise ProductError(
            f"{header.get('FILENAME', 'the exposure')}: refpix cannot correct multistripe data yet; skip it with "
            "-p refpix.skip=true"
        )
    if ramp.is_irs2:
        return correct_irs2(ramp, references, options)
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
    sirs = _side_kernels(ramp, references, options) if options.refpix_algorithm == "sirs" else None
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
            sirs,
            options.sigreject,
        )

    zeroframe = ramp.zeroframe
    if zeroframe is not None:
        zeroframe = np.where(zeroframe == 0, np.float32(0), corrected(zeroframe[:, None])[:, 0])
    log.info("refpix: offsets from %d reference pixels", count)
    return ramp.with_(data=corrected(ramp.data), zeroframe=zeroframe)


def _side_kernels(ramp: Ramp, references: References, options: RefpixOptions) -> SideKernels | None:
    if "FULL" not in ramp.header.get("SUBARRAY", ""):
        log.info("refpix: SIRS is for the full frame, not for %s", ramp.header.get("SUBARRAY"))
        return None
    tree = references.asdf("sirskernel")
    of_detector = None if tree is None else tree.get(ramp.header.require("DETECTOR").lower())
    if of_detector is None:
        log.warning("refpix: no SIRSKERNEL reference file is for this detector; the running median is used instead")
        return None
    left, right = (np.asarray(of_detector[name]) for name in ("gamma", "zeta"))
    return prepare_side_kernels(left, right, options.gaussmooth, options.halfwidth)


def correct_irs2(ramp: Ramp, references: References, options: RefpixOptions) -> Ramp:
    """Frames of the IRS2 readout without its noise, and without the interleaved reference pixels."""
    header = ramp.header
    fastaxis, slowaxis, noutputs = header.require("FASTAXIS", "SLOWAXIS", "NOUTPUTS")
    pattern = header.get("NRS_NORM", interleaving.NORMAL), header.get("NRS_REF", interleaving.REFERENCE)
    if pattern != (interleaving.NORMAL, interleaving.REFERENCE):
        raise ProductError(
            f"{header.get('FILENAME', 'the exposure')}: expected NRS_NORM, NRS_REF = {interleaving.NORMAL}, "
            f"{interleaving.REFERENCE}, but they are {pattern}; there are no reference files for another IRS2 pattern"
        )
    path = references.path("refpix")
    if path is None:
        # As they are, the frames fit no other step.
        raise ReferenceNotFound("refpix needs a REFPIX reference file for IRS2 readout, but none matches this exposure")
    status = os.stat(path)
    weights = _weights(path, status.st_mtime_ns, status.st_size)
    excluded = np.empty((0, 2), np.intp)
    if references.has("refpix", "DQ"):
        table = references.table("refpix", "DQ")
        excluded = irs2.excluded_pairs(table["OUTPUT"], table["ODD_EVEN"], table["MASK"], fastaxis)
    readout = Readout(ramp.area, fastaxis, slowaxis, noutputs)
    bit = dq.PIXEL["BAD_REF_PIXEL"]
    known = interleaving.reference_rows() & ((ramp.pixeldq & bit) != 0).any(axis=1)
    bad = irs2.find_bad_rows(ramp.data, known, options.ovr_corr_mitigation_ftr)
    pixeldq = ramp.pixeldq.copy()
    pixeldq[bad] |= bit | dq.PIXEL["DO_NOT_USE"]
    sources = irs2.choose_sources(bad, excluded, fastaxis)
    rows = np.arange(interleaving.WIDTH) if options.preserve_irs2_refpix else ramp.rows
    shape = (*ramp.data.shape[:2], rows.size, ramp.data.shape[-1])
    corrected, groupdq = zeros(ramp.data, shape, np.float32), zeros(ramp.data, shape, np.uint8)
    for i in range(shape[0]):
        data = ramp.data[i]
        if options.irs2_mean_subtraction:
            levels = irs2.mean_levels(data, pixeldq, readout, options.odd_even_columns, options.siglimit)
            data = data - levels[:, :, None]
        corrected[i] = irs2.subtract_interleaved_references(
            data, readout, weights, sources, options.preserve_irs2_refpix
        )
        groupdq[i] = ramp.groupdq[i][:, rows]
    log.info("refpix: IRS2, %d bad interleaved reference pixels per line", np.count_nonzero(bad))
    return ramp.with_(
        data=corrected,
        pixeldq=pixeldq[rows],
        groupdq=groupdq,
        zeroframe=None if ramp.zeroframe is None else ramp.zeroframe[:, rows],
    )


@lru_cache(maxsize=2)
def _weights(path: str, mtime: int, size: int) -> irs2.Weights:
    """The weights of a reference file, ready for use: for both detectors, kept for the next exposure."""
    references = References({"refpix": path}, "")
    table = references.table("refpix", "IRS2", keep=False)
    beta, alpha = ([table[f"{kind}_{k}"] for k in range(interleaving.OUTPUTS - 1)] for kind in ("beta", "alpha"))
    return irs2.prepare_weights(beta, alpha)
