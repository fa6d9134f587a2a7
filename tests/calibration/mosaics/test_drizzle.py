"""Drizzled mosaics: laws that every one must obey."""

from dataclasses import replace

import numpy as np
import pytest
from drizzle.resample import Drizzle
from imaging_scene import DITHERS, ROLL, SCALE, START, distortion, pointing

from calibration import dq as bits
from calibration.mosaics.drizzle import spread
from calibration.mosaics.resample import Exposure, drizzle, drizzle_weight
from calibration.wcs.imaging import footprint, imaging_wcs
from calibration.wcs.mosaic import Orientation, mosaic_wcs, pixel_map

SHAPE = (90, 100)
WCSS = [imaging_wcs(pointing(*at), distortion(), SHAPE, (START, START)) for at in DITHERS]


def grid(scale=SCALE, **options):
    corners = [footprint(wcs, SHAPE) for wcs in WCSS]
    return mosaic_wcs(corners, scale / 3600, Orientation(ROLL, -0.57, -1), **options)


def exposures(planes, target, variance=0.04, weight=None):
    for plane, wcs in zip(planes, WCSS, strict=False):
        noise = np.full(SHAPE, variance, np.float32)
        yield Exposure(
            data=np.asarray(plane, np.float32),
            weight=1 / noise if weight is None else weight,
            pixmap=pixel_map(wcs, SHAPE, target),
            variances={"var_rnoise": noise, "var_poisson": 2 * noise, "var_flat": 0 * noise},
            exptime=100.0,
        )


def shape_of(target):
    return target.pixel_shape[::-1]


@pytest.mark.parametrize("scale", [SCALE, 0.7 * SCALE, 1.3 * SCALE])
def test_a_uniform_sky_stays_uniform(scale):
    target = grid(scale)
    mosaic = drizzle(exposures([np.full(SHAPE, 3.0)] * 4, target), shape_of(target), 4, scale_ratio=scale / SCALE)
    covered = mosaic.weight > 0
    assert covered.mean() > 0.8
    np.testing.assert_allclose(mosaic.data[covered], 3.0, rtol=1e-5)
    assert np.isnan(mosaic.data[~covered]).all()


def test_the_light_of_a_star_is_kept():
    target = grid()
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    star = np.exp(-0.5 * ((xx - 47.3) ** 2 + (yy - 41.8) ** 2) / 1.4**2)
    mosaic = drizzle(exposures([star], target), shape_of(target), 1)
    # Surface brightness times area: the pixels of the scene differ from nominal by some 1e-4.
    assert np.nansum(mosaic.data) == pytest.approx(star.sum(), rel=3e-4)


def test_the_centroid_of_a_star_is_where_its_pixel_map_says():
    target = grid()
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    star = np.exp(-0.5 * ((xx - 47.3) ** 2 + (yy - 41.8) ** 2) / 1.4**2)
    mosaic = drizzle(exposures([star], target), shape_of(target), 1)
    jj, ii = np.mgrid[: mosaic.data.shape[0], : mosaic.data.shape[1]]
    light = np.nan_to_num(mosaic.data)
    expected = target.invert(*WCSS[0](47.3, 41.8), with_bounding_box=False)
    assert (ii * light).sum() / light.sum() == pytest.approx(expected[0], abs=2e-3)
    assert (jj * light).sum() / light.sum() == pytest.approx(expected[1], abs=2e-3)


def test_four_equal_exposures_have_half_the_error_of_one():
    target = grid()
    planes = [np.ones(SHAPE)] * 4
    four = drizzle(exposures(planes, target), shape_of(target), 4)
    one = drizzle(exposures(planes[:1], target), shape_of(target), 1)
    middle = np.s_[40:60, 40:60]
    np.testing.assert_allclose(four.err[middle], one.err[middle] / 2, rtol=1e-3)
    np.testing.assert_allclose(one.err[middle], np.sqrt(3 * 0.04), rtol=1e-5)
    np.testing.assert_allclose(
        four.variances["var_poisson"][middle], 2 * four.variances["var_rnoise"][middle], rtol=1e-5
    )


def test_a_pixel_of_weight_zero_leaves_no_trace():
    target = grid()
    plane = np.ones(SHAPE)
    plane[30, 30] = 1e6
    weight = np.full(SHAPE, 25.0, np.float32)
    weight[30, 30] = 0
    mosaic = drizzle(exposures([plane] * 4, target, weight=weight), shape_of(target), 4)
    assert np.nanmax(mosaic.data) == pytest.approx(1, abs=1e-5)


