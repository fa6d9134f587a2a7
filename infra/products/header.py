"""``Header``: the metadata of a product by FITS keyword, and the map from keyword to HDU, model path and comment.

The map is read from the schemas of ``stdatamodels``, which define the files: nothing of it is written down here. What was
read is kept on disk for each version of that package, since to read it takes most of a second.
"""

import contextlib
import difflib
import functools
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from astropy.io import fits

from calibration.subarrays import Subarray

_SCHEMAS = (
    "image ramp level1b cube guider_raw guider_cal slit multislit segmap multispec wfss_multispec combinedspec "
    "multicombinedspec ifucube"
).split()
_SCHEMA_URL = "http://stsci.edu/schemas/jwst_datamodel/{}.schema"


class ProductError(Exception):
    """A product or its file is not what it should be; the message says what was expected, what came and what to do."""


@dataclass(frozen=True)
class Keyword:
    """Where a FITS keyword lives: HDU name, path in the data model, comment, and the sections it stands in."""

    hdu: str
    path: str
    comment: str
    sections: tuple[str, ...]
    type: str | None


@functools.cache
def keywords() -> Mapping[str, Keyword]:
    """Every keyword of the data models that stands once per file, in the order of the schemas.

    Where two paths claim one keyword (``V2_REF`` is of the guide star and of the science aperture) the science
    extension wins, as it does in the archive's files.
    """
    kept = _kept_keywords()
    if kept.exists():
        entries = json.loads(kept.read_text())
        return MappingProxyType(
            {key: Keyword(**{**entry, "sections": tuple(entry["sections"])}) for key, entry in entries.items()}
        )
    found = _read_schemas()
    # Where the folder cannot be written, each process reads the schemas again.
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=kept.parent, delete=False) as file:
            json.dump({key: asdict(entry) for key, entry in found.items()}, file)
        os.replace(file.name, kept)
    return found


def _kept_keywords() -> Path:
    """Where the map is kept: one file for each version of the schemas and of the code that reads them."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    return Path(home) / "calweave" / f"keywords-{version('stdatamodels')}-{code}.json"


def _read_schemas() -> Mapping[str, Keyword]:
    import stdatamodels.jwst.datamodels  # noqa: F401  registers the schemas
    from asdf.schema import load_schema
    from stdatamodels.schema import merge_property_trees

    found: dict[str, Keyword] = {}

    def walk(node: Mapping, path: tuple[str, ...], sections: tuple[str, ...]) -> None:
        for name, child in node.get("properties", {}).items():
            if "fits_keyword" in child:
                hdu = child.get("fits_hdu") or "PRIMARY"
                known = found.get(child["fits_keyword"])
                if known is None or (known.hdu == "PRIMARY" and hdu == "SCI"):
                    found[child["fits_keyword"]] = Keyword(
                        hdu, ".".join((*path, name)), child.get("title", ""), sections, child.get("type")
                    )
            elif child.get("type") != "array":
                title = child.get("title")
                walk(child, (*path, name), (*sections, title) if title and "properties" in child else sections)

    for schema in _SCHEMAS:
        walk(merge_property_trees(load_schema(_SCHEMA_URL.format(schema), resolve_references=True)), (), ())
    # The bunit of ERR goes with the ERR array, not with the header of the product.
    return MappingProxyType({key: entry for key, entry in found.items() if entry.hdu in ("PRIMARY", "SCI")})


@functools.cache
def keyword_of(path: str) -> str | None:
    """The FITS keyword of a data model path such as ``meta.exposure.type``, or None where it has none."""
    return _keywords_by_path().get(path)


@functools.cache
def _keywords_by_path() -> Mapping[str, str]:
    return {entry.path: key for key, entry in keywords().items()}


@dataclass(frozen=True)
class Header(Mapping[str, Any]):
    """Metadata of a product: FITS keyword -> value, immutable.

    Attributes
    ----------
    cards : mapping
        Keyword -> Python value (str, int, float, bool). A keyword that is not there is not known.
    unknown : mapping
        Keyword -> (HDU name, comment) of those cards that no data model knows; they are kept and written back.
    """

    cards: Mapping[str, Any]
    unknown: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        return self.cards[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.cards)

    def __len__(self) -> int:
        return len(self.cards)

    def __hash__(self) -> int:
        return id(self)

    def set(self, changes: Mapping[str, Any] | None = None, **more: Any) -> "Header":
        """A header with these keywords changed; a value of None removes the keyword.

        Raises
        ------
        KeyError
            If no data model has the keyword: what is not a known keyword belongs in the ASDF tree.
        """
        cards = dict(self.cards)
        for key, value in {**(changes or {}), **more}.items():
            if key not in keywords() and key not in self.unknown:
                near = difflib.get_close_matches(key, keywords(), 1)
                raise KeyError(
                    f"{key} is no keyword of the data models" + (f"; did you mean {near[0]}?" if near else "")
                )
            if value is None:
                cards.pop(key, None)
            else:
                cards[key] = _plain(value)
        return Header(cards, self.unknown)

    def require(self, *names: str) -> Any:
        """The value of a keyword (or a tuple of several values), which must be there.

        Raises
        ------
        ProductError
            Naming every keyword that is missing.
        """
        missing = [name for name in names if name not in self.cards]
        if missing:
            known = keywords()
            words = ", ".join(f"{name} ({known[name].path})" if name in known else name for name in missing)
            raise ProductError(
                f"{self.get('FILENAME', 'the product')}: missing keyword{'s' if len(missing) > 1 else ''} {words}; "
                "fetch the exposure again from the archive, or add what is missing to its header"
            )
        values = tuple(self.cards[name] for name in names)
        return values[0] if len(values) == 1 else values

    @property
    def subarray(self) -> Subarray:
        """The detector area of the product, from SUBSTRT1/2 and SUBSIZE1/2."""
        return Subarray(*map(int, self.require("SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2")))


def _plain(value: Any) -> Any:
    """A value of Python's own types: a header must not hold on to NumPy scalars (or arrays behind them)."""
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, str | int | float | bool):
        raise TypeError(f"a header value must be a string, number or boolean, but is {type(value).__name__}: {value!r}")
    return value


