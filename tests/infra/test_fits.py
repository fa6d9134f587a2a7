import gzip
import hashlib
import io
import os
import subprocess
import sys
import warnings

import asdf
import numpy as np
import pytest
from astropy.io import fits
from stdatamodels.jwst import datamodels

from infra.products.fits import Hdu, read_fits, read_header, write_fits
from infra.products.header import Header, ProductError
from infra.products.image import Image, Segmentation, read_image, read_segmentation, write_image, write_segmentation
from infra.products.ramp import open_ramp, read_ramp, write_ramp, write_uncal
from infra.products.stored import Stored, store

HEADER = Header(
    {"TELESCOP": "JWST", "INSTRUME": "NIRISS", "DETECTOR": "NIS", "EXP_TYPE": "NIS_IMAGE", "BUNIT": "DN/s", "NINTS": 1}
)


def image(**changes) -> Image:
    data = np.arange(12, dtype=np.float32).reshape(3, 4)
    return Image(HEADER, data, data + 1, np.zeros((3, 4), np.uint32)).with_(**changes)


def test_an_image_comes_back_as_it_was_written(tmp_path):
    written = image(var_poisson=np.ones((3, 4), np.float32), recipe={"jump": {"status": "COMPLETE"}})
    write_image(written, tmp_path / "a_rate.fits")
    read = read_image(tmp_path / "a_rate.fits")
    np.testing.assert_array_equal(read.data, written.data)
    np.testing.assert_array_equal(read.var_poisson, written.var_poisson)
    assert read.var_flat is None
    assert read.recipe == written.recipe
    assert read.header["FILENAME"] == "a_rate.fits"
    assert read.data.dtype.isnative


def test_the_data_models_open_what_we_write_without_a_warning(tmp_path):
    write_image(image(), tmp_path / "a_rate.fits")
    cube = np.zeros((2, 3, 4), np.float32)
    write_image(image(data=cube, err=cube, dq=cube.astype(np.uint32)), tmp_path / "a_rateints.fits")
    write_segmentation(Segmentation(HEADER, np.ones((3, 4), np.uint32), None), tmp_path / "a_segm.fits")
    ramp = np.zeros((1, 2, 3, 4), np.uint16)
    write_uncal(tmp_path / "a_uncal.fits", HEADER, ramp)
    write_ramp(read_ramp(tmp_path / "a_uncal.fits"), tmp_path / "a_ramp.fits")
    kinds = {"rate": "ImageModel", "rateints": "CubeModel", "segm": "SegmentationMapModel"}
    kinds |= {"uncal": "Level1bModel", "ramp": "RampModel"}
    for suffix, kind in kinds.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with datamodels.open(tmp_path / f"a_{suffix}.fits") as model:
                assert type(model).__name__ == kind
                model.validate()
                assert model.meta.exposure.type == "NIS_IMAGE"


def test_two_writes_differ_in_nothing_but_the_date(tmp_path):
    digests = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "x_rate.fits"
        write_image(image(), path)
        with fits.open(path, mode="update") as hdulist:
            del hdulist[0].header["DATE"]
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_the_extensions_in_a_file_come_in_one_order(tmp_path):
    code = (
        "import sys, numpy as np; from astropy.modeling import models; from astropy.time import Time; "
        "from infra.products.fits import write_fits; from infra.products.header import Header; "
        "write_fits(sys.argv[1], 'ImageModel', Header({}), [], "
        "{'a': models.Shift(1), 'b': Time('2022-01-01'), 'c': np.arange(20)})"
    )
    trees = set()
    for seed in ("1", "2", "3", "4"):
        path = tmp_path / f"{seed}.fits"
        subprocess.run([sys.executable, "-c", code, path], check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        trees.add(fits.getdata(path, "ASDF").tobytes())
    assert len(trees) == 1
    np.testing.assert_array_equal(read_fits(path).tree["c"], np.arange(20))


def test_a_long_comment_is_cut_and_not_warned_about(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_fits(tmp_path / "a.fits", "ImageModel", HEADER.set(PROP_DEC=28.384038888888889, RESWHT="ivm"), [])
    assert read_header(tmp_path / "a.fits")["PROP_DEC"] == 28.384038888888889


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.uint16, np.uint32, np.int16])
def test_the_header_of_an_image_is_the_one_that_the_library_writes(tmp_path, shape, dtype):
    cards = [
        ("SLTNAME", "7", "name of the slit"), ("SRCXPOS", 1e-7, "c" * 47), ("LONG", "x" * 150),
        ("", "a remark"), ("ONE", 1, ""), ("TRUE", True, ""), ("FLOAT", 1.0), ("NOTHING", None, "not known"),
    ]  # fmt: skip
    write_fits(tmp_path / "a.fits", "ImageModel", HEADER, [Hdu("WEIGHT", np.zeros(shape, dtype), 700, cards)])
    made = fits.ImageHDU(np.zeros(shape, dtype), name="WEIGHT", ver=700)
    for keyword, value, *comment in cards:
        made.header.append((keyword, value, *comment), end=True)
    assert made.header.tostring().encode() in (tmp_path / "a.fits").read_bytes()


