"""Stage 1 of NIRSpec gives what the official pipeline (jwst 3.0.0) gives, step by step, on simulated exposures.

The exposures are those of ``infra.synthetic.nirspec``: IRS2 readout of both detectors, of which one is whole (a raw frame
cannot be smaller) and the other up to refpix; and traditional subarrays. Tolerances are those of ``stage1_parity``. The
correction of IRS2 takes a sample that is exactly the mean of its ramp for one that was not read. After ipc, which sums in
float64 here and in float32 there, some are so in one of the two only (140 of 17 million): ipc of IRS2 is compared by itself.
picture_frame is taken after the fit, on the image, where the peer needs no slopes of its own.
"""

from dataclasses import replace

import numpy as np
import pytest
from stage1_parity import compare_steps, job, run_jobs, take_steps

from calibration.simulate.detector import Readout
from infra.products.header import Header
from infra.products.ramp import read_ramp, write_uncal
from infra.references.content import References
from infra.synthetic.exposure import raw_cards
from infra.synthetic.nirspec import MODES, write_nirspec_exposure
from infra.synthetic.reference_format import about, write_asdf

CHAIN = "group_scale dq_init saturation ipc superbias refpix linearity dark_current jump ramp_fit gain_scale".split()
IRS2 = [step for step in CHAIN if step != "ipc"]
IRS2.insert(IRS2.index("ramp_fit") + 1, "picture_frame")
MEANS = {"refpix": {"irs2_mean_subtraction": True, "ovr_corr_mitigation_ftr": 4.0}}
EXPOSURES = {
    "irs2": ("irs2-rapid", dict(ngroups=4, seed=21)),
    "irs2_averaged": (replace(MODES["irs2"], nframes=2), dict(nints=2, ngroups=3, seed=22, particles=20)),
    "subs200a1": ("subs200a1", dict(ngroups=5, seed=23)),
    "edgeless": ("sub512", dict(nints=2, ngroups=5, seed=24)),
}
CASES = {
    "irs2": ("irs2", IRS2, {"picture_frame": {"mask_science_regions": False}}),
    "irs2_ipc": ("irs2", ["ipc"], {}),
    "irs2_averaged": ("irs2_averaged", ["dq_init", "saturation", "superbias", "refpix"], MEANS),
    "subs200a1": ("subs200a1", CHAIN, {}),
    "edgeless": ("edgeless", CHAIN, {}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, peer):
    folder = tmp_path_factory.mktemp("nirspec_parity")
    exposures = {}
    for name, (mode, simulated) in EXPOSURES.items():
        exposure = write_nirspec_exposure(folder / name, mode, **simulated)
        references = exposure.crds / "references" / "jwst" / "nirspec"
        exposures[name] = exposure.uncal, {path.name.split("_")[2]: str(path) for path in references.iterdir()}
    jobs = [job(case, *exposures[name], steps, options) for case, (name, steps, options) in CASES.items()]
    run_jobs(peer, folder, jobs)
    return folder, exposures


@pytest.mark.parametrize("case", CASES)
def test_every_step_of_nirspec_agrees_with_the_official_pipeline(made, case):
    folder, exposures = made
    name, steps, options = CASES[case]
    uncal, files = exposures[name]
    ramp = read_ramp(uncal)
    assert ramp.is_irs2 == name.startswith("irs2")
    compare_steps(folder, case, ramp, References(files, "jwst_0001.pmap"), steps, options)


def test_the_kernels_of_sirs_agree_with_the_official_pipeline(peer, tmp_path):
    mode, rng = MODES["full"], np.random.default_rng(25)
    cards = raw_cards(mode.instrument, mode.detector, mode.subarray, mode.area, Readout(1, 2, 1, 0, mode.tframe))
    cards |= {"EXP_TYPE": mode.exp_type, "READPATT": "NRSRAPID", "NOUTPUTS": 4, "FASTAXIS": 2, "SLOWAXIS": 1}
    lines = 20 * np.sin(np.arange(2048) / 40) + rng.normal(0, 3, (1, 2, 1, 2048))
    data = 1000 + lines + rng.normal(0, 8, (1, 2, 2048, 2048))
    data[:, :, 100:105, :4] = 20_000
    write_uncal(tmp_path / "full_uncal.fits", Header(cards), np.rint(data).astype(np.uint16))
    frequency = np.arange(1025)
    low = 0.5 / (1 + (frequency / 60) ** 2) * np.exp(1j * rng.normal(0, 0.2, (2, 4, 1025)))
    meta = about("sirskernel", "kernels", "NIRSPEC", "NRS1")
    write_asdf(
        {"meta": meta, "nrs1": {"gamma": low[0], "zeta": low[1]}}, tmp_path / "jwst_nirspec_sirskernel_0001.asdf"
    )
    files = {"sirskernel": str(tmp_path / "jwst_nirspec_sirskernel_0001.asdf")}
    options = {"refpix": {"refpix_algorithm": "sirs", "gaussmooth": 1.5, "halfwidth": 25, "sigreject": 3.5}}
    run_jobs(peer, tmp_path, [job("sirs", tmp_path / "full_uncal.fits", files, ["refpix"], options)])
    ramp = read_ramp(tmp_path / "full_uncal.fits")
    references = References(files, "jwst_0001.pmap")
    corrected = compare_steps(tmp_path, "sirs", ramp, references, ["refpix"], options)
    median = dict(take_steps(ramp, references, ["refpix"]))["refpix"]
    assert np.abs(corrected.data - median.data).max() > 0.5, "it must not be the running median"
    assert corrected.data[:, :, 4:-4].mean(axis=2).std() < 0.3 * data.mean(axis=2).std()
