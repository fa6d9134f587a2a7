"""``Guider``: images of the fine guidance sensor's own work (identify, acquire, track, fine guide), raw and calibrated."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from infra.products.fits import Hdu, read_fits, write_fits
from infra.products.header import Header, ProductError

TABLES = (
    "Planned Reference Stars",
    "Flight Reference Stars",
    "Pointing",
    "FGS Centroid Packet",
    "Track subarray table",
)


@dataclass(frozen=True)
class Guider:
    """One guider exposure.

    Attributes
    ----------
    data : (nints, ngroups, ny, nx) float32 [DN] raw, or (n, ny, nx) float32 [DN/s] calibrated
    dq : (ny, nx) uint32
    err : float32 or None
        Standard deviation, of the shape of ``data``.
    tables : mapping
        The telemetry tables of the file by extension name; those that it has.
    recipe : mapping
        What the steps did: step -> status, options, references.
    """

    header: Header
    data: np.ndarray
    dq: np.ndarray
    err: np.ndarray | None = None
    tables: Mapping[str, np.ndarray] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)

    with_ = replace


def read_guider(path: str | Path) -> Guider:
    """Read an ``_uncal`` or ``_cal`` file of a guider mode."""
    contents = read_fits(path)
    data = contents.require("SCI")
    if data.ndim not in (3, 4):
        raise ProductError(
            f"{contents.name}: expected 3 or 4 dimensions of guider data, but SCI has the shape {data.shape}"
        )
    dq, err = contents.get("DQ"), contents.get("ERR")
    upper = {name.upper(): name for name in TABLES}
    return Guider(
        header=contents.header,
        data=data.astype(np.float32, copy=False),
        dq=np.zeros(data.shape[-2:], np.uint32) if dq is None else dq.astype(np.uint32, copy=False),
        err=None if err is None else err.astype(np.float32, copy=False),
        tables={upper[name.upper()]: array for (name, _), array in contents.arrays.items() if name.upper() in upper},
        recipe=contents.recipe,
    )


def write_guider(guider: Guider, path: str | Path) -> None:
    """Write a calibrated guider exposure, ``_cal``."""
    err = np.zeros_like(guider.data) if guider.err is None else guider.err
    hdus = [Hdu("SCI", guider.data), Hdu("ERR", err), Hdu("DQ", guider.dq)]
    hdus += [Hdu(name, guider.tables[name]) for name in TABLES if name in guider.tables]
    tree = {"calweave": {"recipe": dict(guider.recipe)}}
    write_fits(path, "GuiderCalModel", guider.header, hdus, tree)
