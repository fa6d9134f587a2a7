"""Slitless spectra: where light of a given wavelength and order of a given source falls on the detector, and back.

A source with the direct position (x0, y0) makes one trace per order. With the trace parameter t, a polynomial of the
wavelength,

    x = x0 + sum_k a_k(x0, y0) t^k,    y = y0 + sum_k b_k(x0, y0) t^k,    wavelength = sum_k c_k(x0, y0) t^k,

and a_k, b_k, c_k are polynomials of the direct position (or mere numbers). NIRISS and MIRI give t as a polynomial of the
wavelength besides; NIRCam did, but its newer references do not. The grism of NIRISS sits in a wheel whose angle is not
quite the same each time; the whole offset turns with it. Direct positions are pixels of the exposure's own array.

Two forms of the same thing stand here. `grism_wcs` is the gwcs of the file, made of the classes that every reader of the
archive's files has. `Dispersion` holds the coefficients as arrays, read from that gwcs, and `place` and
`wavelengths_along` work on all sources, orders and wavelengths at once: one gwcs call at a time costs milliseconds.

The classes of the file look t up in a table of 10 (NIRISS, MIRI) or 40 (NIRCam) places along the trace; the arrays solve
for it. Where the dispersion is uneven, as that of MIRI's prism, the table is off by up to a pixel. Beyond the ends of
the trace (t = 0 and 1) both go on straight.

References
----------
JWST pipeline documentation, "assign_wcs", section "WFSS"; reference file SPECWCS (NIRISS, NIRCam, MIRI).
Pirzkal & Ryan (2017), "A more generalized coordinate transformation approach for grisms", STScI.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units
from astropy.modeling import Model, bind_bounding_box
from astropy.modeling.models import Const1D, Identity, Polynomial1D, Polynomial2D, Shift
from astropy.modeling.models import Mapping as Remap
from gwcs import WCS, coordinate_frames
from stdatamodels.jwst.transforms.models import (
    MIRIWFSSBackwardDispersion,
    MIRIWFSSForwardDispersion,
    NIRCAMBackwardGrismDispersion,
    NIRCAMForwardColumnGrismDispersion,
    NIRCAMForwardRowGrismDispersion,
    NIRISSBackwardGrismDispersion,
    NIRISSForwardColumnGrismDispersion,
    NIRISSForwardRowGrismDispersion,
)

from calibration.jit import kernel

SPEED_OF_LIGHT = 299_792_458.0  # m/s, exact

#: The dispersion runs along the rows (DISPAXIS 1) or along the columns (2) of the array: by FILTER for NIRISS and MIRI,
#: by PUPIL for NIRCam.
NIRISS_AXIS = {"GR150C": 1, "GR150R": 2}
NIRCAM_AXIS = {"GRISMR": 1, "GRISMC": 2}
MIRI_AXIS = {"P750L": 2}


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
    wave_terms : (norders, nl, m, m) float64
        Coefficients of the wavelength at the telescope [um], likewise.
    to_t : (norders, nk) float64
        Coefficients of t as a polynomial of the wavelength at the telescope [um]; nk is 0 where the reference does not give
        them: then ``wave_terms`` is solved for t.
    velocity : float
        Barycentric wavelength over the one at the telescope.
    """

    orders: tuple[int, ...]
    axis: int
    x_terms: np.ndarray
    y_terms: np.ndarray
    wave_terms: np.ndarray
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


def niriss_disperser(specwcs: Mapping[str, Any], grism: str, wheel: float) -> Model:
    """The model (x, y, direct x, direct y, order) -> (direct x, direct y, wavelength, order) of a NIRISS grism.

    Parameters
    ----------
    specwcs : mapping
        Tree of the specwcs reference: ``orders``, ``dispx``, ``dispy``, ``displ``, ``invdispl``, ``fwcpos_ref``.
    grism : str
        FILTER: GR150R or GR150C.
    wheel : float
        FWCPOS, the angle of the filter wheel [deg].
    """
    axis = _axis(NIRISS_AXIS, grism, "FILTER", "NIRISS")
    _check(specwcs, ("orders", "dispx", "dispy", "displ", "invdispl", "fwcpos_ref"), f"NIRISS WFSS ({grism})")
    orders = [int(order) for order in specwcs["orders"]]
    dispx, dispy = ([list(terms) for terms in specwcs[key]] for key in ("dispx", "dispy"))
    turn = wheel - float(specwcs["fwcpos_ref"])
    forward_class = NIRISSForwardRowGrismDispersion if axis == 1 else NIRISSForwardColumnGrismDispersion
    disperse: Model = forward_class(orders, lmodels=list(specwcs["displ"]), xmodels=dispx, ymodels=dispy, theta=turn)
    disperse.inverse = NIRISSBackwardGrismDispersion(
        orders, lmodels=list(specwcs["invdispl"]), xmodels=dispx, ymodels=dispy, theta=-turn
    )
    return disperse


