"""How much of the truth came back: sources found, positions, emission lines and continua of a calibrated synthetic program."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from scipy.optimize import curve_fit
from scipy.spatial import KDTree
from scipy.special import erf

from calibration.simulate.dispersion import Grism
from calibration.simulate.scene import EXPONENTIAL, PSF
from calibration.simulate.slitless import SLITLESS, Slitless
from infra.products.catalog import read_catalog
from infra.products.header import Header
from infra.products.image import Image, read_image
from infra.products.names import rename
from infra.products.spectrum import read_spectra
from infra.synthetic.tables import spectrum_name

MATCH_RADIUS = 0.15 * u.arcsec
APERTURE = 3.0  # [pixel], radius within which the noise of a source is counted
EMPTY = 20.0  # [pixel] from the next source, where a piece of sky is empty
EDGES = (5.0, 1.0)  # [widths of its edges], from the half-power points of the passband to where spectra are compared
LINE_WINDOW = (
    7.0  # [spectral pixel] on either side of a line, for the point-spread function of NIRISS; more for wider ones
)


@dataclass(frozen=True)
class Comparison:
    """The figures of one program.

    Attributes
    ----------
    expected, found : int
        Sources that should be found (``threshold`` times their noise, whole on the mosaic), and those that were.
    missing : tuple of int
        Numbers of those that were not.
    position_rms, position_worst : float
        Of the sources found, against the truth, on the sky in each axis [pixel of the mosaic].
    lines : astropy.table.Table
        One row per line and grism: source, filter (of the grism), wavelength [um], offset [spectral pixel], flux ratio, snr.
    continua : astropy.table.Table
        One row per star and grism: source, filter, ratio to the truth outside of lines, and its error.
    """

    expected: int
    found: int
    missing: tuple[int, ...]
    position_rms: float
    position_worst: float
    lines: Table
    continua: Table


def compare_with_truth(products: str | Path, truth: str | Path, threshold: float = 10.0) -> Comparison:
    """Compare the mosaic's catalog and the combined spectra in ``products`` with the tables in ``truth``."""
    products, truth = Path(products), Path(truth)
    (catalog_path,) = products.glob("*_cat.ecsv")
    catalog = read_catalog(catalog_path).table
    mosaic = read_image(products / rename(catalog_path.name, "i2d"))
    sources = Table.read(truth / "sources.ecsv", format="ascii.ecsv")
    on_sky = SkyCoord(sources["ra"], sources["dec"])

    x, y = mosaic.wcs.invert(on_sky.ra.deg, on_sky.dec.deg, with_bounding_box=False)
    wanted = np.flatnonzero(signal_to_noise(mosaic, x, y, np.asarray(sources["flux"])) > threshold)
    nearest, distance, _ = on_sky.match_to_catalog_sky(SkyCoord(catalog["sky_centroid"]))
    hit = wanted[distance[wanted] < MATCH_RADIUS]
    labels = {int(sources["id"][i]): int(catalog["label"][nearest[i]]) for i in hit}
    offset = np.array(
        [[float(catalog["xcentroid"][nearest[i]]) - x[i], float(catalog["ycentroid"][nearest[i]]) - y[i]] for i in hit]
    ).reshape(-1, 2)
    lines, continua = _compare_spectra(products, truth, labels)
    return Comparison(
        expected=len(wanted),
        found=len(hit),
        missing=tuple(int(sources["id"][i]) for i in sorted(set(wanted) - set(hit))),
        position_rms=float(np.sqrt(np.mean(offset**2))) if len(hit) else np.nan,
        position_worst=float(np.abs(offset).max()) if len(hit) else np.nan,
        lines=lines,
        continua=continua,
    )


