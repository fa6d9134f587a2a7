"""``SlitSet``: the cutouts of one exposure, one per source and order, with their file ``_cal``.

The file has SCI, DQ, ERR, WAVELENGTH and variances per slit, told apart by EXTVER, the keywords of a slit in its SCI
header and its WCS in the ASDF extension. Hundreds of slits are the rule and thousands occur, so that none is validated on
its own, the WCS are made when they are asked for, and those of one exposure share their transforms, in memory and in the
file. There, to make the entries of all slits by the library takes 30 ms for each: where they differ by numbers alone it
makes one, and the others are copies of its text with their own numbers. Such a file says so (``one_exposure``), and is read
without its copies: the numbers stand in the headers, too.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import asdf
import numpy as np
from yaml.representer import SafeRepresenter  # type: ignore[import-untyped]

from calibration.wcs.grism import exposure_wcs, slit_wcs
from infra.products.fits import Contents, Hdu, read_fits, write_fits
from infra.products.header import Header, ProductError, format_cards, parse_cards


@dataclass(frozen=True)
class Exposure:
    """What was dispersed as a whole: its WCS, which those of its slits share."""

    wcs: Any


@dataclass(frozen=True)
class _StoredExposure:
    """The same, in the file of the slits; read when it is asked for."""

    contents: Contents

    @cached_property
    def wcs(self) -> Any:
        return exposure_wcs(_read_wcs(self.contents, 0))


@dataclass(frozen=True)
class SlitWcs:
    """Makes the WCS of a slit out of that of its exposure, with the numbers of `calibration.wcs.grism.slit_wcs`."""

    exposure: Exposure | _StoredExposure
    x: int
    y: int
    shape: tuple[int, int]
    direct: tuple[float, float]
    order: int

    def __call__(self) -> Any:
        return slit_wcs(self.exposure.wcs, self.x, self.y, self.shape, self.direct, self.order)

    @property
    def numbers(self) -> tuple[float, ...]:
        """All that is its own, in a fixed order."""
        return (self.x, self.y, *self.shape, *self.direct, self.order)


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
    exposure = None
    if _ONE_EXPOSURE in contents.extension:
        contents = replace(contents, extension=_first_entry(contents.extension))
        exposure = _StoredExposure(contents)
    numbers = sorted(ver for extname, ver in contents.arrays if extname == "SCI")
    model = contents.header.get("DATAMODL")
    if model not in ("MultiSlitModel", "SlitModel") or (not numbers and model != "MultiSlitModel"):
        raise ProductError(
            f"{contents.name}: expected a file of slits (DATAMODL MultiSlitModel), but it is a {model}; give the _cal "
            "product of a grism exposure"
        )
    header, _ = split_header(contents.header)
    return SlitSet(header, tuple(_read_slit(contents, ver, exposure) for ver in numbers), contents.recipe)


def _read_slit(contents: Contents, ver: int, exposure: _StoredExposure | None) -> Slit:
    planes = {}
    for name, (extname, dtype) in _PLANES.items():
        array = contents.get(extname, ver)
        planes[name] = None if array is None else array.astype(dtype, copy=False)
    missing = [_PLANES[name][0] for name in ("data", "err", "dq") if planes[name] is None]
    if missing:
        raise ProductError(f"{contents.name}: slit {ver} has no {', '.join(missing)}; make the file again")
    _, header = split_header(parse_cards({"SCI": contents.cards["SCI", ver]}))
    extended = header["SRCTYPE"] == "EXTENDED" if "SRCTYPE" in header else None
    make_wcs: Callable[[], Any] = functools.partial(_read_wcs, contents, ver - 1)
    if exposure is not None:
        x, y, *direct, order = header.require("SLTSTRT1", "SLTSTRT2", "SRCXPOS", "SRCYPOS", "SPORDER")
        make_wcs = SlitWcs(exposure, x - 1, y - 1, planes["data"].shape, tuple(direct), order)
    return Slit(header=header, extended=extended, make_wcs=make_wcs, **planes)


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
    ours: dict[str, Any] = {"recipe": dict(slits.recipe)}
    if _of_one_exposure(slits.slits):
        first = slits.slits[0]
        pattern = first.with_(make_wcs=replace(first.make_wcs, **_PATTERN))
        tree = {"slits": [_entry(first), _entry(pattern)], "calweave": ours | {"one_exposure": True}}
        write_fits(path, "MultiSlitModel", header, hdus, tree, functools.partial(_copy_entries, slits=slits.slits[1:]))
    else:
        entries = [_entry(slit) for slit in slits.slits]
        write_fits(path, "MultiSlitModel", header, hdus, {"slits": entries, "calweave": ours})


def _entry(slit: Slit) -> dict[str, Any]:
    entry: dict[str, Any] = {"meta": {"wcs": slit.wcs, "model_type": "SlitModel"}}
    return entry if slit.extended is None else {"is_extended": slit.extended, **entry}


def _of_one_exposure(slits: Sequence[Slit]) -> bool:
    """Whether the entries of the slits differ by numbers alone, and those stand in their headers, too."""
    return len(slits) > 1 and all(
        isinstance(slit.make_wcs, SlitWcs)
        and slit.make_wcs.exposure is slits[0].make_wcs.exposure  # type: ignore[union-attr]
        and (slit.extended is None) == (slits[0].extended is None)
        and slit.make_wcs.numbers == _numbers_of(slit)
        for slit in slits
    )


def _numbers_of(slit: Slit) -> tuple[Any, ...]:
    keys = ("SLTSTRT1", "SLTSTRT2", "SRCXPOS", "SRCYPOS", "SPORDER")
    x, y, *direct, order = (slit.header.get(key, np.nan) for key in keys)
    return (x - 1, y - 1, *slit.data.shape, *direct, order)


#: The numbers of the entry that is copied: as no slit has them, and each as it stands in the text.
_PATTERN: dict[str, Any] = {
    "x": -100001,
    "y": -100002,
    "shape": (100003, 100004),
    "direct": (100005.25, 100006.25),
    "order": -100007,
}
_IN_TEXT = ("-100001.0", "-100002.0", "100002.5", "100003.5", "100005.25", "100006.25", "-100007.0")
_ONE_EXPOSURE = b"one_exposure: true"
_ENTRIES = re.compile(rb"(?<=\nslits:\n)(- .*\n(?:  .*\n)*)((?:- .*\n(?:  .*\n)*)*)")
_BLOCK_INDEX = re.compile(rb"#ASDF BLOCK INDEX\n.*\Z", re.DOTALL)


def _copy_entries(content: bytes, slits: Sequence[Slit]) -> bytes:
    """An ASDF file whose second entry is the pattern, with the entries of ``slits`` in its place."""
    found = _ENTRIES.search(content)
    if found is None:
        raise RuntimeError("the ASDF extension has no entries of slits where they are expected")
    text = found.group(2).decode()
    parts = re.split("|".join(map(re.escape, _IN_TEXT)), text)
    order = [_IN_TEXT.index(number) for number in re.findall("|".join(map(re.escape, _IN_TEXT)), text)]
    if set(order) != set(range(len(_IN_TEXT))):
        raise RuntimeError("the entry of a slit in the ASDF extension has not the numbers that are expected")
    copies = []
    for slit in slits:
        x, y, ny, nx, *rest = map(float, slit.make_wcs.numbers)  # type: ignore[union-attr]
        numbers = [_as_yaml(number) for number in (x, y, ny - 0.5, nx - 0.5, *rest)]
        copy = "".join(part + numbers[k] for part, k in zip(parts, order, strict=False)) + parts[-1]
        copies.append(re.sub("(?<=is_extended: )[a-z]+", str(slit.extended).lower(), copy, count=1))
    # The index of the binary blocks tells where they were; without it they are looked for.
    return content[: found.start(2)] + "".join(copies).encode() + _BLOCK_INDEX.sub(b"", content[found.end(2) :])


def _first_entry(content: bytes) -> bytes:
    """The ASDF file without the entries that are copies of the first."""
    found = _ENTRIES.search(content)
    if found is None:
        return content
    return content[: found.start(2)] + _BLOCK_INDEX.sub(b"", content[found.end(2) :])


def _as_yaml(number: float) -> str:
    return str(_REPRESENTER.represent_float(number).value)


_REPRESENTER = SafeRepresenter()
