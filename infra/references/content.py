"""``References``: what a step sees of the reference files that were chosen for its exposure.

Arrays are read by memory map, cut to the subarray of the exposure, and only then turned to the byte order of the
machine: what is copied is what is used. Decoded arrays are read-only and shared by all steps and threads of a process:
they live as long as somebody uses them, and the last ``CACHE_BYTES`` of them a little longer, for the next exposure.
That is enough for small subarrays, of which there are many; a full frame is decoded again as fast as memory is copied.
"""

import logging
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from calibration import dq
from calibration.interleaving import LINES, WIDTH
from calibration.subarrays import Subarray, cut
from infra.products.polynomials import make_polynomials_safe

log = logging.getLogger(__name__)

CACHE_BYTES = 64 * 2**20


class ReferenceNotFound(LookupError):
    """No reference file fits the exposure; the message names the type, the context and the keywords."""


class ReferenceInvalid(ValueError):
    """A reference file is not what its type promises; the message names the file, what was expected and what came."""


@dataclass(frozen=True)
class ArrayOnDisk:
    """``array[i, g]`` reads one plane (ny, nx), in native byte order; nothing of it is kept."""

    shape: tuple[int, ...]
    read: Callable[[tuple[int, ...]], np.ndarray]

    def __getitem__(self, index: tuple[int, ...]) -> np.ndarray:
        return self.read(index)


@dataclass(frozen=True)
class References:
    """The reference files of one exposure.

    Attributes
    ----------
    files : mapping
        Reference type -> local path, None where the type is not applicable.
    context : str
        Name of the CRDS context that chose them.
    sha1 : mapping
        File name -> SHA-1 of the file when the run was planned, for the provenance.
    """

    files: Mapping[str, str | None]
    context: str
    sha1: Mapping[str, str] = field(default_factory=dict)

    def path(self, reftype: str) -> str | None:
        """Local path of the reference file, None where the type is not applicable."""
        if reftype not in self.files:
            raise KeyError(
                f"reference type {reftype!r} was not selected for this run (only {', '.join(sorted(self.files))}); "
                "name it in @step(references=...)"
            )
        return self.files[reftype]

    def name(self, reftype: str) -> str | None:
        """File name of the reference, None where the type is not applicable."""
        path = self.path(reftype)
        return None if path is None else Path(path).name

    def has(self, reftype: str, extname: str, extver: int = 1) -> bool:
        """Whether there is such a file and it has such an extension."""
        path = self.path(reftype)
        return path is not None and (extname.upper(), extver) in _extensions(*_version(path))

    def array(
        self,
        reftype: str,
        extname: str = "SCI",
        subarray: Subarray | None = None,
        extver: int = 1,
        planes: tuple[int, ...] = (),
    ) -> np.ndarray | None:
        """An image array of the reference file, None where the type is not applicable.

        Parameters
        ----------
        reftype, extname, extver
            Reference type; name and version of the extension.
        subarray : Subarray, optional
            Cut the last two axes to this area; default: the whole array as it stands in the file.
        planes : tuple of int
            Read only the first so many planes of each leading axis: of a long dark, the groups that are needed.

        Returns
        -------
        ndarray, (..., ny, nx)
            Data type of the file in native byte order, read-only, shared.

        Raises
        ------
        ReferenceInvalid
            If the extension is missing or truncated, or the file does not cover ``subarray``.
        """
        path = self.path(reftype)
        if path is None:
            return None
        version = _version(path)
        return _shared(
            (version, extname.upper(), extver, subarray, planes),
            lambda: _read_array(version, extname, extver, subarray, planes),
        )

    def on_disk(self, reftype: str, extname: str = "SCI") -> "ArrayOnDisk | None":
        """An image array of the reference file that is not read but plane by plane; None where it is not applicable.

        For an array as large as an exposure, of which each plane is used once.
        """
        path = self.path(reftype)
        if path is None:
            return None
        version = _version(path)
        header = _extension(version, extname, 1).header
        return ArrayOnDisk(
            _map(version, extname, 1).shape, lambda index: _scale(_map(version, extname, 1)[index], header)
        )

    def dq(self, reftype: str, subarray: Subarray | None = None, extname: str = "DQ") -> np.ndarray | None:
        """The DQ array of the reference file in the bits of ``calibration.dq``, None where the type is not applicable.

        The file's DQ_DEF table gives its bits their names. A file without that table has the standard bits.

        Returns
        -------
        ndarray, (ny, nx), uint32
            Read-only, shared.
        """
        path = self.path(reftype)
        if path is None:
            return None
        version = _version(path)

        def translated() -> np.ndarray:
            flags = _read_array(version, extname, 1, subarray).astype(np.uint32)
            if ("DQ_DEF", 1) not in _extensions(*version):
                return flags
            return translate_dq(flags, _read_table(*version, "DQ_DEF", 1), Path(path).name)

        return _shared((version, extname.upper(), "translated", subarray), translated)

    def table(self, reftype: str, extname: str, extver: int = 1, keep: bool = True) -> fits.FITS_rec | None:
        """A table of the reference file (do not change it), None where the type is not applicable.

        Column names are not case-sensitive. ``keep``: for the next exposure, too; a large table need not be.
        """
        path = self.path(reftype)
        if path is None:
            return None
        read = _read_table if keep else _read_table.__wrapped__
        return read(*_version(path), extname.upper(), extver)

    def header(self, reftype: str, extname: str = "PRIMARY", extver: int = 1) -> fits.Header | None:
        """A FITS header of the reference file (do not change it), None where the type is not applicable."""
        path = self.path(reftype)
        return None if path is None else _extension(_version(path), extname, extver).header

    def asdf(self, reftype: str) -> Mapping[str, Any] | None:
        """The tree of an ASDF reference with its models (do not change it), None where the type is not applicable."""
        path = self.path(reftype)
        return None if path is None else _read_asdf(*_version(path))


