"""The likelihood fit, the fit output and rarer options of jump give what the official ones (jwst 3.0.0) give on the same ramps.

Tolerances: rates 1e-4 relative or 0.02 sigma, variances and errors 1e-3, chi squared 1e-3; planes of the fit output to float32
rounding; group flags equal. Measured differences are below a tenth of these.

What differs: ramps that saturate are left out of the likelihood fit's comparison, since there its first guess of the rate is
the median of all differences, those that hardly rise too, and good differences are called jumps (a truth test has them); a
ramp with two differences in use is not searched for jumps here, and there either goes, or both. A pixel without a rate has
``DO_NOT_USE`` here; where that was set before, there may be a rate there. A first frame that is 0 takes the first group with it
here. In the fit output, ``crmag`` has one plane at least here, and a pixel without gain has zeros, not NaN; there is room for
the segments of one group there, though they are not in it. ``minimum_groups`` of jump has no effect there (always 3): no case.
"""

import json
import os
import subprocess
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hard_ramps import Exposure, make_exposure
from stage1_parity import INSTRUMENTS, compare_rates, take_steps
from stdatamodels.jwst import datamodels

from calibration import dq
from infra.products.fit_output import PLANES, read_fit_output, write_fit_output
from infra.products.ramp import write_ramp
from infra.synthetic.crds_cache import write_mappings
from tasks.jump import JumpOptions, jump
from tasks.ramp_fit import RampFitOptions, ramp_fit

