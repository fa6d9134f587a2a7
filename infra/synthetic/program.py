"""Writes a synthetic program into a folder: raw exposures, the references they need, the pool, and the truth.

    uncal/          raw exposures, as the archive has them
    crds/           a CRDS cache, with mappings and reference files (CRDS_PATH)
    <program>_pool.csv
    truth/          sources.ecsv, lines.ecsv, spectrum_<number>.ecsv, <exposure>_positions.ecsv

Everything follows from one seed: two runs give the same bytes. All dates are those of the made-up observation.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from calibration.simulate import niriss
from calibration.simulate.detector import Readout, expose
from calibration.simulate.dispersion import Grism, disperse, sky_pattern
from calibration.simulate.field import Pointing, sky_to_pixel, step_on_sky
from calibration.simulate.population import make_sources
from calibration.simulate.references import FULL_SIZE, MEAN_GAIN, make_detector
from calibration.simulate.scene import Source, components, draw, source_rate
from calibration.simulate.slitless import Slitless, niriss_wfss
from calibration.simulate.throughput import F200W, image_conversion
from calibration.subarrays import Subarray
from infra.products.header import Header
from infra.products.ramp import write_uncal
from infra.synthetic.crds_cache import CONTEXT, write_mappings
from infra.synthetic.headers import Exposure, exposure_cards, group_table, times_table
from infra.synthetic.reference_files import write_guider, write_niriss
from infra.synthetic.reference_format import DATE
from infra.synthetic.tables import line_table, position_table, source_table, spectrum_name, spectrum_table, write_pool

log = logging.getLogger(__name__)

PRESETS = ("niriss-wfss",)
TARGET = (53.1625, -27.7914)  # [deg]
ROLL = 57.0  # [deg]
VA_SCALE = 1.0000531
START = 60139.42  # MJD of the first exposure, 2023-07-14
OVERHEAD = 95.0  # [s] between exposures
FRAME_TIME = 10.73677  # [s] of the full frame; a cut-out keeps it, so that its depth does not depend on its size

#: Steps of the telescope along (V2, V3) [arcsec].
IMAGE_DITHERS = ((0.0, 0.0), (0.61, 0.37), (-0.43, 0.72), (0.34, -0.56), (-0.66, -0.31), (0.15, 0.95))
GRISM_DITHERS = ((0.0, 0.0), (0.57, 0.89), (-0.72, 0.28), (0.41, -0.64))


@dataclass(frozen=True)
class SyntheticProgram:
    """What was written.

    Attributes
    ----------
    folder, crds, pool
        Paths of the program, its CRDS cache and its pool.
    uncal
        Raw exposures, in the order they were taken.
    context
        Name of the CRDS context.
    sources
        The truth.
    """

    folder: Path
    crds: Path
    pool: Path
    uncal: tuple[Path, ...]
    context: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Raw:
    """The arrays of a raw exposure: ``ramp`` (nints, ngroups, ny, nx) and, of MIRI, the reference output; uint16 [DN]."""

    ramp: np.ndarray
    refout: np.ndarray | None = None


def write_program(
    folder: str | Path,
    preset: str = "niriss-wfss",
    size: int = FULL_SIZE,
    seed: int = 1,
    ngroups: int = 8,
    grism_ngroups: int = 6,
    dithers: int = 4,
    grism_dithers: int = 2,
) -> SyntheticProgram:
    """Simulate a program and write it into ``folder``.

    Parameters
    ----------
    folder
        Made where it is not; must not hold another program.
    preset
        Kind of program: "niriss-wfss" has direct images in F200W and both grisms.
    size
        2048 for the full frame, less for a square cut-out about the centre of the detector (even, from 64).
    seed
        Of all that is random.
    ngroups, grism_ngroups
        Groups of the direct images (one frame each) and of the grism exposures (four frames averaged).
    dithers, grism_dithers
        Direct images (1 to 6), and exposures per grism (1 to 4).

    Raises
    ------
    ValueError
        If a parameter is out of range.
    FileExistsError
        If the folder already holds a program.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}")
    folder = Path(folder)
    check_program(folder, ngroups, grism_ngroups, dithers, grism_dithers)

    optics = niriss_wfss()
    streams = iter(np.random.SeedSequence(seed).spawn(3 + dithers + 2 * grism_dithers))
    detector = make_detector(size, np.random.default_rng(next(streams)))
    reference_pointing = Pointing(*TARGET, ROLL, VA_SCALE)
    sources = make_sources(
        size,
        detector.origin,
        niriss.distortion("CLEAR", F200W.name),
        reference_pointing,
        np.random.default_rng(next(streams)),
    )
    readouts = {
        "NISRAPID": Readout(1, ngroups, 1, 0, FRAME_TIME),
        "NIS": Readout(1, grism_ngroups, 4, 0, FRAME_TIME),
    }
    subarray = "FULL" if size == FULL_SIZE else "GENERIC"

    crds = folder / "crds"
    references = crds / "references" / "jwst"
    rules = {
        "NIRISS": write_niriss(references / "niriss", detector, subarray, readouts),
        "FGS": write_guider(references / "fgs", np.random.default_rng(next(streams))),
    }
    write_mappings(crds, rules)
    log.info("%d reference files in %s", sum(1 for _ in references.rglob("jwst_*")), crds)

    exposures = plan_exposures(optics, readouts["NISRAPID"], readouts["NIS"], dithers, grism_dithers)
    area = Subarray(detector.origin[0] + 1, detector.origin[1] + 1, size, size)
    generators = list(streams)

    def simulate(rate: np.ndarray, i: int) -> Raw:
        rate = rate * detector.efficiency
        return Raw(expose(rate, detector, exposures[i].readout, np.random.default_rng(generators[i])).ramp)

    return write_slitless_program(folder, optics, exposures, area, subarray, MEAN_GAIN, sources, simulate)


