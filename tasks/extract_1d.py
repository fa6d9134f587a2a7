"""extract_1d: the spectrum of each slit."""

import logging
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from calibration.spectra.extract_1d import Extracted, aperture_correction, extract_box, extract_optimal
from infra.products.header import Header, keywords
from infra.products.names import rename
from infra.products.slits import Slit, SlitSet
from infra.products.spectrum import SpectrumSet, SpectrumTable, empty_rows, wfss_units
from infra.references.content import References
from tasks.step import step

log = logging.getLogger(__name__)

#: The calibrated unit is MJy/sr, and spectra are in Jy.
JY_PER_MJY = 1e6


class Extract1dOptions(BaseModel, frozen=True, extra="forbid"):
    """How a spectrum is taken out of its cutout."""

    extraction_type: Literal["box", "optimal"] = Field(
        "box", description="the sum of all pixels of the cutout, or each weighted by the profile of the source"
    )
    apply_apcorr: bool = Field(True, description="correct point sources for the light outside of the cutout")
    subtract_background: bool | None = Field(None, description="subtract the mean of the outer rows; none: do not")
    background_margin: int = Field(2, ge=1, description="rows at either side of the cutout that are background [pixel]")


@step("extract_1d", references=("apcorr",), options=Extract1dOptions)
def extract_1d(
    product: SlitSet | tuple[SlitSet, ...], references: References, options: Extract1dOptions
) -> SpectrumSet:
    """Sum each cutout across the dispersion, or fit its profile there: spectra in Jy and MJy/sr."""
    optimal = options.extraction_type == "optimal"
    if optimal and options.subtract_background:
        raise ValueError(
            "extract_1d.extraction_type=optimal has no rows beside the source to take a background from; choose box, or leave "
            "subtract_background out"
        )
    sets = product if isinstance(product, tuple) else (product,)
    margin = options.background_margin if options.subtract_background else None
    correct = _corrections(references) if options.apply_apcorr else None
    spectra: dict[str, list[tuple[Slit, Extracted, np.ndarray | float]]] = {}
    exposures: dict[str, Header] = {}
    summed = 0
    for exposure, slit in _slits(sets):
        if slit.order == 0:
            # The zeroth order is an image, not a spectrum.
            continue
        planes = (slit.data, slit.dq, slit.wavelength, slit.axis, slit.var_poisson, slit.var_rnoise, slit.var_flat)
        found = extract_optimal(*planes) if optimal else None
        summed += found is None
        if found is None:
            found = extract_box(*planes, margin)
        if not found.wavelength.size:
            log.warning("extract_1d: source %d, order %d has no wavelengths, left out", slit.source_id, slit.order)
            continue
        factor: np.ndarray | float = 1.0
        if correct is not None and slit.header.get("SRCTYPE") == "POINT":
            factor = _point_factor(slit, found, exposure, correct)
        group = f"{group_id(exposure)}_{slit.order}"
        exposures.setdefault(group, exposure)
        spectra.setdefault(group, []).append((slit, found, factor))
    numbers = np.unique([slit.source_id for group in spectra.values() for slit, _, _ in group])
    tables = tuple(_table(group, exposures[group], spectra[group], numbers) for group in spectra)
    first = sets[0]
    header = Header(
        {
            key: value
            for key, value in first.header.items()
            if keywords().get(key) is None or keywords()[key].hdu != "SCI"
        },
        {key: place for key, place in first.header.unknown.items() if place[0] == "PRIMARY"},
    )
    log.info(
        "extract_1d: %d spectra of %d sources%s",
        sum(map(len, spectra.values())),
        numbers.size,
        f", {summed} of them too faint for a profile and summed" if optimal else "",
    )
    return SpectrumSet(header, tables, "WFSSMultiSpecModel", first.recipe)


def _slits(sets: tuple[SlitSet, ...]) -> Iterator[tuple[Header, Slit]]:
    """Each slit with the keywords of its exposure, which stage 3 has put into the slit's own."""
    for one in sets:
        for slit in one.slits:
            yield (slit.header if "EXP_TYPE" in slit.header else one.header), slit


def group_id(header: Header) -> str:
    """The exposure in short, from its identifiers: jw01001001001_02101_1."""
    parts = [
        str(header.get(key, "")) for key in ("PROGRAM", "OBSERVTN", "VISIT", "VISITGRP", "SEQ_ID", "ACT_ID", "EXPOSURE")
    ]
    return f"jw{''.join(parts[:3])}_{''.join(parts[3:6])}_{parts[6]}"


