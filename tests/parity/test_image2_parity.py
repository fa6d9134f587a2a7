"""Image2 of all imagers gives what the official steps (jwst 3.0.0, their defaults) give on the same files.

Tolerances are the bars of the imaging issue: calibrated planes 1e-5 relative and DQ the same, WCS within 1e-4 pixel over the
whole array and back. S_REGION is the same to the last digit. The FITS approximation is the same within the numerical noise of
either fit.
"""

import json
import os
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from image2_cases import CASES, rate_of, references_of

from infra.products.header import keywords
from infra.products.image import read_image, write_image
from infra.products.slits import read_slits
from infra.references.content import References
from infra.synthetic.crds_cache import write_mappings
from tasks.assign_mtwcs import assign_mtwcs
from tasks.assign_wcs import AssignWcsOptions, assign_wcs
from tasks.background import BackgroundOptions, background
from tasks.flat_field import flat_field
from tasks.photom import PhotomOptions, photom
from tasks.resample import ResampleOptions, resample
from tasks.step import NoOptions

PLANES = ("data", "err", "var_poisson", "var_rnoise", "var_flat")
CALIBRATED = [name for name, case in CASES.items() if case.is_calibrated]
#: Cases with background exposures, so many, and how they are averaged.
BACKGROUNDS = {"nircam_long": (4, {"sigma": 1.2, "maxiters": 1}), "nircam_tso": (2, {})}
#: Real products with a WCS; the mosaic is compressed.
REAL = (
    "jw01288015001_04101_00001_mirimage_i2d.fits",
    "jw01345062001_03101_00001_nrs2_phot.138.1345_933.fits",
    "nis_ami_cal/jw01093012001_03102_00001_nis_cal.fits",
    "miri_lrs_wcs.asdf",
    "miriwcs.asdf",
    "mosaic_long_i2d_gwcs.asdf",
    "nircamwcs.asdf",
    "nrcb1-wcs.asdf",
    "nrcb5-wcs.asdf",
    "wfss_contam_segmentation_wcs.asdf",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, peer, shared) -> Path:
    """What the official steps made of the exposures."""
    folder = tmp_path_factory.mktemp("image2")
    entries = []
    for case in CASES.values():
        references = references_of(case, shared, folder)
        rate = rate_of(case, references)
        write_image(rate, folder / rate.header["FILENAME"])
        count, options = BACKGROUNDS.get(case.name, (0, {}))
        names = []
        for k in range(count):
            member = rate_of(case, references, seed=100 + k)
            # An outlier, and a pixel that is bad in one of them.
            member.data[..., 20, 20 + k] += 50
            member.dq[..., 25, 25 + k] |= 1 << k
            names.append(f"{case.name}_bkg{k}.fits")
            write_image(member, folder / names[-1])
        entries.append({
            "rate": rate.header["FILENAME"], "references": dict(references.files), "calibrated": case.is_calibrated,
            "mosaic": case.name == "miri_image", "backgrounds": names, "background_options": options,
        })  # fmt: skip
    (folder / "cases.json").write_text(json.dumps(entries))
    (folder / "real.json").write_text(json.dumps([str(shared / "real/products" / name) for name in REAL]))
    # The references are named; the client wants a cache all the same.
    write_mappings(folder / "crds", {name: [] for name in ("NIRCAM", "NIRISS", "MIRI", "FGS")})
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PYTHON"))}
    environment |= {"CRDS_PATH": str(folder / "crds"), "CRDS_SERVER_URL": "https://jwst-serverless-mode.stsci.edu"}
    command = [peer, Path(__file__).with_name("peer_image2.py"), folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.stderr or done.stdout)[-3000:]
    return folder


@pytest.fixture(scope="module")
def ours(folder, shared):
    """case -> (image after assign_wcs, calibrated image or None)."""
    made = {}
    for case in CASES.values():
        references = references_of(case, shared, folder)
        image = read_image(next(folder.glob(f"{case.name}_rate*.fits")))
        if case.name in BACKGROUNDS:
            members = tuple(map(read_image, sorted(folder.glob(f"{case.name}_bkg?.fits"))))
            options = BackgroundOptions(save_combined_background=True, **BACKGROUNDS[case.name][1])
            image = background.fn(image, references, options, members)
        image = assign_wcs.fn(image, references, AssignWcsOptions())
        cal = None
        if case.is_calibrated:
            cal = photom.fn(flat_field.fn(image, references, NoOptions()), references, PhotomOptions())
        made[case.name] = image, cal
    return made


@pytest.mark.parametrize("name", CASES)
def test_the_wcs_agrees_over_the_whole_array_and_back(folder, ours, name):
    wcs = ours[name][0].wcs
    theirs = np.load(folder / f"{name}_geometry.npz")
    x, y = theirs["x"], theirs["y"]
    ra, dec = wcs(x, y, with_bounding_box=False)
    # 1e-4 pixel are 3e-6 arcsec where pixels are smallest.
    east = (ra - theirs["ra"]) * np.cos(np.radians(dec)) * 3600
    assert np.hypot(east, (dec - theirs["dec"]) * 3600).max() < 1e-6
    back = np.array(wcs.invert(theirs["ra"], theirs["dec"], with_bounding_box=False))
    assert np.abs(back - theirs["back"]).max() < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_bounding_boxes_regions_and_fits_keywords_agree(folder, ours, name):
    image = ours[name][0]
    theirs = json.loads((folder / f"{name}_geometry.json").read_text())
    box = image.wcs.bounding_box.bounding_box(order="F")
    assert [list(map(float, side)) for side in box] == theirs["box"]
    paths = {entry.path.removeprefix("meta.wcsinfo."): key for key, entry in keywords().items()}
    for path, value in theirs["wcsinfo"].items():
        if path not in paths:  # a card of the fit that no data model has, and no file
            continue
        found = image.header.get(paths[path])
        if isinstance(value, float):
            assert found == pytest.approx(value, rel=1e-6, abs=1e-12), path
        else:
            assert found == value, path


