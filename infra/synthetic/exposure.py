"""What simulated single exposures share: the header, the raw files, a sky, and the truth that is told of them."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from calibration.simulate.detector import HIT, RawExposure, Readout
from calibration.subarrays import Subarray
from infra.products.header import Header
from infra.products.ramp import write_uncal
from infra.synthetic.headers import duration, times_table
from infra.synthetic.reference_format import DATE

START = 60139.42  # MJD, 2023-07-14
PROGRAM, OBSERVATION, VISIT = "09801", "002", "001"


@dataclass(frozen=True)
class SyntheticExposure:
    """What was written.

    Attributes
    ----------
    files : tuple of Path
        The raw exposure; of a time series in segments, one file each.
    crds : Path
        The CRDS cache.
    context : str
        Name of the CRDS context.
    rate : (ny, nx) float32
        The true count rate of light [DN/s], by the pixel's own gain; 0 in reference pixels.
    hits : (n,) HIT
        Pixels that particles hit.
    detector
        The truth about the pixels.
    """

    files: tuple[Path, ...]
    crds: Path
    context: str
    rate: np.ndarray
    hits: np.ndarray
    detector: Any

    @property
    def uncal(self) -> Path:
        """The raw exposure, or its first segment."""
        return self.files[0]


def raw_cards(instrument: str, detector: str, subarray: str, area: Subarray, readout: Readout) -> dict[str, Any]:
    """Keywords of a raw exposure that stage 1 looks at, but for those of the optics, the mode and the read pattern."""
    effective = readout.ngroups * readout.nframes * readout.tframe
    identity = f"{PROGRAM}{OBSERVATION}{VISIT}"
    return {
        "DATE": DATE, "TELESCOP": "JWST", "INSTRUME": instrument, "DETECTOR": detector,
        "DATE-OBS": "2023-07-14", "TIME-OBS": "10:04:48.000", "VISIT_ID": identity, "PROGRAM": PROGRAM,
        "OBSERVTN": OBSERVATION, "VISIT": VISIT, "VISITGRP": "02", "SEQ_ID": "1", "ACT_ID": "01", "EXPOSURE": "1",
        "TSOVISIT": False, "NINTS": readout.nints, "NGROUPS": readout.ngroups, "NFRAMES": readout.nframes,
        "FRMDIVSR": readout.divisor or readout.nframes, "GROUPGAP": readout.groupgap, "DRPFRMS1": 0, "DRPFRMS3": 0,
        "NSAMPLES": 1, "TSAMPLE": 10.0, "TFRAME": readout.tframe, "TGROUP": readout.tgroup, "EFFINTTM": effective,
        "EFFEXPTM": effective * readout.nints, "DURATION": duration(readout), "NRSTSTRT": 1, "NRESETS": 1,
        "ZEROFRAM": False, "DATAPROB": False, "EXPSTART": START, "EXPMID": START + 0.5 * duration(readout) / 86400,
        "EXPEND": START + duration(readout) / 86400, "INTSTART": 1, "INTEND": readout.nints,
        "SUBARRAY": subarray, "SUBSTRT1": area.xstart, "SUBSTRT2": area.ystart, "SUBSIZE1": area.xsize,
        "SUBSIZE2": area.ysize,
    }  # fmt: skip


def write_raw(
    folder: Path,
    detector: str,
    cards: Mapping[str, Any],
    raw: RawExposure,
    readout: Readout,
    segments: int = 1,
    zeroframe: bool = False,
    refout: np.ndarray | None = None,
) -> tuple[Path, ...]:
    """Write the raw exposure, in so many segments of whole integrations; returns the files.

    Every segment has the times of all integrations, and says in INTSTART and INTEND which are its own.
    """
    if not 1 <= segments <= readout.nints:
        raise ValueError(f"segments must be from 1 to the {readout.nints} integrations, not {segments}")
    folder.mkdir(parents=True, exist_ok=True)
    bounds = np.linspace(0, readout.nints, segments + 1).round().astype(int)
    files = []
    for number, (start, stop) in enumerate(itertools.pairwise(bounds), start=1):
        part = f"-seg{number:03}" if segments > 1 else ""
        name = f"jw{PROGRAM}{OBSERVATION}{VISIT}_02101_00001{part}_{detector.lower()}_uncal.fits"
        own: dict[str, Any] = {"FILENAME": name}
        if segments > 1:
            own |= {"EXSEGNUM": number, "EXSEGTOT": segments, "INTSTART": int(start) + 1, "INTEND": int(stop)}
        # The cards of the caller come last: a test may spoil any of them.
        header = Header({**cards, **own} if segments > 1 else {**own, **cards})
        write_uncal(
            folder / name,
            header,
            raw.ramp[start:stop],
            int_times=times_table(START, readout),
            zeroframe=raw.zeroframe[start:stop] if zeroframe else None,
            refout=refout,
        )
        with fits.open(folder / name, mode="update") as hdulist:
            hdulist[0].header["DATE"] = DATE
        files.append(folder / name)
    return tuple(files)


def write_truth(path: Path, rate: np.ndarray, hits: np.ndarray) -> None:
    """Write the true count rates [DN/s], and the pixels that particles hit."""
    primary = fits.PrimaryHDU()
    primary.header["DATE"] = DATE
    image, table = fits.ImageHDU(rate, name="RATE"), fits.BinTableHDU(hits.astype(HIT), name="HITS")
    image.header["BUNIT"] = "DN/s"
    table.columns["charge"].unit = "electron"
    fits.HDUList([primary, image, table]).writeto(path, overwrite=True)


def starry_sky(
    shape: tuple[int, int], rng: np.random.Generator, sky: float = 30.0, brightest: float = 40_000.0
) -> np.ndarray:
    """Electrons per second (ny, nx) of a sky with stars, one in 4000 pixels, with peaks up to ``brightest``."""
    ny, nx = shape
    rate = np.full(shape, sky)
    y, x = np.mgrid[-8:9, -8:9]
    star = np.exp(-0.5 * (x * x + y * y) / 1.6**2)
    stars = max(6, ny * nx // 4000)
    peaks = 10 ** rng.uniform(1.5, np.log10(brightest), stars)
    padded = np.zeros((ny + 16, nx + 16))
    for row, column, peak in zip(rng.integers(0, ny, stars), rng.integers(0, nx, stars), peaks, strict=True):
        padded[row : row + 17, column : column + 17] += peak * star
    return rate + padded[8:-8, 8:-8]
