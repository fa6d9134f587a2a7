"""The sources of a made-up field: stars, disks, and compact disks with bright emission lines.

The number goes with the area, about 50 in 1024 x 1024 pixels. Most sources are bright enough for positions good to a few
hundredths of a pixel in some 4 x 90 s of F200W; one in eight is near or below the limit, and a large field has a star that
saturates. Positions keep a distance from each other, so that most spectra stand alone, and sources with lines stand
where both grisms put order +1 on the detector.

A field for imaging alone is denser (`make_field`): stars and disks, none of which blends with another. That for the
slitless spectra of other instruments than NIRISS (`make_slitless_field`) takes its brightness from the imager.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from calibration.simulate.dispersion import Grism, line_rate
from calibration.simulate.field import Distortion, Pointing, pixel_to_sky, sky_to_pixel
from calibration.simulate.imager import Imager
from calibration.simulate.scene import Line, Source, source_rate
from calibration.simulate.slitless import Slitless
from calibration.simulate.throughput import AB_ZERO, Passband
from calibration.subarrays import Subarray

DENSITY = 50 / 1024**2  # [pixel^-2]
FEWEST = 14
MARGIN = 16  # [pixel], nothing is nearer to the edge at the first pointing
DISTANCE = 30  # [pixel] between sources
WIDTH, LENGTH = 16, 130  # [pixel], a spectrum across and along the dispersion
REACH = 285  # [pixel], from a source to the far end of its order +1, which lies toward small x and y
H_ALPHA, SULPHUR = 0.656461, 0.6730  # [um], vacuum; [S II] stands for both its lines
KINDS = ("lines", "star", "disk", "star", "lines", "disk", "star", "faint")

#: Kind -> brightest and faintest AB magnitude of the continuum.
MAGNITUDES = {"lines": (21.6, 23.0), "star": (19.6, 23.8), "disk": (20.8, 22.9), "faint": (25.9, 27.4)}
SATURATING = 18.6  # AB magnitude of the first star, in fields of at least 1024 x 1024
#: Kind -> smallest and largest half-light radius [arcsec].
RADII = {"lines": (0.05, 0.09), "star": (0.0, 0.0), "disk": (0.07, 0.17), "faint": (0.05, 0.10)}


def make_sources(
    size: int, origin: tuple[int, int], distortion: Distortion, pointing: Pointing, rng: np.random.Generator
) -> tuple[Source, ...]:
    """Sources on the square area of ``size`` pixels that starts at full-frame column and row ``origin``."""
    count = max(FEWEST, round(DENSITY * size**2))
    # Kinds go round in fixed shares, so that a small field has some of each.
    kinds = [KINDS[i % len(KINDS)] for i in range(count)]
    lines = (REACH if size > REACH + 4 * MARGIN else MARGIN, size - 1 - MARGIN)
    x, y = _positions(kinds, size, rng, lines, LENGTH, (0, 1))
    ra, dec = pixel_to_sky(distortion, pointing, x + origin[0], y + origin[1])
    sources = []
    for i, kind in enumerate(kinds):
        bright, faint = MAGNITUDES[kind]
        magnitude = bright + (faint - bright) * (i + rng.uniform()) / count
        if i == 1 and size >= 1024:
            magnitude = SATURATING
        sources.append(
            Source(
                number=i + 1,
                ra=float(ra[i]),
                dec=float(dec[i]),
                continuum=float(AB_ZERO * 10 ** (-0.4 * magnitude)),
                slope=float(rng.uniform(-1.5, -0.5) if kind == "star" else rng.uniform(-0.5, 1.0)),
                radius=float(rng.uniform(*RADII[kind])),
                axis_ratio=1.0 if kind == "star" else float(rng.uniform(0.5, 0.95)),
                position_angle=0.0 if kind == "star" else float(rng.uniform(0, 180)),
                lines=_lines(rng) if kind == "lines" else (),
            )
        )
    return tuple(sources)


#: A field for imaging: side of the cell [pixel] that holds a source, how far from its middle that may be, kinds in turn.
CELL, JITTER = 40.0, 8.0
FIELD_KINDS = ("star", "star", "disk", "star")
FIELD_RADII = (1.2, 3.0)  # [pixel], half-light radii of disks


def make_field(
    imager: Imager, views: Sequence[tuple[Distortion, Pointing, Subarray]], rng: np.random.Generator
) -> tuple[Source, ...]:
    """Stars and disks on all that the views see: a distortion, a pointing and the area of the detector that is read.

    Rates go from the brightest to the faintest of the imager in equal steps of magnitude, in no order on the sky.
    """
    optics, pointing, _ = views[0]
    scale = float(np.sqrt(optics.pixel_area(optics.x_ref, optics.y_ref)))
    # A plane of square pixels about the first view.
    axis = np.zeros((4, 4))
    axis[1, 0] = scale
    plane = replace(optics, x_ref=0.0, y_ref=0.0, x_coeffs=axis, y_coeffs=axis.T)
    corners = []
    for distortion, seen_from, area in views:
        x = np.array([0, area.xsize - 1, area.xsize - 1, 0]) + area.xstart - 1
        y = np.array([0, 0, area.ysize - 1, area.ysize - 1]) + area.ystart - 1
        corners.append(sky_to_pixel(plane, pointing, *pixel_to_sky(distortion, seen_from, x, y)))
    low, high = np.min(corners, axis=(0, 2)), np.max(corners, axis=(0, 2))
    columns, rows = (np.arange(start + 0.5 * CELL, stop, CELL) for start, stop in zip(low, high, strict=True))
    cells = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    cells += rng.uniform(-JITTER, JITTER, cells.shape)
    ra, dec = pixel_to_sky(plane, pointing, *cells.T)
    seen = np.zeros(ra.size, bool)
    for distortion, seen_from, area in views:
        x, y = sky_to_pixel(distortion, seen_from, ra, dec)
        x, y = x - area.xstart + 1, y - area.ystart + 1
        seen |= (x > MARGIN) & (x < area.xsize - MARGIN) & (y > MARGIN) & (y < area.ysize - MARGIN)
    count = int(seen.sum())
    brightest, faintest = imager.star_rates
    rates = brightest * (faintest / brightest) ** ((rng.permutation(count) + 0.5) / count)
    sources = []
    for i, (at_ra, at_dec, rate) in enumerate(zip(ra[seen], dec[seen], rates, strict=True)):
        star = FIELD_KINDS[i % len(FIELD_KINDS)] == "star"
        source = Source(
            number=i + 1,
            ra=float(at_ra),
            dec=float(at_dec),
            continuum=1.0,
            slope=float(rng.uniform(-1.5, 1.0)),
            radius=0.0 if star else float(rng.uniform(*FIELD_RADII)) * scale,
            axis_ratio=1.0 if star else float(rng.uniform(0.5, 0.95)),
            position_angle=0.0 if star else float(rng.uniform(0, 180)),
            lines=(),
        )
        sources.append(replace(source, continuum=float(rate) / source_rate(source, imager.passband)))
    return tuple(sources)


#: A field for slitless spectra: kinds in turn, from the brightest to the faintest; fewest sources; rates of lines in rates of
#: the brightest star, which may saturate towards the end of a direct image.
SLITLESS_KINDS = ("star", "lines", "disk", "lines")
SLITLESS_FEWEST = 10
LINE_RATES = (0.02, 0.06)
EDGE = 24  # [pixel], no line is nearer to the edge at the first pointing


def make_slitless_field(
    optics: Slitless, area: Subarray, pointing: Pointing, rng: np.random.Generator
) -> tuple[Source, ...]:
    """Stars, disks, and compact disks with a line that falls on the area in all grisms, where there is such a wavelength."""
    images, size = optics.images, area.xsize
    distortion = images.behind_filter(optics.detector)
    scale = float(np.sqrt(distortion.pixel_area(distortion.x_ref, distortion.y_ref)))
    count = max(SLITLESS_FEWEST, round(DENSITY * size**2))
    kinds = [SLITLESS_KINDS[i % len(SLITLESS_KINDS)] for i in range(count)]
    origin = (area.xstart - 1, area.ystart - 1)
    grisms = [grism.cut(origin) for grism in optics.grisms]
    waves = _line_waves(optics.passband)
    across = tuple(1 if grism.axis == "x" else 0 for grism in grisms)
    # From the source to where its lines may fall.
    along = np.array([grism.position(1, 0.0, 0.0, waves)[1 - k] for grism, k in zip(grisms, across, strict=True)])
    lines = (max(MARGIN, EDGE - along.max()), min(size - 1 - MARGIN, size - 1 - EDGE - along.min()))
    if lines[0] >= lines[1]:  # on so small an area none falls
        lines = (MARGIN, size - 1 - MARGIN)
    x, y = _positions(kinds, size, rng, lines, float(np.ptp(along)), across)
    ra, dec = pixel_to_sky(distortion, pointing, x + origin[0], y + origin[1])
    brightest, faintest = 2 * images.star_rates[0], images.star_rates[1]
    rates = brightest * (faintest / brightest) ** ((np.arange(count) + 0.5) / count)
    sources = []
    for i, kind in enumerate(kinds):
        star = kind == "star"
        source = Source(
            number=i + 1,
            ra=float(ra[i]),
            dec=float(dec[i]),
            continuum=1.0,
            slope=float(rng.uniform(-1.0, 1.0)),
            radius=0.0 if star else float(rng.uniform(*((0.6, 1.2) if kind == "lines" else FIELD_RADII))) * scale,
            axis_ratio=1.0 if star else float(rng.uniform(0.5, 0.95)),
            position_angle=0.0 if star else float(rng.uniform(0, 180)),
            lines=(),
        )
        continuum = float(rates[i]) / source_rate(source, images.passband)
        on = _line_on(grisms, optics.passband, brightest, size, (x[i], y[i]), rng) if kind == "lines" else ()
        sources.append(replace(source, continuum=continuum, lines=on))
    return tuple(sources)


def _line_on(
    grisms: Sequence[Grism],
    passband: Passband,
    brightest: float,
    size: int,
    place: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[Line, ...]:
    """A line of a source at ``place`` that all grisms put on the area; none where there is none."""
    waves = _line_waves(passband)
    on = np.ones(waves.size, bool)
    for grism in grisms:
        along = np.array(grism.position(1, *place, waves))
        on &= ((along > EDGE) & (along < size - 1 - EDGE)).all(axis=0)
    wave, part = float(rng.choice(waves)), float(np.exp(rng.uniform(*np.log(LINE_RATES))))
    if not on.any():
        return ()
    wave = float(waves[on][np.argmin(np.abs(waves[on] - wave))])
    grism = grisms[0]
    step = 1e-3
    pixels = np.hypot(*(np.diff(axis)[0] for axis in grism.position(1, *place, np.array([wave, wave + step]))))
    flux = part * brightest / line_rate(1.0, wave, passband, 1, grism.efficiencies)
    return (Line("Pa_alpha", wave, float(flux), float(0.3 * step / pixels)),)


def _lines(rng: np.random.Generator) -> tuple[Line, ...]:
    """H alpha, and [S II] at a fifth of it where it falls into the passband too."""
    redshift = rng.uniform(1.80, 2.17) / H_ALPHA - 1
    flux = float(np.exp(rng.uniform(np.log(1.5e-19), np.log(4e-19))))
    width = 1.5e-3  # [um], 220 km/s
    lines = [Line("H_alpha", float(H_ALPHA * (1 + redshift)), flux, width)]
    if SULPHUR * (1 + redshift) < 2.20:
        lines.append(Line("S_II", float(SULPHUR * (1 + redshift)), 0.2 * flux, width))
    return tuple(lines)


def _line_waves(passband: Passband) -> np.ndarray:
    """Where a line may be [um]."""
    margin = 7 * passband.edge
    return np.linspace(passband.blue + margin, passband.red - margin, 400)


def _positions(
    kinds: list[str],
    size: int,
    rng: np.random.Generator,
    lines: tuple[float, float],
    length: float,
    across: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Positions drawn one after the other: of some candidates the one that troubles the fewest others.

    Two sources trouble each other when they are near, or when their order +1 overlaps in one of the grisms: in the same
    columns (``across`` is 0), or in the same rows (1), and less than the ``length`` of a spectrum apart. Columns and rows of
    sources with lines are within ``lines``.
    """
    chosen: list[np.ndarray] = []
    for kind in kinds:
        low, high = lines if kind == "lines" else (MARGIN, size - 1 - MARGIN)
        candidates = rng.uniform(low, high, (60, 2))
        away = np.abs(candidates[:, None, :] - np.array(chosen).reshape(1, -1, 2))
        near = np.hypot(away[..., 0], away[..., 1]) < DISTANCE
        overlap = np.any([(away[..., k] < WIDTH) & (away[..., 1 - k] < length) for k in across], axis=0)
        trouble = 10 * near.sum(axis=1) + overlap.sum(axis=1)
        chosen.append(candidates[np.argmin(trouble)])
    return np.array(chosen)[:, 0], np.array(chosen)[:, 1]
