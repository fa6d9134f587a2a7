"""The grisms of NIRCam and the prism of MIRI as the simulator has them.

The traces have the size of the real ones (NIRCam: 10.0 Angstrom per pixel in order +1, half of that in order +2, GRISMR
along rows, towards smaller x in module B; MIRI: one order, 70 to 20 nm per pixel down the columns) but are our own numbers.
NIRCam's zeroth order falls outside of the detector.
"""

import numpy as np

from calibration.simulate.dispersion import Grism, Trace

#: Order -> (peak efficiency, its wavelength [um], width [um]).
NIRCAM_ORDERS = {1: (0.60, 3.7, 1.4), 2: (0.08, 2.9, 0.8)}
MIRI_ORDERS = {1: (0.75, 7.5, 6.0)}

# Coefficients of 1, x, x^2, y, y^2, xy; one line per power of t.
_NIRCAM_ALONG = {
    1: ((-1530.9, 0.0, 0.0, 0.0, 0.0, 0.0), (2589.6, 0.0, 0.0, 0.0, 0.0, 0.0)),
    2: ((859.6, 0.0, 0.0, 0.0, 0.0, 0.0), (5179.3, 0.0, 0.0, 0.0, 0.0, 0.0)),
}
_NIRCAM_ACROSS = {
    1: ((-1.2, 8.0e-4, 1e-8, -3.0e-4, 0.0, 0.0), (3.0, -2.0e-3, 0.0, 1.0e-3, 2e-8, 0.0), (-0.8, 4.0e-4, 0.0, 0, 0, 0)),
    2: ((-2.1, 9.0e-4, 0.0, -2.0e-4, 1e-8, 0.0), (5.0, -3.0e-3, 1e-8, 1.0e-3, 0.0, 0.0), (-1.1, 5.0e-4, 0.0, 0, 0, 0)),
}
_MIRI_ALONG = (
    (150.0, 2e-4, 0.0, -1e-4, 0.0, 0.0),
    (-150.0, 4e-4, 1e-7, 2e-4, 0.0, 0.0),
    (-100.0, 1e-4, 0.0, 0.0, 1e-7, 0.0),
    (-60.0, 0.0, 0.0, 1e-4, 0.0, 0.0),
)
_MIRI_ACROSS = ((0.4, 1e-4, 0.0, 0.0, 0.0, 0.0), (-1.5, 0.0, 0.0, 2e-4, 0.0, 1e-8), (0.3, 0.0, 0.0, 0.0, 0.0, 0.0))


def nircam_grism(name: str, module: str) -> Grism:
    """GRISMR or GRISMC of a module, "A" or "B", for the full frame."""
    if name not in ("GRISMR", "GRISMC") or module not in ("A", "B"):
        raise ValueError(f"expected GRISMR or GRISMC and module A or B, but got {name!r} and {module!r}")
    sign = -1.0 if (name, module) == ("GRISMR", "B") else 1.0
    traces = {}
    for order in _NIRCAM_ALONG:
        along = tuple(sign * np.array(terms) for terms in _NIRCAM_ALONG[order])
        across = tuple(np.array(terms) for terms in _NIRCAM_ACROSS[order])
        traces[order] = _trace(along, across, along_x=name == "GRISMR")
    return Grism(name, "x" if name == "GRISMR" else "y", traces, 2.4, 2.6, 0.0, 0.0, NIRCAM_ORDERS)


def miri_prism() -> Grism:
    """P750L, for the full frame."""
    along, across = (tuple(np.array(terms) for terms in of) for of in (_MIRI_ALONG, _MIRI_ACROSS))
    return Grism("P750L", "y", {1: _trace(along, across, along_x=False)}, 4.0, 10.0, 0.0, 0.0, MIRI_ORDERS)


def _trace(along: tuple[np.ndarray, ...], across: tuple[np.ndarray, ...], along_x: bool) -> Trace:
    size = max(len(along), len(across))
    along, across = (terms + (np.zeros(6),) * (size - len(terms)) for terms in (along, across))
    return Trace(along, across) if along_x else Trace(across, along)
