"""A small NIRISS grism exposure for tests: optics with the numbers of the real ones, a catalog, and spectra drawn in."""

from dataclasses import dataclass
from pathlib import Path

import asdf
import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.modeling.models import Mapping, Polynomial1D, Polynomial2D, Shift
from astropy.table import QTable

from calibration.wcs.grism import grism_wcs, niriss_disperser
from calibration.wcs.imaging import imaging_wcs
from calibration.wcs.pointing import Pointing
from infra.references.content import References

POINTING = Pointing(v2_ref=-290.1, v3_ref=-697.5, ra_ref=53.16, dec_ref=-27.79, roll_ref=40.0, va_scale=1.00002)
VELOSYS = 12_345.0
WHEEL = {"GR150R": 33.65510941, "GR150C": 354.222229}
#: Pixels per unit of t (1.55 um), and across: of order 1 of both grisms.
LENGTH, SLANT = -331.85, -3.09
ORDERS = (1, 0, 2, -1)
RANGE = (1.7, 2.28)


def distortion(size: int, bend: float = 2e-8) -> object:
    """From pixels to (V2, V3): 65.4 milliarcsec, a slight turn, and a slight curvature, which its inverse knows nothing of."""
    v2 = Polynomial2D(2, c1_0=-0.0654, c0_1=0.00065, c2_0=bend)
    v3 = Polynomial2D(2, c1_0=0.00065, c0_1=0.0656, c0_2=bend)
    forward = Mapping((0, 1, 0, 1)) | v2 & v3
    matrix = np.linalg.inv([[-0.0654, 0.00065], [0.00065, 0.0656]])
    back = Mapping((0, 1, 0, 1)) | (
        Polynomial2D(1, c1_0=matrix[0, 0], c0_1=matrix[0, 1]) & Polynomial2D(1, c1_0=matrix[1, 0], c0_1=matrix[1, 1])
    )
    middle = (size - 1) / 2
    model = Shift(-middle) & Shift(-middle) | forward | Shift(POINTING.v2_ref) & Shift(POINTING.v3_ref)
    model.inverse = Shift(-POINTING.v2_ref) & Shift(-POINTING.v3_ref) | back | Shift(middle) & Shift(middle)
    return model


def specwcs(grism: str, curvature: float = 0.0) -> dict:
    """Tree of a specwcs reference: order m is m times as long as order 1; ``curvature`` [pixel] of t^2 along it."""
    dispx, dispy, displ, invdispl = [], [], [], []
    for order in ORDERS:
        along = [
            Polynomial2D(2, c0_0=157.0 * (order or 1), c1_0=1e-3, c0_1=-2e-4, c2_0=1e-7),
            Polynomial2D(2, c0_0=LENGTH * (order or 0.02), c1_0=-1e-4, c0_1=1e-4),
        ]
        if curvature:
            along.append(Polynomial2D(1, c0_0=curvature, c1_0=1e-4))
        across = [Polynomial2D(2, c0_0=1.5, c1_0=2e-4), Polynomial2D(2, c0_0=SLANT, c1_0=3e-3, c0_1=1.2e-3)]
        dispx.append(along if grism == "GR150C" else across)
        dispy.append(across if grism == "GR150C" else along)
        displ.append(Polynomial1D(1, c0=0.75, c1=1.55))
        invdispl.append(Polynomial1D(1, c0=-0.75 / 1.55, c1=1 / 1.55))
    return {
        "orders": list(ORDERS),
        "dispx": dispx,
        "dispy": dispy,
        "displ": displ,
        "invdispl": invdispl,
        "fwcpos_ref": WHEEL[grism],
    }


WAVELENGTHRANGE = {
    "wavelengthrange": [[order, "F200W", *RANGE] for order in ORDERS] + [[1, "F150W", 1.29, 1.71]],
    "extract_orders": [["F200W", [1]], ["F150W", [1]]],
}


def wcs_of(grism: str, size: int, turn: float = 0.25, curvature: float = 0.0) -> object:
    """The gwcs of an exposure whose wheel stands ``turn`` degrees from where its reference knows it."""
    imaging = imaging_wcs(POINTING, distortion(size), (size, size))
    return grism_wcs(imaging, niriss_disperser(specwcs(grism, curvature), grism, WHEEL[grism] + turn), VELOSYS)


@dataclass(frozen=True)
class Place:
    """A source at a direct position [pixel], with half the width of its box there, for a catalog."""

    label: int
    x: float
    y: float
    half: float = 3.0
    abmag: float = 22.0
    extended: bool = False


