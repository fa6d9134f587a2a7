"""Stage 1 of NIRCam, NIRISS and FGS gives what the official pipeline (jwst 3.0.0) gives, on simulated exposures.

The exposures are those of ``infra.synthetic.near_infrared``: a stripe of NIRCam with averaged groups, gaps and zero frames
(read by four amplifiers, with reference pixels on three sides), small windows, a SOSS strip, FGS, later segments. Nothing
differs but the status of refpix where there are no reference pixels: SKIPPED here, COMPLETE there, the ramps are the same.
Tolerances are those of ``stage1_parity``.
"""

import dataclasses

import pytest
from stage1_parity import compare_steps, job, run_jobs

from calibration.subarrays import Subarray
from infra.products.ramp import read_ramp
from infra.references.content import References
from infra.synthetic.near_infrared import MODES, write_near_infrared_exposure

CHAIN = "group_scale dq_init saturation ipc superbias refpix linearity dark_current jump ramp_fit gain_scale".split()
TSO = [step for step in CHAIN if step != "ipc"]
#: A corner of the full frame that FGS would need minutes for; with the same four amplifiers.
FGS = dataclasses.replace(MODES["fgs-image"], subarray="GENERIC", area=Subarray(1, 1, 64, 2048))
CASES = {
    "stripe": ("nircam-subgrism64", dict(nints=2, ngroups=6, divisor=8, particles=10, snowball_rate=2.0), TSO, {}),
    "stripe_one_group": (
        "nircam-subgrism64", dict(nints=2, ngroups=4, particles=10), TSO, {"ramp_fit": {"suppress_one_group": False}}
    ),
    "window": ("nircam-sub160", dict(nints=2, ngroups=8, particles=300), CHAIN, {}),
    "averaged_window": ("nircam-sub64p", dict(nints=3, ngroups=5, particles=300), TSO, {}),
    "two_groups": ("nircam-sub64p", dict(nints=3, ngroups=2, particles=300), TSO, {}),
    "one_group": ("nircam-sub64p", dict(nints=3, ngroups=1, particles=300), TSO, {}),
    "fgs": (FGS, dict(nints=1, ngroups=5, particles=5), CHAIN, {}),
    "soss": ("niriss-substrip96", dict(nints=3, ngroups=4, segments=2, particles=10), TSO, {}),
    "ami": ("niriss-sub80", dict(nints=4, ngroups=5, particles=300, segments=2), CHAIN, {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory, peer):
    folder = tmp_path_factory.mktemp("near_infrared_parity")
    exposures, jobs = {}, []
    for name, (mode, simulated, steps, options) in CASES.items():
        exposure = write_near_infrared_exposure(folder / name, mode, seed=7, **simulated)
        files = {path.name.split("_")[2]: str(path) for path in exposure.crds.glob("references/jwst/*/*")}
        exposures[name] = exposure.files[-1], files
        jobs.append(job(name, *exposures[name], steps, options))
    run_jobs(peer, folder, jobs)
    return folder, exposures


@pytest.mark.parametrize("case", CASES)
def test_every_step_of_the_near_infrared_agrees_with_the_official_pipeline(made, case):
    folder, exposures = made
    _, _, steps, options = CASES[case]
    uncal, files = exposures[case]
    compare_steps(folder, case, read_ramp(uncal), References(files, "jwst_0001.pmap"), steps, options)
