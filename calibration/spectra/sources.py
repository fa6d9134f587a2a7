"""The sources of a direct image, as the slitless steps need them: arrays, checked, from the columns of a catalog.

What is wrong with a catalog is told here, once: a source number that stands twice, a missing column, positions that
are no numbers. Magnitudes may be missing: such a source counts as the faintest.
"""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

CORNERS = ("sky_bbox_ll", "sky_bbox_lr", "sky_bbox_ul", "sky_bbox_ur")


@dataclass(frozen=True)
class Sources:
    """Sources of a catalog, brightest first.

    Attributes
    ----------
    label : (n,) int
        Source number.
    ra, dec : (n,) float64
        Centroid, ICRS [deg].
    corner_ra, corner_dec : (n, 4) float64
        Corners of the bounding box of the source in the direct image, ICRS [deg].
    abmag : (n,) float64
        Isophotal AB magnitude; NaN where it is not known.
    extended : (n,) bool
        Whether the source is larger than the point spread function.
    """

    label: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    corner_ra: np.ndarray
    corner_dec: np.ndarray
    abmag: np.ndarray
    extended: np.ndarray

    def __len__(self) -> int:
        return self.label.size

    def select(self, keep: np.ndarray) -> "Sources":
        """Those sources that a mask or an index array names."""
        return Sources(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


def sources_of(catalog: Any, name: str = "the catalog") -> Sources:
    """The sources of a catalog.

    Parameters
    ----------
    catalog : astropy.table.Table
        With the columns label, sky_centroid, sky_bbox_ll, _lr, _ul, _ur (sky coordinates), isophotal_abmag, is_extended.
    name : str
        What to call the catalog in messages.

    Raises
    ------
    ValueError
        If a column is missing or a source number stands more than once.
    """
    needed = ("label", "sky_centroid", *CORNERS, "isophotal_abmag", "is_extended")
    missing = [column for column in needed if column not in catalog.colnames]
    if missing:
        raise ValueError(
            f"{name}: missing column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; expected a source catalog of "
            f"a direct image (calwebb_image3), with {', '.join(needed)}"
        )
    label = np.asarray(catalog["label"]).astype(int)
    numbers, counts = np.unique(label, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"{name}: source number{'s' if (counts > 1).sum() > 1 else ''} {_listed(numbers[counts > 1])} stand"
            f"{'' if (counts > 1).sum() > 1 else 's'} more than once; each source needs a number of its own"
        )
    ra, dec = _degrees(catalog["sky_centroid"], len(catalog))
    corners = [_degrees(catalog[corner], len(catalog)) for corner in CORNERS]
    corner_ra, corner_dec = (np.column_stack([corner[axis] for corner in corners]) for axis in (0, 1))
    sources = Sources(
        label=label,
        ra=ra,
        dec=dec,
        corner_ra=corner_ra,
        corner_dec=corner_dec,
        abmag=_magnitudes(catalog["isophotal_abmag"]),
        extended=np.asarray(catalog["is_extended"]).astype(bool),
    )
    placed = np.isfinite(np.column_stack([ra, dec, corner_ra, corner_dec])).all(axis=1)
    if not placed.all():
        log.warning("%s: no position for source %s, left out", name, _listed(label[~placed]))
    unknown = placed & ~np.isfinite(sources.abmag)
    if unknown.any():
        log.warning("%s: no magnitude for source %s, taken as the faintest", name, _listed(label[unknown]))
    sources = sources.select(placed)
    # Stable, so that equal magnitudes keep the order of the catalog; NaN sorts last.
    return sources.select(np.argsort(sources.abmag, kind="stable"))


def _magnitudes(column: Any) -> np.ndarray:
    filled = column.filled(np.nan) if hasattr(column, "filled") else column
    return np.asarray(getattr(filled, "value", filled), dtype=float)


def _degrees(column: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    if n == 0:
        return np.empty(0), np.empty(0)
    icrs = column.icrs
    return np.asarray(icrs.ra.deg, float), np.asarray(icrs.dec.deg, float)


def _listed(numbers: np.ndarray) -> str:
    """Up to ten numbers, and how many more."""
    shown = ", ".join(str(int(number)) for number in numbers[:10])
    return shown + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
