"""What stage 1 makes of references and ramps that cannot be right: good pixels stay as they are, a lost one says so."""

import numpy as np
import pytest
from astropy.io import fits
from stage1_parity import take_steps

from calibration import dq
from infra.products.header import ProductError
from infra.products.ramp import read_ramp, write_uncal
from infra.references.content import ReferenceInvalid, References
from infra.synthetic.near_infrared import write_near_infrared_exposure

STEPS = "dq_init saturation ipc superbias refpix linearity dark_current jump ramp_fit gain_scale".split()
BAD, SATURATED, NO_GAIN, NO_LIN_CORR, NO_SAT_CHECK = (
    dq.PIXEL[name] for name in ("DO_NOT_USE", "SATURATED", "NO_GAIN_VALUE", "NO_LIN_CORR", "NO_SAT_CHECK")
)
#: The pixels that a test spoils.
BOX = np.s_[..., 30:50, 30:50]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    exposure = write_near_infrared_exposure(tmp_path_factory.mktemp("bad"), "niriss-sub80", 2, 5, particles=100)
    files = {path.name.split("_")[2]: str(path) for path in exposure.crds.glob("references/jwst/*/*")}
    ramp = read_ramp(exposure.uncal)
    return ramp, files, calibrate(ramp, files)


def calibrate(ramp, files):
    *_, (_, rates) = take_steps(ramp, References(files, "jwst_0001.pmap"), STEPS)
    return rates


def spoil(path, target, change, extension):
    """A copy of a reference file with one extension changed."""
    with fits.open(path) as hdulist:
        data = hdulist[extension].data.copy()
        hdulist[extension].data = change(data)
        hdulist.writeto(target)
    return str(target)


def filled(value):
    def change(data):
        data[BOX] = value
        return data

    return change


def consistent(rates):
    """Without a rate a pixel is not to be used; with one, its errors are numbers."""
    for image in rates:
        lost = (image.dq & BAD) != 0
        np.testing.assert_array_equal(np.isnan(image.data), lost)
        for plane in (image.err, image.var_poisson, image.var_rnoise):
            assert np.all(np.isfinite(plane) & (plane >= 0))
    return rates[0]


