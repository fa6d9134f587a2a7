"""The source catalog of a mosaic: one row per source, with the columns of the archive's catalogs.

The grism pipelines read it: they take the position, the corners of the box on the sky, the isophotal magnitude and
whether the source is extended.

The columns of the official catalogs stay as they are, with what they leave out: the isophote ends at the threshold and lacks
the wings (of stars with the wings of a Moffat profile of power 2.5 it lacks 1 % where they are bright, 5 % where they are
faint), and a circle holds the light of neighbours. After them come ours: the light in the ellipse of Kron, and
``total_flux``, the light of the source as if it were alone: of a point source the largest circle, neighbours replaced by the
opposite side, corrected for what is outside (within 1 % of what was put in, if the APCORR reference is that of the mosaic's
pixels); of an extended one the ellipse of Kron, which lacks up to 4 % of an exponential disk.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from gwcs import WCS
from photutils.segmentation import SegmentationImage, SourceCatalog

from calibration.jit import kernel
from calibration.sources.detect import Segments
from calibration.sources.isophotes import Isophotes, measure_circles, measure_isophotes, measure_kron
from calibration.sources.photometry import (
    Apertures,
    ab_magnitudes,
    circle_fluxes,
    nearest_neighbours,
    ring_background,
    star_statistics,
)

#: Bits of the column ``flags``.
BLENDED, INCOMPLETE, CROWDED = 1, 2, 4
FLAGS = (
    "1: told apart from sources that it touches; 2: next to pixels without data or the edge; "
    "4: another source in the largest aperture"
)


@dataclass(frozen=True)
class Plane:
    """An image to measure.

    ``data``, ``err`` (ny, nx) are surface brightness, ``signal`` is the data less the background of the whole image, and
    ``jansky`` the flux of a pixel of unit brightness [Jy]; ``mask`` tells the pixels without data; position angles are
    given where north is at the pixel ``reference`` (x, y), zero-based.
    """

    data: np.ndarray
    err: np.ndarray
    signal: np.ndarray
    mask: np.ndarray
    wcs: WCS
    reference: tuple[float, float]
    jansky: float


@dataclass(frozen=True)
class Light:
    """How the light of a source is measured.

    Attributes
    ----------
    star_thresholds : (float, float)
        A source is extended if the light in the second over that in the first circle, and in the third over the second,
        are greater than these.
    fwhm : float
        Width of a point source [pixel].
    neighbours : "correct", "mask" or "none"
        How pixels of other sources count in the ellipse of Kron.
    kron_params : (float, float, float)
        The multiple of the radius of Kron; its least value in semi-axes; the least radius [pixel].
    sky_width : int
        Width of a ring for the background that is left under a source [pixel]; 0 for none.
    """

    star_thresholds: tuple[float, float]
    fwhm: float
    neighbours: str = "correct"
    kron_params: tuple[float, float, float] = (2.5, 1.4, 0.0)
    sky_width: int = 0


def measure_sources(plane: Plane, segments: Segments, apertures: Apertures, vega_offset: float, light: Light) -> QTable:
    """Measure every source.

    Parameters
    ----------
    plane : Plane
    segments : Segments
        Which source each pixel belongs to.
    apertures : Apertures
    vega_offset : float
        AB less Vega magnitude [mag].
    light : Light

    Returns
    -------
    QTable
        The columns of the official catalogs, then ours; of length 0, with all columns, if there is no source.
    """
    found = measure_isophotes(plane.signal, plane.err, segments.smoothed, segments.labels, segments.count, plane.mask)
    jansky = plane.jansky
    label, x, y = np.arange(1, segments.count + 1, dtype=np.int32), found.x, found.y
    rest = _local_sky(plane, segments, light)
    sky, sky_err = ring_background(plane.data, x, y, apertures.sky_inner, apertures.sky_outer)
    flux, flux_err = (jansky * one for one in circle_fluxes(plane.data, plane.err, x, y, apertures.radii, sky))
    total, total_err = apertures.corrections[-1] * flux[-1], apertures.corrections[-1] * flux_err[-1]
    isophote, isophote_err = jansky * (found.flux - found.area * rest), jansky * found.flux_err
    kron = measure_kron(
        plane.signal, plane.err, segments.labels, plane.mask, found, light.kron_params, light.neighbours, rest
    )

    names = [f"aper{energy}" for energy in apertures.energies] + ["aper_total"]
    where = [f"within the {energy}% encircled energy circular aperture" for energy in apertures.energies]
    largest = f"based on the {apertures.energies[-1]}% encircled energy circular aperture; only for unresolved sources"
    measured = list(zip(names, [*flux, total], [*flux_err, total_err], [*where, largest], strict=True))
    magnitudes = [ab_magnitudes(value, error) for _, value, error, _ in measured]
    isophotal, isophotal_err = ab_magnitudes(isophote, isophote_err)

    table = QTable()

    def add(name: str, value: Any, description: str, form: str | None = None, unit: Any = None) -> None:
        table[name] = value if unit is None else units.Quantity(value, unit)
        table[name].info.description = description
        if form is not None:
            table[name].info.format = form

    add("label", label, "Unique source identification label number")
    add("xcentroid", x, "X pixel value of the source centroid (0 indexed)", ".4f")
    add("ycentroid", y, "Y pixel value of the source centroid (0 indexed)", ".4f")
    add("sky_centroid", _to_sky(plane.wcs, x, y), "ICRS Sky coordinate of the source centroid")
    add("aper_bkg_flux", jansky * sky, "Sigma-clipped median background per pixel around the source", ".6e", units.Jy)
    add("aper_bkg_flux_err", jansky * sky_err, "Standard error of that background", ".6e", units.Jy)
    for name, value, error, text in measured:
        add(f"{name}_flux", value, f"Flux {text}", ".6e", units.Jy)
        add(f"{name}_flux_err", error, f"Flux error {text}", ".6e", units.Jy)
    for system, offset in (("AB", 0.0), ("Vega", vega_offset)):
        for (name, _, _, text), (magnitude, error) in zip(measured, magnitudes, strict=True):
            column = f"{name}_{system.lower()}mag"
            add(column, magnitude - offset, f"{system} magnitude {text}", ".6f")
            add(f"{column}_err", error, f"{system} magnitude error {text}", ".6f")
    indices = []
    for low, high in ((0, 1), (1, 2), (0, 2)):
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = flux[high] / flux[low]
        indices.append(ratio)
        first, second = apertures.energies[low], apertures.energies[high]
        add(f"CI_{second}_{first}", ratio, f"Concentration: aper{second}_flux / aper{first}_flux", ".4f")
    extended = (indices[0] > light.star_thresholds[0]) & (indices[1] > light.star_thresholds[1])
    sharpness, roundness = star_statistics(plane.data, x, y, light.fwhm)
    neighbour, distance = nearest_neighbours(x, y, label)
    add("is_extended", extended, "Flag indicating whether the source is extended")
    add("sharpness", sharpness, "The DAOFind source sharpness statistic", ".6f")
    add("roundness", roundness, "The DAOFind source roundness statistic", ".6f")
    add("nn_label", neighbour, "The label number of the nearest neighbor; -1 if there is none")
    add("nn_dist", distance, "The distance in pixels to the nearest neighbor", ".6f", units.pix)
    add("isophotal_flux", isophote, "Isophotal flux", ".6e", units.Jy)
    add("isophotal_flux_err", isophote_err, "Isophotal flux error", ".6e", units.Jy)
    for system, offset in (("AB", 0.0), ("Vega", vega_offset)):
        add(f"isophotal_{system.lower()}mag", isophotal - offset, f"Isophotal {system} magnitude", ".6f")
        add(f"isophotal_{system.lower()}mag_err", isophotal_err, f"Isophotal {system} magnitude error", ".6f")
    orientation = np.degrees(found.orientation) % 360
    add("isophotal_area", found.area.astype(float), "Isophotal area", None, units.pix**2)
    add("semimajor_sigma", found.major, "1-sigma length along the major axis", ".6f", units.pix)
    add("semiminor_sigma", found.minor, "1-sigma length along the minor axis", ".6f", units.pix)
    add("ellipticity", 1 - found.minor / found.major, "1 - minor / major axis", ".6f", units.dimensionless_unscaled)
    add("orientation", orientation, "Angle from the x-axis to the major axis", ".6f", units.deg)
    add(
        "sky_orientation",
        _on_sky(plane, orientation),
        "Position angle of the major axis",
        ".6f",
        units.deg,
    )
    # As in the archive's catalogs, the box reaches one pixel beyond the last one of the source.
    corners = {"ll": (found.x0, found.y0), "ul": (found.x0, found.y1 + 2)}
    corners |= {"lr": (found.x1 + 2, found.y0), "ur": (found.x1 + 2, found.y1 + 2)}
    for name, (at_x, at_y) in corners.items():
        text = f"{'lower' if name[0] == 'l' else 'upper'}-{'left' if name[1] == 'l' else 'right'}"
        corner = _to_sky(plane.wcs, at_x - 0.5, at_y - 0.5)
        add(f"sky_bbox_{name}", corner, f"Sky coordinate of the {text} corner of the bounding box of the source")
    alone = ring_background(plane.signal, x, y, apertures.sky_inner, apertures.sky_outer, segments.labels)[0]
    alone = np.nan_to_num(alone)
    star = measure_circles(plane.signal, plane.err, segments.labels, plane.mask, x, y, apertures.radii[-1], alone)
    whole = [
        jansky * np.where(extended, one, apertures.corrections[-1] * other)
        for one, other in zip((kron.flux, kron.flux_err), star, strict=True)
    ]
    texts = {
        "kron": ("in the Kron ellipse", [jansky * kron.flux, jansky * kron.flux_err]),
        "total": ("of all light without the neighbours: largest aperture corrected, Kron ellipse if extended", whole),
    }
    for name, (text, (value, error)) in texts.items():
        add(f"{name}_flux", value, f"Flux {text}", ".6e", units.Jy)
        add(f"{name}_flux_err", error, f"Flux error {text}", ".6e", units.Jy)
        magnitude, error = ab_magnitudes(value, error)
        for system, offset in (("AB", 0.0), ("Vega", vega_offset)):
            add(f"{name}_{system.lower()}mag", magnitude - offset, f"{system} magnitude {text}", ".6f")
            add(f"{name}_{system.lower()}mag_err", error, f"{system} magnitude error {text}", ".6f")
    add("kron_radius", kron.radius, "Semi-major axis of the Kron ellipse", ".4f", units.pix)
    add("flags", _flags(plane, segments, found, apertures.radii[-1]), FLAGS)
    table.meta["aperture_params"] = {
        "aperture_ee": [int(energy) for energy in apertures.energies],
        "aperture_radii": [float(radius) for radius in apertures.radii],
        "aperture_corrections": [float(correction) for correction in apertures.corrections],
        "bkg_aperture_inner_radius": float(apertures.sky_inner),
        "bkg_aperture_outer_radius": float(apertures.sky_outer),
    }
    table.meta["abvega_offset"] = float(vega_offset)
    return table


def segment_positions(
    data: np.ndarray, segments: Segments, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centroids x, y [zero-based pixel] and summed flux of the sources of a background-subtracted image."""
    found = measure_isophotes(data, None, segments.smoothed, segments.labels, segments.count, mask)
    return found.x, found.y, found.flux


