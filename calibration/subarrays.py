"""Cut a reference array to the detector area that an exposure read out."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Subarray:
    """An area of the detector, in the science orientation of the file.

    ``xstart`` and ``ystart`` are one-based as in SUBSTRT1 and SUBSTRT2; ``xsize`` and ``ysize`` are in pixels.
    """

    xstart: int
    ystart: int
    xsize: int
    ysize: int

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of an array that covers this area."""
        return self.ysize, self.xsize

    def __str__(self) -> str:
        return (
            f"columns {self.xstart}..{self.xstart + self.xsize - 1}, rows {self.ystart}..{self.ystart + self.ysize - 1}"
        )


def cut(array: np.ndarray, of: Subarray, to: Subarray) -> np.ndarray:
    """The part of ``array`` (..., ny, nx), which covers ``of``, that covers ``to``: a view, nothing is copied.

    Raises
    ------
    ValueError
        If ``array`` has another shape than ``of``, or ``to`` reaches beyond it.
    """
    if array.shape[-2:] != of.shape:
        raise ValueError(f"an array that covers {of} must have the shape {of.shape}, but it has {array.shape[-2:]}")
    x, y = to.xstart - of.xstart, to.ystart - of.ystart
    if x < 0 or y < 0 or x + to.xsize > of.xsize or y + to.ysize > of.ysize:
        raise ValueError(f"the area {to} is not inside the area {of} that the reference covers")
    return array[..., y : y + to.ysize, x : x + to.xsize]
