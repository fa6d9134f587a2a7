"""Means of spectra: laws that any mean obeys, and truths."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.spectra.combine_1d import Spectrum, combine_spectra, group_wavelengths


def spectrum(start, n=60, step=0.005, weight=1.0, flux=None, error=0.1, seed=None):
    wavelength = start + step * np.arange(n)
    if flux is None:
        flux = np.ones(n)
    if seed is not None:
        flux = flux + np.random.default_rng(seed).normal(0, error, n)
    return Spectrum(
        wavelength,
        flux,
        np.full(n, error),
        2 * flux,
        np.full(n, 2 * error),
        np.zeros(n, np.uint32),
        np.ones(n, bool),
        weight,
    )


def test_one_spectrum_comes_back_as_it_is():
    one = spectrum(1.8, seed=1)
    found = combine_spectra([one])
    np.testing.assert_allclose(found.wavelength, one.wavelength)
    np.testing.assert_allclose(found.flux, one.flux)
    np.testing.assert_allclose(found.flux_error, one.flux_error)
    assert (found.count == 1).all()


def test_falling_wavelengths_come_back_rising():
    one = spectrum(2.2, step=-0.005, flux=np.arange(60.0))
    found = combine_spectra([one])
    assert (np.diff(found.wavelength) > 0).all()
    np.testing.assert_allclose(found.flux, one.flux[::-1])


@pytest.mark.parametrize("n", [2, 3, 4])
def test_spectra_on_the_same_wavelengths_are_averaged_element_by_element(n):
    inputs = [spectrum(1.8, seed=k, weight=k + 1.0) for k in range(n)]
    found = combine_spectra(inputs)
    weights = np.arange(1, n + 1)
    np.testing.assert_allclose(found.flux, np.average([one.flux for one in inputs], axis=0, weights=weights))
    np.testing.assert_allclose(found.brightness, 2 * found.flux)
    np.testing.assert_allclose(found.flux_error, 0.1 * np.sqrt((weights**2).sum()) / weights.sum())
    np.testing.assert_allclose(found.weight, weights.sum())


@given(shifts=st.lists(st.floats(0, 0.02), min_size=2, max_size=5))
@settings(max_examples=50, deadline=None)
def test_no_value_is_lost_or_used_twice(shifts):
    inputs = [spectrum(1.8 + shift, weight=1.0 + k) for k, shift in enumerate(shifts)]
    found = combine_spectra(inputs)
    assert found.count.sum() == 60 * len(inputs)
    assert found.weight.sum() == pytest.approx(60 * sum(one.weight for one in inputs))
    np.testing.assert_allclose(found.flux, 1)
    assert (np.diff(found.wavelength) > 0).all()


@given(shifts=st.lists(st.floats(0, 1), min_size=2, max_size=5))
@settings(max_examples=50, deadline=None)
def test_dithered_spectra_have_as_many_elements_as_one_of_them(shifts):
    found = combine_spectra([spectrum(1.8 + 0.005 * shift) for shift in shifts])
    # At either end, where not all of them reach, elements have fewer inputs.
    assert 60 <= found.wavelength.size <= 60 + len(shifts)
    middle = found.count[5:-5]
    assert (middle == len(shifts)).all()


def test_the_order_of_the_inputs_does_not_matter():
    inputs = [spectrum(1.8 + 0.0013 * k, seed=k, weight=k + 1.0) for k in range(3)]
    reference = combine_spectra(inputs)
    for order in itertools.permutations(inputs):
        np.testing.assert_allclose(combine_spectra(order).flux, reference.flux)


def test_a_line_stays_where_it_is():
    def lines(start):
        wavelength = start + 0.0047 * np.arange(120)
        return spectrum(start, 120, 0.0047, flux=np.exp(-0.5 * ((wavelength - 2.05) / 0.006) ** 2))

    found = combine_spectra([lines(1.8), lines(1.8018), lines(1.7991), lines(1.8009)])
    centre = np.sum(found.flux * found.wavelength) / np.sum(found.flux)
    assert centre == pytest.approx(2.05, abs=0.1 * 0.0047)
    assert np.sum(found.flux) * 0.0047 == pytest.approx(0.006 * np.sqrt(2 * np.pi), rel=0.01)


def test_values_that_are_not_usable_are_left_out():
    one, other = spectrum(1.8), spectrum(1.8, flux=np.full(60, 3.0))
    usable = np.ones(60, bool)
    usable[:10] = False
    other = Spectrum(**{**vars(other), "usable": usable})
    found = combine_spectra([one, other])
    np.testing.assert_allclose(found.flux[:10], 1)
    np.testing.assert_allclose(found.flux[10:], 2)
    assert found.count[:10].tolist() == [1] * 10


def test_flags_of_the_inputs_are_joined():
    one, other = spectrum(1.8), spectrum(1.8)
    flagged = np.zeros(60, np.uint32)
    flagged[5] = 4
    found = combine_spectra([one, Spectrum(**{**vars(other), "dq": flagged})])
    assert found.dq[5] == 4
    assert np.count_nonzero(found.dq) == 1


def test_an_outlier_is_left_out_when_asked_for():
    inputs = [spectrum(1.8, seed=k) for k in range(5)]
    inputs[2].flux[30] += 50
    assert combine_spectra(inputs).flux[30] > 5
    clipped = combine_spectra(inputs, sigma_clip=10.0)
    assert clipped.flux[30] == pytest.approx(1, abs=0.3)
    assert clipped.count[30] == 4


def test_groups_start_where_the_values_are_closest_together():
    wavelength = np.array([0.0, 0.9, 1.0, 1.9, 2.0, 2.9, 3.0, 3.9])
    assert group_wavelengths(wavelength, np.full(8, 2)).tolist() == [0, 1, 1, 2, 2, 3, 3, 4]


def test_nothing_to_combine_is_an_error():
    with pytest.raises(ValueError, match=r"no spectrum"):
        combine_spectra([])
