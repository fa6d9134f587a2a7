"""Sources, their images and their dispersed images."""

import numpy as np
import pytest

from calibration.simulate import niriss
from calibration.simulate.dispersion import bin_electrons, disperse, sky_pattern
from calibration.simulate.field import Pointing, pixel_to_sky
from calibration.simulate.population import make_sources
from calibration.simulate.scene import EXPONENTIAL, Line, Source, components, draw, source_magnitude, source_rate
from calibration.simulate.throughput import (
    AB_ZERO,
    F200W,
    GRISM_ORDERS,
    image_conversion,
    sensitivity,
    spectral_conversion,
    wavelengths,
)

POINTING = Pointing(53.0, -27.0, 57.0, 1.00005)
DISTORTION = niriss.distortion("", "")


def source_at(x: float, y: float, **changes) -> Source:
    ra, dec = pixel_to_sky(DISTORTION, POINTING, x, y)
    values = dict(number=1, continuum=1e-6, slope=0.0, radius=0.0, axis_ratio=1.0, position_angle=0.0, lines=())
    return Source(ra=float(ra), dec=float(dec), **(values | changes))


@pytest.mark.parametrize("radius", [0.0, 0.15])
def test_an_image_holds_the_flux_of_its_source_at_its_position(radius):
    source = source_at(1020.3, 1011.8, radius=radius, axis_ratio=0.6, position_angle=40.0)
    weight, covariance = components(source, DISTORTION, POINTING, 1020.3, 1011.8)
    image = np.zeros((121, 121))
    draw(image, 5.0, 60.3, 59.8, weight, covariance)
    y, x = np.indices(image.shape)
    assert image.sum() == pytest.approx(5.0, rel=2e-4)
    assert (x * image).sum() / image.sum() == pytest.approx(60.3, abs=1e-3)
    assert (y * image).sum() / image.sum() == pytest.approx(59.8, abs=1e-3)


def test_a_disk_is_exponential_with_its_half_light_radius():
    r = np.linspace(0.1, 3.0, 60)
    profile = sum(w / (2 * np.pi * v) * np.exp(-0.5 * r**2 / v) for w, v in EXPONENTIAL)
    exact = 1.678**2 / (2 * np.pi) * np.exp(-1.678 * r)
    np.testing.assert_allclose(profile, exact, rtol=0.03, atol=2e-4)
    inside = sum(w * (1 - np.exp(-0.5 / v)) for w, v in EXPONENTIAL)
    assert inside == pytest.approx(0.5, abs=0.003)


def test_the_major_axis_of_a_disk_lies_at_its_position_angle():
    source = source_at(1000.0, 1000.0, radius=1.0, axis_ratio=0.2, position_angle=25.0)
    _, covariance = components(source, DISTORTION, POINTING, 1000.0, 1000.0)
    vxx, vyy, vxy = covariance[-1]
    angle = 0.5 * np.arctan2(2 * vxy, vxx - vyy)
    x, y = 1000.0 + 10 * np.cos(angle), 1000.0 + 10 * np.sin(angle)
    ra, dec = pixel_to_sky(DISTORTION, POINTING, np.array([1000.0, x]), np.array([1000.0, y]))
    east, north = (ra[1] - ra[0]) * np.cos(np.deg2rad(dec[0])), dec[1] - dec[0]
    assert np.rad2deg(np.arctan2(east, north)) % 180 == pytest.approx(25.0, abs=1.0)


def test_a_flat_spectrum_has_the_magnitude_of_its_flux_density():
    source = source_at(1000.0, 1000.0, continuum=AB_ZERO * 10 ** (-0.4 * 22.0))
    assert source_magnitude(source, F200W) == pytest.approx(22.0, abs=1e-9)


def test_photmjsr_turns_the_counts_of_a_source_into_its_flux():
    source = source_at(1000.0, 1000.0, continuum=2.5e-6)
    counts = source_rate(source, F200W) / 1.6
    megajansky = counts * image_conversion(F200W, 1.6, niriss.PIXEL_AREA) * niriss.PIXEL_AREA
    assert megajansky * 1e6 == pytest.approx(2.5e-6, rel=1e-4)


