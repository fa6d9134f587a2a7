"""What has arrived whole in a folder, and what is still being written."""

import gzip
import shutil

import numpy as np
import pytest
from astropy.io import fits

from infra.products.arrivals import PATIENCE, Arrivals, length_of
from infra.storage.store import stat_folder


@pytest.fixture
def exposure(tmp_path):
    """The bytes of a FITS file with two extensions."""
    path = tmp_path / "whole.fits"
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.zeros((3, 40, 50), np.uint16)), fits.ImageHDU(np.zeros(7, np.uint8))]
    fits.HDUList(hdus).writeto(path)
    data = path.read_bytes()
    path.unlink()
    return data


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "incoming"
    place.mkdir()
    return place


def look(arrivals, now=0.0):
    return arrivals.look(stat_folder(arrivals.folder), now)


def test_the_headers_tell_how_long_a_file_will_be(folder, exposure):
    path = folder / "a_uncal.fits"
    for length in range(0, len(exposure) - 2880, 700):
        path.write_bytes(exposure[:length])
        assert length_of(path) > length
    path.write_bytes(exposure)
    assert length_of(path) == len(exposure)


def test_a_part_is_waited_for(folder, exposure):
    arrivals, path = Arrivals(str(folder)), folder / "a_uncal.fits"
    path.write_bytes(exposure[:4000])
    assert look(arrivals).arrived == ()
    assert arrivals.unfinished == (str(path),)
    path.write_bytes(exposure)
    assert look(arrivals, 1.0).arrived == ("a",)
    assert look(arrivals, 2.0).arrived == ()
    assert arrivals.unfinished == ()


def test_a_part_of_a_compressed_file_is_waited_for(folder, exposure):
    arrivals, path = Arrivals(str(folder)), folder / "a_uncal.fits.gz"
    packed = gzip.compress(exposure)
    path.write_bytes(packed[: len(packed) // 2])
    assert look(arrivals).arrived == ()
    path.write_bytes(packed)
    assert look(arrivals).arrived == ("a",)


def test_a_part_that_does_not_grow_is_taken_for_damaged_and_a_new_copy_is_taken(folder, exposure, caplog):
    arrivals, path = Arrivals(str(folder)), folder / "a_uncal.fits"
    path.write_bytes(exposure[:4000])
    assert look(arrivals, 0.0).arrived == ()
    path.write_bytes(exposure[:5000])
    assert look(arrivals, PATIENCE + 1).arrived == (), "it has grown"
    assert look(arrivals, 2 * PATIENCE + 1).arrived == ("a",)
    assert "not complete" in caplog.text
    path.write_bytes(exposure)
    assert look(arrivals, 2 * PATIENCE + 2).arrived == ("a",)


def test_of_two_files_of_one_exposure_the_first_counts_until_it_goes(folder, exposure, caplog):
    arrivals = Arrivals(str(folder))
    first, second = folder / "a_uncal.fits", folder / "again" / "a_uncal.fits"
    first.write_bytes(exposure)
    assert look(arrivals).arrived == ("a",)
    second.parent.mkdir()
    shutil.copy(first, second)
    assert look(arrivals).arrived == ()
    assert look(arrivals).arrived == ()
    assert caplog.text.count("came first") == 1
    first.unlink()
    assert look(arrivals).arrived == ("a",)
    assert arrivals.exposures["a"].url == str(second)


def test_a_renamed_exposure_is_another_one(folder, exposure):
    arrivals = Arrivals(str(folder))
    (folder / "a_uncal.fits.part").write_bytes(exposure)
    (folder / ".b_uncal.fits").write_bytes(exposure)
    assert look(arrivals).arrived == ()
    (folder / "a_uncal.fits.part").rename(folder / "a_uncal.fits")
    assert look(arrivals).arrived == ("a",)
    (folder / "a_uncal.fits").rename(folder / "c_uncal.fits")
    found = look(arrivals)
    assert (found.arrived, found.gone) == (("c",), ("a",))
