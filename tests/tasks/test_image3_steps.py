"""The steps of image3 on a small scene, from tweakreg to source_catalog, and on what goes wrong."""

import warnings

import numpy as np
import pytest
from asdf import AsdfFile
from astropy.coordinates import SkyCoord
from astropy.io import fits
from imaging_scene import PHOTMJSR, PIXAR_SR, make_scene, write_references
from scipy.ndimage import binary_dilation

from calibration import dq as bits
from calibration.wcs.mosaic import fits_keywords
from infra.products.header import ProductError
from infra.products.image import Waiting, in_memory, read_image, write_image
from infra.references.content import References
from tasks.outlier_detection import OutlierDetectionOptions, outlier_detection
from tasks.products import load_later
from tasks.resample import ResampleOptions, resample
from tasks.skymatch import SkymatchOptions, skymatch
from tasks.source_catalog import SourceCatalogOptions, source_catalog
from tasks.tweakreg import TweakregOptions, tweakreg

OUTLIER = bits.PIXEL["OUTLIER"]
# The stars of the scene are some 1.5 arcsec apart.
ALIGN = TweakregOptions(minobj=10, tolerance=0.2, separation=0.4)

DETECT = OutlierDetectionOptions()


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    return write_references(tmp_path_factory.mktemp("references"))


@pytest.fixture(scope="module")
def scene():
    return make_scene(errors=((0, 0), (0, 0), (0.025, -0.015)))


@pytest.fixture(scope="module")
def crf(scene, references):
    images = tweakreg.fn(scene.images, references, ALIGN)
    images = skymatch.fn(images, references, SkymatchOptions())
    return outlier_detection.fn(images, references, OutlierDetectionOptions())


@pytest.fixture(scope="module")
def mosaic(crf, references):
    return resample.fn(crf, references, ResampleOptions())


def blank(image):
    """The image with every pixel unusable."""
    nothing = np.full_like(image.data, np.nan)
    names = "data err var_poisson var_rnoise var_flat".split()
    return image.with_(dq=np.ones_like(image.dq), **dict.fromkeys(names, nothing))


def test_a_wrong_pointing_is_found_and_put_right(scene, crf):
    status = [image.recipe["alignment"]["status"] for image in crf]
    assert status.count("reference") == 1
    assert status.count("aligned") == 3
    moved = [image.recipe["alignment"]["shift_mas"] for image in crf]
    # 30 stars with centroids of 12 mas: 2 mas in the middle, and a rotation that moves the corners by 4.
    assert moved[2] == pytest.approx(29.2, abs=8)
    assert max(moved[1], moved[3]) < 12
    assert "S_TWKREG" in crf[0].header


def test_sky_levels_are_the_injected_ones(crf):
    levels = [image.header["BKGLEVEL"] / PHOTMJSR for image in crf]
    # 1.0, 1.02, 1.05, 1.01 DN/s with a noise of 0.034 per pixel; the mode is good to a tenth of that.
    np.testing.assert_allclose(np.array(levels) - levels[0], [0, 0.02, 0.05, 0.01], atol=0.008)
    assert crf[0].header["BKGSUB"] is False


def test_cosmic_rays_are_flagged_and_little_else(scene, crf):
    hit = np.concatenate([h[8:-8, 8:-8].ravel() for h in scene.hits])
    flagged = np.concatenate([((image.dq & OUTLIER) != 0)[8:-8, 8:-8].ravel() for image in crf])
    # A ray on a bright star is hidden by the slope of its light.
    assert (flagged & hit).sum() / hit.sum() > 0.9
    assert (flagged & ~hit).mean() < 2e-3
    for image in crf:
        outlying = (image.dq & OUTLIER) != 0
        assert np.isnan(image.data[outlying]).all()
        assert (image.dq[outlying] & bits.PIXEL["DO_NOT_USE"]).all()


def test_the_input_stays_as_it_was(scene, references):
    before = [image.data.copy() for image in scene.images]
    outlier_detection.fn(scene.images, references, OutlierDetectionOptions())
    for image, data in zip(scene.images, before, strict=True):
        np.testing.assert_array_equal(image.data, data)


