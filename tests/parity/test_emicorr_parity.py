"""Interference is folded and taken out as by the sequential algorithm of the official pipeline (jwst 3.0.0).

The joint algorithm is compared in ``test_detector1_miri_parity``. Tolerance: theirs folds float32 numbers, ours float64: so
a read at the edge of the clipping of a bin is in one mean and not in the other: 0.05 DN of a wave of 5 DN; and a read at the
edge of a place of the wave takes the next one, in 1e-3 of the reads.
"""

import asdf
import numpy as np
import pytest
from carried_parity import load, run_peer, write_cache

from infra.products.ramp import read_ramp
from infra.references.content import References
from infra.synthetic.miri import write_miri_exposure
from tasks.emicorr import EmicorrOptions, emicorr

CASES = {
    "sequential": {"algorithm": "sequential"},
    "all_integrations": {"algorithm": "sequential", "use_n_cycles": None, "nbins": 60, "scale_reference": False},
    "on_the_fly": {"onthefly_corr_freq": [390.625], "nints_to_phase": 2, "save_intermediate_results": True},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, peer):
    folder = tmp_path_factory.mktemp("emicorr_parity")
    exposure = write_miri_exposure(folder / "miri", nints=3, ngroups=12, subarray="SUB64", emi=5.0, seed=3)
    (reference,) = (exposure.crds / "references" / "jwst" / "miri").glob("*_emicorr_*")
    jobs = [
        {
            "name": name, "step": "emicorr", "model": "RampModel", "references": {"emicorr": str(reference)},
            "exposure": str(exposure.uncal), "options": options,
        }
        for name, options in CASES.items()
    ]  # fmt: skip
    run_peer(peer, folder, write_cache(folder / "crds", {}), jobs)
    return folder, read_ramp(exposure.uncal), References({"emicorr": str(reference)}, "")


@pytest.mark.parametrize("case", CASES)
def test_folded_waves_are_taken_out_as_by_the_official_pipeline(made, case):
    folder, ramp, references = made
    done = emicorr.fn(ramp, references, EmicorrOptions(**CASES[case]))
    theirs = load(folder, case)["data"]
    assert np.std(done.data - ramp.data) > 0.5
    different = np.abs(done.data - theirs) > 0.05
    assert np.mean(different) < 1e-3
    assert np.abs(done.data - theirs).max() < 1


def test_the_waves_that_were_seen_are_a_reference_again(made):
    folder, ramp, references = made
    done = emicorr.fn(ramp, references, EmicorrOptions(**CASES["on_the_fly"]))
    (theirs,) = (folder / "on_the_fly").glob("*emi_ref_waves*.asdf")
    with asdf.open(theirs, lazy_load=False, memmap=False) as file:
        (wave,) = file.tree["frequencies"].values()
    mine = done.side["emi_ref_waves"].tree["frequencies"]["Hz390.625"]
    assert mine["frequency"] == wave["frequency"] == 390.625
    apart = np.abs(mine["phase_amplitudes"] - wave["phase_amplitudes"])
    assert apart.max() < 0.05
    assert np.median(apart) < 1e-4
