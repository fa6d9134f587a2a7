"""The layer under all products: HDUs, headers and the ASDF extension of one FITS file, written the same way every time.

The layout is that of ``stdatamodels``, which the archive's files have: keywords in PRIMARY and SCI, one HDU per array,
and what FITS cannot hold (the WCS, the recipe) in a last extension ``ASDF``. Arrays go around the data models: to
validate an array costs more than to write it. They go around the FITS library too, which makes copies: they are read and
written piece by piece, so that a product larger than memory can be.
"""

import contextlib
import gzip
import io
import logging
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import yaml  # type: ignore[import-untyped]
from astropy.io import fits

from infra.products.header import Header, ProductError, format_cards, parse_cards
from infra.products.polynomials import make_polynomials_safe
from infra.products.stored import Stored
from infra.provenance import date_of_writing, made_of

log = logging.getLogger(__name__)

# `open_fits` makes an error of what astropy only warns about.
warnings.filterwarnings("ignore", message="File may have been truncated")

#: Bytes that are moved at a time.
_PIECE = 2**22
_BLOCK = 2880


@dataclass(frozen=True)
class Hdu:
    """One extension to write: its name, an image array or a structured array (a table), EXTVER and extra cards.

    An image may be an array on disk (``infra.products.stored``). ``cards`` holds (keyword, value, comment); ``units`` the
    unit of each table column.
    """

    name: str
    data: np.ndarray | Stored | None
    ver: int = 1
    cards: Sequence[tuple] = ()
    units: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contents:
    """What one file holds: the header, the arrays by (EXTNAME, EXTVER), the FITS header of each, and the ASDF extension.

    The tree of the ASDF extension is read when it is asked for, and made into objects one by one: a slit set has hundreds
    of WCS.
    """

    name: str
    header: Header
    arrays: Mapping[tuple[str, int], np.ndarray]
    cards: Mapping[tuple[str, int], fits.Header]
    extension: bytes

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
        return self._read[0]

    @cached_property
    def _read(self) -> tuple[Mapping[str, Any], Any]:
        # With the file of the library: its tree makes objects as they are asked for, and only while the file lives.
        return _read_tree(self.extension)

    @property
    def wcs(self) -> Any:
        """The gwcs object of the file, or None."""
        return self.tree.get("meta", {}).get("wcs")

    @property
    def made_of(self) -> Mapping[str, Any]:
        """What the product is made of, as ``infra.provenance.making`` was told; empty where nobody was."""
        return plain(self._ours.get("made_of", {}))

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What the steps so far recorded, in their order (YAML sorts by name)."""
        return in_order(plain(self._ours.get("recipe", {})))

    @property
    def _ours(self) -> Mapping[str, Any]:
        # The files of the archive have trees, too, of which we want nothing.
        return self.tree.get("calweave", {}) if b"calweave" in self.extension else {}


def in_order(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """A recipe in the order of its steps."""
    return dict(sorted(recipe.items(), key=lambda entry: entry[1].get("number", 0)))


def plain(node: Any) -> Any:
    """Containers of an ASDF tree as plain dicts and lists."""
    if isinstance(node, Mapping):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, Sequence) and not isinstance(node, str | bytes):
        return [plain(value) for value in node]
    return node


def write_fits(
    path: str | Path,
    model: str,
    header: Header,
    hdus: Sequence[Hdu],
    tree: Mapping[str, Any] | None = None,
    finish: Callable[[bytes], bytes] | None = None,
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
    finish : callable
        Makes the content of the ASDF extension what it is to be, out of what the library made.
    """
    header = header.set(DATE=date_of_writing(), FILENAME=Path(path).name, DATAMODL=model)
    primary = fits.PrimaryHDU()
    _extend(primary.header, format_cards(header, "PRIMARY"))
    for member in (made_of() or {}).get("left_out", ()):
        primary.header.add_history(f"made without the member {member}")
    primary.header.set("EXTEND", True, after="NAXIS")
    sci_cards = format_cards(header, "SCI")
    with Path(path).open("wb") as stream:
        _write_hdu(stream, primary, None)
        for hdu in hdus:
            cards = [*sci_cards, *hdu.cards] if hdu.name == "SCI" else list(hdu.cards)
            if hdu.name == "SCI":
                sci_cards = []
            if hdu.data is not None and not hdu.data.dtype.names and (text := _image_header(hdu, cards)) is not None:
                stream.write(text)
                _write_image(stream, hdu.data)
                continue
            made = _make_hdu(hdu)
            _extend(made.header, cards)
            _write_hdu(stream, made, hdu.data)
        if sci_cards:
            made = fits.ImageHDU(name="SCI")
            _extend(made.header, sci_cards)
            _write_hdu(stream, made, None)
        content = _asdf_content(_with_origin(tree or {}))
        _write_hdu(stream, _asdf_hdu(content if finish is None else finish(content)), None)


