"""Stage 1 gives what the official pipeline (jwst 3.0.0, its defaults) gives, step by step, on the same files.

Tolerances: the steps up to jump agree to float32 rounding (ours sums in float64, theirs in float32); flags are the same;
rates within 1e-4 relative or 0.02 sigma, variances within 1e-3 of theirs or of the whole variance.

What differs, and is not compared: a pixel whose gain is negative is never a jump here, and hence has no flagged neighbours;
an even smoothing length is raised by one here, there its window is off the centre; the read noise variance of a pixel
without a rate is 0 here, there it may have a number after charge_migration; a ramp of jumps only has no rate here, 0 there; in
exposures of one group, an integration that saturates takes the Poisson variance of the others with it there, not here.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hard_ramps import Exposure, make_exposure

from infra.products.guider import read_guider
from infra.products.ramp import write_uncal
from infra.references.content import References
from infra.synthetic.crds_cache import write_mappings
from infra.synthetic.reference_files import write_guider
from tasks.charge_migration import charge_migration
from tasks.dark_current import dark_current
from tasks.dq_init import dq_init
from tasks.firstframe import firstframe
from tasks.flat_field import flat_field
from tasks.gain_scale import gain_scale
from tasks.group_scale import group_scale
from tasks.guider_cds import guider_cds
from tasks.ipc import ipc
from tasks.jump import jump
from tasks.lastframe import lastframe
from tasks.linearity import linearity
from tasks.persistence import persistence
from tasks.ramp_fit import ramp_fit
from tasks.refpix import refpix
from tasks.reset import reset
from tasks.rscd import rscd
from tasks.saturation import saturation
from tasks.step import STEPS
from tasks.superbias import superbias

TASKS = {
    task.name: task
    for task in (
        charge_migration, dark_current, dq_init, gain_scale, group_scale, ipc, jump, linearity, persistence, ramp_fit,
        refpix, saturation, superbias, firstframe, lastframe, reset, rscd,
    )
}  # fmt: skip
CHAIN = "group_scale dq_init saturation ipc superbias refpix linearity dark_current jump ramp_fit gain_scale".split()
MIRI_CHAIN = [
    *("group_scale dq_init saturation ipc lastframe reset linearity rscd dark_current refpix".split()), *CHAIN[-3:]
]  # fmt: skip
FULL_SIZE = 2048

EXPOSURES = (
    Exposure("transposed_stripe", (1, 12, FULL_SIZE, 12), axes=(-2, -1), start=(1, 1), gain_factor=1.5),
    Exposure(
        "averaged_stripe", (2, 7, 12, FULL_SIZE), "NIRCAM", "NRCA1", axes=(-1, 2), start=(1, 1), nframes=4, groupgap=1,
        dark_groups=20, zeroframe=True, dark_current=0.01,
    ),
    Exposure("top_stripe", (1, 5, 12, FULL_SIZE), "NIRCAM", "NRCB1", axes=(1, -2), start=(1, 2037), dark_groups=3),
    Exposure("single_output", (2, 6, 32, 48), axes=(-2, -1), start=(2001, 1), noutputs=1),
    Exposure("far_corner", (1, 6, 32, 48), "FGS", "GUIDER1", axes=(2, 1), start=(2001, 2017), noutputs=1),
    Exposure("many_integrations", (104, 4, 12, 16), start=(1, 1), noutputs=1, dark_groups=4),
    Exposure("three_groups", (2, 3, 24, 24), start=(1, 1), noutputs=1),
    Exposure("two_groups", (2, 2, 24, 24), start=(1, 1), noutputs=1),
    Exposure("one_group", (1, 1, 24, 24), start=(1, 1), noutputs=1),
    Exposure("miri", (3, 12, 24, 36), "MIRI", "MIRIMAGE", axes=(1, 2), start=(1, 201), dark_groups=14, seed=2),
    Exposure("miri_short", (2, 5, 24, 36), "MIRI", "MIRIMAGE", axes=(1, 2), start=(1, 201), dark_groups=5),
    Exposure("inverse", (2, 6, 24, 24), start=(1, 1), noutputs=1, nframes=4, groupgap=1, inverse=True),
    Exposure("divisor", (1, 4, 24, 24), start=(1, 1), noutputs=1, nframes=5, cards={"FRMDIVSR": 8}),
)  # fmt: skip
#: Exposures that differ from the others in the number of groups or frames only.
SHORT = "dq_init saturation superbias linearity dark_current jump ramp_fit".split()
SHORT_EXPOSURES = ("three_groups", "two_groups", "one_group", "inverse", "many_integrations")
#: Variants of the chain: exposure, steps, options.
VARIANTS = {
    "other_options": (
        "averaged_stripe",
        CHAIN,
        {"saturation": {"n_pix_grow_sat": 2, "use_readpatt": False},
         "refpix": {"odd_even_columns": False, "side_smoothing_length": 21, "side_gain": 0.7, "siglimit": 2.0},
         "jump": {"flag_4_neighbors": False, "rejection_threshold": 5.0, "min_diffs_single_pass": 5},
         "ramp_fit": {"suppress_one_group": False}},
    ),
    "optional_steps": (
        "single_output",
        [*SHORT[:-2], "charge_migration", "jump", "persistence", "ramp_fit"],
        {"charge_migration": {"signal_threshold": 30_000},
         "jump": {"after_jump_flag_dn1": 50, "after_jump_flag_time1": 25, "after_jump_flag_dn2": 900,
                  "after_jump_flag_time2": 45, "max_jump_to_flag_neighbors": 200},
         "persistence": {"persistence_time": 25, "dn_threshold": 20_000}},
    ),
    "firstframe": ("miri", ["saturation", "firstframe", "lastframe", "jump", "ramp_fit"], {}),
}  # fmt: skip


def chain_of(exposure):
    if exposure.instrument == "MIRI":
        return MIRI_CHAIN
    return SHORT if exposure.name in SHORT_EXPOSURES else CHAIN


CASES = {exposure.name: (exposure.name, chain_of(exposure), {}) for exposure in EXPOSURES} | VARIANTS


@pytest.fixture(scope="module")
def made(tmp_path_factory, peer):
    folder = tmp_path_factory.mktemp("parity")
    exposures = {exposure.name: make_exposure(folder, exposure) for exposure in EXPOSURES}
    for name, (ramp, _) in exposures.items():
        write_raw(ramp, folder / f"{name}_uncal.fits")
    jobs = [
        {
            "name": case,
            "exposure": str(folder / f"{name}_uncal.fits"),
            "references": exposures[name][1].files,
            "steps": steps,
            "options": options,
        }
        for case, (name, steps, options) in CASES.items()
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    # The references are named in the jobs; the client wants a cache all the same.
    write_mappings(folder / "crds", {"NIRISS": [], "NIRCAM": [], "FGS": [], "MIRI": []})
    run_peer(peer, folder / "jobs.json")
    return folder, exposures


def write_raw(ramp, path):
    zeroframe = None if ramp.zeroframe is None else ramp.zeroframe.astype(np.uint16)
    write_uncal(path, ramp.header, ramp.data.astype(np.uint16), zeroframe=zeroframe)


def run_peer(peer: str, jobs: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PYTHON"))}
    environment |= {"CRDS_PATH": str(jobs.parent / "crds"), "CRDS_SERVER_URL": "https://jwst-serverless-mode.stsci.edu"}
    script = Path(__file__).with_name("peer_detector1.py")
    done = subprocess.run([peer, script, jobs], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.stderr or done.stdout)[-3000:]


@pytest.mark.parametrize("case", CASES)
def test_every_step_agrees_with_the_official_pipeline(made, case):
    folder, exposures = made
    name, steps, options = CASES[case]
    product, references = exposures[name]
    for step in steps:
        own = STEPS[step].options(**options.get(step, {}))
        if isinstance(product, tuple):
            product = tuple(TASKS[step].fn(one, references, own) for one in product)
        else:
            product = TASKS[step].fn(product, references, own)
        if isinstance(product, tuple):
            product = tuple(one for one in product if one is not None)
            for one in product:
                suffix = "" if one.data.ndim == 2 else "ints"
                compare_rates(one, np.load(folder / f"{case}_{step}{suffix}.npz"), f"{step}{suffix}")
            continue
        theirs = np.load(folder / f"{case}_{step}.npz")
        compare_ramps(product, theirs, step)


def test_the_real_acquisition_exposure_agrees_with_the_official_pipeline(peer, shared, tmp_path):
    raw = next((shared / "real" / "uncal").glob("*_gs-acq1_*_uncal.fits"))
    rules = write_guider(tmp_path / "references", np.random.default_rng(12))
    write_mappings(tmp_path / "crds", {"FGS": []})
    files = {rule.reftype: str(tmp_path / "references" / rule.filename) for rule in rules}
    job = {"name": "acq1", "model": "GuiderRawModel", "exposure": str(raw), "references": files, "options": {}}
    (tmp_path / "jobs.json").write_text(json.dumps([job | {"steps": ["dq_init", "guider_cds", "flat_field"]}]))
    run_peer(peer, tmp_path / "jobs.json")
    guider = read_guider(raw)
    for task in (dq_init, guider_cds, flat_field):
        guider = task.fn(guider, References(files, "jwst_0001.pmap"), STEPS[task.name].options())
    theirs = np.load(tmp_path / "acq1_flat_field.npz")
    np.testing.assert_array_equal(guider.data, theirs["data"])
    np.testing.assert_array_equal(guider.dq, theirs["dq"])
    np.testing.assert_allclose(guider.err, theirs["err"], rtol=1e-6)


def compare_ramps(ramp, theirs, step):
    np.testing.assert_array_equal(ramp.pixeldq, theirs["pixeldq"], err_msg=f"{step} pixeldq")
    np.testing.assert_array_equal(ramp.groupdq, theirs["groupdq"], err_msg=f"{step} groupdq")
    # A few float32 roundings of a signal of up to 65535 DN, half a step each (0.004 DN).
    np.testing.assert_allclose(ramp.data, theirs["data"], rtol=1e-6, atol=0.02, err_msg=f"{step} data")
    if ramp.zeroframe is not None:
        np.testing.assert_allclose(
            ramp.zeroframe, theirs["zeroframe"], rtol=1e-6, atol=0.02, err_msg=f"{step} zeroframe"
        )


def compare_rates(image, theirs, what):
    np.testing.assert_array_equal(image.dq, theirs["dq"], err_msg=f"{what} dq")
    both = np.isfinite(image.data)
    np.testing.assert_array_equal(both, np.isfinite(theirs["data"]), err_msg=f"{what} NaN")
    difference = np.abs(image.data - theirs["data"])[both]
    allowed = np.maximum(1e-4 * np.abs(theirs["data"][both]), 0.02 * theirs["err"][both])
    assert np.mean(difference <= allowed) >= 0.9999, what
    # Of the faintest pixels theirs has the rounding of float32 differences of bright groups: small against the error.
    total = theirs["err"][both] ** 2
    for plane in ("var_poisson", "var_rnoise"):
        difference = np.abs(getattr(image, plane) - theirs[plane])[both]
        assert np.all(difference <= 1e-3 * np.maximum(theirs[plane][both], total)), f"{what} {plane}"
    np.testing.assert_allclose(image.err[both], theirs["err"][both], rtol=1e-3, err_msg=f"{what} err")
