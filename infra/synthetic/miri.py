"""Writes a MIRI exposure with all that stage 1 needs of it: raw ramps, the references in a CRDS cache, and the truth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stdatamodels.jwst import datamodels

from calibration.ramps.emicorr import Clock
from calibration.simulate.detector import Readout, bend
from calibration.simulate.miri import (
    DETECTOR,
    DRIFT,
    MEAN_GAIN,
    SUBARRAYS,
    WELL,
    Interference,
    MidInfraredDetector,
    dark_signal,
    expose,
    make_detector,
    reference_output,
    reset_anomaly,
)
from calibration.subarrays import Subarray
from infra.synthetic.crds_cache import CONTEXT, Rule, write_mappings
from infra.synthetic.exposure import SyntheticExposure, raw_cards, starry_sky, write_raw
from infra.synthetic.reference_format import about, define_dq, save_reference, write_asdf

READPATT = "FASTR1"
REFERENCE_INTEGRATIONS = 2  # of the dark and of the reset anomaly: the first, and those that follow
RESET_GROUPS = 10
SKIP_FIRST, SKIP_LATER = 1, 4  # groups that the decay of the switches spoils
FREQUENCY = 390.625  # [Hz]


def write_miri_exposure(
    folder: str | Path,
    nints: int = 1,
    ngroups: int = 20,
    subarray: str = "FULL",
    rate: np.ndarray | None = None,
    emi: float = 0.0,
    exp_type: str = "MIR_IMAGE",
    cards: Mapping[str, Any] | None = None,
    seed: int = 1,
    segments: int = 1,
    particles: float = 1.0,
    shower_rate: float = 0.0,
) -> SyntheticExposure:
    """Simulate an exposure of the imager and write it, with its references, into ``folder``.

    Parameters
    ----------
    folder
        Made where it is not.
    nints, ngroups
        Integrations, and groups of one frame each.
    subarray
        Name of a readout area, one of ``calibration.simulate.miri.SUBARRAYS``.
    rate : (ny, nx) float, optional
        Electrons per second that light makes; default: a sky and some hundred stars, of which the brightest saturate.
    emi
        Height of the interference at 390.625 Hz [DN].
    exp_type, cards
        EXP_TYPE, and other cards of the exposure.
    seed
        Of all that is random.
    segments
        Files that the integrations are spread over.
    particles
        How many times the cosmic rays at L2.
    shower_rate
        Showers on the area [1/s].

    Raises
    ------
    ValueError
        If the subarray is not known.
    """
    if subarray not in SUBARRAYS:
        raise ValueError(f"subarray must be one of {', '.join(SUBARRAYS)}, not {subarray!r}")
    folder = Path(folder)
    area, clock = SUBARRAYS[subarray]
    readout = Readout(nints, ngroups, 1, 0, clock.reset * 1e-5)
    whole_rng, sky_rng, rng = (np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(3))
    whole = make_detector(whole_rng)
    detector = whole.cut(area)
    if rate is None:
        # Some fill a pixel in a few frames.
        rate = starry_sky(area.shape, sky_rng, brightest=0.6 * WELL * MEAN_GAIN / readout.tframe)
    rate = np.where(detector.reference | ((detector.dq & 1) != 0), 0, rate)
    wave = np.sin(2 * np.pi * (np.arange(128) + 0.5) / 128) + 0.3 * np.sin(4 * np.pi * (np.arange(128) + 0.5) / 128)
    interference = (Interference(FREQUENCY, emi * wave, 0.3), clock) if emi else None
    raw = expose(rate, detector, readout, rng, interference, particles, shower_rate)
    header = raw_cards("MIRI", "MIRIMAGE", subarray, area, readout)
    header |= {
        "FILTER": "F770W",
        "EXP_TYPE": exp_type,
        "READPATT": READPATT,
        "NOUTPUTS": 4,
        "FASTAXIS": 1,
        "SLOWAXIS": 2,
    }
    # Subarrays have no reference output.
    refout = reference_output(readout, rng) if subarray == "FULL" else None
    files = write_raw(folder, "mirimage", header | dict(cards or {}), raw, readout, segments, refout=refout)
    crds = folder / "crds"
    references = crds / "references" / "jwst" / "miri"
    rules = write_references(references, whole, subarray, area, readout)
    rules.append(_write_interference(references, subarray, clock, wave))
    write_mappings(crds, {"MIRI": rules})
    truth = (rate / detector.gain).astype(np.float32)
    return SyntheticExposure(files, crds, CONTEXT, truth, raw.hits, detector)


def write_references(
    folder: Path, whole: MidInfraredDetector, subarray: str, area: Subarray, readout: Readout
) -> list[Rule]:
    """Write the references of stage 1, but that of the interference.

    Dark and reset anomaly are those of the area that is read out, called ``subarray``; all others of the whole detector.
    """
    detector = whole.cut(area)
    zeros = np.zeros(whole.reference.shape, np.uint32)

    mask = datamodels.MaskModel(dq=whole.dq)
    define_dq(mask, ("DO_NOT_USE", "DEAD", "HOT", "REFERENCE_PIXEL"))
    full = bend(np.full(zeros.shape, 0.97 * WELL, np.float32), whole.linearity)
    unchecked = np.where(whole.reference, 1 << 1, 0).astype(np.uint32)
    saturation = datamodels.SaturationModel(data=full, dq=unchecked)
    # The second bit of this file is another one than that of the standard.
    saturation.dq_def = np.array(
        [(0, 1, "DO_NOT_USE", ""), (1, 2, "NO_SAT_CHECK", "")],
        [("bit", "u4"), ("value", "u4"), ("name", "S40"), ("description", "S80")],
    )
    linearity = datamodels.LinearityModel(coeffs=whole.linearity, dq=zeros)
    define_dq(linearity, ("DO_NOT_USE", "NO_LIN_CORR"))
    # Where no reference pixels see the drift of the amplifiers, it is noise.
    drift = 0 if subarray == "FULL" else DRIFT
    noise = np.float32(np.sqrt(2)) * np.hypot(whole.read_noise, np.float32(drift))
    names = [name for name in {**SUBARRAYS, subarray: None} if name != "FULL"]
    table = [("FULL", "FASTR1"), ("FULL", "SLOWR1"), *((name, "FASTR1") for name in names)]
    rscd = datamodels.RSCDModel(
        rscd_group_skip_table=np.array(
            [(*row, SKIP_FIRST, SKIP_LATER) for row in table],
            [("subarray", "S17"), ("readpatt", "S12"), ("group_skip1", "i4"), ("group_skip", "i4")],
        )
    )
    files: dict[str, tuple[Any, str]] = {
        "mask": (mask, "bad pixels"),
        "saturation": (saturation, "saturation thresholds [DN]"),
        "linearity": (linearity, "linearity polynomials"),
        "gain": (datamodels.GainModel(data=whole.gain), "gain [e-/DN]"),
        "readnoise": (datamodels.ReadnoiseModel(data=noise), "noise of the difference of two reads [DN]"),
    }
    rules = []
    for reftype, (model, title) in files.items():
        meta = {**_meta(reftype, title), "subarray": area_cards("FULL", DETECTOR)}
        filename = save_reference(model, meta, folder, f"jwst_miri_{reftype}_0001.fits")
        rules.append(Rule(reftype, filename, {"META.INSTRUMENT.DETECTOR": "MIRIMAGE"}))
    filename = save_reference(rscd, _meta("rscd", "groups to skip"), folder, "jwst_miri_rscd_0001.fits")
    rules.append(Rule("rscd", filename, {"META.INSTRUMENT.DETECTOR": "MIRIMAGE"}))

    match = {"META.INSTRUMENT.DETECTOR": "MIRIMAGE", "META.EXPOSURE.READPATT": READPATT, "META.SUBARRAY.NAME": subarray}
    ngroups = readout.ngroups
    data = np.array(
        [
            [dark_signal(detector, i, (g + 1) * readout.tframe) for g in range(ngroups)]
            for i in range(REFERENCE_INTEGRATIONS)
        ]
    )
    flags = np.zeros((REFERENCE_INTEGRATIONS, 1, *area.shape), np.uint32)
    flags[1, 0][detector.dark > 10] = 1
    dark = datamodels.DarkMIRIModel(data=data.astype(np.float32), dq=flags)
    define_dq(dark, ("UNRELIABLE_DARK",))
    dark.dq_def["value"], dark.dq_def["bit"] = 1, 0
    exposure = {"readpatt": READPATT, "nframes": 1, "ngroups": ngroups, "groupgap": 0}
    meta = {
        **_meta("dark", "accumulated dark signal [DN]"),
        "subarray": area_cards(subarray, area),
        "exposure": exposure,
    }
    rules.append(Rule("dark", save_reference(dark, meta, folder, "jwst_miri_dark_0001.fits"), match))

    groups = min(ngroups, RESET_GROUPS)
    data = np.array(
        [[reset_anomaly(detector, i, g) for g in range(groups)] for i in range(REFERENCE_INTEGRATIONS)], np.float32
    )
    reset = datamodels.ResetModel(data=data, dq=np.zeros(area.shape, np.uint32))
    define_dq(reset, ("DO_NOT_USE", "UNRELIABLE_BIAS"))
    exposure = {"readpatt": READPATT, "ngroups": groups, "nints": REFERENCE_INTEGRATIONS}
    meta = {**_meta("reset", "reset anomaly [DN]"), "subarray": area_cards(subarray, area), "exposure": exposure}
    rules.append(Rule("reset", save_reference(reset, meta, folder, "jwst_miri_reset_0001.fits"), match))

    return rules


def _write_interference(folder: Path, subarray: str, clock: Clock, wave: np.ndarray) -> Rule:
    filename = "jwst_miri_emicorr_0001.asdf"
    case = {"rowclocks": clock.row, "frameclocks": clock.reset, "freqs": {"FAST": ["Hz390"]}}
    tree = {
        "meta": {**_meta("emicorr", "waves of interference"), "filename": filename, "model_type": "EmiModel"},
        "frequencies": {"Hz390": {"frequency": FREQUENCY, "phase_amplitudes": wave}},
        "subarray_cases": {"FULL_FAST" if subarray == "FULL" else subarray: case},
    }
    write_asdf(tree, folder / filename)
    return Rule("emicorr", filename, {"META.INSTRUMENT.DETECTOR": "MIRIMAGE"})


def _meta(reftype: str, title: str) -> dict[str, Any]:
    return about(reftype, title, "MIRI", "MIRIMAGE")


def area_cards(subarray: str, area: Subarray) -> dict[str, Any]:
    """Subarray keywords of a reference file."""
    corner = {"xstart": area.xstart, "ystart": area.ystart, "xsize": area.xsize, "ysize": area.ysize}
    return {"name": subarray, **corner, "fastaxis": 1, "slowaxis": 2}