def check_program(folder: Path, ngroups: int, grism_ngroups: int, dithers: int, grism_dithers: int) -> None:
    """Raise if a parameter of a slitless program is out of range, or the folder already holds a program."""
    for name, value, largest in (
        ("dithers", dithers, len(IMAGE_DITHERS)),
        ("grism_dithers", grism_dithers, len(GRISM_DITHERS)),
    ):
        if not 1 <= value <= largest:
            raise ValueError(f"{name} must be from 1 to {largest}, not {value}")
    for name, value in (("ngroups", ngroups), ("grism_ngroups", grism_ngroups)):
        if value < 2:
            raise ValueError(f"{name} must be at least 2, not {value}: a slope needs two groups")
    if (folder / "uncal").exists():
        raise FileExistsError(f"{folder} already holds a program; remove it or choose another folder")


def write_slitless_program(
    folder: Path,
    optics: Slitless,
    exposures: Sequence[Exposure],
    area: Subarray,
    subarray: str,
    gain: float,
    sources: tuple[Source, ...],
    simulate: Callable[[np.ndarray, int], Raw],
) -> SyntheticProgram:
    """Write the exposures, the pool and the truth of a slitless program whose references are in ``folder/crds``.

    ``gain`` [e-/DN] is that of the detector on average; ``simulate`` makes the arrays of an exposure, by its number, from the
    electrons per second (ny, nx) that light would make in pixels that are all alike.
    """
    at = Pointing(*TARGET, ROLL, VA_SCALE)
    pointings = [step_on_sky(optics.images.optics[optics.detector], at, *exposure.dither) for exposure in exposures]
    headers = [
        exposure_cards(exposure, pointing, area, subarray, TARGET, len(exposures))
        for exposure, pointing in zip(exposures, pointings, strict=True)
    ]
    paths = write_exposures(
        folder,
        exposures,
        headers,
        lambda i: simulate(light(optics, exposures[i], pointings[i], area, gain, sources), i),
    )
    pool = write_pool(folder, exposures, headers)
    _write_truth(folder / "truth", optics, exposures, pointings, area, sources)
    return SyntheticProgram(folder, folder / "crds", pool, paths, CONTEXT, sources)


