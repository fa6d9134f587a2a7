"""One small exposure of each imager, with its reference files (the real ones where there are), for the tests of image2."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asdf
import numpy as np
from astropy.io import fits
from astropy.modeling import Model, bind_bounding_box
from astropy.modeling.models import Identity
from astropy.table import Table
from imaging_scene import distortion as plain_distortion

from infra.products.header import Header
from infra.products.image import Image
from infra.references.content import References

CACHE = "real/crds/cache_0676/references/jwst"
FLT9 = "real/crds/miricoord/flt9"
#: The middle of the exposures [MJD].
EXPMID = 60600.25
TRENDS = {
    "linear": [("t0", 59700.0), ("lossperyear", 0.012)],
    "exponential": [("t0", 59720.0), ("amplitude", 0.18), ("tau", 230.0), ("const", 0.82)],
    "powerlaw": [("t0", 59730.0), ("year1value", 0.9), ("tsoft", 300.0), ("alpha", -0.12)],
}


@dataclass(frozen=True)
class Case:
    """A mode: keywords of its exposures, where its references are, and the rows of its PHOTOM table.

    ``trends`` names the tables of the time dependence that stand beside it.
    """

    name: str
    cards: Mapping[str, Any]
    shape: tuple[int, int]
    start: tuple[int, int] = (1, 1)
    distortion: str = ""
    filteroffset: str = ""
    box: tuple | None = None
    photom: tuple[Mapping[str, Any], ...] = ()
    trends: tuple[str, ...] = ()
    model: str = ""
    nints: int = 0
    flat: bool = True
    area: bool = True

    @property
    def is_calibrated(self) -> bool:
        """Whether the case is for all of image2, not for assign_wcs alone."""
        return bool(self.photom)


NIRCAM = {"INSTRUME": "NIRCAM", "READPATT": "RAPID", "EXP_TYPE": "NRC_IMAGE", "VPARITY": -1, "V3I_YANG": -0.1}
LONG = NIRCAM | {"DETECTOR": "NRCALONG", "CHANNEL": "LONG", "MODULE": "A", "FILTER": "F277W", "PUPIL": "CLEAR"}
SHORT = NIRCAM | {"DETECTOR": "NRCB1", "CHANNEL": "SHORT", "MODULE": "B", "FILTER": "F150W2", "PUPIL": "F162M"}
NIRISS = {"INSTRUME": "NIRISS", "DETECTOR": "NIS", "READPATT": "NISRAPID", "VPARITY": -1, "V3I_YANG": -0.57}
MIRI = {"INSTRUME": "MIRI", "DETECTOR": "MIRIMAGE", "READPATT": "FASTR1", "VPARITY": -1, "V3I_YANG": 4.45}
FGS = {"INSTRUME": "FGS", "DETECTOR": "GUIDER2", "READPATT": "FGSRAPID", "VPARITY": 1, "V3I_YANG": 0.2}
MOVING = {"TARGTYPE": "MOVING"}
IMAGER = f"{CACHE}/miri/jwst_miri_distortion_0028.asdf"
OFFSETS = f"{FLT9}/jwst_miri_filteroffset_full_flt9.asdf"

CASES = {
    case.name: case
    for case in (
        Case(
            "nircam_long",
            LONG | {"SUBARRAY": "SUB160P"},
            (96, 128),
            (1701, 201),
            f"{CACHE}/nircam/jwst_nircam_distortion_0090.asdf",
            f"{CACHE}/nircam/jwst_nircam_filteroffset_0002.asdf",
            photom=(
                {"filter": "F277W", "pupil": "CLEAR", "photmjsr": 0.21, "subarray": "FULL"},
                {"filter": "F277W", "pupil": "CLEAR", "photmjsr": 0.23, "subarray": "SUB160P"},
                {"filter": "F322W2", "pupil": "F323N", "photmjsr": 5.5, "subarray": "SUB160P"},
            ),
            trends=("linear",),
            model="NrcImgPhotomModel",
        ),
        Case(
            "nircam_tso",
            SHORT | {"SUBARRAY": "SUB64P", "EXP_TYPE": "NRC_TSIMAGE", "TSOVISIT": True},
            (64, 64),
            (1, 1985),
            "real/products/nrcb1-wcs.asdf",
            photom=(
                {"filter": "F150W2", "pupil": "CLEAR", "photmjsr": 0.5},
                {"filter": "F150W2", "pupil": "F162M", "photmjsr": 2.5},
            ),
            model="NrcImgPhotomModel",
            nints=3,
        ),
        Case(
            "niriss_ami",
            NIRISS | {"FILTER": "F430M", "PUPIL": "NRM", "SUBARRAY": "SUB80", "EXP_TYPE": "NIS_AMI"},
            (80, 80),
            (1045, 1),
            f"{CACHE}/niriss/jwst_niriss_distortion_0010.asdf",
            photom=({"filter": "F430M", "pupil": "NRM", "photmjsr": 5.1},),
            trends=("exponential", "powerlaw"),
            model="NisImgPhotomModel",
            flat=False,
        ),
        Case(
            "niriss_ami_ints",
            NIRISS | {"FILTER": "F430M", "PUPIL": "NRM", "SUBARRAY": "SUB80", "EXP_TYPE": "NIS_AMI"},
            (80, 80),
            (1045, 1),
            f"{CACHE}/niriss/jwst_niriss_distortion_0010.asdf",
            photom=({"filter": "F430M", "pupil": "NRM", "photmjsr": 5.1},),
            model="NisImgPhotomModel",
            nints=2,
        ),
        Case(
            "miri_image",
            MIRI | {"FILTER": "F1000W", "SUBARRAY": "SUB64", "EXP_TYPE": "MIR_IMAGE"},
            (64, 72),
            (1, 779),
            IMAGER,
            OFFSETS,
            box=((3.5, 1027.5), (-0.5, 1023.5)),
            photom=(
                {"filter": "F1000W", "subarray": "GENERIC", "photmjsr": 0.4},
                {"filter": "F1130W", "subarray": "SUB64", "photmjsr": 1.7},
            ),
            trends=("linear", "exponential", "powerlaw"),
            model="MirImgPhotomModel",
        ),
        Case(
            "miri_lyot",
            MIRI | {"FILTER": "F2300C", "CORONMSK": "LYOT_2300", "SUBARRAY": "MASKLYOT", "EXP_TYPE": "MIR_LYOT"},
            (64, 80),
            (1, 717),
            f"{FLT9}/jwst_miri_imager_distortion_flt9.asdf",
            f"{FLT9}/jwst_miri_filteroffset_masklyot_flt9.asdf",
            photom=(
                {"filter": "F2300C", "subarray": "GENERIC", "photmjsr": 9.0},
                {"filter": "F2300C", "subarray": "MASKLYOT", "photmjsr": 3.1},
            ),
            trends=("powerlaw",),
            model="MirImgPhotomModel",
        ),
        Case(
            "fgs_image",
            FGS | MOVING | {"SUBARRAY": "FULL", "EXP_TYPE": "FGS_IMAGE", "MT_RA": 359.981, "MT_DEC": -47.299},
            (64, 96),
            photom=({"photmjsr": 0.8},),
            model="FgsImgPhotomModel",
            area=False,
        ),
        Case(
            "fgs_focus",
            FGS
            | MOVING
            | {"DETECTOR": "GUIDER1", "SUBARRAY": "8X8", "EXP_TYPE": "FGS_FOCUS", "MT_RA": 359.978, "MT_DEC": -47.302},
            (64, 64),
            (801, 1201),
            photom=({"photmjsr": 0.7},),
            trends=("linear",),
            model="FgsImgPhotomModel",
        ),
        # The whole detector, for the geometry alone.
        Case(
            "nircam_long_full",
            LONG | {"SUBARRAY": "FULL", "FILTER": "F444W", "PUPIL": "F470N", "DETECTOR": "NRCBLONG", "MODULE": "B"},
            (2048, 2048),
            (1, 1),
            f"{CACHE}/nircam/jwst_nircam_distortion_0096.asdf",
            f"{CACHE}/nircam/jwst_nircam_filteroffset_0001.asdf",
        ),
        Case(
            "niriss_full",
            NIRISS | {"FILTER": "CLEAR", "PUPIL": "F150W", "SUBARRAY": "FULL", "EXP_TYPE": "NIS_FOCUS"},
            (2048, 2048),
            (1, 1),
            f"{CACHE}/niriss/jwst_niriss_distortion_0010.asdf",
        ),
        Case(
            "miri_full",
            MIRI | {"FILTER": "F1500W", "SUBARRAY": "FULL", "EXP_TYPE": "MIR_TACQ"},
            (1024, 1032),
            (1, 1),
            IMAGER,
            f"{CACHE}/miri/jwst_miri_filteroffset_0005.asdf",
            box=((3.5, 1027.5), (-0.5, 1023.5)),
        ),
    )
}


def rate_of(case: Case, references: References, seed: int = 11) -> Image:
    """A ``_rate`` or ``_rateints`` of noise and sky, with bad pixels; empty where the case is for the geometry alone."""
    rng = np.random.default_rng(seed)
    shape = (case.nints, *case.shape) if case.nints else case.shape
    header = _header(case, references)
    if not case.is_calibrated:
        return Image(header, np.zeros(shape, np.float32), None, None)  # type: ignore[arg-type]
    var_poisson = rng.uniform(1e-3, 3e-3, shape).astype(np.float32)
    var_rnoise = rng.uniform(4e-4, 6e-4, shape).astype(np.float32)
    data = (2 + 0.05 * rng.standard_normal(shape)).astype(np.float32)
    dq = np.zeros(shape, np.uint32)
    dq[..., 3, 5] = 1  # flagged, with a value
    dq[..., 4, 6] = 2048
    data[..., 7, 8] = np.nan  # and the other way round
    return Image(header, data, np.sqrt(var_poisson + var_rnoise), dq, var_poisson, var_rnoise)


def _header(case: Case, references: References) -> Header:
    (ny, nx), (xstart, ystart) = case.shape, case.start
    model = references.asdf("distortion")["model"]
    v2, v3 = model(xstart - 1 + nx / 2, ystart - 1 + ny / 2, with_bounding_box=False)
    suffix = "rateints" if case.nints else "rate"
    return Header({
        "TELESCOP": "JWST", "FILENAME": f"{case.name}_{suffix}.fits", "DATE-OBS": "2024-10-17", "TIME-OBS": "06:00:00",
        "DATE-BEG": "2024-10-17T06:00:00.000", "PROGRAM": "01001", "OBSERVTN": "001", "VISIT": "001", "VISITGRP": "02",
        "SEQ_ID": "1", "ACT_ID": "01", "EXPOSURE": "1", "NINTS": max(case.nints, 1), "NGROUPS": 10, "EFFEXPTM": 800.0,
        "XPOSURE": 800.0, "TMEASURE": 790.0, "DURATION": 820.0, "TELAPSE": 820.0, "EFFINTTM": 800.0,
        "EXPSTART": EXPMID - 0.005, "EXPMID": EXPMID, "EXPEND": EXPMID + 0.005, "TARGTYPE": "FIXED",
        "SUBSTRT1": xstart, "SUBSTRT2": ystart, "SUBSIZE1": nx, "SUBSIZE2": ny, "FASTAXIS": 1, "SLOWAXIS": 2,
        "BUNIT": "DN/s", "WCSAXES": 2, "CRPIX1": nx / 2 + 0.5, "CRPIX2": ny / 2 + 0.5, "V2_REF": float(v2),
        "V3_REF": float(v3), "RA_REF": 359.98, "DEC_REF": -47.3, "ROLL_REF": 203.7, "VA_SCALE": 1.0000843, **case.cards,
    })  # fmt: skip


def references_of(case: Case, shared: Path, folder: Path) -> References:
    """The reference files of a case, written to ``folder`` where they are not real."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str | None] = dict.fromkeys(
        ("filteroffset", "specwcs", "wavelengthrange", "flat", "photom", "area")
    )
    files["distortion"] = str(_distortion(case, shared, folder))
    if case.filteroffset:
        files["filteroffset"] = str(shared / case.filteroffset)
    if case.is_calibrated:
        files["photom"] = str(_photom(case, folder))
        if case.flat:
            files["flat"] = str(_flat(case, folder))
        if case.area:
            files["area"] = str(_area(case, folder))
    return References(files, "jwst_0001.pmap")


