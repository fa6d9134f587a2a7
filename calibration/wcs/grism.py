"""Slitless spectra: where light of a given wavelength and order of a given source falls on the detector, and back.

A source with the direct position (x0, y0) makes one trace per order. With the trace parameter t, a polynomial of the
wavelength,

    x = x0 + sum_k a_k(x0, y0) t^k,    y = y0 + sum_k b_k(x0, y0) t^k,

and a_k, b_k are polynomials of the direct position. The grism sits in a wheel whose angle is not quite the same each
time; the whole offset turns with it. Direct positions are pixels of the exposure's own array.

Two forms of the same thing stand here. `grism_wcs` is the gwcs of the file, made of the classes that every reader of the
archive's files has. `Dispersion` holds the coefficients as arrays, read from that gwcs, and `place` and
`wavelengths_along` work on all sources, orders and wavelengths at once: one gwcs call at a time costs milliseconds.

References
----------
JWST pipeline documentation, "assign_wcs", section "WFSS"; reference file SPECWCS (NIRISS).
Pirzkal & Ryan (2017), "A more generalized coordinate transformation approach for grisms", STScI.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units
from astropy.modeling import Model, bind_bounding_box
from astropy.modeling.models import Const1D, Identity, Shift
from astropy.modeling.models import Mapping as Remap
from gwcs import WCS, coordinate_frames
from stdatamodels.jwst.transforms.models import (
    NIRISSBackwardGrismDispersion,
    NIRISSForwardColumnGrismDispersion,
    NIRISSForwardRowGrismDispersion,
)

SPEED_OF_LIGHT = 299_792_458.0  # m/s, exact

#: The dispersion runs along the rows (DISPAXIS 1) or along the columns (2) of the array.
NIRISS_AXIS = {"GR150C": 1, "GR150R": 2}


@dataclass(frozen=True)
class Dispersion:
    """The dispersion of one grism exposure as arrays.

    Attributes
    ----------
    orders : tuple of int
        Spectral orders; the first index of the arrays.
    axis : int
        DISPAXIS: 1 where x runs along the dispersion, 2 where y does.
    x_terms, y_terms : (norders, nt, n, n) float64
        Coefficient of t^k x0^i y0^j at [order, k, i, j], as the wheel stood in this exposure [pixel].
    to_t : (norders, nl) float64
        Coefficients of t as a polynomial of the wavelength [um].
    velocity : float
        Barycentric wavelength over the one at the telescope.
    """

    orders: tuple[int, ...]
    axis: int
    x_terms: np.ndarray
    y_terms: np.ndarray
    to_t: np.ndarray
    velocity: float = 1.0

    def index(self, order: int) -> int:
        """The position of an order in the arrays."""
        if order not in self.orders:
            raise ValueError(
                f"the dispersion has the orders {sorted(self.orders)}, but order {order} was asked for; "
                "choose among them (extract_orders), or use another specwcs reference"
            )
        return self.orders.index(order)


def grism_wcs(imaging: WCS, specwcs: Mapping[str, Any], grism: str, wheel: float, velosys: float | None = None) -> WCS:
    """The WCS of a NIRISS grism exposure.

    Parameters
    ----------
    imaging : gwcs.WCS
        What the WCS of the exposure would be without the grism, from "detector" to "world"
        (`calibration.wcs.imaging.imaging_wcs`).
    specwcs : mapping
        Tree of the specwcs reference: ``orders``, ``dispx``, ``dispy``, ``displ``, ``invdispl``, ``fwcpos_ref``.
    grism : str
        FILTER: GR150R or GR150C.
    wheel : float
        FWCPOS, the angle of the filter wheel [deg].
    velosys : float, optional
        VELOSYS, velocity of the telescope along the line of sight [m/s]: wavelengths become barycentric.

    Returns
    -------
    gwcs.WCS
        Frames grism_detector (x, y, direct x, direct y, order), then detector, v2v3, v2v3vacorr and world, each
        (two spatial axes, wavelength [um], order).
    """
    if grism not in NIRISS_AXIS:
        raise ValueError(
            f"expected FILTER to be one of {sorted(NIRISS_AXIS)} for a NIRISS grism exposure, but it is {grism}"
        )
    missing = [key for key in ("orders", "dispx", "dispy", "displ", "invdispl", "fwcpos_ref") if key not in specwcs]
    if missing:
        raise ValueError(f"the specwcs reference has no {', '.join(missing)}; use one for NIRISS WFSS ({grism})")
    orders = [int(order) for order in specwcs["orders"]]
    dispx, dispy = ([list(terms) for terms in specwcs[key]] for key in ("dispx", "dispy"))
    turn = wheel - float(specwcs["fwcpos_ref"])
    forward_class = NIRISSForwardRowGrismDispersion if NIRISS_AXIS[grism] == 1 else NIRISSForwardColumnGrismDispersion
    disperse: Model = forward_class(orders, lmodels=list(specwcs["displ"]), xmodels=dispx, ymodels=dispy, theta=turn)
    disperse.inverse = NIRISSBackwardGrismDispersion(
        orders, lmodels=list(specwcs["invdispl"]), xmodels=dispx, ymodels=dispy, theta=-turn
    )
    if velosys is not None:
        disperse = disperse | Remap((0, 1, 2, 3)) | Identity(2) & _barycentric(velosys) & Identity(1)

    grism_detector = coordinate_frames.Frame2D(
        name="grism_detector", axes_order=(0, 1), axes_names=("x_grism", "y_grism"), unit=(units.pix, units.pix)
    )
    spectral = coordinate_frames.SpectralFrame(
        name="spectral", axes_order=(2,), unit=(units.micron,), axes_names=("wavelength",)
    )
    steps: list[tuple] = [(grism_detector, disperse)]
    for step in imaging.pipeline:
        frame = _renamed(step.frame, "sky" if step.frame.name == "world" else f"{step.frame.name}spatial")
        both = coordinate_frames.CompositeFrame([frame, spectral], name=step.frame.name)
        steps.append((both, None if step.transform is None else step.transform & Identity(2)))
    return WCS(steps)


def _barycentric(velosys: float) -> Model:
    """The model that multiplies wavelengths at the telescope to barycentric ones."""
    factor = 1 / (1 + velosys / SPEED_OF_LIGHT)
    model = Identity(1) * Const1D(factor, name="velocity_correction")
    model.inverse = Identity(1) / Const1D(factor, name="inv_vel_correction")
    return model


def _renamed(frame: Any, name: str) -> Any:
    if isinstance(frame, coordinate_frames.CelestialFrame):
        return coordinate_frames.CelestialFrame(name=name, reference_frame=frame.reference_frame)
    return coordinate_frames.Frame2D(
        name=name, axes_order=frame.axes_order, axes_names=frame.axes_names, unit=frame.unit
    )


def slit_wcs(grism: WCS, x: int, y: int, shape: tuple[int, int], direct: tuple[float, float], order: int) -> WCS:
    """The WCS of the cutout of one source and order: a frame "grism_slit" (x, y) before those of ``grism``.

    Parameters
    ----------
    grism : gwcs.WCS
        WCS of the exposure. Its transforms are shared, not copied.
    x, y : int
        Pixel of the exposure, zero-based, of the first pixel of the cutout.
    shape : (int, int)
        (ny, nx) of the cutout.
    direct : (float, float)
        Direct position (x0, y0) of the source [pixel, zero-based].
    order : int
        Spectral order.
    """
    constants = []
    for value in (*map(float, direct), float(order)):
        constant = Const1D(value)
        constant.inverse = Const1D(value)
        constants.append(constant)
    to_grism = Remap((0, 1, 0, 0, 0)) | (Shift(float(x)) & Shift(float(y)) & constants[0] & constants[1] & constants[2])
    bind_bounding_box(to_grism, ((-0.5, shape[1] - 0.5), (-0.5, shape[0] - 0.5)), order="F")
    first = coordinate_frames.Frame2D(
        name="grism_slit", axes_order=(0, 1), axes_names=("x_grism", "y_grism"), unit=(units.pix, units.pix)
    )
    return WCS([(first, to_grism), *((step.frame, step.transform) for step in grism.pipeline)])


def exposure_wcs(slit: WCS) -> WCS:
    """The WCS of the exposure that a slit was cut out of: that of the slit without its first frame."""
    steps = [(step.frame, step.transform) for step in slit.pipeline]
    return WCS(steps[1:] if slit.available_frames[0] == "grism_slit" else steps)


def dispersion_of(grism: WCS) -> Dispersion:
    """The coefficients of the dispersion that stand in the WCS of a grism exposure.

    Raises
    ------
    ValueError
        If the WCS has no NIRISS grism in it.
    """
    if "grism_detector" not in grism.available_frames:
        raise ValueError(
            f"expected a WCS with a frame grism_detector, but it has {', '.join(grism.available_frames)}; "
            "run assign_wcs on the grism exposure first"
        )
    leaves = _leaves(grism.get_transform("grism_detector", "detector"))
    rows = [leaf for leaf in leaves if isinstance(leaf, NIRISSForwardRowGrismDispersion)]
    columns = [leaf for leaf in leaves if isinstance(leaf, NIRISSForwardColumnGrismDispersion)]
    if len(rows) + len(columns) != 1:
        raise ValueError(
            "expected the dispersion of a NIRISS grism in the WCS; other instruments are not supported yet"
        )
    backward = (rows + columns)[0].inverse
    velocity = [float(leaf.amplitude.value) for leaf in leaves if leaf.name == "velocity_correction"]
    return dispersion_from_models(
        [int(order) for order in backward.orders],
        backward.xmodels,
        backward.ymodels,
        backward.lmodels,
        axis=1 if rows else 2,
        turn=float(backward.theta),
        velocity=velocity[0] if velocity else 1.0,
    )


def _leaves(model: Model) -> list[Model]:
    count = model.n_submodels
    return [model] if count == 1 else [model[i] for i in range(count)]


def dispersion_from_models(
    orders: Sequence[int],
    dispx: Sequence[Sequence[Model]],
    dispy: Sequence[Sequence[Model]],
    invdispl: Sequence[Model],
    axis: int,
    turn: float = 0.0,
    velocity: float = 1.0,
) -> Dispersion:
    """`Dispersion` from the polynomial models of a specwcs reference, all of it turned by ``turn`` [deg]."""
    x_terms, y_terms = _dense(dispx), _dense(dispy)
    nt, size = max(x_terms.shape[1], y_terms.shape[1]), max(x_terms.shape[2], y_terms.shape[2])
    x_terms, y_terms = (_pad(terms, (len(orders), nt, size, size)) for terms in (x_terms, y_terms))
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    degree = max(model.degree for model in invdispl)
    to_t = np.array(
        [[getattr(model, f"c{k}").value if k <= model.degree else 0.0 for k in range(degree + 1)] for model in invdispl]
    )
    return Dispersion(
        orders=tuple(orders),
        axis=axis,
        x_terms=cos * x_terms - sin * y_terms,
        y_terms=sin * x_terms + cos * y_terms,
        to_t=to_t,
        velocity=velocity,
    )


def _dense(models: Sequence[Sequence[Model]]) -> np.ndarray:
    """(norders, nt, n, n) coefficients of the polynomials of x and y, one per order and power of t."""
    nt = max(len(terms) for terms in models)
    size = max(model.degree for terms in models for model in terms) + 1
    dense = np.zeros((len(models), nt, size, size))
    for m, terms in enumerate(models):
        for k, model in enumerate(terms):
            for name, value in zip(model.param_names, model.parameters, strict=True):
                i, j = map(int, name[1:].split("_"))
                dense[m, k, i, j] = value
    return dense


def _pad(terms: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.pad(terms, [(0, wanted - have) for wanted, have in zip(shape, terms.shape, strict=True)])


def trace_terms(
    dispersion: Dispersion, order: np.ndarray, x0: np.ndarray, y0: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The polynomials of t of many traces.

    Parameters
    ----------
    order : (ntraces,) int
        Index of the order in ``dispersion.orders``.
    x0, y0 : (ntraces,) float
        Direct positions [pixel].

    Returns
    -------
    x_of_t, y_of_t : (ntraces, nt) float64
        Coefficients of the offsets from the direct position [pixel].
    """
    powers = np.arange(dispersion.x_terms.shape[-1])
    basis = np.asarray(x0, float)[:, None, None] ** powers[:, None] * np.asarray(y0, float)[:, None, None] ** powers
    order = np.asarray(order, int)
    return (
        np.einsum("skij,sij->sk", dispersion.x_terms[order], basis),
        np.einsum("skij,sij->sk", dispersion.y_terms[order], basis),
    )