def test_the_context_tells_who_contributed():
    target = grid()
    mosaic = drizzle(exposures([np.ones(SHAPE)] * 4, target), shape_of(target), 4)
    for k, wcs in enumerate(WCSS):
        place = pixel_map(wcs, SHAPE, target)[45, 50]
        x, y = np.round(place).astype(int)
        assert mosaic.context[0, y, x] & (1 << k)
    np.testing.assert_array_equal(mosaic.context[0] > 0, mosaic.weight > 0)
    only_first = mosaic.context[0] == 1
    assert only_first.any()
    one = drizzle(exposures([np.ones(SHAPE)], target), shape_of(target), 1)
    assert (one.weight[only_first] > 0).all()


def test_exposures_that_miss_the_mosaic_add_nothing():
    far = grid(crval=(151.0, 3.0), crpix=(50.0, 50.0), shape=(100, 100))
    mosaic = drizzle(exposures([np.ones(SHAPE)] * 2, far), (100, 100), 2)
    assert np.isnan(mosaic.data).all()
    assert np.isnan(mosaic.err).all()
    assert not mosaic.weight.any()


def test_weights_by_kind():
    dq = np.array([[0, 1, 4]], np.uint32)
    good_bits = int(~bits.PIXEL["DO_NOT_USE"])
    rnoise = np.array([[0.5, 0.5, np.nan]], np.float32)
    np.testing.assert_array_equal(drizzle_weight(dq, good_bits, "ivm", rnoise, 7.0), [[2, 0, 0]])
    np.testing.assert_array_equal(drizzle_weight(dq, good_bits, "exptime", rnoise, 7.0), [[7, 0, 7]])
    np.testing.assert_array_equal(drizzle_weight(dq, good_bits, None, rnoise, 7.0), [[1, 0, 1]])
    np.testing.assert_array_equal(drizzle_weight(dq, good_bits, "ivm", None, 7.0), [[1, 0, 1]])
    assert not drizzle_weight(np.ones((2, 2), np.uint32), good_bits, "ivm", None, 7.0).any()


@pytest.mark.filterwarnings("error")
def test_an_exposure_that_is_nowhere_adds_nothing():
    target = grid()
    (one,) = exposures([np.ones(SHAPE)], target)
    lost = replace(one, pixmap=np.full_like(one.pixmap, np.nan))
    mosaic = drizzle([lost, one], shape_of(target), 2)
    assert set(np.unique(mosaic.context[0])) == {0, 2}
    np.testing.assert_allclose(mosaic.data[mosaic.weight > 0], 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("scale", "turn", "pixfrac"),
    [(1.0, 0.02, 1.0), (0.7, 0.5, 1.0), (1.4, 2.0, 0.5), (1.0, 1.6, 1.0), (1.05, -3.1, 0.9), (1.0, 4.7, 0.7)],
)
def test_the_square_kernel_is_that_of_the_drizzle_package(scale, turn, pixfrac):
    rng = np.random.default_rng(4)
    y, x = np.indices((40, 50), float)
    cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
    u, v = x - 25 + 1e-5 * x * y, y - 20
    pixmap = np.stack([cos * u - sin * v + 70, sin * u + cos * v + 65], axis=-1)
    planes = rng.normal(10, 1, (5, 40, 50)).astype(np.float32)
    weight = rng.uniform(0, 2, (40, 50)).astype(np.float32)
    weight[5, 5] = 0
    sums, weights = spread(planes, weight, pixmap, (20, 10), (120, 110), "square", pixfrac, scale)
    for plane, total in zip(planes, sums, strict=True):
        package = Drizzle(kernel="square", fillval=0.0, out_shape=(130, 130), disable_ctx=True)
        package.add_image(
            plane,
            pixmap=pixmap,
            exptime=1.0,
            weight_map=weight,
            pixfrac=pixfrac,
            pixel_scale_ratio=scale,
            in_units="cps",
        )
        np.testing.assert_allclose(weights, package.out_wht[10:130, 20:130], atol=1e-5)
        np.testing.assert_allclose(total, (package.out_img * package.out_wht)[10:130, 20:130], atol=2e-4)
    assert weights.sum() == pytest.approx(weight.sum(), rel=1e-5)


def test_a_nan_pixel_does_not_count():
    (one,) = exposures([np.ones(SHAPE)], target := grid())
    data = one.data.copy()
    data[30, 40] = np.nan
    mosaic = drizzle([replace(one, data=data)], shape_of(target), 1)
    assert np.nanmin(mosaic.data) == pytest.approx(1, abs=1e-6)
    assert mosaic.weight.sum() == pytest.approx(25 * (np.prod(SHAPE) - 1), rel=1e-3)
