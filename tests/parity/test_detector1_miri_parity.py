"""Stage 1 of MIRI gives what the official pipeline (jwst 3.0.0) gives, step by step, on simulated exposures.

The exposures are those of ``infra.synthetic.miri``: the full frame, which has reference pixels, and a subarray in several
integrations with interference, with the steps on that are off by default. Tolerances are those of ``stage1_parity``. What may
differ: a jump within rounding of its threshold, in 2 of 10 million groups. Ramps of jumps only (see ``stage1_parity``) are five
bright pixels of the later segment, of which an integration has two good groups.
"""

import pytest
from stage1_parity import compare_steps, job, run_jobs

from infra.products.ramp import read_ramp
from infra.references.content import References
from infra.synthetic.miri import write_miri_exposure

CHAIN = "dq_init saturation lastframe reset linearity rscd dark_current refpix jump ramp_fit gain_scale".split()
ALL = [*CHAIN[:1], "emicorr", "saturation", "firstframe", *CHAIN[2:]]
CASES = {
    "full": (dict(nints=1, ngroups=6, seed=2), CHAIN, {}),
    "subarray": (dict(nints=4, ngroups=12, subarray="SUB64", emi=5.0, seed=3), ALL, {}),
    "separately": (
        dict(nints=4, ngroups=12, subarray="SUB64", emi=5.0, seed=3), ALL[:2], {"emicorr": {"fit_ints_separately": True}}
    ),
    "later_segment": (
        dict(nints=3, ngroups=12, subarray="SUB64", seed=4, cards={"NINTS": 9, "INTSTART": 4, "INTEND": 6}), CHAIN, {}
    ),
    "few_groups": (dict(nints=2, ngroups=5, subarray="SUB64", seed=5), CHAIN, {}),
    "three_groups": (dict(nints=2, ngroups=3, subarray="SUB64", seed=6), CHAIN, {"ramp_fit": {"suppress_one_group": False}}),
}  # fmt: skip
#: The fit of the official pipeline rounds the phase of later integrations to 1/500 (see calibration/ramps/emicorr.py).
WAVE = 0.02  # [DN], for a wave of 5 DN


@pytest.fixture(scope="module")
def made(tmp_path_factory, peer):
    folder = tmp_path_factory.mktemp("miri_parity")
    exposures, jobs = {}, []
    for name, (simulated, steps, options) in CASES.items():
        exposure = write_miri_exposure(folder / name, **simulated)
        references = exposure.crds / "references" / "jwst" / "miri"
        files = {path.name.split("_")[2]: str(path) for path in references.iterdir()}
        exposures[name] = exposure.uncal, files
        jobs.append(job(name, exposure.uncal, files, steps, options))
    run_jobs(peer, folder, jobs)
    return folder, exposures


@pytest.mark.parametrize("case", CASES)
def test_every_step_of_miri_agrees_with_the_official_pipeline(made, case):
    folder, exposures = made
    _, steps, options = CASES[case]
    uncal, files = exposures[case]
    ramp = read_ramp(uncal)
    assert (ramp.refout is not None) == (case == "full")
    references = References({"superbias": None} | files, "jwst_0001.pmap")
    compare_steps(
        folder,
        case,
        ramp,
        references,
        steps,
        options,
        flags={"jump": 1e-6, "ramp_fit": 1e-4},
        tolerance={"emicorr": WAVE},
    )
