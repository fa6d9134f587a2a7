"""Slit sets and their files: what goes in comes out, here and in the data models."""

import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from stdatamodels.jwst import datamodels
from wfss_scene import wcs_of

from infra.products.fits import read_fits
from infra.products.header import Header, ProductError
from infra.products.image import Image, write_image
from infra.products.slits import Exposure, Slit, SlitSet, SlitWcs, read_slits, split_header, write_slits

WHOLE = Exposure(wcs_of("GR150R", 512))
EXPOSURE = {
    "TELESCOP": "JWST", "INSTRUME": "NIRISS", "DETECTOR": "NIS", "FILTER": "GR150R", "PUPIL": "F200W",
    "EXP_TYPE": "NIS_WFSS", "EFFEXPTM": 100.0, "XPOSURE": 100.0, "DATE-OBS": "2023-07-14", "TIME-OBS": "12:00:00",
    "SUBARRAY": "FULL", "S_EXTR2D": "COMPLETE", "SCATFILE": "field_cat.ecsv",
}  # fmt: skip


def make_slit(number, ny=30, nx=11, order=1):
    rng = np.random.default_rng(number)
    direct = (40.25 + number, 2e-9 if number == 2 else 200.5)
    planes = [rng.normal(size=(ny, nx)).astype(np.float32) for _ in range(5)]
    cards = {
        "SLTNAME": str(number), "SLTSTRT1": 5 + number, "SLTSTRT2": 9, "SLTSIZE1": nx, "SLTSIZE2": ny,
        "SOURCEID": number, "SRCTYPE": ["EXTENDED", "POINT"][number % 2], "SRCXPOS": direct[0],
        "SRCYPOS": direct[1], "SRCRA": 53.1, "SRCDEC": -27.8,
        "BUNIT": "MJy/sr", "PHOTMJSR": 0.3, "PIXAR_SR": 1e-13, "DISPAXIS": 2, "SPORDER": order,
    }  # fmt: skip
    make_wcs = SlitWcs(WHOLE, 4 + number, 8, (ny, nx), direct, order)
    dq = rng.integers(0, 2**32, (ny, nx), dtype=np.uint32)
    wavelength = np.full((ny, nx), 2.0, np.float32)
    return Slit(
        Header(cards), planes[0], planes[1], dq, wavelength, *planes[2:], extended=number % 2 == 0, make_wcs=make_wcs
    )


def make_set(n):
    return SlitSet(
        Header(EXPOSURE), tuple(make_slit(k + 1, ny=30 + k) for k in range(n)), {"extract_2d": {"status": "COMPLETE"}}
    )