def test_the_spectral_conversion_turns_counts_per_pixel_into_flux_density():
    wavelength = np.array([1.8, 2.0, 2.2])
    counts = 3e-6 * sensitivity(F200W, wavelength, 1) / 1.6  # DN/s per um
    factor = spectral_conversion(F200W, 1, wavelength, 1.6, niriss.PIXEL_AREA)
    np.testing.assert_allclose(counts * factor * niriss.PIXEL_AREA * 1e6, 3e-6, rtol=1e-12)


@pytest.mark.parametrize("name", ["GR150R", "GR150C"])
@pytest.mark.parametrize("order", GRISM_ORDERS)
def test_each_order_holds_the_electrons_of_its_spectrum(name, order):
    line = Line("H_alpha", 2.03, 2e-19, 1.5e-3)
    source = source_at(1300.0, 1310.0, lines=(line,), slope=0.7)
    grism = niriss.grism(name)
    alone = type(grism)(**{**vars(grism), "traces": {order: grism.traces[order]}})
    image = np.zeros((2048, 2048))
    disperse(image, [source], DISTORTION, POINTING, alone, F200W, (0, 0))
    wavelength = wavelengths(F200W, step=0.0001)
    expected = np.trapezoid(source.flux(wavelength) * sensitivity(F200W, wavelength, order), wavelength)
    assert image.sum() == pytest.approx(expected, rel=1e-3)


def test_a_line_is_dispersed_to_its_place():
    line = Line("H_alpha", 2.03, 1e-18, 1e-4)
    source = source_at(1300.4, 1310.2, continuum=0.0, lines=(line,))
    for name in ("GR150R", "GR150C"):
        grism = niriss.grism(name, (700, 650))
        image = np.zeros((900, 900))
        alone = type(grism)(**{**vars(grism), "traces": {1: grism.traces[1]}})
        disperse(image, [source], DISTORTION, POINTING, alone, F200W, (700, 650))
        y, x = np.indices(image.shape)
        expected = niriss.grism(name).position(1, 1300.4, 1310.2, 2.03)
        assert (x * image).sum() / image.sum() + 700 == pytest.approx(float(expected[0]), abs=0.01)
        assert (y * image).sum() / image.sum() + 650 == pytest.approx(float(expected[1]), abs=0.01)


def test_gr150r_disperses_along_columns_and_gr150c_along_rows_at_47_angstrom_per_pixel():
    for name, axis in (("GR150R", 1), ("GR150C", 0)):
        ends = np.array(niriss.grism(name).position(1, 1000.0, 1000.0, np.array([1.8, 2.2])))
        lengths = np.abs(ends[:, 1] - ends[:, 0])
        assert 4000 / lengths[axis] == pytest.approx(46.7, abs=0.2)
        assert lengths[1 - axis] < 1


def test_bins_share_out_all_the_light_whatever_their_direction():
    source = source_at(1000.0, 1000.0)
    edges = np.linspace(1.6, 2.4, 700)
    rising, falling = bin_electrons(source, F200W, 1, edges), bin_electrons(source, F200W, 1, edges[::-1])
    np.testing.assert_allclose(rising, falling[::-1], rtol=1e-12)
    coarse = bin_electrons(source, F200W, 1, np.array([1.0, 3.0]))
    assert rising.sum() == pytest.approx(coarse[0], rel=1e-12)


def test_the_sky_through_a_grism_is_about_one_with_a_step_where_an_order_ends():
    pattern = sky_pattern((2048, 2048), (0, 0), "x")
    assert 0.85 < pattern.mean() < 1.05
    assert pattern[1000, 1700] > 1.3 * pattern[1000, 2000]
    np.testing.assert_array_equal(sky_pattern((64, 64), (500, 900), "x"), pattern[900:964, 500:564])


def test_a_field_has_stars_disks_lines_and_faint_sources_inside_the_array():
    sources = make_sources(512, (768, 768), DISTORTION, POINTING, np.random.default_rng(5))
    assert 10 <= len(sources) <= 20
    assert sum(bool(source.lines) for source in sources) >= 3
    assert any(source.radius == 0 for source in sources)
    magnitudes = [source_magnitude(source, F200W) for source in sources]
    assert min(magnitudes) < 21 < 25 < max(magnitudes)
