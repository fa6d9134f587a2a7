"""The steps of image2 on a small scene: background, assign_wcs, flat_field, photom."""

import logging

import numpy as np
import pytest
from image2_cases import CASES, rate_of, references_of
from imaging_scene import PHOTMJSR, PIXAR_SR, make_scene, write_references

from calibration import dq as bits
from infra.products.guider import Guider
from infra.products.header import ProductError
from infra.references.content import ReferenceInvalid, ReferenceNotFound
from tasks.assign_wcs import AssignWcsOptions, assign_wcs
from tasks.background import BackgroundOptions, background
from tasks.flat_field import flat_field
from tasks.photom import PhotomOptions, photom
from tasks.resample import ResampleOptions, resample
from tasks.step import NoOptions


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    return write_references(tmp_path_factory.mktemp("references"))


@pytest.fixture(scope="module")
def rate():
    return make_scene(calibrated=False, dithers=((0.0, 0.0),)).images[0]


def without(references, reftype):
    return type(references)({**references.files, reftype: None}, references.context)


def test_assign_wcs_gives_the_sky_of_the_scene(rate, references):
    scene = make_scene(dithers=((0.0, 0.0),))
    done = assign_wcs.fn(rate, references, AssignWcsOptions())
    assert done.header["S_WCS"] == "COMPLETE"
    assert done.header["S_REGION"].startswith("POLYGON ICRS")
    assert done.header["CTYPE1"].startswith("RA---TAN")
    assert "CDELT1" not in done.header
    x, y = np.array([3.0, 77.0]), np.array([150.0, 20.0])
    np.testing.assert_allclose(done.wcs(x, y), scene.images[0].wcs(x, y), rtol=0, atol=1e-12)
    assert done.data is rate.data, "the WCS leaves the pixels alone"


def test_an_unknown_mode_is_named(rate, references):
    dark = rate.with_(header=rate.header.set(EXP_TYPE="NIS_DARK"))
    with pytest.raises(ValueError, match="does not know the geometry of EXP_TYPE NIS_DARK"):
        assign_wcs.fn(dark, references, AssignWcsOptions())


def test_a_pointing_that_is_missing_is_named(rate, references):
    lost = rate.with_(header=rate.header.set(RA_REF=None))
    with pytest.raises(ValueError, match="missing RA_REF"):
        assign_wcs.fn(lost, references, AssignWcsOptions())


def test_an_approximation_that_is_worse_than_asked_for_is_told(rate, references, caplog):
    with caplog.at_level(logging.WARNING):
        done = assign_wcs.fn(rate, references, AssignWcsOptions(sip_max_pix_error=1e-12, sip_degree=2))
    assert done.header["CTYPE1"] == "RA---TAN-SIP"
    assert "the FITS keywords approximate the WCS within" in caplog.text


def test_flat_field_divides_and_flags(rate, references):
    done = flat_field.fn(rate, references, NoOptions())
    flat = references.array("flat", "SCI")
    good = (done.dq & bits.PIXEL["DO_NOT_USE"]) == 0
    np.testing.assert_allclose(done.data[good], rate.data[good] / flat[good], rtol=1e-6)
    assert (done.dq[20:24, 30:34] & bits.PIXEL["NO_FLAT_FIELD"] > 0).all()
    assert done.dq[70, 80] & bits.PIXEL["NO_FLAT_FIELD"], "by the name in the file's own DQ_DEF"
    np.testing.assert_array_equal(np.isnan(done.data), ~good)
    np.testing.assert_allclose(
        done.err[good] ** 2, (done.var_poisson + done.var_rnoise + done.var_flat)[good], rtol=1e-5
    )
    assert done.header["S_FLAT"] == "COMPLETE"
    assert done.header["R_FLAT"] == "crds://flat.fits"


def test_flat_field_without_a_reference_is_skipped(rate, references):
    done = flat_field.fn(rate, without(references, "flat"), NoOptions())
    assert done.header["S_FLAT"] == "SKIPPED"
    assert done.data is rate.data


def test_flat_field_works_on_guider_images(rate, references):
    guider = Guider(
        rate.header, np.ones((3, *rate.data.shape), np.float32), rate.dq, np.ones((3, *rate.data.shape), np.float32)
    )
    done = flat_field.fn(guider, references, NoOptions())
    assert done.data.shape == guider.data.shape
    assert done.dq[50, 60] & bits.PIXEL["NO_FLAT_FIELD"]


