"""Writes a slitless program of NIRCam or MIRI, as `program` does for NIRISS: one detector, raw images and spectra."""

import logging
from pathlib import Path

import numpy as np

from calibration.simulate import miri
from calibration.simulate.detector import Readout
from calibration.simulate.field import Pointing
from calibration.simulate.population import make_slitless_field
from calibration.simulate.slitless import SLITLESS
from infra.synthetic.crds_cache import write_mappings
from infra.synthetic.detector_references import Place
from infra.synthetic.imaging import cut_outs, make_camera
from infra.synthetic.program import (
    ROLL,
    TARGET,
    VA_SCALE,
    Raw,
    SyntheticProgram,
    check_program,
    plan_exposures,
    write_slitless_program,
)

log = logging.getLogger(__name__)

#: Name -> groups of a grism exposure.
PRESETS = {"nircam-wfss": 12, "miri-wfss": 30}


def write_wfss_program(
    folder: str | Path,
    preset: str,
    size: int = 1024,
    seed: int = 1,
    ngroups: int | None = None,
    grism_ngroups: int | None = None,
    dithers: int = 4,
    grism_dithers: int = 2,
) -> SyntheticProgram:
    """Simulate a slitless program and write it into ``folder``.

    Parameters
    ----------
    folder
        Made where it is not; must not hold another program.
    preset
        One of ``PRESETS``.
    size
        Rows of the detector for the whole of it (2048, MIRI: 1024), less for a square cut-out about its centre (even, from
        64).
    seed
        Of all that is random.
    ngroups, grism_ngroups
        Groups of the direct images, and of the grism exposures, of one frame each; default: those of the imager, and 12 or
        30.
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
    optics = SLITLESS[preset.removesuffix("-wfss").upper()]()
    images, folder = optics.images, Path(folder)
    ngroups = images.ngroups if ngroups is None else ngroups
    grism_ngroups = PRESETS[preset] if grism_ngroups is None else grism_ngroups
    check_program(folder, ngroups, grism_ngroups, dithers, grism_dithers)
    area = cut_outs(images, size)[optics.detector]
    subarray = "FULL" if size == images.detector_area.ysize else "GENERIC"
    image, spectrum = (Readout(1, n, 1, 0, images.frame_time) for n in (ngroups, grism_ngroups))
    exposures = plan_exposures(optics, image, spectrum, dithers, grism_dithers)
    streams = np.random.SeedSequence(seed).spawn(2 + len(exposures))
    detector_rng, field_rng, *exposure_rngs = map(np.random.default_rng, streams)

    references = folder / "crds" / "references" / "jwst" / images.instrument.lower()
    place = Place(images.instrument, optics.detector, subarray)
    longest = max(image, spectrum, key=lambda readout: readout.ngroups)
    camera, rules = make_camera(references, place, images, area, longest, detector_rng, optics)
    write_mappings(folder / "crds", {images.instrument: rules})
    log.info("%d reference files in %s", sum(1 for _ in references.glob("jwst_*")), folder / "crds")
    sources = make_slitless_field(optics, area, Pointing(*TARGET, ROLL, VA_SCALE), field_rng)
    whole_miri = images.instrument == "MIRI" and subarray == "FULL"

    def simulate(rate: np.ndarray, i: int) -> Raw:
        readout, rng = exposures[i].readout, exposure_rngs[i]
        ramp = camera.expose(rate * camera.efficiency, readout, rng).ramp
        return Raw(ramp, miri.reference_output(readout, rng) if whole_miri else None)

    return write_slitless_program(folder, optics, exposures, area, subarray, camera.gain, sources, simulate)
