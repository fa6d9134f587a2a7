"""The grid of a mosaic that the user gives: a WCS and a size, of an ASDF file or of another mosaic."""

from pathlib import Path
from typing import Any

from infra.products.direct_image import read_direct_image
from infra.products.header import ProductError


def read_grid(path: str | Path) -> Any:
    """The gwcs of a grid, with its ``pixel_shape`` (nx, ny).

    Parameters
    ----------
    path : path
        An ASDF file with ``wcs`` in its tree, and ``pixel_shape`` or ``array_shape`` beside it where the WCS has none; or a
        mosaic, whose grid it is: one of ours, or of another telescope with a plain FITS WCS.

    Raises
    ------
    ProductError
        If there is no WCS, or nothing tells the size.
    """
    path = Path(path)
    if path.suffix != ".asdf":
        image = read_direct_image(path)
        if image.data.ndim != 2:
            raise ProductError(f"{path.name}: expected a mosaic, whose grid is to be used; give an _i2d")
        image.wcs.pixel_shape = image.data.shape[::-1]
        return image.wcs
    import asdf

    try:
        with asdf.open(path, lazy_load=False, memmap=False) as contents:
            tree = dict(contents.tree)
    except (OSError, ValueError) as error:
        raise ProductError(f"{path.name}: expected an ASDF file with the WCS of a grid: {error}") from None
    wcs = tree.get("wcs")
    if not hasattr(wcs, "invert"):
        raise ProductError(f"{path.name}: expected a gwcs under the key wcs, but it has {', '.join(map(str, tree))}")
    shape = wcs.pixel_shape or tree.get("pixel_shape") or (tree.get("array_shape") or ())[::-1]
    if not shape and wcs.bounding_box is not None:
        shape = [int(high + 0.5) for _, high in wcs.bounding_box.bounding_box(order="F")]
    if len(shape) != 2:
        raise ProductError(
            f"{path.name}: nothing tells the size of the grid; give the WCS a pixel_shape or a bounding box, or put "
            "pixel_shape (nx, ny) beside it"
        )
    wcs.pixel_shape = tuple(map(int, shape))
    return wcs