def nircam_disperser(specwcs: Mapping[str, Any], grism: str) -> Model:
    """The model (x, y, direct x, direct y, order) -> (direct x, direct y, wavelength, order) of a NIRCam grism.

    Parameters
    ----------
    specwcs : mapping
        Tree of the specwcs reference: ``orders``, ``dispx``, ``dispy``, ``displ``; per order a polynomial of t, or a list of
        polynomials of the direct position, one per power of t. ``invdispl``, ``invdispx``, ``invdispy`` where it has them.
    grism : str
        PUPIL: GRISMR or GRISMC.
    """
    axis = _axis(NIRCAM_AXIS, grism, "PUPIL", "NIRCam")
    _check(specwcs, ("orders", "dispx", "dispy", "displ"), f"NIRCam WFSS ({grism})")
    if specwcs.get("stripes") is not None:
        raise ValueError(f"the specwcs reference is one for stripes (DHS); use one for NIRCam WFSS ({grism})")
    orders = [int(order) for order in specwcs["orders"]]
    names = {"displ": "lmodels", "dispx": "xmodels", "dispy": "ymodels"}
    names |= {f"inv{key}": f"inv_{name}" for key, name in names.items()}
    models = {name: _plain(specwcs[key]) for key, name in names.items() if specwcs.get(key) is not None}
    traces = ("lmodels", "xmodels", "ymodels")
    if any(isinstance(order, list) for name in traces for order in models[name]):
        # The file takes either models alone, or lists alone.
        for name in traces:
            models[name] = [order if isinstance(order, list) else [order] for order in models[name]]
    forward_class = NIRCAMForwardRowGrismDispersion if axis == 1 else NIRCAMForwardColumnGrismDispersion
    disperse: Model = forward_class(orders, **models)
    disperse.inverse = NIRCAMBackwardGrismDispersion(orders, **models)
    return disperse


def miri_disperser(specwcs: Mapping[str, Any]) -> Model:
    """The model (x, y, direct x, direct y, order) -> (direct x, direct y, wavelength, order) of the prism of MIRI.

    Parameters
    ----------
    specwcs : mapping
        Tree of the specwcs reference: ``orders``, ``dispx``, ``dispy``, ``displ``, ``invdispl``.
    """
    _check(specwcs, ("orders", "dispx", "dispy", "displ", "invdispl"), "MIRI WFSS (P750L)")
    orders = [int(order) for order in specwcs["orders"]]
    dispx, dispy, displ, invdispl = (_plain(specwcs[key]) for key in ("dispx", "dispy", "displ", "invdispl"))
    disperse: Model = MIRIWFSSForwardDispersion(orders, lmodels=displ, xmodels=dispx, ymodels=dispy)
    disperse.inverse = MIRIWFSSBackwardDispersion(orders, lmodels=invdispl, xmodels=dispx, ymodels=dispy)
    return disperse


def _axis(known: Mapping[str, int], grism: str, keyword: str, instrument: str) -> int:
    if grism not in known:
        raise ValueError(
            f"expected {keyword} to be one of {sorted(known)} for a {instrument} grism exposure, but it is {grism}"
        )
    return known[grism]


def _check(specwcs: Mapping[str, Any], needed: Sequence[str], mode: str) -> None:
    missing = [key for key in needed if specwcs.get(key) is None]
    if missing:
        raise ValueError(f"the specwcs reference has no {', '.join(missing)}; use one for {mode}")


def _plain(models: Any) -> Any:
    """Models in the lists that an ASDF tree has, in lists of Python's own."""
    return models if isinstance(models, Model) else [_plain(model) for model in models]


