"""assign_wcs: the world coordinates of an exposure, from its optics and its pointing."""

import logging
from typing import Any

from gwcs import WCS
from pydantic import BaseModel, Field

from calibration.wcs.grism import (
    MIRI_AXIS,
    NIRCAM_AXIS,
    NIRISS_AXIS,
    grism_wcs,
    miri_disperser,
    nircam_disperser,
    niriss_disperser,
)
from calibration.wcs.imaging import LINEAR_KEYWORDS, filter_offset, footprint, imaging_wcs, region, sip_keywords
from calibration.wcs.pointing import pointing_of
from infra.products.header import Header, keywords
from infra.products.image import Image
from infra.references.content import ReferenceNotFound, References
from tasks.step import step

log = logging.getLogger(__name__)

_IMAGING = frozenset(
    (
        *("FGS_FOCUS", "FGS_IMAGE"),
        *("MIR_4QPM", "MIR_CORONCAL", "MIR_IMAGE", "MIR_LYOT", "MIR_TACONFIRM", "MIR_TACQ"),
        *("NIS_AMI", "NIS_FOCUS", "NIS_IMAGE", "NIS_TACONFIRM", "NIS_TACQ"),
        *("NRC_CORON", "NRC_FOCUS", "NRC_IMAGE", "NRC_TACONFIRM", "NRC_TACQ", "NRC_TSIMAGE"),
    )
)
_GRISM = frozenset(("NIS_WFSS", "NRC_WFSS", "MIR_WFSS"))


class AssignWcsOptions(BaseModel, frozen=True, extra="forbid"):
    """How well the FITS keywords approximate the WCS."""

    sip_approx: bool = Field(True, description="write FITS keywords (TAN-SIP) that approximate the WCS of an image")
    sip_max_pix_error: float = Field(0.01, gt=0, description="largest error of the approximation [pixel]")
    sip_degree: int | None = Field(None, ge=1, le=6, description="its degree; none: the lowest that is good enough")
    sip_max_inv_pix_error: float = Field(0.01, gt=0, description="largest error of the inverse approximation [pixel]")
    sip_inv_degree: int | None = Field(None, ge=1, le=6, description="its degree; none: the lowest that is good enough")
    sip_npoints: int = Field(12, ge=3, description="points along an axis that the approximation is fitted to")


@step("assign_wcs", references=("distortion", "filteroffset", "specwcs", "wavelengthrange"), options=AssignWcsOptions)
def assign_wcs(image: Image, references: References, options: AssignWcsOptions) -> Image:
    """Tell where on the sky each pixel looks."""
    header = image.header
    exp_type = header.require("EXP_TYPE")
    if exp_type not in _IMAGING | _GRISM:
        raise ValueError(
            f"assign_wcs does not know the geometry of EXP_TYPE {exp_type}; expected one of "
            f"{', '.join(sorted(_IMAGING | _GRISM))}"
        )
    shape = image.data.shape[-2:]
    wcs = direct_wcs(header, shape, references)
    cards: dict[str, Any] = {}
    if options.sip_approx:
        if exp_type == "MIR_WFSS":
            # As the official package: the distortion of MIRI has no better inverse.
            loose = max(options.sip_max_inv_pix_error, 0.02)
            options = options.model_copy(update={"sip_max_inv_pix_error": loose})
        cards |= sip_cards(image, wcs, options)
    if exp_type in _GRISM:
        wcs, axis = disperse(header, wcs, references)
        cards["DISPAXIS"] = axis
    else:
        corners = footprint(wcs, shape)
        cards["S_REGION"] = region(corners)
        log.info("assign_wcs: the middle of the image looks at %.6f %+.6f deg", *corners.mean(axis=0))
    return image.with_(header=header.set(cards), wcs=wcs)


