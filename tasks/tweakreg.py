"""tweakreg: align exposures by the stars that they share."""

import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
from astropy.io.registry import IORegistryError
from astropy.table import Table
from astropy.units import Quantity, UnitsError
from pydantic import BaseModel, Field

from calibration import dq
from calibration.mosaics.tweakreg import Alignment, Fit, Stars, align, align_to_catalog
from calibration.sources.catalog import segment_positions
from calibration.sources.detect import estimate_sky, find_segments
from calibration.sources.stars import find_stars
from calibration.wcs.imaging import footprint, region
from calibration.wcs.pointing import pointing_of
from infra.products.image import Image, in_memory
from infra.references.content import References
from tasks.assign_wcs import AssignWcsOptions, sip_cards
from tasks.groups import group_exposures
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)

_BAD = dq.PIXEL["DO_NOT_USE"] | dq.PIXEL["NON_SCIENCE"]
Geometry = Literal["shift", "rshift", "rscale", "general"]


class TweakregOptions(BaseModel, frozen=True, extra="forbid"):
    """How stars are found, matched and fitted."""

    starfinder: Literal["iraf", "dao", "segmentation"] = Field("iraf", description="how stars are found")
    snr_threshold: float = Field(10.0, gt=0, description="least height of a star above the background [sigma]")
    bkg_boxsize: int = Field(400, ge=1, description="side of the boxes of the background [pixel]")
    kernel_fwhm: float = Field(2.5, gt=0, description="width of a star [pixel]")
    minsep_fwhm: float = Field(0.0, ge=0, description="least separation of stars [widths]")
    sigma_radius: float = Field(1.5, gt=0, description="where the kernel of the star finder ends [sigma]")
    sharplo: float = Field(0.5, description="least sharpness of a star")
    sharphi: float = Field(2.0, description="largest sharpness of a star")
    roundlo: float = Field(0.0, description="least roundness of a star")
    roundhi: float = Field(0.2, description="largest roundness of a star")
    brightest: int = Field(200, ge=1, description="use so many of the brightest stars")
    peakmax: float | None = Field(None, description="leave out stars that are higher [MJy/sr]")
    npixels: int = Field(10, ge=1, description="least number of connected pixels of a star (segmentation)")
    connectivity: Literal[4, 8] = Field(8, description="pixels are connected along 4 or 8 directions (segmentation)")
    nlevels: int = Field(32, ge=2, description="levels at which touching sources are told apart (segmentation)")
    contrast: float = Field(0.001, ge=0, le=1, description="least share of light that is told apart (segmentation)")
    deblend: bool = Field(True, description="tell touching sources apart (segmentation)")
    enforce_user_order: bool = Field(False, description="align in the order of the association")
    expand_refcat: bool = Field(False, description="let stars that only later images have help")
    minobj: int = Field(15, ge=1, description="least number of stars in common")
    fitgeometry: Geometry = Field("rshift", description="shift; and rotation; and scale; or any linear map")
    nclip: int = Field(3, ge=0, description="rounds of clipping in the fit")
    sigma: float = Field(3.0, gt=0, description="limit of clipping in the fit [rms]")
    searchrad: float = Field(2.0, gt=0, description="largest shift that is searched [arcsec]")
    use2dhist: bool = Field(True, description="search the shift by the histogram of all pairs of stars")
    separation: float = Field(1.0, gt=0, description="least distance of stars that are matched [arcsec]")
    tolerance: float = Field(0.7, gt=0, description="largest distance of a match [arcsec]")
    xoffset: float = Field(0.0, description="first guess of the shift in x [arcsec]")
    yoffset: float = Field(0.0, description="first guess of the shift in y [arcsec]")
    abs_refcat: str = Field("", description="table of positions (RA, DEC or sky_centroid) to align to; none if empty")
    abs_minobj: int = Field(15, ge=1, description="least number of stars in common with that table")
    abs_fitgeometry: Geometry = Field("rshift", description="what is fitted to that table")
    abs_nclip: int = Field(3, ge=0, description="rounds of clipping in that fit")
    abs_sigma: float = Field(3.0, gt=0, description="limit of clipping in that fit [rms]")
    abs_searchrad: float = Field(6.0, gt=0, description="largest shift to that table that is searched [arcsec]")
    abs_use2dhist: bool = Field(
        True, description="search the shift to that table by the histogram of all pairs of stars"
    )
    abs_separation: float = Field(1.0, gt=0, description="least distance of stars matched with that table [arcsec]")
    abs_tolerance: float = Field(0.7, gt=0, description="largest distance of a match with that table [arcsec]")


