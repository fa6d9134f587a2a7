"""MIRI in stage 1: a simulated exposure gives back the rate that made it, and every step is needed for that."""

from pathlib import Path

import asdf
import numpy as np
import pytest
from astropy.io import fits

from calibration import dq
from flows.dark import dark_steps
from flows.detector1 import all_steps, steps_for
from infra.products.header import Header, ProductError
from infra.products.ramp import Ramp, read_ramp
from infra.references.content import ReferenceInvalid, References
from infra.synthetic.exposure import SyntheticExposure
from infra.synthetic.miri import write_miri_exposure
from tasks.emicorr import EmicorrOptions, emicorr
from tasks.firstframe import FirstframeOptions, firstframe
from tasks.jump import JumpOptions, jump
from tasks.lastframe import lastframe
from tasks.products import save
from tasks.refpix import RefpixOptions, refpix
from tasks.reset import reset
from tasks.rscd import rscd
from tasks.step import STEPS, NoOptions

LIGHT = 3000.0  # [e-/s]
ORDER = (
    "group_scale dq_init emicorr saturation ipc firstframe lastframe reset linearity rscd dark_current refpix "
    "charge_migration jump clean_flicker_noise persistence ramp_fit gain_scale"
).split()


def references_of(exposure: SyntheticExposure) -> References:
    folder = exposure.crds / "references" / "jwst" / "miri"
    files = {path.name.split("_")[2]: str(path) for path in folder.iterdir()}
    return References({"superbias": None, "ipc": None} | files, exposure.context)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Ramp, References, SyntheticExposure]:
    folder = tmp_path_factory.mktemp("miri")
    exposure = write_miri_exposure(folder, 3, 20, "SUB64", rate=np.full((64, 72), LIGHT), emi=6.0, seed=3)
    return read_ramp(exposure.uncal), references_of(exposure), exposure


def calibrate(ramp: Ramp, references: References, without: tuple[str, ...] = ()):
    product = ramp
    for task in all_steps(ramp.header):
        if (STEPS[task.name].default or task.name == "emicorr") and task.name not in without:
            options = STEPS[task.name].options()
            if isinstance(product, tuple):
                product = tuple(task.fn(one, references, options) for one in product)
            else:
                product = task.fn(product, references, options)
    return product


def mean_ratio(made, without: tuple[str, ...] = ()) -> float:
    ramp, references, exposure = made
    rate, _ = calibrate(ramp, references, without)
    good = ((rate.dq & dq.PIXEL["DO_NOT_USE"]) == 0) & (exposure.rate > 0)
    assert good.sum() > 4200
    return float(rate.data[good].sum() / exposure.rate[good].sum())


def test_the_rate_is_that_of_the_light(made):
    # The drift of the amplifiers, which a subarray has no reference pixels against, is 0.1 % of this signal.
    assert mean_ratio(made) == pytest.approx(1, abs=1.5e-3)


@pytest.mark.parametrize("step", ["lastframe", "reset", "linearity", "rscd"])
def test_without_a_step_the_rate_is_wrong(made, step):
    # The step jump would hide some of it: what spoils a group makes it a jump.
    assert abs(mean_ratio(made, ("jump",)) - 1) < 1.5e-3
    assert abs(mean_ratio(made, ("jump", step)) - 1) > 2e-3


def test_the_error_is_the_scatter(made):
    ramp, references, exposure = made
    rate, rateints = calibrate(ramp, references)
    good = (rate.dq == 0) & (exposure.rate > 0)
    pull = ((rate.data - exposure.rate) / rate.err)[good]
    assert 0.9 < 1.4826 * np.median(np.abs(pull - np.median(pull))) < 1.2
    assert rateints.data.shape == (3, 64, 72)