def test_the_mosaic_tells_what_it_is_made_of(mosaic):
    header = mosaic.header
    assert header["NDRIZ"] == 4
    assert header["EFFEXPTM"] == 4 * 800
    assert header["EXPSTART"] == 60001.0
    assert header["EXPEND"] == 60004.9
    assert mosaic.hdrtab["EXPSTART"].tolist() == [60001.0, 60002.0, 60003.0, 60004.0]
    assert set(mosaic.hdrtab["INSTRUME"].tolist()) == {b"NIRISS"}
    assert "RA_REF" not in header
    assert header["CTYPE1"] == "RA---TAN"
    assert mosaic.con.shape == (1, *mosaic.data.shape)
    assert header["S_RESAMP"] == "COMPLETE"


def test_sources_of_the_mosaic_are_those_of_the_field(scene, mosaic, references):
    catalog, segmentation = source_catalog.fn(mosaic, references, SourceCatalogOptions())
    table = catalog.table
    truth = SkyCoord(scene.field.ra, scene.field.dec, unit="deg")
    index, distance, _ = truth.match_to_catalog_sky(table["sky_centroid"])
    found = distance.mas < 33
    assert found.mean() > 0.95
    star = found & (scene.field.sigma < 1.5)
    assert np.sqrt(np.mean(distance[star].mas ** 2)) < 4
    jansky = scene.field.flux * PHOTMJSR * 1e6 * PIXAR_SR
    ratio = table["isophotal_flux"].value[index] / jansky
    assert np.median(ratio[star]) == pytest.approx(1, abs=0.03)
    assert (np.abs(table["isophotal_abmag"][index][star] - (8.9 - 2.5 * np.log10(jansky[star]))) < 0.15).mean() > 0.9
    np.testing.assert_array_equal(np.unique(segmentation.data[segmentation.data > 0]), np.sort(table["label"]))
    assert segmentation.data.dtype == np.uint32
    assert segmentation.wcs is mosaic.wcs


def test_one_image_goes_through_image3(scene, references):
    one = scene.images[:1]
    for step, options in (
        (tweakreg, TweakregOptions()),
        (skymatch, SkymatchOptions()),
        (outlier_detection, OutlierDetectionOptions()),
    ):
        one = step.fn(one, references, options)
    assert [one[0].header[key] for key in ("S_TWKREG", "S_SKYMAT", "S_OUTLIR")] == ["SKIPPED"] * 3
    mosaic = resample.fn(one, references, ResampleOptions())
    assert mosaic.header["NDRIZ"] == 1
    assert len(source_catalog.fn(mosaic, references, SourceCatalogOptions())[0].table) > 30


