"""``References`` gives steps arrays of the subarray, flags by name, tables, trees, or an error that names the file."""

import os
import pickle
import threading

import asdf
import numpy as np
import pytest
from astropy.io import fits
from astropy.modeling.models import Polynomial2D

from calibration import dq
from calibration.subarrays import Subarray
from infra.references import content
from infra.references.content import ReferenceInvalid, References, translate_dq

FULL = Subarray(1, 1, 16, 12)


def references_to(path, **others):
    return References({"mask": str(path), "rscd": None, **others}, "jwst_0001.pmap")


@pytest.fixture
def data():
    return np.random.default_rng(632).normal(10, 1, (3, 12, 16)).astype(np.float32)


def write(path, *hdus, **keywords):
    primary = fits.PrimaryHDU()
    primary.header.update(keywords)
    fits.HDUList([primary, *hdus]).writeto(path, overwrite=True)
    return path


def dq_def(*rows):
    columns = [
        fits.Column("BIT", "J", array=[int(value).bit_length() - 1 for value, _ in rows]),
        fits.Column("VALUE", "J", array=[value for value, _ in rows]),
        fits.Column("NAME", "40A", array=[name for _, name in rows]),
    ]
    return fits.BinTableHDU.from_columns(columns, name="DQ_DEF")


@pytest.fixture
def reference(tmp_path, data):
    flags = np.zeros((12, 16), np.uint32)
    flags[0, 0], flags[5, 7], flags[1, 1] = 1, 2, 4
    return write(
        tmp_path / "jwst_niriss_mask_0001.fits",
        fits.ImageHDU(data, name="SCI"),
        fits.ImageHDU(flags, name="DQ"),
        dq_def((1, "DO_NOT_USE"), (2, "HOT"), (4, "NOBODY_KNOWS_THIS")),
        SUBSTRT1=1, SUBSTRT2=1, SUBSIZE1=16, SUBSIZE2=12,
    )  # fmt: skip


def test_an_array_is_as_in_the_file_in_the_byte_order_of_the_machine(reference, data):
    array = references_to(reference).array("mask")
    np.testing.assert_array_equal(array, data)
    assert array.dtype == np.float32
    assert array.dtype.isnative
    assert array.flags.c_contiguous


def test_an_array_is_cut_to_the_subarray(reference, data):
    cut = references_to(reference).array("mask", subarray=Subarray(3, 5, 4, 2))
    np.testing.assert_array_equal(cut, data[:, 4:6, 2:6])


def test_only_the_planes_that_are_asked_for_are_read(reference, data):
    area = Subarray(3, 2, 8, 5)
    part = references_to(reference).array("mask", "SCI", area, planes=(2,))
    np.testing.assert_array_equal(part, data[:2, 1:6, 2:10])
    assert part.base is None or part.base.nbytes == part.nbytes, "the rest is not kept in memory"
    np.testing.assert_array_equal(references_to(reference).array("mask", "SCI", planes=(9,)), data)


def test_an_array_on_disk_is_read_plane_by_plane_and_not_kept(reference, data):
    references = references_to(reference)
    array = references.on_disk("mask")
    assert array.shape == data.shape
    for index in np.ndindex(data.shape[:-2]):
        plane = array[index]
        np.testing.assert_array_equal(plane, data[index])
        assert plane.dtype.isnative
        assert array[index] is not plane
    with pytest.raises(IndexError):
        array[(len(data),)]
    assert References({"mask": None}, "jwst_0001.pmap").on_disk("mask") is None


def test_a_reference_of_a_subarray_is_cut_from_its_own_corner(tmp_path, data):
    path = write(
        tmp_path / "sub.fits", fits.ImageHDU(data, name="SCI"), SUBSTRT1=101, SUBSTRT2=51, SUBSIZE1=16, SUBSIZE2=12
    )
    cut = references_to(path).array("mask", subarray=Subarray(103, 55, 4, 2))
    np.testing.assert_array_equal(cut, data[:, 4:6, 2:6])


def test_a_subarray_that_the_file_does_not_cover_is_an_error_with_both_areas(reference):
    with pytest.raises(ReferenceInvalid) as caught:
        references_to(reference).array("mask", subarray=Subarray(10, 1, 16, 12))
    for part in ("jwst_niriss_mask_0001.fits", "columns 1..16, rows 1..12", "columns 10..25, rows 1..12"):
        assert part in str(caught.value)


