"""What the neighbours of a source put into its cutout: the direct image, dispersed.

Every pixel of the direct image that belongs to a source is a small source of its own. Its light goes along its trace, in
each order, as the sensitivity says; all of it together is a model of the grism exposure. The model without the source
itself is the contamination of its cutout.

The spectrum of a source is taken as flat (the same brightness at all wavelengths of the filter) unless a shape is given;
`fit_shapes` takes one from the cutouts.

References
----------
JWST pipeline documentation, "wfss_contam".
Pirzkal et al. (2017), "SBE", and Ryan, Casertano & Pirzkal (2018), PASP 130, 034501, for the method.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from gwcs import WCS

from calibration.jit import kernel
from calibration.wcs.grism import Dispersion, trace_terms


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
        part = slice(*np.searchsorted(self.source, [number, number + 1]))
        return Scene(self.source[part], self.x0[part], self.y0[part], self.brightness[part])


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
        Mosaic of the field [MJy/sr]; NaN where there is none.
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
    y, x = np.nonzero((segmentation > 0) & np.isfinite(direct))
    to_detector = grism_wcs.get_transform("world", "detector")

    def place_pixels(dx: float, dy: float) -> tuple[np.ndarray, np.ndarray]:
        ra, dec = direct_wcs(x + dx, y + dy, with_bounding_box=False)
        return to_detector(ra, dec, np.ones_like(ra), np.ones_like(ra))[:2]

    centre, right, above = place_pixels(0, 0), place_pixels(0.5, 0), place_pixels(0, 0.5)
    area = 4 * np.abs((right[0] - centre[0]) * (above[1] - centre[1]) - (right[1] - centre[1]) * (above[0] - centre[0]))
    source = segmentation[y, x].astype(int)
    order = np.argsort(source, kind="stable")
    return Scene(source[order], centre[0][order], centre[1][order], (direct[y, x] * area)[order].astype(np.float64))


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
    index = dispersion.index(order)
    x_of_t, y_of_t = trace_terms(dispersion, np.array([index]), np.array([centre[0]]), np.array([centre[1]]))
    t = np.array([_evaluate(dispersion.to_t[index], limit / dispersion.velocity) for limit in limits])
    length = np.hypot(
        _evaluate(x_of_t[0], t[1]) - _evaluate(x_of_t[0], t[0]), _evaluate(y_of_t[0], t[1]) - _evaluate(y_of_t[0], t[0])
    )
    n = max(int(np.ceil(length * oversample)), 1)
    edges = np.linspace(*limits, n + 1)
    wavelength = 0.5 * (edges[1:] + edges[:-1])
    rising = np.argsort(waves, kind="stable")
    relative = np.interp(wavelength, np.asarray(waves)[rising], np.asarray(response)[rising], np.nan, np.nan)
    per_brightness = factor * relative
    counts = np.where(per_brightness > 0, np.diff(edges) / np.where(per_brightness > 0, per_brightness, 1.0), 0.0)
    return OrderResponse(wavelength, counts)


def _evaluate(coefficients: np.ndarray, value: float) -> float:
    return float(np.polynomial.polynomial.polyval(value, coefficients))


def add_traces(
    image: np.ndarray,
    origin: tuple[int, int],
    scene: Scene,
    dispersion: Dispersion,
    order: int,
    response: OrderResponse,
    shape: np.ndarray | None = None,
) -> None:
    """Add the dispersed light of a scene in one order to ``image``, in place.

    Parameters
    ----------
    image : (ny, nx) float64
        DN/s.
    origin : (int, int)
        Pixel (x, y) of the exposure, zero-based, of the first pixel of the image.
    shape : (nwave,) float64, optional
        Brightness at the wavelengths of ``response``, relative to that in the direct image.
    """
    if not scene.source.size:
        return
    index = np.full(scene.source.size, dispersion.index(order))
    x_of_t, y_of_t = trace_terms(dispersion, index, scene.x0, scene.y0)
    t = np.polynomial.polynomial.polyval(response.wavelength / dispersion.velocity, dispersion.to_t[index[0]])
    counts = response.counts if shape is None else response.counts * shape
    x_of_t[:, 0] += scene.x0 - origin[0]
    y_of_t[:, 0] += scene.y0 - origin[1]
    _deposit(image, scene.brightness, x_of_t, y_of_t, t, counts)


# p = pixel of the scene, l = wavelength, k = power of t
@kernel
def _deposit(image, brightness, x_of_t, y_of_t, t, counts):
    ny, nx = image.shape
    nt = x_of_t.shape[1]
    for p in range(brightness.size):
        for l in range(t.size):
            x = y = 0.0
            for k in range(nt - 1, -1, -1):
                x = x * t[l] + x_of_t[p, k]
                y = y * t[l] + y_of_t[p, k]
            # Also false for NaN: such a pixel is nowhere.
            if not (x > -1 and y > -1 and x < nx and y < ny):
                continue
            left, low = int(np.floor(x)), int(np.floor(y))
            fx, fy = x - left, y - low
            amount = brightness[p] * counts[l]
            for v in range(2):
                row = low + v
                if row < 0 or row >= ny:
                    continue
                part = amount * (fy if v == 1 else 1 - fy)
                if left >= 0:
                    image[row, left] += part * (1 - fx)
                if left + 1 < nx:
                    image[row, left + 1] += part * fx


def model_exposure(
    scene: Scene,
    dispersion: Dispersion,
    responses: Mapping[int, OrderResponse],
    shape: tuple[int, int],
    shapes: Mapping[int, np.ndarray] | None = None,
) -> np.ndarray:
    """(ny, nx) float64: the light of all sources, in all orders, on the detector [DN/s].

    ``shapes`` gives polynomials of the wavelength, relative brightness of a source by its number; flat by default.
    """
    image = np.zeros(shape)
    for order, response in responses.items():
        if not shapes:
            add_traces(image, (0, 0), scene, dispersion, order, response)
            continue
        for number in np.unique(scene.source):
            add_traces(
                image, (0, 0), scene.of(int(number)), dispersion, order, response, _shape(shapes, number, response)
            )
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
    add_traces(image, origin, scene.of(number), dispersion, order, response, _shape(shapes or {}, number, response))
    return image


def _shape(shapes: Mapping[int, np.ndarray], number: int, response: OrderResponse) -> np.ndarray | None:
    polynomial = shapes.get(int(number))
    if polynomial is None:
        return None
    return np.maximum(np.polynomial.polynomial.polyval(response.wavelength, polynomial), 0.0)


def fit_shape(
    cleaned: np.ndarray, err: np.ndarray, model: np.ndarray, wavelength: np.ndarray, degree: int
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
    degree : int
        Degree of the polynomial.

    Notes
    -----
    Pixels are weighted by their variance; the fit is linear. Faint sources, whose spectrum the fit would make of noise,
    stay flat: a fit counts only if the whole source is brighter than 10 times its error.
    """
    use = np.isfinite(cleaned) & np.isfinite(err) & (err > 0) & np.isfinite(wavelength) & (model > 0)
    if np.count_nonzero(use) <= 10 * (degree + 1):
        return None
    weighted = model[use] / err[use]
    if np.sum(weighted * cleaned[use] / err[use]) < 10 * np.sqrt(np.sum(weighted**2)):
        return None
    middle = 0.5 * (wavelength[use].min() + wavelength[use].max())
    columns = weighted[:, None] * (wavelength[use, None] - middle) ** np.arange(degree + 1)
    coefficients, _, rank, _ = np.linalg.lstsq(columns, cleaned[use] / err[use], rcond=None)
    if rank < degree + 1:
        return None
    shifted = np.polynomial.Polynomial(coefficients)(np.polynomial.Polynomial([-middle, 1.0]))
    return np.asarray(shifted.coef)