def parse_cards(hdus: Mapping[str, fits.Header]) -> Header:
    """Read a ``Header`` from the FITS headers of the HDUs of a file, by HDU name ("PRIMARY", "SCI")."""
    cards: dict[str, Any] = {}
    unknown: dict[str, tuple[str, str]] = {}
    known = keywords()
    for hdu, header in hdus.items():
        for card in header.cards:
            key, value = card.keyword, card.value
            if _is_structural(key) or value is None or isinstance(value, fits.card.Undefined):
                continue
            if key in known:
                if key not in cards or known[key].hdu == hdu:
                    cards[key] = value
            elif key not in cards:
                cards[key] = value
                unknown[key] = (hdu, card.comment)
    return Header(cards, unknown)


def format_cards(header: Header, hdu: str) -> list[tuple]:
    """The cards of one HDU ("PRIMARY" or "SCI") in the order of the data models, sections titled as in the archive's files."""
    cards: list[tuple] = []
    open_sections: tuple[str, ...] = ()
    for key, entry in keywords().items():
        if entry.hdu == hdu and key in header:
            for title in entry.sections:
                if title not in open_sections:
                    cards += [("", ""), ("", f"        {title}"), ("", "")]
            open_sections = entry.sections or open_sections
            cards.append((key, _fits_value(key, header[key]), entry.comment))
    cards += [
        (key, _fits_value(key, header[key]), note) for key, (where, note) in header.unknown.items() if where == hdu
    ]
    return cards


def _fits_value(key: str, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ProductError(f"keyword {key} is {value}, which FITS cannot hold; leave it out of the header instead")
    return value


_STRUCTURAL = frozenset(
    "SIMPLE BITPIX NAXIS EXTEND XTENSION PCOUNT GCOUNT BSCALE BZERO BLANK EXTNAME EXTVER EXTLEVEL GROUPS TFIELDS "
    "CHECKSUM DATASUM HISTORY COMMENT NEXTEND".split()
)


def _is_structural(key: str) -> bool:
    return (
        key == ""
        or key in _STRUCTURAL
        or (
            key.rstrip("0123456789") in ("NAXIS", "TTYPE", "TFORM", "TUNIT", "TDIM", "TSCAL", "TZERO", "TNULL", "TDISP")
        )
    )