STEPS = "dq_init saturation superbias linearity dark_current".split()
PLANES_OF_RATE = ("data", "err", "dq", "var_poisson", "var_rnoise")
EXPOSURES = {
    exposure.name: exposure
    for exposure in (
        Exposure("single", (2, 10, 40, 48), start=(1001, 1001), noutputs=1),
        Exposure("alone", (1, 7, 40, 48), start=(1001, 1001), noutputs=1, seed=3),
        Exposure(
            "averaged", (2, 8, 40, 40), "NIRCAM", "NRCA1", axes=(-1, 2), start=(501, 501), nframes=4, groupgap=1,
            zeroframe=True, noutputs=1,
        ),
        Exposure("miri", (2, 12, 40, 36), "MIRI", "MIRIMAGE", axes=(1, 2), start=(501, 201), dark_groups=14, seed=2),
    )
}  # fmt: skip
JUMPS = {
    "together": {"only_use_ints": False, "minimum_sigclip_groups": 15},
    "at_once": {"min_diffs_single_pass": 9, "max_jump_to_flag_neighbors": 1e5},
    "thresholds": {
        "rejection_threshold": 3.0,
        "three_group_rejection_threshold": 4.0,
        "four_group_rejection_threshold": 3.5,
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, peer):
    """Ramps before and after jump, references, and what the peer made of them."""
    folder = tmp_path_factory.mktemp("fit")
    write_mappings(folder / "crds", {instrument: [] for instrument in INSTRUMENTS})
    ramps, jobs = {}, []
    for name, exposure in EXPOSURES.items():
        raw, references = make_exposure(folder, exposure)
        steps = ["dq_init", "saturation", "lastframe", *STEPS[3:]] if exposure.instrument == "MIRI" else STEPS
        *_, (_, before) = take_steps(raw, references, steps)
        after = jump.fn(before, references, JumpOptions())
        ramps[name] = before, after, references
        write_ramp(before, folder / f"{name}_before.fits")
        write_ramp(after, folder / f"{name}_after.fits")
        files = {reftype: references.files[reftype] for reftype in ("gain", "readnoise")}
        for algorithm in ("OLS_C", "LIKELY"):
            options = {"algorithm": algorithm, "save_opt": True}
            jobs.append((f"{name}_{algorithm}", f"{name}_after.fits", "ramp_fit", files, options))
        if name == "single":
            jobs += [(key, f"{name}_before.fits", "jump", files, options) for key, options in JUMPS.items()]
    keys = ("name", "exposure", "step", "references", "options")
    described = [dict(zip(keys, (one[0], str(folder / one[1]), *one[2:]), strict=True)) for one in jobs]
    (folder / "jobs.json").write_text(json.dumps(described))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PYTHON"))}
    environment |= {"CRDS_PATH": str(folder / "crds"), "CRDS_SERVER_URL": "https://jwst-serverless-mode.stsci.edu"}
    script = Path(__file__).parent / "peer_fit.py"
    done = subprocess.run(
        [peer, script, folder / "jobs.json"], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, (done.stderr or done.stdout)[-3000:]
    return folder, ramps


@pytest.mark.parametrize("case", JUMPS)
def test_jump_with_rarer_options(made, case):
    folder, ramps = made
    before, _, references = ramps["single"]
    ours = jump.fn(before, references, JumpOptions(**JUMPS[case]))
    theirs = np.load(folder / f"{case}.npz")["groupdq"]
    assert np.count_nonzero(theirs != before.groupdq) > 50
    np.testing.assert_array_equal(ours.groupdq, theirs)


@pytest.mark.parametrize("name", EXPOSURES)
def test_the_fit_output(made, name, tmp_path):
    folder, ramps = made
    _, after, references = ramps[name]
    rate, _ = ramp_fit.fn(after, references, RampFitOptions(save_opt=True))
    theirs = np.load(folder / f"{name}_OLS_C.npz")
    fit = rate.side["fitopt"]
    has_gain = references.array("gain", "SCI", after.header.subarray) > 0
    for plane in PLANES:
        ours, other = getattr(fit, plane), theirs[f"opt_{plane}"]
        n = min(ours.shape[1], other.shape[1])
        if plane != "pedestal":
            assert not other[:, n:][..., has_gain].any(), "the peer has room for segments of one group only"
            ours, other = ours[:, :n], other[:, :n]
        np.testing.assert_allclose(ours[..., has_gain], other[..., has_gain], rtol=2e-4, atol=2e-3, err_msg=plane)
    write_fit_output(fit, tmp_path / "a_fitopt.fits")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with datamodels.open(tmp_path / "a_fitopt.fits") as model:
            assert isinstance(model, datamodels.RampFitOutputModel)
            np.testing.assert_array_equal(model.crmag, fit.crmag)
    np.testing.assert_array_equal(read_fit_output(tmp_path / "a_fitopt.fits").slope, fit.slope)


@pytest.mark.parametrize("name", EXPOSURES)
def test_the_likelihood_fit(made, name):
    folder, ramps = made
    _, after, references = ramps[name]
    rates = ramp_fit.fn(after, references, RampFitOptions(algorithm="LIKELY", save_opt=True))
    theirs = np.load(folder / f"{name}_LIKELY.npz")
    left_out = (after.groupdq & dq.GROUP["SATURATED"] != 0).any(axis=(0, 1))
    if after.zeroframe is not None:
        left_out |= (after.zeroframe == 0).any(axis=0)
    compared = 0
    for prefix, ours in zip(("", "ints_"), rates, strict=True):
        if ours is None:
            continue
        there = {key: theirs[prefix + key] for key in PLANES_OF_RATE}
        assert not np.any(np.isfinite(ours.data) & np.isnan(there["data"]) & ~left_out)
        keep = np.isfinite(ours.data) & ~left_out
        here = SimpleNamespace(**{key: getattr(ours, key)[keep] for key in PLANES_OF_RATE})
        compare_rates(here, {key: plane[keep] for key, plane in there.items()}, f"{name} {prefix}")
        compared += np.count_nonzero(keep)
    assert compared > 250
    good = ~left_out & np.isfinite(rates[0].data) & np.isfinite(theirs["chi_squared"])
    np.testing.assert_allclose(
        rates[0].side["likely_chisq"].data[good], theirs["chi_squared"][good], rtol=1e-3, atol=1e-2
    )
