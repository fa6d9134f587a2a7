"""resample: one or several images onto one undistorted grid."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

import numpy as np
from gwcs import WCS
from pydantic import BaseModel, Field

from calibration import dq
from calibration.mosaics.resample import NOISES, Exposure, drizzle, drizzle_weight
from calibration.wcs.imaging import LINEAR_KEYWORDS, footprint, region
from calibration.wcs.mosaic import Orientation, centre_of, fits_keywords, hull, mosaic_wcs, pixel_map, pixel_scale
from infra.products.grid import read_grid
from infra.products.header import Header, keywords
from infra.products.image import Image, in_memory
from infra.references.content import References
from tasks.groups import group_exposures
from tasks.products import load
from tasks.step import step

log = logging.getLogger(__name__)

#: Every flag may stand but these.
GOOD_BITS = int(~(dq.PIXEL["DO_NOT_USE"] | dq.PIXEL["NON_SCIENCE"]))

_ARCSEC_TO_RAD = np.pi / 180 / 3600
_POINTING_KEYWORDS = ("V2_REF", "V3_REF", "RA_REF", "DEC_REF", "ROLL_REF", "V3I_YANG", "VPARITY")
_TIMES: tuple[tuple[Callable, tuple[str, ...]], ...] = (
    (min, ("EXPSTART", "MJD-BEG", "TDB-BEG", "DATE-BEG")),
    (mean, ("EXPMID", "MJD-AVG", "TDB-MID")),
    (max, ("EXPEND", "MJD-END", "TDB-END", "DATE-END")),
)
_SUMMED = ("EFFEXPTM", "XPOSURE", "TMEASURE", "DURATION", "TELAPSE")


class ResampleOptions(BaseModel, frozen=True, extra="forbid"):
    """The grid, and how pixels are spread over it."""

    pixfrac: float = Field(1.0, ge=0, le=1, description="fraction of the side of an input pixel that is spread")
    kernel: Literal["square", "gaussian", "point", "turbo", "lanczos2", "lanczos3"] = Field(
        "square", description="form in which an input pixel is spread"
    )
    fillval: str = Field("NAN", description="value where nothing contributes: NAN or a number")
    weight_type: Literal["ivm", "exptime"] | None = Field(
        "ivm", description="weight of a pixel: inverse readout variance, exposure time, or 1"
    )
    output_shape: tuple[int, int] | None = Field(None, description="size (x, y) of the grid [pixel]")
    crpix: tuple[float, float] | None = Field(None, description="reference pixel (x, y), zero-based")
    crval: tuple[float, float] | None = Field(None, description="sky at the reference pixel (RA, Dec) [deg]")
    rotation: float | None = Field(None, description="position angle of the columns [deg]; none: as the detector")
    pixel_scale_ratio: float = Field(1.0, gt=0, description="side of an output pixel over that of an input pixel")
    pixel_scale: float | None = Field(None, gt=0, description="side of an output pixel [arcsec]; beats the ratio")
    output_wcs: str = Field("", description="file with the grid, an ASDF file or a mosaic; beats all of the grid")
    pixmap_max_error: float = Field(
        1e-3, ge=0, description="largest error of the places of pixels [pixel]; 0: the WCS of each is evaluated"
    )
    blendheaders: bool = Field(
        True, description="times of all exposures in the header of the mosaic, and a table of their headers (HDRTAB)"
    )
    enable_ctx: bool = Field(True, description="make the plane CON, which exposures went into each pixel")
    enable_err: bool = Field(True, description="make the plane ERR")
    report_var: bool = Field(True, description="write the planes of the variances")


@dataclass(frozen=True)
class Grid:
    """Where a mosaic stands: its WCS, the side of a pixel [deg] and that over the side of an input pixel."""

    wcs: WCS
    scale: float
    ratio: float
    corners: tuple[np.ndarray, ...]


def output_grid(members: Sequence[Image], options: ResampleOptions = ResampleOptions()) -> Grid:  # noqa: B008  frozen
    """The grid that holds all images, as the options say.

    ``corners`` are the footprints (4, 2) of the images [deg].
    """
    if not members:
        raise ValueError("resample needs at least one image, but got none")
    for image in members:
        name = image.header.get("FILENAME", "an image")
        if image.data.ndim != 2:
            raise ValueError(f"{name}: resample takes images of two dimensions, but this one has {image.data.ndim}")
        if image.wcs is None:
            raise ValueError(f"{name} has no WCS; run assign_wcs first")
    first = members[0]
    # As S_REGION has them: nine decimals.
    corners = tuple(footprint(image.wcs, image.data.shape).round(9) for image in members)
    ra, dec = first.header.get("RA_REF"), first.header.get("DEC_REF")
    middle = centre_of(corners[:1]) if ra is None or dec is None else (ra, dec)
    here = pixel_scale(first.wcs, *middle)
    if options.output_wcs:
        wcs = load(options.output_wcs, read_grid)
        scale = pixel_scale(wcs, *middle)
        return Grid(wcs, scale, scale / here, corners)
    scale = here * options.pixel_scale_ratio if options.pixel_scale is None else options.pixel_scale / 3600
    wcs = mosaic_wcs(
        corners,
        scale,
        Orientation(*first.header.require("ROLL_REF", "V3I_YANG", "VPARITY")),
        options.rotation,
        options.crval,
        options.crpix,
        None if options.output_shape is None else options.output_shape[::-1],
    )
    return Grid(wcs, scale, scale / here, corners)


@step("resample", options=ResampleOptions)
def resample(images: tuple[Image, ...] | Image, references: References, options: ResampleOptions) -> Image:
    """Put images on one undistorted grid."""
    members = (images,) if isinstance(images, Image) else tuple(images)
    chosen = output_grid(members, options)
    grid, scale, ratio = chosen.wcs, chosen.scale, chosen.ratio
    nx, ny = grid.pixel_shape
    mosaic = drizzle(
        _exposures(members, grid, options),
        (ny, nx),
        len(members),
        options.kernel,
        options.pixfrac,
        ratio,
        options.enable_err,
        options.enable_ctx,
        options.weight_type,
        float(options.fillval),
    )
    covered = np.isfinite(mosaic.data) & (mosaic.weight > 0)
    log.info(
        "resample: %d images onto %d x %d pixels of %.4f arcsec, %.1f %% of them covered",
        len(members),
        nx,
        ny,
        3600 * scale,
        100 * covered.mean(),
    )
    cards: dict[str, Any] = {
        **fits_keywords(grid),
        "S_REGION": region(hull(chosen.corners)),
        "PIXAR_A2": (3600 * scale) ** 2,
        "PIXAR_SR": (3600 * scale * _ARCSEC_TO_RAD) ** 2,
        "NDRIZ": len(group_exposures(members)),
        "RESWHT": options.weight_type,
        "PIXFRAC": options.pixfrac,
        "PXSCLRT": ratio,
        "BKGLEVEL": None,
        "BKGSUB": None,
    }
    variances = mosaic.variances if options.report_var else {}
    return Image(
        header=_blend(members, options.blendheaders).set(cards),
        data=mosaic.data,
        err=mosaic.err,
        dq=None,
        var_poisson=variances.get("var_poisson"),
        var_rnoise=variances.get("var_rnoise"),
        var_flat=variances.get("var_flat"),
        wht=mosaic.weight,
        con=mosaic.context,
        wcs=grid,
        hdrtab=_header_table(members) if options.blendheaders and len(members) > 1 else None,
        recipe=members[0].recipe,
    )


def _exposures(members: Sequence[Image], grid: Any, options: ResampleOptions) -> Iterator[Exposure]:
    for waiting in members:
        image = in_memory(waiting, "data", "dq", *NOISES)
        exptime = image.header.get("TMEASURE") or image.header.get("EFFEXPTM") or 1.0
        level = image.header.get("BKGLEVEL")
        data = image.data if level is None or image.header.get("BKGSUB") else image.data - np.float32(level)
        yield Exposure(
            data=data,
            weight=drizzle_weight(image.dq, GOOD_BITS, options.weight_type, image.var_rnoise, exptime),
            pixmap=pixel_map(image.wcs, image.data.shape, grid, options.pixmap_max_error),
            variances={name: getattr(image, name) for name in NOISES if getattr(image, name) is not None},
            exptime=exptime,
        )


def _blend(members: Sequence[Image], times: bool) -> Header:
    first = members[0].header
    known = keywords()
    distortion = [
        key for key in first if key in known and key[:2] in ("A_", "B_", "AP", "BP", "CD") and _is_wcs(known[key].path)
    ]
    changes: dict[str, Any] = dict.fromkeys((*LINEAR_KEYWORDS, *_POINTING_KEYWORDS, *distortion))
    if times:
        headers = [members[group[0]].header for group in group_exposures(members)]
        for key in _SUMMED:
            values = [header.get(key) for header in headers]
            if None not in values:
                changes[key] = sum(values)
        for choose, keys in _TIMES:
            for key in keys:
                values = [header[key] for header in headers if key in header]
                if values:
                    changes[key] = choose(values)
    return first.set({key: value for key, value in changes.items() if key in known})


def _header_table(members: Sequence[Image]) -> np.ndarray:
    """The keywords that all images have, a row for each image; without the date of the file, which is of no exposure."""
    columns = {}
    for key in keywords():
        values = [image.header.get(key) for image in members]
        if key != "DATE" and None not in values:
            column = np.array(values)
            columns[key] = np.char.encode(column, "ascii") if column.dtype.kind == "U" else column
    table = np.zeros(len(members), [(key, column.dtype) for key, column in columns.items()])
    for key, column in columns.items():
        table[key] = column
    return table


def _is_wcs(path: str) -> bool:
    return path.startswith("meta.wcsinfo.")
