"""Writes a program of direct images of one imager: a field, or a target that moves, with its truth.

The folder is that of every synthetic program (`program`), and its truth has besides

    truth/exposures.ecsv        where each exposure really looked, and how bright its sky was
    truth/<exposure>_truth.fits the surface brightness that it should show, and the pixels that particles hit

What the headers do not know is what stages 2 and 3 have to find: errors of the pointing, which the detectors of an exposure
share, and skies that differ.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import Table

from calibration.simulate import detector as near_infrared
from calibration.simulate import fgs, miri, miri_optics, nircam, niriss
from calibration.simulate.detector import RawExposure, Readout, couple
from calibration.simulate.field import ARCSEC, Pointing, pixel_to_sky, pointing_of, sky_to_pixel, step_on_sky
from calibration.simulate.imager import Imager
from calibration.simulate.population import make_field
from calibration.simulate.references import SENSORS, make_area
from calibration.simulate.scene import Source, components, draw, source_rate
from calibration.simulate.slitless import Slitless
from calibration.simulate.throughput import image_conversion
from calibration.subarrays import Subarray
from infra.synthetic.crds_cache import CONTEXT, Rule, write_mappings
from infra.synthetic.detector_references import Place, write_darks, write_detector
from infra.synthetic.headers import Exposure, exposure_cards
from infra.synthetic.imaging_references import ImagingReferences, write_imaging, write_parameters
from infra.synthetic.miri import area_cards, write_references
from infra.synthetic.program import OVERHEAD, ROLL, START, TARGET, VA_SCALE, Raw, SyntheticProgram, write_exposures
from infra.synthetic.reference_format import DATE
from infra.synthetic.spectral_references import write_slitless
from infra.synthetic.tables import line_table, position_table, source_table, write_pool

log = logging.getLogger(__name__)

SERIALS = 10  # numbers of reference files that a detector may use
REACH = 24.0  # [pixel], side of the square that dithers fill
POINTING_ERROR, MOVING_ERROR = 25.0, 2.0  # [mas]
OVERLAP = 0.2  # of two tiles of a mosaic
MOTION = 18.0 / 3600  # [arcsec/s], of a target that moves
DIRECTION = 112.0  # [deg], of its motion, north over east
TARGET_RATE = 0.4  # of a target that moves, in rates of the brightest star
STAMP = 100.0  # [pixel] beyond the edge of the image, where no light of a source reaches it
TRAIL_STEP = 0.5  # [pixel], in which stars move while the telescope follows a target

PRESETS: dict[str, Callable[[str, Sequence[str]], Imager]] = {
    "nircam-imaging": lambda filter_name, detectors: nircam.imager(filter_name or "F150W", detectors),
    "niriss-imaging": lambda filter_name, detectors: niriss.imager(filter_name or "F200W"),
    "miri-imaging": lambda filter_name, detectors: miri_optics.imager(filter_name or "F770W"),
    "fgs-imaging": lambda filter_name, detectors: fgs.imager(detectors),
    "moving-target": lambda filter_name, detectors: nircam.imager(filter_name or "F150W", detectors),
}


@dataclass(frozen=True)
class Camera:
    """A detector of the program.

    Parameters
    ----------
    area
        What is read out.
    efficiency : (ny, nx) float32
        Response of the pixels to light relative to the mean, 0 in dead ones and in reference pixels.
    relative_area : (ny, nx) float64
        Area of the pixels on the sky, in nominal areas.
    expose
        Electrons per second of light (ny, nx), readout, random numbers -> raw exposure.
    spread
        What the pixels see of light (ny, nx): that of their neighbours, too.
    gain
        On average [e-/DN].
    """

    area: Subarray
    efficiency: np.ndarray
    relative_area: np.ndarray
    expose: Callable[[np.ndarray, Readout, np.random.Generator], RawExposure]
    spread: Callable[[np.ndarray], np.ndarray]
    gain: float


@dataclass(frozen=True)
class Shot:
    """One exposure and what is true of it.

    Parameters
    ----------
    exposure
        What was planned.
    said
        The pointing of its header.
    true
        Where it looked, in steps of equal time: one, unless the telescope followed a target.
    error : (float, float)
        Error of the pointing along (V2, V3) [mas].
    sky
        Surface brightness of the empty sky [MJy/sr].
    seconds
        From the start of the program to the middle of the exposure, where the target moves; 0 where it does not.
    """

    exposure: Exposure
    said: Pointing
    true: tuple[Pointing, ...]
    error: tuple[float, float]
    sky: float
    seconds: float


def write_imaging_program(
    folder: str | Path,
    preset: str,
    size: int = 1024,
    seed: int = 1,
    ngroups: int | None = None,
    dithers: int = 4,
    filter_name: str = "",
    detectors: Sequence[str] = (),
    tiles: int = 1,
    pointing_error: float | None = None,
    sky_offset: float = 0.02,
) -> SyntheticProgram:
    """Simulate a program of direct images and write it into ``folder``.

    Parameters
    ----------
    folder
        Made where it is not; must not hold another program.
    preset
        One of ``PRESETS``. In "moving-target" the telescope follows a point source over a field of stars.
    size
        Rows of the detector for the whole of it (2048, MIRI: 1024), less for a square cut-out (even, from 64): about the
        centre of the detector, or of several detectors where they are nearest to each other.
    seed
        Of all that is random.
    ngroups
        Groups of one frame each; default: that of the imager.
    dithers
        Exposures of each tile.
    filter_name, detectors
        Behind which filter, and which detectors, side by side; default: one of the imager.
    tiles
        Visits in a row that make a mosaic.
    pointing_error
        rms in each axis, from exposure to exposure [mas]; default: 25, or 2 where the target moves: nothing corrects it there.
    sky_offset
        rms of the level of the sky from exposure to exposure, as part of it.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    FileExistsError
        If the folder already holds a program.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}")
    imager = PRESETS[preset](filter_name, tuple(detectors))
    moving = preset == "moving-target"
    ngroups = imager.ngroups if ngroups is None else ngroups
    if pointing_error is None:
        pointing_error = MOVING_ERROR if moving else POINTING_ERROR
    if ngroups < 2:
        raise ValueError(f"ngroups must be at least 2, not {ngroups}: a slope needs two groups")
    for name, value in (("dithers", dithers), ("tiles", tiles)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    for name, number in (("pointing_error", pointing_error), ("sky_offset", sky_offset)):
        if not 0 <= number < np.inf:
            raise ValueError(f"{name} must be a number from 0 on, not {number}")
    if moving and tiles > 1:
        raise ValueError(f"a target that moves has one tile, not {tiles}")
    folder = Path(folder)
    if (folder / "uncal").exists():
        raise FileExistsError(f"{folder} already holds a program; remove it or choose another folder")
    areas = cut_outs(imager, size)

    count = tiles * dithers
    readout = Readout(1, ngroups, 1, 0, imager.frame_time)
    field_rng, plan_rng, *others = map(
        np.random.default_rng, np.random.SeedSequence(seed).spawn(2 + len(areas) * (1 + count))
    )
    detector_rngs, exposure_rngs = others[: len(areas)], others[len(areas) :]
    subarray = "FULL" if size == imager.detector_area.ysize else "GENERIC"
    references = folder / "crds" / "references" / "jwst" / imager.instrument.lower()
    cameras: dict[str, Camera] = {}
    rules: list[Rule] = []
    for serial, (name, area) in enumerate(areas.items()):
        place = Place(imager.instrument, name, subarray, SERIALS * serial)
        cameras[name], of_detector = make_camera(references, place, imager, area, readout, detector_rngs[serial])
        rules += of_detector
    write_mappings(folder / "crds", {imager.instrument: rules})
    log.info("%d reference files in %s", sum(1 for _ in references.glob("jwst_*")), folder / "crds")

    shots = _plan(imager, areas, readout, dithers, tiles, pointing_error, sky_offset, moving, plan_rng)
    views = [(imager.behind_filter(shot.exposure.detector), shot.said, areas[shot.exposure.detector]) for shot in shots]
    stars = make_field(imager, views, field_rng)
    scene = [(star, source_rate(star, imager.passband)) for star in stars]
    targets = make_target(imager, shots, areas[shots[0].exposure.detector]) if moving else ()
    headers = []
    for i, shot in enumerate(shots):
        area = areas[shot.exposure.detector]
        cards = exposure_cards(shot.exposure, shot.said, area, subarray, TARGET, count)
        if moving:
            at = {"MT_RA": targets[i].ra, "MT_DEC": targets[i].dec}
            cards |= {"TARGTYPE": "MOVING", "VISITYPE": "PRIME_TARGETED_MOVING", **at}
        headers.append(cards)
    truth = folder / "truth"
    truth.mkdir()

    def simulate(i: int) -> Raw:
        shot, rng = shots[i], exposure_rngs[i]
        camera = cameras[shot.exposure.detector]
        image = light(imager, shot, camera.area, scene)
        if moving:
            # The telescope keeps it where it is while the stars pass.
            still = replace(shot, true=(shot.true[len(shot.true) // 2],), sky=0.0)
            image += light(imager, still, camera.area, [(targets[i], TARGET_RATE * imager.star_rates[0])])
        raw = camera.expose(image * camera.efficiency, readout, rng)
        surface = camera.spread(image) / camera.relative_area * _conversion(imager, shot)
        _write_exposure_truth(truth / f"{shot.exposure.root}_truth.fits", surface, raw.hits)
        whole_miri = imager.instrument == "MIRI" and subarray == "FULL"
        return Raw(raw.ramp, miri.reference_output(readout, rng) if whole_miri else None)

    exposures = [shot.exposure for shot in shots]
    paths = write_exposures(folder, exposures, headers, simulate)
    pool = write_pool(folder, exposures, headers)
    sources = (_average(targets),) if moving else stars
    _write_truth(
        truth, imager, areas, shots, sources, [(target,) for target in targets] if moving else [stars] * len(shots)
    )
    return SyntheticProgram(folder, folder / "crds", pool, paths, CONTEXT, sources)


def _average(targets: Sequence[Source]) -> Source:
    """The target where it is on average, which is where the mosaic shows it."""
    ra, dec = np.mean([(target.ra, target.dec) for target in targets], axis=0)
    return replace(targets[0], ra=float(ra), dec=float(dec))


def cut_outs(imager: Imager, size: int) -> dict[str, Subarray]:
    """What is read of each detector, around the middle of all of them.

    Raises
    ------
    ValueError
        If the size is odd, below 64, or above that of a detector.
    """
    whole = imager.detector_area
    if size == whole.ysize:
        return dict.fromkeys(imager.optics, whole)
    if not 64 <= size <= whole.ysize or size % 2:
        raise ValueError(f"size must be an even number of pixels from 64 to {whole.ysize}, not {size}")
    middle = (0.5 * (whole.xsize - 1), 0.5 * (whole.ysize - 1))
    v2, v3 = np.mean([optics.to_v2v3(*middle) for optics in imager.optics.values()], axis=0)
    areas = {}
    for name, optics in imager.optics.items():
        start = np.rint(np.array(optics.to_pixel(v2, v3)) - 0.5 * (size - 1)).astype(int)
        x, y = np.clip(start, 0, (whole.xsize - size, whole.ysize - size))
        # MIRI reads four columns at a time.
        x -= x % 4 if imager.instrument == "MIRI" else 0
        areas[name] = Subarray(int(x) + 1, int(y) + 1, size, size)
    return areas


def make_camera(
    folder: Path,
    place: Place,
    imager: Imager,
    area: Subarray,
    readout: Readout,
    rng: np.random.Generator,
    slitless: Slitless | None = None,
) -> tuple[Camera, list[Rule]]:
    """Make a detector, and write its references for exposures of up to ``readout``, with those of slitless spectra where
    the program has some; returns the detector and the rules."""
    make = _mid_infrared if imager.instrument == "MIRI" else _near_infrared
    camera, to, response, rules = make(folder, place, imager, area, readout, rng)
    return camera, rules + (_image_rules(to, response) if slitless is None else write_slitless(to, slitless, response))


def _near_infrared(
    folder: Path, place: Place, imager: Imager, area: Subarray, readout: Readout, rng: np.random.Generator
) -> tuple[Camera, ImagingReferences, np.ndarray, list[Rule]]:
    sensor = SENSORS[place.detector]
    pixels = make_area(sensor, area, 4 if place.subarray == "FULL" else 1, rng)
    rules = [
        *write_detector(folder, place, pixels),
        *write_darks(folder, place, pixels, {imager.pattern: readout}),
    ]
    to = ImagingReferences(folder, place, imager, place.area(pixels), sensor.gain, imager.exp_type)
    response = np.where(pixels.reference, 0, pixels.efficiency * np.float32(sensor.gain) / pixels.gain)
    camera = Camera(
        area,
        np.where(pixels.reference, 0, pixels.efficiency),
        to.relative_area,
        lambda rate, readout, rng: near_infrared.expose(rate, pixels, readout, rng),
        lambda image: couple(image, pixels),
        sensor.gain,
    )
    return camera, to, response, rules


def _mid_infrared(
    folder: Path, place: Place, imager: Imager, area: Subarray, readout: Readout, rng: np.random.Generator
) -> tuple[Camera, ImagingReferences, np.ndarray, list[Rule]]:
    whole = miri.make_detector(rng)
    pixels = whole.cut(area)
    y, x = np.indices(area.shape, dtype=np.float32)
    u, v = (x + area.xstart - 1) / 515.5 - 1, (y + area.ystart - 1) / 511.5 - 1
    efficiency = 1 + 0.02 * u - 0.03 * v + 0.01 * rng.standard_normal(area.shape, dtype=np.float32)
    efficiency[pixels.reference | (pixels.dq & 1 != 0)] = 0
    rules = write_references(folder, whole, place.subarray, area, readout)
    cards = area_cards(place.subarray, area)
    to = ImagingReferences(folder, place, imager, cards, miri.MEAN_GAIN, imager.exp_type)
    camera = Camera(
        area,
        efficiency,
        to.relative_area,
        lambda rate, readout, rng: miri.expose(rate, pixels, readout, rng),
        lambda image: image,
        miri.MEAN_GAIN,
    )
    return camera, to, efficiency * np.float32(miri.MEAN_GAIN) / pixels.gain, rules


def _image_rules(to: ImagingReferences, response: np.ndarray) -> list[Rule]:
    match = {"META.INSTRUMENT.DETECTOR": to.place.detector}
    files = write_imaging(to, response) | write_parameters(to)
    return [Rule(reftype, filename, match) for reftype, filename in files.items()]


def _plan(
    imager: Imager,
    areas: Mapping[str, Subarray],
    readout: Readout,
    dithers: int,
    tiles: int,
    pointing_error: float,
    sky_offset: float,
    moving: bool,
    rng: np.random.Generator,
) -> list[Shot]:
    """All exposures, in the order they are taken; those of several detectors at the same time one after the other."""
    optics = next(iter(imager.optics.values()))
    scale = float(np.sqrt(optics.pixel_area(optics.x_ref, optics.y_ref)))
    v2 = np.concatenate([imager.optics[name].to_v2v3(*_corners(area))[0] for name, area in areas.items()])
    tile_step = (1 - OVERLAP) * (v2.max() - v2.min())
    shots: list[Shot] = []
    start = START
    for tile in range(tiles):
        for k, dither in enumerate(dither_steps(dithers, REACH * scale)):
            v2_error, v3_error = map(float, rng.normal(0, pointing_error, 2))
            sky = float(imager.sky * max(0.0, 1 + sky_offset * rng.normal()))
            along = dither[0] + (tile - 0.5 * (tiles - 1)) * tile_step
            said = step_on_sky(optics, Pointing(*TARGET, ROLL, VA_SCALE), along, dither[1])
            true = step_on_sky(optics, said, 1e-3 * v2_error, 1e-3 * v3_error)
            for name in areas:
                exposure = Exposure(
                    imager=imager,
                    detector=name,
                    visit=tile + 1,
                    activity=1,
                    number=k + 1,
                    count=dithers,
                    specification=1,
                    running=k + 1,
                    dither=dither,
                    readout=readout,
                    start=start,
                )
                seconds = [0.0]
                if moving:
                    steps = max(1, int(0.5 * MOTION * exposure.duration / (TRAIL_STEP * scale)))
                    passed = (np.arange(2 * steps + 1) + 0.5) / (2 * steps + 1) * exposure.duration
                    seconds = list((start - START) * 86400 + passed)
                middle = seconds[len(seconds) // 2]
                shot = Shot(
                    exposure=exposure,
                    said=pointing_of(optics, _moved(said, middle), imager.optics[name]),
                    true=tuple(pointing_of(optics, _moved(true, time), imager.optics[name]) for time in seconds),
                    error=(v2_error, v3_error),
                    sky=sky,
                    seconds=middle,
                )
                shots.append(shot)
            start += (shots[-1].exposure.duration + OVERHEAD) / 86400
    return shots


def dither_steps(count: int, side: float) -> list[tuple[float, float]]:
    """Steps that fill a square of a ``side`` evenly, however many there are, the first of them none (Roberts' sequence)."""
    k = np.arange(count)[:, None]
    steps = (k * (0.7548776662466927, 0.5698402909980532) + 0.5) % 1 - 0.5
    return [(float(v2), float(v3)) for v2, v3 in side * steps]


def _moved(pointing: Pointing, seconds: float) -> Pointing:
    """The pointing after it followed the target."""
    ra, dec = _after(pointing.ra_ref, pointing.dec_ref, seconds)
    return replace(pointing, ra_ref=ra, dec_ref=dec)


def _after(ra: float, dec: float, seconds: float) -> tuple[float, float]:
    """Where on the sky [deg] the target is later."""
    step, angle = MOTION * seconds / 3600, np.deg2rad(DIRECTION)
    return float(ra + step * np.sin(angle) / np.cos(np.deg2rad(dec))), float(dec + step * np.cos(angle))


def _corners(area: Subarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.array([0, area.xsize - 1]) + area.xstart - 1, np.array([0, area.ysize - 1]) + area.ystart - 1
    return x[[0, 1, 1, 0]], y[[0, 0, 1, 1]]


def make_target(imager: Imager, shots: Sequence[Shot], area: Subarray) -> tuple[Source, ...]:
    """The target that moves, in the middle of the first image, as it stands in each of the exposures."""
    first = shots[0]
    middle = area.xstart - 1 + 0.5 * area.xsize, area.ystart - 1 + 0.5 * area.ysize
    ra, dec = pixel_to_sky(imager.behind_filter(first.exposure.detector), first.said, *middle)
    target = Source(1, float(ra), float(dec), 1.0, 0.0, 0.0, 1.0, 0.0, ())
    rate = TARGET_RATE * imager.star_rates[0]
    target = replace(target, continuum=rate / source_rate(target, imager.passband))
    positions = [_after(target.ra, target.dec, shot.seconds - first.seconds) for shot in shots]
    return tuple(replace(target, ra=ra, dec=dec) for ra, dec in positions)


def light(imager: Imager, shot: Shot, area: Subarray, scene: Sequence[tuple[Source, float]]) -> np.ndarray:
    """Electrons per second (ny, nx) float64 that an exposure gets of sources with these rates [e-/s], and of its sky."""
    distortion = imager.behind_filter(shot.exposure.detector)
    image = np.zeros(area.shape)
    positions = np.array([(source.ra, source.dec) for source, _ in scene]).reshape(-1, 2).T
    for pointing in shot.true:
        x, y = sky_to_pixel(distortion, pointing, *positions)
        at_x, at_y = x - area.xstart + 1, y - area.ystart + 1
        far = np.maximum(
            np.abs(at_x - 0.5 * area.xsize) - 0.5 * area.xsize, np.abs(at_y - 0.5 * area.ysize) - 0.5 * area.ysize
        )
        for i in map(int, np.flatnonzero(far < STAMP)):
            source, rate = scene[i]
            weight, covariance = components(source, distortion, pointing, float(x[i]), float(y[i]), imager.psf)
            draw(image, rate / len(shot.true), float(at_x[i]), float(at_y[i]), weight, covariance)
    relative = distortion.pixel_area_map(area.shape, (area.xstart - 1, area.ystart - 1)) * ARCSEC**2
    return image + relative / imager.pixel_area(shot.exposure.detector) * shot.sky / _conversion(imager, shot)


def _conversion(imager: Imager, shot: Shot) -> float:
    """MJy/sr of one electron per second."""
    return image_conversion(imager.passband, 1.0, imager.pixel_area(shot.exposure.detector))


def _write_exposure_truth(path: Path, surface: np.ndarray, hits: np.ndarray) -> None:
    """Write the surface brightness (ny, nx) that an exposure should show [MJy/sr], and the pixels that particles hit."""
    primary = fits.PrimaryHDU()
    primary.header["DATE"] = DATE
    image, table = fits.ImageHDU(surface.astype(np.float32), name="SURFACE"), fits.BinTableHDU(hits, name="HITS")
    image.header["BUNIT"] = "MJy/sr"
    table.columns["charge"].unit = "electron"
    fits.HDUList([primary, image, table]).writeto(path)


def _write_truth(
    folder: Path,
    imager: Imager,
    areas: Mapping[str, Subarray],
    shots: Sequence[Shot],
    sources: Sequence[Source],
    in_shot: Sequence[Sequence[Source]],
) -> None:
    ecsv = {"format": "ascii.ecsv"}
    source_table(sources, imager.passband).write(folder / "sources.ecsv", **ecsv)
    line_table(sources).write(folder / "lines.ecsv", **ecsv)
    rows = [
        (shot.exposure.root, at.ra_ref, at.dec_ref, at.roll_ref, *shot.error, shot.sky)
        for shot in shots
        for at in [shot.true[len(shot.true) // 2]]
    ]
    table = Table(rows=rows, names=("exposure", "ra_ref", "dec_ref", "roll_ref", "v2_error", "v3_error", "sky"))
    table["ra_ref"].unit = table["dec_ref"].unit = table["roll_ref"].unit = u.deg
    table["v2_error"].unit = table["v3_error"].unit = u.mas
    table["sky"].unit = u.MJy / u.sr
    table.write(folder / "exposures.ecsv", **ecsv)
    for shot, seen in zip(shots, in_shot, strict=True):
        distortion = imager.behind_filter(shot.exposure.detector)
        at = shot.true[len(shot.true) // 2]
        positions = position_table(seen, distortion, at, None, areas[shot.exposure.detector])
        positions.write(folder / f"{shot.exposure.root}_positions.ecsv", **ecsv)
