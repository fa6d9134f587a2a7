"""Ramps and references that cannot be right, on the command line: a product that says so, or one line and no product."""

import shutil

import numpy as np
import pytest
from astropy.io import fits

from calibration import dq
from infra.products.image import read_image
from infra.synthetic.near_infrared import write_near_infrared_exposure


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_near_infrared_exposure(tmp_path_factory.mktemp("ramps"), "niriss-sub80", 2, 3)


def copied(made, tmp_path):
    path = tmp_path / made.uncal.name
    shutil.copy(made.uncal, path)
    return path


def calibrated(calweave, exposure, crds, tmp_path):
    done = calweave("stage", "detector1", exposure, "--out", tmp_path / "out", crds=crds)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    (path,) = (tmp_path / "out").glob("*_rate.fits")
    return read_image(path)


def refused(calweave, exposure, crds, tmp_path, *words):
    done = calweave("stage", "detector1", exposure, "--out", tmp_path / "out", crds=crds)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "not foreseen" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert not list((tmp_path / "out").glob("*"))


def test_an_exposure_that_is_all_saturated_becomes_a_product_without_rates(calweave, made, tmp_path):
    path = copied(made, tmp_path)
    with fits.open(path, mode="update") as hdulist:
        hdulist["SCI"].data[:] = 65_535
    image = calibrated(calweave, path, made.crds, tmp_path)
    lit = (image.dq & dq.PIXEL["REFERENCE_PIXEL"]) == 0
    assert np.all(np.isnan(image.data[lit]))
    assert np.all(image.dq[lit] & dq.PIXEL["DO_NOT_USE"])
    assert np.all(image.dq[lit] & dq.PIXEL["SATURATED"])


def test_an_exposure_of_one_group_has_rates(calweave, made, tmp_path):
    path = copied(made, tmp_path)
    with fits.open(path, mode="update") as hdulist:
        hdulist["SCI"].data = hdulist["SCI"].data[:, :1].copy()
        hdulist[0].header["NGROUPS"] = 1
    image = calibrated(calweave, path, made.crds, tmp_path)
    assert np.mean(np.isfinite(image.data)) > 0.9
    assert image.header["S_JUMP"] == "SKIPPED"


def test_an_exposure_without_integrations_is_refused(calweave, made, tmp_path):
    path = copied(made, tmp_path)
    with fits.open(path, mode="update") as hdulist:
        hdulist["SCI"].data = hdulist["SCI"].data[:0].copy()
    refused(calweave, path, made.crds, tmp_path, path.name, "at least one integration")


@pytest.mark.parametrize("reftype", ["dark", "gain", "superbias"])
def test_a_reference_of_another_shape_is_refused(calweave, made, tmp_path, reftype):
    shutil.copytree(made.crds, tmp_path / "crds")
    (path,) = (tmp_path / "crds").glob(f"references/jwst/niriss/*_{reftype}_*.fits")
    with fits.open(path) as hdulist:
        for hdu in hdulist[1:]:
            if hdu.is_image and hdu.data is not None:
                hdu.data = hdu.data[..., :64, :64]
        hdulist[0].header["SUBSIZE1"] = hdulist[0].header["SUBSIZE2"] = 64
        hdulist.writeto(path, overwrite=True)
    refused(calweave, made.uncal, tmp_path / "crds", tmp_path, path.name)
