"""The field of a grism exposure from files of the user: what is derived, and what does not fit together."""

import json
import logging

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from calibration.spectra.sources import sources_of
from flows.field import open_field
from flows.stage import open_association
from infra.products.header import Header, ProductError
from infra.storage.store import StorageError
from tasks.field import require_brightness, tell_filters
from tasks.options import resolve_options

SHAPE, SCALE = (120, 140), 0.065
STARS = {
    12: (30.0, 20.0, 21.0),
    57: (80.0, 60.0, 22.0),
    3: (110.0, 100.0, 20.5),
    900: (60.0, 90.0, 23.0),
    5: (20.0, 70.0, 22.5),
}
AREA = np.deg2rad(SCALE / 3600) ** 2
RATE = "jw01234001001_02101_00001_nis_rate.fits"


def header():
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 53.16, "CRVAL2": -27.79, "CRPIX1": 70.5, "CRPIX2": 60.5,
        "CD1_1": -SCALE / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": SCALE / 3600, "BUNIT": "MJy/sr",
    }  # fmt: skip
    return fits.Header(cards)


def direct_image():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    data = np.random.default_rng(3).normal(0.5, 0.02, SHAPE)
    for at_x, at_y, magnitude in STARS.values():
        light = 10 ** (-0.4 * (magnitude - 8.90)) * 1e-6 / AREA
        data += light * np.exp(-0.5 * ((x - at_x) ** 2 + (y - at_y) ** 2) / 1.3**2) / (2 * np.pi * 1.3**2)
    return data.astype(np.float32)


def positions(labels=STARS, east=0.0, north=0.0):
    places = np.array([STARS[label][:2] for label in labels])
    sky = WCS(header()).pixel_to_world(*places.T)
    return sky.ra.deg + east / 3600 / np.cos(sky.dec.rad), sky.dec.deg + north / 3600


class Folder:
    """A folder with an exposure's association and what the user put beside it."""

    def __init__(self, path):
        self.path = path
        fits.PrimaryHDU(direct_image(), header()).writeto(path / "my_drz.fits")
        self.catalog()

    def catalog(self, labels=tuple(STARS), name="my.csv", east=0.0, north=0.0, **columns):
        ra, dec = positions(labels, east, north)
        Table({"NUMBER": list(labels), "RA": ra, "DEC": dec, **columns}).write(
            self.path / name, format="ascii.csv", overwrite=True
        )

    def segmentation(self, data):
        fits.PrimaryHDU(data).writeto(self.path / "my_seg.fits")

    def open(self, **options):
        """The field with these options of spec2; files of the folder by name."""
        given = {key: str(self.path / value) for key, value in options.items()}
        url = str(self.path / RATE)
        asn = open_association(url)
        return open_field(url, asn, asn.products[0], str(self.path), resolve_options({}, {"spec2": given}))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_a_list_of_positions_becomes_a_whole_catalog(folder):
    field = folder.open(catalog="my.csv", direct_image="my_drz.fits")
    sources = sources_of(field.catalog.table)
    assert sources.label.tolist() == [3, 12, 57, 5, 900], "brightest first, by what the direct image measures"
    np.testing.assert_allclose(sources.abmag, [20.5, 21, 22, 22.5, 23], atol=0.15)
    assert not sources.extended.any()
    for label, (x, y, _) in STARS.items():
        assert field.segmentation.data[int(y), int(x)] == label
    assert set(np.unique(field.segmentation.data)) == {0, *STARS}
    # The box on the sky holds the source.
    x, y = field.direct.wcs.invert(sources.corner_ra[0], sources.corner_dec[0], with_bounding_box=False)
    assert x.min() < 108 < 112 < x.max()
    assert y.min() < 98 < 102 < y.max()
    assert field.cards == {
        "SCATFILE": "my.csv",
        "DIRIMAGE": "my_drz.fits",
        "SEGMFILE": "jw01234001001_02101_00001_nis_segm.fits",
    }
    assert set(field.derived) == {"cat", "segm"}


def test_members_of_the_association_are_taken_as_options_are(folder):
    roles = {"science": RATE, "sourcecat": "my.csv", "direct_image": "my_drz.fits"}
    members = [{"expname": name, "exptype": role} for role, name in roles.items()]
    (folder.path / RATE).write_text("")
    text = {"asn_type": "spec2", "products": [{"name": "jw01234001001_02101_00001_nis", "members": members}]}
    url = str(folder.path / "jw01234_spec2_00001_asn.json")
    (folder.path / "jw01234_spec2_00001_asn.json").write_text(json.dumps(text))
    asn = open_association(url)
    field = open_field(url, asn, asn.products[0], str(folder.path), resolve_options({}, {}))
    given = folder.open(catalog="my.csv", direct_image="my_drz.fits")
    np.testing.assert_array_equal(field.segmentation.data, given.segmentation.data)
    assert field.cards == given.cards


