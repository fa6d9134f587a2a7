"""The measure of an emission line, on lines whose light is known."""

import numpy as np
import pytest

from calibration.simulate.scene import EXPONENTIAL, PSF, draw
from infra.synthetic.compare import LINE_WIDTH, SPECTRAL_PIXEL, measure_line


@pytest.mark.parametrize("radius", [0.0, 1.3])
@pytest.mark.parametrize("phase", [0.0, 0.37])
def test_all_light_of_a_line_is_counted(radius, phase):
    disk = EXPONENTIAL if radius else ((1.0, 0.0),)
    weight = np.array([w * v for w, _ in PSF for v, _ in disk])
    variance = np.array([s**2 + v * radius**2 for _, s in PSF for _, v in disk])
    image = np.zeros((61, 101))
    along = variance + (LINE_WIDTH / SPECTRAL_PIXEL) ** 2
    draw(image, 1.0, 50 + phase, 30.0, weight, np.stack([along, variance, 0 * variance], axis=-1))
    wavelength = 2.0 + SPECTRAL_PIXEL * (np.arange(101) - 50)
    flux = 3.0 + 5.0 * (wavelength - 2.0) + 40.0 * image.sum(axis=0)
    centre, found, error = measure_line(wavelength, flux, np.full(101, 0.05), 2.0)
    assert centre == pytest.approx(2.0 + phase * SPECTRAL_PIXEL, abs=0.02 * SPECTRAL_PIXEL)
    assert found == pytest.approx(40 * SPECTRAL_PIXEL, rel=0.01)
    assert 0 < error < 0.02 * found


def test_too_few_points_are_no_line():
    wavelength = 2.0 + SPECTRAL_PIXEL * np.arange(7)
    assert measure_line(wavelength, np.ones(7), np.ones(7), 2.015) is None