def translate_dq(flags: np.ndarray, definitions: np.ndarray, name: str) -> np.ndarray:
    """DQ flags of a reference file in the bits of ``calibration.dq``.

    Parameters
    ----------
    flags : (..., ny, nx) uint32
        DQ as in the file.
    definitions : structured array
        The DQ_DEF table: column VALUE, the bit in the file, and NAME, its mnemonic.
    name : str
        Name of the file, for messages.

    Returns
    -------
    (..., ny, nx) uint32
        A bit of the file that DQ_DEF does not define, or whose mnemonic nobody knows, is dropped.

    Raises
    ------
    ReferenceInvalid
        If the table lacks a column, or a value is no bit.
    """
    columns = {column.upper() for column in definitions.dtype.names or ()}
    if not {"VALUE", "NAME"} <= columns:
        raise ReferenceInvalid(
            f"{name}: DQ_DEF must have the columns VALUE and NAME, but has {', '.join(sorted(columns))}"
        )
    known = {}
    unknown = []
    for value, mnemonic in zip(definitions["VALUE"], definitions["NAME"], strict=True):
        bit, mnemonic = int(value), str(mnemonic).strip().upper()
        if bit <= 0 or bit >= 2**32 or bit & (bit - 1):
            raise ReferenceInvalid(f"{name}: DQ_DEF gives {mnemonic} the value {value}, which is not one bit of 32")
        if mnemonic in dq.PIXEL:
            known[np.uint32(bit)] = dq.PIXEL[mnemonic]
        elif mnemonic:
            unknown.append(mnemonic)
    if unknown:
        log.warning("%s: DQ mnemonics that nobody knows are ignored: %s", name, ", ".join(unknown))
    used = int(np.bitwise_or.reduce(flags, axis=None))
    undefined = [1 << bit for bit in range(32) if used >> bit & 1 and not np.any(definitions["VALUE"] == 1 << bit)]
    if undefined:
        log.warning("%s: DQ has values that DQ_DEF does not define, which are ignored: %s", name, undefined)
    if all(bit == standard for bit, standard in known.items()):
        return flags & np.bitwise_or.reduce(np.array([0, *known], np.uint32))
    translated = np.zeros_like(flags)
    for value, standard in known.items():
        translated[(flags & value) != 0] |= standard
    return translated