#: Reference, extension, value, and the flags that the pixels have then (none: they have a rate).
VALUES = {
    "saturation NaN": ("saturation", "SCI", np.nan, NO_SAT_CHECK),
    "saturation infinite": ("saturation", "SCI", np.inf, 0),
    "saturation negative": ("saturation", "SCI", -1, BAD | SATURATED),
    "superbias NaN": ("superbias", "SCI", np.nan, 0),
    "superbias infinite": ("superbias", "SCI", np.inf, BAD),
    "superbias negative": ("superbias", "SCI", -100, 0),
    "linearity NaN": ("linearity", "COEFFS", np.nan, NO_LIN_CORR),
    "linearity zero": ("linearity", "COEFFS", 0, NO_LIN_CORR),
    "linearity infinite": ("linearity", "COEFFS", np.inf, BAD),
    "dark NaN": ("dark", "SCI", np.nan, 0),
    "dark infinite": ("dark", "SCI", -np.inf, BAD),
    "dark negative": ("dark", "SCI", -1, 0),
    "gain NaN": ("gain", "SCI", np.nan, BAD | NO_GAIN),
    "gain zero": ("gain", "SCI", 0, BAD | NO_GAIN),
    "gain negative": ("gain", "SCI", -1.5, BAD | NO_GAIN),
    "gain infinite": ("gain", "SCI", np.inf, BAD | NO_GAIN),
    "read noise NaN": ("readnoise", "SCI", np.nan, BAD),
    "read noise zero": ("readnoise", "SCI", 0, BAD),
    "read noise negative": ("readnoise", "SCI", -9, BAD),
    "read noise infinite": ("readnoise", "SCI", np.inf, BAD),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_reference_value_that_cannot_be_spoils_its_pixel_only(made, tmp_path, case):
    reftype, extension, value, flags = VALUES[case]
    ramp, files, before = made
    spoiled = files | {reftype: spoil(files[reftype], tmp_path / f"{reftype}.fits", filled(value), extension)}
    image = consistent(calibrate(ramp, spoiled))
    assert np.all((image.dq[BOX] & flags) == flags)
    assert np.mean((image.dq[BOX] & BAD) != 0) > 0.99 or not flags & BAD
    assert np.mean((image.dq[BOX] & BAD) != 0) < 0.1 or flags & BAD
    far = np.ones(image.data.shape, bool)
    far[25:55, 25:55] = False
    np.testing.assert_array_equal(image.dq[far], before[0].dq[far])
    # The median of the reference pixels, and with it every pixel, may move by a rounding.
    np.testing.assert_allclose(image.data[far], before[0].data[far], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("reftype", ["saturation", "gain", "readnoise", "linearity"])
def test_a_reference_without_any_valid_value_leaves_a_product_that_says_so(made, tmp_path, reftype):
    ramp, files, _ = made
    extension = "COEFFS" if reftype == "linearity" else "SCI"
    nothing = spoil(files[reftype], tmp_path / f"{reftype}.fits", lambda data: np.full_like(data, np.nan), extension)
    image = consistent(calibrate(ramp, files | {reftype: nothing}))
    lost = np.mean((image.dq & BAD) != 0)
    assert lost == 1 if reftype in ("gain", "readnoise") else lost < 0.2


def test_ramps_that_are_all_saturated_have_no_rate(made):
    ramp, files, _ = made
    full = ramp.with_(data=np.full_like(ramp.data, 65_535))
    image = consistent(calibrate(full, files))
    lit = (image.dq & dq.PIXEL["REFERENCE_PIXEL"]) == 0
    assert np.all(image.dq[lit] & (BAD | SATURATED) == BAD | SATURATED)


def test_ramps_at_the_floor_of_the_converter_have_no_rate(made):
    ramp, files, _ = made
    image = consistent(calibrate(ramp.with_(data=np.zeros_like(ramp.data)), files))
    assert np.all(np.isnan(image.data))


def test_samples_that_are_no_numbers_are_not_used(made):
    ramp, files, before = made
    data = ramp.data.copy()
    data[:, 2, 40, 40] = np.nan
    data[:, :, 42, 42] = np.inf
    image = consistent(calibrate(ramp.with_(data=data), files))
    assert np.isnan(image.data[42, 42])
    assert image.data[20, 20] == before[0].data[20, 20]


@pytest.mark.parametrize("ngroups", [1, 2])
def test_one_or_two_groups_are_enough_for_a_rate(made, ngroups):
    ramp, files, _ = made
    header = ramp.header.set(NGROUPS=ngroups)
    short = ramp.with_(header=header, data=ramp.data[:, :ngroups].copy(), groupdq=ramp.groupdq[:, :ngroups].copy())
    image = consistent(calibrate(short, files))
    assert np.mean(np.isfinite(image.data)) > 0.8


@pytest.mark.parametrize("shape", [(0, 5, 80, 80), (2, 0, 80, 80)])
def test_a_file_without_integrations_or_groups_is_an_error(made, tmp_path, shape):
    path = tmp_path / "jw1_uncal.fits"
    write_uncal(path, made[0].header, np.zeros(shape, np.uint16))
    with pytest.raises(ProductError, match=r"jw1_uncal\.fits: expected at least one"):
        read_ramp(path)


SHAPES = ["mask", "saturation", "superbias", "linearity", "dark", "gain", "readnoise"]


@pytest.mark.parametrize("reftype", SHAPES)
def test_a_reference_of_another_shape_is_an_error_that_names_it(made, tmp_path, reftype):
    ramp, files, _ = made
    target = tmp_path / f"small_{reftype}.fits"
    with fits.open(files[reftype]) as hdulist:
        for hdu in hdulist[1:]:
            if hdu.is_image and hdu.data is not None:
                hdu.data = hdu.data[..., :64, :64]
        hdulist[0].header["SUBSIZE1"] = hdulist[0].header["SUBSIZE2"] = 64
        hdulist.writeto(target)
    with pytest.raises(ReferenceInvalid, match="small_"):
        calibrate(ramp, files | {reftype: str(target)})


def test_a_flag_that_dq_def_does_not_define_is_dropped_with_a_warning(made, tmp_path, caplog):
    ramp, files, _ = made

    def without_do_not_use(table):
        return table[np.char.strip(table["NAME"].astype(str)) != "DO_NOT_USE"]

    def dead_box(data):
        data[BOX] |= BAD | dq.PIXEL["DEAD"]
        return data

    step = spoil(files["mask"], tmp_path / "box.fits", dead_box, "DQ")
    mask = spoil(step, tmp_path / "jwst_mask.fits", without_do_not_use, "DQ_DEF")
    image = calibrate(ramp, files | {"mask": mask})[0]
    assert np.all(image.dq[BOX] & dq.PIXEL["DEAD"])
    assert np.mean(image.dq[BOX] & BAD) < 0.1
    assert "jwst_mask.fits" in caplog.text
    assert "values that DQ_DEF does not define, which are ignored: [1]" in caplog.text


def test_a_signal_at_the_top_of_the_converter_does_not_wrap_around(made, tmp_path):
    ramp, _, _ = made
    data = np.full(ramp.data.shape, 65_535, np.uint16)
    write_uncal(tmp_path / "jw1_uncal.fits", ramp.header, data)
    assert np.all(read_ramp(tmp_path / "jw1_uncal.fits").data == 65_535)
    *_, (_, scaled) = take_steps(
        read_ramp(tmp_path / "jw1_uncal.fits").with_(header=ramp.header.set(NFRAMES=1, FRMDIVSR=4)),
        References({}, "jwst_0001.pmap"),
        ["group_scale"],
    )
    assert np.all(scaled.data == 4 * 65_535)
