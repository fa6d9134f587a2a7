"""Large cosmic ray events: the snowballs of the near-infrared detectors, the showers of the mid-infrared ones.

A snowball fills the wells of a round core far beyond the brim, and leaves a halo that fades with the distance from it. A
shower is a faint, wide, irregular glow: secondary particles that a hit sets free in the arsenic-doped silicon. Sizes and
heights are those of the JWST documentation ("Snowballs and shower artifacts"); the profiles are invented.
"""

import numpy as np
from scipy import ndimage

CORE_CHARGE = 400_000.0  # [e-], several full wells
DETECTOR_PIXELS = 2048**2  # that rates of events are given for


def snowball_charge(
    shape: tuple[int, int],
    centre: tuple[float, float],
    core: float,
    halo: float,
    fading: float,
    axis_ratio: float = 1.0,
    angle: float = 0.0,
) -> np.ndarray:
    """Electrons (ny, nx) float32 that a snowball leaves.

    Parameters
    ----------
    shape
        (ny, nx).
    centre
        y, x [pixel].
    core
        Major half axis of the core [pixel].
    halo
        Charge at the rim of the core [e-].
    fading
        Distance along the major axis in which the halo falls by a factor e [pixel].
    axis_ratio
        Minor over major axis, above 0 and up to 1.
    angle
        Of the major axis from +y towards +x [rad].
    """
    y, x = np.ogrid[: shape[0], : shape[1]]
    v, u = y - centre[0], x - centre[1]
    along = v * np.cos(angle) + u * np.sin(angle)
    across = (v * np.sin(angle) - u * np.cos(angle)) / axis_ratio
    radius = np.hypot(along, across)
    return np.where(radius <= core, CORE_CHARGE, halo * np.exp((core - radius) / fading)).astype(np.float32)


def shower_charge(
    shape: tuple[int, int], centre: tuple[float, float], width: float, height: float, rng: np.random.Generator
) -> np.ndarray:
    """Electrons (ny, nx) float32 that a shower leaves.

    Parameters
    ----------
    shape
        (ny, nx).
    centre
        y, x [pixel].
    width
        Standard deviation of the glow [pixel].
    height
        Charge at its centre, about [e-].
    rng
        Source of its lumps.
    """
    y, x = np.ogrid[: shape[0], : shape[1]]
    glow = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * width**2))
    lumps = ndimage.gaussian_filter(rng.standard_normal(shape), width / 4)
    lumps = 1 + 0.3 * lumps / lumps.std()
    return (height * glow * np.maximum(lumps, 0)).astype(np.float32)


def snowballs(shape: tuple[int, int], expected: float, rng: np.random.Generator) -> np.ndarray:
    """Electrons (ny, nx) float32 of a random number of snowballs, ``expected`` on a whole near-infrared detector."""
    ny, nx = shape
    charge = np.zeros(shape, np.float32)
    for _ in range(rng.poisson(expected * ny * nx / DETECTOR_PIXELS)):
        centre, core = (rng.uniform(0, ny), rng.uniform(0, nx)), rng.uniform(1, 7)
        halo, fading = rng.uniform(300, 3000), rng.uniform(2, 6)
        charge += snowball_charge(shape, centre, core, halo, fading, rng.uniform(0.5, 1), rng.uniform(0, np.pi))
    return charge


def showers(shape: tuple[int, int], expected: float, rng: np.random.Generator) -> np.ndarray:
    """Electrons (ny, nx) float32 of a random number of showers, ``expected`` on the area."""
    ny, nx = shape
    charge = np.zeros(shape, np.float32)
    for _ in range(rng.poisson(expected)):
        centre = (rng.uniform(0, ny), rng.uniform(0, nx))
        charge += shower_charge(shape, centre, rng.uniform(5, 14), rng.uniform(20, 60), rng)
    return charge
