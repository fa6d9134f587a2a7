"""``Ramp``: raw and partly calibrated ramps, and their files ``_uncal`` and ``_ramp``."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.interleaving import WIDTH, science_rows
from calibration.subarrays import Subarray
from infra.products.fits import Contents, Hdu, ImageOnDisk, open_contents, write_fits
from infra.products.header import Header, ProductError


@dataclass(frozen=True)
class Ramp:
    """The ramps of one exposure. ``data`` and ``groupdq`` of one too large for memory are arrays on disk (``Stored``).

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
    data: Any
    pixeldq: np.ndarray
    groupdq: Any
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


@dataclass(frozen=True)
class RampFile:
    """An exposure in an open file: its ramps are read as they are needed, some integrations at a time.

    Attributes
    ----------
    name : str
        Of the file.
    shape : (nints, ngroups, ny, nx)
    """

    name: str
    header: Header
    shape: tuple[int, ...]
    contents: Contents

    def read(self, first: int = 0, last: int | None = None) -> Ramp:
        """The ramps of the integrations from ``first`` to ``last`` (not included); the tables are those of the exposure."""
        get = self.contents.get
        pixeldq = get("PIXELDQ")
        data = _part(get("SCI"), first, last, np.float32)
        groupdq = _part(get("GROUPDQ"), first, last, np.uint8)
        return Ramp(
            header=self.header,
            data=data,
            pixeldq=np.zeros(data.shape[-2:], np.uint32) if pixeldq is None else pixeldq.astype(np.uint32, copy=False),
            groupdq=np.zeros(data.shape, np.uint8) if groupdq is None else groupdq,
            zeroframe=_part(get("ZEROFRAME"), first, last, np.float32),
            refout=_part(get("REFOUT"), first, last, np.float32),
            group=get("GROUP"),
            int_times=get("INT_TIMES"),
            average_dark_current=_part(get("AVDRKCUR"), 0, None, np.float32),
            recipe=self.contents.recipe,
        )


def _part(source: ImageOnDisk | np.ndarray | None, first: int, last: int | None, dtype: type) -> np.ndarray | None:
    if source is None:
        return None
    if isinstance(source, ImageOnDisk):
        return source.read(first, last, dtype)
    return source[first:last].astype(dtype, copy=False)


@contextlib.contextmanager
def open_ramp(path: str | Path) -> Iterator[RampFile]:
    """An ``_uncal`` or ``_ramp`` file, open for reading; DQ planes that it lacks are all zero.

    Raises
    ------
    ProductError
        If it holds no ramps.
    """
    with open_contents(path, ("SCI", "GROUPDQ", "ZEROFRAME", "REFOUT")) as contents:
        data = contents.require("SCI")
        if len(data.shape) != 4:
            raise ProductError(
                f"{contents.name}: expected ramps (integrations, groups, rows, columns), "
                f"but SCI has {len(data.shape)} dimensions, {data.shape}"
            )
        if 0 in data.shape:
            raise ProductError(
                f"{contents.name}: expected at least one integration and group, but SCI has the shape {tuple(data.shape)}; "
                "fetch the exposure again from the archive"
            )
        yield RampFile(contents.name, contents.header, data.shape, contents)


def read_ramp(path: str | Path) -> Ramp:
    """Read an ``_uncal`` or ``_ramp`` file whole."""
    with open_ramp(path) as file:
        return file.read()


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
