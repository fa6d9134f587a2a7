"""Direct images with a plain FITS WCS."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.testing import assert_allclose

from infra.products.direct_image import read_direct_image, read_direct_segmentation
from infra.products.header import ProductError

SCALE = 0.03 / 3600
AREA = (SCALE * np.pi / 180) ** 2

ACS = -2.5 * np.log10(7.03e-20) - 5 * np.log10(8045.0) - 2.408


def header_of(code="TAN", **more):
    turn = np.radians(33.0)
    cards = {
        "CTYPE1": f"RA---{code}", "CTYPE2": f"DEC--{code}", "CRVAL1": 53.16, "CRVAL2": -27.79, "CRPIX1": 20.5, "CRPIX2": 11.0,
        "CD1_1": -SCALE * np.cos(turn), "CD1_2": SCALE * np.sin(turn), "CD2_1": SCALE * np.sin(turn),
        "CD2_2": SCALE * np.cos(turn), "CUNIT1": "deg", "CUNIT2": "deg", **more,
    }  # fmt: skip
    return fits.Header(cards)


def image(shape=(30, 40)):
    return np.random.default_rng(5).normal(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize("place", ["primary", "SCI", "other"])
@pytest.mark.parametrize("code", ["TAN", "ARC", "STG"])
def test_the_gwcs_is_the_wcs_of_the_file(tmp_path, place, code):
    header, data = header_of(code, BUNIT="MJy/sr"), image()
    hdus = [fits.PrimaryHDU(data, header)]
    if place != "primary":
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(data, header, name="SCI" if place == "SCI" else "DRZ")]
    fits.HDUList(hdus).writeto(tmp_path / "a_drz.fits")
    found = read_direct_image(tmp_path / "a_drz.fits")
    x, y = np.array([0.0, 39.0, 12.3]), np.array([0.0, 29.0, 3.4])
    ra, dec = found.wcs(x, y, with_bounding_box=False)
    truth = WCS(header).pixel_to_world(x, y)
    assert_allclose(ra, truth.ra.deg, atol=1e-10)
    assert_allclose(dec, truth.dec.deg, atol=1e-10)
    back = found.wcs.invert(ra, dec, with_bounding_box=False)
    assert_allclose(back, (x, y), atol=1e-6)
    assert_allclose(found.data, data)
    assert found.header["PIXAR_SR"] == pytest.approx(AREA)


@pytest.mark.parametrize(
    ("cards", "factor"),
    [
        ({"BUNIT": "MJy/sr"}, 1.0),
        ({"BUNIT": "nJy"}, 1e-15 / AREA),
        ({"BUNIT": "10.0*nanoJansky"}, 1e-14 / AREA),
        ({"BUNIT": "uJy/pixel"}, 1e-12 / AREA),
        ({"BUNIT": "ELECTRONS/S", "PHOTFNU": 2e-7}, 2e-13 / AREA),
        # ACS F814W: the zero point by the formula of its handbook.
        ({"BUNIT": "ELECTRONS/S", "PHOTFLAM": 7.03e-20, "PHOTPLAM": 8045.0}, 3631e-6 * 10 ** (-0.4 * ACS) / AREA),
        ({"MAGZERO": 25.94}, 3631e-6 * 10 ** (-0.4 * 25.94) / AREA),
    ],
)
def test_pixels_become_surface_brightness(tmp_path, cards, factor):
    data = image()
    fits.PrimaryHDU(data, header_of(**cards)).writeto(tmp_path / "a.fits")
    found = read_direct_image(tmp_path / "a.fits")
    assert found.header["BUNIT"] == "MJy/sr"
    assert_allclose(found.data, data * factor, rtol=5e-3, atol=0)


def test_without_a_unit_there_is_no_brightness(tmp_path, caplog):
    fits.PrimaryHDU(image(), header_of()).writeto(tmp_path / "a.fits")
    assert "BUNIT" not in read_direct_image(tmp_path / "a.fits").header
    assert "a.fits: its unit is not known" in caplog.text


def test_pixels_without_data_are_told_by_weight_or_by_the_zeros_at_the_edge(tmp_path):
    data = image()
    data[:3], data[:, :2], data[15, 20] = 0, np.nan, 0
    fits.PrimaryHDU(data, header_of()).writeto(tmp_path / "a.fits")
    seen = np.isfinite(read_direct_image(tmp_path / "a.fits").data)
    assert not seen[:3].any()
    assert not seen[:, :2].any()
    assert seen[3:, 2:].all(), "a zero among others is a value"
    weight = np.ones((30, 40))
    weight[7] = 0
    fits.HDUList(
        [fits.PrimaryHDU(), fits.ImageHDU(image(), header_of(), name="SCI"), fits.ImageHDU(weight, name="WHT")]
    ).writeto(tmp_path / "b.fits")
    seen = np.isfinite(read_direct_image(tmp_path / "b.fits").data)
    assert not seen[7].any()
    assert np.delete(seen, 7, axis=0).all()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (fits.Header(), "expected a WCS of right ascension and declination.*none"),
        (header_of(CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN"), "right ascension.*GLON-TAN and GLAT-TAN"),
        (
            header_of(CTYPE1="RA---TAN-SIP", CTYPE2="DEC--TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=1e-5),
            "distortion; drizzle",
        ),
        (header_of("ZPN", PV2_1=1.0), "projection ZPN"),
        (header_of(RADESYS="FK4"), "frame FK4"),
    ],
)
def test_a_wcs_that_will_not_do_is_named(tmp_path, header, words):
    fits.PrimaryHDU(image(), header).writeto(tmp_path / "a.fits")
    with pytest.raises(ProductError, match=rf"a\.fits: .*{words}"):
        read_direct_image(tmp_path / "a.fits")


def test_a_table_is_no_direct_image(tmp_path):
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1])])]).writeto(
        tmp_path / "a.fits"
    )
    with pytest.raises(ProductError, match=r"a\.fits: expected a direct image"):
        read_direct_image(tmp_path / "a.fits")


@pytest.mark.parametrize("kind", [np.int16, np.int64, np.float32])
def test_a_plain_segmentation_map_keeps_its_numbers(tmp_path, kind):
    data = np.array([[0, 7], [7, 1200]], kind)
    fits.PrimaryHDU(data).writeto(tmp_path / "s.fits")
    found = read_direct_segmentation(tmp_path / "s.fits")
    assert found.data.dtype == np.uint32
    np.testing.assert_array_equal(found.data, data)


@pytest.mark.parametrize("value", [-1.0, 0.5, np.nan])
def test_an_image_is_no_segmentation_map(tmp_path, value):
    fits.PrimaryHDU(np.array([[0, value], [0, 1]], np.float32)).writeto(tmp_path / "s.fits")
    with pytest.raises(ProductError, match=r"s\.fits: expected a map of source numbers"):
        read_direct_segmentation(tmp_path / "s.fits")
