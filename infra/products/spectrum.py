"""``SpectrumSet``: tables of extracted spectra, with their files ``_x1d`` and ``_c1d``.

Of slitless exposures there is a table per exposure and order (``_x1d``) or per order (``_c1d``), with a row per source: the
spectra are vectors in the row, as long as the longest of the table, of which N_ALONGDISP elements count. Other modes have
a table per spectrum with a row per wavelength. Both are tables with keywords here.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from infra.products.fits import Hdu, read_fits, write_fits
from infra.products.header import Header, ProductError
from infra.products.slits import split_header


@dataclass(frozen=True)
class SpectrumTable:
    """One table.

    Attributes
    ----------
    extname : str
        EXTRACT1D or COMBINE1D.
    cards : mapping
        Its keywords: SPORDER, DISPAXIS, EXPGRPID, ...
    rows : structured array
        Columns as in the data models.
    units : mapping
        Column -> unit.
    """

    extname: str
    cards: Mapping[str, Any]
    rows: np.ndarray
    units: Mapping[str, str] = field(default_factory=dict)

    with_ = replace


@dataclass(frozen=True)
class SpectrumSet:
    """The spectra of one product.

    Attributes
    ----------
    header : Header
    tables : tuple of SpectrumTable
    model : str
        The data model of the file, such as WFSSMultiSpecModel.
    recipe : mapping
        What the steps did.
    """

    header: Header
    tables: tuple[SpectrumTable, ...]
    model: str
    recipe: Mapping[str, Any] = field(default_factory=dict)

    with_ = replace


@functools.cache
def wfss_columns(kind: str) -> tuple[tuple[str, str, bool], ...]:
    """(name, NumPy type, whether it is a vector) of the columns of a slitless table, EXTRACT1D or COMBINE1D.

    The vectors are the columns that a plain spectrum of the data models has; the others say things of the source.
    """
    plain, flat = {
        "EXTRACT1D": ("spectable", "wfss_spectable"),
        "COMBINE1D": ("combinedspectable", "wfss_combinedspectable"),
    }[kind]
    vectors = {column["name"] for column in _schema(plain)["datatype"]}
    return tuple(
        (column["name"], _numpy_type(column["datatype"]), column["name"] in vectors)
        for column in _schema(flat)["datatype"]
    )


@functools.cache
def _schema(name: str) -> Mapping[str, Any]:
    import stdatamodels.jwst.datamodels  # noqa: F401  registers the schemas
    from asdf.schema import load_schema

    return load_schema(f"http://stsci.edu/schemas/jwst_datamodel/{name}.schema", resolve_references=True)


def _numpy_type(datatype: str | Sequence) -> str:
    return datatype if isinstance(datatype, str) else f"S{datatype[1]}"


def empty_rows(kind: str, nsources: int, length: int) -> np.ndarray:
    """A slitless table without content: NaN, DQ DO_NOT_USE, SOURCE_ID -999, N_ALONGDISP 0."""
    name = {"EXTRACT1D": "wfss_spectable", "COMBINE1D": "wfss_combinedspectable"}[kind]
    columns = wfss_columns(kind)
    rows = np.empty(
        nsources, [(column, dtype, (length,)) if vector else (column, dtype) for column, dtype, vector in columns]
    )
    for (column, _, _), value in zip(columns, _schema(name)["default"], strict=True):
        rows[column] = value
    return rows


def wfss_units(kind: str, flux: str, brightness: str) -> dict[str, str]:
    """Column -> unit of a slitless table whose flux and surface brightness have these units."""
    flux2, brightness2 = (" / ".join(f"{part}^2" for part in unit.split("/")) for unit in (flux, brightness))
    units = {"WAVELENGTH": "um", "SOURCE_RA": "deg", "SOURCE_DEC": "deg"}
    for column, _, vector in wfss_columns(kind):
        if not vector:
            if column.startswith(("EXTRACT2D_", "SOURCE_XPOS", "SOURCE_YPOS")):
                units[column] = "pix"
        elif column.startswith("FLUX_VAR"):
            units[column] = flux2
        elif column.startswith(("SB_VAR", "BKGD_VAR")):
            units[column] = brightness2
        elif column.startswith(("FLUX", "ERROR")):
            units[column] = flux
        elif column.startswith(("SURF", "SB_", "BACKGROUND", "BKGD")):
            units[column] = brightness
    return units


_STRUCTURE = (
    "XTENSION BITPIX NAXIS PCOUNT GCOUNT TFIELDS EXTNAME EXTVER TTYPE TFORM TUNIT TDIM TZERO TSCAL TNULL TDISP"
).split()


def read_spectra(path: str | Path) -> SpectrumSet:
    """Read a ``_x1d``, ``_x1dints`` or ``_c1d`` file."""
    contents = read_fits(path)
    tables = []
    for (extname, ver), rows in contents.arrays.items():
        if extname not in ("EXTRACT1D", "COMBINE1D"):
            continue
        cards, units = {}, {}
        for card in contents.cards[extname, ver].cards:
            stem = card.keyword.rstrip("0123456789")
            if stem == "TUNIT":
                units[rows.dtype.names[int(card.keyword[5:]) - 1]] = card.value
            elif card.keyword and stem not in _STRUCTURE and card.keyword not in ("COMMENT", "HISTORY"):
                cards[card.keyword] = card.value
        tables.append(SpectrumTable(extname, cards, rows, units))
    model = contents.header.get("DATAMODL", "")
    if not tables and not model.startswith("WFSS"):
        raise ProductError(
            f"{contents.name}: expected a table EXTRACT1D or COMBINE1D of spectra, but there is none; give a _x1d or _c1d file"
        )
    return SpectrumSet(contents.header, tuple(tables), model, contents.recipe)


def write_spectra(spectra: SpectrumSet, path: str | Path) -> None:
    """Write spectra to one file."""
    header, _ = split_header(spectra.header)
    versions: dict[str, int] = {}
    hdus = []
    for table in spectra.tables:
        versions[table.extname] = versions.get(table.extname, 0) + 1
        cards = [(key, value, "") for key, value in table.cards.items() if value is not None]
        hdus.append(Hdu(table.extname, table.rows, versions[table.extname], cards, table.units))
    write_fits(path, spectra.model, header, hdus, {"calweave": {"recipe": dict(spectra.recipe)}})
