"""Where the spectra of a slitless exposure are, source by source and order by order, and their cutouts.

The box of a spectrum holds the corners of the source's box in the direct image, dispersed at both ends of the
wavelength range of the filter. A point source gets a strip of fixed height about its trace instead, for its box in the
direct image says more about the noise there than about its size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gwcs import WCS

from calibration.spectra.sources import Sources
from calibration.wcs.grism import Dispersion, dispersion_of, place, wavelengths_along


@dataclass(frozen=True)
class Traces:
    """Boxes of spectra on the detector, one entry per source and order: sources brightest first, orders as asked.

    Attributes
    ----------
    source : (n,) int
        Index into the sources.
    order : (n,) int
        Spectral order.
    x0, y0 : (n,) float64
        Direct position of the source [pixel].
    xmin, xmax, ymin, ymax : (n,) int
        First and last pixel of the box, zero-based, both included; may reach beyond the detector.
    axis : int
        DISPAXIS, 1 or 2.
    dispersion : Dispersion
    """

    source: np.ndarray
    order: np.ndarray
    x0: np.ndarray
    y0: np.ndarray
    xmin: np.ndarray
    xmax: np.ndarray
    ymin: np.ndarray
    ymax: np.ndarray
    axis: int
    dispersion: Dispersion

    def __len__(self) -> int:
        return self.source.size

    def select(self, keep: np.ndarray) -> "Traces":
        """Those traces that a mask or an index array names."""
        names = ("source", "order", "x0", "y0", "xmin", "xmax", "ymin", "ymax")
        return replace(self, **{name: getattr(self, name)[keep] for name in names})


def wavelength_ranges(
    reference: Mapping[str, Any], filter_: str, orders: Sequence[int] | None = None
) -> dict[int, tuple[float, float]]:
    """Order -> (shortest, longest wavelength [um]) of a filter, from the tree of a wavelengthrange reference.

    Parameters
    ----------
    reference : mapping
        With ``wavelengthrange``: (order, filter, shortest, longest); ``extract_orders``: (filter, orders).
    filter_ : str
        The blocking filter: PUPIL of NIRISS, FILTER of NIRCam and MIRI.
    orders : sequence of int, optional
        Orders to extract; those that the reference recommends by default.
    """
    if orders is None:
        recommended = [row[1] for row in reference["extract_orders"] if row[0] == filter_]
        if not recommended:
            known = ", ".join(sorted(str(row[0]) for row in reference["extract_orders"]))
            raise ValueError(f"the wavelengthrange reference has no orders for the filter {filter_}, only for {known}")
        orders = [int(order) for order in recommended[-1]]
    ranges: dict[int, tuple[float, float]] = {}
    for order in orders:
        found = [row for row in reference["wavelengthrange"] if row[0] == order and row[1] == filter_]
        if not found:
            raise ValueError(
                f"the wavelengthrange reference has no order {order} for the filter {filter_}, only "
                f"{known_orders(reference, filter_)}; "
                "choose among them with extract_orders"
            )
        ranges[order] = (float(found[0][2]), float(found[0][3]))
    return ranges


def known_orders(reference: Mapping[str, Any], filter_: str) -> list[int]:
    """All orders of a filter in the tree of a wavelengthrange reference, not only those to extract."""
    return sorted({int(row[0]) for row in reference["wavelengthrange"] if row[1] == filter_})


def locate_traces(
    wcs: WCS,
    sources: Sources,
    ranges: Mapping[int, tuple[float, float]],
    shape: tuple[int, int],
    half_height: int | None = None,
    faintest: float | None = None,
    most: int | None = None,
) -> Traces:
    """The boxes of all spectra that are at least partly on the detector.

    Parameters
    ----------
    wcs : gwcs.WCS
        Of the grism exposure (`calibration.wcs.grism.grism_wcs`).
    sources : Sources
    ranges : mapping
        Order -> (shortest, longest wavelength [um]).
    shape : (int, int)
        (ny, nx) of the exposure.
    half_height : int, optional
        Half the height of the strip of a point source, across the dispersion [pixel]; by default its box in the direct
        image counts, as for extended sources.
    faintest : float, optional
        Sources of this AB magnitude or fainter are left out.
    most : int, optional
        Only so many sources, the brightest of those with a spectrum on the detector.
    """
    dispersion = dispersion_of(wcs)
    index = np.arange(len(sources))
    if faintest is not None:
        # A source without a magnitude stays: nothing says that it is faint.
        index = index[~(sources.abmag >= faintest)]
    orders = np.array(list(ranges), int)
    if index.size == 0 or orders.size == 0:
        none = np.empty(0, int)
        return Traces(none, none, np.empty(0), np.empty(0), none, none, none, none, dispersion.axis, dispersion)

    to_detector = wcs.get_transform("world", "detector")
    x0, y0 = to_detector(sources.ra[index], sources.dec[index], np.ones(index.size), np.ones(index.size))[:2]
    corner_x, corner_y = to_detector(
        sources.corner_ra[index].ravel(), sources.corner_dec[index].ravel(), *np.ones((2, 4 * index.size))
    )[:2]

    # Arrays (nsources, norders, 4 corners, 2 ends of the range).
    n, m = index.size, orders.size
    order_index = np.array([dispersion.index(int(order)) for order in orders])
    ends = np.array([ranges[int(order)] for order in orders])
    per_corner = np.broadcast_to(ends[None, :, None, :], (n, m, 4, 2)).reshape(-1, 2)
    which = np.broadcast_to(order_index[None, :, None], (n, m, 4)).ravel()
    spread = [np.broadcast_to(c.reshape(n, 1, 4), (n, m, 4)).ravel() for c in (corner_x, corner_y)]
    x, y = (values.reshape(n, m, 8) for values in place(dispersion, which, spread[0], spread[1], per_corner))
    xmin, xmax, ymin, ymax = np.nanmin(x, 2), np.nanmax(x, 2), np.nanmin(y, 2), np.nanmax(y, 2)

    if half_height is not None:
        middle = np.broadcast_to(ends.mean(axis=1)[None, :, None], (n, m, 1)).reshape(-1, 1)
        centre = place(dispersion, np.tile(order_index, n), np.repeat(x0, m), np.repeat(y0, m), middle)
        point = ~sources.extended[index][:, None]
        if dispersion.axis == 1:
            across = centre[1].reshape(n, m)
            ymin, ymax = np.where(point, across - half_height, ymin), np.where(point, across + half_height, ymax)
        else:
            across = centre[0].reshape(n, m)
            xmin, xmax = np.where(point, across - half_height, xmin), np.where(point, across + half_height, xmax)

    xmin, xmax, ymin, ymax = (np.floor(edge + 0.5).astype(int) for edge in (xmin, xmax, ymin, ymax))
    ny, nx = shape
    in_x = (xmax > 0) & (xmin < nx - 1) if dispersion.axis == 1 else (xmax >= 0) & (xmin <= nx - 1)
    in_y = (ymax > 0) & (ymin < ny - 1) if dispersion.axis == 2 else (ymax >= 0) & (ymin <= ny - 1)
    seen = in_x & in_y
    if most is not None:
        seen &= (np.cumsum(seen.any(axis=1)) <= most)[:, None]
    s, o = np.nonzero(seen)
    return Traces(
        source=index[s],
        order=orders[o],
        x0=x0[s],
        y0=y0[s],
        xmin=xmin[s, o],
        xmax=xmax[s, o],
        ymin=ymin[s, o],
        ymax=ymax[s, o],
        axis=dispersion.axis,
        dispersion=dispersion,
    )


def clip_traces(traces: Traces, shape: tuple[int, int]) -> Traces:
    """The parts of the boxes that are on the detector; what only touches its first row or column is left out."""
    ny, nx = shape
    wide = (np.clip(traces.xmax, 0, nx) > np.clip(traces.xmin, 0, nx)) & (
        np.clip(traces.ymax, 0, ny) > np.clip(traces.ymin, 0, ny)
    )
    traces = traces.select(wide)
    return replace(
        traces,
        xmin=np.clip(traces.xmin, 0, nx - 1),
        xmax=np.clip(traces.xmax, 0, nx - 1),
        ymin=np.clip(traces.ymin, 0, ny - 1),
        ymax=np.clip(traces.ymax, 0, ny - 1),
    )


def cutout_wavelengths(traces: Traces) -> list[np.ndarray]:
    """The wavelength [um] at each pixel of each box, float32 (ny, nx): all traces in one go.

    The wavelength of a pixel is the one at which the trace of the source's centroid reaches its row or column.
    """
    if len(traces) == 0:
        return []
    start, stop = (traces.xmin, traces.xmax) if traces.axis == 1 else (traces.ymin, traces.ymax)
    index = np.array([traces.dispersion.index(int(order)) for order in traces.order])
    along = wavelengths_along(
        traces.dispersion, index, traces.x0, traces.y0, start, int((stop - start).max()) + 1
    ).astype(np.float32)
    planes = []
    for k in range(len(traces)):
        ny, nx = traces.ymax[k] - traces.ymin[k] + 1, traces.xmax[k] - traces.xmin[k] + 1
        line = along[k, :nx] if traces.axis == 1 else along[k, :ny, None]
        planes.append(np.ascontiguousarray(np.broadcast_to(line, (ny, nx))))
    return planes
