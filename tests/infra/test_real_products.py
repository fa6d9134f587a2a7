"""Every real file of ../shared/real opens here, and what comes out is what astropy and the data models find in it."""

import gzip
import warnings
from pathlib import Path

import asdf
import numpy as np
import pytest
from astropy.io import fits

from calibration.wcs.imaging import footprint
from calibration.wcs.mosaic import Orientation, centre_of, mosaic_wcs, pixel_map, pixel_scale
from infra.products.fits import read_fits, read_header
from infra.products.guider import read_guider
from infra.products.header import ProductError, keywords
from infra.products.image import read_image, write_image
from infra.products.ramp import read_ramp
from infra.products.slits import read_slits
from infra.products.spectrum import read_spectra
from infra.references.content import References

pytestmark = pytest.mark.filterwarnings("error")

PATTERNS = ("uncal/*.fits", "headers/*.fits", "products/*.fits", "products/nis_ami_cal/*.fits")
STRUCTURAL = ("NAXIS", "TTYPE", "TFORM", "TUNIT", "TDIM", "TZERO", "TSCAL", "TNULL", "TDISP")


@pytest.fixture(scope="module")
def real(shared):
    return shared / "real"


def pick(real, *patterns):
    paths = sorted(path for pattern in patterns for path in real.glob(pattern))
    if not paths:
        pytest.skip(f"no files {patterns} in {real}")
    return paths


ONCE = frozenset(
    "SIMPLE BITPIX EXTEND XTENSION PCOUNT GCOUNT BSCALE BZERO EXTNAME EXTVER TFIELDS CHECKSUM DATASUM NEXTEND HISTORY "
    "COMMENT".split()
)


def is_structural(key):
    return key == "" or key in ONCE or key.rstrip("0123456789") in STRUCTURAL


def test_every_real_file_opens_without_a_warning_and_keeps_every_keyword(real):
    for path in pick(real, *PATTERNS):
        contents = read_fits(path)
        assert read_header(path) == contents.header
        with fits.open(path) as hdus:
            sci = next((hdu.header for hdu in hdus if hdu.name == "SCI"), {})
            for where, cards in (("PRIMARY", hdus[0].header), ("SCI", sci)):
                for key, value in cards.items():
                    if is_structural(key) or isinstance(value, fits.card.Undefined):
                        continue
                    assert key in contents.header, f"{path.name}: {key} of {where} is lost"
                    known = keywords().get(key)
                    if known is None or known.hdu == where:
                        assert contents.header[key] == value, f"{path.name}: {key} of {where}"


def test_every_array_of_every_real_file_is_what_astropy_reads(real):
    for path in pick(real, *PATTERNS):
        contents = read_fits(path)
        with fits.open(path) as hdus:
            for hdu in hdus[1:]:
                if hdu.name == "ASDF" or hdu.data is None:
                    continue
                array = contents.get(hdu.name, hdu.ver)
                assert array is not None, f"{path.name}: {hdu.name} is lost"
                if array.dtype.names:
                    for name in array.dtype.names:
                        np.testing.assert_array_equal(
                            array[name], hdu.data[name], err_msg=f"{path.name} {hdu.name} {name}"
                        )
                else:
                    np.testing.assert_array_equal(array, hdu.data, err_msg=f"{path.name} {hdu.name}")
                    assert array.dtype.isnative


def test_the_real_raw_guide_star_exposure_opens_as_a_guider_product(real):
    guider = read_guider(pick(real, "uncal/*gs-acq1*_uncal.fits")[0])
    assert guider.data.shape == (6, 2, 128, 128)
    assert guider.header["EXP_TYPE"] == "FGS_ACQ1"
    for integration in guider.data:
        assert np.unravel_index(np.argmax(integration[1]), (128, 128)) == (96, 64), "where the star stands"


def test_real_headers_of_all_guider_modes_and_of_coronagraphy_open(real):
    for path in pick(real, "headers/fgs*.fits"):
        assert read_guider(path).header["EXP_TYPE"].startswith("FGS_")
    for path in pick(real, "headers/*_uncal.fits"):
        ramp = read_ramp(path)
        assert ramp.header["EXP_TYPE"] == "NRC_CORON"
        assert ramp.data.shape == (1, 1, 1, 1)


def test_real_calibrated_images_open_with_a_wcs_that_points_where_the_header_says(real):
    for path in pick(real, "products/nis_ami_cal/*_cal.fits"):
        image = read_image(path)
        assert image.data.shape == image.err.shape == image.dq.shape == image.header.subarray.shape
        assert image.header["S_FLAT"] == "COMPLETE"
        assert image.header["R_MASK"].startswith("crds://")
        ra, dec = image.wcs(image.data.shape[1] / 2, image.data.shape[0] / 2)
        distance = np.hypot((ra - image.header["RA_REF"]) * np.cos(np.deg2rad(dec)), dec - image.header["DEC_REF"])
        assert distance * 3600 < 5, (
            f"{path.name}: {distance * 3600:.1f} arcsec from the reference point of the aperture"
        )


