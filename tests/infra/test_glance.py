"""A glance at an exposure tells what a whole look at its headers tells."""

import gzip
import shutil

import numpy as np
import pytest
from astropy.io import fits

from infra.products.fits import read_header
from infra.products.glance import glance
from infra.products.header import ProductError, keywords


def known(header):
    return {key: value for key, value in header.items() if key in keywords()}


def test_real_and_simulated_exposures_have_the_same_header_at_a_glance(calibrated, shared):
    paths = [
        *calibrated.folder.glob("uncal/*.fits"),
        *calibrated.products.glob("*.fits"),
        *shared.rglob("*_uncal.fits"),
    ]
    assert len(paths) > 10
    for path in paths:
        assert dict(glance(path)) == known(read_header(path)), path


@pytest.mark.parametrize("odd", ["array first", "long string", "gzip", "quote"])
def test_files_of_another_form_are_read_whole(tmp_path, odd):
    path = tmp_path / "x.fits"
    hdus = fits.HDUList([fits.PrimaryHDU(np.ones((3, 3)) if odd == "array first" else None), fits.ImageHDU(name="SCI")])
    hdus[0].header["TARGNAME"] = {"long string": "x" * 100, "quote": "O'Neill's star"}.get(odd, "star")
    hdus[0].header["NGROUPS"] = 7
    hdus.writeto(path)
    if odd == "gzip":
        shutil.move(path, tmp_path / "plain")
        path.write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))
    assert dict(glance(path)) == known(read_header(path))
    assert glance(path)["NGROUPS"] == 7


def test_what_is_no_exposure_is_named(tmp_path):
    (tmp_path / "x.fits").write_text("no")
    with pytest.raises(ProductError, match="expected a FITS file"):
        glance(tmp_path / "x.fits")