def test_magnitudes_and_redshifts_of_the_user_count(folder, caplog):
    folder.catalog(
        MAG_AUTO=[21.1, 99.0, np.nan, 23.4, 22.2], z_spec=[0.5, -99.0, np.nan, 1.2, 2.0], extended=[1, 0, 0, 0, 1]
    )
    with caplog.at_level(logging.INFO):
        table = folder.open(catalog="my.csv", direct_image="my_drz.fits").catalog.table
    np.testing.assert_allclose(table["isophotal_abmag"], [21.1, 22.0, 20.5, 23.4, 22.2], atol=0.15)
    assert table["is_extended"].tolist() == [True, False, False, False, True]
    assert table["redshift"][0] == 0.5
    assert "my.csv: the magnitudes of 2 sources are from my_drz.fits" in caplog.text


def test_without_a_direct_image_there_are_positions_and_a_fixed_box(folder):
    folder.catalog(mag=[21.0, 22, 23, 24, 25])
    field = folder.open(catalog="my.csv")
    assert field.direct is None
    sources = sources_of(field.catalog.table)
    assert np.ptp(sources.corner_dec, axis=1) * 3600 == pytest.approx(0.7)
    assert sources.abmag.tolist() == [21, 22, 23, 24, 25]
    with pytest.raises(ProductError, match=r"a_rate\.fits: wfss_contam needs a direct image"):
        require_brightness(field, Header({"FILENAME": "a_rate.fits"}))


def test_an_image_without_a_unit_gives_no_model_of_neighbours(folder):
    plain = header()
    del plain["BUNIT"]
    fits.PrimaryHDU(direct_image(), plain).writeto(folder.path / "counts.fits")
    field = folder.open(catalog="my.csv", direct_image="counts.fits")
    assert np.isnan(field.catalog.table["isophotal_abmag"]).all()
    with pytest.raises(ProductError, match=r"counts\.fits: wfss_contam needs its brightness"):
        require_brightness(field, Header({}))


@pytest.mark.parametrize(("east", "north"), [(1.5, -0.8), (0.0, 4.0)])
def test_a_catalog_that_lies_beside_its_sources_is_refused_with_the_offset(folder, east, north):
    folder.catalog(east=east, north=north)
    words = (
        rf"my\.csv: its positions are \{east:+.2f} arcsec east and \{north:+.2f} arcsec north of the sources of my_drz"
    )
    with pytest.raises(ProductError, match=words + r".*5 of 5 agree so, 0 as they are"):
        folder.open(catalog="my.csv", direct_image="my_drz.fits")


def test_a_small_offset_is_a_warning(folder, caplog):
    folder.catalog(east=0.25)
    folder.open(catalog="my.csv", direct_image="my_drz.fits")
    assert "+0.25 arcsec east" in caplog.text
    assert "wavelengths are off" in caplog.text


def test_a_catalog_of_another_field_is_refused(folder):
    folder.catalog(north=3600.0)
    with pytest.raises(ProductError, match=r"my\.csv: none of its 5 sources is in the direct image my_drz\.fits"):
        folder.open(catalog="my.csv", direct_image="my_drz.fits")


def test_sources_off_the_image_or_without_light_are_named_and_get_a_box(folder, caplog):
    ra, dec = positions()
    faint = WCS(header()).pixel_to_world(120.0, 20.0)
    table = {"id": [*STARS, 70, 71], "ra": [*ra, faint.ra.deg, ra[0]], "dec": [*dec, faint.dec.deg, dec[0] + 0.01]}
    Table(table).write(folder.path / "more.csv", format="ascii.csv")
    field = folder.open(catalog="more.csv", direct_image="my_drz.fits")
    assert "more.csv: source 71 is outside of the direct image my_drz.fits" in caplog.text
    assert "more.csv: source 70 has no light above the noise in my_drz.fits" in caplog.text
    sources = sources_of(field.catalog.table)
    assert set(sources.label) == {*STARS, 70, 71}
    assert np.ptp(sources.corner_dec[np.isin(sources.label, [70, 71])], axis=1) * 3600 == pytest.approx(0.7)
    assert np.isnan(sources.abmag[np.isin(sources.label, [70, 71])]).all()


def test_a_segmentation_map_of_another_shape_is_refused(folder):
    folder.segmentation(np.zeros((50, 60), np.int32))
    with pytest.raises(
        ProductError, match=r"my_seg\.fits: .*\(50, 60\) pixels, but the direct image my_drz.*\(120, 140\)"
    ):
        folder.open(catalog="my.csv", direct_image="my_drz.fits", segmentation="my_seg.fits")


