"""Clipping of sorted values agrees with that of values in any order."""

import numpy as np
import pytest
from astropy.stats import sigma_clipped_stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calibration.robust import Ordered, clip

VALUES = arrays(
    np.float32, st.integers(1, 200), elements=st.floats(-1000, 1000, width=32).map(lambda value: round(value, 1))
)


@given(values=VALUES)
def test_clipping_agrees_with_that_of_astropy(values):
    kept = clip(Ordered.of(values))
    mean, median, sigma = sigma_clipped_stats(values.astype(np.float64), sigma=3.0, maxiters=5)
    assert kept.median == pytest.approx(median, abs=1e-9)
    assert kept.mean == pytest.approx(mean, abs=1e-6)
    assert kept.sigma == pytest.approx(sigma, abs=1e-5)


def test_moments_of_many_values_are_those_of_their_parts():
    values = np.random.default_rng(1).normal(5, 2, 20_000).astype(np.float32)
    ordered = Ordered.of(values)
    for low, high in ((3.0, 6.0), (-2.0, 12.0), (4.99, 5.01)):
        part = values[(values >= low) & (values <= high)].astype(np.float64)
        kept = ordered.within(low, high)
        assert (kept.count, kept.first, kept.last) == (part.size, part.min(), part.max())
        assert kept.mean == pytest.approx(part.mean(), abs=1e-9)
        assert kept.sigma == pytest.approx(part.std(), abs=1e-6)
        assert kept.median == np.median(part)
