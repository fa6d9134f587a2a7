"""NIRSpec in stage 1: IRS2 readout gives back the rate that made it; which steps there are; the glow of the edges."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from stdatamodels.jwst import datamodels

from calibration import dq
from calibration.interleaving import WIDTH, reference_rows
from calibration.simulate.irs2 import bad_rows
from calibration.simulate.picture_frame import glow_of_edges
from calibration.subarrays import Subarray
from flows.blocks import calibrate
from flows.dark import dark_steps
from flows.detector1 import all_steps, check_shape, steps_for
from infra.products.header import Header, ProductError
from infra.products.image import Image
from infra.products.ramp import Ramp, open_ramp, read_ramp
from infra.products.stored import Stored
from infra.references.content import ReferenceNotFound, References
from infra.synthetic.nirspec import MODES, write_nirspec_exposure
from infra.synthetic.reference_format import about, save_reference
from tasks.linearity import linearity
from tasks.picture_frame import PictureFrameOptions, picture_frame
from tasks.refpix import RefpixOptions, refpix
from tasks.step import STEPS, NoOptions, Options, StepOptions

LINES, LIGHT = 32, 1.0  # [e-/s]
TO_REFPIX = ("group_scale", "dq_init", "saturation", "ipc", "superbias")


def references_of(exposure) -> References:
    folder = exposure.crds / "references" / "jwst" / "nirspec"
    files = {path.name.split("_")[2]: str(path) for path in folder.iterdir()}
    return References({"flat": None} | files, exposure.context)


def narrow(mode: str):
    """A detector of few columns, so that the frames are small."""
    return replace(MODES[mode], area=Subarray(1, 1, LINES, 2048))


@pytest.fixture(scope="module", params=["irs2-rapid", "irs2"])
def made(request, tmp_path_factory):
    light = np.full((2048, LINES), LIGHT)
    light[:, -4:] = 0  # as reference pixels at the other end
    folder = tmp_path_factory.mktemp(request.param)
    exposure = write_nirspec_exposure(
        folder, narrow(request.param), nints=2, ngroups=8, rate=light, particles=0, seed=6
    )
    return read_ramp(exposure.uncal), references_of(exposure), exposure


def take(ramp, references, names, options=None):
    tasks = {task.name: task for task in all_steps(ramp.header)}
    for name in names:
        ramp = tasks[name].fn(ramp, references, (options or {}).get(name, STEPS[name].options()))
    return ramp


def test_a_raw_file_opens_in_the_data_models_and_has_the_shape_of_its_readout(made):
    ramp, _, exposure = made
    with datamodels.open(str(exposure.uncal)) as model:
        model.validate()
        assert model.data.shape == (2, 8, WIDTH, LINES)
    assert ramp.is_irs2
    assert ramp.area == Subarray(1, 1, LINES, WIDTH)
    with open_ramp(exposure.uncal) as file:
        assert check_shape(file)["NRS_NORM"] == 16
        with pytest.raises(ProductError, match="but SCI has"):
            check_shape(replace(file, header=file.header.set(READPATT="NRSRAPID")))


def test_irs2_gives_back_the_rate_with_less_noise_than_means_alone(made):
    ramp, references, exposure = made
    names = [task.name for task in all_steps(ramp.header)[:-1] if STEPS[task.name].default]
    rate, *_ = take(ramp, references, names)
    assert rate.data.shape == (2048, LINES)
    good = (rate.dq & dq.PIXEL["DO_NOT_USE"]) == 0
    lit = good & (exposure.rate > 0)
    assert lit.mean() > 0.7
    ratio = rate.data[lit] / exposure.rate[lit]
    # Noise of the rate is shared by the pixels of a line: the mean is that good, not better.
    assert np.mean(ratio) == pytest.approx(1, abs=4e-3)
    # Without correction only the rows of the detector are left.
    rows = ramp.rows
    raw = take(ramp, references, TO_REFPIX)
    raw = raw.with_(data=raw.data[:, :, rows], groupdq=raw.groupdq[:, :, rows], pixeldq=raw.pixeldq[rows])
    worse, *_ = take(raw, references, names[names.index("refpix") + 1 :])

    def shared(image):
        """Noise that neighbours share: of their means, which have little of their own."""
        left = np.where(good, image.data - exposure.rate, np.nan)[:, 4:-4]
        return np.nanstd(np.nanmedian(left.reshape(64, 32, -1), axis=1))

    # Averaged groups are longer, and have less noise of the readout for their noise of photons.
    assert shared(rate) < (0.5 if ramp.header["NFRAMES"] == 1 else 0.9) * shared(worse)


def test_bad_reference_pixels_are_flagged_in_the_frames_that_keep_them(made):
    ramp, references, _ = made
    before = take(ramp, references, TO_REFPIX)
    options = RefpixOptions(preserve_irs2_refpix=True, ovr_corr_mitigation_ftr=6)
    kept = refpix.fn(before, references, options)
    assert kept.is_irs2
    fastaxis = ramp.header["FASTAXIS"]
    flagged = np.flatnonzero((kept.pixeldq & dq.PIXEL["BAD_REF_PIXEL"]).all(axis=1))
    assert set(flagged) >= set(bad_rows(fastaxis))
    assert flagged.size <= 10
    stripped = refpix.fn(before, references, options.model_copy(update={"preserve_irs2_refpix": False}))
    np.testing.assert_array_equal(stripped.data, kept.data[:, :, ramp.rows])
    np.testing.assert_array_equal(stripped.pixeldq, before.pixeldq[ramp.rows])
    np.testing.assert_array_equal(stripped.groupdq, before.groupdq[:, :, ramp.rows])
    assert stripped.recipe["refpix"]["references"] == {"jwst_nirspec_refpix_0001.fits": ""}


def test_means_of_reference_pixels_can_be_subtracted_first(made):
    ramp, references, _ = made
    before = take(ramp, references, TO_REFPIX)
    column = np.arange(WIDTH)
    second = np.where(reference_rows(), column % 4 >= 2, column % 2 == 1)
    offset = np.where(second, np.float32(40), np.float32(0))[:: 1 if ramp.header["FASTAXIS"] > 0 else -1, None]
    data = before.data.copy()
    data[0, 5] += offset
    spoilt = before.with_(data=data)
    left = []
    for means in (False, True):
        options = RefpixOptions(irs2_mean_subtraction=means)
        one, other = (refpix.fn(ramp, references, options).data[0, 5] for ramp in (before, spoilt))
        step = (other - one)[:, 4:-4]
        left.append(abs(np.median(step[1::2]) - np.median(step[::2])))
    assert left[0] > 20
    assert left[1] < 1


def test_the_noise_of_integrations_on_disk_is_the_same(made):
    ramp, references, exposure = made
    options = Options({name: StepOptions(STEPS[name].options()) for name in (*TO_REFPIX, "refpix")})
    tasks = [task for task in all_steps(ramp.header) if task.name in (*TO_REFPIX, "refpix")]
    nints, ngroups = ramp.data.shape[:2]
    with open_ramp(exposure.uncal) as file:
        whole = calibrate(file, tasks, references, options, None)
        blocks = calibrate(file, tasks, references, options, 90 * WIDTH * LINES + 1.5 * ngroups * WIDTH * LINES * 12)
    assert isinstance(blocks.data, Stored)
    for i in range(nints):
        np.testing.assert_array_equal(blocks.data[i], whole.data[i])
        np.testing.assert_array_equal(blocks.groupdq[i], whole.groupdq[i])
    np.testing.assert_array_equal(blocks.pixeldq, whole.pixeldq)


def test_irs2_without_its_reference_or_of_another_pattern_is_an_error(made):
    ramp, references, _ = made
    none = References({**references.files, "refpix": None}, references.context)
    with pytest.raises(ReferenceNotFound, match="REFPIX"):
        refpix.fn(ramp, none, RefpixOptions())
    other = ramp.with_(header=ramp.header.set(NRS_NORM=32, NRS_REF=8))
    with pytest.raises(ProductError, match=r"NRS_NORM, NRS_REF = 16, 4, but they are \(32, 8\)"):
        refpix.fn(other, references, RefpixOptions())
    with pytest.raises(ProductError, match="from linearity on, the reference pixels of IRS2"):
        linearity.fn(ramp, references, NoOptions())


def test_a_subarray_that_does_not_reach_the_edges_has_its_outer_columns_for_reference(tmp_path):
    exposure = write_nirspec_exposure(tmp_path, "sub32", ngroups=3, rate=np.zeros((32, 32)), particles=0)
    ramp = take(read_ramp(exposure.uncal), references_of(exposure), TO_REFPIX)
    assert not (ramp.pixeldq & dq.PIXEL["REFERENCE_PIXEL"]).any()
    shifted = ramp.with_(data=ramp.data + np.arange(3, dtype=np.float32)[:, None, None])
    one, other = (refpix.fn(each, references_of(exposure), RefpixOptions()) for each in (ramp, shifted))
    np.testing.assert_allclose(one.data, other.data, atol=1e-3)


def header(**cards) -> Header:
    return read_header(MODES["full"]).set(**cards)


def read_header(mode) -> Header:
    area = mode.area
    return Header(
        {
            "INSTRUME": "NIRSPEC", "DETECTOR": mode.detector, "EXP_TYPE": mode.exp_type, "SUBARRAY": mode.subarray,
            "DATE-OBS": "2023-07-14", "TIME-OBS": "10:04:48.000", "READPATT": mode.pattern, "NINTS": 1, "NGROUPS": 3,
            "NFRAMES": mode.nframes, "GROUPGAP": 0, "TFRAME": mode.tframe, "TGROUP": mode.nframes * mode.tframe,
            "SUBSTRT1": area.xstart, "SUBSTRT2": area.ystart, "SUBSIZE1": area.xsize, "SUBSIZE2": area.ysize,
            "FASTAXIS": 2, "SLOWAXIS": 1,
        }
    )  # fmt: skip


def test_the_steps_of_nirspec_are_those_of_near_infrared_detectors_with_the_picture_frame():
    near_infrared = (
        "group_scale dq_init saturation ipc superbias refpix linearity dark_current charge_migration jump picture_frame "
        "clean_flicker_noise persistence ramp_fit gain_scale"
    ).split()
    for exp_type in ("NRS_FIXEDSLIT", "NRS_IFU", "NRS_MSASPEC", "NRS_TACQ", "NRS_LAMP", "NRS_AUTOWAVE", "NRS_DARK"):
        assert [step.name for step in all_steps(header(EXP_TYPE=exp_type))] == near_infrared
    bright = [step.name for step in steps_for(header(EXP_TYPE="NRS_BRIGHTOBJ"))]
    assert bright == [
        name for name in near_infrared[:-2] if name not in ("ipc", "persistence", "charge_migration")
    ]  # fmt: skip
    dark = [step.name for step in dark_steps(header(EXP_TYPE="NRS_DARK"))]
    assert dark == near_infrared[: near_infrared.index("dark_current")]
    assert not STEPS["picture_frame"].default


@pytest.fixture(scope="module")
def glow(tmp_path_factory):
    """The shape of the glow, and the reference file of it."""
    shape = glow_of_edges(Subarray(1, 1, 2048, 2048))
    model = datamodels.PictureFrameModel(data=shape)
    meta = about("pictureframe", "glow of the edges [DN/s]", "NIRSPEC", "NRS1")
    folder = tmp_path_factory.mktemp("glow")
    name = save_reference(model, meta, folder, "jwst_nirspec_pictureframe_0001.fits")
    return shape, References({"pictureframe": str(folder / name), "gain": None, "readnoise": None}, "")


DARK = {"EXP_TYPE": "NRS_DARK", "READPATT": "NRSRAPID", "NFRAMES": 1}


def test_the_glow_of_the_edges_is_taken_out_of_images_at_the_height_that_it_has(glow, caplog):
    shape, references = glow
    rng = np.random.default_rng(8)
    rate = rng.normal(0, 2e-3, (2, *shape.shape)).astype(np.float32)
    stars = rng.random(shape.shape) < 0.01
    heights, levels = np.array([2.5, -0.7])[:, None, None], np.array([0.3, 0.1])[:, None, None]
    data = (rate + stars + heights * shape + levels).astype(np.float32)
    image = Image(header(**DARK), data, data, np.zeros(data.shape, np.uint32))
    with caplog.at_level(logging.INFO):
        # The glow itself is not far above its mean: nothing else may be taken for background.
        cleaned = picture_frame.fn(image, references, PictureFrameOptions(save_mask=True, save_correction=True))
    assert "background pixels in the middle" in caplog.text
    left = cleaned.data - rate - stars
    assert np.abs(left[:, ~stars]).max() < 2e-3
    assert cleaned.side["pctfrm_mask"].data[stars].mean() < 0.01
    np.testing.assert_allclose(cleaned.side["pctfrm_correction"].data, cleaned.data - data, atol=1e-6)
    single = picture_frame.fn(image.with_(data=data[0], err=data[0]), references, PictureFrameOptions(n_sigma=0))
    assert np.abs(np.median(single.data - rate[0])) < 1e-3


def test_where_there_is_no_picture_frame_it_is_skipped_with_the_reason(glow):
    _, references = glow
    flat = np.ones((2048, 2048), np.float32)
    image = Image(header(**DARK), flat, flat, np.zeros(flat.shape, np.uint32))

    def reason(product, references=references):
        return picture_frame.fn(product, references, PictureFrameOptions()).recipe["picture_frame"]["reason"]

    assert "full frame" in reason(image.with_(header=image.header.set(SUBARRAY="SUB2048")))
    assert "PICTUREFRAME" in reason(image, References({"pictureframe": None}, ""))
    ramp = Ramp(
        image.header, flat[None, None], np.zeros(flat.shape, np.uint32), np.zeros((1, 1, *flat.shape), np.uint8)
    )
    assert "single group" in reason(ramp)
    assert "no background" in reason(image.with_(data=np.full_like(flat, np.nan)))
    with pytest.raises(ProductError, match="mask_science_regions is not known for NRS_IFU"):
        picture_frame.fn(image.with_(header=image.header.set(EXP_TYPE="NRS_IFU")), references, PictureFrameOptions())