def _about(case: Case, reftype: str) -> dict[str, Any]:
    cards = {key: case.cards[key] for key in ("INSTRUME", "DETECTOR", "EXP_TYPE")}
    about = {"TELESCOP": "JWST", "AUTHOR": "Calweave", "DESCRIP": "for a test", "PEDIGREE": "DUMMY"}
    return cards | about | {"USEAFTER": "2020-01-01T00:00:00", "REFTYPE": reftype}


def _distortion(case: Case, shared: Path, folder: Path) -> Path:
    """The real file; made of the WCS of a real product, or with a bounding box that newer files have, where need be."""
    if case.distortion and case.box is None and "distortion" in case.distortion:
        return shared / case.distortion
    model: Model = plain_distortion()
    meta: dict[str, Any] = {
        "telescope": "JWST", "author": "Calweave", "description": "for a test", "pedigree": "DUMMY",
        "useafter": "2020-01-01T00:00:00", "reftype": "distortion", "input_units": "pixel", "output_units": "arcsec",
        "instrument": {"name": case.cards["INSTRUME"], "detector": case.cards["DETECTOR"]},
        "exposure": {"type": case.cards["EXP_TYPE"], "p_exptype": case.cards["EXP_TYPE"] + "|"},
    }  # fmt: skip
    if case.distortion:
        with (
            warnings.catch_warnings(action="ignore"),
            asdf.open(shared / case.distortion, lazy_load=False, memmap=False) as file,
        ):
            tree = dict(file.tree)
        model = tree["model"] if "model" in tree else tree["wcs"].get_transform("detector", "v2v3").copy()
    if case.box is not None:
        # With the names of inputs that newer files have, without which the official package cannot take the box over.
        model = Identity(2) | model
        bind_bounding_box(model, case.box, order="F")
    elif case.distortion:
        # The optics without the image that they were taken from.
        del model.bounding_box
    path = folder / f"{case.name}_distortion.asdf"
    asdf.AsdfFile({"model": model, "meta": meta}).write_to(path)
    return path