def _write_hdu(stream: IO[bytes], hdu: Any, data: np.ndarray | Stored | None) -> None:
    """Write one HDU: a table as it is, an image with ``data``, piece by piece."""
    hdu.verify("exception")
    if isinstance(hdu, fits.BinTableHDU):
        buffer = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
        stream.write(buffer.getbuffer()[_BLOCK:])
        return
    stream.write(hdu.header.tostring().encode("ascii"))
    if data is not None:
        _write_image(stream, data)


def _write_image(stream: IO[bytes], data: np.ndarray | Stored) -> None:
    written = 0
    for piece in _pieces(data):
        swapped = piece.astype(piece.dtype.newbyteorder(">"))
        if piece.dtype.kind == "u" and piece.dtype.itemsize > 1:
            # FITS has signed integers only: the highest bit turned over is the offset BZERO.
            swapped ^= swapped.dtype.type(2 ** (8 * piece.dtype.itemsize - 1))
        written += stream.write(swapped.data)
    stream.write(b"\0" * (-written % _BLOCK))


def _pieces(data: np.ndarray | Stored) -> Iterator[np.ndarray]:
    """An array in pieces, in the order of its bytes."""
    if isinstance(data, Stored):
        plane = math.prod(data.shape[1:]) * data.dtype.itemsize
        step = max(1, _PIECE // max(1, plane))
        for first in range(0, data.shape[0], step):
            yield data[first : first + step]
        return
    flat = np.ascontiguousarray(data).reshape(-1)
    step = _PIECE // flat.itemsize
    for first in range(0, flat.size, step):
        yield flat[first : first + step]


def _with_origin(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """``tree`` with what the product is made of, where that is known."""
    origin = made_of()
    return tree if origin is None else {**tree, "calweave": {**tree.get("calweave", {}), "made_of": plain(origin)}}


def _make_hdu(hdu: Hdu) -> fits.ImageHDU | fits.BinTableHDU:
    data = hdu.data
    if isinstance(data, np.ndarray) and data.dtype.names:
        made = fits.BinTableHDU(data, name=hdu.name)
        for column in made.columns:
            if column.name in hdu.units:
                column.unit = hdu.units[column.name]
    else:
        # An array of one value tells the library all that the header needs.
        made = fits.ImageHDU(None if data is None else np.broadcast_to(data.dtype.type(0), data.shape), name=hdu.name)
    made.ver = hdu.ver
    return made


def _image_header(hdu: Hdu, cards: Sequence[tuple]) -> bytes | None:
    """The header of an image as the library writes it, which takes ten times as long: the rule is hundreds of slits.

    None where a card is one of those that every image has, or stands twice.
    """
    start, places = _image_start(hdu.name, str(hdu.data.dtype), len(hdu.data.shape))  # type: ignore[union-attr]
    keywords = [card[0] for card in cards if card[0]]
    if len(set(keywords)) < len(keywords) or not places.keys().isdisjoint(keywords):
        return None
    lines = list(start)
    for axis, length in enumerate(reversed(hdu.data.shape), start=1):  # type: ignore[union-attr]
        lines[places[f"NAXIS{axis}"]] = f"NAXIS{axis:<3d}= {length:20d}".ljust(80)
    lines[places["EXTVER"]] = f"EXTVER  = {hdu.ver:20d}{lines[places['EXTVER']][30:]}"
    text = "".join(lines) + "".join(_card_text(*card) for card in cards) + "END".ljust(80)
    return text.ljust(-(-len(text) // _BLOCK) * _BLOCK).encode("ascii")


@cache
def _image_start(name: str, dtype: str, naxis: int) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """The cards that every image has, and where each keyword stands among them."""
    made = fits.ImageHDU(np.broadcast_to(np.dtype(dtype).type(0), (1,) * naxis), name=name, ver=2)
    made.verify("exception")
    return tuple(card.image for card in made.header.cards), {key: k for k, key in enumerate(made.header)}


@lru_cache(1000, typed=True)
def _card_text(keyword: str, value: Any, *comment: str) -> str:
    made = fits.Header()
    _extend(made, [(keyword, value, *comment)])
    card = made.cards[0]
    card.verify("exception")
    return str(card.image)


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


def _asdf_content(tree: Mapping[str, Any]) -> bytes:
    if _is_plain(tree):
        # The library takes a second to get ready, which plain values do not need.
        return _ASDF_START + yaml.dump(tree, Dumper=yaml.CSafeDumper, encoding="utf-8") + b"...\n"
    import asdf

    buffer = io.BytesIO()
    asdf.AsdfFile(dict(tree)).write_to(buffer)
    return _sort_extensions(buffer.getvalue())


def _asdf_hdu(content: bytes) -> fits.BinTableHDU:
    data = np.frombuffer(content, np.uint8)[None, :]
    column = fits.Column(name="ASDF_METADATA", format=f"{data.shape[1]}B", array=data)
    return fits.BinTableHDU.from_columns([column], name="ASDF")


_ASDF_START = b"#ASDF 1.0.0\n#ASDF_STANDARD 1.6.0\n%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n--- !core/asdf-1.1.0\n"


def _is_plain(node: Any) -> bool:
    """Whether a tree holds nothing but values that YAML has by itself."""
    if type(node) is dict:
        return all(type(key) is str and _is_plain(value) for key, value in node.items())
    if type(node) is list:
        return all(map(_is_plain, node))
    return node is None or type(node) in (str, int, float, bool)


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
    with open_contents(path, (), skip) as contents:
        return contents


@contextlib.contextmanager
def open_contents(path: str | Path, on_disk: Sequence[str], skip: Sequence[str] = ()) -> Iterator[Contents]:
    """As ``read_fits``, but the images named in ``on_disk`` are ``ImageOnDisk``, of which parts can be read within.

    One that only the FITS library can decode is read whole, and an array.
    """
    path = Path(path)
    opened = open_fits(path)
    with opened as hdulist:
        headers = {"PRIMARY": hdulist[0].header}
        arrays: dict[tuple[str, int], Any] = {}
        cards, extension = {}, b""
        for hdu in hdulist[1:]:
            key = (hdu.name, hdu.ver)
            cards[key] = hdu.header
            if hdu.name == "SCI" and "SCI" not in headers:
                headers["SCI"] = hdu.header
            if hdu.name in skip:
                continue
            if hdu.name == "ASDF":
                extension = _extension_bytes(hdu)
            elif isinstance(hdu, fits.BinTableHDU):
                arrays[key] = table_array(hdu)
            elif (image := image_on_disk(hdu, opened.stream)) is not None:
                arrays[key] = image if hdu.name in on_disk else image.read()
            elif (data := hdu.data) is not None:
                arrays[key] = np.array(data, data.dtype.newbyteorder("="))
        contents = Contents(path.name, parse_cards(headers), arrays, cards, extension)
        opened.is_read = True
        yield contents


@dataclass(frozen=True)
class ImageOnDisk:
    """An image extension of an open file, of which parts can be read.

    Attributes
    ----------
    shape, dtype
        Of the array that is read; ``dtype`` in native byte order.
    offset : int
        Where its first byte is in ``stream``.
    """

    stream: IO[bytes]
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, first: int = 0, last: int | None = None, dtype: Any = None) -> np.ndarray:
        """The array from ``first`` to ``last`` (not included) of its first axis, as ``dtype``."""
        part = range(self.shape[0])[first:last]
        array = np.empty((len(part), *self.shape[1:]), dtype or self.dtype)
        self.stream.seek(self.offset + part.start * math.prod(self.shape[1:]) * self.dtype.itemsize)
        flat = array.reshape(-1)
        step = _PIECE // self.dtype.itemsize
        for start in range(0, flat.size, step):
            piece = np.empty(min(step, flat.size - start), self.dtype)
            if self.stream.readinto(memoryview(piece).cast("B")) != piece.nbytes:  # type: ignore
                raise ProductError(
                    f"{getattr(self.stream, 'name', 'the file')}: became shorter as it was read; fetch it again"
                )
            piece.byteswap(inplace=True)
            if piece.dtype.kind == "u" and piece.itemsize > 1:
                piece ^= piece.dtype.type(2 ** (8 * piece.itemsize - 1))
            flat[start : start + step] = piece
        return array


_DTYPES = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}


def image_on_disk(hdu: Any, stream: IO[bytes]) -> ImageOnDisk | None:
    """Where the array of an image extension is; None where it has none, or one that only the FITS library can decode."""
    header = hdu.header
    shape = tuple(header[f"NAXIS{axis}"] for axis in range(header["NAXIS"], 0, -1))
    if type(hdu) is not fits.ImageHDU or not shape or "BLANK" in header or sys.byteorder != "little":
        return None
    dtype = np.dtype(_DTYPES[header["BITPIX"]])
    scale, zero = header.get("BSCALE", 1), header.get("BZERO", 0)
    if scale == 1 and dtype.kind == "i" and zero == 2 ** (8 * dtype.itemsize - 1):
        dtype = np.dtype(f"u{dtype.itemsize}")
    elif (scale, zero) != (1, 0):
        return None
    return ImageOnDisk(stream, hdu.fileinfo()["datLoc"], shape, dtype)


def read_header(path: str | Path) -> Header:
    """The header of a product file, without its arrays."""
    with open_fits(Path(path)) as hdulist:
        return parse_cards(
            {hdu.name or "PRIMARY": hdu.header for hdu in reversed(hdulist) if hdu.name in ("PRIMARY", "SCI", "")}
        )


def header_from_start(content: bytes) -> Header | None:
    """The header of a product file from its first bytes, as ``read_header`` gives it; None where they do not tell it.

    They do where PRIMARY has no data and SCI is the first extension, as in raw exposures and most products. Whether the
    rest of the file is whole is not known then.
    """
    if not content.startswith(b"SIMPLE  ="):
        return None
    stream = io.BytesIO(content)
    try:
        primary = fits.Header.fromfile(stream)
        sci = fits.Header.fromfile(stream)
    except (OSError, EOFError, ValueError):
        return None
    if primary.get("SIMPLE") is not True or primary.get("NAXIS") != 0 or sci.get("EXTNAME") != "SCI":
        return None
    return parse_cards({"SCI": sci, "PRIMARY": primary})


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


class open_fits:
    """A FITS file, checked to be whole before anything of it is used."""

    def __init__(self, path: Path):
        self.path = path
        #: Errors from then on are none of the file.
        self.is_read = False

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
            and not self.is_read
            and issubclass(kind, OSError | TypeError | ValueError | EOFError)
            and kind is not ProductError
        ):
            raise ProductError(f"{self.path}: damaged ({error}); fetch or make it again") from error


def _extension_bytes(hdu: fits.BinTableHDU) -> bytes:
    data = hdu.data
    return b"" if data is None or not len(data) else np.ascontiguousarray(data.field(0)).tobytes()


def _read_tree(content: bytes) -> tuple[Mapping[str, Any], Any]:
    if not content:
        return {}, None
    if content.startswith(_ASDF_START) and b"!" not in content[len(_ASDF_START) :]:
        return yaml.load(content[len(_ASDF_START) :], Loader=yaml.CSafeLoader), None
    import asdf

    make_polynomials_safe()
    # A context copies the settings as they are: what the installed packages offer is then looked up once, not for each file.
    settings = asdf.get_config()
    _ = settings.extensions, settings.resource_manager
    # To validate what was validated when it was written takes half of the time that a read takes.
    with asdf.config_context() as config:
        config.validate_on_read = False
        file = asdf.open(io.BytesIO(content), lazy_load=False, memmap=False, lazy_tree=True)
        return file.tree, file
