"""The reference files of stage 1 for a near-infrared detector, and the rules that choose them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stdatamodels.jwst import datamodels

from calibration.simulate.detector import PINK_NOISE, Readout, bend
from calibration.simulate.references import Detector, deconvolution_kernel
from infra.synthetic.crds_cache import Rule
from infra.synthetic.reference_format import about, define_dq, save_reference


@dataclass(frozen=True)
class Place:
    """Which detector, and which readout area of it: the keywords of reference files and the rules that choose them.

    The numbers of its files begin after ``serial``, so that several detectors can share a folder.
    """

    instrument: str
    detector: str
    subarray: str
    serial: int = 0

    def name(self, reftype: str, number: int = 1, suffix: str = "fits") -> str:
        """File name of a reference."""
        return f"jwst_{self.instrument.lower()}_{reftype}_{self.serial + number:04}.{suffix}"

    def area(self, detector: Detector) -> dict[str, Any]:
        """Subarray keywords of a reference file."""
        (ny, nx), (x, y), sensor = detector.shape, detector.origin, detector.sensor
        corner = {"xstart": x + 1, "ystart": y + 1, "xsize": nx, "ysize": ny}
        return {"name": self.subarray, **corner, "fastaxis": sensor.fastaxis, "slowaxis": sensor.slowaxis}

    @property
    def match(self) -> dict[str, str]:
        """What exposures must have."""
        return {"META.INSTRUMENT.DETECTOR": self.detector, "META.SUBARRAY.NAME": self.subarray}


def write_detector(folder: Path, place: Place, detector: Detector) -> list[Rule]:
    """Write all references of stage 1 but the darks."""
    zeros = np.zeros(detector.shape, np.uint32)
    bad_names = ("DO_NOT_USE", "DEAD", "HOT", "REFERENCE_PIXEL")

    mask = datamodels.MaskModel(dq=detector.dq)
    define_dq(mask, bad_names)

    full = detector.bias + bend(0.97 * detector.well, detector.linearity)
    saturation = datamodels.SaturationModel(data=np.minimum(full, 65_000).astype(np.float32), dq=zeros)
    define_dq(saturation, ("DO_NOT_USE", "NO_SAT_CHECK"))

    superbias = datamodels.SuperBiasModel(data=detector.bias, err=np.full(detector.shape, 0.1, np.float32), dq=zeros)
    define_dq(superbias, ("DO_NOT_USE", "UNRELIABLE_BIAS"))

    linearity = datamodels.LinearityModel(coeffs=detector.linearity, dq=zeros)
    define_dq(linearity, ("DO_NOT_USE", "NO_LIN_CORR"))

    noise = np.float32(np.sqrt(2)) * np.hypot(detector.read_noise, np.float32(PINK_NOISE))
    files = {
        "mask": (mask, "bad pixels"),
        "saturation": (saturation, "saturation thresholds [DN]"),
        "superbias": (superbias, "bias [DN]"),
        "linearity": (linearity, "linearity polynomials"),
        "gain": (datamodels.GainModel(data=detector.gain), "gain [e-/DN]"),
        "readnoise": (datamodels.ReadnoiseModel(data=noise), "noise of the difference of two reads [DN]"),
        "ipc": (
            datamodels.IPCModel(data=deconvolution_kernel(detector.ipc).astype(np.float32)),
            "kernel that undoes the capacitive coupling",
        ),
    }
    rules = []
    for reftype, (model, title) in files.items():
        meta = {**about(reftype, title, place.instrument, place.detector), "subarray": place.area(detector)}
        filename = save_reference(model, meta, folder, place.name(reftype))
        rules.append(Rule(reftype, filename, place.match))
    return rules


def write_darks(folder: Path, place: Place, detector: Detector, readouts: dict[str, Readout]) -> list[Rule]:
    """Write a dark for each read pattern: accumulated dark signal of the groups of a readout."""
    rules = []
    for number, (pattern, readout) in enumerate(sorted(readouts.items()), start=1):
        rate = detector.dark / detector.gain
        middle = 0.5 * (readout.nframes + 1) * readout.tframe
        seconds = np.arange(readout.ngroups) * readout.tgroup + middle
        data = (rate[None] * seconds[:, None, None]).astype(np.float32)
        model = datamodels.DarkModel(data=data, dq=np.zeros(detector.shape, np.uint32))
        define_dq(model, ("DO_NOT_USE", "UNRELIABLE_DARK"))
        exposure = {
            "readpatt": pattern,
            "nframes": readout.nframes,
            "ngroups": readout.ngroups,
            "groupgap": readout.groupgap,
        }
        meta = about("dark", "accumulated dark signal [DN]", place.instrument, place.detector)
        meta |= {"subarray": place.area(detector), "exposure": exposure}
        filename = save_reference(model, meta, folder, place.name("dark", number))
        rules.append(Rule("dark", filename, place.match | {"META.EXPOSURE.READPATT": pattern}))
    return rules
