"""The field of a grism exposure: what its sources are, where they are in the direct image, and whether these agree.

Not a step, but what the slitless steps stand on. A catalog of image3 has all that they need, and is only held against its
segmentation map; what a list of the user's lacks (pixels, boxes, magnitudes, sizes) comes from the direct image.
"""

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calibration.wcs.mosaic import pixel_scale
from infra.products.catalog import Catalog
from infra.products.header import Header, ProductError
from infra.products.image import Image, Segmentation
from infra.products.user_catalog import Listed, listed

log = logging.getLogger(__name__)

#: A catalog that lies so far from the light of the direct image is of no use [arcsec]; so far, worth a warning.
TOO_FAR, NOTABLE = 1.0, 0.1
#: Half the side of the box of a source that has no light in the direct image [arcsec].
HALF_BOX = 0.35
#: How far from the direct image a source may be for its spectrum to reach the detector [arcsec].
FAR = 150.0
#: Offsets up to this are looked for [arcsec].
OFFSET_REACH = 15.0
#: Brightest sources of the direct image that the positions are compared with.
COMPARED = 500


@dataclass(frozen=True)
class Field:
    """What spec2 knows of a field; ``derived`` holds the names of what it made itself: suffix -> product."""

    catalog: Catalog
    direct: Image | None
    segmentation: Segmentation | None
    cards: dict[str, str]
    derived: dict[str, Any] = field(default_factory=dict)


def check_numbers(label: np.ndarray, segmentation: Segmentation, cards: dict[str, str]) -> None:
    """Say which sources of the catalog the segmentation map does not have, and which it has beyond them."""
    mapped = np.unique(segmentation.data[segmentation.data > 0])
    without = np.setdiff1d(label, mapped)
    if without.size:
        log.warning(
            "%s: source %s of %s has no pixel in it", cards.get("SEGMFILE"), listed(without), cards.get("SCATFILE")
        )
    more = np.setdiff1d(mapped, label)
    if more.size:
        log.warning(
            "%s: label %s has no row in %s; it is no source, but its light counts as that of a neighbour (wfss_contam)",
            cards.get("SEGMFILE"),
            listed(more),
            cards.get("SCATFILE"),
        )


def check_places(catalog: Catalog, direct: Image, segmentation: Segmentation, cards: dict[str, str]) -> None:
    """Where the catalog does not lie on its segments, find out how it lies on them."""
    table = catalog.table
    sky = table["sky_centroid"].icrs if len(table) else None
    if sky is None:
        return
    x, y = direct.wcs.invert(sky.ra.deg, sky.dec.deg, with_bounding_box=False)
    label, at = np.asarray(table["label"]), _labels_at(segmentation.data, x, y)
    if np.mean(at == label) > 0.5:
        return
    from calibration.sources.listed import measure_labels

    numbers = np.unique(segmentation.data[segmentation.data > 0]).astype(np.int64)
    boxes = measure_labels(direct.data, segmentation.data, numbers, np.zeros(0), np.zeros(0))
    centre_x, centre_y = (boxes.x0 + boxes.x1 - 1) / 2, (boxes.y0 + boxes.y1 - 1) / 2
    _require_places(direct.wcs, sky.ra.deg, sky.dec.deg, centre_x, centre_y, cards)
    _require_labels(label, at, cards)


def _require_labels(label: np.ndarray, at: np.ndarray, cards: dict[str, str]) -> None:
    """See that the sources stand on their own labels, ``at`` those that they stand on (0: none).

    Raises
    ------
    ProductError
        If most stand on those of others: the map is of another catalog.
    """
    other = np.flatnonzero((at > 0) & (at != label))
    if other.size and other.size > np.count_nonzero(at == label):
        k = other[0]
        raise ProductError(
            f"{cards['SEGMFILE']}: its labels are not the numbers of {cards['SCATFILE']}: source {label[k]} stands on label "
            f"{at[k]}, and {other.size - 1} more on others; give the map of this catalog, or none"
        )


