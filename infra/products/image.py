"""``Image``: slopes and calibrated images, with their files ``_rate`` to ``_i2d``; ``Segmentation``, the map of sources."""

import io
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from infra.products.fits import Contents, Hdu, ImageOnDisk, open_contents, read_fits, write_fits
from infra.products.header import Header, ProductError
from infra.products.stored import Stored


@dataclass(frozen=True)
class Image:
    """An image (ny, nx), or one per integration (nints, ny, nx); those of a long exposure may be on disk (``Stored``).

    Attributes
    ----------
    data, err : float32
        Signal and its standard deviation, in the unit of BUNIT; NaN where there is none.
    dq : uint32
    var_poisson, var_rnoise, var_flat : float32 or None
        Variances, in the square of that unit.
    area : (ny, nx) float32 or None
        Relative pixel area.
    wht : float32 or None
        Weight of a resampled image.
    con : (nplanes, ny, nx) int32 or None
        Which inputs went into each pixel of a resampled image, a bit each.
    wcs : gwcs.WCS or None
    int_times : structured array or None
        Table INT_TIMES, of images per integration.
    hdrtab : structured array or None
        Table HDRTAB of a mosaic: the keywords of each image that went into it, a row each.
    recipe : mapping
        What the steps did: step -> status, options, references.
    side : mapping
        Products that steps made beside this one on request, suffix -> product; they get files of their own.
    source : callable or None
        Where given, the planes are `Waiting`, and this reads those that are named, as a dict; see `in_memory`.
    """

    header: Header
    data: np.ndarray
    err: np.ndarray
    dq: np.ndarray | None
    var_poisson: np.ndarray | None = None
    var_rnoise: np.ndarray | None = None
    var_flat: np.ndarray | None = None
    area: np.ndarray | None = None
    wht: np.ndarray | None = None
    con: np.ndarray | None = None
    wcs: Any = None
    int_times: np.ndarray | None = None
    hdrtab: np.ndarray | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    side: Mapping[str, Any] = field(default_factory=dict)
    source: Callable[[frozenset[str]], dict[str, np.ndarray]] | None = field(default=None, compare=False, repr=False)

    with_ = replace


@dataclass(frozen=True)
class Waiting:
    """A plane that is in the file of its image until `in_memory` reads it: its shape and dtype, and no values."""

    shape: tuple[int, ...]
    dtype: np.dtype
    place: ImageOnDisk = field(compare=False, repr=False)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


def in_memory(image: Image, *names: str) -> Image:
    """The image with its planes, or those of them that are named; what waits on disk is read now, each time.

    Of many images that need to be in memory one after the other, each is held as it waits, and read where it is used.
    """
    if image.source is None:
        return image
    waiting = [name for name in PLANES if isinstance(getattr(image, name), Waiting)]
    planes = image.source(frozenset(waiting).intersection(names or waiting))
    return image.with_(source=None, **(dict.fromkeys(waiting) | planes))


def edited(image: Image, edit: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]) -> Image:
    """The image with planes changed by ``edit``, a function of planes by name that returns those it changed.

    At once if it is in memory, else whenever it is read: ``edit`` gets the planes that are read then, and must do without
    the others.
    """
    read = image.source
    if read is None:
        planes = {name: getattr(image, name) for name in PLANES if getattr(image, name) is not None}
        return image.with_(**edit(planes))

    def read_and_edit(names: frozenset[str]) -> dict[str, np.ndarray]:
        planes = read(names)
        return {**planes, **edit(planes)}

    return image.with_(source=read_and_edit)


@dataclass(frozen=True)
class Segmentation:
    """Which source each pixel of a mosaic belongs to: (ny, nx) uint32, 0 is none; the numbers are those of the catalog."""

    header: Header
    data: np.ndarray
    wcs: Any
    recipe: Mapping[str, Any] = field(default_factory=dict)

    with_ = replace


