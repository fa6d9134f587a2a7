"""Which steps the flows of imaging run on which exposures, and what they write."""

import json

import numpy as np
import pytest
from imaging_scene import make_scene, write_references
from tiny_cache import references_folder, write_cache

from flows.image2 import image2
from flows.image3 import image3
from infra.products.catalog import read_catalog
from infra.products.header import ProductError
from infra.products.image import read_image, read_segmentation, write_image

OFF = {name: {"skip": True} for name in ("skymatch", "outlier_detection", "resample", "source_catalog")}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crds")
    kinds = {
        "flat": "fits",
        "area": "fits",
        "photom": "fits",
        "distortion": "asdf",
        "apcorr": "fits",
        "abvegaoffset": "asdf",
    }
    rules = {kind: {("NIS", "FULL"): f"{kind}.{extension}"} for kind, extension in kinds.items()}
    write_cache(folder, rules | dict.fromkeys(("filteroffset", "specwcs", "wavelengthrange"), "N/A"))
    write_references(references_folder(folder))
    return folder


@pytest.fixture(autouse=True)
def client(cache, monkeypatch):
    monkeypatch.setenv("CRDS_PATH", str(cache))
    monkeypatch.setenv("CRDS_SERVER_URL", "https://jwst-serverless-mode.stsci.edu")


@pytest.fixture(scope="module")
def scene():
    return make_scene(dithers=((0, 0), (1.2, 0.7)), calibrated=False, count=16)


def association(folder, name, members):
    """Of ``members``: file name -> role."""
    product = {"name": name, "members": [{"expname": file, "exptype": role} for file, role in members.items()]}
    head = {"asn_type": "image2", "asn_rule": "x", "program": "01001", "asn_id": "o001", "asn_pool": "none"}
    path = folder / f"{name}_asn.json"
    path.write_text(json.dumps(head | {"target": "t001", "products": [product]}))
    return str(path)


@pytest.mark.parametrize(
    ("target", "ran"),
    [({"TARGTYPE": "MOVING", "MT_RA": 150.1, "MT_DEC": 2.3}, "S_MTWCS"), ({"TARGTYPE": "FIXED"}, "S_TWKREG")],
)
def test_moving_targets_are_followed_and_others_aligned_by_their_stars(tmp_path, target, ran):
    names = []
    for image in make_scene(dithers=((0, 0), (1.2, 0.7)), count=16).images:
        names.append(image.header["FILENAME"])
        write_image(image.with_(header=image.header.set(target)), tmp_path / names[-1])
    url = association(tmp_path, "jw01001-o001_t001_niriss_f200w", dict.fromkeys(names, "science"))
    for made in image3.fn(url, str(tmp_path), OFF):
        header = read_image(made).header
        assert ran in header
        assert not {"S_MTWCS", "S_TWKREG"} - {ran} & set(header)


def test_an_image_gets_a_quick_look_and_an_acquisition_none(tmp_path, scene):
    rate = scene.images[0]
    write_image(rate, tmp_path / "a_rate.fits")
    write_image(rate.with_(header=rate.header.set(EXP_TYPE="NIS_TACQ")), tmp_path / "b_rate.fits")
    assert [url.rsplit("_", 1)[1] for url in image2.fn(str(tmp_path / "a_rate.fits"), str(tmp_path))] == [
        "cal.fits",
        "i2d.fits",
    ]
    assert [url.rsplit("/", 1)[1] for url in image2.fn(str(tmp_path / "b_rate.fits"), str(tmp_path))] == ["b_cal.fits"]


def test_what_a_background_makes_beside_is_written_on_request(tmp_path, scene):
    target, sky = scene.images
    sky = sky.with_(data=np.full_like(sky.data, 0.5))
    write_image(target, tmp_path / "a_rate.fits")
    write_image(sky, tmp_path / "b_rate.fits")
    url = association(tmp_path, "a", {"a_rate.fits": "science", "b_rate.fits": "background"})
    asked = {"bkg_subtract": {"save_results": True, "save_combined_background": True}, "resample": {"skip": True}}
    made = [url.rsplit("/", 1)[1] for url in image2.fn(url, str(tmp_path), asked)]
    assert made == ["a_bsub.fits", "a_combinedbackground.fits", "a_cal.fits"]
    np.testing.assert_allclose(read_image(tmp_path / "a_bsub.fits").data, target.data - 0.5, rtol=1e-6)
    np.testing.assert_array_equal(read_image(tmp_path / "a_combinedbackground.fits").data, 0.5)
    assert len(image2.fn(url, str(tmp_path), {"resample": {"skip": True}})) == 1


