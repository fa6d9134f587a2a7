"""Writes an exposure of NIRCam, NIRISS or FGS with all that stage 1 needs of it: raw ramps, references, and the truth."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.simulate.detector import Readout, expose
from calibration.simulate.persistence import Traps
from calibration.simulate.references import SENSORS, make_area
from calibration.subarrays import Subarray
from infra.synthetic.crds_cache import CONTEXT, write_mappings
from infra.synthetic.detector_references import Place, write_darks, write_detector
from infra.synthetic.exposure import SyntheticExposure, raw_cards, starry_sky, write_raw
from infra.synthetic.trap_references import write_traps

FULL = Subarray(1, 1, 2048, 2048)
FULL_TIME = 10.73677  # [s], of a frame


@dataclass(frozen=True)
class Mode:
    """One way to use a detector.

    Parameters
    ----------
    instrument, detector, subarray, exp_type
        As the keywords.
    area
        Where the subarray is; its place on the detector is about that of the documentation.
    tframe
        Seconds per frame (JWST documentation, "detector subarrays" of each instrument).
    noutputs
        Amplifiers that read it.
    pattern, nframes, groupgap
        Read pattern.
    zeroframe
        Whether the first frame of each integration is sent down.
    filter, pupil
        Optics.
    """

    instrument: str
    detector: str
    subarray: str
    exp_type: str
    area: Subarray
    tframe: float
    noutputs: int
    pattern: str
    nframes: int = 1
    groupgap: int = 0
    zeroframe: bool = False
    filter: str = "CLEAR"
    pupil: str = "CLEAR"


MODES = {
    "nircam-image": Mode(
        "NIRCAM", "NRCA1", "FULL", "NRC_IMAGE", FULL, FULL_TIME, 4, "SHALLOW4", 4, 1, True, "F150W"
    ),
    "nircam-sub160": Mode(
        "NIRCAM", "NRCB1", "SUB160", "NRC_IMAGE", Subarray(1, 1889, 160, 160), 0.27864, 1, "RAPID", zeroframe=True,
        filter="F150W",
    ),
    "nircam-sub64p": Mode(
        "NIRCAM", "NRCBLONG", "SUB64P", "NRC_TSIMAGE", Subarray(1969, 1969, 64, 64), 0.05016, 1, "BRIGHT2", 2,
        filter="F444W",
    ),
    "nircam-subgrism64": Mode(
        "NIRCAM", "NRCALONG", "SUBGRISM64", "NRC_TSGRISM", Subarray(1, 1, 2048, 64), 0.34061, 4, "SHALLOW4", 4, 1, True,
        "F444W", "GRISMR",
    ),
    "nircam-subgrism256": Mode(
        "NIRCAM", "NRCALONG", "SUBGRISM256", "NRC_TSGRISM", Subarray(1, 1, 2048, 256), 1.34669, 4, "BRIGHT2", 2, 0, True,
        "F444W", "GRISMR",
    ),
    "niriss-image": Mode("NIRISS", "NIS", "FULL", "NIS_IMAGE", FULL, FULL_TIME, 4, "NIS", 4, pupil="F200W"),
    "niriss-sub80": Mode(
        "NIRISS", "NIS", "SUB80", "NIS_AMI", Subarray(1045, 1, 80, 80), 0.07544, 1, "NISRAPID", filter="F480M", pupil="NRM"
    ),
    "niriss-substrip96": Mode(
        "NIRISS", "NIS", "SUBSTRIP96", "NIS_SOSS", Subarray(1, 1803, 2048, 96), 2.21264, 1, "NISRAPID", pupil="GR700XD"
    ),
    "niriss-substrip256": Mode(
        "NIRISS", "NIS", "SUBSTRIP256", "NIS_SOSS", Subarray(1, 1793, 2048, 256), 5.49132, 1, "NISRAPID", pupil="GR700XD"
    ),
    "fgs-image": Mode("FGS", "GUIDER1", "FULL", "FGS_IMAGE", FULL, FULL_TIME, 4, "FGS", 4, filter="N/A", pupil="N/A"),
}  # fmt: skip


def write_near_infrared_exposure(
    folder: str | Path,
    mode: str | Mode,
    nints: int = 1,
    ngroups: int = 6,
    rate: np.ndarray | None = None,
    divisor: int = 0,
    segments: int = 1,
    particles: float = 1.0,
    snowball_rate: float = 0.0,
    cards: Mapping[str, Any] | None = None,
    seed: int = 1,
    traps: Traps | None = None,
) -> SyntheticExposure:
    """Simulate an exposure and write it, with its references, into ``folder``.

    Parameters
    ----------
    folder
        Made where it is not.
    mode
        Name of one of ``MODES``, or a mode of one's own.
    nints, ngroups
        Integrations and groups.
    rate : (ny, nx) float, optional
        Electrons per second that light makes; default: a sky and stars, one in 4000 pixels, of which the brightest fill a
        pixel within the first frame.
    divisor
        FRMDIVSR where it differs from NFRAMES.
    segments
        Files that the integrations are spread over.
    particles
        How many times the cosmic rays at L2.
    snowball_rate
        Snowballs on a whole detector [1/s].
    cards
        Other cards of the header; they come last.
    seed
        Of all that is random.
    traps
        That are filled from an exposure before; their references are written, too.

    Raises
    ------
    ValueError
        If the mode is not known.
    """
    if isinstance(mode, str):
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
        mode = MODES[mode]
    folder = Path(folder)
    readout = Readout(nints, ngroups, mode.nframes, mode.groupgap, mode.tframe, divisor)
    detector_rng, sky_rng, rng = (np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(3))
    sensor = SENSORS[mode.detector]
    detector = make_area(sensor, mode.area, mode.noutputs, detector_rng)
    if rate is None:
        rate = starry_sky(mode.area.shape, sky_rng, 0.5, 1.5 * sensor.well * sensor.gain / mode.tframe)
    rate = np.where(detector.reference, 0, rate * detector.efficiency)
    raw = expose(rate, detector, readout, rng, particles, snowball_rate, traps=traps)

    header = raw_cards(mode.instrument, mode.detector, mode.subarray, mode.area, readout)
    header |= {
        "EXP_TYPE": mode.exp_type, "READPATT": mode.pattern, "NOUTPUTS": mode.noutputs, "ZEROFRAM": mode.zeroframe,
        "FILTER": mode.filter, "PUPIL": mode.pupil, "FASTAXIS": sensor.fastaxis, "SLOWAXIS": sensor.slowaxis,
        "TSOVISIT": mode.exp_type in ("NRC_TSIMAGE", "NRC_TSGRISM", "NIS_SOSS"),
    }  # fmt: skip
    files = write_raw(folder, mode.detector, header | dict(cards or {}), raw, readout, segments, mode.zeroframe)
    crds = folder / "crds"
    references = crds / "references" / "jwst" / mode.instrument.lower()
    place = Place(mode.instrument, mode.detector, mode.subarray)
    # A dark of single frames, as the observatory's are.
    frames = Readout(1, readout.frames, 1, 0, mode.tframe)
    rules = [
        *write_detector(references, place, detector),
        *write_darks(references, place, detector, {mode.pattern: frames}),
        *([] if traps is None else write_traps(references, place, detector, traps)),
    ]
    write_mappings(crds, {mode.instrument: rules})
    truth = (rate / detector.gain).astype(np.float32)
    return SyntheticExposure(files, crds, CONTEXT, truth, raw.hits, detector)
