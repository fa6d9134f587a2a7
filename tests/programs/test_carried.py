"""Exposures of one detector, one after the other, by the command line: what the first leaves, the second is told."""

from dataclasses import replace

import numpy as np
from astropy.io import fits

from calibration import dq
from calibration.ramps.traps import TrapFamilies, release
from calibration.simulate.persistence import capture, make_traps
from infra.products.image import read_image
from infra.products.persistence import read_suspects
from infra.products.ramp import read_ramp
from infra.synthetic.exposure import START
from infra.synthetic.miri import write_miri_exposure
from infra.synthetic.near_infrared import MODES, write_near_infrared_exposure


def test_suspect_pixels_are_handed_from_exposure_to_exposure(calweave, tmp_path):
    light = np.zeros((64, 72))
    light[20, 30] = 1e6  # [e-/s], saturates at once
    first = write_miri_exposure(tmp_path / "a", 1, 6, "SUB64", rate=light, seed=1)
    second = write_miri_exposure(tmp_path / "b", 1, 6, "SUB64", rate=light * 0, seed=2)
    with fits.open(second.uncal, mode="update") as hdus:
        hdus["INT_TIMES"].data["int_start_MJD_UTC"] += 60 / 86_400
    options = ["-p", "persistence.skip=false", "-p", "persistence.persistence_time=500", "-p", "ramp_fit.skip=true"]
    done = calweave(
        "stage", "detector1", first.uncal, "--out", tmp_path / "out", *options, "-p", "persistence.save_persistence=true",
        crds=first.crds,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (handed,) = (tmp_path / "out").glob("*_persistence.asdf")
    assert str(handed) in done.stdout.split()
    assert read_suspects(handed).detectors["MIRIMAGE"].pers_time == 500
    done = calweave(
        "stage", "detector1", second.uncal, "--out", tmp_path / "later", *options,
        "-p", f"persistence.persistence_array_file={handed}", crds=second.crds,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "later").glob("*_ramp.fits")
    ramp = read_ramp(path)
    suspect = (ramp.groupdq[0] & dq.GROUP["PERSISTENCE"]) != 0
    assert suspect[:, 20, 30].all()
    assert suspect.mean() < 0.1


def test_trapped_charge_is_subtracted_from_the_next_exposure(calweave, tmp_path):
    tframe, idle, ngroups, shape = MODES["niriss-sub80"].tframe, 3.0, 20, (80, 80)
    # Faster than any detector's, so that the noise of a short exposure does not hide them.
    families = TrapFamilies(np.array([2000.0]), np.array([-0.5]), np.array([3000.0]), np.array([-0.2]))
    empty = replace(
        make_traps(shape, np.random.default_rng(4), 60_000.0), families=families, filled=np.zeros((1, *shape))
    )
    bright, faint = np.full(shape, 2.0e4), np.full(shape, 100.0)  # [e-/s]
    bright[:, :40] = 50
    times = {"EXPSTART": START, "EXPEND": START + ngroups * tframe / 86_400}
    first = write_near_infrared_exposure(
        tmp_path / "a", "niriss-sub80", 1, ngroups, bright, particles=0, seed=1, traps=empty, cards=times
    )
    seconds = (ngroups + 1) * tframe
    filled = capture(first.rate, empty.saturation, empty.density, families, seconds)
    traps = replace(empty, filled=release(filled, families, idle))
    times = {card: value + (ngroups * tframe + idle) / 86_400 for card, value in times.items()}
    second = write_near_infrared_exposure(
        tmp_path / "b", "niriss-sub80", 1, ngroups, faint, particles=0, seed=1, traps=traps, cards=times
    )

    def rate(exposure, folder, *options):
        done = calweave(
            "stage", "detector1", exposure.uncal, "--out", tmp_path / folder, "-p", "jump.skip=true", *options,
            crds=exposure.crds,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (path,) = (tmp_path / folder).glob("*_rate.fits")
        return read_image(path)

    on = ["-p", "persistence.skip=false"]
    rate(first, "first", *on)
    (handed,) = (tmp_path / "first").glob("*_trapsfilled.fits")
    spoilt = rate(second, "spoilt")
    done = rate(second, "second", *on, "-p", f"persistence.input_trapsfilled={handed}")
    good = ((done.dq & dq.PIXEL["DO_NOT_USE"]) == 0) & (second.rate > 0)
    lit = good & (first.rate > 1000)
    assert ((done.dq[lit] & dq.PIXEL["PERSISTENCE"]) != 0).mean() > 0.5
    assert lit.sum() > 2000
    # Beside the pixels that saw no light before: the readout drifts, in all pixels together.
    apart = [image.data - second.rate for image in (spoilt, done)]
    excess = [np.median(one[lit]) - np.median(one[good & ~lit]) for one in apart]
    scatter = np.median(done.err[lit]) / np.sqrt(lit.sum())
    assert excess[0] > 30, "[DN/s], of 62"
    assert abs(excess[1]) < 0.02 * excess[0] + 5 * scatter
    assert done.header["R_TRPPAR"].startswith("crds://")