def _photom(case: Case, folder: Path) -> Path:
    # What a row is for comes first, and any other column last: the official package wants it so.
    names = [name for name in case.photom[0] if name in ("filter", "pupil", "subarray")][:2]
    dtype = [*((name, "S12") for name in names), ("photmjsr", "f4"), ("uncertainty", "f4")]
    dtype += [(name, "S12") for name in case.photom[0] if name not in dict(dtype)]
    table = np.zeros(len(case.photom), dtype)
    for row, values in zip(table, case.photom, strict=True):
        for name, value in values.items():
            row[name] = value
    hdus = [fits.BinTableHDU(table, name="PHOTOM")]
    for trend in case.trends:
        coefficients = TRENDS[trend]
        times = np.zeros(len(table), [*((name, "S12") for name in names), *((name, "f4") for name, _ in coefficients)])
        for name in names:
            times[name] = table[name]
        for name, value in coefficients:
            # Each row another trend, so that the wrong row is seen.
            times[name] = value * (1 if name == "t0" else 1 + 0.02 * np.arange(len(table)))
        hdus.append(fits.BinTableHDU(times, name=f"TIMECOEFF_{trend.upper()}"))
    about = _about(case, "PHOTOM") | {"DATAMODL": case.model, "PIXAR_SR": 9.1e-14, "PIXAR_A2": 0.0039}
    return _write(folder / f"{case.name}_photom.fits", about, hdus)