def write_exposures(
    folder: Path, exposures: Sequence[Exposure], headers: Sequence[Mapping[str, Any]], simulate: Callable[[int], Raw]
) -> tuple[Path, ...]:
    """Write raw exposures into ``folder/uncal``; ``simulate`` makes the arrays of each. Returns the files."""
    (folder / "uncal").mkdir(parents=True)
    paths = tuple(folder / "uncal" / f"{exposure.root}_uncal.fits" for exposure in exposures)

    def write(i: int) -> None:
        raw, exposure, header = simulate(i), exposures[i], Header(headers[i])
        times = times_table(exposure.start, exposure.readout)
        write_uncal(paths[i], header, raw.ramp, group_table(exposure, header.subarray), times, refout=raw.refout)
        with fits.open(paths[i], mode="update") as hdulist:
            hdulist[0].header["DATE"] = DATE
        log.info("%s: %s %s", paths[i].name, exposure.imager.exp_type, exposure.imager.filter)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(len(exposures))))
    return paths


def plan_exposures(
    optics: Slitless, image: Readout, spectrum: Readout, dithers: int, grism_dithers: int
) -> list[Exposure]:
    """The exposures in order: grism after grism, then the direct images, so that the rule for grism exposures (the next
    specification that is a direct image) finds one for each."""
    blocks = [(behind, spectrum, GRISM_DITHERS[:grism_dithers]) for behind in optics.spectra]
    blocks.append((optics.images, image, IMAGE_DITHERS[:dithers]))
    exposures: list[Exposure] = []
    start = START
    for block, (imager, readout, steps) in enumerate(blocks, start=1):
        for number, step in enumerate(steps, start=1):
            exposure = Exposure(
                imager=imager,
                detector=optics.detector,
                visit=1,
                activity=block,
                number=number,
                count=len(steps),
                specification=block,
                running=len(exposures) + 1,
                dither=step,
                readout=readout,
                start=start,
            )
            exposures.append(exposure)
            start += (exposure.duration + OVERHEAD) / 86400
    return exposures


def light(
    optics: Slitless,
    exposure: Exposure,
    pointing: Pointing,
    area: Subarray,
    gain: float,
    sources: tuple[Source, ...],
) -> np.ndarray:
    """Electrons per second (ny, nx) float64 that the scene makes in each pixel of an exposure."""
    imager, origin = exposure.imager, (area.xstart - 1, area.ystart - 1)
    distortion = imager.behind_filter(exposure.detector)
    relative = distortion.pixel_area_map(area.shape, origin)
    relative /= distortion.pixel_area(np.array(distortion.x_ref), np.array(distortion.y_ref))
    image = np.zeros(area.shape)
    grism = _grism_of(optics, exposure)
    if grism is None:
        for source in sources:
            x0, y0 = sky_to_pixel(distortion, pointing, source.ra, source.dec)
            weight, covariance = components(source, distortion, pointing, float(x0), float(y0), imager.psf)
            at_x, at_y = float(x0) - origin[0], float(y0) - origin[1]
            draw(image, source_rate(source, imager.passband), at_x, at_y, weight, covariance)
        return image + relative * imager.sky / image_conversion(
            imager.passband, 1.0, imager.pixel_area(exposure.detector)
        )
    disperse(image, sources, distortion, pointing, grism.cut(origin), optics.passband, origin, imager.psf)
    return image + relative * optics.sky * gain * sky_pattern(area.shape, origin, grism.axis)


def _grism_of(optics: Slitless, exposure: Exposure) -> Grism | None:
    """What disperses the light of an exposure, for the full frame; None for a direct image."""
    return next((g for behind, g in zip(optics.spectra, optics.grisms, strict=True) if behind is exposure.imager), None)


def _write_truth(folder, optics, exposures, pointings, area, sources):
    folder.mkdir()
    ecsv = {"format": "ascii.ecsv"}
    source_table(sources, optics.images.passband).write(folder / "sources.ecsv", **ecsv)
    line_table(sources).write(folder / "lines.ecsv", **ecsv)
    for source in sources:
        spectrum_table(source, optics.passband).write(folder / f"{spectrum_name(source.number)}.ecsv", **ecsv)
    for exposure, pointing in zip(exposures, pointings, strict=True):
        grism = _grism_of(optics, exposure)
        if grism is not None:
            grism = grism.cut((area.xstart - 1, area.ystart - 1))
        table = position_table(sources, exposure.imager.behind_filter(exposure.detector), pointing, grism, area)
        table.write(folder / f"{exposure.root}_positions.ecsv", **ecsv)
