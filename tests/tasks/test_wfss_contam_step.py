"""The light of a neighbour, in a cutout, is taken out of it."""

import numpy as np
import pytest
from wfss_scene import (
    PIXEL_AREA,
    POINTING,
    Place,
    brightness,
    catalog_of,
    distortion,
    draw_spectra,
    wcs_of,
    write_references,
)

from calibration.wcs.imaging import imaging_wcs
from infra.products.catalog import Catalog
from infra.products.header import Header
from infra.products.image import Image, Segmentation
from infra.references.content import References
from tasks.extract_1d import Extract1dOptions, extract_1d
from tasks.extract_2d import Extract2dOptions, extract_2d
from tasks.photom import PhotomOptions, photom
from tasks.srctype import srctype
from tasks.step import NoOptions
from tasks.wfss_contam import WfssContamOptions, wfss_contam

SIZE = 256
# The brighter one stands 4 pixels beside the trace of the fainter, and 30 along it.
PLACES = [Place(1, 120.0, 200.0, abmag=22.0), Place(2, 124.0, 230.0, abmag=20.0)]
LEVELS = [(30.0, 0.0), (60.0, 0.0)]
NONE = References({}, "none")


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    return write_references(tmp_path_factory.mktemp("references"))


@pytest.fixture(scope="module")
def scene(references):
    """Slits of two sources that overlap, the direct image of them and its map."""
    wcs = wcs_of("GR150R", SIZE, turn=0.0)
    data = draw_spectra(wcs, SIZE, PLACES, LEVELS).astype(np.float32)
    var = np.full((SIZE, SIZE), 1e-6, np.float32)
    cards = {
        "INSTRUME": "NIRISS", "EXP_TYPE": "NIS_WFSS", "FILTER": "GR150R", "PUPIL": "F200W", "SUBSTRT1": 1, "SUBSTRT2": 1,
        "SUBSIZE1": SIZE, "SUBSIZE2": SIZE, "EFFEXPTM": 100.0, "EXPMID": 60000.0, "BUNIT": "DN/s", "DISPAXIS": 2,
        "FILENAME": "jw_rate.fits",
    }  # fmt: skip
    image = Image(Header(cards), data, np.sqrt(var), np.zeros((SIZE, SIZE), np.uint32), var, var, var, wcs=wcs)
    slits = extract_2d.fn(image, references, Extract2dOptions(), Catalog(catalog_of(PLACES, wcs)))
    direct_wcs = imaging_wcs(POINTING, distortion(SIZE), (SIZE, SIZE))
    y, x = np.mgrid[:SIZE, :SIZE]
    direct, segmentation = np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.uint32)
    for place, (level, _) in zip(PLACES, LEVELS, strict=True):
        square = (x - place.x) ** 2 + (y - place.y) ** 2
        # Along the dispersion the spectra were drawn without a width, and the model is not finer than a pixel.
        direct += np.where(y == place.y, level * np.exp(-0.5 * (x - place.x) ** 2) / np.sqrt(2 * np.pi), 0).astype("f4")
        segmentation[square < 30] = place.label
    make = Image(Header({"BUNIT": "MJy/sr"}), direct, direct, segmentation, wcs=direct_wcs)
    return slits, make, Segmentation(Header({}), segmentation, direct_wcs)


def flux_of(slits, references, number):
    slits = photom.fn(srctype.fn(slits, NONE, NoOptions()), references, PhotomOptions())
    (table,) = extract_1d.fn(slits, references, Extract1dOptions()).tables
    row = table.rows[table.rows["SOURCE_ID"] == number][0]
    n = row["N_ALONGDISP"]
    wavelength = row["WAVELENGTH"][:n]
    truth = brightness(wavelength, LEVELS[number - 1][0], 0.0) * PIXEL_AREA * 1e6
    inside = (wavelength > 1.8) & (wavelength < 2.1)
    return np.mean(row["FLUX"][:n][inside] / truth[inside]) - 1


@pytest.mark.parametrize("degree", [None, 1])
def test_the_bias_of_an_overlapped_source_falls_at_least_fivefold(scene, references, degree):
    slits, direct, segmentation = scene
    before = flux_of(slits, references, 1)
    assert before > 0.3
    options = WfssContamOptions(polyfit_degree=degree)
    after = flux_of(wfss_contam.fn(slits, references, options, direct, segmentation), references, 1)
    assert abs(after) < before / (5 if degree is None else 20)


def test_a_source_keeps_its_own_light(scene, references):
    slits, direct, segmentation = scene
    alone = Segmentation(segmentation.header, np.where(segmentation.data == 2, 2, 0).astype(np.uint32), direct.wcs)
    done = wfss_contam.fn(slits, references, WfssContamOptions(), direct, alone)
    bright = [slit.data for one in (slits, done) for slit in one.slits if slit.source_id == 2]
    np.testing.assert_array_equal(bright[0], bright[1])


def test_it_is_off_by_default_and_says_when_it_cannot_work(scene, references):
    from tasks.step import STEPS

    assert not STEPS["wfss_contam"].default
    slits, direct, segmentation = scene
    none = References({**references.files, "photom": None}, "test")
    done = wfss_contam.fn(slits, none, WfssContamOptions(), direct, segmentation)
    assert done.header["S_CONTAM"] == "SKIPPED"
    assert done.recipe["wfss_contam"]["reason"] == "no PHOTOM reference file matches this exposure"
