"""``Ramp``: raw and partly calibrated ramps, and their files ``_uncal`` and ``_ramp``."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.interleaving import WIDTH, science_rows
from calibration.subarrays import Subarray
from infra.products.fits import Hdu, read_fits, write_fits
from infra.products.header import Header, ProductError


@dataclass(frozen=True)
class Ramp:
    """The ramps of one exposure.

    Attributes
    ----------
    data : (nints, ngroups, ny, nx) float32
        Signal [DN].
    pixeldq : (ny, nx) uint32
    groupdq : (nints, ngroups, ny, nx) uint8
    zeroframe : (nints, ny, nx) float32 or None
        First frame of each integration [DN], where it was sent down separately.
    refout : (nints, ngroups, ny / 4, nx) float32 or None
        Reference output of MIRI [DN].
    group, int_times : structured array or None
        Tables GROUP and INT_TIMES of the file.
    average_dark_current : (ny, nx) float32 or None
        [DN/s]
    recipe : mapping
        What the steps did: step -> status, options, references.
    side : mapping
        Products that steps made beside this one on request, suffix -> product; they get files of their own.
    """

    header: Header
    data: np.ndarray
    pixeldq: np.ndarray
    groupdq: np.ndarray
    zeroframe: np.ndarray | None = None
    refout: np.ndarray | None = None
    group: np.ndarray | None = None
    int_times: np.ndarray | None = None
    average_dark_current: np.ndarray | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    side: Mapping[str, Any] = field(default_factory=dict)

    with_ = replace

    @property
    def is_irs2(self) -> bool:
        """Whether reference pixels of NIRSpec's IRS2 readout are between the rows, as they are until refpix."""
        return self.data.shape[-2] == WIDTH

    @property
    def area(self) -> Subarray:
        """What the arrays cover: the detector area of the header, with what is between its rows."""
        return raw_area(self.header) if self.is_irs2 else self.header.subarray

    @property
    def rows(self) -> np.ndarray:
        """Which rows of the arrays are rows of the detector, ascending: all, but for IRS2."""
        if self.is_irs2:
            return science_rows(self.header.require("FASTAXIS"))
        return np.arange(self.data.shape[-2])


def raw_area(header: Header) -> Subarray:
    """What raw frames cover: the detector area of the header, and in IRS2 readout reference pixels between its rows."""
    area = header.subarray
    return replace(area, ysize=WIDTH) if "IRS2" in header.get("READPATT", "") else area


def read_ramp(path: str | Path) -> Ramp:
    """Read an ``_uncal`` or ``_ramp`` file; DQ planes that it lacks are all zero."""
    contents = read_fits(path)
    data = contents.require("SCI")
    if data.ndim != 4:
        raise ProductError(
            f"{contents.name}: expected ramps (integrations, groups, rows, columns), "
            f"but SCI has {data.ndim} dimensions, {data.shape}"
        )
    pixeldq, groupdq = contents.get("PIXELDQ"), contents.get("GROUPDQ")
    return Ramp(
        header=contents.header,
        data=data.astype(np.float32, copy=False),
        pixeldq=np.zeros(data.shape[-2:], np.uint32) if pixeldq is None else pixeldq.astype(np.uint32, copy=False),
        groupdq=np.zeros(data.shape, np.uint8) if groupdq is None else groupdq.astype(np.uint8, copy=False),
        zeroframe=_float32(contents.get("ZEROFRAME")),
        refout=_float32(contents.get("REFOUT")),
        group=contents.get("GROUP"),
        int_times=contents.get("INT_TIMES"),
        average_dark_current=_float32(contents.get("AVDRKCUR")),
        recipe=contents.recipe,
    )


def write_ramp(ramp: Ramp, path: str | Path) -> None:
    """Write a ``_ramp`` file."""
    arrays = {
        "SCI": ramp.data,
        "PIXELDQ": ramp.pixeldq,
        "GROUPDQ": ramp.groupdq,
        "ZEROFRAME": ramp.zeroframe,
        "REFOUT": ramp.refout,
        "AVDRKCUR": ramp.average_dark_current,
        "GROUP": ramp.group,
        "INT_TIMES": ramp.int_times,
    }
    hdus = [Hdu(name, array) for name, array in arrays.items() if array is not None]
    write_fits(path, "RampModel", ramp.header, hdus, {"calweave": {"recipe": dict(ramp.recipe)}})


def write_uncal(
    path: str | Path,
    header: Header,
    data: np.ndarray,
    group: np.ndarray | None = None,
    int_times: np.ndarray | None = None,
    zeroframe: np.ndarray | None = None,
    refout: np.ndarray | None = None,
) -> None:
    """Write raw ramps, (nints, ngroups, ny, nx) uint16, as an ``_uncal`` file."""
    arrays = {"SCI": data, "ZEROFRAME": zeroframe, "REFOUT": refout, "GROUP": group, "INT_TIMES": int_times}
    write_fits(path, "Level1bModel", header, [Hdu(name, array) for name, array in arrays.items() if array is not None])


def _float32(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else array.astype(np.float32, copy=False)
