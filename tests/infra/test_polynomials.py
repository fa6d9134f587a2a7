"""Threads that read WCS and distortion files at the same time do not get in the way of each other."""

import sys
import threading

import pytest
from astropy.modeling import models

from infra.products.polynomials import make_polynomials_safe


@pytest.fixture
def quick_switches():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("kind", [models.Polynomial1D, models.Polynomial2D])
def test_polynomials_are_made_by_many_threads(quick_switches, kind):
    """Without care astropy fails here: "dictionary changed size during iteration"."""
    make_polynomials_safe()
    kind._parameters_.clear()  # as in a new process
    errors, made = [], []

    def work(number):
        try:
            for degree in range(1, 12):
                made.append(
                    (degree, kind(degree, **{"c0" if kind is models.Polynomial1D else "c0_0": degree + number}))
                )
        except RuntimeError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number / 10,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(made) == 66
    assert all(int(model.parameters[0]) == degree and not model.parameters[1:].any() for degree, model in made)
