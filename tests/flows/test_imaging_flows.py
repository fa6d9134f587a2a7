"""Which steps the flows of imaging run on which exposures, and what they write."""

import json

import numpy as np
import pytest
from imaging_scene import make_scene, write_references
from tiny_cache import references_folder, write_cache

from flows.image2 import image2
from flows.image3 import image3
from infra.products.image import read_image, write_image

OFF = {name: {"skip": True} for name in ("skymatch", "outlier_detection", "resample", "source_catalog")}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crds")
    kinds = ("flat", "area", "photom", "distortion")
    rules = {kind: {("NIS", "FULL"): f"{kind}.{'asdf' if kind == 'distortion' else 'fits'}"} for kind in kinds}
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