def catalog_of(places: list[Place], wcs: object) -> QTable:
    """The catalog of these sources."""
    to_sky = wcs.get_transform("detector", "world")
    x, y, half = (np.array([getattr(place, name) for place in places], float) for name in ("x", "y", "half"))

    def sky(px: np.ndarray, py: np.ndarray) -> SkyCoord:
        ra, dec = to_sky(px, py, np.ones_like(px), np.ones_like(px))[:2]
        return SkyCoord(ra * u.deg, dec * u.deg)

    table = QTable()
    table["label"] = [place.label for place in places]
    table["xcentroid"], table["ycentroid"] = x, y
    table["sky_centroid"] = sky(x, y)
    table["is_extended"] = [place.extended for place in places]
    table["isophotal_abmag"] = [place.abmag for place in places]
    table["isophotal_abmag_err"] = 0.05
    for name, dx, dy in (("ll", -1, -1), ("ul", -1, 1), ("lr", 1, -1), ("ur", 1, 1)):
        table[f"sky_bbox_{name}"] = sky(x + dx * half, y + dy * half)
    return table


#: Sensitivity of order 1: scalar factor [MJy um s / (DN sr)], and relative factors at wavelengths [um].
FACTOR, WAVES = 0.3, np.linspace(1.6, 2.4, 200)
RESPONSE = 1 + 0.3 * np.sin(4 * WAVES)
PIXEL_AREA = 1.0e-13  # sr
LINE = (1.98, 0.004)  # centre and sigma [um]


def brightness(wavelength: np.ndarray, level: float, line: float) -> np.ndarray:
    """A continuum that falls, and a line of ``line`` times the level at its peak [MJy/sr times pixels across]."""
    centre, sigma = LINE
    profile = np.exp(-0.5 * ((wavelength - centre) / sigma) ** 2)
    return level * (1 - 0.5 * (wavelength - 2.0) + line * profile)


def draw_spectra(wcs: object, size: int, places: list[Place], levels: list[tuple[float, float]]) -> np.ndarray:
    """(size, size) DN/s: order 1 of each source, light by light along its trace, a Gaussian of 1 pixel across."""
    image = np.zeros((size, size))
    wavelength = np.linspace(1.66, 2.32, 60_000)
    counts = np.gradient(wavelength) / (FACTOR * np.interp(wavelength, WAVES, RESPONSE))
    to_grism = wcs.get_transform("detector", "grism_detector")
    for place, (level, line) in zip(places, levels, strict=True):
        ones = np.ones_like(wavelength)
        x, y, *_ = to_grism(place.x * ones, place.y * ones, wavelength, ones)
        vertical = np.ptp(y) > np.ptp(x)
        along, across = (y, x) if vertical else (x, y)
        light = brightness(wavelength, level, line) * counts
        row = np.floor(along + 0.5).astype(int)
        for offset in range(-7, 8):
            column = np.floor(across + 0.5).astype(int) + offset
            part = light * np.exp(-0.5 * (column - across) ** 2) / np.sqrt(2 * np.pi)
            inside = (row >= 0) & (row < size) & (column >= 0) & (column < size)
            np.add.at(image, (row[inside], column[inside]) if vertical else (column[inside], row[inside]), part[inside])
    return image


def write_references(folder: Path) -> References:
    """The references of the steps from extract_2d on, written into a folder; no sky, pixel area or aperture correction."""
    asdf.AsdfFile(WAVELENGTHRANGE).write_to(folder / "wavelengthrange.asdf")
    dtype = [
        ("filter", "S12"), ("pupil", "S15"), ("order", "i2"), ("photmjsr", "f4"), ("nelem", "i2"),
        ("wavelength", "f4", (WAVES.size,)), ("relresponse", "f4", (WAVES.size,)),
    ]  # fmt: skip
    rows = np.array([(grism, "F200W", 1, FACTOR, WAVES.size, WAVES, RESPONSE) for grism in WHEEL], dtype)
    primary = fits.PrimaryHDU(header=fits.Header({"PIXAR_SR": PIXEL_AREA, "PIXAR_A2": 0.0042}))
    fits.HDUList([primary, fits.BinTableHDU(rows, name="PHOTOM")]).writeto(folder / "photom.fits")
    files = {"wavelengthrange": str(folder / "wavelengthrange.asdf"), "photom": str(folder / "photom.fits")}
    return References({**files, "area": None, "apcorr": None, "bkg": None}, "test")


#: Pixels per unit of t, and where t = 0 is: as in the real references of NIRCam (order 1 and 2, module A).
NIRCAM_TRACES = {1: (-1530.9, 2589.64), 2: (859.56, 5179.28)}


