"""extract_2d: a cutout of each source and order of a grism exposure."""

import logging

import numpy as np
from astropy.coordinates import SkyCoord
from pydantic import BaseModel, Field

from calibration.spectra.extract_2d import clip_traces, cutout_wavelengths, locate_traces, wavelength_ranges
from calibration.spectra.sources import Sources, sources_of
from calibration.wcs.grism import dispersion_of
from infra.products.catalog import Catalog
from infra.products.header import Header
from infra.products.image import Image
from infra.products.slits import Exposure, Slit, SlitSet, SlitWcs, split_header
from infra.references.content import References
from tasks.step import NothingToDo, step

log = logging.getLogger(__name__)


class Extract2dOptions(BaseModel, frozen=True, extra="forbid"):
    """Which sources and orders are cut out, and how high."""

    source_ids: list[int] | None = Field(None, description="only the sources with these numbers")
    source_ra: list[float] | None = Field(None, description="only the sources nearest to these right ascensions [deg]")
    source_dec: list[float] | None = Field(None, description="and these declinations [deg]")
    source_max_sep: float = Field(2.0, gt=0, description="how far from source_ra, source_dec a source may be [arcsec]")
    extract_orders: list[int] | None = Field(None, description="spectral orders; none: as the reference recommends")
    wfss_extract_half_height: int | None = Field(
        5,
        ge=1,
        description="half the height of the cutout of a point source [pixel]; none: by its size in the direct image",
    )
    wfss_mmag_extract: float | None = Field(None, description="leave out sources of this AB magnitude and fainter")
    wfss_nbright: int | None = Field(1000, ge=1, description="at most so many sources, the brightest")


@step("extract_2d", references=("wavelengthrange",), options=Extract2dOptions)
def extract_2d(image: Image, references: References, options: Extract2dOptions, catalog: Catalog) -> SlitSet:
    """Cut out the spectra of the sources of the catalog."""
    header = image.header
    name = header.get("SCATFILE", "the source catalog")
    exposure = header.get("FILENAME", "the exposure")
    sources = sources_of(catalog.table, name)
    if not len(sources):
        raise NothingToDo(
            f"{name} has no source with a position: there is nothing to extract from {exposure}; give a catalog of its "
            "field, or find fainter sources (source_catalog.snr_threshold)"
        )
    sources = _select(sources, options, name)
    filter_ = header.require("PUPIL" if header["INSTRUME"] == "NIRISS" else "FILTER")
    try:
        ranges = wavelength_ranges(references.asdf("wavelengthrange"), filter_, options.extract_orders)
        for order in ranges:
            dispersion_of(image.wcs).index(order)
    except ValueError as error:
        raise ValueError(f"{exposure}, {references.name('wavelengthrange')}: {error}") from None
    shape = image.data.shape[-2:]
    located = locate_traces(
        image.wcs,
        sources,
        ranges,
        shape,
        options.wfss_extract_half_height,
        options.wfss_mmag_extract,
        options.wfss_nbright,
    )
    traces = clip_traces(located, shape)
    if options.source_ids or options.source_ra:
        absent = np.setdiff1d(np.arange(len(sources)), traces.source)
        for k in absent:
            log.warning(
                "extract_2d: source %d of %s has no spectrum on the detector in %s", sources.label[k], name, exposure
            )
    kept, common = split_header(header)
    common_cards = {key: common[key] for key in ("SPECSYS", "BUNIT") if key in common} | {"RADESYS": "ICRS"}
    if "VELOSYS" in header:
        common_cards["SPECSYS"] = "BARYCENT"
    planes = {name: getattr(image, name) for name in ("data", "err", "dq", "var_poisson", "var_rnoise", "var_flat")}
    whole = Exposure(image.wcs)
    slits = []
    for k, wavelength in enumerate(cutout_wavelengths(traces)):
        x, y = int(traces.xmin[k]), int(traces.ymin[k])
        ny, nx = wavelength.shape
        cutout = {name: None if plane is None else plane[y : y + ny, x : x + nx] for name, plane in planes.items()}
        s, order = int(traces.source[k]), int(traces.order[k])
        direct = float(traces.x0[k]), float(traces.y0[k])
        cards = {
            "SLTNAME": str(int(sources.label[s])),
            "SLTSTRT1": x + 1,
            "SLTSIZE1": nx,
            "SLTSTRT2": y + 1,
            "SLTSIZE2": ny,
            "SOURCEID": int(sources.label[s]),
            "SRCXPOS": direct[0],
            "SRCYPOS": direct[1],
            "SRCRA": float(sources.ra[s]),
            "SRCDEC": float(sources.dec[s]),
            **common_cards,
            "DISPAXIS": traces.axis,
            "SPORDER": order,
        }
        if k == 0 and "S_REGION" in common:
            cards["S_REGION"] = common["S_REGION"]
        slits.append(
            Slit(
                header=Header(cards),
                **cutout,
                wavelength=wavelength,
                extended=bool(sources.extended[s]),
                make_wcs=SlitWcs(whole, x, y, (ny, nx), direct, order),
            )
        )
    if not slits:
        raise NothingToDo(
            f"none of the {len(sources)} sources of {name} has a spectrum on the detector in {exposure}: the catalog is of "
            "another field, or the magnitude limit leaves nothing (extract_2d.wfss_mmag_extract)"
        )
    partial = int(
        np.count_nonzero(
            (located.xmin < 0) | (located.ymin < 0) | (located.xmax >= shape[1]) | (located.ymax >= shape[0])
        )
    )
    log.info(
        "extract_2d: %d spectra of %d sources of %d, %d of them partly off the detector",
        len(slits),
        np.unique(traces.source).size,
        len(sources),
        partial,
    )
    return SlitSet(kept, tuple(slits), image.recipe)


def _select(sources: Sources, options: Extract2dOptions, name: str) -> Sources:
    """Those sources that the user named by number or position."""
    if (options.source_ra is None) != (options.source_dec is None) or len(options.source_ra or ()) != len(
        options.source_dec or ()
    ):
        raise ValueError("extract_2d.source_ra and source_dec must be lists of the same length, one source each")
    if options.source_ids is None and options.source_ra is None:
        return sources
    wanted = set(options.source_ids or ())
    for number in sorted(wanted - set(sources.label.tolist())):
        log.warning("extract_2d: %s has no source %d", name, number)
    if options.source_ra:
        places = SkyCoord(sources.ra, sources.dec, unit="deg")
        for ra, dec in zip(options.source_ra, options.source_dec or (), strict=True):
            separation = SkyCoord(ra, dec, unit="deg").separation(places).arcsec
            nearest = int(np.argmin(separation))
            if separation[nearest] <= options.source_max_sep:
                wanted.add(int(sources.label[nearest]))
            else:
                log.warning(
                    "extract_2d: %s has no source within %g arcsec of %.6f %+.6f", name, options.source_max_sep, ra, dec
                )
    chosen = sources.select(np.isin(sources.label, sorted(wanted)))
    if not len(chosen):
        raise ValueError(f"{name} has none of the sources that extract_2d.source_ids, source_ra and source_dec ask for")
    return chosen