def test_groups_that_no_pixel_uses_do_not_count_in_the_rate_of_hits(made):
    ramp, references, _ = made
    alone = JumpOptions(flag_4_neighbors=False)
    done = jump.fn(lastframe.fn(ramp, references, NoOptions()), references, alone)
    hits = np.count_nonzero(done.groupdq & dq.GROUP["JUMP_DET"])
    assert hits > 50
    # 20 groups have 19 differences, of which lastframe takes one.
    seconds = 3 * 18 * ramp.header["TGROUP"]
    assert done.header["PRIMECRS"] == pytest.approx(1000 * hits / (seconds * 64 * 72))


def test_interference_is_removed(made):
    ramp, references, _ = made
    clean = emicorr.fn(ramp, references, EmicorrOptions())
    # Light and noise make the same scatter of second differences in both; the wave made more.
    before, after = (np.diff(one.data[:, 1:-1], 2, axis=1)[:, :, :, 4:].std() for one in (ramp, clean))
    assert after**2 < before**2 - 6**2
    assert clean.header["S_MIREMI"] == "COMPLETE"
    assert clean.header["R_MIREMI"] == "crds://jwst_miri_emicorr_0001.asdf"


def test_interference_of_another_subarray_is_not_known(made):
    ramp, references, _ = made
    for cards in ({"SUBARRAY": "SUB128"}, {"READPATT": "SLOWR1"}, {"READPATT": "FASTGRPAVG"}):
        skipped = emicorr.fn(ramp.with_(header=ramp.header.set(cards)), references, EmicorrOptions())
        assert skipped.recipe["emicorr"]["status"] == "SKIPPED"
        assert skipped.data is ramp.data


@pytest.mark.parametrize(("change", "message"), [
    ({"frequencies": {"Hz10": {}}}, "name the wave Hz390, but its frequencies have only Hz10"),
    ({"frequencies": {"Hz390": {"frequency": 390.625, "phase_amplitudes": np.array([1.0, np.nan])}}}, "finite values"),
    ({"frequencies": {"Hz390": {"frequency": 0.0, "phase_amplitudes": np.ones(9)}}}, "frequency above 0"),
])  # fmt: skip
def test_a_wave_that_cannot_be_used_is_an_error(made, tmp_path, change, message):
    ramp, references, _ = made
    with asdf.open(references.files["emicorr"], lazy_load=False, memmap=False) as file:
        tree = {key: file.tree[key] for key in ("meta", "frequencies", "subarray_cases")}
    asdf.AsdfFile(tree | change).write_to(tmp_path / "emicorr.asdf")
    with pytest.raises(ReferenceInvalid, match=message):
        emicorr.fn(ramp, References({"emicorr": str(tmp_path / "emicorr.asdf")}, ""), EmicorrOptions())


def test_waves_that_are_seen_without_a_reference_serve_as_one(made, tmp_path):
    ramp, references, _ = made
    options = EmicorrOptions(onthefly_corr_freq=(390.625,), save_intermediate_results=True)
    seen = emicorr.fn(ramp, References({"emicorr": None}, ""), options)
    path = save(seen.side["emi_ref_waves"], str(tmp_path / "emi_ref_waves.asdf"))
    again = emicorr.fn(ramp, References({"emicorr": None}, ""), EmicorrOptions(user_supplied_reffile=path))
    known = emicorr.fn(ramp, references, EmicorrOptions())
    assert again.recipe["emicorr"]["status"] == "COMPLETE"
    # 6 DN rms of interference; the wave that was seen is noisy and has steps.
    assert np.std(seen.data - known.data) < 1.5
    assert np.std(again.data - known.data) < 1.0
    other = ramp.with_(header=ramp.header.set(SUBARRAY="SUB7"))
    assert "SUB7" in emicorr.fn(other, references, options).recipe["emicorr"]["reason"]
    (tmp_path / "bad.asdf").write_text("not this")
    with pytest.raises(ProductError, match="EMICORR reference"):
        emicorr.fn(ramp, references, EmicorrOptions(user_supplied_reffile=str(tmp_path / "bad.asdf")))