_PLANES = {
    "data": ("SCI", np.float32),
    "err": ("ERR", np.float32),
    "dq": ("DQ", np.uint32),
    "area": ("AREA", np.float32),
    "con": ("CON", np.int32),
    "wht": ("WHT", np.float32),
    "var_poisson": ("VAR_POISSON", np.float32),
    "var_rnoise": ("VAR_RNOISE", np.float32),
    "var_flat": ("VAR_FLAT", np.float32),
}
#: The planes that wait on disk, where an image does.
PLANES = tuple(_PLANES)
_TABLES = ("int_times", "hdrtab")


def read_image(path: str | Path) -> Image:
    """Read a ``_rate``, ``_rateints``, ``_cal``, ``_calints``, ``_crf`` or ``_i2d`` file."""
    return _image_of(read_fits(path))


def glance_at_image(path: str | Path, opened: Callable[[], AbstractContextManager[str]]) -> Image:
    """An image whose planes wait on disk, with all the rest: header, WCS, tables.

    ``opened`` gives the path of the file whenever planes are read. Of a file that is compressed nothing waits.
    """
    with open_contents(path, [extname for extname, _ in _PLANES.values()]) as contents:
        image = _image_of(contents)
        _ = image.wcs
        planes = {name: getattr(image, name) for name in PLANES}
        if any(isinstance(plane, Waiting) and isinstance(plane.place.stream, io.BytesIO) for plane in planes.values()):
            return read_image(path)

    def read(names: frozenset[str]) -> dict[str, np.ndarray]:
        with opened() as copy, Path(copy).open("rb") as stream:
            return {name: replace(planes[name].place, stream=stream).read(dtype=planes[name].dtype) for name in names}

    return image.with_(source=read)


def _image_of(contents: Contents) -> Image:
    data = contents.require("SCI")
    if len(data.shape) not in (2, 3):
        raise ProductError(
            f"{contents.name}: expected an image or one per integration, but SCI has the shape {data.shape}"
        )
    planes: dict[str, Any] = {}
    for field_name, (extname, dtype) in _PLANES.items():
        array = contents.get(extname)
        if isinstance(array, ImageOnDisk):
            planes[field_name] = Waiting(array.shape, np.dtype(dtype), array)
        else:
            planes[field_name] = None if array is None else array.astype(dtype, copy=False)
    if planes["err"] is None:
        planes["err"] = np.full(data.shape, np.nan, np.float32)
    tables: dict[str, Any] = {field_name: contents.get(field_name.upper()) for field_name in _TABLES}
    return Image(header=contents.header, wcs=contents.wcs, recipe=contents.recipe, **planes, **tables)


def write_image(image: Image, path: str | Path) -> None:
    """Write an image, or a stack of images per integration."""
    hdus = []
    for field_name, (extname, dtype) in _PLANES.items():
        array = getattr(image, field_name)
        if array is not None:
            unit = image.header.get("BUNIT") if field_name == "err" else None
            cards = [("BUNIT", unit, "physical units of the error array values")] if unit else ()
            # Rates of a long exposure stay on disk until they are in the file.
            data = array if isinstance(array, Stored) else np.asarray(array, dtype)
            hdus.append(Hdu(extname, data, cards=cards))
    for field_name in _TABLES:
        table = getattr(image, field_name)
        if table is not None:
            hdus.append(Hdu(field_name.upper(), table))
    write_fits(path, "ImageModel" if image.data.ndim == 2 else "CubeModel", image.header, hdus, _tree(image))


def read_segmentation(path: str | Path) -> Segmentation:
    """Read a ``_segm`` file."""
    contents = read_fits(path)
    return Segmentation(contents.header, contents.require("SCI").astype(np.uint32), contents.wcs, contents.recipe)


def write_segmentation(segmentation: Segmentation, path: str | Path) -> None:
    """Write a ``_segm`` file."""
    data = np.asarray(segmentation.data, np.uint32)
    write_fits(path, "SegmentationMapModel", segmentation.header, [Hdu("SCI", data)], _tree(segmentation))


def _tree(product: Image | Segmentation) -> dict[str, Any]:
    tree: dict[str, Any] = {"calweave": {"recipe": dict(product.recipe)}}
    if product.wcs is not None:
        tree["meta"] = {"wcs": product.wcs}
    return tree
