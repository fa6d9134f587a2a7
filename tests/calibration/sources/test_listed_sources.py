"""Sources that a list names, in a direct image whose sources are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.sources.listed import measure_labels, segment_listed, systematic_offset

#: x, y, light, width [pixel]
STARS = [(30.0, 20.0, 400.0, 1.2), (80.3, 60.7, 900.0, 1.2), (84.9, 60.2, 500.0, 1.2), (50.0, 95.0, 3000.0, 4.0)]
NUMBER = np.array([7, 300, 12, 4000])


def picture(stars=STARS, shape=(120, 130), noise=0.5):
    y, x = np.mgrid[: shape[0], : shape[1]]
    data = np.random.default_rng(11).normal(10.0, noise, shape)
    for at_x, at_y, light, width in stars:
        profile = np.exp(-0.5 * ((x - at_x) ** 2 + (y - at_y) ** 2) / width**2)
        data += light * profile / (2 * np.pi * width**2)
    return data.astype(np.float32)


def places(stars=STARS):
    return np.array([star[0] for star in stars]), np.array([star[1] for star in stars])


def test_every_source_of_the_list_gets_its_own_pixels():
    found = segment_listed(picture(), *places(), NUMBER)
    assert set(np.unique(found.labels)) == {0, *NUMBER.tolist()}
    assert found.unlisted.size == 0
    for (x, y, light, _), number, total in zip(STARS, NUMBER, found.total, strict=True):
        assert found.labels[round(y), round(x)] == number
        # Isophotes leave out the wings.
        assert 0.8 * light < total < 1.1 * light
    # Two that touch are cut between them.
    row = found.labels[60, 78:90]
    assert set(row.tolist()) >= {300, 12}
    assert np.flatnonzero(row == 300).max() < np.flatnonzero(row == 12).min()


def test_boxes_hold_the_pixels_and_one_more_at_the_far_side():
    found = segment_listed(picture(), *places(), NUMBER)
    for k, number in enumerate(NUMBER):
        rows, columns = np.nonzero(found.labels == number)
        assert (found.x0[k], found.x1[k]) == (columns.min() - 0.5, columns.max() + 1.5)
        assert (found.y0[k], found.y1[k]) == (rows.min() - 0.5, rows.max() + 1.5)


def test_the_wide_one_is_extended():
    assert segment_listed(picture(), *places(), NUMBER).extended.tolist() == [False, False, False, True]


def test_what_nobody_listed_keeps_its_light_under_another_number():
    x, y = places()
    found = segment_listed(picture(), x[:1], y[:1], NUMBER[:1])
    assert set(np.unique(found.labels)) == {0, 7, 8, 9}, "the two that touch are one"
    assert found.unlisted.tolist() == [8, 9]
    assert found.labels[95, 50] == 8, "brightest first"


def test_a_position_without_light_gets_no_pixel():
    x, y = np.array([30.0, 110.0, -40.0]), np.array([20.0, 10.0, 5.0])
    found = segment_listed(picture(), x, y, np.array([1, 2, 3]))
    assert np.isfinite(found.x0).tolist() == [True, False, False]
    assert np.isnan(found.total[1:]).all()
    assert not found.extended[1:].any()


@pytest.mark.parametrize("data", [np.full((40, 50), np.nan, np.float32), np.zeros((40, 50), np.float32)])
def test_an_image_without_anything_has_no_source(data):
    found = segment_listed(data, np.array([3.0]), np.array([4.0]), np.array([9]))
    assert not found.labels.any()
    assert np.isnan(found.x0).all()


def test_a_list_without_sources_has_only_others():
    found = segment_listed(picture(), np.zeros(0), np.zeros(0), np.zeros(0, int))
    assert found.unlisted.tolist() == [1, 2, 3]
    assert found.x0.size == 0


@given(st.data())
def test_measures_are_those_of_each_label_alone(data):
    shape = 9, 11
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    labels = rng.choice([0, 0, 3, 5, 17], shape).astype(np.uint32)
    signal = rng.normal(1, 1, shape).astype(np.float32)
    number = np.array([17, 4, 3, 5])
    found = measure_labels(signal, labels, number, np.zeros(0), np.zeros(0))
    for k, one in enumerate(number):
        rows, columns = np.nonzero(labels == one)
        if not rows.size:
            assert np.isnan([found.x0[k], found.total[k]]).all()
            continue
        assert found.total[k] == pytest.approx(signal[rows, columns].sum(dtype=float), abs=1e-5)
        assert (found.x0[k], found.y1[k]) == (columns.min() - 0.5, rows.max() + 1.5)


def field(n, seed):
    rng = np.random.default_rng(seed)
    return rng.uniform(-60, 60, (2, n))


@given(
    east=st.floats(-9, 9),
    north=st.floats(-9, 9),
    n=st.integers(6, 60),
    share=st.floats(0.6, 1),
    seed=st.integers(0, 2**32),
)
def test_an_offset_is_found_among_sources_that_are_not_in_both(east, north, n, share, seed):
    places = field(n, seed)
    kept = max(int(share * n), 5)
    scatter = np.random.default_rng(seed).normal(0, 0.03, (2, kept))
    other = np.concatenate([places[:, :kept] + scatter, field(n - kept, seed + 1)], axis=1)
    found = systematic_offset(places[0] + east, places[1] + north, *other)
    assert found is not None
    assert found.east == pytest.approx(east, abs=0.1)
    assert found.north == pytest.approx(north, abs=0.1)
    assert found.matched >= kept * 0.9


@given(n=st.integers(1, 60), seed=st.integers(0, 2**32))
def test_two_fields_that_have_nothing_in_common_have_no_offset(n, seed):
    found = systematic_offset(*field(n, seed), *field(n, seed + 1))
    assert found is None or found.matched < 0.5 * n or n < 9


def test_without_sources_there_is_no_offset():
    nothing = np.zeros(0)
    assert systematic_offset(nothing, nothing, *field(5, 1)) is None
    assert systematic_offset(*field(5, 1), nothing, nothing) is None
    assert systematic_offset(np.zeros(3), np.zeros(3), np.full(3, 100.0), np.zeros(3)) is None