def _labels_at(labels: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The label of the pixel at each position; 0 off the map."""
    column, row = (np.nan_to_num(np.round(at), nan=-1).astype(np.int64) for at in (x, y))
    inside = (row >= 0) & (row < labels.shape[0]) & (column >= 0) & (column < labels.shape[1])
    found = np.zeros(len(x), np.int64)
    found[inside] = labels[row[inside], column[inside]]
    return found


def _require_places(
    wcs: Any, ra: np.ndarray, dec: np.ndarray, x: np.ndarray, y: np.ndarray, cards: dict[str, str]
) -> None:
    """See that positions [deg] agree with the light at x, y [pixel] of the direct image.

    Raises
    ------
    ProductError
        If they agree with an offset of more than an arcsecond.
    """
    from calibration.sources.listed import systematic_offset

    if not ra.size or not x.size:
        return
    found_ra, found_dec = wcs(x[:COMPARED], y[:COMPARED], with_bounding_box=False)
    ra_0, dec_0 = float(np.median(found_ra)), float(np.median(found_dec))
    planes = [
        (3600 * ((a - ra_0 + 180) % 360 - 180) * np.cos(np.deg2rad(dec_0)), 3600 * (d - dec_0))
        for a, d in ((ra, dec), (found_ra, found_dec))
    ]
    offset = systematic_offset(*planes[0], *planes[1], reach=OFFSET_REACH)
    catalog, image = cards.get("SCATFILE"), cards.get("DIRIMAGE")
    if offset is None:
        log.warning("%s: its positions cannot be told to agree with the light of %s", catalog, image)
        return
    words = (
        f"{offset.east:+.2f} arcsec east and {offset.north:+.2f} arcsec north of the sources of {image} "
        f"({offset.matched} of {offset.possible} agree so, {offset.as_given} as they are)"
    )
    if offset.distance > TOO_FAR and offset.matched > offset.as_given:
        raise ProductError(
            f"{catalog}: its positions are {words}; correct the astrometry of the catalog, or of the image, so that they agree"
        )
    if offset.distance > NOTABLE:
        log.warning("%s: its positions are %s; wavelengths are off by as much", catalog, words)
    else:
        log.info("%s: its positions are %s", catalog, words)


def complete(
    sources: Listed, direct: Image | None, segmentation: Segmentation | None, cards: dict[str, str], segm_name: str
) -> Field:
    """A field of a catalog that has positions, and what it lacks from the direct image.

    Raises
    ------
    ProductError
        If the catalog does not lie on the direct image.
    """
    n = len(sources)
    name = sources.name
    if direct is None:
        log.warning("%s: there is no direct image; every source gets a box of %.2f arcsec", name, 2 * HALF_BOX)
        table = _table(sources, np.full(n, np.nan), np.full(n, np.nan), None, None, sources.abmag, None)
        catalog = Catalog(table)
        return Field(catalog, None, None, cards, {"cat": catalog})
    from calibration.sources.listed import measure_labels, segment_listed

    x, y = direct.wcs.invert(sources.ra, sources.dec, with_bounding_box=False) if n else (np.zeros(0), np.zeros(0))
    ny, nx = direct.data.shape
    beyond = np.maximum.reduce(
        [-0.5 - x, x - (nx - 0.5), -0.5 - y, y - (ny - 0.5)]
    )  # [pixel] off the image, where positive
    beyond[_behind(direct.wcs, (nx / 2, ny / 2), sources)] = np.inf
    inside = beyond <= 0
    if n and not inside.any():
        raise ProductError(
            f"{name}: none of its {n} sources is in the direct image {cards['DIRIMAGE']}; the catalog is of another field, or "
            "its positions are not in degrees"
        )
    scale = (
        3600 * pixel_scale(direct.wcs, *direct.wcs((nx - 1) / 2, (ny - 1) / 2, with_bounding_box=False)) if n else 1.0
    )
    near = beyond * scale < FAR
    if not near.all():
        log.info("%s: %d of its %d sources are near %s", name, near.sum(), n, cards["DIRIMAGE"])
        sources, x, y, beyond, inside = sources.select(near), x[near], y[near], beyond[near], inside[near]
        n = len(sources)
    if not inside.all():
        log.warning(
            "%s: source %s is outside of the direct image %s; it gets a box of %.2f arcsec",
            name,
            listed(sources.label[~inside]),
            cards["DIRIMAGE"],
            2 * HALF_BOX,
        )
    found = segment_listed(direct.data, x, y, sources.label)
    close = beyond * scale < OFFSET_REACH
    _require_places(direct.wcs, sources.ra[close], sources.dec[close], found.found_x, found.found_y, cards)
    derived: dict[str, Any] = {}
    if segmentation is None:
        cards = {**cards, "SEGMFILE": segm_name}
        header = direct.header.set(SCATFILE=cards["SCATFILE"])
        segmentation = Segmentation(header, found.labels, direct.wcs)
        derived["segm"] = segmentation
        if found.unlisted.size:
            log.info(
                "%s: %d more sources in %s, numbered from %d on: their light counts as that of neighbours (wfss_contam)",
                name,
                found.unlisted.size,
                cards["DIRIMAGE"],
                found.unlisted[0],
            )
    else:
        sky = np.nanmedian(direct.data)
        found = measure_labels(direct.data - sky, segmentation.data, sources.label, found.found_x, found.found_y)
        segmentation = Segmentation(segmentation.header, segmentation.data, direct.wcs)
        _require_labels(sources.label, _labels_at(segmentation.data, x, y), cards)
        check_numbers(sources.label, segmentation, cards)
    faint = inside & ~np.isfinite(found.x0)
    if faint.any():
        log.warning(
            "%s: source %s has no light above the noise in %s; it gets a box of %.2f arcsec",
            name,
            listed(sources.label[faint]),
            cards["DIRIMAGE"],
            2 * HALF_BOX,
        )
    abmag = sources.abmag.copy()
    if direct.header.get("BUNIT") == "MJy/sr":
        jansky = 1e6 * direct.header.require("PIXAR_SR") * found.total
        measured = np.full(n, np.nan)
        measured[jansky > 0] = -2.5 * np.log10(jansky[jansky > 0]) + 8.90
        filled = ~np.isfinite(abmag) & np.isfinite(measured)
        abmag[filled] = measured[filled]
        if filled.any():
            log.info("%s: the magnitudes of %d sources are from %s", name, filled.sum(), cards["DIRIMAGE"])
    table = _table(sources, x, y, found, direct.wcs, abmag, found.extended)
    table.meta["calweave_boxes"] = {"direct_image": cards["DIRIMAGE"], "segmentation_map": cards["SEGMFILE"]}
    catalog = Catalog(table)
    return Field(catalog, direct, segmentation, cards, {"cat": catalog, **derived})


def _behind(wcs: Any, centre: tuple[float, float], sources: Listed) -> np.ndarray:
    """(n,) bool, sources on the other half of the sky, which a tangent plane has as if they were on this one."""
    ra, dec = (np.deg2rad(value) for value in wcs(*centre, with_bounding_box=False))
    other_ra, other_dec = np.deg2rad(sources.ra), np.deg2rad(sources.dec)
    return np.sin(dec) * np.sin(other_dec) + np.cos(dec) * np.cos(other_dec) * np.cos(other_ra - ra) <= 0


def _table(
    sources: Listed,
    x: np.ndarray,
    y: np.ndarray,
    boxes: Any,
    wcs: Any,
    abmag: np.ndarray,
    extended: np.ndarray | None,
) -> Any:
    """The catalog with the columns that the slitless steps need, and the redshifts where there are any."""
    from astropy.coordinates import SkyCoord
    from astropy.table import QTable

    n = len(sources)
    table = QTable()
    table["label"] = sources.label.astype(np.int64)
    table["xcentroid"], table["ycentroid"] = x, y
    table["sky_centroid"] = SkyCoord(sources.ra, sources.dec, unit="deg")
    if sources.extended is not None:
        extended = sources.extended
    table["is_extended"] = np.zeros(n, bool) if extended is None else extended
    table["isophotal_abmag"] = abmag
    table["isophotal_abmag_err"] = np.full(n, np.nan)  # not known; the official package wants the column
    if np.isfinite(sources.redshift).any():
        table["redshift"] = sources.redshift
    for corner in ("ll", "ul", "lr", "ur"):
        east = HALF_BOX if corner[1] == "l" else -HALF_BOX
        north = HALF_BOX if corner[0] == "u" else -HALF_BOX
        ra = sources.ra + east / 3600 / np.cos(np.deg2rad(sources.dec))
        dec = sources.dec + north / 3600
        if boxes is not None and np.isfinite(boxes.x0).any():
            has = np.isfinite(boxes.x0)
            at_x = (boxes.x0 if corner[1] == "l" else boxes.x1)[has]
            at_y = (boxes.y0 if corner[0] == "l" else boxes.y1)[has]
            ra[has], dec[has] = wcs(at_x, at_y, with_bounding_box=False)
        table[f"sky_bbox_{corner}"] = SkyCoord(ra, dec, unit="deg")
    table.meta["calweave_user_catalog"] = sources.name
    return table


def require_brightness(one: Field, exposure: Header) -> Image:
    """The direct image for a model of the neighbours, which needs its brightness.

    Raises
    ------
    ProductError
        If there is none, or its unit is not known.
    """
    if one.direct is None or one.segmentation is None:
        raise ProductError(
            f"{exposure.get('FILENAME')}: wfss_contam needs a direct image of the field, but there is none; give one "
            "(-p spec2.direct_image=FILE) or leave the step out (-p wfss_contam.skip=true)"
        )
    if one.direct.header.get("BUNIT") != "MJy/sr":
        raise ProductError(
            f"{one.cards['DIRIMAGE']}: wfss_contam needs its brightness, but the header does not tell its unit; add BUNIT "
            "(MJy/sr, nJy), PHOTFNU, or PHOTFLAM and PHOTPLAM"
        )
    return one.direct


def tell_filters(one: Field, exposure: Header) -> None:
    """Say so where the direct image is of another filter than the grism exposure: its magnitudes and shapes are of that."""
    if one.direct is None:
        return
    header = one.direct.header
    wanted = exposure.get("PUPIL" if exposure.get("INSTRUME") == "NIRISS" else "FILTER")
    filters = [str(header[key]) for key in ("FILTER", "PUPIL") if key in header]
    if filters and wanted not in filters:
        log.warning(
            "%s: its spectra are of %s, but the direct image %s is of %s %s: magnitudes and shapes are those of another filter",
            exposure.get("FILENAME"),
            wanted,
            one.cards["DIRIMAGE"],
            header.get("INSTRUME", "an unknown instrument"),
            " ".join(filters),
        )
