"""The references of the trap model of persistence: how many traps a pixel has, what they are like, when it is full."""

from pathlib import Path

import numpy as np
from stdatamodels.jwst import datamodels

from calibration.simulate.persistence import Traps
from calibration.simulate.references import Detector
from infra.synthetic.crds_cache import Rule
from infra.synthetic.detector_references import Place
from infra.synthetic.reference_format import about, define_dq, save_reference


def write_traps(folder: Path, place: Place, detector: Detector, traps: Traps) -> list[Rule]:
    """Write TRAPDENSITY, TRAPPARS and PERSAT of an area."""
    flags = np.zeros(traps.density.shape, np.uint32)
    density = datamodels.TrapDensityModel(data=traps.density, dq=flags)
    full = datamodels.PersistenceSatModel(data=traps.saturation, dq=flags)
    for model in (density, full):
        define_dq(model, ("DO_NOT_USE",))
    families = traps.families
    columns = (families.capture0, families.capture1, families.capture2, families.decay)
    table = datamodels.TrapParsModel()
    table.trappars_table = np.array(list(zip(*columns, strict=True)), table.get_dtype("trappars_table"))
    rules = []
    for reftype, model, title in (
        ("trapdensity", density, "relative density of charge traps"),
        ("persat", full, "signal at which all traps are in contact with charge [DN]"),
        ("trappars", table, "capture and decay of families of traps"),
    ):
        meta = about(reftype, title, place.instrument, place.detector)
        if reftype != "trappars":
            meta |= {"subarray": place.area(detector)}
        rules.append(Rule(reftype, save_reference(model, meta, folder, place.name(reftype)), place.match))
    return rules
