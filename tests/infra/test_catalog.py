"""Catalogs and their files."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from infra.products.catalog import NEEDED, Catalog, read_catalog, write_catalog
from infra.products.header import ProductError
from infra.products.user_catalog import read_table


def catalog(n=3):
    at = SkyCoord(np.linspace(10, 11, n), np.linspace(-5, -4, n), unit="deg")
    table = QTable({"label": np.arange(1, n + 1, dtype=np.int32)})
    for name in NEEDED[1:]:
        if name.startswith("sky"):
            table[name] = at
        elif name == "is_extended":
            table[name] = np.arange(n) % 2 == 0
        else:
            table[name] = np.linspace(1, 2, n)
    table["isophotal_flux"] = np.linspace(1, 2, n) * units.Jy
    table["isophotal_flux"].info.format = ".6e"
    return Catalog(table, {"source_catalog": {"status": "COMPLETE"}})


@pytest.mark.parametrize("n", [3, 0])
def test_a_catalog_comes_back_as_it_was_written(tmp_path, n):
    path = tmp_path / "x_cat.ecsv"
    write_catalog(catalog(n), path)
    back = read_catalog(path)
    assert back.table.colnames == catalog(n).table.colnames
    assert len(back.table) == n
    assert back.recipe == catalog(n).recipe
    np.testing.assert_allclose(back.table["sky_centroid"].ra.deg, catalog(n).table["sky_centroid"].ra.deg, rtol=1e-12)
    assert back.table["isophotal_flux"].unit == units.Jy


def test_writing_does_not_touch_the_catalog(tmp_path):
    original = catalog()
    write_catalog(original, tmp_path / "x_cat.ecsv")
    assert "calweave" not in original.table.meta


def test_an_absent_catalog_says_what_makes_one(tmp_path):
    with pytest.raises(ProductError, match="run image3 on the direct images"):
        read_catalog(tmp_path / "none_cat.ecsv")


@pytest.mark.parametrize("content", [b"", b"SIMPLE  =  T", bytes(range(256))])
def test_what_is_no_catalog_is_an_error(tmp_path, content):
    path = tmp_path / "x_cat.ecsv"
    path.write_bytes(content)
    with pytest.raises(ProductError, match=r"x_cat\.ecsv: expected"):
        read_catalog(path)


def test_a_missing_column_is_named(tmp_path):
    path = tmp_path / "x_cat.ecsv"
    table = catalog().table
    table.remove_column("sky_bbox_ul")
    table.write(path, format="ascii.ecsv")
    with pytest.raises(ProductError, match="sky_bbox_ul are missing"):
        read_catalog(path)


def test_catalogs_are_read_by_several_threads_at_a_time(tmp_path, monkeypatch):
    path = tmp_path / "x_cat.ecsv"
    write_catalog(catalog(3), path)
    info = type(units.Quantity.info)
    construct = info._construct_from_dict

    def slow(self, content):
        # Between the two, astropy keeps the class to make where another thread may put its own.
        time.sleep(1e-3)
        return construct(self, content)

    monkeypatch.setattr(info, "_construct_from_dict", slow)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda reader: reader(path), [read_catalog, read_table] * 4))
    for back in read:
        table = back.table if isinstance(back, Catalog) else back
        assert table["isophotal_flux"].unit == units.Jy
        np.testing.assert_allclose(table["sky_centroid"].ra.deg, catalog(3).table["sky_centroid"].ra.deg, rtol=1e-12)
