"""The steps of image2 on a small scene: background, assign_wcs, flat_field, photom."""

import logging

import numpy as np
import pytest
from imaging_scene import PHOTMJSR, PIXAR_SR, make_scene, write_references

from calibration import dq as bits
from infra.products.guider import Guider
from tasks.assign_wcs import AssignWcsOptions, assign_wcs
from tasks.background import BackgroundOptions, background
from tasks.flat_field import flat_field
from tasks.photom import PhotomOptions, photom
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
    small = rate.with_(data=rate.data[:50], dq=rate.dq[:50])
    with pytest.raises(ValueError, match="give those of the subarray of the target"):
        background.fn(rate, references, BackgroundOptions(), (small,))