@pytest.mark.parametrize("name", CALIBRATED)
def test_calibrated_images_agree(folder, ours, name):
    image, other = ours[name][1], read_image(folder / f"{name}_peer_cal.fits")
    assert image.data.shape == other.data.shape
    np.testing.assert_array_equal(image.dq, other.dq)
    for plane in PLANES:
        one, two = getattr(image, plane), getattr(other, plane)
        assert (one is None) == (two is None), plane
        if one is not None:
            # Where a background is subtracted, little is left of the numbers that were rounded.
            noise = float(np.nanmedian(other.err))
            atol = {"data": 1e-5 * noise, "var_flat": 1e-5 * noise**2}.get(plane, 0) if name in BACKGROUNDS else 0
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=atol, err_msg=plane)
    for key in ("BUNIT", "S_WCS", "S_FLAT", "S_PHOTOM", "S_BKDSUB"):
        assert image.header.get(key) == other.header.get(key), key
    if image.header["S_PHOTOM"] == "SKIPPED":  # the official step attaches the area to what it skips
        assert name == "niriss_ami_ints"
        return
    assert (image.area is None) == (other.area is None)
    if image.area is not None:
        np.testing.assert_array_equal(image.area, other.area)
    for key in ("PHOTMJSR", "PHOTUJA2", "PIXAR_SR", "PIXAR_A2"):
        assert image.header.get(key) == pytest.approx(other.header.get(key), rel=1e-6), key


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_combined_backgrounds_agree(folder, ours, name):
    one = ours[name][0].side["combinedbackground"]
    two = read_image(next(folder.glob(f"{name}*_combinedbackground.fits")))
    np.testing.assert_array_equal(one.dq, two.dq)
    # Where no exposure has a value, the official mean is 0.
    known = np.isfinite(one.data)
    assert (~known).sum() == 1
    np.testing.assert_allclose(one.data[known], two.data[known], rtol=1e-5)
    np.testing.assert_allclose(one.err[known], two.err[known], rtol=1e-5)


def test_exposures_of_a_moving_target_agree(folder, ours, shared):
    names = ["fgs_focus", "fgs_image"]
    images = tuple(ours[name][1] for name in names)
    for image, name in zip(assign_mtwcs.fn(images, References({}, "jwst_0001.pmap"), NoOptions()), names, strict=True):
        theirs = np.load(folder / f"{name}_moved_geometry.npz")
        found = image.wcs(theirs["x"], theirs["y"], with_bounding_box=False)
        np.testing.assert_allclose(found, (theirs["ra"], theirs["dec"]), rtol=0, atol=1e-10)
        info = json.loads((folder / f"{name}_moved_geometry.json").read_text())
        assert image.header["S_REGION"] == info["wcsinfo"]["s_region"]
        assert image.header["MT_AVRA"] == pytest.approx(info["wcsinfo"]["mt_avra"], abs=1e-10)
        assert image.header["MT_AVDEC"] == pytest.approx(info["wcsinfo"]["mt_avdec"], abs=1e-10)
        assert [list(map(float, side)) for side in image.wcs.bounding_box.bounding_box(order="F")] == info["box"]
        assert image.header["S_MTWCS"] == "COMPLETE"


@pytest.mark.parametrize("name", REAL)
def test_real_products_look_where_they_look_with_the_official_libraries(folder, shared, name):
    theirs = np.load(folder / f"real_{REAL.index(name)}.npz")
    path = shared / "real/products" / name
    if name.endswith(".asdf"):
        with warnings.catch_warnings(action="ignore"):
            wcs = References({"wcs": str(path)}, "none").asdf("wcs")["wcs"]
    elif "_phot." in name:
        wcs = read_slits(path).slits[0].wcs
    else:
        wcs = read_image(path).wcs
    world = np.array(wcs(theirs["x"], theirs["y"], with_bounding_box=False))
    # 1e-6 arcsec; of the third value, a wavelength, as many digits.
    np.testing.assert_allclose(world, theirs["world"], rtol=0, atol=1e-6 / 3600)
    back = wcs.invert(*theirs["world"], with_bounding_box=False)
    np.testing.assert_allclose(back, theirs["back"], rtol=0, atol=1e-4)
    assert np.isfinite(world).mean() > 0.5


def test_the_quick_look_of_a_miri_image_agrees(folder, ours, shared):
    case = CASES["miri_image"]
    mosaic = resample.fn((ours[case.name][1],), references_of(case, shared, folder), ResampleOptions())
    theirs = read_image(folder / f"{case.name}_peer_i2d.fits")
    assert mosaic.data.shape == theirs.data.shape
    inside = (slice(1, -1), slice(1, -1))
    np.testing.assert_array_equal(np.isnan(mosaic.data[inside]), np.isnan(theirs.data[inside]))
    np.testing.assert_allclose(mosaic.data[inside], theirs.data[inside], rtol=1e-4)
