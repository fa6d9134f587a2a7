"""The source catalog of a mosaic: one row per source, with the columns of the archive's catalogs.

The grism pipelines read it: they take the position, the corners of the box on the sky, the isophotal magnitude and
whether the source is extended.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from gwcs import WCS
from photutils.segmentation import SegmentationImage, SourceCatalog

from calibration.sources.detect import Segments
from calibration.sources.photometry import (
    Apertures,
    ab_magnitudes,
    circle_fluxes,
    nearest_neighbours,
    ring_background,
    star_statistics,
)


@dataclass(frozen=True)
class Plane:
    """An image to measure.

    ``data``, ``err`` and ``background`` (ny, nx) are in Jy per pixel; ``mask`` tells the pixels without data; position
    angles are given where north is at the pixel ``reference`` (x, y), zero-based.
    """

    data: np.ndarray
    err: np.ndarray
    background: np.ndarray
    mask: np.ndarray
    wcs: WCS
    reference: tuple[float, float]


def measure_sources(
    plane: Plane,
    segments: SegmentationImage | None,
    smoothed: np.ndarray,
    apertures: Apertures,
    vega_offset: float,
    fwhm: float,
    star_thresholds: tuple[float, float],
    options: Mapping[str, Any],
) -> QTable:
    """Measure every source.

    Parameters
    ----------
    plane : Plane
    segments : SegmentationImage or None
        Which source each pixel belongs to; None if there is none.
    smoothed : (ny, nx)
        The image in which they were found.
    apertures : Apertures
    vega_offset : float
        AB less Vega magnitude [mag].
    fwhm : float
        Width of a point source [pixel].
    star_thresholds : (float, float)
        A source is extended if the light in the second over that in the first circle, and in the third over the second,
        are greater than these.
    options : mapping
        ``local_bkg_width``, ``aperture_mask_method``, ``kron_params`` of photutils' SourceCatalog.

    Returns
    -------
    QTable
        Of length 0, with all columns, if there is no source.
    """
    found = _isophotes(plane, segments, smoothed, options)
    label, x, y = found["label"], found["x"], found["y"]
    sky, sky_err = ring_background(plane.data, x, y, apertures.sky_inner, apertures.sky_outer)
    flux, flux_err = circle_fluxes(plane.data, plane.err, x, y, apertures.radii, sky)
    total, total_err = apertures.corrections[-1] * flux[-1], apertures.corrections[-1] * flux_err[-1]

    names = [f"aper{energy}" for energy in apertures.energies] + ["aper_total"]
    where = [f"within the {energy}% encircled energy circular aperture" for energy in apertures.energies]
    largest = f"based on the {apertures.energies[-1]}% encircled energy circular aperture; only for unresolved sources"
    light = list(zip(names, [*flux, total], [*flux_err, total_err], [*where, largest], strict=True))
    magnitudes = [ab_magnitudes(value, error) for _, value, error, _ in light]
    isophotal, isophotal_err = ab_magnitudes(found["flux"], found["flux_err"])

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
    add("aper_bkg_flux", sky, "Sigma-clipped median background per pixel around the source", ".6e", units.Jy)
    add("aper_bkg_flux_err", sky_err, "Standard error of that background", ".6e", units.Jy)
    for name, value, error, text in light:
        add(f"{name}_flux", value, f"Flux {text}", ".6e", units.Jy)
        add(f"{name}_flux_err", error, f"Flux error {text}", ".6e", units.Jy)
    for system, offset in (("AB", 0.0), ("Vega", vega_offset)):
        for (name, _, _, text), (magnitude, error) in zip(light, magnitudes, strict=True):
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
    extended = (indices[0] > star_thresholds[0]) & (indices[1] > star_thresholds[1])
    sharpness, roundness = star_statistics(plane.data, x, y, fwhm)
    neighbour, distance = nearest_neighbours(x, y, label)
    add("is_extended", extended, "Flag indicating whether the source is extended")
    add("sharpness", sharpness, "The DAOFind source sharpness statistic", ".6f")
    add("roundness", roundness, "The DAOFind source roundness statistic", ".6f")
    add("nn_label", neighbour, "The label number of the nearest neighbor; -1 if there is none")
    add("nn_dist", distance, "The distance in pixels to the nearest neighbor", ".6f", units.pix)
    add("isophotal_flux", found["flux"], "Isophotal flux", ".6e", units.Jy)
    add("isophotal_flux_err", found["flux_err"], "Isophotal flux error", ".6e", units.Jy)
    for system, offset in (("AB", 0.0), ("Vega", vega_offset)):
        add(f"isophotal_{system.lower()}mag", isophotal - offset, f"Isophotal {system} magnitude", ".6f")
        add(f"isophotal_{system.lower()}mag_err", isophotal_err, f"Isophotal {system} magnitude error", ".6f")
    add("isophotal_area", found["area"], "Isophotal area", None, units.pix**2)
    add("semimajor_sigma", found["major"], "1-sigma length along the major axis", ".6f", units.pix)
    add("semiminor_sigma", found["minor"], "1-sigma length along the minor axis", ".6f", units.pix)
    add("ellipticity", found["ellipticity"], "1 - minor / major axis", ".6f", units.dimensionless_unscaled)
    add("orientation", found["orientation"], "Angle from the x-axis to the major axis", ".6f", units.deg)
    add(
        "sky_orientation",
        _on_sky(plane, found["orientation"]),
        "Position angle of the major axis",
        ".6f",
        units.deg,
    )
    corners = {"ll": ("x0", "y0"), "ul": ("x0", "y1"), "lr": ("x1", "y0"), "ur": ("x1", "y1")}
    for name, (at_x, at_y) in corners.items():
        text = f"{'lower' if name[0] == 'l' else 'upper'}-{'left' if name[1] == 'l' else 'right'}"
        sky_corner = _to_sky(plane.wcs, found[at_x], found[at_y])
        add(f"sky_bbox_{name}", sky_corner, f"Sky coordinate of the {text} corner of the bounding box of the source")
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
    if segments.map is None:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    sources = SourceCatalog(data, segments.map, convolved_data=segments.smoothed, mask=mask)
    values = (sources.x_centroid, sources.y_centroid, sources.segment_flux)
    x, y, flux = (np.atleast_1d(np.asarray(value, float)) for value in values)
    return x, y, flux


def _isophotes(
    plane: Plane, segments: SegmentationImage | None, smoothed: np.ndarray, options: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    if segments is None:
        names = "x y flux flux_err area major minor ellipticity orientation x0 x1 y0 y1".split()
        return {"label": np.zeros(0, np.int32), **{name: np.zeros(0) for name in names}}
    sources = SourceCatalog(
        plane.data - plane.background,
        segments,
        convolved_data=smoothed,
        error=plane.err,
        mask=plane.mask,
        **options,
    )

    def plain(value: Any) -> np.ndarray:
        return np.atleast_1d(np.asarray(getattr(value, "value", value), float))

    return {
        "label": np.atleast_1d(sources.labels).astype(np.int32),
        "x": plain(sources.x_centroid),
        "y": plain(sources.y_centroid),
        "flux": plain(sources.segment_flux),
        "flux_err": plain(sources.segment_flux_err),
        "area": plain(sources.area),
        "major": plain(sources.semimajor_axis),
        "minor": plain(sources.semiminor_axis),
        "ellipticity": plain(sources.ellipticity),
        "orientation": plain(sources.orientation),
        "x0": plain(sources.bbox_xmin) - 0.5,
        # As in the archive's catalogs, the box reaches one pixel beyond the last one of the source.
        "x1": plain(sources.bbox_xmax) + 1.5,
        "y0": plain(sources.bbox_ymin) - 0.5,
        "y1": plain(sources.bbox_ymax) + 1.5,
    }


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
