"""The optics of the imagers and the fields that they look at."""

import numpy as np
import pytest

from calibration.simulate import fgs, miri_optics, nircam, niriss
from calibration.simulate.field import Pointing, angles_to_sky, pixel_to_sky, pointing_of, sky_to_pixel
from calibration.simulate.imager import Imager
from calibration.simulate.population import CELL, JITTER, make_field
from calibration.simulate.scene import source_rate
from calibration.subarrays import Subarray

POINTING = Pointing(53.0, -27.0, 57.0, 1.00005)
LONG, SHORT = (
    nircam.imager("F444W", ("NRCALONG", "NRCBLONG")),
    nircam.imager("F200W", tuple(f"NRCA{k}" for k in range(1, 5))),
)
#: Imager -> the scale of its pixels [arcsec], JWST documentation.
SCALES = {
    "niriss": (niriss.imager(), 0.0656),
    "nircam long": (LONG, 0.063),
    "nircam short": (SHORT, 0.031),
    "fgs": (fgs.imager(("GUIDER1", "GUIDER2")), 0.069),
    "miri": (miri_optics.imager(), 0.111),
}


@pytest.mark.parametrize(("imager", "scale"), SCALES.values(), ids=SCALES)
def test_pixels_have_the_size_of_the_instrument_and_the_distortion_an_inverse(imager: Imager, scale):
    area = imager.detector_area
    x, y = np.meshgrid(np.linspace(0, area.xsize - 1, 12), np.linspace(0, area.ysize - 1, 12))
    for name, optics in imager.optics.items():
        assert np.sqrt(optics.pixel_area(optics.x_ref, optics.y_ref)) == pytest.approx(scale, rel=0.02), name
        np.testing.assert_allclose(optics.to_pixel(*optics.to_v2v3(x, y)), (x, y), atol=1e-7)


def test_the_short_detectors_of_a_module_lie_side_by_side_within_the_long_one():
    # JWST documentation, "NIRCam field of view": 64 arcsec a detector, gaps of 4 to 5.
    short = {name: optics.to_v2v3(1023.5, 1023.5) for name, optics in SHORT.optics.items()}
    for first, second, axis in (("NRCA1", "NRCA2", 1), ("NRCA1", "NRCA3", 0), ("NRCA2", "NRCA4", 0)):
        gap = abs(short[first][axis] - short[second][axis]) - 2048 * 0.031
        assert 3 < gap < 7
    v2, v3 = np.mean(list(short.values()), axis=0)
    x, y = LONG.optics["NRCALONG"].to_pixel(v2, v3)
    assert abs(x - 1023.5) < 30
    assert abs(y - 1023.5) < 30


def test_a_filter_moves_the_image_by_its_offset():
    v2v3 = SHORT.optics["NRCA1"].to_v2v3(700.0, 800.0)
    x, y = SHORT.behind_filter("NRCA1").to_pixel(*v2v3)
    column, row = SHORT.offset
    assert (x + column, y + row) == pytest.approx((700.0, 800.0), abs=1e-9)


def test_detectors_side_by_side_look_at_one_sky():
    first, second = SHORT.optics["NRCA1"], SHORT.optics["NRCA4"]
    other = pointing_of(first, POINTING, second)
    v2, v3 = np.array([60.0, 85.0, 120.0]), np.array([-520.0, -490.0, -460.0])
    there, again = angles_to_sky(first, POINTING, v2, v3), angles_to_sky(second, other, v2, v3)
    np.testing.assert_allclose((np.array(there) - again) * 3.6e6, 0, atol=1e-2)  # [mas]


def test_a_field_covers_all_that_is_seen_and_no_source_is_near_another():
    area = Subarray(1, 1, 400, 400)
    first, second = SHORT.optics["NRCA1"], SHORT.optics["NRCA2"]
    views = [(first, POINTING, area), (second, pointing_of(first, POINTING, second), area)]
    sources = make_field(SHORT, views, np.random.default_rng(3))
    ra, dec = (np.array([getattr(source, name) for source in sources]) for name in ("ra", "dec"))
    seen = []
    for distortion, pointing, _ in views:
        x, y = sky_to_pixel(distortion, pointing, ra, dec)
        inside = (x > 0) & (x < 399) & (y > 0) & (y < 399)
        assert inside.sum() > 0.7 * (400 / CELL) ** 2
        apart = np.hypot(x[inside, None] - x[inside], y[inside, None] - y[inside])
        assert apart[~np.eye(len(apart), dtype=bool)].min() > 0.9 * (CELL - 2 * JITTER)
        seen.append(inside)
    assert np.all(seen[0] ^ seen[1])
    rates = sorted(source_rate(source, SHORT.passband) for source in sources)
    brightest, faintest = SHORT.star_rates
    assert faintest < rates[0] < 1.3 * faintest
    assert 0.8 * brightest < rates[-1] < brightest


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nircam.imager("F770W"), "F150W, F200W, F277W, F444W"),
        (lambda: nircam.imager("F150W", ("NRCALONG",)), "among NRCA1"),
        (lambda: miri_optics.imager("F150W"), "F770W, F1000W"),
        (lambda: niriss.imager("F150W"), "must be F200W"),
        (lambda: fgs.imager(("NRS1",)), "among GUIDER1, GUIDER2"),
    ],
)
def test_optics_that_are_not_there_are_an_error(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_the_corner_of_a_distorted_detector_is_where_another_pixel_grid_would_not_have_it():
    optics = miri_optics.distortion()
    ra, dec = pixel_to_sky(optics, POINTING, np.array([0.0, 515.0, 1030.0]), np.array([0.0, 511.0, 1022.0]))
    bend = np.hypot((ra[0] + ra[2] - 2 * ra[1]) * np.cos(np.deg2rad(-27)), dec[0] + dec[2] - 2 * dec[1]) * 3600
    assert 0.2 < bend < 2.0  # [arcsec]
