"""Contamination in a crowded field: spectra of different slopes, with lines, disks and stars, against their truth.

The field is made light by light: Gaussians of the simulator, laid where the WCS puts each half of a pixel of each
spectrum. The direct image is wider than the spectra by two pixel boxes, as a mosaic is, and has a sky left in it.
"""

import numpy as np
import pytest
from wfss_scene import (
    FACTOR,
    PIXEL_AREA,
    POINTING,
    RESPONSE,
    WAVES,
    Place,
    catalog_of,
    distortion,
    wcs_of,
    write_references,
)

from calibration.simulate.scene import EXPONENTIAL, PSF, draw
from calibration.wcs.imaging import imaging_wcs
from infra.products.catalog import Catalog
from infra.products.header import Header
from infra.products.image import Image, Segmentation
from infra.products.slits import read_slits
from infra.references.content import References
from tasks.extract_1d import Extract1dOptions, extract_1d
from tasks.extract_2d import Extract2dOptions, extract_2d
from tasks.photom import PhotomOptions, photom
from tasks.products import save
from tasks.srctype import srctype
from tasks.step import NoOptions
from tasks.wfss_contam import WfssContamOptions, wfss_contam

SIZE, SKY = 320, 0.3
NONE = References({}, "none")
#: Number, x, y, level [MJy/sr times pixels], slope, half-light radius [pixel] (0: a star).
FIELD = (
    (1, 150.3, 290.2, 40.0, 0.0, 0.0), (2, 154.1, 262.7, 160.0, -1.5, 0.0),
    (3, 60.6, 250.4, 60.0, 1.0, 1.5), (4, 55.7, 285.1, 120.0, 2.0, 1.0),
    (5, 230.2, 270.9, 50.0, -1.0, 0.0), (6, 234.8, 240.6, 90.0, 1.5, 2.0),
    (7, 100.4, 300.3, 45.0, 0.5, 1.0), (8, 103.2, 325.8, 200.0, -2.0, 0.0),
)  # fmt: skip
OVERLAPPED = (1, 3, 5, 7)


def gaussians(radius, more):
    """Weights and covariances of a round source: the PSF, a disk, and ``more`` variance of pixel boxes."""
    disk = EXPONENTIAL if radius else ((1.0, 0.0),)
    weight = np.array([w * v for w, _ in PSF for v, _ in disk])
    variance = np.array([s * s + more + r * radius**2 for _, s in PSF for _, r in disk])
    return weight / weight.sum(), np.stack([variance, variance, 0 * variance], axis=-1)


def spectrum(wavelength, slope):
    return (wavelength / 2.0) ** slope


def write_field(wcs):
    """The grism exposure [DN/s], the direct image [MJy/sr] and the map of its sources."""
    grism = np.zeros((SIZE, SIZE))
    mosaic, label = np.zeros((SIZE + 40, SIZE)), np.zeros((SIZE + 40, SIZE), np.uint32)
    to_grism = wcs.get_transform("detector", "grism_detector")
    edges = np.linspace(1.7, 2.28, 2 * 128 + 1)
    wavelength = 0.5 * (edges[1:] + edges[:-1])
    brightest = np.zeros(mosaic.shape)
    for number, x0, y0, level, slope, radius in FIELD:
        light = level * spectrum(wavelength, slope) * np.diff(edges) / (FACTOR * np.interp(wavelength, WAVES, RESPONSE))
        ones = np.ones_like(wavelength)
        x, y, *_ = to_grism(x0 * ones, y0 * ones, wavelength, ones)
        for at_x, at_y, amount in zip(x, y, light, strict=True):
            draw(grism, amount, at_x, at_y, *gaussians(radius, 0.0))
        alone = np.zeros(mosaic.shape)
        # The direct image sees the mean over the filter.
        draw(alone, level * np.average(spectrum(wavelength, slope)), x0, y0, *gaussians(radius, 2 / 12))
        mosaic += alone
        label[(alone > 0.03) & (alone > brightest)] = number
        brightest = np.maximum(brightest, alone)
    return grism, mosaic + SKY, label


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    references = write_references(tmp_path_factory.mktemp("references"))
    wcs = wcs_of("GR150R", SIZE, turn=0.1)
    grism, mosaic, label = write_field(wcs)
    var = np.full((SIZE, SIZE), 1e-6, np.float32)
    cards = {
        "INSTRUME": "NIRISS", "EXP_TYPE": "NIS_WFSS", "FILTER": "GR150R", "PUPIL": "F200W", "SUBSTRT1": 1, "SUBSTRT2": 1,
        "SUBSIZE1": SIZE, "SUBSIZE2": SIZE, "EFFEXPTM": 100.0, "EXPMID": 60000.0, "BUNIT": "DN/s", "DISPAXIS": 2,
        "FILENAME": "jw_rate.fits",
    }  # fmt: skip
    image = Image(
        Header(cards), grism.astype(np.float32), np.sqrt(var), np.zeros(var.shape, np.uint32), var, var, var, wcs=wcs
    )
    places = [Place(n, x, y, abmag=22.0 - level / 100) for n, x, y, level, _, _ in FIELD]
    slits = extract_2d.fn(image, references, Extract2dOptions(), Catalog(catalog_of(places, wcs)))
    direct_wcs = imaging_wcs(POINTING, distortion(SIZE), (SIZE + 40, SIZE))
    plane = mosaic.astype(np.float32)
    direct = Image(Header({"BUNIT": "MJy/sr"}), plane, plane, label, wcs=direct_wcs)
    return references, slits, direct, Segmentation(Header({}), label, direct_wcs)


