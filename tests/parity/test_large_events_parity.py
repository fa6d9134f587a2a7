"""Large events are flagged as the official pipeline (jwst 3.0.0) flags them: at least 99.99 % of the group flags are the same.

Of the snowballs below all are, of the showers all but 16 of 10^6 flags in one case, on the machine of the first measurement.
A share is left, since a pixel just on the rim of an ellipse is in or out by the last bit of a cosine.

What differs: there max_shower_amplitude has no effect, and the limit is 6 e-/s in place of DN/s (11 flags); a reference pixel
that is also bad is flagged in a shower there, not here (5 flags). Not in
these exposures: in the test whether a core lies in a patch of jumps, the ellipse of the patch is mirrored at the diagonal
there, which matters for long patches with the core off their middle; the distance to the right edge is counted from the
number of rows there, which matters for areas that are not square; an enlarged core loses all its other flags there, here
the jumps only; a group that has yet another flag beside jump, saturated or not to be used counts for showers there.
"""

import numpy as np
import pytest
from hard_ramps import Exposure, make_exposure, write_raw
from stage1_parity import job, load, run_jobs

from calibration.simulate.large_events import shower_charge, snowball_charge
from tasks.dq_init import dq_init
from tasks.firstframe import firstframe
from tasks.jump import jump
from tasks.lastframe import lastframe
from tasks.saturation import saturation
from tasks.step import STEPS

NINTS, NGROUPS, N = 3, 8, 160
BIAS, WELL = 10_000.0, 52_000.0  # [DN]

#: Options of jump.
SNOWBALLS = {
    "defaults": {},
    "operational": {"min_jump_area": 15, "expand_factor": 2.0, "sat_expand": 0, "edge_size": 20, "min_sat_radius_extend": 5.0},
    "no_core_needed": {"sat_required_snowball": False, "min_jump_area": 20, "expand_factor": 1.7},
    "cut": {"max_extended_radius": 8, "edge_size": 5, "min_sat_area": 6, "sat_expand": 4},
    "short_memory": {"snowball_time_masked_next_int": 35, "use_ellipses": True},
    "no_memory": {"mask_snowball_core_next_int": False, "edge_size": 0},
}  # fmt: skip
SHOWERS = {
    "defaults": {},
    "other": {"extend_snr_threshold": 1.1, "extend_min_area": 60, "extend_inner_radius": 0.6, "extend_outer_radius": 3.2,
              "extend_ellipse_expand_ratio": 1.6, "time_masked_after_shower": 45, "max_extended_radius": 14},
    "clipped": {"minimum_sigclip_groups": 5, "extend_snr_threshold": 1.3},
}  # fmt: skip
#: They make reference pixels, and groups that nobody uses.
BEFORE_SHOWERS = (dq_init, saturation, firstframe, lastframe)


def snowy(rng, gain):
    """Raw ramps [DN] of a faint sky with snowballs and single hits."""
    ramps = np.empty((NINTS, NGROUPS, N, N))
    for i in range(NINTS):
        charge = np.cumsum(rng.poisson(60, (NGROUPS, N, N)), axis=0).astype(float)
        for _ in range(12):
            hit, y, x = rng.integers(1, NGROUPS), rng.uniform(0, N), rng.uniform(0, N)
            core, ratio, angle = rng.uniform(0.6, 8), rng.uniform(0.5, 1), rng.uniform(0, np.pi)
            part = snowball_charge((N, N), (y, x), core, rng.uniform(300, 3000), rng.uniform(2, 6), ratio, angle)
            charge[hit:] += part * (1 if hit % 2 else np.linspace(0.1, 1, NGROUPS - hit)[:, None, None])
        single = np.where(rng.random((NGROUPS, N, N)) < 0.002, rng.exponential(20_000, (NGROUPS, N, N)), 0)
        charge += np.cumsum(single, axis=0)
        ramps[i] = np.minimum(charge / gain, WELL) + BIAS + rng.normal(0, 8, (NGROUPS, N, N))
    return np.floor(ramps).astype(np.float32)


