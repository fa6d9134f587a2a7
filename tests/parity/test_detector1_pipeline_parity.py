"""The whole of calwebb_detector1, calwebb_tso1 and calwebb_dark gives what the official pipelines (jwst 3.0.0) give.

Both run at their defaults, choose their references by the same rules from the same cache, and read the same raw files; what
is compared are the products on disk. The official calwebb_tso1 is calwebb_detector1 with parameters of the observatory that
switch steps off; here the test does. Tolerances are those of ``stage1_parity``.
"""

import numpy as np
import pytest
from stage1_parity import compare_ramps, compare_rates, load, pipeline_job, run_jobs

from infra.products.image import read_image
from infra.products.ramp import read_ramp
from infra.synthetic.miri import write_miri_exposure
from infra.synthetic.near_infrared import write_near_infrared_exposure

MAKE = {"near": write_near_infrared_exposure, "miri": write_miri_exposure}
DETECTOR1, DARK = "Detector1Pipeline", "DarkPipeline"
#: What calwebb_tso1 leaves out.
TSO = {step: {"skip": True} for step in ("ipc", "firstframe", "lastframe", "rscd", "persistence", "charge_migration")}
#: Who makes the exposure and how, the file of it, the pipeline, and the share of flags that may differ.
CASES = {
    "nircam": ("near", dict(mode="nircam-sub160", nints=2, ngroups=7, particles=300), 0, DETECTOR1, 0),
    "soss_segment": ("near", dict(mode="niriss-substrip96", nints=4, ngroups=4, segments=2), 1, DETECTOR1, 0),
    "niriss_dark": (
        "near",
        dict(mode="niriss-sub80", nints=2, ngroups=6, particles=300, rate=np.zeros((80, 80)), cards={"EXP_TYPE": "NIS_DARK"}),
        0, DARK, 0,
    ),
    "miri": ("miri", dict(nints=3, ngroups=10, subarray="SUB64", particles=300), 0, DETECTOR1, 1e-4),
    "miri_dark": (
        "miri", dict(nints=2, ngroups=8, subarray="SUB64", rate=np.zeros((64, 72)), exp_type="MIR_DARKIMG"), 0, DARK, 0
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory, peer):
    folder = tmp_path_factory.mktemp("pipeline_parity")
    exposures, jobs = {}, []
    for name, (maker, simulated, part, pipeline, _) in CASES.items():
        exposure = MAKE[maker](folder / name, seed=17, **simulated)
        exposures[name] = exposure.files[part], exposure.crds
        jobs.append(pipeline_job(name, *exposures[name], pipeline, TSO if name == "soss_segment" else {}))
    run_jobs(peer, folder, jobs)
    return folder, exposures


@pytest.mark.parametrize("case", CASES)
def test_the_products_are_those_of_the_official_pipeline(made, calweave, case):
    folder, exposures = made
    _, simulated, _, pipeline, flags = CASES[case]
    uncal, crds = exposures[case]
    out = folder / f"ours_{case}"
    stage = "dark" if pipeline == DARK else "detector1"
    done = calweave("stage", stage, uncal, "--out", out, crds=crds)
    assert done.returncode == 0, done.stderr
    stem = uncal.name.removesuffix("_uncal.fits")
    if pipeline == DARK:
        compare_ramps(read_ramp(out / f"{stem}_dark.fits"), load(folder, case, pipeline), case, flags)
        return
    compare_rates(read_image(out / f"{stem}_rate.fits"), load(folder, case, pipeline), case, flags)
    if simulated["nints"] > 1:
        ours, theirs = read_image(out / f"{stem}_rateints.fits"), load(folder, case, pipeline, ints=True)
        compare_rates(ours, theirs, f"{case} integrations", flags)
        for name in ours.int_times.dtype.names:
            np.testing.assert_array_equal(ours.int_times[name], theirs["int_times"][name])
