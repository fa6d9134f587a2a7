"""The reference files of a slitless program of NIRISS, and of the guider, and the rules that choose them."""

from pathlib import Path

import numpy as np
from stdatamodels.jwst import datamodels

from calibration import dq
from calibration.simulate import niriss
from calibration.simulate.detector import Readout
from calibration.simulate.references import MEAN_GAIN, Detector
from calibration.simulate.slitless import niriss_wfss
from infra.synthetic.crds_cache import Rule
from infra.synthetic.detector_references import Place, write_darks, write_detector
from infra.synthetic.imaging_references import ImagingReferences
from infra.synthetic.reference_format import about, define_dq, save_reference
from infra.synthetic.spectral_references import write_slitless


def write_niriss(folder: Path, detector: Detector, subarray: str, readouts: dict[str, Readout]) -> list[Rule]:
    """Write all NIRISS references; ``readouts`` is read pattern -> readout. Returns the rules that choose them."""
    place, imager = Place("NIRISS", "NIS", subarray), niriss.imager()
    to = ImagingReferences(folder, place, imager, place.area(detector), MEAN_GAIN, imager.exp_type)
    return [
        *write_detector(folder, place, detector),
        *write_darks(folder, place, detector, readouts),
        *write_slitless(to, niriss_wfss(), detector.efficiency * np.float32(MEAN_GAIN) / detector.gain),
    ]


def write_guider(folder: Path, rng: np.random.Generator) -> list[Rule]:
    """References of the FGS guider pipeline, for a box of GUIDER2 that holds the place of an ACQ1 window."""
    size, xstart, ystart = 256, 823, 958
    area = {"name": "GENERIC", "xstart": xstart, "ystart": ystart, "xsize": size, "ysize": size}
    area |= {"fastaxis": 2, "slowaxis": -1}
    shape = (size, size)
    flat = (1 + 0.02 * rng.standard_normal(shape)).astype(np.float32)
    flags = np.zeros(shape, np.uint32)
    flags[rng.random(shape) < 5e-4] = dq.PIXEL["DO_NOT_USE"] | dq.PIXEL["DEAD"]
    mask = datamodels.MaskModel(dq=flags)
    define_dq(mask, ("DO_NOT_USE", "DEAD"))
    flat_model = datamodels.FlatModel(data=flat, dq=flags, err=np.full(shape, 1e-3, np.float32))
    define_dq(flat_model, ("DO_NOT_USE", "DEAD"))
    files = {
        "mask": mask,
        "flat": flat_model,
        "gain": datamodels.GainModel(data=np.full(shape, 1.9, np.float32)),
        "readnoise": datamodels.ReadnoiseModel(data=np.full(shape, 9.0, np.float32)),
    }
    rules = []
    for reftype, model in files.items():
        meta = {**about(reftype, f"guider {reftype}", "FGS", "GUIDER2"), "subarray": area}
        filename = save_reference(model, meta, folder, f"jwst_fgs_{reftype}_0001.fits")
        rules.append(Rule(reftype, filename, {"META.INSTRUMENT.DETECTOR": "GUIDER2"}))
    return rules
