"""The picture frame of NIRSpec: a glow of the warm edges of its detectors, brighter or fainter with their temperature.

Its shape is known from a reference image, its height is not: it is told by the difference between the middle of the detector
and its edges, where they show background. The level of the edges is subtracted with it. In a ramp the first group is taken
as it is, and each other one by its difference from the first. Source: JWST pipeline documentation, "picture_frame".
"""

from dataclasses import dataclass

import numpy as np

from calibration.strips import zeros

#: Rows and columns of the detector [pixel].
SHAPE = (2048, 2048)
#: First and last (not included) rows and columns of the middle, and of what is inside the outer and the inner rim of the edge.
MIDDLE = (76, 1984)
OUTER_RIM = (4, 2043)
INNER_RIM = (75, 1985)


@dataclass(frozen=True)
class Regions:
    """Background pixels of the middle and of the edges: places in the flattened image, (n,) intp each."""

    middle: np.ndarray
    edge: np.ndarray


def find_regions(background: np.ndarray) -> Regions:
    """The background pixels of the middle and of the edges.

    Parameters
    ----------
    background : (2048, 2048) bool
        Which pixels show background only.
    """
    if background.shape != SHAPE:
        raise ValueError(f"the picture frame is that of a whole detector, {SHAPE}, but the mask has {background.shape}")

    def square(bounds: tuple[int, int]) -> np.ndarray:
        inside = np.zeros(SHAPE, np.bool_)
        inside[slice(*bounds), slice(*bounds)] = True
        return inside

    edge = square(OUTER_RIM) & ~square(INNER_RIM)
    return Regions(np.flatnonzero(background & square(MIDDLE)), np.flatnonzero(background & edge))


def subtract_from_ramps(data: np.ndarray, frame: np.ndarray, regions: Regions) -> np.ndarray:
    """Ramps without the picture frame and the level of the edges.

    Parameters
    ----------
    data : (nints, ngroups, 2048, 2048) float32
        [DN]
    frame : (2048, 2048) float32
        Shape of the picture frame.
    regions : Regions

    Returns
    -------
    (nints, ngroups, 2048, 2048) float32
        The first groups as they were.
    """
    shape = _shape_of(frame, regions)
    corrected = zeros(data, data.shape, np.float32)
    for i in range(data.shape[0]):
        ramp = data[i]
        result = ramp.copy()
        for g in range(1, len(ramp)):
            result[g] -= _height(ramp[g] - ramp[0], shape, regions)
        corrected[i] = result
    return corrected


def subtract_from_images(data: np.ndarray, frame: np.ndarray, regions: Regions) -> np.ndarray:
    """Count rates (2048, 2048) or (nints, 2048, 2048) float32 without the picture frame and the level of the edges."""
    shape = _shape_of(frame, regions)
    if data.ndim == 2:
        return data - _height(data, shape, regions)
    corrected = zeros(data, data.shape, np.float32)
    for i in range(data.shape[0]):
        corrected[i] = data[i] - _height(data[i], shape, regions)
    return corrected


def _shape_of(frame: np.ndarray, regions: Regions) -> np.ndarray:
    """The picture frame with the edges at 0 and the middle at 1."""
    if frame.shape != SHAPE:
        raise ValueError(f"the picture frame is that of a whole detector, {SHAPE}, but has the shape {frame.shape}")
    if not regions.middle.size or not regions.edge.size:
        raise ValueError(
            f"the height of the picture frame needs background pixels in the middle and at the edges, but there are "
            f"{regions.middle.size} and {regions.edge.size}"
        )
    middle, edge = _levels(frame, regions)
    if not np.isfinite(middle - edge) or middle == edge:
        raise ValueError(
            f"the reference of the picture frame must have other levels in the middle and at the edges, but has {middle} "
            f"and {edge}"
        )
    return (frame - edge) / (middle - edge)


def _height(image: np.ndarray, shape: np.ndarray, regions: Regions) -> np.ndarray:
    middle, edge = _levels(image, regions)
    return (middle - edge) * shape + edge


def _levels(image: np.ndarray, regions: Regions) -> tuple[np.float32, np.float32]:
    flat = np.ascontiguousarray(image).ravel()
    return tuple(np.nanmedian(flat[places]) for places in (regions.middle, regions.edge))
