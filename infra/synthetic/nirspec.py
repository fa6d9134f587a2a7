"""Writes a NIRSpec exposure with all that stage 1 needs of it: raw ramps, IRS2 or traditional, references, and the truth."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from stdatamodels.jwst import datamodels

from calibration.interleaving import LINES, NORMAL, REFERENCE
from calibration.simulate.detector import Readout, expose
from calibration.simulate.irs2 import (
    best_weights,
    excluded_table,
    interleave,
    interleaved_bias,
    interleaved_flags,
)
from calibration.simulate.picture_frame import glow_of_edges
from calibration.simulate.references import SENSORS, Detector, make_area
from calibration.subarrays import Subarray
from infra.synthetic.crds_cache import CONTEXT, Rule, write_mappings
from infra.synthetic.detector_references import Place, write_darks, write_detector
from infra.synthetic.exposure import SyntheticExposure, raw_cards, starry_sky, write_raw
from infra.synthetic.near_infrared import FULL, Mode, write_near_infrared_exposure
from infra.synthetic.reference_format import about, define_dq, save_reference

#: Ways to use NIRSpec; places of subarrays and times of frames are about those of the documentation.
MODES = {
    "irs2-rapid": Mode("NIRSPEC", "NRS1", "FULL", "NRS_FIXEDSLIT", FULL, 14.58889, 4, "NRSIRS2RAPID"),
    "irs2": Mode("NIRSPEC", "NRS2", "FULL", "NRS_MSASPEC", FULL, 14.58889, 4, "NRSIRS2", 5),
    "full": Mode("NIRSPEC", "NRS1", "FULL", "NRS_IFU", FULL, 10.73677, 4, "NRS", 4),
    "allslits": Mode(
        "NIRSPEC", "NRS1", "ALLSLITS", "NRS_FIXEDSLIT", Subarray(1, 897, 2048, 256), 5.49132, 1, "NRSRAPID"
    ),
    "subs200a1": Mode(
        "NIRSPEC", "NRS2", "SUBS200A1", "NRS_FIXEDSLIT", Subarray(1, 1033, 2048, 64), 1.55962, 1, "NRSRAPID"
    ),
    "sub2048": Mode("NIRSPEC", "NRS1", "SUB2048", "NRS_BRIGHTOBJ", Subarray(1, 1051, 2048, 32), 0.90156, 1, "NRSRAPID"),
    "sub512": Mode("NIRSPEC", "NRS1", "SUB512", "NRS_BRIGHTOBJ", Subarray(897, 1051, 512, 32), 0.22572, 1, "NRSRAPID"),
    "sub32": Mode("NIRSPEC", "NRS1", "SUB32", "NRS_TACQ", Subarray(969, 1051, 32, 32), 0.0149, 1, "NRSRAPID"),
}


def write_nirspec_exposure(
    folder: str | Path,
    mode: str | Mode,
    nints: int = 1,
    ngroups: int = 4,
    rate: np.ndarray | None = None,
    particles: float = 1.0,
    cards: Mapping[str, Any] | None = None,
    seed: int = 1,
) -> SyntheticExposure:
    """Simulate an exposure and write it, with its references, into ``folder``.

    Parameters
    ----------
    folder
        Made where it is not.
    mode
        Name of one of ``MODES``, or a mode of one's own. A read pattern with IRS2 in its name has reference pixels
        between the rows, and references in which they are there, too.
    nints, ngroups
        Integrations and groups.
    rate : (ny, nx) float, optional
        Electrons per second that light makes; default: a sky and stars.
    particles
        How many times the cosmic rays at L2.
    cards
        Other cards of the header; they come last.
    seed
        Of all that is random.

    Raises
    ------
    ValueError
        If the mode is not known, or IRS2 is asked for rows of the detector.
    """
    if isinstance(mode, str):
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
        mode = MODES[mode]
    own = {"FILTER": "F170LP", "GRATING": "G235H", "TSOVISIT": mode.exp_type == "NRS_BRIGHTOBJ"} | dict(cards or {})
    if "IRS2" not in mode.pattern:
        # The wheel of gratings is no pupil.
        return write_near_infrared_exposure(
            folder, mode, nints, ngroups, rate, particles=particles, cards=own, seed=seed
        )
    if (mode.area.xstart, mode.area.shape[0]) != (1, LINES):
        raise ValueError(f"IRS2 reads the whole detector, or for tests the first columns of it, not {mode.area}")
    folder = Path(folder)
    readout = Readout(nints, ngroups, mode.nframes, mode.groupgap, mode.tframe)
    streams = np.random.SeedSequence(seed).spawn(4)
    detector_rng, sky_rng, rng, noise_rng = (np.random.default_rng(stream) for stream in streams)
    sensor = SENSORS[mode.detector]
    detector = make_area(sensor, mode.area, mode.noutputs, detector_rng)
    if rate is None:
        rate = starry_sky(mode.area.shape, sky_rng, 0.5, 1.5 * sensor.well * sensor.gain / mode.tframe)
    rate = np.where(detector.reference, 0, rate * detector.efficiency)
    exposed = expose(rate, detector, readout, rng, particles, drifts=0.0)
    ramp, _ = interleave(exposed.ramp, detector, readout, noise_rng)
    header = raw_cards(mode.instrument, mode.detector, mode.subarray, mode.area, readout)
    header |= {
        "EXP_TYPE": mode.exp_type, "READPATT": mode.pattern, "NOUTPUTS": mode.noutputs, "FASTAXIS": sensor.fastaxis,
        "SLOWAXIS": sensor.slowaxis, "NRS_NORM": NORMAL, "NRS_REF": REFERENCE,
    }  # fmt: skip
    files = write_raw(folder, mode.detector, header | own, replace(exposed, ramp=ramp), readout)
    crds = folder / "crds"
    references = crds / "references" / "jwst" / "nirspec"
    place = Place(mode.instrument, mode.detector, mode.subarray)
    frames = Readout(1, readout.frames, 1, 0, mode.tframe)
    rules = [
        *write_detector(references, place, detector),
        *write_darks(references, place, detector, {mode.pattern: frames}),
        *write_irs2(references, place, detector, mode.nframes),
    ]
    write_mappings(crds, {mode.instrument: rules})
    truth = (rate / detector.gain).astype(np.float32)
    return SyntheticExposure(files, crds, CONTEXT, truth, exposed.hits, detector)


def write_irs2(folder: Path, place: Place, detector: Detector, nframes: int) -> list[Rule]:
    """Write the weights of IRS2, the glow of the edges, and mask and bias of IRS2 in the place of those of the detector."""
    flags = interleaved_flags(detector)
    mask = datamodels.MaskModel(dq=flags)
    define_dq(mask, ("DO_NOT_USE", "DEAD", "HOT", "REFERENCE_PIXEL", "BAD_REF_PIXEL"))
    bias = interleaved_bias(detector)
    superbias = datamodels.SuperBiasModel(
        data=bias, err=np.full(bias.shape, 0.1, np.float32), dq=np.zeros(bias.shape, np.uint32)
    )
    define_dq(superbias, ("DO_NOT_USE", "UNRELIABLE_BIAS"))
    for reftype, model, title in (("mask", mask, "bad pixels, IRS2"), ("superbias", superbias, "bias [DN], IRS2")):
        # The header has the size of the detector, as the exposures have.
        meta = {**about(reftype, title, place.instrument, place.detector), "subarray": place.area(detector)}
        save_reference(model, meta, folder, place.name(reftype))

    pixels, output = best_weights(detector, detector.shape[1], nframes)
    columns = {f"{kind}_{k}": table[k] for kind, table in (("alpha", output), ("beta", pixels)) for k in range(4)}
    weights = np.empty(2 * pixels.shape[1], [(name, "f4") for name in columns])
    for name, column in columns.items():
        weights[name] = column.view(np.float32)
    excluded = np.array(excluded_table(), [("OUTPUT", "u2"), ("ODD_EVEN", "u2"), ("MASK", "u4")])
    model = datamodels.IRS2Model(irs2_table=weights, dq_table=excluded)
    meta = about("refpix", "weights of the reference pixels, IRS2", place.instrument, place.detector)
    filename = save_reference(model, meta, folder, place.name("refpix"))
    rules = [Rule("refpix", filename, place.match)]

    ny, nx = detector.shape
    model = datamodels.PictureFrameModel(data=glow_of_edges(Subarray(1, 1, nx, ny)))
    meta = about("pictureframe", "glow of the edges [DN/s]", place.instrument, place.detector)
    filename = save_reference(model, meta, folder, place.name("pictureframe"))
    return [*rules, Rule("pictureframe", filename, place.match)]