def test_a_set_comes_back_as_it_was_written(tmp_path):
    made = make_set(3)
    write_slits(made, tmp_path / "jw_cal.fits")
    found = read_slits(tmp_path / "jw_cal.fits")
    assert {key: found.header[key] for key in EXPOSURE} == EXPOSURE
    assert found.recipe == made.recipe
    for one, other in zip(found.slits, made.slits, strict=True):
        assert dict(one.header) == dict(other.header)
        assert one.extended is other.extended
        for name in ("data", "err", "dq", "wavelength", "var_poisson", "var_rnoise", "var_flat"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
            assert getattr(one, name).dtype == getattr(other, name).dtype
        np.testing.assert_allclose(one.wcs(3.0, 4.0), other.wcs(3.0, 4.0), rtol=1e-12)


def test_entries_that_are_copies_are_those_that_the_library_makes(tmp_path):
    made = make_set(4)
    # Two exposures: the library makes each entry.
    other = make_slit(5)
    apart = other.with_(make_wcs=replace(other.make_wcs, exposure=Exposure(WHOLE.wcs)))
    write_slits(made, tmp_path / "copied_cal.fits")
    write_slits(made.with_(slits=(*made.slits, apart)), tmp_path / "made_cal.fits")
    copied, library = (read_fits(tmp_path / f"{name}_cal.fits") for name in ("copied", "made"))
    assert b"one_exposure" in copied.extension
    assert b"one_exposure" not in library.extension
    for k in range(4):
        one, another = (contents.tree["slits"][k] for contents in (copied, library))
        assert one["is_extended"] is another["is_extended"] is (k % 2 == 1)
        assert one["meta"]["wcs"](3.0, 4.0) == another["meta"]["wcs"](3.0, 4.0)
        box, same = (entry["meta"]["wcs"].bounding_box.bounding_box(order="F") for entry in (one, another))
        assert box == same
    assert len(read_slits(tmp_path / "made_cal.fits").slits) == 5


def test_what_was_read_can_be_written_again(tmp_path):
    write_slits(make_set(2), tmp_path / "one_cal.fits")
    write_slits(read_slits(tmp_path / "one_cal.fits"), tmp_path / "two_cal.fits")
    found = read_slits(tmp_path / "two_cal.fits")
    assert [slit.source_id for slit in found.slits] == [1, 2]
    np.testing.assert_allclose(found.slits[1].wcs(3.0, 4.0), make_slit(2).wcs(3.0, 4.0), rtol=1e-12)
    # The WCS of a file that was read is made of one that is read once.
    assert found.slits[0].wcs.pipeline[1].transform is found.slits[1].wcs.pipeline[1].transform


def test_the_data_models_open_the_file_without_a_warning(tmp_path):
    write_slits(make_set(3), tmp_path / "jw_cal.fits")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with datamodels.open(tmp_path / "jw_cal.fits") as model:
            assert type(model) is datamodels.MultiSlitModel
            model.validate()
            slit = model.slits[2]
            assert (slit.source_id, slit.name, slit.xstart, slit.source_type) == (3, "3", 8, "POINT")
            assert (slit.meta.wcsinfo.spectral_order, slit.meta.wcsinfo.dispersion_direction) == (1, 2)
            assert (slit.meta.bunit_data, slit.meta.bunit_err) == ("MJy/sr", "MJy/sr")
            assert slit.meta.photometry.pixelarea_steradians == 1e-13
            assert slit.is_extended is False
            assert slit.data.shape == slit.wavelength.shape == slit.var_flat.shape == (32, 11)
            np.testing.assert_allclose(slit.meta.wcs(3.0, 4.0), make_slit(3).wcs(3.0, 4.0), rtol=1e-12)
            assert model.meta.instrument.pupil == "F200W"
            assert model.meta.source_catalog == "field_cat.ecsv"


def test_two_writings_have_the_same_bytes_but_for_the_date(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_slits(make_set(2), tmp_path / name / "jw_cal.fits")
    one, other = (bytearray((tmp_path / name / "jw_cal.fits").read_bytes()) for name in ("a", "b"))
    for content in (one, other):
        at = content.index(b"DATE    =")
        content[at : at + 80] = b" " * 80
    assert one == other


def test_a_hundred_slits_are_written_in_seconds(tmp_path):
    made = make_set(100)
    start = time.process_time()
    write_slits(made, tmp_path / "jw_cal.fits")
    assert time.process_time() - start < 3, "about 0.25 s on the machine where this was written"
    # Shared transforms stand once in the file.
    assert (tmp_path / "jw_cal.fits").stat().st_size < 100 * 65_000


def test_a_set_without_slits_is_a_file_too(tmp_path):
    write_slits(make_set(0), tmp_path / "jw_cal.fits")
    assert read_slits(tmp_path / "jw_cal.fits").slits == ()


def test_keywords_of_a_slit_are_told_from_those_of_its_exposure():
    exposure, slit = split_header(
        Header({**EXPOSURE, "SLTNAME": "7", "SRCTYPE": "POINT", "BUNIT": "DN/s", "DISPAXIS": 2})
    )
    assert dict(exposure) == EXPOSURE
    assert set(slit) == {"SLTNAME", "SRCTYPE", "BUNIT", "DISPAXIS"}


def test_an_image_is_not_a_slit_set(tmp_path):
    plane = np.zeros((4, 4), np.float32)
    write_image(Image(Header(EXPOSURE), plane, plane, plane.astype(np.uint32)), tmp_path / "jw_rate.fits")
    with pytest.raises(ProductError, match=r"jw_rate.fits: expected a file of slits .* but it is a ImageModel"):
        read_slits(tmp_path / "jw_rate.fits")