def biases(slits, references):
    """Source -> mean of its spectrum over the truth."""
    slits = photom.fn(srctype.fn(slits, NONE, NoOptions()), references, PhotomOptions())
    (table,) = extract_1d.fn(slits, references, Extract1dOptions()).tables
    found = {}
    for number, _, _, level, slope, _ in FIELD:
        rows = table.rows[table.rows["SOURCE_ID"] == number]
        if not len(rows):
            continue
        row = rows[0]
        n = row["N_ALONGDISP"]
        wavelength = row["WAVELENGTH"][:n]
        truth = level * spectrum(wavelength, slope) * PIXEL_AREA * 1e6
        inside = (wavelength > 1.78) & (wavelength < 2.2) & np.isfinite(row["FLUX"][:n])
        if inside.sum() < 40:
            continue
        ratio = row["FLUX"][:n][inside] / truth[inside]
        found[number] = ratio.mean()
    return found


@pytest.mark.parametrize(("degree", "fall"), [(None, 5), (2, 20)])
def test_the_bias_of_overlapped_sources_falls(field, degree, fall):
    references, slits, direct, segmentation = field
    before = biases(slits, references)
    done = wfss_contam.fn(slits, references, WfssContamOptions(polyfit_degree=degree), direct, segmentation)
    after = biases(done, references)
    for number in OVERLAPPED:
        assert before[number] - 1 > 0.5
        assert abs(after[number] - 1) < (before[number] - 1) / fall
    # Those that dominate their cutouts come out within the light that their boxes leave out.
    assert all(abs(after[number] - 1) < 0.05 for number in (2, 4, 6))


def test_the_models_are_written_on_request_and_add_up(field, tmp_path):
    references, slits, direct, segmentation = field
    options = WfssContamOptions(save_simulated_image=True, save_contam_images=True, polyfit_degree=1)
    done = wfss_contam.fn(slits, references, options, direct, segmentation)
    assert set(done.side) == {"simul", "simul_slits", "contam"}
    for before, after, light, own in zip(
        slits.slits, done.slits, done.side["contam"].slits, done.side["simul_slits"].slits, strict=True
    ):
        np.testing.assert_allclose(after.data + light.data, before.data, atol=1e-5)
        y, x = before.header["SLTSTRT2"] - 1, before.header["SLTSTRT1"] - 1
        whole = done.side["simul"].data[y : y + before.data.shape[0], x : x + before.data.shape[1]]
        np.testing.assert_allclose(light.data + own.data, whole, atol=1e-5)
    url = save(done.side["contam"], str(tmp_path / "jw_contam.fits"))
    again = read_slits(url)
    assert [slit.source_id for slit in again.slits] == [slit.source_id for slit in slits.slits]
    np.testing.assert_array_equal(again.slits[0].data, done.side["contam"].slits[0].data)


def test_nothing_is_kept_aside_by_default(field):
    references, slits, direct, segmentation = field
    assert not wfss_contam.fn(slits, references, WfssContamOptions(), direct, segmentation).side


def test_faint_neighbours_are_left_out_on_request(field):
    references, slits, direct, segmentation = field
    # 160 MJy/sr over pixels of 1e-13 sr are 21.0 mag, 40 are 22.4: of the neighbours in these boxes 2 and 8 stay.
    done = wfss_contam.fn(slits, references, WfssContamOptions(magnitude_limit=21.3), direct, segmentation)
    whole = wfss_contam.fn(slits, references, WfssContamOptions(), direct, segmentation)
    changed = {
        one.source_id: (not np.array_equal(one.data, slit.data), not np.array_equal(one.data, other.data))
        for slit, one, other in zip(slits.slits, done.slits, whole.slits, strict=True)
    }
    assert changed[1] == (True, False), "its neighbour 2 is bright"
    assert changed[4] == (False, True), "its neighbour 3 is faint"
    none = wfss_contam.fn(slits, references, WfssContamOptions(magnitude_limit=15.0), direct, segmentation)
    assert none.header["S_CONTAM"] == "SKIPPED"
    assert none.recipe["wfss_contam"]["reason"] == "no source is brighter than the magnitude limit of 15.0"


def test_orders_are_those_that_are_asked_for(field):
    references, slits, direct, segmentation = field
    done = wfss_contam.fn(slits, references, WfssContamOptions(orders=[2]), direct, segmentation)
    assert done.header["S_CONTAM"] == "SKIPPED"
    assert done.recipe["wfss_contam"]["reason"] == "the PHOTOM reference file has no row for this filter and grism"