def test_unsigned_table_columns_survive(tmp_path):
    rows = np.array([(1.5, 4_000_000_000)], [("flux", "f8"), ("dq", "u4")])
    write_fits(tmp_path / "a.fits", "SpecModel", HEADER, [Hdu("EXTRACT1D", rows, units={"flux": "Jy"})])
    contents = read_fits(tmp_path / "a.fits")
    assert contents.get("EXTRACT1D")["dq"][0] == 4_000_000_000
    assert contents.cards["EXTRACT1D", 1]["TUNIT1"] == "Jy"


def test_a_file_compressed_under_its_plain_name_is_read(tmp_path):
    write_image(image(), tmp_path / "a_i2d.fits")
    (tmp_path / "b_i2d.fits").write_bytes(gzip.compress((tmp_path / "a_i2d.fits").read_bytes()))
    np.testing.assert_array_equal(read_image(tmp_path / "b_i2d.fits").data, image().data)


@pytest.mark.parametrize("part", [0.3, 0.7, 0.999])
def test_a_file_cut_short_is_refused_by_name(tmp_path, part):
    write_image(image(data=np.zeros((200, 200), np.float32)), tmp_path / "a_rate.fits")
    whole = (tmp_path / "a_rate.fits").read_bytes()
    (tmp_path / "b_rate.fits").write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ProductError, match=r"b_rate\.fits"):
        read_image(tmp_path / "b_rate.fits")


@pytest.mark.parametrize("content", [b"", b"not FITS at all\n" * 400])
def test_what_is_not_fits_is_refused_by_name(tmp_path, content):
    (tmp_path / "a_rate.fits").write_bytes(content)
    with pytest.raises(ProductError, match=r"a_rate\.fits: expected a FITS file"):
        read_image(tmp_path / "a_rate.fits")


def test_a_file_of_another_kind_names_what_it_has(tmp_path):
    write_fits(tmp_path / "a.fits", "ImageModel", HEADER, [Hdu("DQ", np.zeros((2, 2), np.uint32))])
    with pytest.raises(ProductError, match=r"an extension SCI with data, but the file has.*DQ"):
        read_image(tmp_path / "a.fits")


def test_an_image_is_no_ramp(tmp_path):
    write_image(image(), tmp_path / "a_rate.fits")
    with pytest.raises(ProductError, match="expected ramps"):
        read_ramp(tmp_path / "a_rate.fits")


def test_a_segmentation_map_comes_back(tmp_path):
    data = np.array([[0, 70_000]], np.uint32)
    write_segmentation(Segmentation(HEADER, data, None), tmp_path / "a_segm.fits")
    np.testing.assert_array_equal(read_segmentation(tmp_path / "a_segm.fits").data, data)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4", "f4", "f8"])
def test_arrays_move_piece_by_piece_in_any_type(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("infra.products.fits._PIECE", 64)
    array = np.random.default_rng(3).integers(0, 255, (5, 7, 9)).astype(dtype)
    array[0, 0, :2] = np.iinfo(dtype).min if array.dtype.kind != "f" else -1.5, 1
    write_fits(tmp_path / "a.fits", "ImageModel", HEADER, [Hdu("SCI", array), Hdu("DISK", stored(array))])
    by_astropy = fits.getdata(tmp_path / "a.fits", "SCI")
    np.testing.assert_array_equal(by_astropy, array)
    contents = read_fits(tmp_path / "a.fits")
    for name in ("SCI", "DISK"):
        assert contents.get(name).dtype == array.dtype
        np.testing.assert_array_equal(contents.get(name), array)


def stored(array: np.ndarray) -> Stored:
    on_disk = store(array.shape, array.dtype, 2)
    on_disk[:] = array
    return on_disk


def test_plain_values_are_written_as_the_library_would_read_them(tmp_path):
    tree = {"calweave": {"recipe": {"a": {"x": 1e-5, "n": None, "off": "off", "1": [1, True, 2.5e30, "1e-5", "é"]}}}}
    write_fits(tmp_path / "a.fits", "ImageModel", HEADER, [], tree)
    content = fits.getdata(tmp_path / "a.fits", "ASDF").tobytes()
    with asdf.open(io.BytesIO(content)) as file:
        assert {"calweave": file.tree["calweave"]} == tree
    assert read_fits(tmp_path / "a.fits").tree == tree


def test_parts_of_an_exposure_are_those_of_the_whole(tmp_path):
    raw = np.random.default_rng(5).integers(0, 2**16, (5, 2, 3, 4), np.uint16)
    write_uncal(tmp_path / "a_uncal.fits", HEADER, raw, zeroframe=raw[:, 0])
    with open_ramp(tmp_path / "a_uncal.fits") as file:
        assert file.shape == raw.shape
        parts = [file.read(first, first + 2) for first in (0, 2, 4)]
        whole = file.read()
    np.testing.assert_array_equal(whole.data, raw)
    np.testing.assert_array_equal(np.concatenate([part.data for part in parts]), raw)
    np.testing.assert_array_equal(np.concatenate([part.zeroframe for part in parts]), raw[:, 0])
    assert whole.data.dtype == parts[0].data.dtype == np.float32


def test_an_error_while_an_exposure_is_open_is_not_blamed_on_the_file(tmp_path):
    write_uncal(tmp_path / "a_uncal.fits", HEADER, np.zeros((1, 2, 3, 4), np.uint16))
    with pytest.raises(ValueError, match="of a step"), open_ramp(tmp_path / "a_uncal.fits"):
        raise ValueError("of a step")