def test_a_file_of_another_shape_than_it_declares_is_an_error(tmp_path, data):
    path = write(tmp_path / "odd.fits", fits.ImageHDU(data, name="SCI"), SUBSIZE1=2048, SUBSIZE2=2048)
    with pytest.raises(ReferenceInvalid, match=r"odd.fits: SCI must have .*\(2048, 2048\).*\(12, 16\)"):
        references_to(path).array("mask", subarray=FULL)
    assert references_to(path).array("mask").shape == (3, 12, 16)


def test_flags_are_translated_by_their_names(reference, caplog):
    flags = references_to(reference).dq("mask", FULL)
    assert flags.dtype == np.uint32
    assert flags[0, 0] == dq.PIXEL["DO_NOT_USE"]
    assert flags[5, 7] == dq.PIXEL["HOT"]
    assert flags[1, 1] == 0
    assert np.count_nonzero(flags) == 2
    assert "NOBODY_KNOWS_THIS" in caplog.text


def test_flags_are_cut_to_the_subarray(reference):
    flags = references_to(reference).dq("mask", Subarray(8, 6, 1, 1))
    assert flags.tolist() == [[int(dq.PIXEL["HOT"])]]


def test_flags_without_definitions_are_the_standard_bits(tmp_path):
    flags = np.array([[0, 1], [2048, 2**31]], np.uint32)
    path = write(tmp_path / "plain.fits", fits.ImageHDU(flags, name="DQ"))
    np.testing.assert_array_equal(references_to(path).dq("mask"), flags)


def test_translation_agrees_with_the_definition():
    rng = np.random.default_rng(632)
    names = list(rng.permutation(list(dq.PIXEL)))[:20]
    table = dq_def(*((1 << bit, name) for bit, name in enumerate(names))).data
    flags = rng.integers(0, 2**20, (5, 7), dtype=np.uint32)
    expected = np.zeros_like(flags)
    for position, value in np.ndenumerate(flags):
        for bit, name in enumerate(names):
            if (int(value) >> bit) & 1:
                expected[position] |= dq.PIXEL[name]
    np.testing.assert_array_equal(translate_dq(flags, table, "x.fits"), expected)


def test_definitions_that_are_no_bits_or_have_no_names_are_an_error(tmp_path):
    flags = fits.ImageHDU(np.ones((2, 2), np.uint32), name="DQ")
    path = write(tmp_path / "bad.fits", flags, dq_def((3, "HOT")))
    with pytest.raises(ReferenceInvalid, match=r"bad.fits.*HOT the value 3"):
        references_to(path).dq("mask")
    table = fits.BinTableHDU.from_columns([fits.Column("VALUE", "J", array=[1])], name="DQ_DEF")
    path = write(tmp_path / "noname.fits", flags, table)
    with pytest.raises(ReferenceInvalid, match=r"noname.fits: DQ_DEF must have the columns VALUE and NAME"):
        references_to(path).dq("mask")


def test_unsigned_scaled_and_byte_images_are_read_as_astropy_reads_them(tmp_path):
    rng = np.random.default_rng(632)
    for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64):
        values = (rng.random((4, 5)) * 200).astype(dtype)
        path = write(tmp_path / f"{np.dtype(dtype).name}.fits", fits.ImageHDU(values, name="SCI"))
        array = references_to(path).array("mask")
        np.testing.assert_array_equal(array, values)
        assert array.dtype == dtype
    hdu = fits.ImageHDU(np.arange(20, dtype=np.int16).reshape(4, 5), name="SCI")
    hdu.header["BSCALE"], hdu.header["BZERO"] = 0.5, 10
    path = write(tmp_path / "scaled.fits", hdu)
    np.testing.assert_array_equal(references_to(path).array("mask"), fits.getdata(path, "SCI"))


