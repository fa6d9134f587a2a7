"""The sources of a made-up field: stars, disks, and disks with bright emission lines.

The number goes with the area, about 50 in 1024 x 1024 pixels; magnitudes run from bright to just below the limit of some
100 s in F200W. Positions keep a distance from each other, so that most spectra stand alone.
"""

import numpy as np

from calibration.simulate.field import Distortion, Pointing, pixel_to_sky
from calibration.simulate.scene import Line, Source
from calibration.simulate.throughput import AB_ZERO

DENSITY = 50 / 1024**2  # [pixel^-2]
MARGIN = 14  # [pixel], nothing is nearer to the edge at the first pointing
DISTANCE = 26  # [pixel] between sources
H_ALPHA, SULPHUR = 0.656461, 0.673_0  # [um], vacuum; [S II] stands for both its lines
BRIGHT, FAINT = 19.6, 26.4  # AB magnitudes


def make_sources(
    size: int, origin: tuple[int, int], distortion: Distortion, pointing: Pointing, rng: np.random.Generator
) -> tuple[Source, ...]:
    """Sources on the square area of ``size`` pixels that starts at full-frame column and row ``origin``."""
    count = max(12, round(DENSITY * size**2))
    x, y = _positions(count, size, rng)
    ra, dec = pixel_to_sky(distortion, pointing, x + origin[0], y + origin[1])
    sources = []
    for i in range(count):
        # Kinds and magnitudes go round in fixed shares, so that a small field has some of each.
        kind = ("lines", "star", "disk", "star", "disk")[i % 5]
        rank = (i + rng.uniform(0, 1)) / count
        magnitude = {
            "lines": 21.6 + 1.8 * rng.uniform(),
            "star": BRIGHT + (25.0 - BRIGHT) * rank,
            "disk": BRIGHT + 1.4 + (FAINT - BRIGHT - 1.4) * rank**0.9,
        }[kind]
        lines = _lines(rng) if kind == "lines" else ()
        sources.append(
            Source(
                number=i + 1,
                ra=float(ra[i]),
                dec=float(dec[i]),
                continuum=float(AB_ZERO * 10 ** (-0.4 * magnitude)),
                slope=float(rng.uniform(-1.5, -0.5) if kind == "star" else rng.uniform(-0.5, 1.0)),
                radius=0.0 if kind == "star" else float(rng.uniform(0.08, 0.16 if kind == "lines" else 0.26)),
                axis_ratio=1.0 if kind == "star" else float(rng.uniform(0.45, 0.95)),
                position_angle=0.0 if kind == "star" else float(rng.uniform(0, 180)),
                lines=lines,
            )
        )
    return tuple(sources)


def _lines(rng: np.random.Generator) -> tuple[Line, ...]:
    """H alpha, and [S II] at a fifth of it where it falls into the passband too."""
    redshift = rng.uniform(1.79, 2.17) / H_ALPHA - 1
    flux = float(np.exp(rng.uniform(np.log(1.2e-19), np.log(4e-19))))
    width = 1.5e-3  # [um], 220 km/s
    lines = [Line("H_alpha", float(H_ALPHA * (1 + redshift)), flux, width)]
    if SULPHUR * (1 + redshift) < 2.20:
        lines.append(Line("S_II", float(SULPHUR * (1 + redshift)), 0.2 * flux, width))
    return tuple(lines)


def _positions(count: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions drawn one after the other, each the candidate that is farthest from those already there."""
    chosen: list[np.ndarray] = []
    for _ in range(count):
        candidates = rng.uniform(MARGIN, size - 1 - MARGIN, (12, 2))
        if chosen:
            nearest = np.min(np.hypot(*(candidates[:, None, :] - np.array(chosen)[None]).transpose(2, 0, 1)), axis=1)
            far = candidates[nearest > DISTANCE]
            chosen.append(far[0] if len(far) else candidates[np.argmax(nearest)])
        else:
            chosen.append(candidates[0])
    return np.array(chosen)[:, 0], np.array(chosen)[:, 1]
