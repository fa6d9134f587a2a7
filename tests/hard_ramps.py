"""Small exposures with everything that makes stage 1 hard: saturation, hits, bad pixels, invalid references."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from calibration import dq
from infra.products.header import Header
from infra.products.ramp import Ramp, write_uncal
from infra.references.content import References

FRAME_TIME = 10.0  # [s]
RSCD = np.array(
    [("FULL", "FASTR1", 1, 2), ("GENERIC", "ANY", 2, 4)],
    [("subarray", "S17"), ("readpatt", "S12"), ("group_skip1", "i4"), ("group_skip", "i4")],
)


@dataclass(frozen=True)
class Exposure:
    """How to make one: its shape (nints, ngroups, ny, nx), its readout, and what its references have."""

    name: str
    shape: tuple[int, int, int, int]
    instrument: str = "NIRISS"
    detector: str = "NIS"
    start: tuple[int, int] = (1, 1)
    axes: tuple[int, int] = (-2, -1)
    noutputs: int = 4
    nframes: int = 1
    groupgap: int = 0
    dark_nframes: int = 1
    dark_groupgap: int = 0
    dark_groups: int = 60
    zeroframe: bool = False
    gain_factor: float | None = None
    dark_current: float = 0.0
    inverse: bool = False
    seed: int = 1
    cards: dict[str, Any] = field(default_factory=dict)


def make_exposure(folder: Path, exposure: Exposure) -> tuple[Ramp, References]:
    """A raw exposure, and its references as files in ``folder``."""
    rng = np.random.default_rng(exposure.seed)
    nints, ngroups, ny, nx = exposure.shape
    group_time = FRAME_TIME * (exposure.nframes + exposure.groupgap)
    gain = rng.uniform(1.4, 2.0, (ny, nx)).astype(np.float32)
    readnoise = rng.uniform(8, 14, (ny, nx)).astype(np.float32)
    bias = rng.normal(10_000, 50, (ny, nx)).astype(np.float32)
    rate = (10 ** rng.uniform(-1, 3.2, (ny, nx))).astype(np.float64)  # [DN/s]
    reference = _reference_pixels(exposure)
    rate[reference] = 0

    frames = np.arange(1, ngroups * exposure.nframes + (ngroups - 1) * exposure.groupgap + 1) * FRAME_TIME
    data = np.empty(exposure.shape)
    for i in range(nints):
        hits = np.where(rng.random((frames.size, ny, nx)) < 0.004, rng.exponential(1500, (frames.size, ny, nx)), 0)
        charge = rng.poisson(rate * FRAME_TIME * gain, (frames.size, ny, nx)) / gain + np.where(reference, 0, hits)
        signal = np.minimum(np.cumsum(charge, axis=0), 52_000) * (1 - 1e-6 * np.minimum(np.cumsum(charge, 0), 52_000))
        noisy = signal + bias + rng.normal(0, readnoise / np.sqrt(2), signal.shape) + _drift(rng, signal.shape)
        for g in range(ngroups):
            first = g * (exposure.nframes + exposure.groupgap)
            data[i, g] = np.floor(noisy[first : first + exposure.nframes].mean(axis=0))
        data[i][:, rng.random((ny, nx)) < 0.001] = 0
    zeroframe = None
    if exposure.zeroframe:
        early = 0.5 * (exposure.nframes - 1) * FRAME_TIME
        zeroframe = np.floor(np.maximum(data[:, 0] - rate * early, 0)).astype(np.float32)
        zeroframe[:, rng.random((ny, nx)) < 0.01] = 0

    mask = np.where(reference, dq.PIXEL["REFERENCE_PIXEL"], np.uint32(0))
    mask[rng.random((ny, nx)) < 0.01] |= dq.PIXEL["DO_NOT_USE"] | dq.PIXEL["DEAD"]
    threshold = rng.normal(50_000, 500, (ny, nx)).astype(np.float32)
    threshold[rng.random((ny, nx)) < 0.01] = np.nan
    unchecked = np.where(rng.random((ny, nx)) < 0.01, dq.PIXEL["NO_SAT_CHECK"], np.uint32(0))
    bad_bias = bias.copy()
    bad_bias[rng.random((ny, nx)) < 0.01] = np.nan
    coefficients = np.zeros((5, ny, nx), np.float32)
    coefficients[1] = 1
    coefficients[2] = rng.normal(1e-6, 1e-8, (ny, nx))
    coefficients[3] = 2e-12
    coefficients[2][rng.random((ny, nx)) < 0.01] = np.nan
    coefficients[1][rng.random((ny, nx)) < 0.01] = 0
    uncorrected = np.where(rng.random((ny, nx)) < 0.01, dq.PIXEL["NO_LIN_CORR"], np.uint32(0))
    inverse = np.zeros((4, ny, nx), np.float32)
    inverse[1], inverse[2] = 1, -1e-6
    inverse[2][rng.random((ny, nx)) < 0.01] = np.nan
    step = FRAME_TIME * (exposure.dark_nframes + exposure.dark_groupgap)
    dark = (np.arange(1, exposure.dark_groups + 1)[:, None, None] * step * 0.02).astype(np.float32)
    dark = dark + rng.normal(0, 0.5, (exposure.dark_groups, ny, nx)).astype(np.float32)
    dark[:, rng.random((ny, nx)) < 0.01] = np.nan
    bad_gain = gain.copy()
    bad_gain[rng.random((ny, nx)) < 0.01] = np.nan

    about_gain = {} if exposure.gain_factor is None else {"GAINFACT": exposure.gain_factor}
    about_dark = {"NFRAMES": exposure.dark_nframes, "GROUPGAP": exposure.dark_groupgap, "NGROUPS": len(dark)}
    if exposure.dark_current:
        about_dark["AVDRKCUR"] = exposure.dark_current
    linearity = {"COEFFS": coefficients, "DQ": uncorrected}
    if exposure.inverse:
        linearity["INV_COEFFS"] = inverse
    contents = {
        "mask": ({}, {"DQ": mask}),
        "saturation": ({}, {"SCI": threshold, "DQ": unchecked}),
        "superbias": ({}, {"SCI": bad_bias, "DQ": np.where(np.isnan(bad_bias), dq.PIXEL["UNRELIABLE_BIAS"], 0)}),
        "linearity": ({}, linearity),
        "dark": (about_dark, {"SCI": dark, "DQ": np.zeros((ny, nx), np.uint32)}),
        "gain": (about_gain, {"SCI": bad_gain}),
        "readnoise": ({}, {"SCI": readnoise}),
        "ipc": ({}, {"SCI": np.array([[0, -0.005, 0], [-0.005, 1.02, -0.005], [0, -0.005, 0]], np.float32)}),
    }
    if exposure.instrument == "MIRI":
        del contents["superbias"]
        anomaly = (30 * np.exp(-np.arange(4) / 2))[:, None, None] * rng.uniform(0.5, 1, (2, 1, ny, nx))
        anomaly[:, :, rng.random((ny, nx)) < 0.01] = np.nan
        unsure = np.where(rng.random((ny, nx)) < 0.01, dq.PIXEL["UNRELIABLE_BIAS"], np.uint32(0))
        contents["reset"] = ({"NINTS": 2, "NGROUPS": 4}, {"SCI": anomaly.astype(np.float32), "DQ": unsure})
        contents["rscd"] = ({}, {"RSCD_GROUP_SKIP": RSCD})
        dark = np.stack([dark, 1.3 * dark]).astype(np.float32)
        contents["dark"] = (about_dark, {"SCI": dark, "DQ": np.zeros((2, 1, ny, nx), np.uint32)})
    area = _area_cards(exposure)
    files = {
        reftype: _write_reference(folder / f"{exposure.name}_{reftype}.fits", reftype, exposure, area | cards, arrays)
        for reftype, (cards, arrays) in contents.items()
    }
    if exposure.instrument == "MIRI":
        files["superbias"] = None
    header = Header(
        {
            "FILENAME": f"{exposure.name}_uncal.fits", "TELESCOP": "JWST",
            "INSTRUME": exposure.instrument, "DETECTOR": exposure.detector,
            "EXP_TYPE": "NIS_IMAGE", "READPATT": "ANY", "DATE-OBS": "2023-07-14", "TIME-OBS": "12:00:00.000",
            "NINTS": nints, "NGROUPS": ngroups, "NFRAMES": exposure.nframes, "GROUPGAP": exposure.groupgap,
            "FRMDIVSR": exposure.nframes, "TFRAME": FRAME_TIME, "TGROUP": group_time, "ZEROFRAM": exposure.zeroframe,
            "NOUTPUTS": exposure.noutputs, "FASTAXIS": exposure.axes[0], "SLOWAXIS": exposure.axes[1],
            "INTSTART": 1, "INTEND": nints, "EXPSTART": 60139.5, "EFFINTTM": group_time * ngroups,
            **area, **exposure.cards,
        }
    )  # fmt: skip
    ramp = Ramp(
        header,
        np.clip(data, 0, 65_535).astype(np.float32),
        np.zeros((ny, nx), np.uint32),
        np.zeros(exposure.shape, np.uint8),
        zeroframe=zeroframe,
    )
    return ramp, References(files, "jwst_0001.pmap")


def write_raw(ramp: Ramp, path: Path) -> None:
    """Write the raw ramps as an ``_uncal`` file."""
    zeroframe = None if ramp.zeroframe is None else ramp.zeroframe.astype(np.uint16)
    write_uncal(path, ramp.header, ramp.data.astype(np.uint16), zeroframe=zeroframe)


def _drift(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    odd_even = rng.normal(0, 5, (shape[0], 2))[:, np.arange(shape[1]) % 2][:, :, None]
    return odd_even + rng.normal(0, 5, (shape[0], 2))[:, np.arange(shape[2]) % 2][:, None, :]


def _reference_pixels(exposure: Exposure) -> np.ndarray:
    ny, nx = exposure.shape[-2:]
    y, x = np.mgrid[:ny, :nx]
    x, y = x + exposure.start[0] - 1, y + exposure.start[1] - 1
    if exposure.instrument == "MIRI":
        return (x < 4) | (x >= 1028)
    return (x < 4) | (x >= 2044) | (y < 4) | (y >= 2044)


def _area_cards(exposure: Exposure) -> dict[str, Any]:
    ny, nx = exposure.shape[-2:]
    name = "FULL" if (ny, nx) in ((2048, 2048), (1024, 1032)) else "GENERIC"
    return {
        "SUBARRAY": name, "SUBSTRT1": exposure.start[0], "SUBSTRT2": exposure.start[1], "SUBSIZE1": nx, "SUBSIZE2": ny
    }  # fmt: skip


def _write_reference(path: Path, reftype: str, exposure: Exposure, cards: dict, arrays: dict) -> str:
    primary = fits.PrimaryHDU()
    primary.header.update(
        {"TELESCOP": "JWST", "REFTYPE": reftype.upper(), "INSTRUME": exposure.instrument, "DETECTOR": exposure.detector}
    )
    primary.header.update(
        {"DESCRIP": "test", "AUTHOR": "test", "PEDIGREE": "DUMMY", "USEAFTER": "2022-01-01T00:00:00", **cards}
    )
    primary.header.update({"FASTAXIS": exposure.axes[0], "SLOWAXIS": exposure.axes[1]})
    hdus = [primary]
    for name, array in arrays.items():
        if array.dtype.names:
            hdus.append(fits.BinTableHDU(array, name=name))
            continue
        hdus.append(fits.ImageHDU(array.astype(np.uint32) if name == "DQ" else array, name=name))
        if name == "DQ":
            names = [mnemonic for mnemonic in dq.PIXEL]
            columns = [
                fits.Column("BIT", "J", array=np.arange(32)),
                fits.Column("VALUE", "J", array=np.array([dq.PIXEL[n] for n in names], np.uint32), bzero=2**31),
                fits.Column("NAME", "40A", array=names),
                fits.Column("DESCRIPTION", "80A", array=names),
            ]
            hdus.append(fits.BinTableHDU.from_columns(columns, name="DQ_DEF"))
    fits.HDUList(hdus).writeto(path)
    return str(path)