def test_a_stack_of_integrations_is_divided_plane_by_plane(rate, references):
    def twice(plane):
        return np.stack([plane, plane])

    names = "data err dq var_poisson var_rnoise".split()
    cube = rate.with_(**{name: twice(getattr(rate, name)) for name in names})
    done, single = flat_field.fn(cube, references, NoOptions()), flat_field.fn(rate, references, NoOptions())
    for name in (*names, "var_flat"):
        np.testing.assert_array_equal(getattr(done, name), twice(getattr(single, name)))


def test_photom_calibrates_to_surface_brightness(rate, references):
    done = photom.fn(rate, references, PhotomOptions())
    np.testing.assert_allclose(done.data, rate.data * PHOTMJSR, rtol=1e-6)
    np.testing.assert_allclose(done.var_rnoise, rate.var_rnoise * PHOTMJSR**2, rtol=1e-6)
    assert done.header["BUNIT"] == "MJy/sr"
    assert done.header["PHOTMJSR"] == pytest.approx(PHOTMJSR)
    assert done.header["PHOTUJA2"] == pytest.approx(PHOTMJSR * 23.50443, rel=1e-6)
    assert done.header["PIXAR_SR"] == pytest.approx(PIXAR_SR)
    assert done.area.shape == rate.data.shape


def test_photom_of_a_filter_that_the_reference_lacks_is_skipped(rate, references):
    other = rate.with_(header=rate.header.set(PUPIL="F430M"))
    done = photom.fn(other, references, PhotomOptions())
    assert done.header["S_PHOTOM"] == "SKIPPED"
    assert done.header["BUNIT"] == "DN/s"
    assert "no row for filter CLEAR, pupil F430M" in done.recipe["photom"]["reason"]


def test_background_members_are_subtracted(rate, references):
    members = tuple(
        image.with_(data=np.full_like(image.data, 0.25), dq=np.zeros_like(image.dq)) for image in (rate, rate, rate)
    )
    members[1].dq[5, 5] = 2
    done = background.fn(rate, references, BackgroundOptions(), members)
    np.testing.assert_allclose(done.data, rate.data - 0.25, rtol=1e-6)
    assert done.dq[5, 5] & 2
    assert done.header["S_BKDSUB"] == "COMPLETE"


def test_background_without_members_is_skipped(rate, references):
    assert background.fn(rate, references, BackgroundOptions()).header["S_BKDSUB"] == "SKIPPED"


def test_background_members_of_another_subarray_are_an_error(rate, references):
    small = rate.with_(
        data=rate.data[:50],
        err=rate.err[:50],
        dq=rate.dq[:50],
        header=rate.header.set(SUBSIZE2=50, FILENAME="small.fits"),
    )
    with pytest.raises(ValueError, match=r"small\.fits.*give those of the subarray of the target"):
        background.fn(rate, references, BackgroundOptions(), (small,))


def test_background_members_of_a_larger_area_are_cut_to_the_target(rate, references):
    header = rate.header.set(SUBSTRT1=rate.header["SUBSTRT1"] + 40, SUBSTRT2=rate.header["SUBSTRT2"] + 30)
    target = rate.with_(
        header=header.set(SUBSIZE1=20, SUBSIZE2=25), data=rate.data[30:55, 40:60], dq=rate.dq[30:55, 40:60]
    )
    done = background.fn(target, references, BackgroundOptions(), (rate,))
    assert np.nanmax(np.abs(done.data)) == 0


def test_products_of_the_background_are_made_on_request(rate, references):
    members = (rate.with_(data=np.full_like(rate.data, 0.25)),)
    done = background.fn(rate, references, BackgroundOptions(save_results=True, save_combined_background=True), members)
    assert list(done.side) == ["bsub", "combinedbackground"]
    np.testing.assert_array_equal(done.side["bsub"].data, done.data)
    np.testing.assert_array_equal(done.side["combinedbackground"].data, 0.25)
    assert not background.fn(rate, references, BackgroundOptions(), members).side


def test_a_background_without_any_value_leaves_nothing(rate, references):
    done = background.fn(rate, references, BackgroundOptions(), (rate.with_(data=np.full_like(rate.data, np.nan)),))
    assert np.isnan(done.data).all()


