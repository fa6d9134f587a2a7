"""What a product tells of itself, and that it can be made again bit for bit."""

import os

import pytest
from astropy.io import fits
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console
from small_program import IMAGE3, RATES, SmallProgram

from flows.story import reproduce, tell_story
from infra.products.header import ProductError


@pytest.fixture(scope="module")
def made(calibrated, tmp_path_factory) -> SmallProgram:
    """All products made from the copy of the exposures, by options of its own, each with its own date."""
    copy = calibrated.copy(tmp_path_factory.mktemp("story") / "made")
    with pytest.MonkeyPatch.context() as patch, temporary_settings(restore_defaults={PREFECT_API_URL}):
        copy.set_environment(patch)
        patch.delenv("SOURCE_DATE_EPOCH")
        copy.run({"saturation": {"n_pix_grow_sat": 0}, "source_catalog": {"snr_threshold": 4.0}})
    return copy


@pytest.fixture
def program(made, monkeypatch, without_server) -> SmallProgram:
    made.set_environment(monkeypatch)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    files = [*made.products.glob("*nis_rate.fits"), *made.folder.glob("uncal/*"), *made.products.glob(".calweave/*")]
    content = {path: path.read_bytes() for path in files}
    yield made
    for path, before in content.items():
        path.write_bytes(before)


@pytest.fixture
def console() -> Console:
    return Console(width=200, record=True)


def test_products_of_each_stage_are_made_again_bit_for_bit(program, console):
    for pattern in ("*02103_00001_nis_rate.fits", "*02103_00001_nis_cal.fits", "*clear-f200w*_i2d.fits", "*_cat.ecsv",
                    "*02101_00001_nis_x1d.fits", "*gr150r_c1d.fits"):  # fmt: skip
        (path,) = program.products.glob(pattern)
        before = path.stat().st_mtime_ns
        assert reproduce(str(path), console), console.export_text()
        assert path.stat().st_mtime_ns == before
    assert "SOURCE_DATE_EPOCH" not in os.environ
    assert "the same, bit for bit" in console.export_text()


def test_a_product_with_another_pixel_is_not_the_same(program, console):
    path = program.products / f"{RATES['first']}.fits"
    with fits.open(path, mode="update") as hdulist:
        hdulist["SCI"].data[100, 100] += 1
    assert not reproduce(str(path), console)
    assert "Data differs at [101, 101]" in console.export_text()


def test_an_input_that_is_another_is_named(program, console):
    raw = program.uncal(RATES["first"])
    raw.write_bytes(raw.read_bytes()[:-2880] + bytes(2880))
    with pytest.raises(ProductError, match=r"_uncal\.fits is no longer what it was"):
        reproduce(str(program.products / f"{RATES['first']}.fits"), console)


def test_the_story_names_inputs_steps_options_references_and_whether_it_is_current(program, console):
    (mosaic,) = program.products.glob("*clear-f200w*_i2d.fits")
    tell_story(str(mosaic), console)
    text = console.export_text()
    assert f"for {IMAGE3}" in text
    assert "02103_00001_nis_cal.fits  of jw09801-o001_image2_00001" in text
    assert "tweakreg: skipped" in text
    assert "resample: complete" in text
    assert "pixfrac=1.0" in text
    assert "it is current" in text
    raw = program.uncal(RATES["first"])
    raw.write_bytes(raw.read_bytes()[:-2880] + bytes(2880))
    tell_story(str(mosaic), console)
    assert "it is not current: upstream remade" in console.export_text()


def test_the_story_of_a_catalog_and_of_a_product_without_a_record(program, console):
    (catalog,) = program.products.glob("*_cat.ecsv")
    tell_story(str(catalog), console)
    assert "snr_threshold=4.0" in console.export_text()
    (program.products / ".calweave" / f"{IMAGE3}.json").unlink()
    tell_story(str(catalog), console)
    assert "there is no record of it" in console.export_text()
    with pytest.raises(ProductError, match="no record"):
        reproduce(str(catalog), console)
