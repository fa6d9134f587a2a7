"""Align exposures by the stars that they share.

The telescope points to a few tens of milliarcseconds; stars in overlapping exposures tell the rest. Each exposure is
shifted and turned in the tangent plane of its reference point (so that the correction is the same for all detectors
that observed together), with the matching and fitting of `tweakwcs`. The first exposure stays where it is.

A correction is believed only if enough stars agree and if it is no larger than what was searched. An exposure that
cannot be aligned keeps the WCS it had, and is said so.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from gwcs import WCS
from tweakwcs import JWSTWCSCorrector, XYXYMatch, align_wcs

from calibration.wcs.imaging import pixel_box
from calibration.wcs.pointing import Pointing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stars:
    """The stars of an image: zero-based pixels ``x``, ``y`` and ``flux``; the image: ``wcs``, ``shape``, its pointing.

    ``group`` is a number that images of one exposure share.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    wcs: WCS
    shape: tuple[int, int]
    pointing: Pointing
    group: int
    name: str


@dataclass(frozen=True)
class Fit:
    """How stars are matched and what is fitted.

    Attributes
    ----------
    minobj : int
        Least number of stars in common.
    geometry : "shift", "rshift", "rscale" or "general"
        Shift; and rotation; and scale; or any linear map.
    nclip, sigma
        Rounds and limit of clipping [rms].
    searchrad, separation, tolerance : float
        Largest shift that is searched, least distance of stars, largest distance of a match [arcsec].
    use2dhist : bool
        Search the shift by the histogram of all pairs; else start from ``offset`` (x, y) [arcsec].
    """

    minobj: int = 15
    geometry: str = "rshift"
    nclip: int = 3
    sigma: float = 3.0
    searchrad: float = 2.0
    separation: float = 1.0
    tolerance: float = 0.7
    use2dhist: bool = True
    offset: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.separation <= np.sqrt(2) * self.tolerance:
            raise ValueError(
                f"separation ({self.separation} arcsec) must be more than sqrt(2) times tolerance ({self.tolerance} "
                "arcsec), else a star could match two; lower the tolerance"
            )


@dataclass(frozen=True)
class Alignment:
    """What became of one image.

    Attributes
    ----------
    wcs : WCS
        Corrected, or as it was.
    status : "reference", "aligned" or the reason why it was not.
    shift : float
        How far the corners of the image moved, at most [arcsec].
    rms : float
        Scatter of the stars about the fit [arcsec]; NaN if there is no fit.
    nstars : int
        Stars that the fit used.
    """

    wcs: WCS
    status: str
    shift: float = 0.0
    rms: float = np.nan
    nstars: int = 0


def align(images: Sequence[Stars], fit: Fit, expand: bool = False, in_order: bool = False) -> list[Alignment]:
    """Align images relative to one another.

    Parameters
    ----------
    images : sequence of Stars
    fit : Fit
    expand : bool
        Let stars that only a later image has help to align the next.
    in_order : bool
        Take the images in the given order; else the two with the largest overlap first.
    """
    usable = [k for k, image in enumerate(images) if len(image.x) >= fit.minobj]
    groups = {images[k].group for k in usable}
    results = [Alignment(image.wcs, f"only {len(image.x)} stars, {fit.minobj} are needed") for image in images]
    if len(groups) < 2:
        return results
    correctors = [_corrector(images[k]) for k in usable]
    _solve(correctors, fit, None, in_order, expand)
    for k, corrector in zip(usable, correctors, strict=True):
        results[k] = _judge(images[k], corrector, fit)
    return results


def align_to_catalog(images: Sequence[Stars], ra: np.ndarray, dec: np.ndarray, fit: Fit) -> list[Alignment]:
    """Align all images together to a catalog of positions [deg]."""
    if len(ra) < fit.minobj:
        raise ValueError(f"the reference catalog has {len(ra)} stars, but {fit.minobj} are needed; give a deeper one")
    usable = [k for k, image in enumerate(images) if len(image.x) > 0]
    results = [Alignment(image.wcs, "no stars") for image in images]
    if usable:
        correctors = [_corrector(images[k], group=0) for k in usable]
        _solve(correctors, fit, Table({"RA": ra, "DEC": dec}, meta={"name": "reference catalog"}), True, False)
        for k, corrector in zip(usable, correctors, strict=True):
            results[k] = _judge(images[k], corrector, fit)
    return results


def _corrector(image: Stars, group: int | None = None) -> JWSTWCSCorrector:
    (x0, x1), (y0, y1) = pixel_box(image.wcs, image.shape)
    inside = (image.x > x0) & (image.x < x1) & (image.y > y0) & (image.y < y1)
    catalog = Table({"x": image.x[inside], "y": image.y[inside], "flux": image.flux[inside]})
    catalog.meta["name"] = image.name
    at = image.pointing
    return JWSTWCSCorrector(
        image.wcs,
        {"roll_ref": at.roll_ref, "v2_ref": at.v2_ref, "v3_ref": at.v3_ref},
        {"catalog": catalog, "name": image.name, "group_id": str(image.group if group is None else group)},
    )


def _solve(correctors: list, fit: Fit, reference: Table | None, in_order: bool, expand: bool) -> None:
    match = XYXYMatch(
        searchrad=fit.searchrad,
        separation=fit.separation,
        use2dhist=fit.use2dhist,
        xoffset=fit.offset[0],
        yoffset=fit.offset[1],
        tolerance=fit.tolerance,
    )
    try:
        align_wcs(
            correctors,
            refcat=reference,
            enforce_user_order=in_order,
            expand_refcat=expand,
            minobj=fit.minobj,
            match=match,
            fitgeom=fit.geometry,
            nclip=fit.nclip,
            sigma=(fit.sigma, "rmse"),
        )
    except RuntimeError as error:
        if not str(error).startswith("Number of output coordinates exceeded allocation"):
            raise
        # Several stars match one; what was aligned before that stays, the others are reported as not aligned.
        log.warning("tweakreg: stars cannot be told apart within %g arcsec; lower the tolerance", fit.tolerance)


def _judge(image: Stars, corrector: JWSTWCSCorrector, fit: Fit) -> Alignment:
    info = corrector.meta.get("fit_info", {"status": "FAILED: not tried"})
    if info["status"] == "REFERENCE":
        return Alignment(image.wcs, "reference")
    if info["status"] != "SUCCESS":
        return Alignment(image.wcs, info["status"].removeprefix("FAILED: "))
    moved = _largest_move(image, corrector.wcs)
    limit = 2 * (fit.tolerance + (fit.searchrad if fit.use2dhist else max(map(abs, fit.offset))))
    rms, nstars = float(info.get("rmse", np.nan)), int(np.sum(info.get("fitmask", ())))
    if moved > limit:
        return Alignment(
            image.wcs, f"the fit would move it by {moved:.2f} arcsec, {limit:.2f} are believed", 0, rms, nstars
        )
    return Alignment(corrector.wcs, "aligned", moved, rms, nstars)


def _largest_move(image: Stars, wcs: WCS) -> float:
    (x0, x1), (y0, y1) = pixel_box(image.wcs, image.shape)
    x, y = np.array([x0, x0, x1, x1]), np.array([y0, y1, y1, y0])
    old, new = (np.radians(each(x, y, with_bounding_box=False)) for each in (image.wcs, wcs))
    step = np.hypot((new[0] - old[0]) * np.cos(old[1]), new[1] - old[1])
    return float(3600 * np.degrees(step.max()))
