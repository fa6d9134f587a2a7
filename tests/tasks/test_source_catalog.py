"""source_catalog on mosaics of every kind: none of them breaks it, and map and catalog always agree."""

import logging

import numpy as np
import pytest
from asdf import AsdfFile
from astropy.io import fits
from astropy.table import Table
from imaging_scene import PIXAR_SR, ROLL, SCALE, START, distortion, header, pointing, write_references

from calibration.sources.catalog import INCOMPLETE
from calibration.wcs.imaging import footprint, imaging_wcs
from calibration.wcs.mosaic import Orientation, mosaic_wcs
from infra.products.catalog import NEEDED, read_catalog, write_catalog
from infra.products.header import Header, ProductError
from infra.products.image import Image
from infra.references.content import ReferenceNotFound, References
from tasks.source_catalog import SourceCatalogOptions, _apertures, _vega_offset, source_catalog

SHAPE = (120, 130)
STARS = [(30.2, 40.7, 200.0), (80.6, 30.1, 50.0), (100.4, 90.9, 20.0), (40.0, 95.3, 10.0), (0.7, 70.2, 100.0)]
# So many columns does a catalog of jwst 3.0.0 have.
PEERS = 54


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    return write_references(tmp_path_factory.mktemp("references"))


def mosaic(stars=STARS, sky=1.0, noise=0.01, shape=SHAPE, seed=5):
    """Round stars on a sky, in MJy/sr."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    data = sky + rng.normal(0, noise, shape)
    for x, y, flux in stars:
        data += flux * np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / 1.3**2) / (2 * np.pi * 1.3**2)
    cards = header(pointing(0, 0), shape[1], 1).set(
        BUNIT="MJy/sr", PIXAR_SR=PIXAR_SR, PXSCLRT=1.0, FILENAME="x_i2d.fits", CRPIX1=50.0, CRPIX2=60.0
    )
    corners = footprint(imaging_wcs(pointing(0, 0), distortion(), shape, (START, START)), shape)
    return Image(
        header=cards,
        data=data.astype(np.float32),
        err=np.full(shape, noise, np.float32),
        dq=None,
        wht=np.ones(shape, np.float32),
        wcs=mosaic_wcs([corners], SCALE / 3600, Orientation(ROLL, -0.57, -1), shape=shape),
    )


def changed(image, **planes):
    """The image with other values in a part of it: plane -> (where, value)."""
    new = {name: getattr(image, name).copy() for name in planes}
    for name, (where, value) in planes.items():
        new[name][where] = value
    return image.with_(**new)


BASE = mosaic()
ALL, HALF, CORE = np.s_[:], np.s_[:, 60:], np.s_[39:43, 28:33]
NAN = np.nan
KINDS = {
    "stars": (BASE, 5),
    "one star": (mosaic(STARS[:1]), 1),
    "no star": (mosaic([]), 0),
    "all NaN": (changed(BASE, data=(ALL, NAN), err=(ALL, NAN), wht=(ALL, 0)), 0),
    "all NaN, with a weight": (changed(BASE, data=(ALL, NAN)), 0),
    "all zero": (changed(BASE, data=(ALL, 0.0)), 0),
    "half of it uncovered": (changed(BASE, data=(HALF, NAN), err=(HALF, NAN), wht=(HALF, 0)), 3),
    "two strips covered": (changed(BASE, err=(np.s_[20:, 20:], NAN), wht=(np.s_[20:, 20:], 0)), 1),
    "a star without a core": (changed(BASE, data=(CORE, NAN), err=(CORE, NAN), wht=(CORE, 0)), 5),
    "a star without a core, with a weight": (changed(BASE, data=(CORE, NAN)), 5),
    "a negative sky": (mosaic(sky=-3.0), 5),
    "no errors": (changed(BASE, err=(ALL, NAN)), 5),
    "smaller than a source may be": (mosaic([], shape=(4, 5)), 0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("box", [1000, 30])
@pytest.mark.filterwarnings("error")
def test_map_and_catalog_agree_whatever_the_mosaic(kind, box, references, tmp_path):
    image, count = KINDS[kind]
    catalog, segmentation = source_catalog.fn(image, references, SourceCatalogOptions(bkg_boxsize=box))
    table = catalog.table
    assert len(table) == count
    assert table.colnames[PEERS:] == [
        *(f"{k}_{v}{e}" for k in ("kron", "total") for v in ("flux", "abmag", "vegamag") for e in ("", "_err")),
        "kron_radius",
        "flags",
    ]
    assert set(NEEDED) <= set(table.colnames)
    assert segmentation.data.dtype == np.uint32
    assert segmentation.data.shape == image.data.shape
    np.testing.assert_array_equal(np.setdiff1d(segmentation.data, [0]), table["label"])
    write_catalog(catalog, tmp_path / "x_cat.ecsv")
    back = read_catalog(tmp_path / "x_cat.ecsv").table
    assert back.colnames == table.colnames
    for name in table.colnames:
        assert getattr(back[name], "unit", None) == getattr(table[name], "unit", None), name
        assert len(back[name]) == count
    if count:
        assert np.isfinite(table["xcentroid"]).all()
        assert (table["isophotal_flux"].value > 0).all()
        # Each source is in the map where the catalog says.
        x, y = (np.round(table[name]).astype(int) for name in ("xcentroid", "ycentroid"))
        here = segmentation.data[y, x]
        assert ((here == table["label"]) | (here == 0)).all()


def test_what_is_next_to_nothing_is_flagged(references):
    for kind in ("a star without a core", "a star without a core, with a weight"):
        table = source_catalog.fn(KINDS[kind][0], references, SourceCatalogOptions())[0].table
        flagged = table["flags"] & INCOMPLETE > 0
        for x, y in STARS[0][:2], STARS[4][:2]:
            assert flagged[np.argmin(np.hypot(table["xcentroid"] - x, table["ycentroid"] - y))]
        assert flagged.sum() == 2


def test_a_mosaic_without_errors_is_measured_without_them(references, caplog):
    with caplog.at_level(logging.WARNING):
        table = source_catalog.fn(KINDS["no errors"][0], references, SourceCatalogOptions())[0].table
    assert "has no errors" in caplog.text
    assert np.isnan(table["isophotal_flux_err"].value).all()
    expected = source_catalog.fn(BASE, references, SourceCatalogOptions())[0].table
    np.testing.assert_allclose(table["isophotal_flux"].value, expected["isophotal_flux"].value)


def test_fluxes_do_not_depend_on_the_sky(references):
    fluxes = [
        source_catalog.fn(mosaic(sky=sky), references, SourceCatalogOptions())[0].table["total_flux"].value
        for sky in (1.0, -3.0)
    ]
    np.testing.assert_allclose(*fluxes, rtol=1e-3)


@pytest.mark.parametrize("params", [(2.5,), (2.5, 1.4, 0, 1), (0.0, 1.4), (2.5, -1.0)])
def test_kron_params_that_make_no_ellipse_are_an_error(params, references):
    with pytest.raises(ValueError, match="kron_params"):
        source_catalog.fn(BASE, references, SourceCatalogOptions(kron_params=params))


def test_a_wider_kron_ellipse_holds_more_light(references):
    narrow, wide = (
        source_catalog.fn(BASE, references, SourceCatalogOptions(kron_params=(k, 1.0)))[0].table for k in (1.0, 2.5)
    )
    assert (wide["kron_flux"] > narrow["kron_flux"]).all()


def test_a_mosaic_without_a_pixel_area_is_an_error(references):
    cards = Header({key: value for key, value in BASE.header.items() if key != "PIXAR_SR"})
    with pytest.raises(ProductError, match="PIXAR_SR"):
        source_catalog.fn(BASE.with_(header=cards), references, SourceCatalogOptions())


# Column names and widths of the reference files of each instrument, and a row of each kind that must not be taken.
OPTICS = {
    "NIRCAM": ({"FILTER": "F150W2", "PUPIL": "F162M"}, ("filter", "pupil"), [("F150W2", "CLEAR"), ("F162M", "F162M")]),
    "NIRISS": ({"FILTER": "CLEAR", "PUPIL": "F200W"}, ("filter", "pupil"), [("CLEAR", "F150W"), ("GR150R", "F200W")]),
    "MIRI": ({"FILTER": "F770W", "SUBARRAY": "FULL"}, ("filter", "subarray"), [("F770W", "SUB64"), ("F560W", "FULL")]),
    "FGS": ({}, (), []),
}


@pytest.mark.parametrize("instrument", OPTICS)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_row_of_the_instrument_is_taken(instrument, scale, tmp_path):
    cards, columns, others = OPTICS[instrument]
    own = tuple(cards[column.upper()] for column in columns)
    rows = [
        (*optics, fraction, (5 + k) * fraction, 1 / fraction + k, 10 + k, 15 + k)
        for k, optics in enumerate([own, *others])
        for fraction in (0.3, 0.5, 0.7, 0.8)
    ]
    dtype = [(column, "S15") for column in columns]
    dtype += [(column, "f4") for column in ("eefraction", "radius", "apcorr", "skyin", "skyout")]
    table = fits.BinTableHDU(np.array(rows, dtype), name="APCORR")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "apcorr.fits")
    references = References({"apcorr": str(tmp_path / "apcorr.fits"), "abvegaoffset": None}, "none")
    head = BASE.header.set(INSTRUME=instrument, PXSCLRT=scale, **cards)
    found = _apertures(head, references, SourceCatalogOptions())
    np.testing.assert_allclose(found.radii, np.array([1.5, 2.5, 3.5]) / scale, rtol=1e-6)
    np.testing.assert_allclose(found.corrections, [1 / 0.3, 2, 1 / 0.7], rtol=1e-6)
    assert (found.sky_inner, found.sky_outer) == (10 / scale, 15 / scale)
    if columns:
        with pytest.raises(ReferenceNotFound, match=r"apcorr\.fits: expected one row for filter F999W"):
            _apertures(head.set(FILTER="F999W"), references, SourceCatalogOptions())


VEGA = {
    "NIRCAM": ({"filter": ["F150W2", "F150W2"], "pupil": ["CLEAR", "F162M"]}, {"FILTER": "F150W2", "PUPIL": "F162M"}),
    "NIRISS": ({"filter": ["CLEAR", "CLEAR"], "pupil": ["F150W", "F200W"]}, {"FILTER": "CLEAR", "PUPIL": "F200W"}),
    "MIRI": ({"filter": ["F560W", "F770W"]}, {"FILTER": "F770W"}),
    "FGS": ({"detector": ["GUIDER1", "GUIDER2"]}, {"DETECTOR": "GUIDER2"}),
}


@pytest.mark.parametrize("instrument", VEGA)
def test_the_offset_of_the_instrument_is_taken(instrument, tmp_path):
    columns, cards = VEGA[instrument]
    path = tmp_path / "abvegaoffset.asdf"
    AsdfFile({"abvega_offset": Table({**columns, "abvega_offset": [1.0, 2.0]})}).write_to(path)
    references = References({"apcorr": None, "abvegaoffset": str(path)}, "none")
    head = BASE.header.set(INSTRUME=instrument, **cards)
    assert _vega_offset(head, references) == 2.0
    with pytest.raises(ReferenceNotFound, match="expected one row"):
        _vega_offset(head.set(**dict.fromkeys(cards, "OTHER")), references)


def test_the_real_offsets_of_miri_are_read(shared):
    path = shared / "real/crds/cache_0676/references/jwst/miri/jwst_miri_abvegaoffset_0001.asdf"
    references = References({"apcorr": None, "abvegaoffset": str(path)}, "none")
    head = BASE.header.set(INSTRUME="MIRI", FILTER="F770W", SUBARRAY="FULL")
    assert _vega_offset(head, references) == pytest.approx(4.38398)
