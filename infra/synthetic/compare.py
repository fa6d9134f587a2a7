"""How much of the truth came back: sources found, positions, emission lines of a calibrated synthetic program."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from scipy.optimize import curve_fit
from scipy.spatial import KDTree
from scipy.special import erf

from calibration.simulate.scene import EXPONENTIAL, PSF
from infra.products.catalog import read_catalog
from infra.products.image import Image, read_image
from infra.products.names import rename
from infra.products.spectrum import read_spectra

SPECTRAL_PIXEL = 0.0047  # [um], NIRISS grisms in first order
PASSBAND = (1.78, 2.22)  # [um], where F200W lets enough through for a line to be measured
MATCH_RADIUS = 0.15 * u.arcsec
APERTURE = 3.0  # [pixel], radius within which the noise of a source is counted
EMPTY = 20.0  # [pixel] from the next source, where a piece of sky is empty
LINE_WINDOW = 0.033  # [um] on either side of a line
LINE_WIDTH = 1.5e-3 / 2.3548  # [um], standard deviation of the simulated lines


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
        One row per line and grism: source, filter, wavelength [um], offset [spectral pixel], flux ratio, snr.
    """

    expected: int
    found: int
    missing: tuple[int, ...]
    position_rms: float
    position_worst: float
    lines: Table


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
    return Comparison(
        expected=len(wanted),
        found=len(hit),
        missing=tuple(int(sources["id"][i]) for i in sorted(set(wanted) - set(hit))),
        position_rms=float(np.sqrt(np.mean(offset**2))) if len(hit) else np.nan,
        position_worst=float(np.abs(offset).max()) if len(hit) else np.nan,
        lines=_compare_lines(products, truth, labels),
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


def _compare_lines(products: Path, truth: Path, labels: dict[int, int]) -> Table:
    names = ("source", "filter", "wavelength", "offset", "flux_ratio", "snr")
    table = Table(names=names, dtype=(int, "U8", float, float, float, float))
    lines = Table.read(truth / "lines.ecsv", format="ascii.ecsv")
    for path in sorted(products.glob("*_c1d.fits")):
        spectra = read_spectra(path)
        rows = {
            int(row["SOURCE_ID"]): row for each in spectra.tables if each.cards.get("SPORDER") == 1 for row in each.rows
        }
        for line in lines:
            row = rows.get(labels.get(int(line["id"]), -1))
            wavelength = float(line["wavelength"])
            if row is None or not PASSBAND[0] < wavelength < PASSBAND[1]:
                continue
            measured = measure_line(row["WAVELENGTH"], row["FLUX"], row["ERROR"], wavelength)
            if measured is None:
                continue
            centre, flux, error = measured
            # The truth is in W/m^2 and the fit in Jy um: F = integral of f_nu c / lambda^2.
            jansky_micron = float(line["flux"]) * wavelength**2 / 2.99792458e-12
            table.add_row(
                (
                    line["id"],
                    spectra.header["FILTER"],
                    wavelength,
                    (centre - wavelength) / SPECTRAL_PIXEL,
                    flux / jansky_micron,
                    flux / error,
                )
            )
    return table


def measure_line(
    wavelength: np.ndarray, flux: np.ndarray, error: np.ndarray, expected: float
) -> tuple[float, float, float] | None:
    """Centre [um], flux and its error [Jy um] of an emission line; None where there are too few points.

    A slitless line has the shape of its source along the dispersion: the point-spread function of the simulator, widened by
    a disk whose size is fitted with the line, on a sloped continuum. (A Gaussian leaves out the wings, and takes them for
    continuum: it finds 5 to 7 per cent too little.) All points weigh the same: errors follow the noise of the signal, and
    would prefer what is too low.
    """
    near = np.isfinite(wavelength) & np.isfinite(flux) & (error > 0) & (np.abs(wavelength - expected) < LINE_WINDOW)
    if near.sum() < 8:
        return None
    x, y, sigma = (np.asarray(array[near], float) for array in (wavelength, flux, error))
    weight = np.array([w * v for w, _ in PSF for v, _ in EXPONENTIAL])
    psf = np.array([s**2 for _, s in PSF for _ in EXPONENTIAL]) * SPECTRAL_PIXEL**2
    disk = np.array([v for _ in PSF for _, v in EXPONENTIAL]) * SPECTRAL_PIXEL**2
    half = 0.5 * SPECTRAL_PIXEL

    def model(x, area, centre, radius, level, slope):
        scale = np.sqrt(2 * (psf + disk * radius**2 + LINE_WIDTH**2))
        offset = x[:, None] - centre
        shape = (erf((offset + half) / scale) - erf((offset - half) / scale)) / (4 * half)
        return area * (shape @ weight) + level + slope * (x - expected)

    level = np.median(y)
    start = (max((y - level).max(), 1e-12) * 0.02, expected, 1.0, level, 0.0)
    low = (-np.inf, expected - LINE_WINDOW, 0.0, -np.inf, -np.inf)
    high = (np.inf, expected + LINE_WINDOW, 6.0, np.inf, np.inf)
    typical = np.full(x.size, np.sqrt(np.mean(sigma**2)))
    try:
        best, covariance = curve_fit(
            model, x, y, start, typical, absolute_sigma=True, bounds=(low, high), x_scale="jac"
        )
    except RuntimeError:  # the fit does not converge: there is no line to measure
        return None
    return float(best[1]), float(best[0]), float(np.sqrt(covariance[0, 0]))
