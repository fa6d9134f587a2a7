"""How much of the truth came back from a calibrated imaging program: stars, their fluxes, the alignment, skies, particles."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from scipy.ndimage import binary_dilation

from calibration import dq
from infra.products.catalog import read_catalog
from infra.products.image import Image, read_image
from infra.products.names import rename
from infra.synthetic.compare import MATCH_RADIUS, signal_to_noise

BRIGHT = 100.0  # [sigma], stars whose positions and fluxes are compared
OUTLYING = 5.0  # [sigma], what a particle must have left to be looked for
SEEN = 3  # exposures that must see a place, so that their median is right where one of them was hit

_BAD, _OUTLIER = np.uint32(dq.PIXEL["DO_NOT_USE"]), np.uint32(dq.PIXEL["OUTLIER"])


@dataclass(frozen=True)
class ImagingComparison:
    """The figures of one program; angles are rms in each axis on the sky [mas].

    Attributes
    ----------
    bright, found : int
        Stars that are brighter than ``BRIGHT`` sigma on the mosaic, and those of the catalog.
    shift : float
        What all stars are off by together: no image tells the mean error of the pointings.
    positions : float
        Of the stars found, without that shift.
    total, isophotal : float
        Median ratio of the catalog's fluxes to the true ones.
    exposures : int
        Exposures that were compared.
    injected, aligned : float
        Errors of the pointings about their mean, and what is left of them in the WCS of the ``_crf``.
    sky : float
        Standard deviation of what the levels of the exposures differ by after skymatch, in sigma of one pixel of an exposure.
    hits, removed : int
        Usable pixels that particles left more than ``OUTLYING`` sigma too bright, where ``SEEN`` exposures or more see the
        same place, and those that are flagged.
    lost : float
        Part of the pixels that are flagged as outliers, of those where no particle hit them or a neighbour, and no star passed.
    """

    bright: int
    found: int
    shift: float
    positions: float
    total: float
    isophotal: float
    exposures: int
    injected: float
    aligned: float
    sky: float
    hits: int
    removed: int
    lost: float


def compare_imaging(products: str | Path, truth: str | Path) -> ImagingComparison:
    """Compare the mosaic, its catalog and the exposures in ``products`` with the truth of an imaging program."""
    products, truth = Path(products), Path(truth)
    (catalog_path,) = products.glob("*_cat.ecsv")
    mosaic = read_image(products / rename(catalog_path.name, "i2d"))
    sources = Table.read(truth / "sources.ecsv", format="ascii.ecsv")
    planned = Table.read(truth / "exposures.ecsv", format="ascii.ecsv")
    paths = {str(row["exposure"]): path for row in planned for path in products.glob(f"{row['exposure']}_*crf.fits")}
    exposures = {root: read_image(path) for root, path in paths.items()}
    return ImagingComparison(
        **_compare_stars(mosaic, read_catalog(catalog_path).table, sources),
        **_compare_pointings(exposures, planned, sources, truth),
        **_compare_pixels(exposures, products, truth),
    )


def _compare_stars(mosaic: Image, catalog: Table, sources: Table) -> dict[str, Any]:
    on_sky = SkyCoord(sources["ra"], sources["dec"])
    x, y = mosaic.wcs.invert(on_sky.ra.deg, on_sky.dec.deg, with_bounding_box=False)
    star = np.array([kind == "star" for kind in sources["kind"]])
    bright = np.flatnonzero(star & (signal_to_noise(mosaic, x, y, np.asarray(sources["flux"])) > BRIGHT))
    figures: dict[str, Any] = {"bright": bright.size, "found": 0}
    figures |= dict.fromkeys(("shift", "positions", "total", "isophotal"), np.nan)
    if not bright.size or not len(catalog):
        return figures
    nearest, distance, _ = on_sky[bright].match_to_catalog_sky(SkyCoord(catalog["sky_centroid"]))
    hit = distance < MATCH_RADIUS
    if not hit.any():
        return figures
    rows = catalog[nearest[hit]]
    there = SkyCoord(rows["sky_centroid"])
    offsets = np.array([angle.to_value(u.mas) for angle in on_sky[bright[hit]].spherical_offsets_to(there)])
    mean = np.median(offsets, axis=1)
    true = np.asarray(sources["flux"])[bright[hit]]
    return {
        "bright": bright.size,
        "found": int(hit.sum()),
        "shift": float(np.hypot(*mean)),
        "positions": float(np.sqrt(np.mean((offsets - mean[:, None]) ** 2))),
        "total": float(np.nanmedian(np.asarray(rows["aper_total_flux"]) / true)),
        "isophotal": float(np.nanmedian(np.asarray(rows["isophotal_flux"]) / true)),
    }


def _compare_pointings(exposures: dict[str, Image], planned: Table, sources: Table, truth: Path) -> dict[str, Any]:
    on_sky = {int(row["id"]): (float(row["ra"]), float(row["dec"])) for row in sources}
    offsets, errors = [], []
    for row in planned:
        image = exposures.get(str(row["exposure"]))
        if image is None:
            continue
        at = Table.read(truth / f"{row['exposure']}_positions.ecsv", format="ascii.ecsv")
        at = at[at["inside"]]
        if not len(at):
            continue
        there = SkyCoord(*image.wcs(at["x"], at["y"], with_bounding_box=False), unit=u.deg)
        true = SkyCoord(np.array([on_sky[int(number)] for number in at["id"]]), unit=u.deg)
        offsets.append([np.mean(angle.to_value(u.mas)) for angle in true.spherical_offsets_to(there)])
        errors.append([float(row["v2_error"]), float(row["v3_error"])])

    def scatter(values: list[Any]) -> float:
        about = np.array(values).reshape(-1, 2)
        return float(np.sqrt(np.mean((about - about.mean(axis=0)) ** 2))) if len(about) else np.nan

    return {"exposures": len(offsets), "injected": scatter(errors), "aligned": scatter(offsets)}


def _compare_pixels(exposures: dict[str, Image], products: Path, truth: Path) -> dict[str, Any]:
    levels, noises, lost, pixels = [], [], 0, 0
    hits = removed = 0
    for root, image in exposures.items():
        # Outliers have no values any more in the file that says which they are.
        before = read_image(products / f"{root}_cal.fits")
        with fits.open(truth / f"{root}_truth.fits") as hdulist:
            surface, struck = hdulist["SURFACE"].data, hdulist["HITS"].data
        flagged = (image.dq & _OUTLIER) != 0
        usable = ((before.dq & _BAD) == 0) & np.isfinite(before.data)
        deviation = before.data - surface
        level = float(np.median(deviation[usable & ~flagged]))
        sky = surface < np.median(surface) * 1.05
        noise = float(np.median(before.err[usable & sky]))
        # What skymatch finds is told, and subtracted on request only.
        empty = usable & ~flagged & sky
        left = 0.0 if image.header.get("BKGSUB") else image.header.get("BKGLEVEL") or 0.0
        levels.append(float(np.median(image.data[empty])) - left)
        noises.append(noise)
        hit = np.zeros(surface.shape, bool)
        hit[struck["y"], struck["x"]] = True
        outlying = hit & usable & (deviation - level > OUTLYING * before.err)
        y, x = np.nonzero(outlying)
        compared = _seen_by(image, list(exposures.values()), x, y) >= SEEN
        hits += int(compared.sum())
        removed += int((flagged[y, x] & compared).sum())
        # Stars that pass behind a target are outliers, too.
        good = ~binary_dilation(hit, np.ones((3, 3), bool)) & (sky | (image.header.get("TARGTYPE") != "MOVING"))
        lost += int((flagged & good).sum())
        pixels += int((usable & good).sum())
    return {
        "sky": float(np.std(levels) / np.median(noises)) if levels else np.nan,
        "hits": hits,
        "removed": removed,
        "lost": lost / pixels if pixels else np.nan,
    }


def _seen_by(image: Image, others: Sequence[Image], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How many exposures, itself included, see the pixels ``x``, ``y`` of an image."""
    count = np.zeros(x.size, int)
    if not x.size:
        return count
    ra, dec = image.wcs(x, y, with_bounding_box=False)
    for other in others:
        ny, nx = other.data.shape
        column, row = other.wcs.invert(ra, dec, with_bounding_box=False)
        column, row = (
            np.rint(np.nan_to_num(column, nan=-1)).astype(int),
            np.rint(np.nan_to_num(row, nan=-1)).astype(int),
        )
        inside = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
        flags = other.dq[row.clip(0, ny - 1), column.clip(0, nx - 1)]
        count += inside & (((flags & _BAD) == 0) | ((flags & _OUTLIER) != 0))
    return count
