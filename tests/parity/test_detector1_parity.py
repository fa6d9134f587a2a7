"""Stage 1 gives what the official pipeline (jwst 3.0.0, its defaults) gives, step by step, on the same files.

Tolerances: the steps up to jump agree to float32 rounding (ours sums in float64, theirs in float32); flags are the same;
rates within 1e-4 relative or 0.02 sigma, variances within 1e-3 of theirs or of the whole variance.

What differs, and is not compared: a pixel whose gain is negative is never a jump here, and hence has no flagged neighbours;
an even smoothing length is raised by one here, there its window is off the centre; the read noise variance of a pixel
without a rate is 0 here, there it may have a number after charge_migration; a ramp of jumps only has no rate here, 0 there; in
exposures of one group, an integration that saturates takes the Poisson variance of the others with it there, not here.
"""

import numpy as np
import pytest
from hard_ramps import Exposure, make_exposure, write_raw
from stage1_parity import compare_steps, job, load, run_jobs

from infra.products.guider import read_guider
from infra.references.content import References
from infra.synthetic.reference_files import write_guider
from tasks.dq_init import dq_init
from tasks.flat_field import flat_field
from tasks.guider_cds import guider_cds
from tasks.step import STEPS

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
        job(case, folder / f"{name}_uncal.fits", exposures[name][1].files, steps, options)
        for case, (name, steps, options) in CASES.items()
    ]
    run_jobs(peer, folder, jobs)
    return folder, exposures


@pytest.mark.parametrize("case", CASES)
def test_every_step_agrees_with_the_official_pipeline(made, case):
    folder, exposures = made
    name, steps, options = CASES[case]
    compare_steps(folder, case, *exposures[name], steps, options)


def test_the_real_acquisition_exposure_agrees_with_the_official_pipeline(peer, shared, tmp_path):
    raw = next((shared / "real" / "uncal").glob("*_gs-acq1_*_uncal.fits"))
    rules = write_guider(tmp_path / "references", np.random.default_rng(12))
    files = {rule.reftype: str(tmp_path / "references" / rule.filename) for rule in rules}
    steps = ["dq_init", "guider_cds", "flat_field"]
    run_jobs(peer, tmp_path, [job("acq1", raw, files, steps, model="GuiderRawModel")])
    guider = read_guider(raw)
    for task in (dq_init, guider_cds, flat_field):
        guider = task.fn(guider, References(files, "jwst_0001.pmap"), STEPS[task.name].options())
    theirs = load(tmp_path, "acq1", "flat_field")
    np.testing.assert_array_equal(guider.data, theirs["data"])
    np.testing.assert_array_equal(guider.dq, theirs["dq"])
    np.testing.assert_allclose(guider.err, theirs["err"], rtol=1e-6)