def test_integrations_give_integrations(tmp_path, scene):
    rate = scene.images[0]
    planes = "data err dq var_poisson var_rnoise".split()
    cube = {name: np.stack([getattr(rate, name)] * 2) for name in planes}
    header = rate.header.set(EXP_TYPE="NIS_TACONFIRM", INSTRUME="NIRISS")
    write_image(rate.with_(header=header, **cube), tmp_path / "a_rateints.fits")
    (made,) = image2.fn(str(tmp_path / "a_rateints.fits"), str(tmp_path))
    assert made.endswith("a_calints.fits")
    assert read_image(made).data.shape == (2, 160, 160)


ALIGN = {"tweakreg": {"minobj": 10, "tolerance": 0.3, "separation": 0.5}}


def mosaic_of(folder, images, name, overrides=ALIGN, **limits):
    """What image3 makes of some images: file name -> URL."""
    for image in images:
        write_image(image, folder / image.header["FILENAME"])
    url = association(folder, name, {image.header["FILENAME"]: "science" for image in images})
    return {made.rsplit("/", 1)[1]: made for made in image3.fn(url, str(folder), overrides, **limits)}


def test_an_exposure_whose_stars_are_elsewhere_does_not_spoil_the_mosaic(tmp_path, caplog):
    errors = ((0, 0), (0.02, 0.01), (8.0, -6.0), (-0.02, 0.015))
    images = make_scene(size=200, errors=errors, count=64, star=0.6, rays=0).images
    made = mosaic_of(tmp_path, images, "all")
    stray = images[2].header["FILENAME"]
    assert any(stray in record.getMessage() and "left out" in record.getMessage() for record in caplog.records)
    crf = read_image(made[stray.replace("_cal", "_o001_crf")])
    assert crf.recipe["alignment"]["left_out"]
    np.testing.assert_array_equal(crf.data, images[2].data)
    without = mosaic_of(tmp_path, [images[k] for k in (0, 1, 3)], "without")
    one, other = (read_image(each[f"{name}_i2d.fits"]) for each, name in ((made, "all"), (without, "without")))
    for plane in ("data", "err", "wht"):
        np.testing.assert_allclose(getattr(one, plane), getattr(other, plane), rtol=1e-5, atol=1e-6)
    assert len(read_catalog(made["all_cat.ecsv"]).table) > 40


def test_one_exposure_makes_a_mosaic_and_a_catalog(tmp_path):
    image = make_scene(size=200, count=64, star=0.6, rays=0).images[0]
    made = mosaic_of(tmp_path, [image], "one")
    header = read_image(made["one_i2d.fits"]).header
    assert header["NDRIZ"] == 1
    assert {header.get(key, "SKIPPED") for key in ("S_TWKREG", "S_SKYMAT", "S_OUTLIR")} == {"SKIPPED"}
    assert len(read_catalog(made["one_cat.ecsv"]).table) > 40


def test_exposures_without_a_good_pixel_or_a_star_leave_the_others_as_they_are(tmp_path):
    images = list(make_scene(size=200, count=64, star=0.6, rays=0).images)
    nothing = {
        name: np.full_like(images[1].data, np.nan) for name in "data err var_poisson var_rnoise var_flat".split()
    }
    images[1] = images[1].with_(dq=np.ones_like(images[1].dq), **nothing)
    made = mosaic_of(tmp_path, images, "masked")
    mosaic = read_image(made["masked_i2d.fits"])
    assert len(read_catalog(made["masked_cat.ecsv"]).table) > 40
    assert not (mosaic.con[0] & 2).any()


def test_a_field_without_a_source_has_an_empty_catalog(tmp_path):
    images = [
        image.with_(data=np.random.default_rng(k).normal(1, 0.01, image.data.shape).astype(np.float32))
        for k, image in enumerate(make_scene(count=16, rays=0).images)
    ]
    made = mosaic_of(tmp_path, images, "empty")
    assert len(read_catalog(made["empty_cat.ecsv"]).table) == 0
    assert not read_segmentation(made["empty_segm.fits"]).data.any()
    everything = mosaic_of(tmp_path, [image.with_(data=np.full_like(image.data, np.nan)) for image in images], "nan")
    assert len(read_catalog(everything["nan_cat.ecsv"]).table) == 0
    assert np.isnan(read_image(everything["nan_i2d.fits"]).data).all()


def test_a_mosaic_that_is_larger_than_the_memory_is_an_error_before_the_work(tmp_path):
    images = make_scene(count=16).images
    with pytest.raises(ProductError, match=r"a mosaic of \d+ x \d+ pixels needs .* --memory"):
        mosaic_of(tmp_path, images, "large", memory=1e6)
    assert not list(tmp_path.glob("*i2d*"))
    assert mosaic_of(tmp_path, images, "large", memory=1e9)
