"""An array in a scratch file, and kernels that work on strips of rows."""

import numpy as np
import pytest

from calibration.strips import map_rows, rows_of, threads, zeros
from infra.products.header import ProductError
from infra.products.stored import store

SHAPE = (3, 4, 7, 5)


@pytest.fixture
def both():
    """The same numbers in memory and on disk."""
    values = np.random.default_rng(4).normal(size=SHAPE).astype(np.float32)
    stored = store(SHAPE, np.float32, rows_at_once=2)
    stored[0:3] = values
    return values, stored


def test_what_was_not_written_is_zero():
    np.testing.assert_array_equal(store(SHAPE, np.uint8, 7)[:], np.zeros(SHAPE, np.uint8))


@pytest.mark.parametrize(
    "index", [0, 2, slice(0, 2), slice(1, None), slice(None), np.s_[:, :, 2:5], np.s_[..., 6:7, :]]
)
def test_integrations_and_rows_are_those_of_an_array_in_memory(both, index):
    values, stored = both
    np.testing.assert_array_equal(stored[index], values[index])


@pytest.mark.parametrize("index", [1, slice(1, 3), np.s_[:, :, 2:5], np.s_[..., 0:1, :]])
def test_what_is_written_comes_back_and_the_rest_stays(both, index):
    values, stored = both
    expected = values.copy()
    expected[index] = -1
    stored[index] = expected[index]
    np.testing.assert_array_equal(stored[:], expected)


@pytest.mark.parametrize("index", [np.s_[:, 1], np.s_[..., 2:3], np.s_[::2], np.s_[0, 0, 0, 0]])
def test_an_index_that_would_read_scattered_bytes_is_an_error(both, index):
    with pytest.raises(TypeError, match="an array on disk is read"):
        both[1][index]


def test_values_of_another_shape_are_an_error(both):
    with pytest.raises(ValueError, match="expected values of the shape"):
        both[1][0] = np.zeros(5, np.float32)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("on_disk", [False, True])
def test_strips_cover_each_row_once_and_in_order(both, number, on_disk):
    values, stored = both
    data = stored if on_disk else values
    out = zeros(data, SHAPE, np.float32)

    def double(rows: slice) -> int:
        part, first = rows_of(data, rows)
        out[:, :, rows] = 2 * part[:, :, rows.start - first : rows.stop - first]
        return rows.start

    with threads(number):
        starts = map_rows(double, data)
    assert starts == sorted(starts)
    assert not on_disk or len(starts) >= 4
    np.testing.assert_array_equal(out[:], 2 * values)


def test_a_disk_without_room_is_an_error_that_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("CALWEAVE_SCRATCH", str(tmp_path / "scratch"))
    with pytest.raises(ProductError, match=r"needs 8796\.1 GB in .*scratch, which has room"):
        store((2**20, 2**10, 2**10), np.float64, 1)
    assert not list((tmp_path / "scratch").iterdir())


def test_nothing_is_left_of_an_array_that_is_gone(tmp_path, monkeypatch):
    monkeypatch.setenv("CALWEAVE_SCRATCH", str(tmp_path))
    array = store(SHAPE, np.float32, 1)
    array[0] = np.ones(SHAPE[1:], np.float32)
    assert not list(tmp_path.iterdir()), "the file has no name"
