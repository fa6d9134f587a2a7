"""tweakreg on small scenes: the figures that it leaves in the product, tables of positions, and exposures without stars."""

import logging

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table
from imaging_scene import START, distortion, make_scene

from calibration.wcs.imaging import imaging_wcs
from infra.products.image import read_image, write_image
from infra.references.content import References
from tasks.tweakreg import TweakregOptions, tweakreg

NOTHING = References({}, "none")
SIZE = 200
# The stars of the scene are some 1.7 arcsec apart.
ALIGN = TweakregOptions(minobj=10, tolerance=0.3, separation=0.5)
DITHERS = ((0.0, 0.0), (1.23, 0.71), (-0.66, 1.37))


@pytest.fixture(scope="module")
def scene():
    return make_scene(SIZE, DITHERS, ((0, 0), (0.4, -0.3, 0.1), (0.025, -0.015)), count=64, star=0.6)


def blank(image):
    names = "data err var_poisson var_rnoise var_flat".split()
    return image.with_(**dict.fromkeys(names, np.full_like(image.data, np.nan)))


def error_of(image, real):
    """Largest distance [mas] of the WCS from the real one, at five pixels."""
    x, y = np.array([5.0, 5, 100, 195, 195]), np.array([5.0, 195, 100, 195, 5])
    (ra, dec), (there, up) = (
        each(x, y) for each in (image.wcs, imaging_wcs(real, distortion(), (SIZE, SIZE), (START, START)))
    )
    return 3.6e6 * np.hypot((ra - there) * np.cos(np.radians(dec)), dec - up).max()


@pytest.mark.parametrize("starfinder", ["iraf", "dao", "segmentation"])
def test_alignment_is_true_and_its_figures_are(scene, starfinder, tmp_path):
    options = ALIGN.model_copy(update={"starfinder": starfinder, "roundlo": -0.5, "roundhi": 0.5, "deblend": False})
    images = tweakreg.fn(scene.images, NOTHING, options)
    # Some thirty stars of 0.5 mas by the fits; of 3 mas by the moments of segments, and three times that at the corners.
    for image, real in zip(images, scene.pointings, strict=True):
        assert error_of(image, real) < (5 if starfinder == "segmentation" else 1)
    write_image(images[1], tmp_path / "x.fits")
    figures = read_image(tmp_path / "x.fits").recipe["alignment"]
    assert figures["status"] == "aligned"
    assert figures["roll_arcsec"] == pytest.approx(360, abs=40)
    assert figures["shift_mas"] == pytest.approx(507, abs=15)
    assert figures["stars"] >= 10
    assert 0 < figures["rms_mas"] < 8
    assert figures["offset_mas"] < 3
    assert "left_out" not in figures
    assert images[0].recipe["alignment"]["status"] == "reference"
    assert images[0].wcs is scene.images[0].wcs
    assert images[1].header["S_REGION"] != scene.images[1].header.get("S_REGION")
    assert images[1].header["CRVAL1"] == pytest.approx(images[1].wcs(99.0, 99.0)[0], abs=1e-4)


def test_a_displaced_exposure_is_left_out_and_named(scene, caplog):
    lost = make_scene(SIZE, ((0.3, -0.9),), ((5.0, 2.5),), count=64, star=0.6).images[0]
    lost = lost.with_(header=lost.header.set(EXPOSURE="9", FILENAME="lost_cal.fits"))
    with caplog.at_level(logging.WARNING):
        images = tweakreg.fn((lost, *scene.images), NOTHING, ALIGN)
    assert images[0].recipe["alignment"]["left_out"] is True
    assert images[0].wcs is lost.wcs
    assert [image.recipe["alignment"]["status"] for image in images[1:]] == ["reference", "aligned", "aligned"]
    assert "lost_cal.fits is not aligned, and left out: no offset within 2 arcsec" in caplog.text


@pytest.mark.parametrize("spoil", [blank, lambda image: image.with_(dq=np.ones_like(image.dq))])
def test_an_exposure_without_a_usable_pixel_stays_as_it_is(scene, spoil):
    images = tweakreg.fn(
        (*scene.images, spoil(scene.images[0]).with_(header=scene.images[0].header.set(EXPOSURE="9"))), NOTHING, ALIGN
    )
    figures = images[3].recipe["alignment"]
    assert figures == {"status": "only 0 stars, 10 are needed", "shift_mas": 0.0, "roll_arcsec": 0.0, "stars": 0}
    assert error_of(images[1], scene.pointings[1]) < 1


def test_without_stars_there_is_nothing_to_do(scene):
    one = make_scene(SIZE, DITHERS[:2], count=1, rays=3)
    for images in (tuple(blank(image) for image in scene.images), one.images):
        done = tweakreg.fn(images, NOTHING, ALIGN)
        assert {image.header["S_TWKREG"] for image in done} == {"SKIPPED"}
        assert "stars, 10 are needed" in done[0].recipe["tweakreg"]["reason"]
        assert all(after.wcs is before.wcs for after, before in zip(done, images, strict=True))


def test_a_single_exposure_has_none_to_be_aligned_with(scene):
    (done,) = tweakreg.fn(scene.images[:1], NOTHING, ALIGN)
    assert done.recipe["tweakreg"]["reason"] == "a single exposure has none to be aligned with"


def catalog(path, kind, field):
    ra, dec = field.ra, field.dec
    if kind == "catalog of an earlier mosaic":
        QTable({"label": np.arange(len(ra)), "sky_centroid": SkyCoord(ra, dec, unit="deg")}).write(path)
    elif kind == "arcsec":
        QTable({"Ra": 3600 * ra * units.arcsec, "Dec": dec * units.deg}).write(path)
    else:
        Table({"ra": np.ma.array(ra, mask=np.arange(len(ra)) == 3), "dec": dec}).write(path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.ecsv", "catalog of an earlier mosaic"), ("b.fits", "arcsec"), ("c.csv", "plain"), ("d.fits", "plain")],
)
def test_a_single_exposure_aligns_to_a_table(scene, name, kind, tmp_path):
    options = ALIGN.model_copy(
        update={"abs_refcat": catalog(tmp_path / name, kind, scene.field), "abs_minobj": 10, "abs_tolerance": 0.3,
                "abs_separation": 0.5}
    )  # fmt: skip
    (done,) = tweakreg.fn(scene.images[1:2], NOTHING, options)
    assert done.recipe["alignment"]["status"] == "aligned"
    assert error_of(done, scene.pointings[1]) < 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("GAIADR3", None, "GAIADR3 is no file; download the catalog of the field first"),
        ("x.ecsv", "this is no table\n", r"x\.ecsv cannot be read as one"),
        ("x.fits", "nor is this", r"x\.fits cannot be read as one"),
        ("x.unknown", "a", r"x\.unknown cannot be read as one"),
        ("x.csv", "x,y\n1,2\n", r"x\.csv has x, y"),
        ("x.csv", "ra,dec\nhere,there\n", r"those of .*x\.csv are no angles"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(scene, name, content, message, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        tweakreg.fn(scene.images, NOTHING, ALIGN.model_copy(update={"abs_refcat": str(path)}))