def signal_to_noise(mosaic: Image, x: np.ndarray, y: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """Of sources with total ``flux`` [Jy] at the pixels ``x``, ``y``; 0 where the aperture is not whole on the mosaic.

    The noise is that of apertures on empty sky, scaled by the local ERR: the errors of a mosaic's pixels know nothing of
    what they share with their neighbours (resampling, 1/f noise), and an aperture sees just that.
    """
    ny, nx = mosaic.data.shape
    reach = int(np.ceil(APERTURE))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    dy, dx = (offset[np.hypot(dx, dy) <= APERTURE] for offset in (dy, dx))

    def sums(column: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.round(row).astype(int)[:, None] + dy, np.round(column).astype(int)[:, None] + dx
        return mosaic.data[pixels].sum(axis=1), np.sqrt((mosaic.err[pixels].astype(float) ** 2).sum(axis=1))

    grid_y, grid_x = (axis.ravel() for axis in np.mgrid[reach : ny - reach : 2 * reach, reach : nx - reach : 2 * reach])
    known = np.isfinite(x) & np.isfinite(y)
    empty = KDTree(np.column_stack([x[known], y[known]])).query(np.column_stack([grid_x, grid_y]))[0] > EMPTY
    light, error = sums(grid_x[empty], grid_y[empty])
    pull = (light - np.nanmedian(light)) / error
    excess = 1.4826 * np.nanmedian(np.abs(pull))

    jansky = mosaic.header.require("PIXAR_SR") * 1e6  # of one pixel of 1 MJy/sr
    whole = np.isfinite(x) & (x > reach) & (x < nx - reach - 1) & (y > reach) & (y < ny - reach - 1)
    result = np.zeros(len(x))
    result[whole] = flux[whole] / (jansky * excess * sums(x[whole], y[whole])[1])
    return np.nan_to_num(result)


def _compare_spectra(products: Path, truth: Path, labels: dict[int, int]) -> tuple[Table, Table]:
    names = ("source", "filter", "wavelength", "offset", "flux_ratio", "snr")
    found = Table(names=names, dtype=(int, "U8", float, float, float, float))
    continua = Table(names=("source", "filter", "ratio", "error"), dtype=(int, "U8", float, float))
    lines = Table.read(truth / "lines.ecsv", format="ascii.ecsv")
    sources = Table.read(truth / "sources.ecsv", format="ascii.ecsv")
    stars = {int(row["id"]) for row in sources if row["radius"] == 0}
    for path in sorted(products.glob("*_c1d.fits")):
        spectra = read_spectra(path)
        optics = SLITLESS[spectra.header["INSTRUME"]]()
        grism = _grism(optics, spectra.header)
        blue, red = optics.passband.blue, optics.passband.red
        blue, red = blue + EDGES[0] * optics.passband.edge, red - EDGES[1] * optics.passband.edge
        rows = {
            int(row["SOURCE_ID"]): row for each in spectra.tables if each.cards.get("SPORDER") == 1 for row in each.rows
        }
        for number, label in labels.items():
            row = rows.get(label)
            if row is None:
                continue
            good = (
                (row["WAVELENGTH"] > blue) & (row["WAVELENGTH"] < red) & np.isfinite(row["FLUX"]) & (row["ERROR"] > 0)
            )
            wavelength, flux, error = (np.asarray(row[name][good], float) for name in ("WAVELENGTH", "FLUX", "ERROR"))
            if number in stars and wavelength.size:
                table = Table.read(truth / f"{spectrum_name(number)}.ecsv", format="ascii.ecsv")
                expected = np.interp(wavelength, table["wavelength"], table["flux"])
                weight = np.sum((expected / error) ** 2)
                ratio = np.sum(flux * expected / error**2) / weight
                continua.add_row((number, grism.name, ratio, 1 / np.sqrt(weight)))
            for line in lines[lines["id"] == number]:
                at = float(line["wavelength"])
                if not blue < at < red:
                    continue
                place, width = _along(optics, grism, wavelength)
                middle, width_there = _along(optics, grism, np.array([at]))
                sigma = float(line["fwhm"]) / 2.3548 / width_there[0]
                measured = measure_line(place - middle, flux * width, error * width, optics.images.psf, sigma)
                if measured is None:
                    continue
                offset, total, uncertainty = measured
                # The truth is in W/m^2 and the fit in Jy um: F = integral of f_nu c / lambda^2.
                jansky_micron = float(line["flux"]) * at**2 / 2.99792458e-12
                # Seen from blue to red.
                offset *= np.sign(place[-1] - place[0]) * np.sign(wavelength[-1] - wavelength[0])
                found.add_row((number, grism.name, at, offset, total / jansky_micron, total / uncertainty))
    return found, continua


def _grism(optics: Slitless, header: Header) -> Grism:
    """The one that dispersed the light of a spectrum."""
    key = header["FILTER"], header.get("PUPIL", "")
    for behind, grism in zip(optics.spectra, optics.grisms, strict=True):
        if (behind.filter, behind.pupil) == key:
            return grism
    raise ValueError(f"{header.get('FILENAME')}: no synthetic program has spectra of {' '.join(key)}")


def _along(optics: Slitless, grism: Grism, wavelength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where wavelengths [um] fall along the dispersion in the middle of the detector [pixel], and um per pixel there."""
    area, step = optics.images.detector_area, 1e-3
    axis = 0 if grism.axis == "x" else 1
    at, after = (
        np.asarray(grism.position(1, 0.5 * area.xsize, 0.5 * area.ysize, waves)[axis])
        for waves in (wavelength, wavelength + step)
    )
    return at, np.abs(step / (after - at))


def measure_line(
    offset: np.ndarray, flux: np.ndarray, error: np.ndarray, psf: Sequence[tuple[float, float]], width: float
) -> tuple[float, float, float] | None:
    """Centre [spectral pixel], flux and its error of an emission line; None where there are too few points.

    A slitless line has the shape of its source along the dispersion: the point-spread function of the simulator, widened by
    a disk whose size is fitted with the line, on a sloped continuum. (A Gaussian leaves out the wings, and takes them for
    continuum: it finds 5 to 7 per cent too little.) All points weigh the same: errors follow the noise of the signal, and
    would prefer what is too low.

    Parameters
    ----------
    offset : (n,) float
        Of each point from where the line should be [spectral pixel].
    flux, error : (n,) float
        Of each point, per spectral pixel.
    psf
        Sum of Gaussians, (weight, sigma [pixel]).
    width
        Standard deviation of the line itself [spectral pixel].
    """
    window = LINE_WINDOW * psf[0][1] / PSF[0][1]
    near = np.isfinite(offset) & np.isfinite(flux) & (error > 0) & (np.abs(offset) < window)
    if near.sum() < 8:
        return None
    x, y, sigma = (np.asarray(array[near], float) for array in (offset, flux, error))
    weight = np.array([w * v for w, _ in psf for v, _ in EXPONENTIAL])
    points = np.array([s**2 for _, s in psf for _ in EXPONENTIAL]) + width**2
    disk = np.array([v for _ in psf for _, v in EXPONENTIAL])

    def model(x, area, centre, radius, level, slope):
        scale = np.sqrt(2 * (points + disk * radius**2))
        away = x[:, None] - centre
        shape = 0.5 * (erf((away + 0.5) / scale) - erf((away - 0.5) / scale))
        return area * (shape @ weight) + level + slope * x

    level = np.median(y)
    start = (4 * max((y - level).max(), 1e-15), 0.0, 1.0, level, 0.0)
    low, high = (-np.inf, -window, 0.0, -np.inf, -np.inf), (np.inf, window, 6.0, np.inf, np.inf)
    typical = np.full(x.size, np.sqrt(np.mean(sigma**2)))
    try:
        best, covariance = curve_fit(
            model, x, y, start, typical, absolute_sigma=True, bounds=(low, high), x_scale="jac"
        )
    except RuntimeError:  # the fit does not converge: there is no line to measure
        return None
    return float(best[1]), float(best[0]), float(np.sqrt(covariance[0, 0]))