def _table(
    group: str, exposure: Header, spectra: list[tuple[Slit, Extracted, np.ndarray | float]], numbers: np.ndarray
) -> SpectrumTable:
    """The spectra of one exposure and order, a row per source; rows of sources that are not in it stay empty."""
    rows = empty_rows("EXTRACT1D", numbers.size, max(found.wavelength.size for _, found, _ in spectra))
    rows["SOURCE_ID"] = numbers
    first = spectra[0][0]
    calibrated = first.header.get("BUNIT") == "MJy/sr"
    if calibrated and "PIXAR_SR" not in first.header:
        raise ValueError(
            f"{exposure.get('FILENAME')}: the slits have no pixel area PIXAR_SR, without which there is no flux; run photom "
            "with a reference that has it"
        )
    for slit, found, factor in spectra:
        row = rows[np.searchsorted(numbers, slit.source_id)]
        scale = float(slit.header["PIXAR_SR"]) * JY_PER_MJY if calibrated else 1.0
        for column, value in _columns(found, scale, factor).items():
            row[column][: found.wavelength.size] = value
        row["N_ALONGDISP"] = found.wavelength.size
        x, y = int(slit.header["SLTSTRT1"]), int(slit.header["SLTSTRT2"])
        for column, value in {
            "SOURCE_TYPE": slit.header.get("SRCTYPE", "UNKNOWN"),
            "SOURCE_XPOS": slit.header.get("SRCXPOS", np.nan),
            "SOURCE_YPOS": slit.header.get("SRCYPOS", np.nan),
            "SOURCE_RA": slit.header.get("SRCRA", np.nan),
            "SOURCE_DEC": slit.header.get("SRCDEC", np.nan),
            "EXTRACT2D_XSTART": x,
            "EXTRACT2D_YSTART": y,
            "EXTRACT2D_XSTOP": x + slit.data.shape[1],
            "EXTRACT2D_YSTOP": y + slit.data.shape[0],
        }.items():
            row[column] = value
    # Only the first slit of an exposure has its footprint.
    regions = [slit.header["S_REGION"] for slit, _, _ in spectra if "S_REGION" in slit.header]
    cards: dict[str, Any] = {
        "FILENAME": rename(exposure["FILENAME"], "cal") if "FILENAME" in exposure else None,
        "EXPGRPID": group,
        "DISPAXIS": first.axis,
        "SPORDER": first.order,
        "EFFEXPTM": exposure.get("EFFEXPTM"),
        "EFFINTTM": exposure.get("EFFINTTM"),
        "S_REGION": regions[0] if regions else None,
    }
    units = wfss_units("EXTRACT1D", "Jy", "MJy/sr") if calibrated else wfss_units("EXTRACT1D", "DN/s", "DN/s")
    return SpectrumTable("EXTRACT1D", cards, rows, units)


def _columns(found: Extracted, scale: float, factor: np.ndarray | float) -> dict[str, np.ndarray]:
    """The columns of one spectrum; ``scale`` makes flux of a sum, ``factor`` corrects for the aperture."""
    pixels = np.maximum(found.npixels, 1.0)
    variances = (found.var_poisson, found.var_rnoise, found.var_flat)
    background = (found.background_var_poisson, found.background_var_rnoise, found.background_var_flat)
    flux, brightness = factor * scale, factor / pixels
    columns = {
        "WAVELENGTH": found.wavelength,
        "FLUX": found.total * flux,
        "FLUX_ERROR": np.sqrt(sum(variances)) * flux,
        "SURF_BRIGHT": found.total * brightness,
        "SB_ERROR": np.sqrt(sum(variances)) * brightness,
        "DQ": found.dq,
        "BACKGROUND": found.background / pixels,
        "BKGD_ERROR": np.sqrt(sum(background)) / pixels,
        "NPIXELS": found.npixels,
    }
    for name, variance, level in zip(("POISSON", "RNOISE", "FLAT"), variances, background, strict=True):
        columns[f"FLUX_VAR_{name}"] = variance * flux**2
        columns[f"SB_VAR_{name}"] = variance * brightness**2
        columns[f"BKGD_VAR_{name}"] = level / pixels**2
    return columns


def _corrections(references: References) -> Any:
    """The table of the APCORR reference, and whether its sizes are in arcsec; None where there is none."""
    if references.path("apcorr") is None:
        return None
    unit = str(references.header("apcorr", "APCORR").get("SIZEUNIT") or "pixels")
    return references.table("apcorr", "APCORR"), unit.strip().lower().startswith("arcsec")


def _point_factor(slit: Slit, found: Extracted, exposure: Header, corrections: Any) -> np.ndarray | float:
    table, in_arcsec = corrections
    names = {name.lower(): name for name in table.dtype.names}
    match = np.ones(len(table), bool)
    for column in ("filter", "pupil", "subarray"):
        if column in names:
            values = np.char.upper(np.char.strip(np.asarray(table[names[column]], str)))
            match &= np.isin(values, [str(exposure.get(column.upper(), "")).upper(), "ANY"])
    if not match.any():
        log.warning(
            "extract_1d: the APCORR reference has no row for %s %s; no aperture correction",
            exposure.get("FILTER"),
            exposure.get("PUPIL"),
        )
        return 1.0
    row = table[int(np.flatnonzero(match)[0])]
    nwave, nsize = (int(row[names[key]]) if key in names else None for key in ("nelem_wl", "nelem_size"))
    waves = np.asarray(row[names["wavelength"]], float)[:nwave]
    sizes = np.asarray(row[names["size"]], float)[..., :nsize]
    if in_arcsec:
        sizes = sizes / np.sqrt(float(slit.header.require("PIXAR_A2")))
    factors = np.asarray(row[names["apcorr"]], float)
    height = slit.data.shape[0] if slit.axis == 1 else slit.data.shape[1]
    if nwave is not None and nsize is not None:
        factors = (
            factors[:nwave, :nsize]
            if factors.shape[0] >= nwave and factors.shape[1] >= nsize
            else factors[:nsize, :nwave]
        )
    return aperture_correction(found.wavelength, float(height), waves, sizes, factors)
