"""``SlitSet``: the cutouts of one exposure, one per source and order, with their file ``_cal``.

The file has SCI, DQ, ERR, WAVELENGTH and variances per slit, told apart by EXTVER, the keywords of a slit in its SCI
header and its WCS in the ASDF extension. Hundreds of slits are the rule, so that none is validated on its own, the WCS are
made when they are asked for, and those of one exposure share their transforms, in memory and in the file.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import asdf
import numpy as np

from infra.products.fits import Contents, Hdu, read_fits, write_fits
from infra.products.header import Header, ProductError, format_cards, parse_cards


@dataclass(frozen=True)
class Slit:
    """One cutout.

    Attributes
    ----------
    header : Header
        The keywords of this slit: SLTNAME, SLTSTRT1/2, SLTSIZE1/2, SOURCEID, SRCTYPE, SPORDER, DISPAXIS, BUNIT, ...
    data, err : (ny, nx) float32
        Signal and its standard deviation, in the unit of BUNIT; NaN where there is none.
    dq : (ny, nx) uint32
    wavelength : (ny, nx) float32 or None
        [um]; NaN where there is none.
    var_poisson, var_rnoise, var_flat : (ny, nx) float32 or None
        Variances, in the square of that unit.
    extended : bool or None
        Whether the catalog calls the source extended.
    make_wcs : callable or None
        Makes the gwcs object of the slit: see ``wcs``.
    """

    header: Header
    data: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    wavelength: np.ndarray | None = None
    var_poisson: np.ndarray | None = None
    var_rnoise: np.ndarray | None = None
    var_flat: np.ndarray | None = None
    extended: bool | None = None
    make_wcs: Callable[[], Any] | None = None

    with_ = replace

    @property
    def wcs(self) -> Any:
        """The gwcs object, made anew at each call; None where the slit has none."""
        return None if self.make_wcs is None else self.make_wcs()

    @property
    def source_id(self) -> int:
        """The number of the source in its catalog."""
        return int(self.header.require("SOURCEID"))

    @property
    def order(self) -> int:
        """Spectral order; 1 where the file does not say."""
        return int(self.header.get("SPORDER", 1))

    @property
    def axis(self) -> int:
        """DISPAXIS: 1 where x runs along the dispersion, 2 where y does."""
        return int(self.header.require("DISPAXIS"))


@dataclass(frozen=True)
class SlitSet:
    """The slits of one exposure; of one source where stage 3 has sorted them.

    Attributes
    ----------
    header : Header
        The keywords of the exposure.
    slits : tuple of Slit
        In the order of the file: sources brightest first.
    recipe : mapping
        What the steps did.
    side : mapping
        Products that steps made beside this one on request, suffix -> product; they get files of their own.
    """

    header: Header
    slits: tuple[Slit, ...]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    side: Mapping[str, Any] = field(default_factory=dict)

    with_ = replace


_PLANES = {
    "data": ("SCI", np.float32),
    "dq": ("DQ", np.uint32),
    "err": ("ERR", np.float32),
    "wavelength": ("WAVELENGTH", np.float32),
    "var_poisson": ("VAR_POISSON", np.float32),
    "var_rnoise": ("VAR_RNOISE", np.float32),
    "var_flat": ("VAR_FLAT", np.float32),
}


@functools.cache
def slit_keywords() -> frozenset[str]:
    """The keywords that belong to a slit, not to its exposure, by the schema of the data models."""
    import stdatamodels.jwst.datamodels  # noqa: F401  registers the schemas
    from asdf.schema import load_schema
    from stdatamodels.schema import merge_property_trees

    found = set()

    def walk(node: Mapping[str, Any]) -> None:
        for child in node.get("properties", {}).values():
            if "fits_keyword" in child and child.get("fits_hdu") == "SCI":
                found.add(child["fits_keyword"])
            walk(child)

    url = "http://stsci.edu/schemas/jwst_datamodel/slitdata.schema"
    walk(merge_property_trees(load_schema(url, resolve_references=True)))
    return frozenset(found)


def split_header(header: Header) -> tuple[Header, Header]:
    """The keywords of the exposure, and those of a slit, out of a header that has both."""
    of_slit = {key: value for key, value in header.items() if key in slit_keywords()}
    kept = {key: value for key, value in header.items() if key not in of_slit}
    return Header(MappingProxyType(kept), header.unknown), Header(MappingProxyType(of_slit))


def read_slits(path: str | Path) -> SlitSet:
    """Read a ``_cal`` file of slits.

    Raises
    ------
    ProductError
        If the file has no slits, or one of them lacks ERR or DQ, naming it.
    """
    # To check a tree of hundreds of WCS against its schemas takes longer than to read it; the classes that are made of it,
    # when they are asked for, check what they are made of.
    with asdf.config_context() as config:
        config.validate_on_read = False
        contents = read_fits(path)
    numbers = sorted(ver for extname, ver in contents.arrays if extname == "SCI")
    model = contents.header.get("DATAMODL")
    if model not in ("MultiSlitModel", "SlitModel") or (not numbers and model != "MultiSlitModel"):
        raise ProductError(
            f"{contents.name}: expected a file of slits (DATAMODL MultiSlitModel), but it is a {model}; give the _cal "
            "product of a grism exposure"
        )
    header, _ = split_header(contents.header)
    return SlitSet(header, tuple(_read_slit(contents, ver) for ver in numbers), contents.recipe)


def _read_slit(contents: Contents, ver: int) -> Slit:
    planes = {}
    for name, (extname, dtype) in _PLANES.items():
        array = contents.get(extname, ver)
        planes[name] = None if array is None else array.astype(dtype, copy=False)
    missing = [_PLANES[name][0] for name in ("data", "err", "dq") if planes[name] is None]
    if missing:
        raise ProductError(f"{contents.name}: slit {ver} has no {', '.join(missing)}; make the file again")
    _, header = split_header(parse_cards({"SCI": contents.cards["SCI", ver]}))
    extended = header["SRCTYPE"] == "EXTENDED" if "SRCTYPE" in header else None
    return Slit(header=header, extended=extended, make_wcs=functools.partial(_read_wcs, contents, ver - 1), **planes)


def _read_wcs(contents: Contents, index: int) -> Any:
    """The gwcs object of one slit of a file; None where it has none."""
    if "slits" not in contents.tree:  # the file of one slit (SlitModel) has its WCS where an image has it
        return contents.wcs
    entries = contents.tree.get("slits", ())
    if index >= len(entries):
        return None
    # The entry of a slit also points to the arrays of the FITS file, which we have and ASDF alone cannot find.
    raw = getattr(entries, "data", entries)[index]
    for key in [
        key
        for key, value in raw.items()
        if str(getattr(value, "_tag", "")).startswith("tag:stsci.edu:asdf/core/ndarray")
    ]:
        del raw[key]
    return entries[index].get("meta", {}).get("wcs")


def write_slits(slits: SlitSet, path: str | Path) -> None:
    """Write the slits of one exposure."""
    header, _ = split_header(slits.header)
    hdus: list[Hdu] = []
    entries = []
    for ver, slit in enumerate(slits.slits, start=1):
        for name, (extname, dtype) in _PLANES.items():
            array = getattr(slit, name)
            if array is None:
                continue
            cards: list[tuple] = []
            if name == "data":
                cards = format_cards(slit.header, "SCI")
            elif name == "err" and "BUNIT" in slit.header:
                cards = [("BUNIT", slit.header["BUNIT"], "physical units of the error array values")]
            hdus.append(Hdu(extname, np.asarray(array, dtype), ver, cards))
        entry: dict[str, Any] = {"meta": {"wcs": slit.wcs, "model_type": "SlitModel"}}
        if slit.extended is not None:
            entry["is_extended"] = slit.extended
        entries.append(entry)
    write_fits(path, "MultiSlitModel", header, hdus, {"slits": entries, "calweave": {"recipe": dict(slits.recipe)}})