def direct_wcs(header: Header, shape: tuple[int, int], references: References) -> WCS:
    """The WCS of an image, or of a dispersed one as if its light had gone straight."""
    if references.path("distortion") is None:
        raise ReferenceNotFound(
            f"{header.get('FILENAME', 'the exposure')}: no DISTORTION reference file matches EXP_TYPE "
            f"{header['EXP_TYPE']} of {header.get('DETECTOR', 'an unknown detector')} in {references.context}; use a "
            "context (CRDS_CONTEXT) that has one, or correct its keywords"
        )
    offset = None
    if references.path("filteroffset") is not None:
        rows = references.asdf("filteroffset")["filters"]
        offset = filter_offset(rows, header.require("FILTER"), header.get("PUPIL"))
        log.debug("assign_wcs: the filter shifts the image by %s pixel", offset)
    area = header.subarray
    distortion = references.asdf("distortion")["model"]
    return imaging_wcs(pointing_of(header), distortion, shape, (area.xstart, area.ystart), offset)


def disperse(header: Header, wcs: Any, references: References) -> tuple[Any, int]:
    """The WCS of a grism exposure, and DISPAXIS, from that which it would have without the grism."""
    exp_type = header["EXP_TYPE"]
    if references.path("specwcs") is None:
        elements = ", ".join(f"{key} {header[key]}" for key in ("FILTER", "PUPIL", "MODULE") if key in header)
        raise ValueError(
            f"{header.get('FILENAME')}: no SPECWCS reference file matches this exposure ({exp_type}, {elements}); use a "
            "context (CRDS_CONTEXT) that has one for its grism, or correct its keywords"
        )
    specwcs, name = references.asdf("specwcs"), references.name("specwcs")
    try:
        if exp_type == "NIS_WFSS":
            grism, wheel = header.require("FILTER", "FWCPOS")
            disperser, axis = niriss_disperser(specwcs, grism, float(wheel)), NIRISS_AXIS[grism]
        elif exp_type == "NRC_WFSS":
            grism = header.require("PUPIL")
            disperser, axis = nircam_disperser(specwcs, grism), NIRCAM_AXIS[grism]
        else:
            grism = header.require("FILTER")
            if grism not in MIRI_AXIS:
                raise ValueError(f"expected FILTER to be {' or '.join(MIRI_AXIS)} for MIRI WFSS, but it is {grism}")
            disperser, axis = miri_disperser(specwcs), MIRI_AXIS[grism]
    except ValueError as error:
        raise ValueError(f"{header.get('FILENAME')}, {name}: {error}") from None
    log.info("assign_wcs: %s disperses along axis %d", grism, axis)
    return grism_wcs(wcs, disperser, header.get("VELOSYS")), axis


def sip_cards(image: Image, wcs: Any, options: AssignWcsOptions) -> dict[str, Any]:
    """The FITS keywords that approximate ``wcs`` about the reference pixel of ``image``."""
    header = image.header
    crpix = header.get("CRPIX1"), header.get("CRPIX2")
    approximation = sip_keywords(
        wcs,
        None if None in crpix else crpix,
        options.sip_max_pix_error,
        options.sip_max_inv_pix_error,
        range(1, 6) if options.sip_degree is None else (options.sip_degree,),
        range(1, 6) if options.sip_inv_degree is None else (options.sip_inv_degree,),
        options.sip_npoints,
    )
    for key, limit in (("SIPMXERR", options.sip_max_pix_error), ("SIPIVERR", options.sip_max_inv_pix_error)):
        if approximation.get(key, 0) > limit:
            log.warning(
                "assign_wcs: the FITS keywords approximate the %s within %.3g pixel only, %.3g were asked for",
                "WCS" if key == "SIPMXERR" else "inverse of the WCS",
                approximation[key],
                limit,
            )
    known = keywords()
    cards: dict[str, Any] = dict.fromkeys(key for key in LINEAR_KEYWORDS if key in known)
    return cards | {key: value for key, value in approximation.items() if key in known}
