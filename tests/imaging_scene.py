"""A small field of stars and galaxies seen by a few dithered exposures, with the truth, for the tests of imaging."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from asdf import AsdfFile
from astropy.io import fits
from astropy.modeling.models import Mapping, Polynomial2D, Shift
from astropy.table import Table
from scipy.special import erf

from calibration.wcs.imaging import imaging_wcs
from calibration.wcs.pointing import Pointing
from infra.products.header import Header
from infra.products.image import Image
from infra.references.content import References

V2, V3 = -287.8, -697.7
RA, DEC, ROLL = 150.1, 2.3, 30.0
SCALE = 0.0656  # arcsec
#: MJy/sr for one DN/s, and the area of a pixel [sr].
PHOTMJSR, PIXAR_SR = 0.3, (SCALE * np.pi / 180 / 3600) ** 2
VEGA_OFFSET = 1.7
START = 769
READ_VARIANCE, GAIN_TIME = 4e-4, 1300.0


def distortion(size: int = 2048):
    """From full-frame pixels to (V2, V3): the scale, x mirrored, and a slight curvature; with its inverse."""
    quadratic = 2e-8
    forward = Mapping((0, 1, 0, 1)) | (
        Polynomial2D(2, c1_0=-SCALE, c0_1=0.0007, c2_0=quadratic, c1_1=quadratic)
        & Polynomial2D(2, c1_0=0.0007, c0_1=SCALE, c0_2=quadratic)
    )
    middle = (size - 1) / 2
    model = Shift(-middle) & Shift(-middle) | forward | Shift(V2) & Shift(V3)
    model.inverse = _inverse(middle, quadratic)
    return model


def _inverse(middle: float, quadratic: float):
    """A cubic fit of the inverse over the detector: good to 1e-6 pixel in the middle."""
    from astropy.modeling.fitting import LinearLSQFitter

    x, y = np.meshgrid(np.linspace(-400, 400, 25), np.linspace(-400, 400, 25))
    v2 = -SCALE * x + 0.0007 * y + quadratic * x * x + quadratic * x * y
    v3 = 0.0007 * x + SCALE * y + quadratic * y * y
    fit = LinearLSQFitter()
    back = [fit(Polynomial2D(4), v2, v3, target) for target in (x, y)]
    return Shift(-V2) & Shift(-V3) | Mapping((0, 1, 0, 1)) | back[0] & back[1] | Shift(middle) & Shift(middle)


@dataclass(frozen=True)
class Field:
    """The truth: positions [deg], fluxes [DN/s], widths [pixel] of round Gaussians."""

    ra: np.ndarray
    dec: np.ndarray
    flux: np.ndarray
    sigma: np.ndarray


@dataclass(frozen=True)
class Scene:
    """Rates (DN/s) or calibrated images of a field, and the pixels that cosmic rays hit, by image: (ny, nx) bool."""

    field: Field
    images: tuple[Image, ...]
    hits: tuple[np.ndarray, ...]
    pointings: tuple[Pointing, ...] = field(default_factory=tuple)


def make_field(rng: np.random.Generator, size: int, count: int = 45, least: float = 60.0, star: float = 1.1) -> Field:
    """Stars on a jittered grid, so that none blends with another, ``star`` pixels wide; one in four is a galaxy."""
    side = int(np.ceil(np.sqrt(count)))
    width = size / side
    at = (np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)[:count] + 0.5) * width
    at += rng.uniform(-0.25, 0.25, at.shape) * width
    wcs = imaging_wcs(pointing(0, 0), distortion(), (size, size), (START, START))
    ra, dec = wcs(at[:, 0], at[:, 1], with_bounding_box=False)
    sigma = np.where(np.arange(count) % 4 == 3, rng.uniform(2, 3, count), star)
    return Field(ra, dec, 10 ** rng.uniform(np.log10(least), 3.7, count), sigma)


def pointing(dra: float, ddec: float, roll: float = 0.0) -> Pointing:
    """The pointing of the scene, moved [arcsec, deg]."""
    return Pointing(V2, V3, RA + dra / 3600 / np.cos(np.radians(DEC)), DEC + ddec / 3600, ROLL + roll, 1.00002)


DITHERS = ((0.0, 0.0), (1.23, 0.71), (-0.66, 1.37), (0.49, -1.05))


def make_scene(
    size: int = 160,
    dithers: tuple[tuple[float, float], ...] = DITHERS,
    errors: tuple[tuple[float, ...], ...] = (),
    skies: tuple[float, ...] = (1.0, 1.02, 1.05, 1.01),
    rays: int = 25,
    calibrated: bool = True,
    count: int = 45,
    seed: int = 7,
    noise: float = 1.0,
    star: float = 1.1,
) -> Scene:
    """Observe the field.

    ``errors`` are those of the pointing of each image (arcsec, arcsec, and deg of roll), which its header does not know;
    ``skies`` are in DN/s. ``calibrated`` images have a WCS and MJy/sr, others are rates.
    """
    rng = np.random.default_rng(seed)
    truth = make_field(rng, size, count, star=star)
    images, hits, pointings = [], [], []
    for k, dither in enumerate(dithers):
        said = pointing(*dither)
        error = errors[k] if k < len(errors) else (0.0, 0.0)
        real = pointing(dither[0] + error[0], dither[1] + error[1], *error[2:])
        rate = draw(truth, real, size) + skies[k % len(skies)]
        var_poisson, var_rnoise = rate / GAIN_TIME, np.full_like(rate, READ_VARIANCE)
        rate = rate + noise * rng.standard_normal(rate.shape) * np.sqrt(var_poisson + var_rnoise)
        hit = np.zeros(rate.shape, bool)
        hit[rng.integers(3, size - 3, rays), rng.integers(3, size - 3, rays)] = True
        rate[hit] += rng.uniform(5, 50, hit.sum())
        dq = np.zeros(rate.shape, np.uint32)
        dq[rng.random(rate.shape) < 0.002] = 1
        planes = {
            "data": rate,
            "err": np.sqrt(var_poisson + var_rnoise),
            "var_poisson": var_poisson,
            "var_rnoise": var_rnoise,
        }
        planes = {name: np.where(dq & 1, np.nan, plane).astype(np.float32) for name, plane in planes.items()}
        image = Image(header=header(said, size, k + 1), dq=dq, **planes)
        images.append(calibrate(image, said) if calibrated else image)
        hits.append(hit & (dq == 0))
        pointings.append(real)
    return Scene(truth, tuple(images), tuple(hits), tuple(pointings))


def draw(truth: Field, at: Pointing, size: int) -> np.ndarray:
    """(size, size) image of the field [DN/s]."""
    wcs = imaging_wcs(at, distortion(), (size, size), (START, START))
    x, y = wcs.invert(truth.ra, truth.dec, with_bounding_box=False)
    pixel = np.arange(size)

    def share(centre: float, sigma: float) -> np.ndarray:
        edge = np.append(pixel - 0.5, size - 0.5)
        return np.diff(0.5 * erf((edge - centre) / (sigma * np.sqrt(2))))

    image = np.zeros((size, size))
    for xs, ys, flux, sigma in zip(x, y, truth.flux, truth.sigma, strict=True):
        image += flux * np.outer(share(ys, sigma), share(xs, sigma))
    return image


def header(at: Pointing, size: int, exposure: int) -> Header:
    """The keywords of a NIRISS direct image."""
    return Header({
        "TELESCOP": "JWST", "INSTRUME": "NIRISS", "DETECTOR": "NIS", "FILTER": "CLEAR", "PUPIL": "F200W",
        "EXP_TYPE": "NIS_IMAGE", "FILENAME": f"jw01001001001_02101_{exposure:05d}_nis_rate.fits",
        "DATE-OBS": "2023-01-01", "TIME-OBS": "00:00:00", "DATE-BEG": f"2023-01-01T00:0{exposure}:00.000",
        "PROGRAM": "01001", "OBSERVTN": "001", "VISIT": "001", "VISITGRP": "02", "SEQ_ID": "1", "ACT_ID": "01",
        "EXPOSURE": str(exposure), "NINTS": 1, "NGROUPS": 10, "EFFEXPTM": 800.0, "XPOSURE": 800.0, "TMEASURE": 790.0,
        "DURATION": 820.0, "TELAPSE": 820.0, "EFFINTTM": 800.0, "EXPSTART": 60000.0 + exposure,
        "EXPMID": 60000.5 + exposure, "EXPEND": 60000.9 + exposure, "READPATT": "NIS", "TARGTYPE": "FIXED",
        "SUBARRAY": "FULL", "SUBSTRT1": START, "SUBSTRT2": START, "SUBSIZE1": size, "SUBSIZE2": size,
        "FASTAXIS": -2, "SLOWAXIS": -1, "BUNIT": "DN/s", "WCSAXES": 2, "CRPIX1": size / 2, "CRPIX2": size / 2,
        "V2_REF": at.v2_ref, "V3_REF": at.v3_ref, "RA_REF": at.ra_ref, "DEC_REF": at.dec_ref, "ROLL_REF": at.roll_ref,
        "V3I_YANG": -0.57, "VPARITY": -1, "VA_SCALE": at.va_scale,
    })  # fmt: skip


def calibrate(image: Image, at: Pointing) -> Image:
    """A rate as image2 leaves it, its flat being 1."""
    scale = np.float32(PHOTMJSR)
    return image.with_(
        header=image.header.set(
            BUNIT="MJy/sr",
            PHOTMJSR=PHOTMJSR,
            PIXAR_SR=PIXAR_SR,
            PIXAR_A2=SCALE**2,
            FILENAME=image.header["FILENAME"].replace("rate", "cal"),
        ),
        data=image.data * scale,
        err=image.err * scale,
        var_poisson=image.var_poisson * scale**2,
        var_rnoise=image.var_rnoise * scale**2,
        var_flat=np.where(np.isnan(image.data), np.float32(np.nan), np.float32(0)),
        wcs=imaging_wcs(at, distortion(), image.data.shape, (START, START)),
    )


def write_references(folder: Path, size: int = 160, seed: int = 3) -> References:
    """Reference files of image2 and image3 for the scene."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "TELESCOP": "JWST", "INSTRUME": "NIRISS", "DETECTOR": "NIS", "AUTHOR": "Calweave", "DESCRIP": "for a test",
        "PEDIGREE": "DUMMY", "USEAFTER": "2020-01-01T00:00:00", "EXP_TYPE": "NIS_IMAGE",
    }  # fmt: skip
    where = {"SUBARRAY": "GENERIC", "SUBSTRT1": START, "SUBSTRT2": START, "SUBSIZE1": size, "SUBSIZE2": size}
    where |= {"FASTAXIS": -2, "SLOWAXIS": -1}
    flat = (1 + 0.02 * rng.standard_normal((size, size))).astype(np.float32)
    flat[20:24, 30:34], flat[50, 60] = np.nan, 0
    flags = np.zeros(flat.shape, np.int32)
    flags[70, 80] = 1
    definitions = fits.BinTableHDU(
        Table({"BIT": [0], "VALUE": [1], "NAME": ["NO_FLAT_FIELD"], "DESCRIPTION": [""]}), name="DQ_DEF"
    )
    planes = [fits.ImageHDU(flat, name="SCI"), fits.ImageHDU(np.full_like(flat, 0.002), name="ERR")]
    _save(
        folder / "flat.fits",
        about | where | {"REFTYPE": "FLAT"},
        [*planes, fits.ImageHDU(flags, name="DQ"), definitions],
    )
    area = {"REFTYPE": "AREA", "DATAMODL": "PixelAreaModel", "PIXAR_SR": PIXAR_SR, "PIXAR_A2": SCALE**2}
    _save(folder / "area.fits", about | area, [fits.ImageHDU(np.ones((2048, 2048), np.float32), name="SCI")])
    table = np.array(
        [("CLEAR", "F150W", 0.2, 0.01), ("CLEAR", "F200W", PHOTMJSR, 0.01)],
        [("filter", "S12"), ("pupil", "S15"), ("photmjsr", "f4"), ("uncertainty", "f4")],
    )
    _save(
        folder / "photom.fits",
        about | {"REFTYPE": "PHOTOM", "DATAMODL": "NisImgPhotomModel"},
        [fits.BinTableHDU(table, name="PHOTOM")],
    )
    table = np.array(
        [("CLEAR", "F200W", *row, 8.0, 12.0) for row in ((0.3, 1.2, 3.3), (0.5, 1.8, 2.0), (0.7, 3.0, 1.43))],
        [("filter", "S12"), ("pupil", "S15"), ("eefraction", "f4"), ("radius", "f4"), ("apcorr", "f4"), ("skyin", "f4"),
         ("skyout", "f4")],
    )  # fmt: skip
    _save(
        folder / "apcorr.fits",
        about | {"REFTYPE": "APCORR", "DATAMODL": "NisImgApcorrModel"},
        [fits.BinTableHDU(table, name="APCORR")],
    )
    meta = {
        "telescope": "JWST", "author": "Calweave", "description": "for a test", "pedigree": "DUMMY",
        "useafter": "2020-01-01T00:00:00", "instrument": {"name": "NIRISS", "detector": "NIS"},
    }  # fmt: skip
    offsets = Table({"filter": ["CLEAR"], "pupil": ["F200W"], "abvega_offset": [VEGA_OFFSET]})
    _save_asdf(folder / "abvegaoffset.asdf", {"abvega_offset": offsets, "meta": meta | {"reftype": "abvegaoffset"}})
    extra = {"exposure": {"type": "NIS_IMAGE", "p_exptype": "NIS_IMAGE|"}}
    _save_asdf(
        folder / "distortion.asdf",
        {"model": distortion(), "meta": meta | extra | {"reftype": "distortion", "input_units": "pixel",
                                                        "output_units": "arcsec"}},
    )  # fmt: skip
    names = "flat.fits area.fits photom.fits apcorr.fits abvegaoffset.asdf distortion.asdf".split()
    files: dict[str, str | None] = {name.split(".")[0]: str(folder / name) for name in names}
    return References(files | dict.fromkeys(("filteroffset", "specwcs", "wavelengthrange")), "jwst_0001.pmap")


def _save(path: Path, cards: dict, hdus: list) -> None:
    primary = fits.PrimaryHDU()
    primary.header.update(cards)
    fits.HDUList([primary, *hdus]).writeto(path, overwrite=True)


def _save_asdf(path: Path, tree: dict) -> None:
    AsdfFile(tree).write_to(path)
