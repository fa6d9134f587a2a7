"""What an exposure leaves behind for the next of its detector: suspect pixels, and filled traps.

``SuspectPixels`` (ASDF) is the persistence array of the official pipeline 3.0: for each detector the pixels that are suspect,
and until when. ``TrapsFilled`` (``_trapsfilled``) is the state of the trap model of Build 7.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asdf
import numpy as np

from calibration.subarrays import Subarray
from infra.products.fits import Hdu, read_fits, write_fits
from infra.products.header import Header, ProductError


@dataclass(frozen=True)
class Suspects:
    """Suspect pixels of one detector.

    Attributes
    ----------
    filename : str
        The exposure after which it was so.
    rows, cols : (n,) int64
        Place in the area that begins at ``origin``, from 0.
    vals : (n,) float64
        Until when [s since 1970-01-01 UTC].
    pers_time : int
        How long a pixel stays suspect [s].
    origin : (int, int) or None
        Column and row of the detector, from 1; None: those of the area that is asked for (the official files do not tell).
    """

    filename: str
    rows: np.ndarray
    cols: np.ndarray
    vals: np.ndarray
    pers_time: int
    origin: tuple[int, int] | None = None

    def cut(self, area: Subarray) -> np.ndarray:
        """Until when each pixel of an area is suspect, (ny, nx) float64; 0 where it is not."""
        until = np.zeros(area.shape)
        y, x, inside = self._places(area)
        until[y[inside], x[inside]] = self.vals[inside]
        return until

    def outside(self, area: Subarray, since: float) -> "Suspects":
        """Those that an exposure of the area did not see, and that are suspect for longer than ``since``."""
        y, x, inside = self._places(area)
        kept = ~inside & (self.vals >= since)
        rows, cols = y[kept] + area.ystart - 1, x[kept] + area.xstart - 1
        return replace(self, rows=rows, cols=cols, vals=self.vals[kept], origin=(1, 1))

    def _places(self, area: Subarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows and columns in an area, and which of them are inside."""
        xstart, ystart = self.origin or (area.xstart, area.ystart)
        y, x = self.rows + ystart - area.ystart, self.cols + xstart - area.xstart
        return y, x, (y >= 0) & (y < area.ysize) & (x >= 0) & (x < area.xsize)


def suspects_after(
    until: np.ndarray, area: Subarray, filename: str, pers_time: int, others: Suspects | None = None
) -> Suspects:
    """Those of a map (ny, nx) of an area, which is 0 where a pixel is not suspect, and ``others`` outside of it."""
    rows, cols = np.nonzero(until)
    here = Suspects(filename, rows, cols, until[rows, cols], pers_time, (area.xstart, area.ystart))
    if others is None or not others.rows.size:
        return here
    xstart, ystart = others.origin or (1, 1)
    return Suspects(
        filename,
        np.concatenate([rows + area.ystart - ystart, others.rows]),
        np.concatenate([cols + area.xstart - xstart, others.cols]),
        np.concatenate([here.vals, others.vals]),
        pers_time,
        (xstart, ystart),
    )


@dataclass(frozen=True)
class SuspectPixels:
    """Suspect pixels, detector -> ``Suspects``."""

    detectors: Mapping[str, Suspects]

    with_ = replace


def read_suspects(path: str | Path) -> SuspectPixels:
    """Read the ASDF file of a persistence array, ours or of the official pipeline."""
    name = Path(path).name
    try:
        with asdf.open(path, lazy_load=False, memmap=False) as file:
            tree = {
                key: dict(value) for key, value in file.tree.items() if isinstance(value, Mapping) and "rows" in value
            }
            detectors = {
                detector: Suspects(
                    str(entry.get("filename", "")),
                    np.asarray(entry["rows"], np.int64),
                    np.asarray(entry["cols"], np.int64),
                    np.asarray(entry["vals"], np.float64),
                    int(entry["pers_time"]),
                    (int(entry["xstart"]), int(entry["ystart"])) if "xstart" in entry else None,
                )
                for detector, entry in tree.items()
            }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProductError(
            f"{name}: cannot read it as a persistence array ({error}); name one that a run wrote"
        ) from None
    for detector, suspects in detectors.items():
        if not suspects.rows.shape == suspects.cols.shape == suspects.vals.shape:
            raise ProductError(
                f"{name}: rows, cols and vals of {detector} must be of one length, but have the shapes "
                f"{suspects.rows.shape}, {suspects.cols.shape}, {suspects.vals.shape}; name a file that a run wrote"
            )
    return SuspectPixels(detectors)


def write_suspects(suspects: SuspectPixels, path: str | Path) -> None:
    """Write the ASDF file of a persistence array, which the official pipeline reads, too."""
    tree = {}
    for detector, of in suspects.detectors.items():
        tree[detector] = {
            "filename": of.filename, "rows": of.rows, "cols": of.cols, "vals": of.vals, "pers_time": of.pers_time
        }  # fmt: skip
        if of.origin is not None:
            tree[detector] |= dict(zip(("xstart", "ystart"), of.origin, strict=True))
    asdf.AsdfFile(tree).write_to(path)


@dataclass(frozen=True)
class TrapsFilled:
    """Filled traps at the end of an exposure.

    Attributes
    ----------
    data : (nfamilies, ny, nx) float32
        [DN that they would release]
    recipe : mapping
        What the steps did: step -> status, options, references.
    """

    header: Header
    data: np.ndarray
    recipe: Mapping[str, Any] = field(default_factory=dict)

    with_ = replace


def read_traps_filled(path: str | Path) -> TrapsFilled:
    """Read a ``_trapsfilled`` file."""
    contents = read_fits(path)
    data = contents.require("SCI")
    if data.ndim != 3:
        raise ProductError(
            f"{contents.name}: expected filled traps (families, rows, columns), but SCI has the shape {data.shape}"
        )
    return TrapsFilled(contents.header, data.astype(np.float32, copy=False), contents.recipe)


def write_traps_filled(traps: TrapsFilled, path: str | Path) -> None:
    """Write a ``_trapsfilled`` file."""
    tree = {"calweave": {"recipe": dict(traps.recipe)}}
    write_fits(path, "TrapsFilledModel", traps.header, [Hdu("SCI", np.asarray(traps.data, np.float32))], tree)
