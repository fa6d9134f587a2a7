"""source_catalog: the sources of a mosaic, measured."""

import logging
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from calibration.sources.catalog import Light, Plane, measure_sources
from calibration.sources.detect import Segments, estimate_sky, find_segments
from calibration.sources.photometry import Apertures
from infra.products.catalog import Catalog
from infra.products.header import Header
from infra.products.image import Image, Segmentation
from infra.references.content import ReferenceNotFound, References
from tasks.step import step

log = logging.getLogger(__name__)


class SourceCatalogOptions(BaseModel, frozen=True, extra="forbid"):
    """What a source is, and how it is measured."""

    aperture_ee1: int = Field(30, ge=1, le=99, description="light of a point source in the first circle [%]")
    aperture_ee2: int = Field(50, ge=1, le=99, description="in the second circle [%]")
    aperture_ee3: int = Field(70, ge=1, le=99, description="in the third circle [%]")
    ci1_star_threshold: float = Field(2.0, description="extended above this light of the second over the first circle")
    ci2_star_threshold: float = Field(1.8, description="and above this light of the third over the second circle")
    snr_threshold: float = Field(3.0, gt=0, description="height of a pixel of a source above the background [sigma]")
    bkg_boxsize: int = Field(1000, ge=1, description="side of the boxes of the background [pixel]")
    kernel_fwhm: float = Field(2.0, gt=0, description="width of a point source [pixel]")
    npixels: int = Field(25, ge=1, description="least number of connected pixels of a source")
    connectivity: Literal[4, 8] = Field(8, description="pixels are connected along 4 or 8 directions")
    nlevels: int = Field(32, ge=2, description="levels at which touching sources are told apart")
    contrast: float = Field(0.001, ge=0, le=1, description="least share of the light of a source that is told apart")
    multithresh_mode: Literal["exponential", "linear", "sinh"] = Field("exponential", description="spacing of levels")
    localbkg_width: int = Field(0, ge=0, description="width of the ring of the isophotal background [pixel]; 0: none")
    apermask_method: Literal["correct", "mask", "none"] = Field("correct", description="how neighbours are treated")
    kron_params: tuple[float, ...] | None = Field(
        None,
        min_length=2,
        max_length=3,
        description="multiple of the Kron radius, its least value in semi-axes, least radius [pixel]; 2.5, 1.4, 0 if None",
    )
    deblend: bool = Field(True, description="tell touching sources apart")


@step("source_catalog", references=("apcorr", "abvegaoffset"), options=SourceCatalogOptions)
def source_catalog(
    mosaic: Image, references: References, options: SourceCatalogOptions
) -> tuple[Catalog, Segmentation]:
    """Find the sources of a mosaic and measure them."""
    header = mosaic.header
    if header.get("BUNIT") != "MJy/sr":
        raise ValueError(
            f"{header.get('FILENAME', 'the mosaic')}: source_catalog needs surface brightness [MJy/sr], but BUNIT is "
            f"{header.get('BUNIT')}; run photom first"
        )
    apertures = _apertures(header, references, options)
    offset = _vega_offset(header, references)
    uncovered = ~np.isfinite(mosaic.err)
    if uncovered.all() and np.isfinite(mosaic.data).any():
        log.warning("source_catalog: the mosaic has no errors (ERR); neither have the fluxes")
        uncovered = ~np.isfinite(mosaic.data)
    if mosaic.wht is not None:
        uncovered |= mosaic.wht == 0
    sky = estimate_sky(mosaic.data, uncovered, options.bkg_boxsize)
    if sky is None:
        log.warning("source_catalog: no part of the mosaic has data; the catalog is empty")
        nothing = np.zeros(mosaic.data.shape, np.int32)
        signal, found = mosaic.data, Segments(nothing, np.zeros(0, np.int32), mosaic.data)
    else:
        signal, threshold = mosaic.data - sky.level, np.float32(options.snr_threshold) * sky.noise
        # From here on they are not needed, and as large as the mosaic.
        del sky
        found = find_segments(
            signal,
            threshold,
            uncovered,
            options.kernel_fwhm,
            options.npixels,
            options.connectivity,
            options.deblend,
            options.nlevels,
            options.contrast,
            options.multithresh_mode,
        )
        del threshold
    table = measure_sources(
        Plane(
            mosaic.data,
            mosaic.err,
            signal,
            uncovered,
            mosaic.wcs,
            _reference_pixel(mosaic),
            1e6 * header.require("PIXAR_SR"),
        ),
        found,
        apertures,
        offset,
        Light(
            (options.ci1_star_threshold, options.ci2_star_threshold),
            options.kernel_fwhm,
            options.apermask_method,
            _kron_params(options),
            options.localbkg_width,
        ),
    )
    if len(table) == 0:
        log.warning("source_catalog: no source found; the catalog is empty")
    else:
        log.info(
            "source_catalog: %d sources, %d of them extended, the brightest of %.2f mag (AB)",
            len(table),
            np.count_nonzero(table["is_extended"]),
            np.nanmin(table["isophotal_abmag"]),
        )
    recipe = {**mosaic.recipe, "source_catalog": {"status": "COMPLETE", "options": options.model_dump(mode="json")}}
    return Catalog(table, recipe), Segmentation(header, found.labels.view(np.uint32), mosaic.wcs, mosaic.recipe)