def test_a_table_and_a_header_are_read(tmp_path):
    table = fits.BinTableHDU.from_columns(
        [fits.Column("filter", "12A", array=["F200W", "F150W"]), fits.Column("photmjsr", "E", array=[0.5, 0.25])],
        name="PHOTOM",
    )
    path = write(tmp_path / "photom.fits", table, PIXAR_SR=1e-13)
    references = references_to(path)
    rows = references.table("mask", "PHOTOM")
    assert list(rows["FILTER"]) == ["F200W", "F150W"]
    np.testing.assert_array_equal(rows["photmjsr"], [0.5, 0.25])
    assert references.header("mask")["PIXAR_SR"] == 1e-13
    assert references.has("mask", "PHOTOM")
    assert not references.has("mask", "SCI")


def test_a_tree_with_models_is_read_and_lives_on_after_the_file_is_closed(tmp_path):
    model = Polynomial2D(2, c0_0=1.5, c1_0=2.5)
    path = tmp_path / "distortion.asdf"
    asdf.AsdfFile({"model": model, "table": np.arange(1000.0)}).write_to(path)
    tree = references_to(path).asdf("mask")
    assert tree["model"](1.0, 0.0) == model(1.0, 0.0)
    assert np.sum(tree["table"]) == 499500.0
    assert references_to(path).asdf("mask") is tree


def test_what_is_not_applicable_is_none_everywhere(reference):
    references = references_to(reference)
    assert references.path("rscd") is None
    assert references.name("rscd") is None
    assert references.array("rscd") is None
    assert references.dq("rscd") is None
    assert references.table("rscd", "X") is None
    assert references.header("rscd") is None
    assert references.asdf("rscd") is None
    assert not references.has("rscd", "SCI")


def test_a_type_that_was_not_selected_is_an_error(reference):
    with pytest.raises(KeyError, match="'gain' was not selected"):
        references_to(reference).array("gain")


def test_missing_truncated_and_foreign_files_are_errors_that_name_the_file(tmp_path, reference):
    with pytest.raises(ReferenceInvalid, match="must have an extension COEFFS, but has only PRIMARY, SCI, DQ, DQ_DEF"):
        references_to(reference).array("mask", "COEFFS")
    with pytest.raises(ReferenceInvalid, match="must be an image"):
        references_to(reference).array("mask", "DQ_DEF")
    with pytest.raises(ReferenceInvalid, match="must be a table"):
        references_to(reference).table("mask", "SCI")
    text = tmp_path / "text.fits"
    text.write_text("this is no FITS file")
    with pytest.raises(ReferenceInvalid, match=r"text.fits"):
        references_to(text).array("mask")
    with pytest.raises(ReferenceInvalid, match=r"text.fits"):
        references_to(text).asdf("mask")
    with pytest.raises(ReferenceInvalid, match=r"absent.fits"):
        references_to(tmp_path / "absent.fits").array("mask")
    big = write(tmp_path / "big.fits", fits.ImageHDU(np.ones((100, 100), np.float32), name="SCI"))
    os.truncate(big, 2880 * 5)
    with pytest.raises(ReferenceInvalid, match=r"big.fits.*truncated"):
        references_to(big).array("mask")


def test_an_array_is_decoded_once_for_all_threads_and_cannot_be_changed(reference):
    references = references_to(reference)
    found = []
    barrier = threading.Barrier(8)

    def read():
        barrier.wait()
        found.append(references.array("mask", subarray=FULL))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(array is found[0] for array in found)
    with pytest.raises(ValueError, match="read-only"):
        found[0][...] = 0


def test_a_changed_file_is_read_again(reference, data):
    references = references_to(reference)
    assert references.array("mask")[0, 0, 0] == data[0, 0, 0]
    write(reference, fits.ImageHDU(data + 1, name="SCI"), CHANGED=True)
    assert references.array("mask")[0, 0, 0] == data[0, 0, 0] + 1


def test_memory_of_decoded_arrays_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "CACHE_BYTES", 3 * 4000)
    for number in range(8):
        path = write(tmp_path / f"{number}.fits", fits.ImageHDU(np.full(1000, number, np.float32), name="SCI"))
        assert references_to(path).array("mask")[0] == number
        assert sum(array.nbytes for array in content._recent.values()) <= 3 * 4000
    assert len(content._arrays) <= 3


def test_references_travel_to_another_process(reference):
    references = pickle.loads(pickle.dumps(references_to(reference)))
    assert references.name("mask") == "jwst_niriss_mask_0001.fits"