@pytest.mark.parametrize("name", ["nircam_long", "miri_image", "fgs_image", "niriss_ami"])
def test_photom_finds_the_row_of_each_imager(shared, tmp_path, name):
    case = CASES[name]
    references = references_of(case, shared, tmp_path)
    image = rate_of(case, references)
    done = photom.fn(image, references, PhotomOptions(apply_time_correction=False))
    expected = {"nircam_long": 0.23, "miri_image": 0.4, "fgs_image": 0.8, "niriss_ami": 5.1}[name]
    assert done.header["PHOTMJSR"] == pytest.approx(expected)
    good = (image.dq & 1 == 0) & np.isfinite(image.data)
    np.testing.assert_allclose(done.data[good], image.data[good] * expected, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(done.data), ~good)
    np.testing.assert_array_equal(done.dq & 1, ~good)
    faded = photom.fn(image, references, PhotomOptions()).header["PHOTMJSR"] / expected
    assert (faded == pytest.approx(1)) == (not case.trends)
    assert 1 <= faded < 1.6, "the telescope grows dim, so that the factor grows"


def test_photom_without_a_reference_is_skipped_and_without_an_area_is_told(rate, references, caplog):
    assert photom.fn(rate, without(references, "photom"), PhotomOptions()).header["S_PHOTOM"] == "SKIPPED"
    done = photom.fn(rate, without(references, "area"), PhotomOptions())
    assert done.area is None
    assert "PIXAR_SR" not in done.header
    assert "neither the AREA nor the PHOTOM reference file has the pixel area PIXAR_SR" in caplog.text


def test_photom_leaves_integrations_of_niriss_as_they_are(shared, tmp_path):
    case = CASES["niriss_ami_ints"]
    references = references_of(case, shared, tmp_path)
    done = photom.fn(rate_of(case, references), references, PhotomOptions())
    assert done.header["S_PHOTOM"] == "SKIPPED"
    assert "integrations of NIRISS stay in DN/s" in done.recipe["photom"]["reason"]


def test_photom_without_a_subarray_that_the_table_asks_for_is_skipped(shared, tmp_path):
    case = CASES["nircam_long"]
    references = references_of(case, shared, tmp_path)
    image = rate_of(case, references)
    done = photom.fn(image.with_(header=image.header.set(SUBARRAY="SUB640")), references, PhotomOptions())
    assert done.header["S_PHOTOM"] == "SKIPPED"
    assert "no row for filter F277W, pupil CLEAR, subarray SUB640" in done.recipe["photom"]["reason"]


def test_photom_of_an_exposure_without_a_filter_names_what_is_missing(rate, references):
    with pytest.raises(ProductError, match="missing keyword FILTER"):
        photom.fn(rate.with_(header=rate.header.set(FILTER=None)), references, PhotomOptions())


def test_an_image_without_a_usable_pixel_is_calibrated_to_nothing(rate, references):
    for lost in (
        rate.with_(data=np.full_like(rate.data, np.nan)),
        rate.with_(dq=np.full_like(rate.dq, bits.PIXEL["DO_NOT_USE"])),
    ):
        done = assign_wcs.fn(lost, references, AssignWcsOptions())
        done = photom.fn(flat_field.fn(done, references, NoOptions()), references, PhotomOptions())
        for name in ("data", "err", "var_poisson", "var_rnoise", "var_flat"):
            assert np.isnan(getattr(done, name)).all()
        assert (done.dq & bits.PIXEL["DO_NOT_USE"] > 0).all()
        mosaic = resample.fn(done, references, ResampleOptions())
        assert np.isnan(mosaic.data).all()


def test_a_flat_of_another_area_is_named(rate, references):
    elsewhere = rate.with_(header=rate.header.set(SUBSTRT1=1))
    with pytest.raises(ReferenceInvalid, match=r"flat\.fits covers columns .* but the exposure needs columns 1"):
        flat_field.fn(elsewhere, references, NoOptions())


def test_assign_wcs_without_a_distortion_names_what_is_missing(rate, references):
    with pytest.raises(ReferenceNotFound, match="no DISTORTION reference file matches"):
        assign_wcs.fn(rate, without(references, "distortion"), AssignWcsOptions())
