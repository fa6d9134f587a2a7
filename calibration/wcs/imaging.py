"""The world coordinates of direct images: detector pixel -> V2, V3 -> (freed of velocity aberration) -> sky.

The first part is optics, and comes from the distortion reference (with a small shift per filter); it holds for the
whole detector, so a subarray shifts its pixels first. The rest is where the telescope pointed: see `pointing`.

A WCS takes seconds for the four million pixels of a detector, and is far smoother than they are many: `sample_map`
evaluates it on a coarse grid and interpolates, and says how good that is.
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from astropy.modeling import Model, bind_bounding_box
from astropy.modeling.models import Identity, Shift
from gwcs import WCS
from scipy.interpolate import make_interp_spline
from scipy.linalg import LinAlgWarning

from calibration.jit import kernel
from calibration.wcs.pointing import (
    Pointing,
    detector_frame,
    v2v3_frame,
    v2v3_to_sky,
    velocity_aberration,
    world_frame,
)

Interval = tuple[float, float]


def imaging_wcs(
    pointing: Pointing,
    distortion: Model,
    shape: tuple[int, int],
    origin: tuple[int, int] = (1, 1),
    offset: tuple[float, float] | None = None,
) -> WCS:
    """The WCS of an image, with the frames detector, v2v3, v2v3vacorr and world.

    Parameters
    ----------
    pointing : Pointing
    distortion : Model
        From full-frame pixel (x, y), zero-based, to (V2, V3) [arcsec], of the distortion reference.
    shape : (int, int)
        (ny, nx) of the image.
    origin : (int, int)
        SUBSTRT1, SUBSTRT2 of the image: the one-based full-frame pixel of its first one.
    offset : (float, float), optional
        Shift (x, y) of the filter [pixel], of the filteroffset reference.

    Returns
    -------
    gwcs.WCS
        Its bounding box is the one of the reference, where that has one and the image is not a subarray, and the image
        otherwise.
    """
    transform = distortion_transform(distortion, shape, origin, offset)
    return WCS(
        [
            (detector_frame(), transform),
            (v2v3_frame(), velocity_aberration(pointing)),
            (v2v3_frame("v2v3vacorr"), v2v3_to_sky(pointing)),
            (world_frame(), None),
        ]
    )


def distortion_transform(
    distortion: Model,
    shape: tuple[int, int],
    origin: tuple[int, int] = (1, 1),
    offset: tuple[float, float] | None = None,
) -> Model:
    """The model from the pixels of an image to (V2, V3), with its bounding box; parameters as in `imaging_wcs`."""
    box: tuple[Interval, ...] = ((-0.5, shape[1] - 0.5), (-0.5, shape[0] - 0.5))
    transform = distortion
    if offset is not None:
        transform = (Shift(offset[0]) & Shift(offset[1])) | transform
    if origin != (1, 1):
        to_full = [Shift(start - 1) if start != 1 else Identity(1) for start in origin]
        transform = (to_full[0] & to_full[1]) | transform
    else:
        # A reference without a bounding box of its own raises.
        with contextlib.suppress(NotImplementedError):
            box = distortion.bounding_box.bounding_box(order="F")
    if transform is distortion:
        transform = distortion.copy()
    bind_bounding_box(transform, box, order="F")
    return transform


def filter_offset(rows: Iterable[Mapping[str, Any]], filter_: str, pupil: str | None) -> tuple[float, float] | None:
    """The shift (x, y) [pixel] of a filter and pupil in the rows of a filteroffset reference; None where it has none.

    A row without a pupil (MIRI has no pupil wheel) holds for all of them.

    Raises
    ------
    ValueError
        If rows for the same filter and pupil contradict each other.
    """
    found = set()
    for row in rows:
        if row["filter"] == filter_ and (row.get("pupil") or "N/A") in ("N/A", pupil):
            x, y = row.get("column_offset", "N/A"), row.get("row_offset", "N/A")
            found.add(None if "N/A" in (x, y) else (float(x), float(y)))
    if len(found) > 1:
        raise ValueError(
            f"expected one shift of filter {filter_} and pupil {pupil} in the filteroffset reference, but it has "
            f"{len(found)}; use another reference file"
        )
    return found.pop() if found else None


def pixel_box(wcs: WCS, shape: tuple[int, int]) -> tuple[Interval, Interval]:
    """The bounding box ((x0, x1), (y0, y1)) of a WCS [pixel]; the (ny, nx) image where it has none."""
    box = wcs.bounding_box
    return ((-0.5, shape[1] - 0.5), (-0.5, shape[0] - 0.5)) if box is None else box.bounding_box(order="F")


def footprint(wcs: WCS, shape: tuple[int, int]) -> np.ndarray:
    """(4, 2) right ascension and declination [deg] of the corners of the bounding box, else of the (ny, nx) image."""
    box = wcs.bounding_box
    (x0, x1), (y0, y1) = (
        ((-0.5, shape[1] - 0.5), (-0.5, shape[0] - 0.5)) if box is None else box.bounding_box(order="F")
    )
    ra, dec = wcs(np.array([x0, x0, x1, x1]), np.array([y0, y1, y1, y0]), with_bounding_box=False)
    return np.column_stack([np.mod(ra, 360), dec])


def region(corners: np.ndarray) -> str | None:
    """S_REGION of (4, 2) corners [deg]; None where one is not finite."""
    if not np.isfinite(corners).all():
        return None
    return "POLYGON ICRS  " + " ".join(f"{value:.9f}" for value in np.asarray(corners).ravel())


#: What `sip_keywords` replaces, beside the coefficients themselves.
LINEAR_KEYWORDS = ("CDELT1", "CDELT2", "PC1_1", "PC1_2", "PC2_1", "PC2_2")


def sip_keywords(
    wcs: WCS,
    crpix: tuple[float, float] | None = None,
    max_error: float = 0.01,
    max_inverse_error: float = 0.01,
    degrees: Iterable[int] = range(1, 6),
    inverse_degrees: Iterable[int] = range(1, 6),
    npoints: int = 12,
) -> dict[str, Any]:
    """FITS keywords that approximate a WCS: a tangent plane with SIP polynomials of the lowest degree that does.

    Parameters
    ----------
    wcs : gwcs.WCS
    crpix : (float, float), optional
        Reference pixel, one-based; the middle of the bounding box by default.
    max_error, max_inverse_error : float
        Largest error of the approximation, and of its inverse, that is asked for [pixel].

    Returns
    -------
    dict
        With SIPMXERR and SIPIVERR, the largest errors that remain [pixel]: no degree may be as good as asked for.
    """
    with warnings.catch_warnings():
        # The errors that remain say it better.
        warnings.filterwarnings("ignore", "Failed to achieve requested SIP", LinAlgWarning)
        warnings.filterwarnings("ignore", "Double sampling check FAILED", UserWarning)
        header = wcs.to_fits_sip(
            max_pix_error=max_error,
            degree=list(degrees),
            max_inv_pix_error=max_inverse_error,
            inv_degree=list(inverse_degrees),
            npoints=npoints,
            crpix=None if crpix is None else list(crpix),
            projection="TAN",
        )
    return {key: value for key, value in header.items() if not key.startswith("NAXIS") and key != ""}


def sample_map(
    function: Callable[..., tuple[np.ndarray, ...]],
    shape: tuple[int, int],
    max_error: float = 1e-3,
    spacing: int = 128,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, float]:
    """A smooth function of the pixel at all pixels of an image, by cubic splines through a grid.

    Parameters
    ----------
    function : callable
        (x, y) arrays [pixel] -> tuple of arrays, smooth over the image.
    shape : (int, int)
        (ny, nx).
    max_error : float
        Largest error allowed, in the unit of the values. The spline through every second node is compared with the
        function at the nodes between, where it is worst; the values come from the spline through all nodes, whose error
        is some sixteen times smaller. The grid is refined until it is so, at last to every pixel. 0: the function itself at
        every pixel.
    spacing : int
        First distance of every second node [pixel].
    out : (nvalues, ny, nx) float64, optional
        Array, of any layout, for the values.

    Returns
    -------
    values : (nvalues, ny, nx) float64
    error : float
        The largest error that was found, an upper limit of that of the values; 0 where every pixel was evaluated.
    """
    ny, nx = shape
    while max_error > 0 and spacing >= 4:
        x, y = _nodes(nx, spacing), _nodes(ny, spacing)
        nodes = np.array(function(*np.meshgrid(x, y)))
        coarse = _weights(y[::2], y) @ nodes[:, ::2, ::2] @ _weights(x[::2], x).T
        error = float(np.max(np.abs(coarse - nodes)))
        if error <= max_error:
            out = np.empty((len(nodes), ny, nx)) if out is None else out
            _fill(_weights(y, np.arange(ny)) @ nodes, x, out)
            return out, error
        spacing //= 2
    # In strips: a WCS makes many arrays of the size of what it is asked for.
    step = max(1, _STRIP // nx)
    for first in range(0, ny, step):
        rows = np.arange(first, min(first + step, ny), dtype=float)
        strip = np.array(function(*np.meshgrid(np.arange(nx, dtype=float), rows)))
        out = np.empty((len(strip), ny, nx)) if out is None else out
        out[:, first : first + step] = strip
    if out is None:
        raise ValueError(f"expected an image of one pixel at least, but its shape is {shape}")
    return out, 0.0


#: Pixels that a function is asked for at a time.
_STRIP = 2**17


def _nodes(n: int, spacing: int) -> np.ndarray:
    """Nodes over ``n`` pixels, an odd number of them, of which every second one is enough for a cubic spline."""
    count = 2 * max((n - 1) // spacing + 1, 4) - 1
    return np.linspace(0, n - 1, count) if n > 1 else np.linspace(-1.5, 1.5, count)


def _weights(nodes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(npoints, nnodes): the value of the cubic spline at each point is linear in the values at the nodes."""
    return make_interp_spline(nodes, np.eye(len(nodes)), k=3)(points)