def _local_sky(plane: Plane, segments: Segments, light: Light) -> np.ndarray:
    """(nsources,) background per pixel in a ring of boxes around each source."""
    if light.sky_width == 0 or segments.count == 0:
        return np.zeros(segments.count)
    around = SourceCatalog(
        plane.signal, SegmentationImage(segments.labels), mask=plane.mask, local_bkg_width=light.sky_width
    )
    return np.atleast_1d(around.local_background)


def _flags(plane: Plane, segments: Segments, found: Isophotes, radius: float) -> np.ndarray:
    flags = np.where(segments.parts > 1, BLENDED, 0).astype(np.int32)
    _flag(segments.labels, plane.data, plane.mask, found.x, found.y, radius, flags)
    return flags


# s = source, j, y = row, i, x = column
@kernel
def _flag(labels, data, mask, x, y, radius, flags):
    ny, nx = labels.shape
    for j in range(ny):
        for i in range(nx):
            s = labels[j, i] - 1
            if s < 0:
                continue
            if j == 0 or i == 0 or j == ny - 1 or i == nx - 1:
                flags[s] |= INCOMPLETE
                continue
            for v in range(j - 1, j + 2):
                for u in range(i - 1, i + 2):
                    if mask[v, u] or not np.isfinite(data[v, u]):
                        flags[s] |= INCOMPLETE
    for s in range(len(x)):
        if not (np.isfinite(x[s]) and np.isfinite(y[s])):
            continue
        for j in range(max(0, int(np.ceil(y[s] - radius))), min(ny, int(y[s] + radius) + 1)):
            for i in range(max(0, int(np.ceil(x[s] - radius))), min(nx, int(x[s] + radius) + 1)):
                near = (i - x[s]) ** 2 + (j - y[s]) ** 2 <= radius * radius
                if near and labels[j, i] != 0 and labels[j, i] != s + 1:
                    flags[s] |= CROWDED


def _to_sky(wcs: WCS, x: np.ndarray, y: np.ndarray) -> SkyCoord:
    ra, dec = wcs(x, y, with_bounding_box=False) if len(x) else (np.zeros(0), np.zeros(0))
    return SkyCoord(ra, dec, unit="deg")


def _on_sky(plane: Plane, orientation: np.ndarray) -> np.ndarray:
    """Position angles [deg] of directions in the image, by where north is at its reference pixel."""
    x, y = plane.reference
    ra, dec = plane.wcs(x, y, with_bounding_box=False)
    north_x, north_y = plane.wcs.invert(ra, dec + 1 / 3600, with_bounding_box=False)
    north = np.degrees(np.arctan2(north_y - y, north_x - x))
    return (180 - north + orientation) % 360