def test_labels_without_a_row_and_rows_without_a_label_are_told(folder, caplog):
    made = folder.open(catalog="my.csv", direct_image="my_drz.fits").segmentation.data.astype(np.int32)
    made[made == 57] = 0
    made[2:6, 2:9] = 4242
    folder.segmentation(made)
    field = folder.open(catalog="my.csv", direct_image="my_drz.fits", segmentation="my_seg.fits")
    assert "my_seg.fits: source 57 of my.csv has no pixel in it" in caplog.text
    assert "my_seg.fits: label 4242 has no row in my.csv" in caplog.text
    assert set(field.derived) == {"cat"}
    np.testing.assert_array_equal(field.segmentation.data, made)
    assert field.segmentation.wcs is field.direct.wcs


def test_a_catalog_in_the_form_of_image3_is_held_against_its_map(folder):
    derived = folder.open(catalog="my.csv", direct_image="my_drz.fits")
    table = derived.catalog.table
    folder.segmentation(derived.segmentation.data.astype(np.int32))
    table.write(folder.path / "a_cat.ecsv", format="ascii.ecsv")
    files = {"direct_image": "my_drz.fits", "segmentation": "my_seg.fits"}
    assert not folder.open(catalog="a_cat.ecsv", **files).derived, "nothing is missing in it"
    sky = table["sky_centroid"]
    table["sky_centroid"] = SkyCoord(sky.ra, sky.dec + 2 * units.arcsec)
    table.write(folder.path / "b_cat.ecsv", format="ascii.ecsv")
    with pytest.raises(ProductError, match=r"b_cat\.ecsv: its positions are .*\+2\.0\d arcsec north"):
        folder.open(catalog="b_cat.ecsv", **files)


def test_no_catalog_or_one_that_is_not_there(folder):
    with pytest.raises(ProductError, match=r"needs a catalog of its field.*spec2\.catalog"):
        folder.open()
    with pytest.raises(StorageError, match=r"gone\.csv does not exist"):
        folder.open(catalog="gone.csv", direct_image="my_drz.fits")


def test_an_empty_catalog_is_a_field_without_sources(folder):
    (folder.path / "empty.csv").write_text("id,ra,dec\n")
    field = folder.open(catalog="empty.csv", direct_image="my_drz.fits")
    assert len(sources_of(field.catalog.table)) == 0


def test_an_image_of_another_filter_is_told(folder, caplog):
    named = header()
    named["INSTRUME"], named["FILTER"] = "ACS", "F814W"
    fits.PrimaryHDU(direct_image(), named).writeto(folder.path / "acs.fits")
    field = folder.open(catalog="my.csv", direct_image="acs.fits")
    exposure = {"FILENAME": RATE, "INSTRUME": "NIRISS", "FILTER": "GR150R", "PUPIL": "F200W"}
    tell_filters(field, Header(exposure))
    assert f"{RATE}: its spectra are of F200W, but the direct image acs.fits is of ACS F814W" in caplog.text


def test_the_sources_of_a_survey_that_are_far_away_are_left_out(folder):
    ra, dec = positions()
    # The last is at the antipode, where a tangent plane has it in the middle of the image.
    table = {"id": [*STARS, 70, 71, 72], "ra": [*ra, ra[0], 10.0, 233.16], "dec": [*dec, dec[0] + 0.02, 70.0, 27.79]}
    Table(table).write(folder.path / "survey.csv", format="ascii.csv")
    field = folder.open(catalog="survey.csv", direct_image="my_drz.fits")
    assert set(field.catalog.table["label"]) == {*STARS, 70}, "one whose spectrum may reach the detector stays"


def test_a_map_of_another_catalog_is_refused(folder):
    """As where a user's catalog takes the place of image3's in an association, but the map does not."""
    made = folder.open(catalog="my.csv", direct_image="my_drz.fits")
    order = list(STARS)
    data = made.segmentation.data.astype(np.int32)
    folder.segmentation(sum(np.where(data == label, order[k - 1], 0) for k, label in enumerate(order)).astype(np.int32))
    made.catalog.table.write(folder.path / "a_cat.ecsv", format="ascii.ecsv")
    for catalog in ("my.csv", "a_cat.ecsv"):
        words = rf"my_seg\.fits: its labels are not the numbers of {catalog}: source 12 stands on label 5, and 4 more"
        with pytest.raises(ProductError, match=words):
            folder.open(catalog=catalog, direct_image="my_drz.fits", segmentation="my_seg.fits")