@step("tweakreg", options=TweakregOptions)
def tweakreg(images: tuple[Image, ...], references: References, options: TweakregOptions) -> tuple[Image, ...]:
    """Align exposures by the stars that they share."""
    groups = group_exposures(images)
    if len(groups) < 2 and not options.abs_refcat:
        raise StepSkipped("a single exposure has none to be aligned with")
    catalog = _positions(Path(options.abs_refcat)) if options.abs_refcat else None
    number = {k: g for g, group in enumerate(groups) for k in group}
    stars = [_stars(image, number[k], options) for k, image in enumerate(images)]
    fit = Fit(
        options.minobj,
        options.fitgeometry,
        options.nclip,
        options.sigma,
        options.searchrad,
        options.separation,
        options.tolerance,
        options.use2dhist,
        (options.xoffset, options.yoffset),
    )
    # What is aligned to a catalog as one must be one.
    found = align(stars, fit, options.expand_refcat or catalog is not None, options.enforce_user_order)
    if catalog is not None:
        fit = Fit(
            options.abs_minobj,
            options.abs_fitgeometry,
            options.abs_nclip,
            options.abs_sigma,
            options.abs_searchrad,
            options.abs_separation,
            options.abs_tolerance,
            options.abs_use2dhist,
        )
        found = align_to_catalog(stars, found, *catalog, fit)
    for each, one in zip(stars, found, strict=True):
        _report(each.name, one)
    if not any(one.status == "aligned" for one in found):
        raise StepSkipped("; ".join(f"{s.name}: {one.status}" for s, one in zip(stars, found, strict=True)))
    return tuple(_aligned(image, one, each.shape) for image, one, each in zip(images, found, stars, strict=True))


def _report(name: str, one: Alignment) -> None:
    mas = {key: 1000 * getattr(one, key) for key in ("shift", "rms", "offset")}
    if one.status == "aligned":
        text = "tweakreg: %s moved by %.1f mas and turned by %.1f arcsec; its %d stars agree within %.1f mas"
        log.info(text, name, mas["shift"], one.roll, one.nstars, mas["rms"])
    elif one.status == "reference":
        log.info("tweakreg: %s is the reference; its stars agree with the others' within %.1f mas", name, mas["rms"])
    else:
        log.warning("tweakreg: %s is not aligned%s: %s", name, ", and left out" if one.left_out else "", one.status)


def _stars(image: Image, group: int, options: TweakregOptions) -> Stars:
    name = str(image.header.get("FILENAME", f"image {group + 1}"))
    image = in_memory(image, "data", "dq")
    mask = (image.dq & _BAD) != 0
    mask |= ~np.isfinite(image.data)
    sky = estimate_sky(image.data, mask, options.bkg_boxsize)
    shape = image.data.shape
    pointing = pointing_of(image.header)
    none = np.zeros(0)
    if sky is None:
        return Stars(none, none, none, none, image.wcs, shape, pointing, group, name)
    data = image.data - sky.level.astype(np.float32)
    threshold = options.snr_threshold * sky.noise
    if options.starfinder == "segmentation":
        segments = find_segments(
            data,
            threshold,
            mask,
            options.kernel_fwhm,
            options.npixels,
            options.connectivity,
            options.deblend,
            options.nlevels,
            options.contrast,
        )
        x, y, flux = segment_positions(data, segments, mask)
        error = np.zeros(len(x))
    else:
        found = find_stars(
            data,
            # It is smooth.
            float(np.median(threshold[::4, ::4])),
            mask,
            options.starfinder,
            options.kernel_fwhm,
            (options.sharplo, options.sharphi),
            (options.roundlo, options.roundhi),
            max(2, int(options.minsep_fwhm * options.kernel_fwhm + 0.5)),
            options.brightest,
            options.peakmax,
            options.sigma_radius,
        )
        x, y, error, flux = found.x, found.y, found.error, found.flux
    return Stars(x, y, error, flux, image.wcs, shape, pointing, group, name)


def _positions(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination [deg] of a table in a file; NaN where a row has none."""
    wanted = "tweakreg.abs_refcat must be a table (ECSV, FITS, CSV) with the columns RA and DEC [deg] or sky_centroid"
    if not path.is_file():
        raise FileNotFoundError(f"{wanted}, but {path} is no file; download the catalog of the field first")
    try:
        table = Table.read(path)
    except (ValueError, OSError, IORegistryError) as error:
        raise ValueError(f"{wanted}, but {path} cannot be read as one ({str(error).splitlines()[0]})") from error
    names = {name.upper(): name for name in table.colnames}
    if {"RA", "DEC"} <= set(names):
        columns = [table[names[key]] for key in ("RA", "DEC")]
    elif "SKY_CENTROID" in names:
        columns = [table[names["SKY_CENTROID"]].ra, table[names["SKY_CENTROID"]].dec]
    else:
        raise ValueError(f"{wanted}, but {path} has {', '.join(table.colnames)}")
    try:
        ra, dec = (
            Quantity(
                np.ma.filled(np.ma.asarray(getattr(c, "value", c), float), np.nan), getattr(c, "unit", None) or "deg"
            )
            for c in columns
        )
        return ra.to_value("deg"), dec.to_value("deg")
    except (ValueError, TypeError, UnitsError) as error:
        raise ValueError(f"{wanted}, but those of {path} are no angles ({error})") from error


def _aligned(image: Image, one: Alignment, shape: tuple[int, int]) -> Image:
    figure: dict[str, Any] = {
        "status": one.status,
        "shift_mas": round(1000 * one.shift, 3),
        "roll_arcsec": round(one.roll, 3),
        "stars": one.nstars,
    }
    for key, value in (("rms_mas", one.rms), ("offset_mas", one.offset)):
        if np.isfinite(value):
            figure[key] = round(1000 * value, 3)
    if one.left_out:
        figure["left_out"] = True
    image = image.with_(recipe={**image.recipe, "alignment": figure})
    if one.wcs is image.wcs:
        return image
    cards = {"S_REGION": region(footprint(one.wcs, shape)), **sip_cards(image, one.wcs, AssignWcsOptions())}
    return image.with_(wcs=one.wcs, header=image.header.set(cards))