def test_an_old_reference_does_not_know_of_the_first_integration(made, tmp_path):
    ramp, _, _ = made
    table = np.array([("SUB64", "FASTR1", 3)], [("subarray", "S17"), ("readpatt", "S12"), ("group_skip", "i4")])
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(table, name="RSCD_GROUP_SKIP")]).writeto(tmp_path / "rscd.fits")
    done = rscd.fn(ramp, References({"rscd": str(tmp_path / "rscd.fits")}, ""), NoOptions())
    assert (done.header["INT1SKIP"], done.header["INT2SKIP"]) == (1, 3)


def test_the_header_says_how_many_groups_the_switch_decay_cost(made):
    ramp, references, _ = made
    flagged = rscd.fn(ramp, references, NoOptions())
    assert (flagged.header["INT1SKIP"], flagged.header["INT2SKIP"]) == (1, 4)
    assert (flagged.header["INT1BORS"], flagged.header["INT2UGP1"]) == (0, 0)
    later = rscd.fn(ramp.with_(header=ramp.header.set(INTSTART=4, INTEND=6)), references, NoOptions())
    assert "INT1SKIP" not in later.header
    assert np.all(later.groupdq[:, :4] & dq.GROUP["DO_NOT_USE"])


@pytest.mark.parametrize("task", [lastframe, rscd, firstframe])
def test_short_ramps_keep_all_groups(made, task):
    ramp, references, _ = made
    short = ramp.with_(data=ramp.data[:, :2], groupdq=ramp.groupdq[:, :2])
    done = task.fn(short, references, STEPS[task.name].options())
    assert done.recipe[task.name]["status"] == "SKIPPED"
    assert done.groupdq is short.groupdq


def test_a_subarray_without_its_row_in_the_reference_is_skipped(made):
    ramp, references, _ = made
    other = rscd.fn(ramp.with_(header=ramp.header.set(SUBARRAY="MASK1065")), references, NoOptions())
    assert "MASK1065" in other.recipe["rscd"]["reason"]
    old = rscd.fn(ramp.with_(header=ramp.header.set(SUBARRAY="SUBPRISM")), references, NoOptions())
    assert old.recipe["rscd"]["status"] == "COMPLETE"


@pytest.mark.parametrize("task", [reset, rscd, emicorr])
def test_a_type_that_is_not_applicable_skips_its_step(made, task):
    ramp, _, _ = made
    nothing = References({task.name: None}, "jwst_0001.pmap")
    done = task.fn(ramp, nothing, STEPS[task.name].options())
    assert done.recipe[task.name]["status"] == "SKIPPED"


def test_firstframe_is_off_by_default_and_flags_on_request(made):
    ramp, references, _ = made
    assert not STEPS["firstframe"].default
    flagged = firstframe.fn(ramp, references, FirstframeOptions())
    assert np.all(flagged.groupdq[:, 0] & dq.GROUP["DO_NOT_USE"])


def test_a_subarray_has_no_reference_pixels_at_both_sides(made):
    ramp, references, _ = made
    assert refpix.fn(ramp, references, RefpixOptions()).recipe["refpix"]["status"] == "SKIPPED"


def names(header: Header) -> list[str]:
    return [task.name for task in all_steps(header)]


def test_the_order_is_that_of_the_observatory(made):
    header = made[0].header
    assert names(header) == ORDER
    time_series = [
        name for name in ORDER if name not in "ipc firstframe lastframe rscd persistence charge_migration".split()
    ]
    assert names(header.set(TSOVISIT=True)) == time_series
    assert names(header.set(EXP_TYPE="MIR_LRS-SLITLESS")) == time_series
    dark = dark_steps(header.set(EXP_TYPE="MIR_DARKIMG"))
    assert [task.name for task in dark] == ORDER[: ORDER.index("dark_current")]
    assert len(steps_for(header)) == len(ORDER) - 2


def test_an_unknown_subarray_cannot_be_simulated(tmp_path):
    with pytest.raises(ValueError, match="SLITLESSPRISM, not 'SUB7'"):
        write_miri_exposure(tmp_path, subarray="SUB7")
    assert not any(Path(tmp_path).iterdir())
