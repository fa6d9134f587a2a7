"""Charge that particles leave in the detector.

A particle crosses the sensitive layer in a straight line and leaves electrons in proportion to its path in each pixel; the
energy per path is log-normal. The rate at L2, about 5 per square centimetre and second, is that of the JWST documentation.
"""

import numpy as np

from calibration.jit import kernel

RATE = 5.0  # [cm^-2 s^-1]
PIXEL = 18e-4  # [cm], pitch of a pixel
THICKNESS = 5.0 / 18.0  # sensitive layer [pixel]
CHARGE = 15_000.0  # median charge [e- per pixel length of path]: 10 MeV/cm in HgCdTe, about 1 eV per electron
SPREAD = 0.9  # natural logarithm
LONGEST = 40.0  # tracks are cut here [pixel]


def cosmic_ray_charge(shape: tuple[int, int], seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Electrons (ny, nx) float32 that particles leave in ``seconds`` of exposure."""
    ny, nx = shape
    charge = np.zeros(shape, np.float32)
    hits = rng.poisson(RATE * PIXEL**2 * nx * ny * seconds)
    x, y = rng.uniform(-0.5, nx - 0.5, hits), rng.uniform(-0.5, ny - 0.5, hits)
    azimuth = rng.uniform(0.0, 2 * np.pi, hits)
    # Flux through a surface from all sides: the cosine of the angle of incidence squared is uniform.
    cosine = np.sqrt(rng.uniform(0.0, 1.0, hits))
    across = np.minimum(THICKNESS * np.sqrt(1 - cosine**2) / np.maximum(cosine, 1e-6), LONGEST)
    slant = np.minimum(THICKNESS / np.maximum(cosine, 1e-6), LONGEST)
    total = CHARGE * slant * rng.lognormal(0.0, SPREAD, hits)
    _draw_tracks(charge, x, y, across * np.cos(azimuth), across * np.sin(azimuth), total)
    return charge


# h = hit, s = step along the track
@kernel
def _draw_tracks(charge, x, y, length_x, length_y, total):
    ny, nx = charge.shape
    for h in range(x.size):
        steps = 1 + int(10.0 * np.hypot(length_x[h], length_y[h]))
        for s in range(steps):
            part = (s + 0.5) / steps
            column = int(np.floor(x[h] + part * length_x[h] + 0.5))
            row = int(np.floor(y[h] + part * length_y[h] + 0.5))
            if 0 <= column < nx and 0 <= row < ny:
                charge[row, column] += total[h] / steps