def test_a_real_mosaic_under_gzip_opens_with_its_wcs(real):
    (path,) = pick(real, "products/*mirimage_i2d.fits")
    assert path.read_bytes()[:2] == b"\x1f\x8b", "this file is here because it is compressed"
    image = read_image(path)
    assert image.data.ndim == 2
    assert image.wht.shape == image.con.shape[-2:] == image.data.shape
    ra, dec = image.wcs(image.data.shape[1] / 2, image.data.shape[0] / 2)
    assert abs(ra - image.header["TARG_RA"]) < 0.1
    assert abs(dec - image.header["TARG_DEC"]) < 0.1


def test_a_real_file_cut_short_is_an_error_that_names_it(real, tmp_path):
    plain = pick(real, "products/nis_ami_cal/*_cal.fits")[0].read_bytes()
    cut = tmp_path / "cut_cal.fits"
    for length in (len(plain) // 2, len(plain) - 2880, 1000, 0):
        cut.write_bytes(plain[:length])
        with pytest.raises(ProductError, match=r"cut_cal\.fits"):
            read_image(cut)
    packed = gzip.compress(plain, 1)
    cut.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ProductError, match=r"cut_cal\.fits"):
        read_image(cut)
    cut.write_bytes(packed)
    np.testing.assert_array_equal(read_image(cut).data, fits.getdata(pick(real, "products/nis_ami_cal/*")[0], "SCI"))


def test_real_spectra_open_with_every_point(real):
    for path in pick(real, "products/*_x1d.fits"):
        spectra = read_spectra(path)
        with fits.open(path) as hdus:
            tables = [hdu.data for hdu in hdus if hdu.name == "EXTRACT1D"]
        assert len(spectra.tables) == len(tables)
        for spectrum, table in zip(spectra.tables, tables, strict=True):
            np.testing.assert_array_equal(spectrum.rows["WAVELENGTH"], table["WAVELENGTH"])
            np.testing.assert_array_equal(spectrum.rows["FLUX"], table["FLUX"])


def test_a_real_slit_opens_with_its_wcs(real):
    (path,) = pick(real, "products/*_phot.*.fits")
    slits = read_slits(path)
    assert len(slits.slits) == 1
    slit = slits.slits[0]
    np.testing.assert_array_equal(slit.data, fits.getdata(path, "SCI"))
    ny, nx = slit.data.shape
    wavelength = slit.wcs(nx / 2, ny / 2)[2]
    assert 0.5 < wavelength < 5.5, "NIRSpec, in micrometres"


def test_real_wcs_files_open(real):
    """Some were written by old versions: they must at least read as trees of the libraries that we use."""
    for path in pick(real, "products/*.asdf"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with asdf.open(path, lazy_load=False, memmap=False) as file:
                assert any(hasattr(value, "forward_transform") for value in file.tree.values()), path.name


def test_a_real_image_written_by_us_opens_in_the_data_models_as_it_was(real, tmp_path):
    datamodels = pytest.importorskip("stdatamodels.jwst.datamodels")
    source = pick(real, "products/nis_ami_cal/*_cal.fits")[0]
    target = Path(tmp_path) / source.name
    write_image(read_image(source), target)
    with datamodels.open(target) as ours, datamodels.open(source) as theirs:
        np.testing.assert_array_equal(ours.data, theirs.data)
        np.testing.assert_array_equal(ours.dq, theirs.dq)
        mine, original = ours.to_flat_dict(include_arrays=False), theirs.to_flat_dict(include_arrays=False)
        for key, value in original.items():
            if key.startswith("meta.") and not key.startswith(("meta.wcs", "meta.date", "meta.model_type")):
                assert mine.get(key) == value, key


def test_the_map_of_a_real_wcs_is_as_good_as_is_asked_for(real):
    """Of NIRCam's short and long wavelengths and MIRI, onto a tangent plane of the size of their pixels."""
    for path in pick(real, "products/nrcb?-wcs.asdf", "products/nircamwcs.asdf", "products/miriwcs.asdf"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wcs = References({"wcs": str(path)}, "none").asdf("wcs")["wcs"]
        (_, x1), (_, y1) = wcs.bounding_box.bounding_box(order="F")
        shape = (int(y1 + 0.5), int(x1 + 0.5))
        corners = footprint(wcs, shape)
        scale = pixel_scale(wcs, *centre_of([corners]))
        grid = mosaic_wcs([corners], scale, Orientation(10.0, 0.5, -1))
        mapped = pixel_map(wcs, shape, grid)
        x, y = np.meshgrid(np.arange(4, shape[1], 61), np.arange(0, shape[0], 53))
        exact = grid.invert(*wcs(x, y, with_bounding_box=False), with_bounding_box=False)
        assert np.abs(mapped[y, x] - np.stack(exact, axis=-1)).max() < 1e-4, path.name