def place(
    dispersion: Dispersion, order: np.ndarray, x0: np.ndarray, y0: np.ndarray, wavelength: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where light falls: many traces at many wavelengths at once.

    Parameters
    ----------
    order : (ntraces,) int
        Index of the order in ``dispersion.orders``.
    x0, y0 : (ntraces,) float
        Direct positions [pixel].
    wavelength : (ntraces, nwave) or (nwave,) float
        Barycentric wavelength [um].

    Returns
    -------
    x, y : (ntraces, nwave) float64
        Pixel of the exposure's array, zero-based.
    """
    x_of_t, y_of_t = trace_terms(dispersion, order, x0, y0)
    t = _trace_parameter(dispersion, np.asarray(order, int), wavelength)
    return np.asarray(x0)[:, None] + _polynomial(x_of_t, t), np.asarray(y0)[:, None] + _polynomial(y_of_t, t)


def _trace_parameter(dispersion: Dispersion, order: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    wavelength = np.asarray(wavelength, float) / dispersion.velocity
    wavelength = np.broadcast_to(wavelength, (order.size, wavelength.shape[-1]))
    return _polynomial(dispersion.to_t[order], wavelength)


def _polynomial(coefficients: np.ndarray, t: np.ndarray) -> np.ndarray:
    """sum_k c[s, k] t[s, :]^k."""
    total = np.zeros(t.shape)
    for k in reversed(range(coefficients.shape[1])):
        total = total * t + coefficients[:, k, None]
    return total


def wavelengths_along(
    dispersion: Dispersion, order: np.ndarray, x0: np.ndarray, y0: np.ndarray, start: np.ndarray, size: int
) -> np.ndarray:
    """The wavelength at successive pixels along the dispersion, of many traces.

    Parameters
    ----------
    order : (ntraces,) int
        Index of the order in ``dispersion.orders``.
    x0, y0 : (ntraces,) float
        Direct positions [pixel].
    start : (ntraces,) int
        Pixel (x or y, along the dispersion) of the first wavelength.
    size : int
        Number of pixels.

    Returns
    -------
    (ntraces, size) float64
        Barycentric wavelength [um].

    Notes
    -----
    The trace gives the pixel as a polynomial of t, and t as one of the wavelength. We invert both by Newton's method from
    the straight line; the curvature is slight, so that four steps reach the rounding error.
    """
    x_of_t, y_of_t = trace_terms(dispersion, order, x0, y0)
    along, direct = (x_of_t, x0) if dispersion.axis == 1 else (y_of_t, y0)
    wanted = np.asarray(start)[:, None] + np.arange(size) - np.asarray(direct, float)[:, None]
    t = _invert(along, wanted)
    return _invert(dispersion.to_t[np.asarray(order, int)], t) * dispersion.velocity


def _invert(coefficients: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    slopes = coefficients[:, 1:] * np.arange(1, coefficients.shape[1])
    found = (wanted - coefficients[:, :1]) / coefficients[:, 1:2]
    for _ in range(4 if coefficients.shape[1] > 2 else 0):
        found = found - (_polynomial(coefficients, found) - wanted) / _polynomial(slopes, found)
    return found
