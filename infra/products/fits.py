"""The layer under all products: HDUs, headers and the ASDF extension of one FITS file, written the same way every time.

The layout is that of ``stdatamodels``, which the archive's files have: keywords in PRIMARY and SCI, one HDU per array,
and what FITS cannot hold (the WCS, the recipe) in a last extension ``ASDF``. Arrays go around the data models: to
validate an array costs more than to write it.
"""

import gzip
import io
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import asdf
import numpy as np
from astropy.io import fits

from infra.products.header import Header, ProductError, format_cards, parse_cards

log = logging.getLogger(__name__)

# `_open` makes an error of what astropy only warns about.
warnings.filterwarnings("ignore", message="File may have been truncated")


@dataclass(frozen=True)
class Hdu:
    """One extension to write: its name, an image array or a structured array (a table), EXTVER and extra cards.

    ``cards`` holds (keyword, value, comment); ``units`` the unit of each table column.
    """

    name: str
    data: np.ndarray | None
    ver: int = 1
    cards: Sequence[tuple] = ()
    units: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contents:
    """What one file holds: the header, the arrays by (EXTNAME, EXTVER), the FITS header of each, and the ASDF extension.

    The tree of the ASDF extension is made into objects as it is asked for: a slit set has hundreds of WCS.
    """

    name: str
    header: Header
    arrays: Mapping[tuple[str, int], np.ndarray]
    cards: Mapping[tuple[str, int], fits.Header]
    extension: asdf.AsdfFile | None

    def get(self, extname: str, ver: int = 1) -> np.ndarray | None:
        """The array of an extension, or None where the file has none."""
        return self.arrays.get((extname, ver))

    def require(self, extname: str) -> np.ndarray:
        """The array of an extension that must be there."""
        array = self.get(extname)
        if array is None:
            names = ", ".join(sorted({extname for extname, _ in self.cards})) or "none"
            raise ProductError(
                f"{self.name}: expected an extension {extname} with data, but the file has {names}; "
                "check that this is the kind of product that the step needs"
            )
        return array

    @property
    def tree(self) -> Mapping[str, Any]:
        """The tree of the ASDF extension; empty where there is none."""
        return {} if self.extension is None else self.extension.tree

    @property
    def wcs(self) -> Any:
        """The gwcs object of the file, or None."""
        return self.tree.get("meta", {}).get("wcs")

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What the steps so far recorded, in their order (YAML sorts by name)."""
        steps = plain(self.tree.get("calweave", {}).get("recipe", {}))
        return dict(sorted(steps.items(), key=lambda entry: entry[1].get("number", 0)))


def plain(node: Any) -> Any:
    """Containers of an ASDF tree as plain dicts and lists."""
    if isinstance(node, Mapping):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, Sequence) and not isinstance(node, str | bytes):
        return [plain(value) for value in node]
    return node


def write_fits(
    path: str | Path, model: str, header: Header, hdus: Sequence[Hdu], tree: Mapping[str, Any] | None = None
) -> None:
    """Write one product file.

    Parameters
    ----------
    path : path
        A local file, made or replaced. Callers that publish write to a temporary name (``infra.storage``).
    model : str
        DATAMODL, the ``stdatamodels`` class that reads the file.
    header : Header
        Keywords; each goes to the HDU that the data models give it. DATE, FILENAME and DATAMODL are set here.
    hdus : sequence of Hdu
        In the order of the file. Keywords of SCI go into the first extension of that name; where there is none, an
        empty one is made at the end, as the archive's files have it.
    tree : mapping
        More for the ASDF extension, such as ``{"meta": {"wcs": ...}}``.
    """
    header = header.set(
        DATE=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3], FILENAME=Path(path).name, DATAMODL=model
    )
    primary = fits.PrimaryHDU()
    _extend(primary.header, format_cards(header, "PRIMARY"))
    hdulist = fits.HDUList([primary])
    sci_cards = format_cards(header, "SCI")
    for hdu in hdus:
        made = _make_hdu(hdu)
        if hdu.name == "SCI" and sci_cards:
            _extend(made.header, sci_cards)
            sci_cards = []
        _extend(made.header, hdu.cards)
        hdulist.append(made)
    if sci_cards:
        made = fits.ImageHDU(name="SCI")
        _extend(made.header, sci_cards)
        hdulist.append(made)
    hdulist.append(_asdf_hdu(tree or {}))
    hdulist.writeto(path, overwrite=True, output_verify="exception")


def _make_hdu(hdu: Hdu) -> fits.ImageHDU | fits.BinTableHDU:
    data = hdu.data
    if data is not None and data.dtype.names:
        made = fits.BinTableHDU(np.asarray(data), name=hdu.name)
        for column in made.columns:
            if column.name in hdu.units:
                column.unit = hdu.units[column.name]
    else:
        made = fits.ImageHDU(None if data is None else np.ascontiguousarray(data), name=hdu.name)
    made.ver = hdu.ver
    return made


def _extend(header: fits.Header, cards: Sequence[tuple]) -> None:
    for keyword, value, *comment in cards:
        if keyword and keyword in header:
            header[keyword] = value
        elif keyword:
            # What is left of the 80 columns beside the value, which takes the first 30 or more, and " / ".
            room = 77 - max(30, len(fits.Card(keyword, value).image.rstrip()))
            header.append((keyword, value, "".join(comment)[: max(room, 0)]), end=True)
        else:
            header.append(("", value), end=True)


def _asdf_hdu(tree: Mapping[str, Any]) -> fits.BinTableHDU:
    buffer = io.BytesIO()
    asdf.AsdfFile(dict(tree)).write_to(buffer)
    data = np.frombuffer(_sort_extensions(buffer.getvalue()), np.uint8)[None, :]
    column = fits.Column(name="ASDF_METADATA", format=f"{data.shape[1]}B", array=data)
    return fits.BinTableHDU.from_columns([column], name="ASDF")


_EXTENSIONS = re.compile(rb"(?<=\nhistory:\n  extensions:\n)(?:  [^\n]*\n)+")


def _sort_extensions(content: bytes) -> bytes:
    """An ASDF file with the extensions of its history sorted: the library lists them in the order of a set.

    The length stays, and with it the places of the binary blocks.
    """
    found = _EXTENSIONS.search(content)
    if found is None:
        return content
    entries = sorted(re.split(rb"^(?=  - )", found.group(), flags=re.MULTILINE))
    return content[: found.start()] + b"".join(entries) + content[found.end() :]


def read_fits(path: str | Path, skip: Sequence[str] = ()) -> Contents:
    """Read one product file whole, into memory: nothing refers to the file afterwards.

    Arrays come in native byte order; tables as structured arrays. Extensions named in ``skip`` are left out. Files
    compressed with gzip are read, whatever their name.

    Raises
    ------
    ProductError
        If the file is not FITS, is cut short or is damaged, naming the file.
    """
    path = Path(path)
    with _open(path) as hdulist:
        headers = {"PRIMARY": hdulist[0].header}
        arrays, cards, tree = {}, {}, None
        for hdu in hdulist[1:]:
            key = (hdu.name, hdu.ver)
            cards[key] = hdu.header
            if hdu.name == "SCI" and "SCI" not in headers:
                headers["SCI"] = hdu.header
            if hdu.name in skip:
                continue
            if hdu.name == "ASDF":
                tree = _read_tree(hdu)
            elif isinstance(hdu, fits.BinTableHDU):
                arrays[key] = table_array(hdu)
            elif (data := hdu.data) is not None:
                arrays[key] = np.array(data, data.dtype.newbyteorder("="))
        return Contents(path.name, parse_cards(headers), arrays, cards, tree)


def read_header(path: str | Path) -> Header:
    """The header of a product file, without its arrays."""
    with _open(Path(path)) as hdulist:
        return parse_cards(
            {hdu.name or "PRIMARY": hdu.header for hdu in reversed(hdulist) if hdu.name in ("PRIMARY", "SCI", "")}
        )


def table_array(hdu: fits.BinTableHDU) -> np.ndarray:
    """The rows of a table HDU as a structured array in native byte order, with unsigned columns as such."""
    data = hdu.data
    columns = {name: np.asarray(data.field(name)) for name in data.names}
    dtype = [
        (name, array.dtype.newbyteorder("=") if array.dtype.kind != "O" else object, array.shape[1:])
        for name, array in columns.items()
    ]
    rows = np.empty(len(data), dtype)
    for name, array in columns.items():
        rows[name] = array
    return rows


class _open:
    """A FITS file, checked to be whole before anything of it is used."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> fits.HDUList:
        advice = "fetch or make it again"
        try:
            self.stream: IO[bytes] = self.path.open("rb")
        except FileNotFoundError:
            raise ProductError(f"{self.path}: no such file; check the name") from None
        except IsADirectoryError:
            raise ProductError(f"{self.path}: expected a FITS file, but this is a folder") from None
        except OSError as error:
            raise ProductError(f"{self.path}: cannot be read ({error.strerror}); check its permissions") from None
        try:
            if self.stream.read(2) == b"\x1f\x8b":
                # Whole at once: astropy takes the end of a cut file for the end of its extensions.
                with self.stream:
                    self.stream = io.BytesIO(gzip.decompress(self.path.read_bytes()))
            size = self.stream.seek(0, io.SEEK_END)
            self.stream.seek(0)
            self.hdulist = fits.open(self.stream, memmap=False, lazy_load_hdus=False, ignore_missing_simple=False)
        except Exception as error:
            self.stream.close()
            size = self.path.stat().st_size
            raise ProductError(
                f"{self.path}: expected a FITS file, but it does not read as one ({size} bytes; {error}); {advice}"
            ) from None
        last = self.hdulist[-1].fileinfo()
        end = last["datLoc"] + last["datSpan"]
        if not end <= size < end + 2880:
            self.hdulist.close()
            self.stream.close()
            raise ProductError(
                f"{self.path}: expected {end} bytes from its headers, but the file has {size}: it is "
                f"{'cut short' if size < end else 'damaged after its last whole extension'}; {advice}"
            )
        return self.hdulist

    def __exit__(self, kind, error, trace) -> None:
        self.hdulist.close()
        self.stream.close()
        if (
            kind is not None
            and issubclass(kind, OSError | TypeError | ValueError | EOFError)
            and kind is not ProductError
        ):
            raise ProductError(f"{self.path}: damaged ({error}); fetch or make it again") from error


def _read_tree(hdu: fits.BinTableHDU) -> asdf.AsdfFile | None:
    data = hdu.data
    if data is None or not len(data):
        return None
    buffer = io.BytesIO(np.ascontiguousarray(data.field(0)).tobytes())
    # A context copies the settings as they are: what the installed packages offer is then looked up once, not for each file.
    settings = asdf.get_config()
    _ = settings.extensions, settings.resource_manager
    # To validate what was validated when it was written takes half of the time that a read takes.
    with asdf.config_context() as config:
        config.validate_on_read = False
        return asdf.open(buffer, lazy_load=False, memmap=False, lazy_tree=True)