def _flat(case: Case, folder: Path) -> Path:
    (ny, nx), (xstart, ystart) = case.shape, case.start
    rng = np.random.default_rng(5)
    flat = (1 + 0.02 * rng.standard_normal((ny, nx))).astype(np.float32)
    flat[20:23, 30:34], flat[50, 60] = np.nan, 0
    flags = np.zeros((ny, nx), np.uint32)
    # Bits that the file defines itself: not those of the data.
    flags[30, 40], flags[31, 41], flags[32, 42] = 1, 2, 4
    names = ("NO_FLAT_FIELD", "UNRELIABLE_FLAT", "DO_NOT_USE")
    rows = [(bit, 2**bit, name, "") for bit, name in enumerate(names)]
    definitions = Table(rows=rows, names=("BIT", "VALUE", "NAME", "DESCRIPTION"), dtype=("i4", "i4", "S40", "S80"))
    where = {"SUBARRAY": case.cards["SUBARRAY"], "SUBSTRT1": xstart, "SUBSTRT2": ystart, "SUBSIZE1": nx, "SUBSIZE2": ny}
    hdus = [
        fits.ImageHDU(flat, name="SCI"),
        fits.ImageHDU(rng.uniform(0.001, 0.003, (ny, nx)).astype(np.float32), name="ERR"),
        fits.ImageHDU(flags, name="DQ"),
        fits.BinTableHDU(definitions, name="DQ_DEF"),
    ]
    where |= {"FASTAXIS": 1, "SLOWAXIS": 2}
    return _write(folder / f"{case.name}_flat.fits", _about(case, "FLAT") | {"DATAMODL": "FlatModel"} | where, hdus)


def _area(case: Case, folder: Path) -> Path:
    (ny, nx), (xstart, ystart) = case.shape, case.start
    rng = np.random.default_rng(6)
    # From the first pixel of the detector to the last of the case.
    area = (1 + 0.01 * rng.standard_normal((ystart - 1 + ny, xstart - 1 + nx))).astype(np.float32)
    about = _about(case, "AREA") | {"DATAMODL": "PixelAreaModel", "PIXAR_SR": 2.8e-13, "PIXAR_A2": 0.0121}
    return _write(folder / f"{case.name}_area.fits", about, [fits.ImageHDU(area, name="SCI")])


def _write(path: Path, cards: Mapping[str, Any], hdus: list) -> Path:
    primary = fits.PrimaryHDU()
    primary.header.update(cards)
    fits.HDUList([primary, *hdus]).writeto(path, overwrite=True)
    return path
