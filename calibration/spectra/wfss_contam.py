"""What the neighbours of a source put into its cutout: the direct image, dispersed.

Every pixel of the direct image that belongs to a source is a small source of its own. Its light goes along its trace, in
each order, as the sensitivity says; all of it together is a model of the grism exposure. The model without the source
itself is the contamination of its cutout. What is left of the sky in the direct image is taken out first: the sky of the
grism exposure has been subtracted on its own.

The spectrum of a source is taken as flat (the same brightness at all wavelengths of the filter) unless a shape is given;
`fit_shape` takes one from a cutout.

The trace of a pixel is that of the middle of its source, shifted: over the size of most sources that is exact to a few
hundredths of a pixel (large ones are cut up), and an image of the source is moved along one trace as a whole, instead of
each of its pixels along its own. Light is laid on the detector by cubic convolution (Catmull-Rom), which does not widen it;
a split between the nearest two pixels adds up to a quarter of a pixel squared to the variance of a profile, as much as an
undersampled one has.

References
----------
JWST pipeline documentation, "wfss_contam".
Pirzkal et al. (2017), "SBE", and Ryan, Casertano & Pirzkal (2018), PASP 130, 034501, for the method.
Keys (1981), IEEE Trans. ASSP 29, 1153: cubic convolution.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from gwcs import WCS

from calibration.jit import kernel
from calibration.wcs.grism import Dispersion, place

#: Sources are cut into squares of this size [pixel], of each of which the trace of the middle is computed.
TILE = 32
#: Squares whose traces are in memory at once.
CHUNK = 256


@dataclass(frozen=True)
class Scene:
    """The pixels of a direct image that belong to sources, as the grism exposure sees them.

    Attributes
    ----------
    source : (n,) int
        Source number, rising.
    x0, y0 : (n,) float64
        Direct position of each pixel in the grism exposure [pixel].
    brightness : (n,) float64
        Surface brightness times the area of the pixel in pixels of the grism exposure [MJy/sr].
    """

    source: np.ndarray
    x0: np.ndarray
    y0: np.ndarray
    brightness: np.ndarray

    def of(self, number: int) -> "Scene":
        """The pixels of one source."""
        return self._part(slice(*np.searchsorted(self.source, [number, number + 1])))

    def without(self, numbers: np.ndarray) -> "Scene":
        """The pixels of the other sources."""
        return self._part(~np.isin(self.source, numbers))

    def _part(self, which: slice | np.ndarray) -> "Scene":
        return Scene(self.source[which], self.x0[which], self.y0[which], self.brightness[which])

    def totals(self) -> tuple[np.ndarray, np.ndarray]:
        """(numbers of the sources, their brightness summed over all their pixels [MJy/sr times pixels])."""
        numbers, index = np.unique(self.source, return_inverse=True)
        return numbers, np.bincount(index, self.brightness, numbers.size)


@dataclass(frozen=True)
class OrderResponse:
    """How an order turns light into counts.

    Attributes
    ----------
    wavelength : (n,) float64
        Rising, no further apart than half a pixel along the trace [um].
    counts : (n,) float64
        DN/s in the interval about each wavelength, of a pixel of 1 MJy/sr.
    """

    wavelength: np.ndarray
    counts: np.ndarray


def scene_of(direct: np.ndarray, segmentation: np.ndarray, direct_wcs: WCS, grism_wcs: WCS) -> Scene:
    """The pixels of the sources, placed in the grism exposure.

    Parameters
    ----------
    direct : (my, mx) float32
        Mosaic of the field [MJy/sr]; NaN where there is none. The median of its pixels without a source is taken as the
        sky, and subtracted.
    segmentation : (my, mx) uint32
        Source number of each pixel, 0 for none.
    direct_wcs : gwcs.WCS
        Of the mosaic: (x, y) -> (ra, dec).
    grism_wcs : gwcs.WCS
        Of the grism exposure (`calibration.wcs.grism.grism_wcs`).
    """
    if direct.shape != segmentation.shape:
        raise ValueError(
            f"the direct image {direct.shape} and the segmentation map {segmentation.shape} must be of the same mosaic; "
            "give those that image3 made together"
        )
    known = np.isfinite(direct)
    empty = direct[known & (segmentation == 0)]
    sky = float(np.median(empty)) if empty.size else 0.0
    y, x = np.nonzero((segmentation > 0) & known)
    to_detector = grism_wcs.get_transform("world", "detector")

    def place_pixels(dx: float, dy: float) -> tuple[np.ndarray, np.ndarray]:
        ra, dec = direct_wcs(x + dx, y + dy, with_bounding_box=False)
        return to_detector(ra, dec, np.ones_like(ra), np.ones_like(ra))[:2]

    centre, right, above = place_pixels(0, 0), place_pixels(0.5, 0), place_pixels(0, 0.5)
    area = 4 * np.abs((right[0] - centre[0]) * (above[1] - centre[1]) - (right[1] - centre[1]) * (above[0] - centre[0]))
    light = (direct[y, x].astype(np.float64) - sky) * area
    source = segmentation[y, x].astype(int)
    placed = np.isfinite(centre[0]) & np.isfinite(centre[1]) & np.isfinite(light)
    order = np.flatnonzero(placed)[np.argsort(source[placed], kind="stable")]
    return Scene(source[order], centre[0][order], centre[1][order], light[order])


def order_response(
    dispersion: Dispersion,
    order: int,
    centre: tuple[float, float],
    limits: tuple[float, float],
    factor: float,
    waves: np.ndarray,
    response: np.ndarray,
    oversample: int = 2,
) -> OrderResponse:
    """The counts of an order, on wavelengths ``1/oversample`` pixels apart at a place on the detector.

    Parameters
    ----------
    centre : (float, float)
        Direct position at which the spacing is set [pixel].
    limits : (float, float)
        Shortest and longest wavelength of the filter [um].
    factor, waves, response
        Of the photom reference: MJy um s / (DN sr), [um], relative factor.
    """
    index = np.array([dispersion.index(order)])
    x, y = place(dispersion, index, np.array([centre[0]]), np.array([centre[1]]), np.array(limits))
    length = float(np.hypot(np.ptp(x), np.ptp(y)))
    n = max(int(np.ceil(length * oversample)), 1)
    edges = np.linspace(*limits, n + 1)
    wavelength = 0.5 * (edges[1:] + edges[:-1])
    rising = np.argsort(waves, kind="stable")
    relative = np.interp(wavelength, np.asarray(waves)[rising], np.asarray(response)[rising], np.nan, np.nan)
    per_brightness = factor * relative
    counts = np.where(per_brightness > 0, np.diff(edges) / np.where(per_brightness > 0, per_brightness, 1.0), 0.0)
    return OrderResponse(wavelength, counts)


def add_traces(
    image: np.ndarray,
    origin: tuple[int, int],
    scene: Scene,
    dispersion: Dispersion,
    order: int,
    response: OrderResponse,
    shapes: Mapping[int, np.ndarray] | None = None,
) -> None:
    """Add the dispersed light of a scene in one order to ``image``, in place.

    Parameters
    ----------
    image : (ny, nx) float64
        DN/s.
    origin : (int, int)
        Pixel (x, y) of the exposure, zero-based, of the first pixel of the image.
    shapes : mapping, optional
        Number of a source -> polynomial of the wavelength [um], its brightness relative to that in the direct image.
    """
    if not scene.source.size:
        return
    first, index = np.unique(scene.source, return_index=True, return_inverse=True)[1:]
    squares = [
        np.floor((direct - np.minimum.reduceat(direct, first)[index]) / TILE).astype(int)
        for direct in (scene.x0, scene.y0)
    ]
    tile = np.stack([scene.source, *squares])
    by_tile = np.lexsort(tile[::-1])
    starts = np.flatnonzero(np.any(np.diff(tile[:, by_tile], axis=1, prepend=-1) != 0, axis=0))
    stops = np.append(starts[1:], by_tile.size)
    for chunk in range(0, starts.size, CHUNK):
        begin, end = starts[chunk : chunk + CHUNK], stops[chunk : chunk + CHUNK]
        pixels = by_tile[begin[0] : end[-1]]
        x0, y0, numbers = scene.x0[pixels], scene.y0[pixels], scene.source[by_tile[begin]]
        xc, yc = (np.add.reduceat(direct, begin - begin[0]) / (end - begin) for direct in (x0, y0))
        x, y = place(dispersion, np.full(xc.size, dispersion.index(order)), xc, yc, response.wavelength)
        counts = np.array([response.counts * _shape(shapes or {}, n, response) for n in numbers])
        _lay(image, begin - begin[0], end - begin[0], scene.brightness[pixels], x0, y0, x - (xc + origin[0])[:, None],
             y - (yc + origin[1])[:, None], counts)  # fmt: skip


# s = tile of a source, p = pixel of it, l = wavelength, v, u = taps, r, k = row and column where a shifted stamp falls
@kernel
def _lay(image, begin, end, brightness, x0, y0, shift_x, shift_y, counts):
    ny, nx = image.shape
    wx, wy = np.empty(4), np.empty(4)
    for s in range(begin.size):
        part = slice(begin[s], end[s])
        # The tile on the pixels of the exposure, with three pixels around it that stay empty.
        xs, ys = int(np.floor(x0[part].min())) - 1, int(np.floor(y0[part].min())) - 1
        w, h = int(np.floor(x0[part].max())) + 3 - xs, int(np.floor(y0[part].max())) + 3 - ys
        stamp = np.zeros((h + 6, w + 6))
        for p in range(begin[s], end[s]):
            left, low = int(np.floor(x0[p])), int(np.floor(y0[p]))
            _weights(x0[p] - left, wx)
            _weights(y0[p] - low, wy)
            for v in range(4):
                for u in range(4):
                    stamp[low - ys + 2 + v, left - xs + 2 + u] += brightness[p] * wy[v] * wx[u]
        moved = np.empty((h + 6, w + 3))
        for l in range(shift_x.shape[1]):
            dx, dy, count = shift_x[s, l], shift_y[s, l], counts[s, l]
            # Also false for NaN: such light is nowhere.
            if not (count != 0.0 and dx > -xs - w - 4 and dx < nx - xs + 4 and dy > -ys - h - 4 and dy < ny - ys + 4):
                continue
            x, y = int(np.floor(dx)), int(np.floor(dy))
            _weights(dx - x, wx)
            _weights(dy - y, wy)
            x, y = x + xs - 1, y + ys - 1
            k1, k2, r1, r2 = max(0, -x), min(w + 3, nx - x), max(0, -y), min(h + 3, ny - y)
            a, b, c, d = wx[3], wx[2], wx[1], wx[0]
            for r in range(r1, r2 + 3):
                for k in range(k1, k2):
                    moved[r, k] = a * stamp[r, k] + b * stamp[r, k + 1] + c * stamp[r, k + 2] + d * stamp[r, k + 3]
            a, b, c, d = count * wy[3], count * wy[2], count * wy[1], count * wy[0]
            for r in range(r1, r2):
                for k in range(k1, k2):
                    image[y + r, x + k] += (
                        a * moved[r, k] + b * moved[r + 1, k] + c * moved[r + 2, k] + d * moved[r + 3, k]
                    )


@kernel
def _weights(f, w):
    w[0] = ((2.0 - f) * f - 1.0) * f * 0.5
    w[1] = ((3.0 * f - 5.0) * f * f + 2.0) * 0.5
    w[2] = ((4.0 - 3.0 * f) * f + 1.0) * f * 0.5
    w[3] = (f - 1.0) * f * f * 0.5


def model_exposure(
    scene: Scene,
    dispersion: Dispersion,
    responses: Mapping[int, OrderResponse],
    shape: tuple[int, int],
    shapes: Mapping[int, np.ndarray] | None = None,
    faint: Mapping[int, np.ndarray] | None = None,
) -> np.ndarray:
    """(ny, nx) float64: the light of all sources, in all orders, on the detector [DN/s].

    ``shapes`` gives polynomials of the wavelength, relative brightness of a source by its number; flat by default.
    ``faint`` gives, by order, the numbers of the sources that are left out.
    """
    image = np.zeros(shape)
    for order, response in responses.items():
        seen = scene.without(faint[order]) if faint and order in faint else scene
        add_traces(image, (0, 0), seen, dispersion, order, response, shapes)
    return image


def model_cutout(
    scene: Scene,
    number: int,
    dispersion: Dispersion,
    order: int,
    response: OrderResponse,
    origin: tuple[int, int],
    shape: tuple[int, int],
    shapes: Mapping[int, np.ndarray] | None = None,
) -> np.ndarray:
    """(ny, nx) float64: the light of one source in one order in its cutout [DN/s]."""
    image = np.zeros(shape)
    add_traces(image, origin, scene.of(number), dispersion, order, response, shapes)
    return image


def _shape(shapes: Mapping[int, np.ndarray], number: int, response: OrderResponse) -> np.ndarray | float:
    polynomial = shapes.get(int(number))
    if polynomial is None:
        return 1.0
    return np.maximum(np.polynomial.polynomial.polyval(response.wavelength, polynomial), 0.0)


def too_faint(
    scene: Scene, responses: Mapping[int, OrderResponse], pixel_area: float, limit: float
) -> dict[int, np.ndarray]:
    """Order -> numbers of the sources whose light in that order is not worth modelling.

    Parameters
    ----------
    pixel_area : float
        Of the grism exposure [sr].
    limit : float
        AB magnitude in the direct image. It holds for the orders 0 and 1; in another order, which is weaker than order 1, a
        source has to be brighter by the ratio of the two largest sensitivities.
    """
    numbers, brightness = scene.totals()
    flux = np.maximum(brightness, 0.0) * pixel_area * 1e6 / 3631.0
    with np.errstate(divide="ignore"):
        magnitude = -2.5 * np.log10(flux)
    peaks = {
        order: np.max(response.counts / np.gradient(response.wavelength)) if response.wavelength.size > 1 else np.nan
        for order, response in responses.items()
    }
    left_out = {}
    for order in responses:
        weaker = 0.0
        if order not in (0, 1) and peaks.get(1, 0) > 0 and peaks[order] > 0:
            weaker = -2.5 * np.log10(peaks[order] / peaks[1])
        left_out[order] = numbers[~(magnitude + weaker < limit)]
    return left_out


def fit_shape(
    cleaned: np.ndarray,
    err: np.ndarray,
    model: np.ndarray,
    wavelength: np.ndarray,
    axis: int,
    degree: int,
    rejection_threshold: float | None = None,
) -> np.ndarray | None:
    """Coefficients of the polynomial of the wavelength that makes a flat model of a source fit its cutout; None if none does.

    Parameters
    ----------
    cleaned, err : (ny, nx) float
        The cutout without contamination, and its standard deviation [DN/s].
    model : (ny, nx) float
        The model of the source with a flat spectrum [DN/s].
    wavelength : (ny, nx) float
        [um]
    axis : int
        DISPAXIS: 1 where x runs along the dispersion, 2 where y does.
    degree : int
        Degree of the polynomial.
    rejection_threshold : float, optional
        The mean of the spectrum over the filter is 1, as the direct image has it; a fit that is further off has taken other
        light for the source's.

    Notes
    -----
    The fit is linear, of the sums across the dispersion, weighted by their variance: a mosaic is wider than the exposure, and
    pixel by pixel its lower peak would be taken for more light. Faint sources, whose spectrum the fit would make of noise,
    stay flat: a fit counts only if the whole source is brighter than 10 times its error.
    """
    use = np.isfinite(cleaned) & np.isfinite(err) & (err > 0) & np.isfinite(wavelength) & (model > 0)
    across = axis - 1

    def sums(plane: np.ndarray) -> np.ndarray:
        return np.where(use, plane, 0.0).sum(axis=across, dtype=np.float64)

    count, light = use.sum(axis=across), sums(model)
    seen = count > 0
    if np.count_nonzero(seen) <= 3 * (degree + 1):
        return None
    light, signal, error = light[seen], sums(cleaned)[seen], np.sqrt(sums(np.asarray(err, float) ** 2)[seen])
    at = sums(wavelength)[seen] / count[seen]
    if np.sum(light * signal / error**2) < 10 * np.sqrt(np.sum((light / error) ** 2)):
        return None
    middle = 0.5 * (at.min() + at.max())
    columns = (light / error)[:, None] * (at[:, None] - middle) ** np.arange(degree + 1)
    coefficients, _, rank, _ = np.linalg.lstsq(columns, signal / error, rcond=None)
    if rank < degree + 1:
        return None
    spectrum = np.polynomial.polynomial.polyval(at - middle, coefficients)
    if rejection_threshold is not None and abs(np.sum(light * spectrum) / np.sum(light) - 1) > rejection_threshold:
        return None
    shifted = np.polynomial.Polynomial(coefficients)(np.polynomial.Polynomial([-middle, 1.0]))
    return np.asarray(shifted.coef)
