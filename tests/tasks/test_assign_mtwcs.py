"""assign_mtwcs: exposures that follow a target are stacked on it."""

import numpy as np
import pytest
from imaging_scene import DEC, RA, make_scene, pointing

from calibration.wcs.moving_target import mean_place, moving_target_wcs
from infra.products.image import read_image, write_image
from infra.references.content import References
from tasks.assign_mtwcs import assign_mtwcs
from tasks.resample import ResampleOptions, resample
from tasks.step import NoOptions

NONE = References({}, "jwst_0001.pmap")
#: Where the target goes [arcsec], and with it the telescope.
PATH = ((0.0, 0.0), (1.3, 0.65), (2.6, 1.3), (3.9, 1.95))


@pytest.fixture(scope="module")
def images():
    """Exposures of a field that the telescope leaves behind, with a target of 900 DN/s at one and the same pixel."""
    scene = make_scene(dithers=PATH, skies=(0.0,), rays=0, count=9, noise=0.1)
    made = []
    for image, step in zip(scene.images, PATH, strict=True):
        x, y = 80.0, 70.0
        ra, dec = image.wcs(x, y, with_bounding_box=False)
        rows, columns = np.mgrid[:160, :160]
        star = 900 / (2 * np.pi * 1.1**2) * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2 / 1.1**2)
        header = image.header.set(TARGTYPE="MOVING", MT_RA=float(ra), MT_DEC=float(dec))
        made.append(image.with_(data=image.data + star.astype(np.float32), header=header))
        assert pointing(*step).ra_ref == header["RA_REF"]
    return tuple(made)


def test_the_target_stands_still_and_the_field_moves(images):
    done = assign_mtwcs.fn(images, NONE, NoOptions())
    mean = np.mean([(image.header["MT_RA"], image.header["MT_DEC"]) for image in images], axis=0)
    for image, before in zip(done, images, strict=True):
        assert image.wcs.available_frames[-2:] == ["world", "moving_target"]
        np.testing.assert_allclose(image.wcs(80.0, 70.0), mean, rtol=0, atol=1e-11)
        np.testing.assert_allclose(image.wcs.invert(*mean), (80, 70), rtol=0, atol=1e-3)
        assert (image.header["MT_AVRA"], image.header["MT_AVDEC"]) == pytest.approx(tuple(mean), abs=1e-11)
        corner = np.array(image.header["S_REGION"].split()[2:4], float)
        np.testing.assert_allclose(corner, image.wcs(-0.5, -0.5), rtol=0, atol=1e-9)
        assert image.wcs.bounding_box == before.wcs.bounding_box
        assert image.header["S_MTWCS"] == "COMPLETE"
    np.testing.assert_array_equal(done[0].wcs.transform("detector", "world", 3.0, 4.0), images[0].wcs(3.0, 4.0))


def test_the_mosaic_has_one_sharp_target(images):
    done = assign_mtwcs.fn(images, NONE, NoOptions())
    mean = done[0].header["MT_AVRA"], done[0].header["MT_AVDEC"]
    values = []
    for one in (done, images):
        mosaic = resample.fn(one, NONE, ResampleOptions())
        x, y = np.round(mosaic.wcs.invert(*mean)).astype(int)
        values.append(mosaic.data[y - 1 : y + 2, x - 1 : x + 2].max())
    # 118 DN/s in the middle of the star; half a pixel beside it, less.
    assert values[0] > 70
    assert values[1] < 1, "between the places where the target was"


def test_doing_it_twice_is_doing_it_once(images, tmp_path):
    once = assign_mtwcs.fn(images, NONE, NoOptions())
    write_image(once[1], tmp_path / "x_crf.fits")
    twice = assign_mtwcs.fn((once[0], read_image(tmp_path / "x_crf.fits"), *once[2:]), NONE, NoOptions())
    for one, two in zip(once, twice, strict=True):
        assert one.wcs.available_frames == two.wcs.available_frames
        np.testing.assert_allclose(one.wcs(10.0, 20.0), two.wcs(10.0, 20.0), rtol=0, atol=1e-12)


def test_a_target_that_crosses_the_zero_of_right_ascension_is_followed(images):
    assert mean_place((359.999, 0.003), (1, 2)) == pytest.approx((0.001, 1.5), abs=1e-9)
    assert mean_place((0.003, 359.999), (1, 2)) == pytest.approx((0.001, 1.5), abs=1e-9)
    wcs = moving_target_wcs(images[0].wcs, (359.9995, DEC), (0.0005, DEC))
    shift = np.subtract(wcs(80.0, 70.0), images[0].wcs(80.0, 70.0))
    np.testing.assert_allclose(shift, (0.001, 0), rtol=0, atol=1e-9)
    assert abs(images[0].header["MT_RA"] - RA) < 0.01


@pytest.mark.parametrize(
    ("cards", "reason"),
    [
        ({"TARGTYPE": "FIXED"}, "the target is not moving: TARGTYPE is FIXED"),
        ({"TARGTYPE": None}, "the target is not moving: TARGTYPE is not known"),
        ({"MT_DEC": None}, "does not tell where its target was: missing MT_DEC"),
    ],
)
def test_what_cannot_be_shifted_is_skipped_with_a_reason(images, cards, reason):
    first = images[0].with_(header=images[0].header.set(cards))
    done = assign_mtwcs.fn((first, *images[1:]), NONE, NoOptions())
    for image, before in zip(done, images, strict=True):
        assert image.header["S_MTWCS"] == "SKIPPED"
        assert reason in image.recipe["assign_mtwcs"]["reason"]
        assert image.wcs is before.wcs


def test_an_image_without_a_wcs_is_an_error(images):
    with pytest.raises(ValueError, match="has no WCS; run assign_wcs first"):
        assign_mtwcs.fn((images[0].with_(wcs=None), *images[1:]), NONE, NoOptions())
