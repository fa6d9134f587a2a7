"""The measure of an emission line, on lines whose light is known."""

import numpy as np
import pytest

from calibration.simulate.scene import EXPONENTIAL, PSF, draw
from infra.synthetic.compare import measure_line

WIDTH = 0.14  # [spectral pixel]


@pytest.mark.parametrize("radius", [0.0, 1.3])
@pytest.mark.parametrize("phase", [0.0, 0.37])
def test_all_light_of_a_line_is_counted(radius, phase):
    disk = EXPONENTIAL if radius else ((1.0, 0.0),)
    weight = np.array([w * v for w, _ in PSF for v, _ in disk])
    variance = np.array([s**2 + v * radius**2 for _, s in PSF for _, v in disk])
    image = np.zeros((61, 101))
    along = variance + WIDTH**2
    draw(image, 1.0, 50 + phase, 30.0, weight, np.stack([along, variance, 0 * variance], axis=-1))
    offset = np.arange(101) - 50.0
    flux = 3.0 + 0.02 * offset + 40.0 * image.sum(axis=0)
    centre, found, error = measure_line(offset, flux, np.full(101, 0.05), PSF, WIDTH)
    assert centre == pytest.approx(phase, abs=0.02)
    assert found == pytest.approx(40, rel=0.01)
    assert 0 < error < 0.02 * found


def test_too_few_points_are_no_line():
    offset = np.arange(7) - 3.0
    assert measure_line(offset, np.ones(7), np.ones(7), PSF, WIDTH) is None
