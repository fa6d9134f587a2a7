"""Stage 1 gives back the light that went in: rates without bias, errors of the right size, particles found.

The bars are those of the issue on stage 1, for exposures of a level light at a signal-to-noise ratio above 20. Amplifiers drift
in common for all pixels of a frame, so that the mean rate of one exposure is off by more than the scatter of its pixels tells:
light and number of integrations are such that this stays below the bar.

What the method itself gives, ours and the official pipeline's alike (they agree pixel by pixel, see ``tests/parity``):

* The two-point difference is held against 4 sigma of the median of all differences. Of normal noise 6.3e-5 lie beyond 4 sigma;
  with the noise of a median of nine 1.3e-4 (photon noise) to 2.5e-4 (read noise, whose differences go against each other).
* ERR takes the photon noise of averaged groups for that of single frames: with four of five frames averaged it is 5 % too
  large. For faint light, whose slope has weights that the formula of the read noise does not know, it is 6 to 8 % too small.
"""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage
from stage1_parity import take_steps

from calibration import dq
from infra.products.ramp import read_ramp
from infra.references.content import References
from infra.synthetic.miri import write_miri_exposure
from infra.synthetic.near_infrared import MODES, write_near_infrared_exposure

NEAR_INFRARED = "group_scale dq_init saturation superbias refpix linearity dark_current jump ramp_fit".split()
MIRI = "dq_init saturation lastframe reset linearity rscd dark_current jump ramp_fit".split()
#: How one half of the area is lit [e-/s], and a readout in which that has a signal-to-noise ratio of 50 to 150. The other half
#: is dark: a hit of 200 e- can be told from the noise there.
STRIPE = dataclasses.replace(MODES["nircam-subgrism64"], tframe=2.7, pattern="SHALLOW2", nframes=2, groupgap=3)
STRIP = dataclasses.replace(MODES["niriss-substrip96"], tframe=10.7)
CASES = {
    "nircam": (write_near_infrared_exposure, dict(mode=STRIPE, ngroups=10, particles=8), 200.0, (64, 2048), NEAR_INFRARED),
    "niriss": (write_near_infrared_exposure, dict(mode=STRIP, ngroups=10, particles=6), 300.0, (96, 2048), NEAR_INFRARED),
    "miri": (write_miri_exposure, dict(subarray="SUB128", nints=3, ngroups=20, particles=1000), 5000.0, (128, 136), MIRI),
}  # fmt: skip
#: False flags: measured 1.3e-4, 7.8e-5 and 1.7e-4.
FALSE = {"nrcalong": 1.6e-4, "nis": 1e-4, "mirimage": 2.1e-4}
BAD = dq.PIXEL["DO_NOT_USE"]


@pytest.fixture(scope="module", params=CASES)
def calibrated(request, tmp_path_factory):
    write, simulated, light, shape, steps = CASES[request.param]
    rate = np.where(np.arange(shape[1]) < shape[1] // 2, light, 1.0) * np.ones(shape)
    exposure = write(tmp_path_factory.mktemp(request.param), rate=rate, seed=19, **simulated)
    products = dict(take_steps(read_ramp(exposure.uncal), references(exposure), steps))
    ramp, rates = products["jump"], products["ramp_fit"]
    return exposure, ramp, rates[0]


def references(exposure):
    files = {path.name.split("_")[2]: str(path) for path in exposure.crds.glob("references/jwst/*/*")}
    return References({"superbias": None} | files, "jwst_0001.pmap")


def lit(exposure, image):
    # A hit that fills a pixel at once leaves two groups: nobody can tell it from light.
    clean = (image.dq & (BAD | dq.PIXEL["SATURATED"])) == 0
    return np.isfinite(image.data) & clean & (exposure.rate > 10)


def test_rates_have_no_bias(calibrated):
    exposure, _, image = calibrated
    good = lit(exposure, image)
    assert good.mean() > 0.4
    assert np.median(exposure.rate[good] / image.err[good]) > 20
    assert abs(np.mean(image.data[good] / exposure.rate[good]) - 1) < 5e-4


def test_errors_have_the_size_of_the_scatter(calibrated):
    exposure, _, image = calibrated
    good = lit(exposure, image) & ((image.dq & dq.PIXEL["JUMP_DET"]) == 0)
    pull = (image.data - exposure.rate)[good] / image.err[good]
    assert 0.97 < pull.std() < 1.05


def test_hits_are_found(calibrated):
    exposure, ramp, _ = calibrated
    hits = exposure.hits[(exposure.hits["charge"] > 200) & (exposure.hits["group"] > 0)]
    i, g, y, x = (hits[name] for name in ("integration", "group", "y", "x"))
    last = ramp.data.shape[1] - 1
    unusable = (ramp.groupdq & (dq.GROUP["SATURATED"] | dq.GROUP["DO_NOT_USE"])) != 0
    # Of a hit between the frames of a group, one part is in this group, the other in the next.
    seen = ~unusable[i, g - 1, y, x] & ~unusable[i, g, y, x] & ~unusable[i, np.minimum(g + 1, last), y, x]
    seen &= (exposure.rate[y, x] < 10) & (hits["charge"] * np.maximum(hits["part"], 1 - hits["part"]) > 200)
    jumps = (ramp.groupdq & dq.GROUP["JUMP_DET"]) != 0
    found = jumps[i, g, y, x] | ((hits["part"] < 1) & jumps[i, np.minimum(g + 1, last), y, x])
    assert seen.sum() > 800
    assert np.mean(found[seen]) >= 0.999


def test_what_was_not_hit_is_rarely_flagged(calibrated):
    exposure, ramp, _ = calibrated
    struck = np.zeros(ramp.groupdq.shape, bool)
    struck[tuple(exposure.hits[axis] for axis in ("integration", "group", "y", "x"))] = True
    # Neighbours get their part of a hit, and so does the next group of one between frames.
    struck = ndimage.binary_dilation(struck, np.ones((1, 1, 5, 5), bool))
    struck[:, 1:] |= struck[:, :-1].copy()
    unusable = (ramp.groupdq & (dq.GROUP["SATURATED"] | dq.GROUP["DO_NOT_USE"])) != 0
    looked_at = (
        ~struck[:, 1:] & ~unusable[:, 1:] & ~unusable[:, :-1] & ((ramp.pixeldq & BAD) == 0) & (exposure.rate > 0)
    )
    false = np.mean(((ramp.groupdq[:, 1:] & dq.GROUP["JUMP_DET"]) != 0)[looked_at])
    assert 0 < false < FALSE[exposure.uncal.name.split("_")[-2]]
