"""Persistence: charge that traps captured in one exposure and release in the next ones.

The forward model of ``calibration.ramps.traps``, by small steps of time and not by its formulas: while a pixel fills, traps
come into contact with charge in proportion to the signal and its rise; those that do capture some at once and the others
as time goes by, up to a full pixel, where all are in contact. What is captured is released with the law of the family.
"""

from dataclasses import dataclass

import numpy as np

from calibration.ramps.traps import TrapFamilies

STEPS = 2000

#: Families of traps, about as many and as slow as those of the near-infrared detectors; what they hold is invented [DN].
FAMILIES = TrapFamilies(
    capture0=np.array([180.0, 60.0, 50.0]),
    capture1=-1 / np.array([400.0, 60.0, 8.0]),
    capture2=np.array([120.0, 30.0, 5.0]),
    decay=-1 / np.array([3000.0, 300.0, 40.0]),
)


@dataclass(frozen=True)
class Traps:
    """Traps of an area of the detector.

    Attributes
    ----------
    families : TrapFamilies
    density : (ny, nx) float32
        Relative number of traps.
    saturation : (ny, nx) float32
        Signal at which all are in contact with charge [DN].
    filled : (nfamilies, ny, nx) float64
        Those that are filled before an exposure [DN that they release].
    """

    families: TrapFamilies
    density: np.ndarray
    saturation: np.ndarray
    filled: np.ndarray


def make_traps(shape: tuple[int, int], rng: np.random.Generator, saturation: float) -> Traps:
    """Empty traps of an area whose pixels are full at a level [DN]."""
    density = np.maximum(1 + 0.2 * rng.standard_normal(shape), 0.2).astype(np.float32)
    full = np.full(shape, saturation, np.float32)
    return Traps(FAMILIES, density, full, np.zeros((FAMILIES.decay.size, *shape)))


def capture(
    rate: np.ndarray, saturation: np.ndarray, density: np.ndarray, families: TrapFamilies, seconds: float
) -> np.ndarray:
    """Traps that are filled after light of a constant rate, (nfamilies, ny, nx) float64 [DN that they release].

    Parameters
    ----------
    rate : (ny, nx) float
        [DN/s]
    saturation : (ny, nx) float
        Signal at which all traps are in contact with charge [DN].
    density : (ny, nx) float
        Relative density of traps.
    families : TrapFamilies
    seconds : float
        How long the light lasts, shorter than a pixel takes to fill.
    """
    if np.any(rate * seconds > saturation):
        raise ValueError("a pixel fills before the end: capture by full pixels is not part of this model")
    held = (np.arange(STEPS) + 0.5) * (seconds / STEPS)
    part = families.capture0[:, None] * -np.expm1(families.capture1[:, None] * held) + families.capture2[:, None]
    per_density = 2 * (held * part).sum(axis=1) * (seconds / STEPS)
    return per_density[:, None, None] * density * np.square(rate / saturation)


def released_signal(filled: np.ndarray, families: TrapFamilies, times: np.ndarray) -> np.ndarray:
    """Signal (ntimes, ny, nx) float64 [DN] that filled traps (nfamilies, ny, nx) release until each of ``times`` [s]."""
    part = -np.expm1(families.decay * np.asarray(times)[:, None])
    return np.tensordot(part, filled, axes=1)