def showery(rng, gain):
    """Raw ramps [DN] of a sky with showers, single hits and stars."""
    nints, ngroups = 5, 9
    ramps = np.empty((nints, ngroups, N, N))
    light = np.where(rng.random((N, N)) < 0.01, 3000, 100)
    for i in range(nints):
        charge = np.cumsum(rng.poisson(light, (ngroups, N, N)), axis=0).astype(float)
        for _ in range(5):
            hit, centre = rng.integers(1, ngroups), rng.uniform(0, N, 2)
            charge[hit:] += shower_charge((N, N), centre, rng.uniform(5, 14), rng.uniform(20, 60), rng)
        single = np.where(rng.random((ngroups, N, N)) < 0.002, rng.exponential(20_000, (ngroups, N, N)), 0)
        charge += np.cumsum(single, axis=0)
        ramps[i] = np.minimum(charge / gain, WELL) + BIAS + rng.normal(0, 6, (ngroups, N, N))
    return np.floor(ramps).astype(np.float32)


@pytest.fixture(scope="module")
def snowballs(tmp_path_factory, peer):
    folder = tmp_path_factory.mktemp("snowballs")
    ramp, references = make_exposure(folder, Exposure("snow", (NINTS, NGROUPS, N, N), start=(601, 601), noutputs=1))
    gain = np.nan_to_num(references.array("gain", "SCI", ramp.header.subarray), nan=1.6)
    ramp = ramp.with_(data=snowy(np.random.default_rng(8), gain))
    return folder, ramp, references, run(folder, ramp, references, peer, SNOWBALLS, {"expand_large_events": True})


@pytest.fixture(scope="module")
def showers(tmp_path_factory, peer):
    folder = tmp_path_factory.mktemp("showers")
    exposure = Exposure("glow", (5, 9, N, N), "MIRI", "MIRIMAGE", axes=(1, 2), start=(1, 201))
    ramp, references = make_exposure(folder, exposure)
    gain = np.nan_to_num(references.array("gain", "SCI", ramp.header.subarray), nan=1.6)
    ramp = ramp.with_(data=showery(np.random.default_rng(9), gain))
    steps = [task.name for task in BEFORE_SHOWERS]
    return folder, ramp, references, run(folder, ramp, references, peer, SHOWERS, {"find_showers": True}, steps)


def run(folder, ramp, references, peer, cases, switch, steps=("saturation",)):
    """Group flags of the official package."""
    raw, steps = folder / "raw_uncal.fits", [*steps, "jump"]
    write_raw(ramp, raw)
    jobs = [job(name, raw, references.files, steps, {"jump": options | switch}) for name, options in cases.items()]
    run_jobs(peer, folder, jobs)
    return {name: load(folder, name, "jump")["groupdq"] for name in cases}


@pytest.mark.parametrize("case", SNOWBALLS)
def test_snowballs_are_those_of_the_official_pipeline(snowballs, case):
    _, ramp, references, theirs = snowballs
    ramp = saturation.fn(ramp, references, STEPS["saturation"].options())
    before = jump.fn(ramp, references, STEPS["jump"].options())
    after = jump.fn(ramp, references, STEPS["jump"].options(expand_large_events=True, **SNOWBALLS[case]))
    assert np.mean(before.groupdq != theirs[case]) > 0.003, "the exposure must have large events"
    assert np.mean(after.groupdq != theirs[case]) <= 1e-4
    assert after.header["EXTNCRS"] > 0
    assert "EXTNCRS" not in before.header


@pytest.mark.parametrize("case", SHOWERS)
def test_showers_are_those_of_the_official_pipeline(showers, case):
    _, ramp, references, theirs = showers
    options = SHOWERS[case]
    for task in BEFORE_SHOWERS:
        ramp = task.fn(ramp, references, STEPS[task.name].options())
    before = jump.fn(ramp, references, STEPS["jump"].options(**options))
    after = jump.fn(ramp, references, STEPS["jump"].options(find_showers=True, **options))
    assert np.mean(before.groupdq != theirs[case]) > 0.003, "the exposure must have large events"
    assert np.mean(after.groupdq != theirs[case]) <= 1e-4