def nircam_specwcs(grism: str, module: str = "A", newer: bool = False) -> dict:
    """Tree of a NIRCam specwcs reference.

    The old form is polynomials of t alone, all with inverses. In the newer one the offset across and the wavelength depend
    on the direct position, and there are no inverses.
    """
    along, across, waves = [], [], []
    for start, length in NIRCAM_TRACES.values():
        sign = -1.0 if module == "B" and grism == "GRISMR" else 1.0
        along.append(Polynomial1D(1, c0=sign * start, c1=sign * length))
        across.append(Polynomial1D(1, c0=0.0, c1=0.0))
        waves.append(Polynomial1D(1, c0=2.4, c1=2.6))
    if not newer:
        backward = [Polynomial1D(1, c0=-one.c0.value / one.c1.value, c1=1 / one.c1.value) for one in along]
        flat = [Polynomial1D(1, c0=0.0, c1=0.0) for _ in along]
        tree = {"displ": waves, "invdispl": [Polynomial1D(1, c0=-2.4 / 2.6, c1=1 / 2.6) for _ in waves]}
        pairs = [(along, backward), (across, flat)]
    else:
        bent = [
            [Polynomial2D(1, c0_0=-1.2, c1_0=8e-4, c0_1=-3e-4), Polynomial2D(1, c0_0=3.0, c1_0=-2e-3, c0_1=1e-3),
             Polynomial2D(1, c0_0=-0.8, c1_0=4e-4)]
            for _ in along
        ]  # fmt: skip
        waves = [
            [Polynomial2D(1, c0_0=2.401, c1_0=4e-7, c0_1=-2e-7), Polynomial2D(1, c0_0=2.597, c1_0=1e-6, c0_1=3e-7),
             Polynomial2D(1, c0_0=-0.004, c1_0=2e-7)]
            for _ in along
        ]  # fmt: skip
        tree, pairs = {"displ": waves}, [([[one] for one in along], None), (bent, None)]
    (dispx, invdispx), (dispy, invdispy) = pairs if grism == "GRISMR" else pairs[::-1]
    tree |= {"orders": list(NIRCAM_TRACES), "dispx": dispx, "dispy": dispy}
    return tree if newer else tree | {"invdispx": invdispx, "invdispy": invdispy}


#: The prism of MIRI: pixels from the direct position at t = 0, and the coefficients of t, t^2, t^3; 4 to 14 um at 0.07 to
#: 0.02 um per pixel.
MIRI_TRACE = (150.0, -150.0, -100.0, -60.0)


def miri_specwcs(trace: tuple[float, ...] = MIRI_TRACE) -> dict:
    """Tree of a MIRI specwcs reference: down the columns, longer wavelengths lower and further apart."""
    along = [Polynomial2D(2, c0_0=value, c1_0=2e-4 * (k + 1), c0_1=-1e-4 * k) for k, value in enumerate(trace)]
    across = [Polynomial2D(2, c0_0=0.4, c1_0=1e-4), Polynomial2D(2, c0_0=-1.5, c0_1=2e-4)]
    across += [Polynomial2D(2, c0_0=0.3)] * (len(trace) - 2)
    return {
        "orders": [1],
        "dispx": [across],
        "dispy": [along],
        "displ": [Polynomial1D(1, c0=4.0, c1=10.0)],
        "invdispl": [Polynomial1D(1, c0=-0.4, c1=0.1)],
    }


def other_wcs_of(disperser: object, size: int, velosys: float | None = VELOSYS, bend: float = 2e-8) -> object:
    """The gwcs of an exposure of NIRCam or MIRI with a disperser, and the direct image of this module."""
    return grism_wcs(imaging_wcs(POINTING, distortion(size, bend), (size, size)), disperser, velosys)


def write_model_references(folder: Path) -> References:
    """As `write_references`, in files that the official package takes."""
    from stdatamodels.jwst import datamodels

    about = {
        "author": "test", "date": "2023-01-01", "description": "test", "title": "test", "pedigree": "DUMMY",
        "useafter": "2022-01-01T00:00:00", "telescope": "JWST", "instrument": {"name": "NIRISS", "detector": "NIS"},
        "exposure": {"type": "NIS_WFSS"},
    }  # fmt: skip
    model = datamodels.WavelengthrangeModel(
        wrange=WAVELENGTHRANGE["wavelengthrange"],
        extract_orders=WAVELENGTHRANGE["extract_orders"],
        order=[1],
        wrange_selector=["F200W"],
    )
    model.meta.instance.update(about | {"reftype": "wavelengthrange"})
    model.save(folder / "wavelengthrange.asdf")
    n = WAVES.size
    dtype = datamodels.NisWfssPhotomModel().get_dtype("phot_table")
    dtype = [(name, dtype[name].base, (n,)) if name in ("wavelength", "relresponse", "reluncertainty") else (name, dtype[name])
             for name in dtype.names]  # fmt: skip
    rows = [(grism, "F200W", 1, FACTOR, 0.01, n, WAVES, RESPONSE, 0 * WAVES) for grism in WHEEL]
    photometry = datamodels.NisWfssPhotomModel(phot_table=np.array(rows, dtype))
    photometry.meta.instance.update(about | {"reftype": "photom"})
    photometry.meta.photometry.pixelarea_steradians, photometry.meta.photometry.pixelarea_arcsecsq = PIXEL_AREA, 0.0042
    photometry.phot_unit = "MJy micron s / (DN sr)"  # the official wfss_contam asks for it
    photometry.save(folder / "photom.fits")
    files = {"wavelengthrange": str(folder / "wavelengthrange.asdf"), "photom": str(folder / "photom.fits")}
    return References({**files, "area": None, "apcorr": None, "bkg": None}, "jwst_0001.pmap")