def grism_wcs(imaging: WCS, disperser: Model, velosys: float | None = None) -> WCS:
    """The WCS of a grism exposure.

    Parameters
    ----------
    imaging : gwcs.WCS
        What the WCS of the exposure would be without the grism, from "detector" to "world"
        (`calibration.wcs.imaging.imaging_wcs`).
    disperser : Model
        Of the grism: `niriss_disperser`, `nircam_disperser`, `miri_disperser`.
    velosys : float, optional
        VELOSYS, velocity of the telescope along the line of sight [m/s]: wavelengths become barycentric.

    Returns
    -------
    gwcs.WCS
        Frames grism_detector (x, y, direct x, direct y, order), then detector, v2v3, v2v3vacorr and world, each
        (two spatial axes, wavelength [um], order).
    """
    if velosys is not None:
        disperser = disperser | Remap((0, 1, 2, 3)) | Identity(2) & _barycentric(velosys) & Identity(1)

    grism_detector = coordinate_frames.Frame2D(
        name="grism_detector", axes_order=(0, 1), axes_names=("x_grism", "y_grism"), unit=(units.pix, units.pix)
    )
    spectral = coordinate_frames.SpectralFrame(
        name="spectral", axes_order=(2,), unit=(units.micron,), axes_names=("wavelength",)
    )
    steps: list[tuple] = [(grism_detector, disperser)]
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
        If the WCS has no grism in it.
    """
    if "grism_detector" not in grism.available_frames:
        raise ValueError(
            f"expected a WCS with a frame grism_detector, but it has {', '.join(grism.available_frames)}; "
            "run assign_wcs on the grism exposure first"
        )
    leaves = _leaves(grism.get_transform("grism_detector", "detector"))
    dispersers = [leaf for leaf in leaves if isinstance(leaf, tuple(_DISPERSERS))]
    if len(dispersers) != 1:
        raise ValueError(
            "expected one disperser of NIRISS, NIRCam or MIRI between the frames grism_detector and detector of the WCS, but "
            f"there are {len(dispersers)}; run assign_wcs on the grism exposure again"
        )
    forward, backward = dispersers[0], dispersers[0].inverse
    # NIRCam's files keep no inverse of the wavelength.
    inverse = backward.inv_lmodels if isinstance(backward, NIRCAMBackwardGrismDispersion) else backward.lmodels
    velocity = [float(leaf.amplitude.value) for leaf in leaves if leaf.name == "velocity_correction"]
    turn = np.deg2rad(float(getattr(backward, "theta", 0.0)))
    x_terms, y_terms = _dense(forward.xmodels), _dense(forward.ymodels)
    nt, size = max(x_terms.shape[1], y_terms.shape[1]), max(x_terms.shape[2], y_terms.shape[2])
    x_terms, y_terms = (_pad(terms, (len(x_terms), nt, size, size)) for terms in (x_terms, y_terms))
    return Dispersion(
        orders=tuple(int(order) for order in forward.orders),
        axis=_DISPERSERS[type(forward)],
        x_terms=np.cos(turn) * x_terms - np.sin(turn) * y_terms,
        y_terms=np.sin(turn) * x_terms + np.cos(turn) * y_terms,
        wave_terms=_dense(forward.lmodels),
        to_t=_polynomials_of_wavelength(inverse, len(forward.orders)),
        velocity=velocity[0] if velocity else 1.0,
    )


_DISPERSERS = {
    NIRISSForwardRowGrismDispersion: 1,
    NIRISSForwardColumnGrismDispersion: 2,
    NIRCAMForwardRowGrismDispersion: 1,
    NIRCAMForwardColumnGrismDispersion: 2,
    MIRIWFSSForwardDispersion: 2,
}


def _leaves(model: Model) -> list[Model]:
    count = model.n_submodels
    return [model] if count == 1 else [model[i] for i in range(count)]


def _dense(models: Sequence[Any]) -> np.ndarray:
    """(norders, nt, n, n) coefficients of t^k x0^i y0^j of each order.

    An order is a polynomial of t, or a list of one, or a list of polynomials of (x0, y0), one per power of t.
    """
    found: list[dict[tuple[int, int, int], float]] = []
    for order in models:
        terms = {}
        powers = [order] if isinstance(order, Model) else list(order)
        if len(powers) == 1 and powers[0].n_inputs == 1:
            terms = {(k, 0, 0): value for (k,), value in _coefficients(powers[0]).items()}
        else:
            for k, model in enumerate(powers):
                terms |= {(k, i, j): value for (i, j), value in _coefficients(model).items()}
        found.append(terms)
    nt = max(key[0] for terms in found for key in terms) + 1
    size = max(max(key[1:]) for terms in found for key in terms) + 1
    dense = np.zeros((len(found), nt, size, size))
    for m, terms in enumerate(found):
        for key, value in terms.items():
            dense[m, *key] = value
    return dense


def _coefficients(model: Model) -> dict[tuple[int, ...], float]:
    """Powers -> coefficient of a polynomial (c0, c1, ... or c0_0, c1_0, ...)."""
    if not isinstance(model, (Polynomial1D, Polynomial2D)):
        raise ValueError(
            f"expected the specwcs reference to hold polynomials, but it has a {type(model).__name__}; "
            "use a reference in the form of the observatory"
        )
    return {
        tuple(map(int, name[1:].split("_"))): float(value)
        for name, value in zip(model.param_names, model.parameters, strict=True)
    }


def _polynomials_of_wavelength(models: Any, norders: int) -> np.ndarray:
    """(norders, nk) coefficients of t; without any where an order has none, or one that depends on the position."""
    if not models:
        return np.zeros((norders, 0))
    single = [model[0] if not isinstance(model, Model) and len(model) == 1 else model for model in models]
    if not all(isinstance(model, Model) and model.n_inputs == 1 for model in single):
        return np.zeros((norders, 0))
    return _dense(single)[:, :, 0, 0]


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
    return tuple(_at(terms, order, x0, y0) for terms in (dispersion.x_terms, dispersion.y_terms))  # type: ignore[return-value]


def _at(terms: np.ndarray, order: np.ndarray, x0: np.ndarray, y0: np.ndarray) -> np.ndarray:
    """(ntraces, nt) the polynomials of t at the direct positions."""
    powers = np.arange(terms.shape[-1])
    basis = np.asarray(x0, float)[:, None, None] ** powers[:, None] * np.asarray(y0, float)[:, None, None] ** powers
    return np.einsum("skij,sij->sk", terms[np.asarray(order, int)], basis)


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
    t = trace_parameter(dispersion, order, x0, y0, wavelength)
    return np.asarray(x0)[:, None] + _polynomial(x_of_t, t), np.asarray(y0)[:, None] + _polynomial(y_of_t, t)


def trace_parameter(
    dispersion: Dispersion, order: np.ndarray, x0: np.ndarray, y0: np.ndarray, wavelength: np.ndarray
) -> np.ndarray:
    """(ntraces, nwave) float64: the trace parameter t of wavelengths; parameters as those of `place`."""
    order = np.asarray(order, int)
    wavelength = np.asarray(wavelength, float) / dispersion.velocity
    wavelength = np.broadcast_to(wavelength, (order.size, wavelength.shape[-1]))
    if dispersion.to_t.shape[1]:
        return _polynomial(dispersion.to_t[order], wavelength)
    return solve(_at(dispersion.wave_terms, order, x0, y0), wavelength)


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
    """
    x_of_t, y_of_t = trace_terms(dispersion, order, x0, y0)
    along, direct = (x_of_t, x0) if dispersion.axis == 1 else (y_of_t, y0)
    wanted = np.asarray(start)[:, None] + np.arange(size) - np.asarray(direct, float)[:, None]
    t = solve(along, wanted)
    return _polynomial(_at(dispersion.wave_terms, order, x0, y0), t) * dispersion.velocity