def test_an_exposure_without_a_usable_pixel_does_not_spoil_the_mosaic(scene, mosaic, references):
    images = (*scene.images[:3], blank(scene.images[3]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        images = tweakreg.fn(images, references, ALIGN)
        images = skymatch.fn(images, references, SkymatchOptions())
        images = outlier_detection.fn(images, references, OutlierDetectionOptions())
        made = resample.fn(images, references, ResampleOptions())
    assert "stars" in images[3].recipe["alignment"]["status"]
    assert "BKGLEVEL" not in images[3].header
    inside = np.s_[30:-30, 30:-30]
    assert np.isfinite(made.data[inside]).mean() > 0.98
    assert not (made.con[0] & 8).any()


def test_a_mosaic_without_any_data_has_a_valid_empty_catalog(scene, references):
    made = resample.fn(tuple(blank(image) for image in scene.images[:2]), references, ResampleOptions())
    assert np.isnan(made.data).all()
    catalog, segmentation = source_catalog.fn(made, references, SourceCatalogOptions())
    assert len(catalog.table) == 0
    assert "sky_bbox_ur" in catalog.table.colnames
    assert not segmentation.data.any()


def test_a_field_without_sources_has_a_valid_empty_catalog(references):
    empty = make_scene(count=1, rays=0, dithers=((0.0, 0.0),))
    image = empty.images[0]
    noise = np.random.default_rng(1).normal(0.3, 0.01, image.data.shape).astype(np.float32)
    made = resample.fn((image.with_(data=noise),), references, ResampleOptions())
    catalog, segmentation = source_catalog.fn(made, references, SourceCatalogOptions())
    assert len(catalog.table) == 0
    assert not segmentation.data.any()


def test_exposures_that_do_not_overlap_make_one_mosaic(references):
    far = make_scene(dithers=((0.0, 0.0), (25.0, 0.0)))
    images = skymatch.fn(far.images, references, SkymatchOptions())
    images = outlier_detection.fn(images, references, OutlierDetectionOptions())
    made = resample.fn(images, references, ResampleOptions())
    assert (made.con[0] == 1).any()
    assert (made.con[0] == 2).any()
    assert not (made.con[0] == 3).any()


def test_grid_options_are_followed(scene, references):
    options = ResampleOptions(pixel_scale=0.1, rotation=0.0, output_shape=(90, 80), crval=(150.1, 2.3), crpix=(40, 30))
    made = resample.fn(scene.images, references, options)
    assert made.data.shape == (80, 90)
    assert made.header["CDELT1"] == pytest.approx(0.1 / 3600)
    assert (made.header["CRPIX1"], made.header["CRVAL1"]) == (41, 150.1)
    assert made.header["PIXAR_A2"] == pytest.approx(0.01)
    assert made.header["PC1_2"] == pytest.approx(0, abs=1e-12)


def test_an_image_without_a_wcs_is_named(scene, references):
    with pytest.raises(ValueError, match=r"00001_nis_cal\.fits has no WCS; run assign_wcs first"):
        resample.fn((scene.images[0].with_(wcs=None),), references, ResampleOptions())


def test_matching_the_sky_twice_is_an_error(crf, references):
    with pytest.raises(ValueError, match="has been through skymatch before"):
        skymatch.fn(crf, references, SkymatchOptions())


def test_subtracted_skies_are_not_subtracted_again(scene, references):
    noted = skymatch.fn(scene.images, references, SkymatchOptions())
    taken = skymatch.fn(scene.images, references, SkymatchOptions(subtract=True))
    first, second = (resample.fn(images, references, ResampleOptions()) for images in (noted, taken))
    np.testing.assert_allclose(first.data, second.data, rtol=1e-4, atol=1e-6)


def test_thresholds_that_are_no_two_numbers_are_an_error(scene, references):
    with pytest.raises(ValueError, match=r"outlier_detection\.snr must be two numbers"):
        outlier_detection.fn(scene.images, references, OutlierDetectionOptions(snr="5.0"))


def test_a_catalog_needs_surface_brightness(mosaic, references):
    rate = mosaic.with_(header=mosaic.header.set(BUNIT="DN/s"))
    with pytest.raises(ValueError, match="run photom first"):
        source_catalog.fn(rate, references, SourceCatalogOptions())


def test_an_aperture_that_the_reference_lacks_is_named(mosaic, references):
    with pytest.raises(LookupError, match=r"choose aperture_ee1\.\.3 among"):
        source_catalog.fn(mosaic, references, SourceCatalogOptions(aperture_ee1=33))


def test_images_align_to_a_table_of_positions(scene, references, tmp_path):
    from astropy.table import Table

    path = tmp_path / "stars.ecsv"
    Table({"ra": scene.field.ra, "dec": scene.field.dec}).write(path, format="ascii.ecsv")
    options = ALIGN.model_copy(
        update={"abs_refcat": str(path), "abs_minobj": 10, "abs_tolerance": 0.2, "abs_separation": 0.4}
    )
    images = tweakreg.fn(scene.images, references, options)
    assert {image.recipe["alignment"]["status"] for image in images} == {"aligned"}
    with pytest.raises(FileNotFoundError, match="is no file"):
        tweakreg.fn(scene.images, references, options.model_copy(update={"abs_refcat": str(tmp_path / "no.ecsv")}))


def test_a_star_is_found_in_a_real_nebula_when_the_background_may_follow_it(shared):
    mosaic = read_image(shared / "real/products/jw01288015001_04101_00001_mirimage_i2d.fits")
    nothing = References({"apcorr": None, "abvegaoffset": None}, "none")
    whole, _ = source_catalog.fn(mosaic, nothing, SourceCatalogOptions())
    assert len(whole.table) == 0, "the light of the nebula varies more than any source is bright"
    table = source_catalog.fn(mosaic, nothing, SourceCatalogOptions(bkg_boxsize=15, npixels=10))[0].table
    distance = np.hypot(table["xcentroid"] - 47.7, table["ycentroid"] - 23.8)
    assert distance.min() < 1
    assert np.isfinite(table["sky_centroid"].ra.deg).all()


def test_images_that_wait_on_disk_give_the_same_products(scene, references, tmp_path):
    names = ("data", "err", "dq", "var_poisson", "var_rnoise", "var_flat", "con", "wht")
    for image in scene.images:
        write_image(image, tmp_path / image.header["FILENAME"])
    paths = sorted(map(str, tmp_path.iterdir()))
    made = {}
    for load_each in (read_image, load_later):
        images = tweakreg.fn(tuple(map(load_each, paths)), references, ALIGN)
        images = skymatch.fn(images, references, SkymatchOptions(subtract=True))
        images = outlier_detection.fn(images, references, OutlierDetectionOptions())
        assert all(isinstance(image.data, Waiting) == (load_each is load_later) for image in images)
        made[load_each] = [*map(in_memory, images), resample.fn(images, references, ResampleOptions())]
    for waited, expected in zip(made[load_later], made[read_image], strict=True):
        assert waited.header == expected.header
        for name in names:
            np.testing.assert_array_equal(getattr(waited, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("form", ["mosaic", "plain", "asdf"])
def test_a_mosaic_on_a_given_grid(crf, references, mosaic, tmp_path, form):
    path = tmp_path / f"grid.{'asdf' if form == 'asdf' else 'fits'}"
    if form == "mosaic":
        write_image(mosaic, path)
    elif form == "plain":
        fits.PrimaryHDU(mosaic.data, fits.Header(fits_keywords(mosaic.wcs))).writeto(path)
    else:
        AsdfFile({"wcs": mosaic.wcs, "pixel_shape": list(mosaic.data.shape[::-1])}).write_to(path)
    # One exposure alone covers less, but its mosaic is on the whole grid.
    one = resample.fn(crf[1:2], references, ResampleOptions(output_wcs=str(path), rotation=77.0))
    assert one.data.shape == mosaic.data.shape
    for key in ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "PIXAR_SR"):
        assert one.header[key] == pytest.approx(mosaic.header[key], rel=1e-9), key
    matrix, expected = (each.header["PC1_1"] * each.header["CDELT1"] for each in (one, mosaic))
    assert matrix == pytest.approx(expected, rel=1e-9)
    both = np.isfinite(one.data) & np.isfinite(mosaic.data)
    assert both.mean() > 0.6
    assert np.median(one.data[both] - mosaic.data[both]) == pytest.approx(0, abs=0.01)
    (tmp_path / "none.asdf").write_text("#ASDF 1.0.0\n")
    with pytest.raises(ProductError, match="expected"):
        resample.fn(crf[:1], references, ResampleOptions(output_wcs=str(tmp_path / "none.asdf")))


def test_the_places_of_pixels_can_be_exact(crf, references, mosaic):
    exact = resample.fn(crf, references, ResampleOptions(pixmap_max_error=0))
    known = np.isfinite(exact.data) & np.isfinite(mosaic.data)
    # 1e-3 pixel is allowed, and in a field without much distortion far from used.
    assert (np.abs(exact.data - mosaic.data)[known] < 1e-3 * exact.err[known]).all()


def test_cosmic_rays_of_five_sigma_are_removed_and_good_pixels_are_not(references):
    size, rng = 512, np.random.default_rng(3)
    scene = make_scene(size=size, count=16, rays=0, seed=11)
    images, strength = [], []
    for image in scene.images:
        height = np.zeros(image.data.shape, np.float32)
        height[tuple(rng.integers(12, size - 12, (2, 500)))] = rng.uniform(5, 200, 500)
        strength.append(np.where(np.isfinite(image.data), height, 0))
        images.append(image.with_(data=image.data + height * np.nan_to_num(image.err)))
    images = skymatch.fn(tuple(images), references, SkymatchOptions())
    flagged = np.array([image.dq & OUTLIER != 0 for image in outlier_detection.fn(images, references, DETECT)])
    strength = np.array(strength)
    assert flagged[strength >= 5].mean() >= 0.95
    # What is missed stands on the stars, where the median is steep: they have a hundredth of this field.
    assert flagged[strength >= 10].mean() >= 0.99
    at_y, at_x = np.indices(flagged.shape[1:])
    alone = np.ones(flagged.shape, bool)
    for k, image in enumerate(images):
        for x, y in np.transpose(image.wcs.invert(scene.field.ra, scene.field.dec, with_bounding_box=False)):
            alone[k] &= np.hypot(at_x - x, at_y - y) > 10
    assert flagged[alone & (strength >= 10)].mean() >= 0.995
    beside = np.array([binary_dilation(each > 0, np.ones((3, 3))) for each in strength])
    inside = np.zeros(flagged.shape, bool)
    inside[:, 12:-12, 12:-12] = True
    assert flagged[inside & ~beside].mean() < 1e-5
