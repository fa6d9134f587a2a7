"""Steps of MIRI that flag groups, and charge_migration, give the flags of the official pipeline (jwst 3.0.0).

Pixels saturate in each possible group, in ramps of each length, and the table of rscd has rows for several subarrays and
readouts. The reset anomaly is subtracted to float32 rounding, from a reference of fewer integrations and groups, or of more.
"""

import importlib

import numpy as np
import pytest
from astropy.io import fits
from carried_parity import load, run_peer, write_cache
from hard_ramps import Exposure, make_exposure

from calibration import dq
from infra.products.ramp import Ramp, write_ramp
from infra.references.content import References
from tasks.step import STEPS

SATURATED, DO_NOT_USE = dq.GROUP["SATURATED"], dq.GROUP["DO_NOT_USE"]
ROWS = [
    ("FULL", "FASTR1", 1, 3), ("SUB64", "FASTR1", 1, 4), ("SUB64", "SLOWR1", 2, 6), ("SLITLESSPRISM", "FASTR1", 0, 3),
]  # fmt: skip
COLUMNS = [("subarray", "S17"), ("readpatt", "S12"), ("group_skip1", "i4"), ("group_skip", "i4")]
NGROUPS = (3, 4, 5, 6, 7, 12)
CASES = {
    **{f"firstframe_{n}": ("firstframe", n, {}, {}) for n in (3, 4, 7)},
    "firstframe_all": ("firstframe", 7, {"bright_use_group1": False}, {}),
    **{f"lastframe_{n}": ("lastframe", n, {}, {}) for n in (3, 7)},
    **{f"rscd_{n}": ("rscd", n, {}, {}) for n in NGROUPS},
    "rscd_slow": ("rscd", 12, {}, {"READPATT": "SLOWR1"}),
    "rscd_old_name": ("rscd", 12, {}, {"SUBARRAY": "SUBPRISM"}),
    "rscd_unknown": ("rscd", 12, {}, {"SUBARRAY": "MASK1065"}),
    "rscd_later_segment": ("rscd", 12, {}, {"INTSTART": 5, "INTEND": 7}),
    **{f"reset_{n}": ("reset", n, {}, {}) for n in (3, 12)},
    "reset_later_segment": ("reset", 7, {}, {"INTSTART": 2, "INTEND": 4}),
    "charge_migration": ("charge_migration", 7, {}, {}),
    "charge_migration_low": ("charge_migration", 7, {"signal_threshold": 8000.0}, {}),
}


def ramp_of(raw, ngroups, cards):
    """Ramps in which the pixels of column x saturate in group x, if they do; some groups and hits are flagged before."""
    rng = np.random.default_rng(ngroups)
    nints, _, ny, nx = raw.data.shape
    data = rng.uniform(500, 4000, (nints, 1, ny, nx)) * np.arange(1, ngroups + 1)[:, None, None]
    full = np.arange(ngroups)[:, None, None] >= np.arange(nx)
    groupdq = np.where(np.broadcast_to(full, data.shape), SATURATED, np.uint8(0))
    groupdq[rng.random(data.shape) < 0.03] |= DO_NOT_USE
    groupdq[rng.random(data.shape) < 0.03] |= dq.GROUP["JUMP_DET"]
    header = raw.header.set(
        {"NGROUPS": ngroups, "SUBARRAY": "SUB64", "READPATT": "FASTR1", "EXP_TYPE": "MIR_IMAGE", **cards}
    )
    return Ramp(header, data.astype(np.float32), np.zeros((ny, nx), np.uint32), groupdq)


@pytest.fixture(scope="module")
def made(tmp_path_factory, peer):
    folder = tmp_path_factory.mktemp("flags_parity")
    raw, references = make_exposure(
        folder, Exposure("miri", (3, 7, 20, 24), "MIRI", "MIRIMAGE", axes=(1, 2), start=(101, 201))
    )
    files = {name: references.files[name] for name in ("reset", "rscd")}
    with fits.open(files["rscd"], mode="update") as hdus:
        hdus["RSCD_GROUP_SKIP"] = fits.BinTableHDU(np.array(ROWS, COLUMNS), name="RSCD_GROUP_SKIP")
    jobs, ramps = [], {}
    for case, (name, ngroups, options, cards) in CASES.items():
        ramps[case] = ramp_of(raw, ngroups, cards)
        write_ramp(ramps[case], folder / f"{case}_ramp.fits")
        chosen = {name: files[name]} if name in files else {}
        jobs.append({
            "name": case, "step": name, "model": "RampModel", "exposure": f"{folder}/{case}_ramp.fits", "options": options,
            "references": chosen,
        })  # fmt: skip
    run_peer(peer, folder, write_cache(folder / "crds", {}), jobs)
    return folder, ramps, References(files, "")


@pytest.mark.parametrize("case", CASES)
def test_flags_are_those_of_the_official_pipeline(made, case):
    folder, ramps, references = made
    name, _, options, _ = CASES[case]
    task = getattr(importlib.import_module(f"tasks.{name}"), name)
    done = task.fn(ramps[case], references, STEPS[name].options(**options))
    theirs = load(folder, case)
    assert done.recipe[name]["status"] == theirs["status"]
    np.testing.assert_array_equal(done.groupdq, theirs["groupdq"])
    np.testing.assert_array_equal(done.pixeldq, theirs["pixeldq"])
    np.testing.assert_allclose(done.data, theirs["data"], rtol=1e-6, atol=0.004)