def solve(coefficients: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where polynomials of t have the values that are wanted, each going on straight beyond t = 0 and 1.

    Parameters
    ----------
    coefficients : (n, k) float64
        One polynomial a row, lowest power first; it must rise or fall throughout from 0 to 1.
    wanted : (n, m) float64

    Returns
    -------
    (n, m) float64
        t; NaN where Newton's method finds none, because the polynomial turns back or does not change at all.
    """
    found = np.empty(wanted.shape)
    _solve(np.ascontiguousarray(coefficients), np.ascontiguousarray(wanted), found)
    return found


# s = polynomial, i = value
@kernel
def _solve(coefficients, wanted, found):
    n, m = wanted.shape
    last = coefficients.shape[1] - 1
    for s in range(n):
        first, total = coefficients[s, 0], 0.0
        for k in range(last + 1):
            total += coefficients[s, k]
        across = total - first
        t, slope = np.nan, across
        for i in range(m):
            # From the neighbour, which is near; at the start from the line between the ends.
            t = (wanted[s, i] - first) / across if np.isnan(t) else t + (wanted[s, i] - wanted[s, i - 1]) / slope
            converged = False
            for _ in range(50):
                inside = min(max(t, 0.0), 1.0)
                value = slope = 0.0
                for k in range(last, -1, -1):
                    slope = slope * inside + value
                    value = value * inside + coefficients[s, k]
                step = (value + slope * (t - inside) - wanted[s, i]) / slope
                t -= step
                # The next step would be smaller than any rounding.
                if abs(step) <= 1e-10 * (1.0 + abs(t)):
                    converged = True
                    break
            if not converged:
                t = np.nan
            found[s, i] = t
