"""From counts per second in a dispersed image to surface brightness: sensitivity and dispersion, pixel by pixel.

The reference gives the surface brightness of one count per second and micrometre; a pixel sees the light of as many
micrometres as the dispersion puts on it.
"""

from dataclasses import dataclass

import numpy as np

from calibration import dq as flags


@dataclass(frozen=True)
class Cutout:
    """The arrays (ny, nx) of one spectrum: signal, standard deviation, flags and variances, of one unit."""

    data: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    var_poisson: np.ndarray | None
    var_rnoise: np.ndarray | None
    var_flat: np.ndarray | None


def dispersed_conversion(
    wavelength: np.ndarray, axis: int, factor: float, waves: np.ndarray, response: np.ndarray
) -> np.ndarray:
    """(ny, nx) float64: MJy/sr for one DN/s at each pixel; NaN where the reference has no sensitivity.

    Parameters
    ----------
    wavelength : (ny, nx) float
        Wavelength at each pixel [um]; NaN where there is none.
    axis : int
        DISPAXIS: 1 where x runs along the dispersion, 2 where y does.
    factor : float
        Scalar of the photom reference [MJy um s / (DN sr)].
    waves, response : (n,) float
        Wavelengths [um] and the relative factor there, in any order.
    """
    order = np.argsort(waves, kind="stable")
    known = np.where(np.isnan(wavelength), -1.0, wavelength)
    relative = np.interp(known, np.asarray(waves, float)[order], np.asarray(response, float)[order], np.nan, np.nan)
    return factor * relative / np.abs(np.gradient(np.asarray(wavelength, np.float64), axis=2 - axis))


def calibrate_cutout(cutout: Cutout, conversion: np.ndarray) -> Cutout:
    """The cutout in the unit of ``conversion``; where that is NaN, the pixel is flagged DO_NOT_USE.

    NaN and DO_NOT_USE go together afterwards: a pixel that has one has the other, in all arrays.
    """
    dq = cutout.dq | np.where(np.isnan(conversion), flags.PIXEL["DO_NOT_USE"], np.uint32(0))
    scaled = {
        name: None if plane is None else (plane * conversion**power).astype(np.float32)
        for name, plane, power in (
            ("data", cutout.data, 1),
            ("err", cutout.err, 1),
            ("var_poisson", cutout.var_poisson, 2),
            ("var_rnoise", cutout.var_rnoise, 2),
            ("var_flat", cutout.var_flat, 2),
        )
    }
    return match_flags(Cutout(dq=dq, **scaled))


def match_flags(cutout: Cutout) -> Cutout:
    """The same cutout, with NaN in all arrays and DO_NOT_USE wherever any array has a NaN or the flag is set."""
    planes = {
        name: plane
        for name in ("data", "err", "var_poisson", "var_rnoise", "var_flat")
        if (plane := getattr(cutout, name)) is not None
    }
    bad = (cutout.dq & flags.PIXEL["DO_NOT_USE"]) != 0
    for plane in planes.values():
        bad |= np.isnan(plane)
    fixed = {name: np.where(bad, np.float32(np.nan), plane) for name, plane in planes.items()}
    dq = cutout.dq | np.where(bad, flags.PIXEL["DO_NOT_USE"], np.uint32(0))
    return Cutout(
        fixed["data"], fixed["err"], dq, fixed.get("var_poisson"), fixed.get("var_rnoise"), fixed.get("var_flat")
    )