def _fill(rows: np.ndarray, nodes: np.ndarray, out: np.ndarray) -> None:
    """The cubic splines through the values of each row at the nodes: (nvalues, ny, nnodes) -> (nvalues, ny, nx)."""
    spline = make_interp_spline(nodes, np.eye(len(nodes)), k=3)
    # Taylor coefficients at the start of each piece, highest first.
    cubic = np.stack([spline(nodes[:-1], order) / math.factorial(order) for order in (3, 2, 1, 0)], axis=1)
    coefficients = (rows @ cubic.reshape(-1, len(nodes)).T).reshape(*rows.shape[:2], -1, 4)
    # The first pixel of each piece, and the end.
    edges = np.append(np.ceil(nodes[:-1]).clip(0), out.shape[-1]).astype(np.int64)
    _evaluate(coefficients, nodes[:-1], edges, out)


# v = value, y = row, p = piece, x = column
@kernel
def _evaluate(coefficients, starts, edges, out):
    nvalues, ny, npieces, _ = coefficients.shape
    for y in range(ny):
        for v in range(nvalues):
            for p in range(npieces):
                c3, c2, c1, c0 = coefficients[v, y, p]
                for x in range(edges[p], edges[p + 1]):
                    t = x - starts[p]
                    out[v, y, x] = ((c3 * t + c2) * t + c1) * t + c0