# A version of a file: path, time of change [ns] and size. What is cached for one version is never given for another.
_Version = tuple[str, int, int]


def _version(path: str) -> _Version:
    try:
        status = os.stat(path)
    except OSError as error:
        raise ReferenceInvalid(
            f"cannot read the reference file {path}: {error.strerror}; plan the run again"
        ) from error
    return path, status.st_mtime_ns, status.st_size


@dataclass(frozen=True)
class _Extension:
    header: fits.Header
    offset: int
    is_image: bool


@lru_cache(maxsize=256)
def _extensions(path: str, mtime: int, size: int) -> Mapping[tuple[str, int], _Extension]:
    """Where each extension of a FITS file is: (EXTNAME, EXTVER) -> header and place of its data."""
    try:
        with fits.open(path, memmap=True, lazy_load_hdus=False, disable_image_compression=True) as hdus:
            return {
                (hdu.name.upper(), hdu.ver): _Extension(
                    hdu.header.copy(), hdu.fileinfo()["datLoc"], isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU)
                )
                for hdu in hdus
            }
    except OSError as error:
        raise ReferenceInvalid(f"{path} is not a FITS file that can be read ({error}); fetch it again") from error


def _extension(version: _Version, extname: str, extver: int) -> _Extension:
    extensions = _extensions(*version)
    extension = extensions.get((extname.upper(), extver))
    if extension is None:
        there = ", ".join(name if ver == 1 else f"{name},{ver}" for name, ver in extensions)
        what = extname if extver == 1 else f"{extname},{extver}"
        raise ReferenceInvalid(f"{Path(version[0]).name} must have an extension {what}, but has only {there}")
    return extension


_DTYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


def _map(version: _Version, extname: str, extver: int) -> np.ndarray:
    """The array as it stands in the file, on a memory map of its own: its pages are let go with it."""
    path, _, size = version
    extension = _extension(version, extname, extver)
    header = extension.header
    shape = tuple(header[f"NAXIS{axis}"] for axis in range(header["NAXIS"], 0, -1))
    if not extension.is_image or not shape:
        raise ReferenceInvalid(f"{Path(path).name}: extension {extname} must be an image, but is a table or empty")
    dtype = np.dtype(_DTYPES[header["BITPIX"]])
    if extension.offset + int(np.prod(shape)) * dtype.itemsize > size:
        raise ReferenceInvalid(
            f"{path} is truncated: extension {extname} ends behind the end of the file; fetch it again"
        )
    return np.memmap(path, dtype, "r", extension.offset, shape)


def _read_array(
    version: _Version, extname: str, extver: int, subarray: Subarray | None, planes: tuple[int, ...] = ()
) -> np.ndarray:
    raw = _map(version, extname, extver)
    if subarray is not None:
        raw = _cut(version, extname, raw, subarray)
    raw = raw[tuple(slice(n) for n in planes[: max(0, raw.ndim - 2)])]
    return _scale(raw, _extension(version, extname, extver).header)