def _kron_params(options: SourceCatalogOptions) -> tuple[float, float, float]:
    scale, least, *circle = options.kron_params or (2.5, 1.4)
    if not (scale > 0 and least > 0 and all(radius >= 0 for radius in circle)):
        raise ValueError(
            f"source_catalog.kron_params must be two positive numbers and perhaps a radius, but are {options.kron_params}"
        )
    return scale, least, circle[0] if circle else 0.0


def _reference_pixel(mosaic: Image) -> tuple[float, float]:
    ny, nx = mosaic.data.shape
    return mosaic.header.get("CRPIX1", nx / 2 + 0.5) - 1, mosaic.header.get("CRPIX2", ny / 2 + 0.5) - 1


def _apertures(header: Header, references: References, options: SourceCatalogOptions) -> Apertures:
    energies = (options.aperture_ee1, options.aperture_ee2, options.aperture_ee3)
    if not energies[0] < energies[1] < energies[2]:
        raise ValueError(f"aperture_ee1, aperture_ee2 and aperture_ee3 must increase, but are {energies}")
    table = references.table("apcorr", "APCORR")
    if table is None:
        log.warning("source_catalog: no APCORR reference file; circles of 1, 2 and 3 pixels, without a correction")
        return Apertures((1, 2, 3), (1.0, 2.0, 3.0), (1.0, 1.0, 1.0), 5.0, 10.0)
    rows = table[_matching(table, _selector(header, "SUBARRAY"))]
    chosen = []
    for energy in energies:
        match = rows[np.round(np.asarray(rows["eefraction"], float) * 100) == energy]
        if len(match) != 1:
            raise ReferenceNotFound(
                f"{references.name('apcorr')}: expected one row for {_words(_selector(header, 'SUBARRAY'))} and "
                f"{energy} % of the light, but found {len(match)}; choose aperture_ee1..3 among "
                f"{sorted({round(100 * float(value)) for value in rows['eefraction']})}"
            )
        chosen.append(match[0])
    ratio = header.get("PXSCLRT") or 1.0
    return Apertures(
        energies,
        [float(row["radius"]) / ratio for row in chosen],
        [float(row["apcorr"]) for row in chosen],
        float(chosen[0]["skyin"]) / ratio,
        float(chosen[0]["skyout"]) / ratio,
    )


def _vega_offset(header: Header, references: References) -> float:
    tree = references.asdf("abvegaoffset")
    if tree is None:
        log.warning("source_catalog: no ABVEGAOFFSET reference file; the Vega magnitudes are AB magnitudes")
        return 0.0
    table = tree["abvega_offset"]
    selector = _selector(header, None)
    if header.require("INSTRUME") == "FGS":
        selector = {"detector": header.require("DETECTOR")}
    rows = np.flatnonzero(_matching(table, selector))
    if len(rows) != 1:
        raise ReferenceNotFound(
            f"{references.name('abvegaoffset')}: expected one row for {_words(selector)}, but found {len(rows)}; "
            "give a reference file that has this filter"
        )
    return float(table["abvega_offset"][rows[0]])


def _selector(header: Header, miri: str | None) -> dict[str, Any]:
    """What a row is found by: filter and pupil; MIRI has no pupil, FGS no filter."""
    instrument = header.require("INSTRUME")
    if instrument == "FGS":
        return {}
    if instrument == "MIRI":
        return {"filter": header.require("FILTER")} | ({"subarray": header.require("SUBARRAY")} if miri else {})
    return {"filter": header.require("FILTER"), "pupil": header.require("PUPIL")}


def _matching(table: Any, selector: dict[str, Any]) -> np.ndarray:
    chosen = np.ones(len(table), bool)
    for column, value in selector.items():
        chosen &= np.array([str(cell).strip() == value for cell in table[column]])
    return chosen


def _words(selector: dict[str, Any]) -> str:
    return ", ".join(f"{column} {value}" for column, value in selector.items()) or "this detector"
