"""The scene through a grism: every source, in every order, on one detector; contamination comes by itself.

A trace is the offset from the direct position as a function of ``t = (wavelength - c0) / c1``: polynomials of t (straight
lines for grisms; a prism bends them) whose coefficients are second-degree polynomials of the direct position, turned by the
filter wheel. We cut each order into bins of a
quarter pixel along the dispersion, whose wavelengths follow from the trace, collect the electrons of every bin by
integrating flux times sensitivity, and lay a stamp of the source at each bin. Across the dispersion the stamp is
interpolated between quarter pixels. Emission lines are drawn one by one, at their exact places.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.polynomial.polynomial import polyder, polyval
from numpy.typing import ArrayLike
from scipy.integrate import cumulative_trapezoid

from calibration.jit import kernel
from calibration.simulate.field import Distortion, Pointing, sky_to_pixel
from calibration.simulate.scene import PSF, Source, components, draw, stamp_radius
from calibration.simulate.throughput import (
    COLLECTING_AREA,
    GRISM_ORDERS,
    LIGHT,
    PLANCK,
    Passband,
    grism_efficiency,
    sensitivity,
    wavelengths,
)

PHASES = 4  # stamps per pixel, along and across the dispersion


@dataclass(frozen=True)
class Trace:
    """One spectral order: offsets in x and y, each ``a(x, y) + b(x, y) t + ...`` [pixel].

    ``x_terms`` and ``y_terms`` are (a, b, ...), each an array (6,) of the coefficients of 1, x, x^2, y, y^2, xy, where
    (x, y) is the direct position in pixels of the exposure's own array.
    """

    x_terms: tuple[np.ndarray, ...]
    y_terms: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Grism:
    """A grism: its orders, the wavelength scale ``wavelength = c0 + c1 t`` [um], its axis and the turn of its wheel.

    Parameters
    ----------
    name
        Name of the filter-wheel element.
    axis
        The array axis that the light is dispersed along: "x" or "y".
    traces
        Order -> trace.
    c0, c1
        Wavelength scale [um].
    wheel_reference, wheel
        Wheel position for which the traces hold, and the one of the exposure [deg].
    efficiencies
        Order -> (peak efficiency, its wavelength [um], width [um]).
    """

    name: str
    axis: str
    traces: dict[int, Trace]
    c0: float
    c1: float
    wheel_reference: float
    wheel: float
    efficiencies: Mapping[int, tuple[float, float, float]] = field(default_factory=lambda: GRISM_ORDERS)

    def cut(self, origin: tuple[int, int]) -> "Grism":
        """The same grism for an array whose first pixel is at the column and row ``origin`` of this one."""
        traces = {
            order: Trace(*(tuple(_move(terms, origin) for terms in of) for of in (trace.x_terms, trace.y_terms)))
            for order, trace in self.traces.items()
        }
        return replace(self, traces=traces)

    def offsets(self, order: int, x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of t of the trace of a source at (x, y): its offsets in x and in y [pixel]."""
        trace = self.traces[order]
        terms = np.array([1.0, x, x * x, y, y * y, x * y])
        x_of_t, y_of_t = (np.array([coeffs @ terms for coeffs in of]) for of in (trace.x_terms, trace.y_terms))
        # The wheel carries the dispersed light clockwise when its angle grows.
        turn = -np.deg2rad(self.wheel - self.wheel_reference)
        sin, cos = np.sin(turn), np.cos(turn)
        return x_of_t * cos - y_of_t * sin, x_of_t * sin + y_of_t * cos

    def position(self, order: int, x: float, y: float, wavelength: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Where light of ``wavelength`` [um] of a source with direct position (x, y) falls."""
        x_of_t, y_of_t = self.offsets(order, x, y)
        t = (np.asarray(wavelength, float) - self.c0) / self.c1
        return x + polyval(t, x_of_t), y + polyval(t, y_of_t)


def _move(terms: np.ndarray, origin: tuple[int, int]) -> np.ndarray:
    """Coefficients of 1, x, x^2, y, y^2, xy of the same polynomial, for coordinates counted from ``origin``."""
    x, y = origin
    c, cx, cxx, cy, cyy, cxy = terms
    return np.array(
        [
            c + cx * x + cxx * x * x + cy * y + cyy * y * y + cxy * x * y,
            cx + 2 * cxx * x + cxy * y,
            cxx,
            cy + 2 * cyy * y + cxy * x,
            cyy,
            cxy,
        ]
    )


def disperse(
    image: np.ndarray,
    sources: Sequence[Source],
    distortion: Distortion,
    pointing: Pointing,
    grism: Grism,
    passband: Passband,
    origin: tuple[int, int],
    psf: Sequence[tuple[float, float]] = PSF,
) -> None:
    """Add the dispersed light of ``sources``, in all orders, to ``image``.

    Parameters
    ----------
    image : (ny, nx) float64
        Electrons per second; changed in place.
    origin
        Full-frame column and row of pixel (0, 0) of the image.
    psf
        Point-spread function of every order: sum of Gaussians, (weight, sigma [pixel]).
    """
    for source in sources:
        x, y = sky_to_pixel(distortion, pointing, source.ra, source.dec)
        weight, covariance = components(source, distortion, pointing, float(x), float(y), psf)
        for order in grism.traces:
            _disperse_source(
                image, source, float(x) - origin[0], float(y) - origin[1], weight, covariance, grism, order, passband
            )


def _disperse_source(image, source, x, y, weight, covariance, grism, order, passband):
    x_of_t, y_of_t = grism.offsets(order, x, y)
    along, a_of_t, across, c_of_t = (x, x_of_t, y, y_of_t) if grism.axis == "x" else (y, y_of_t, x, x_of_t)
    margin = 10 * passband.edge
    t_ends = (np.array([passband.blue - margin, passband.red + margin]) - grism.c0) / grism.c1
    first, last = np.sort(along + polyval(t_ends, a_of_t))
    size = image.shape[1] if grism.axis == "x" else image.shape[0]
    radius = stamp_radius(covariance)
    if last < -radius or first > size + radius:
        return
    # Bin m is centred on the quarter-pixel m of the detector, so that its stamp needs no interpolation along the trace.
    bins = np.arange(int(np.floor(first * PHASES)), int(np.ceil(last * PHASES)) + 1)
    edges = (np.append(bins, bins[-1] + 1) - 0.5) / PHASES
    wavelength = grism.c0 + grism.c1 * _solve(a_of_t, edges - along, t_ends)
    electrons = bin_electrons(source, passband, order, wavelength, grism.efficiencies)
    centre = 0.5 * (wavelength[:-1] + wavelength[1:])
    crossing = across + polyval((centre - grism.c0) / grism.c1, c_of_t)
    stamps = np.zeros((PHASES, PHASES, 2 * radius + 3, 2 * radius + 3))
    for i in range(PHASES):
        for j in range(PHASES):
            shift_x, shift_y = (i, j) if grism.axis == "x" else (j, i)
            draw(stamps[i, j], 1.0, radius + shift_x / PHASES, radius + shift_y / PHASES, weight, covariance)
    _lay_stamps(image, stamps, bins, crossing, electrons, radius, grism.axis == "x")
    for spectral_line in source.lines:
        _draw_line(image, spectral_line, x, y, weight, covariance, grism, order, passband)


def _draw_line(image, spectral_line, x, y, weight, covariance, grism, order, passband):
    """A line is a stamp of its own at its exact place, widened along the trace by the width of the line."""
    t = (spectral_line.wavelength - grism.c0) / grism.c1
    bx, by = (polyval(t, polyder(terms)) for terms in grism.offsets(order, x, y))
    sigma = spectral_line.fwhm / 2.3548200450309493 / grism.c1
    widened = covariance + sigma**2 * np.array([bx * bx, by * by, bx * by])
    at_x, at_y = grism.position(order, x, y, spectral_line.wavelength)
    rate = line_rate(spectral_line.flux, spectral_line.wavelength, passband, order, grism.efficiencies)
    draw(image, rate, float(at_x), float(at_y), weight, widened)


def _solve(terms: np.ndarray, offsets: np.ndarray, t_ends: np.ndarray) -> np.ndarray:
    """t at these offsets along a trace; a bent one is looked up between 20001 places from end to end."""
    if terms.size == 2:
        return (offsets - terms[0]) / terms[1]
    t = np.linspace(t_ends[0], t_ends[1], 20_001)
    places = polyval(t, terms)
    rising = np.argsort(places)
    return np.interp(offsets, places[rising], t[rising])


def bin_electrons(
    source: Source,
    passband: Passband,
    order: int,
    edges: np.ndarray,
    efficiencies: Mapping[int, tuple[float, float, float]] = GRISM_ORDERS,
) -> np.ndarray:
    """Electrons per second of the continuum between successive ``edges`` [um], rising or falling."""
    # The bins of order 0 are wider than the edges of the passband: integrate finely, once, and take differences.
    wavelength = wavelengths(passband, step=0.00025)
    density = source.continuum_flux(wavelength) * sensitivity(passband, wavelength, order, efficiencies)
    below = cumulative_trapezoid(density, wavelength, initial=0.0)
    return np.abs(np.diff(np.interp(edges, wavelength, below)))


def line_rate(
    flux: float,
    wavelength: float,
    passband: Passband,
    order: int,
    efficiencies: Mapping[int, tuple[float, float, float]] = GRISM_ORDERS,
) -> float:
    """Electrons per second of a line of ``flux`` [W m^-2] at ``wavelength`` [um]."""
    at = np.array([wavelength])
    efficiency = passband.throughput(at)[0] * grism_efficiency(order, at, efficiencies)[0]
    return flux * COLLECTING_AREA * efficiency / (PLANCK * LIGHT / wavelength)


# m = bin, i, j = phases along and across, v, u = row and column of the stamp
@kernel
def _lay_stamps(image, stamps, bins, crossing, electrons, radius, along_x):
    ny, nx = image.shape
    phases = stamps.shape[0]
    side = stamps.shape[2]
    for m in range(bins.size):
        if electrons[m] <= 0.0:
            continue
        along = bins[m] // phases
        i = bins[m] - along * phases
        fine = crossing[m] * phases
        lower = int(np.floor(fine))
        for step in range(2):
            part = fine - lower if step == 1 else 1.0 - (fine - lower)
            across = (lower + step) // phases
            j = lower + step - across * phases
            x0 = (along if along_x else across) - radius
            y0 = (across if along_x else along) - radius
            amount = electrons[m] * part
            for v in range(max(0, -y0), min(side, ny - y0)):
                for u in range(max(0, -x0), min(side, nx - x0)):
                    image[y0 + v, x0 + u] += amount * stamps[i, j, v, u]


def sky_pattern(shape: tuple[int, int], origin: tuple[int, int], axis: str) -> np.ndarray:
    """The uniform sky through a grism, over the full frame about 1.

    The pick-off mirror ends the field: near the edges one order after the other is missing, which leaves soft steps along the
    dispersion, on top of a gentle slope.

    Parameters
    ----------
    shape, origin
        (ny, nx) of the array, and the full-frame column and row of its first pixel.
    axis
        Axis of the dispersion, "x" or "y".

    Returns
    -------
    (ny, nx) float64
    """
    x, y = np.arange(shape[1]) + float(origin[0]), np.arange(shape[0]) + float(origin[1])
    along, across = (x[None, :], y[:, None]) if axis == "x" else (y[:, None], x[None, :])
    first = 1.0 / (1.0 + np.exp((along - 1850.0) / 18.0))  # order +1 of the light beyond the far edge is missing
    zeroth = 1.0 / (1.0 + np.exp(-(along - 205.0) / 9.0))  # order 0 of the light beyond the near edge is missing
    return (0.62 * first + 0.12 * zeroth + 0.26) * (1.0 + 4e-5 * (across - 1023.5) - 2e-5 * (along - 1023.5))