def _cut(version: _Version, extname: str, array: np.ndarray, subarray: Subarray) -> np.ndarray:
    name = Path(version[0]).name
    if array.ndim < 2:
        raise ReferenceInvalid(
            f"{name}: {extname} must have rows and columns to be cut, but has the shape {array.shape}"
        )
    ny, nx = array.shape[-2:]
    header = _extension(version, "PRIMARY", 1).header
    # Some types (AREA) have no place for the keywords: an array of the size of the exposure is then one of its subarray.
    start = subarray if "SUBSTRT1" not in header and (ny, nx) == subarray.shape else Subarray(1, 1, nx, ny)
    covers = Subarray(header.get("SUBSTRT1", start.xstart), header.get("SUBSTRT2", start.ystart), nx, ny)
    declared = (header.get("SUBSIZE2", ny), header.get("SUBSIZE1", nx))
    # Files for IRS2 readout have the size of the detector in their header, as the exposures have.
    if declared != (ny, nx) and (ny, *declared) != (WIDTH, LINES, nx):
        raise ReferenceInvalid(
            f"{name}: {extname} must have (SUBSIZE2, SUBSIZE1) = {declared} rows and columns, but has {(ny, nx)}"
        )
    try:
        return cut(array, covers, subarray)
    except ValueError as error:
        raise ReferenceInvalid(
            f"{name} covers {covers} of the detector, but the exposure needs {subarray}; "
            "a reference file of another subarray was chosen: check SUBARRAY, SUBSTRT1/2 and SUBSIZE1/2"
        ) from error


def _scale(raw: np.ndarray, header: fits.Header) -> np.ndarray:
    """The values in native byte order, with the FITS scaling undone: unsigned integers stay integers."""
    scale, zero = header.get("BSCALE", 1), header.get("BZERO", 0)
    # Bytes need no swap and stay on the memory map; all else is copied here.
    native = np.ascontiguousarray(raw, raw.dtype.newbyteorder("="))
    if (scale, zero) == (1, 0):
        return native
    bits = 8 * native.dtype.itemsize
    if scale == 1 and native.dtype.kind == "i" and bits > 8 and zero == 2 ** (bits - 1):
        unsigned = native.view(f"u{native.dtype.itemsize}")
        unsigned ^= unsigned.dtype.type(zero)
        return unsigned
    return (native * np.float32(scale) + np.float32(zero)).astype(np.float32)


@lru_cache(maxsize=64)
def _read_table(path: str, mtime: int, size: int, extname: str, extver: int) -> fits.FITS_rec:
    if _extension((path, mtime, size), extname, extver).is_image:
        raise ReferenceInvalid(f"{Path(path).name}: extension {extname} must be a table, but is an image")
    with fits.open(path, memmap=False) as hdus:
        return hdus[extname, extver].data


@lru_cache(maxsize=64)
def _read_asdf(path: str, mtime: int, size: int) -> Mapping[str, Any]:
    import asdf

    make_polynomials_safe()
    try:
        with asdf.open(path, lazy_load=False, memmap=False) as file:
            return dict(file.tree)
    except (OSError, ValueError) as error:
        raise ReferenceInvalid(f"{path} is not an ASDF file that can be read ({error}); fetch it again") from error


_arrays: "weakref.WeakValueDictionary[Hashable, np.ndarray]" = weakref.WeakValueDictionary()
_recent: "OrderedDict[Hashable, np.ndarray]" = OrderedDict()
_decoding: dict[Hashable, threading.Lock] = {}
_arrays_lock = threading.Lock()


def _shared(key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array under this key, made once however many threads ask for it."""
    with _arrays_lock:
        array = _arrays.get(key)
        if array is not None:
            _remember(key, array)
            return array
        lock = _decoding.setdefault(key, threading.Lock())
    with lock:
        with _arrays_lock:
            array = _arrays.get(key)
        if array is None:
            array = make()
            array.flags.writeable = False
        with _arrays_lock:
            _arrays[key] = array
            _remember(key, array)
            _decoding.pop(key, None)
    return array


def _remember(key: Hashable, array: np.ndarray) -> None:
    _recent[key] = array
    _recent.move_to_end(key)
    while sum(kept.nbytes for kept in _recent.values()) > CACHE_BYTES:
        _recent.popitem(last=False)
