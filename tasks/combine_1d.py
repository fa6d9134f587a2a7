"""combine_1d: one spectrum per source and order, out of those of all exposures."""

import logging
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from calibration import dq as flags
from calibration.spectra.combine_1d import Combined, Spectrum, combine_spectra
from infra.products.spectrum import SpectrumSet, SpectrumTable, empty_rows, wfss_units
from infra.references.content import References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


class Combine1dOptions(BaseModel, frozen=True, extra="forbid"):
    """How spectra are weighted."""

    exptime_key: Literal["exposure_time", "integration_time", "unit_weight", "snr"] = Field(
        "exposure_time", description="what a spectrum is weighted with; snr: its median error, to the power of -2"
    )
    sigma_clip: float | None = Field(
        None, gt=0, description="leave out values so many median deviations off; none: keep all"
    )


@step("combine_1d", options=Combine1dOptions)
def combine_1d(spectra: SpectrumSet, references: References, options: Combine1dOptions) -> SpectrumSet:
    """Average the spectra of each source over the exposures."""
    orders: dict[int, list[SpectrumTable]] = {}
    for table in spectra.tables:
        orders.setdefault(int(table.cards["SPORDER"]), []).append(table)
    combined = tuple(
        made for order, tables in orders.items() if (made := _combine_order(order, tables, options)) is not None
    )
    if not combined:
        raise StepSkipped("no source has a spectrum with a value in it")
    log.info(
        "combine_1d: %d spectra from %d tables of extracted ones",
        sum(len(table.rows) for table in combined),
        len(spectra.tables),
    )
    return spectra.with_(tables=combined, model="WFSSMultiCombinedSpecModel")


def _combine_order(order: int, tables: list[SpectrumTable], options: Combine1dOptions) -> SpectrumTable | None:
    done: list[tuple[np.void, Combined]] = []
    for number in np.unique(np.concatenate([table.rows["SOURCE_ID"] for table in tables])):
        inputs, first = [], None
        for table in tables:
            for row in table.rows[table.rows["SOURCE_ID"] == number]:
                spectrum = _spectrum(row, table, options)
                if spectrum is not None:
                    inputs.append(spectrum)
                    first = row if first is None else first
        if first is None:
            log.warning("combine_1d: source %d, order %d has no value in any exposure, left out", number, order)
            continue
        done.append((first, combine_spectra(inputs, options.sigma_clip)))
    if not done:
        return None
    rows = empty_rows("COMBINE1D", len(done), max(mean.wavelength.size for _, mean in done))
    for row, (source, mean) in zip(rows, done, strict=True):
        n = mean.wavelength.size
        for column, values in {
            "WAVELENGTH": mean.wavelength,
            "FLUX": mean.flux,
            "ERROR": mean.flux_error,
            "SURF_BRIGHT": mean.brightness,
            "SB_ERROR": mean.brightness_error,
            "DQ": mean.dq,
            "WEIGHT": mean.weight,
            "N_INPUT": mean.count,
        }.items():
            row[column][:n] = values
        row["N_ALONGDISP"] = n
        for column in ("SOURCE_ID", "SOURCE_TYPE", "SOURCE_RA", "SOURCE_DEC"):
            row[column] = source[column]
    cards = {"SPORDER": order, "DISPAXIS": tables[0].cards.get("DISPAXIS")}
    units = wfss_units("COMBINE1D", tables[0].units["FLUX"], tables[0].units["SURF_BRIGHT"])
    return SpectrumTable("COMBINE1D", cards, rows, units)


def _spectrum(row: np.void, table: SpectrumTable, options: Combine1dOptions) -> Spectrum | None:
    """The spectrum in a row; None where it has no value, or its wavelengths neither rise nor fall."""
    n = int(row["N_ALONGDISP"])
    wavelength, flux = row["WAVELENGTH"][:n], row["FLUX"][:n]
    usable = np.isfinite(flux) & ((row["DQ"][:n] & flags.PIXEL["DO_NOT_USE"]) == 0)
    steps = np.diff(wavelength)
    if not usable.any():
        return None
    if n < 2 or not ((steps > 0).all() or (steps < 0).all()):
        log.warning(
            "combine_1d: the wavelengths of source %d in %s neither rise nor fall, left out",
            row["SOURCE_ID"],
            table.cards.get("FILENAME"),
        )
        return None
    weight = _weight(table, row["FLUX_ERROR"][:n][usable], options)
    return Spectrum(
        wavelength,
        flux,
        row["FLUX_ERROR"][:n],
        row["SURF_BRIGHT"][:n],
        row["SB_ERROR"][:n],
        row["DQ"][:n],
        usable,
        weight,
    )


def _weight(table: SpectrumTable, errors: np.ndarray, options: Combine1dOptions) -> float:
    """The weight of one spectrum, whose usable values have these errors."""
    if options.exptime_key == "unit_weight":
        return 1.0
    if options.exptime_key == "snr":
        # One for the whole spectrum: that of single values would follow their noise.
        known = errors[np.isfinite(errors) & (errors > 0)]
        return 1 / float(np.median(known.astype(np.float64))) ** 2 if known.size else 0.0
    key = {"exposure_time": "EFFEXPTM", "integration_time": "EFFINTTM"}[options.exptime_key]
    weight = table.cards.get(key)
    if weight is None or not weight > 0:
        raise ValueError(
            f"{table.cards.get('FILENAME')}: its table has no {key} to weight its spectra with; add it to the exposure, or "
            "choose combine_1d.exptime_key=unit_weight"
        )
    return float(weight)
