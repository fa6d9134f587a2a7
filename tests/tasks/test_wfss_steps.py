"""The slitless steps from a grism image to combined spectra, against the spectra that were drawn."""

import logging

import numpy as np
import pytest
from astropy.io import fits
from wfss_scene import (
    LINE,
    PIXEL_AREA,
    Place,
    brightness,
    catalog_of,
    draw_spectra,
    wcs_of,
    write_references,
)

from calibration import dq as flags
from infra.products.catalog import Catalog
from infra.products.header import Header
from infra.products.image import Image
from infra.references.content import References
from tasks.background import BackgroundOptions, background
from tasks.combine_1d import Combine1dOptions, combine_1d
from tasks.exp_to_source import exp_to_source
from tasks.extract_1d import Extract1dOptions, extract_1d, group_id
from tasks.extract_2d import Extract2dOptions, extract_2d
from tasks.photom import PhotomOptions, photom
from tasks.pixel_replace import PixelReplaceOptions, pixel_replace
from tasks.srctype import srctype
from tasks.step import NoOptions, NothingToDo

SIZE = 256
PLACES = [
    Place(3, 60.3, 200.6, abmag=21.0),
    Place(11, 150.7, 215.2, half=8, abmag=20.0, extended=True),
    Place(5, 205.1, 190.4, abmag=23.0),
    Place(8, 500.0, 210.0, abmag=22.0),  # off the detector
]
LEVELS = [(40.0, 3.0), (90.0, 1.0), (25.0, 6.0), (50.0, 1.0)]
NONE = References({}, "none")


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    return write_references(tmp_path_factory.mktemp("references"))


def header_of(grism, exposure):
    return Header(
        {
            "TELESCOP": "JWST", "INSTRUME": "NIRISS", "DETECTOR": "NIS", "EXP_TYPE": "NIS_WFSS", "FILTER": grism,
            "PUPIL": "F200W", "SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": SIZE, "SUBSIZE2": SIZE, "EFFEXPTM": 100.0,
            "EFFINTTM": 50.0, "PROGRAM": "01234", "OBSERVTN": "001", "VISIT": "001", "VISITGRP": "02", "SEQ_ID": "1",
            "ACT_ID": "01", "EXPOSURE": str(exposure), "EXPMID": 60000.0, "BUNIT": "DN/s", "SCATFILE": "field_cat.ecsv",
            "DISPAXIS": 2 if grism == "GR150R" else 1, "FILENAME": f"jw01234001001_02101_0000{exposure}_nis_rate.fits",
        }
    )  # fmt: skip


NOISE = 0.002  # DN/s


def exposure_of(grism, number, places=PLACES, levels=LEVELS):
    wcs = wcs_of(grism, SIZE, turn=0.1)
    data = draw_spectra(wcs, SIZE, places, levels) + np.random.default_rng(number).normal(0, NOISE, (SIZE, SIZE))
    variance = np.full((SIZE, SIZE), NOISE**2 / 2, np.float32)
    dq = np.zeros((SIZE, SIZE), np.uint32)
    return Image(
        header_of(grism, number),
        data.astype(np.float32),
        np.full((SIZE, SIZE), NOISE, np.float32),
        dq,
        variance,
        variance,
        0 * variance,
        wcs=wcs,
    ), Catalog(catalog_of(places, wcs))


def calibrate(grism, number, references, **options):
    image, catalog = exposure_of(grism, number)
    slits = extract_2d.fn(image, references, Extract2dOptions(**options), catalog)
    slits = srctype.fn(slits, NONE, NoOptions())
    return photom.fn(slits, references, PhotomOptions())


@pytest.fixture(scope="module")
def calibrated(references):
    return [calibrate("GR150R", 1, references), calibrate("GR150R", 2, references), calibrate("GR150C", 3, references)]


def measure_line(wavelength, flux, level, line):
    """Offset of the line [um], and its flux over the truth."""
    continuum = brightness(wavelength, level, 0.0) * PIXEL_AREA * 1e6
    near = np.abs(wavelength - LINE[0]) < 0.025
    order = np.argsort(wavelength[near])
    at, excess = wavelength[near][order], (flux - continuum)[near][order]
    total = np.trapezoid(excess, at)
    truth = level * line * LINE[1] * np.sqrt(2 * np.pi) * PIXEL_AREA * 1e6
    return np.trapezoid(excess * (at - LINE[0]), at) / total, total / truth


@pytest.mark.parametrize(("grism", "number"), [("GR150R", 1), ("GR150C", 3)])
def test_spectra_are_those_that_were_drawn(references, grism, number):
    spectra = extract_1d.fn(calibrate(grism, number, references), references, Extract1dOptions())
    (table,) = spectra.tables
    seen = 0
    for row in table.rows:
        level, line = LEVELS[[place.label for place in PLACES].index(row["SOURCE_ID"])]
        n = row["N_ALONGDISP"]
        wavelength, flux, error = row["WAVELENGTH"][:n], row["FLUX"][:n], row["FLUX_ERROR"][:n]
        quiet = (wavelength > 1.75) & (wavelength < 2.25) & (np.abs(wavelength - LINE[0]) > 0.03)
        if quiet.sum() < 60:
            continue  # mostly off the detector
        seen += 1
        truth = brightness(wavelength, level, 0.0) * PIXEL_AREA * 1e6
        pull = (flux - truth)[quiet] / error[quiet]
        noise = np.mean(error[quiet] / truth[quiet]) / np.sqrt(quiet.sum())
        assert np.mean(flux[quiet] / truth[quiet]) == pytest.approx(1, abs=0.001 + 3 * noise)
        # Of some 90 values: 1 within three times 0.075.
        assert np.std(pull) == pytest.approx(1, abs=0.23)
        offset, ratio = measure_line(wavelength, flux, level, line)
        assert abs(offset) < 0.1 * 0.00467, "a tenth of a pixel"
        assert ratio == pytest.approx(1, abs=0.02)
    assert seen >= 2


@pytest.mark.parametrize(("grism", "number"), [("GR150R", 1), ("GR150C", 3)])
def test_optimal_spectra_are_those_that_were_drawn(references, grism, number):
    slits = calibrate(grism, number, references)
    (table,) = extract_1d.fn(slits, references, Extract1dOptions(extraction_type="optimal")).tables
    (summed,) = extract_1d.fn(slits, references, Extract1dOptions()).tables
    for row, other in zip(table.rows, summed.rows, strict=True):
        level, line = LEVELS[[place.label for place in PLACES].index(row["SOURCE_ID"])]
        n = row["N_ALONGDISP"]
        wavelength, flux, error = row["WAVELENGTH"][:n], row["FLUX"][:n], row["FLUX_ERROR"][:n]
        quiet = (wavelength > 1.75) & (wavelength < 2.25) & (np.abs(wavelength - LINE[0]) > 0.03)
        if quiet.sum() < 60:
            continue
        truth = brightness(wavelength, level, 0.0) * PIXEL_AREA * 1e6
        noise = np.mean(error[quiet] / truth[quiet]) / np.sqrt(quiet.sum())
        assert np.mean(flux[quiet] / truth[quiet]) == pytest.approx(1, abs=0.005 + 3 * noise)
        assert np.std((flux - truth)[quiet] / error[quiet]) == pytest.approx(1, abs=0.3)
        assert np.median(error[quiet]) < 0.75 * np.median(other["FLUX_ERROR"][:n][quiet])
        offset, ratio = measure_line(wavelength, flux, level, line)
        assert abs(offset) < 0.1 * 0.00467, "a tenth of a pixel"
        assert ratio == pytest.approx(1, abs=0.02)


def test_optimal_extraction_has_no_background_of_its_own(calibrated, references):
    options = Extract1dOptions(extraction_type="optimal", subtract_background=True)
    with pytest.raises(ValueError, match=r"optimal has no rows beside the source.*choose box"):
        extract_1d.fn(calibrated[0], references, options)


@pytest.mark.parametrize("unit", ["pixels", "arcsec"])
def test_point_sources_are_corrected_for_the_size_of_their_box(calibrated, references, tmp_path, unit):
    dtype = [("filter", "S12"), ("pupil", "S15"), ("wavelength", "f4", (2,)), ("nelem_wl", "i2"), ("size", "f4", (3,)),
             ("nelem_size", "i2"), ("apcorr", "f4", (2, 3))]  # fmt: skip
    sizes = np.array([9.0, 11.0, 13.0]) * (1 if unit == "pixels" else np.sqrt(0.0042))
    rows = np.array([("GR150R", "F200W", (1.5, 2.5), 2, sizes, 3, [(1.4, 1.1, 1.0)] * 2)], dtype)
    table = fits.BinTableHDU(rows, name="APCORR")
    table.header["SIZEUNIT"] = unit
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "apcorr.fits")
    known = References({**references.files, "apcorr": str(tmp_path / "apcorr.fits")}, "test")
    corrected, plain = (extract_1d.fn(calibrated[0], one, Extract1dOptions()).tables[0] for one in (known, references))
    for row, other in zip(corrected.rows, plain.rows, strict=True):
        factor = 1.1 if row["SOURCE_TYPE"] == b"POINT" else 1.0
        np.testing.assert_allclose(row["FLUX"], factor * other["FLUX"], rtol=1e-5)
        np.testing.assert_allclose(row["FLUX_ERROR"], factor * other["FLUX_ERROR"], rtol=1e-5)


def test_three_exposures_make_one_spectrum_per_source(calibrated, references):
    sources = exp_to_source.fn(tuple(calibrated), NONE, NoOptions())
    assert [source.slits[0].source_id for source in sources] == [3, 5, 11]
    spectra = extract_1d.fn(sources, references, Extract1dOptions())
    assert [table.cards["EXPGRPID"] for table in spectra.tables] == [f"jw01234001001_02101_{k}_1" for k in (1, 2, 3)]
    assert [table.cards["DISPAXIS"] for table in spectra.tables] == [2, 2, 1]
    assert spectra.tables[0].cards["FILENAME"] == "jw01234001001_02101_00001_nis_cal.fits"
    assert all(table.rows["SOURCE_ID"].tolist() == [3, 5, 11] for table in spectra.tables)
    combined = combine_1d.fn(spectra, NONE, Combine1dOptions())
    assert combined.model == "WFSSMultiCombinedSpecModel"
    (table,) = combined.tables
    row = table.rows[table.rows["SOURCE_ID"] == 3][0]
    n = row["N_ALONGDISP"]
    offset, ratio = measure_line(row["WAVELENGTH"][:n], row["FLUX"][:n], *LEVELS[0])
    assert abs(offset) < 0.1 * 0.00467
    assert ratio == pytest.approx(1, abs=0.02)
    single = spectra.tables[0].rows[0]
    assert np.nanmedian(row["ERROR"][:n]) < 0.8 * np.nanmedian(single["FLUX_ERROR"])
    assert set(np.unique(row["WEIGHT"][:n])) <= {100.0, 200.0, 300.0, 400.0}


def test_slits_carry_what_their_source_is(calibrated):
    slits = calibrated[0].slits
    assert [(slit.source_id, slit.header["SRCTYPE"]) for slit in slits] == [
        (11, "EXTENDED"),
        (3, "POINT"),
        (5, "POINT"),
    ]
    assert {slit.header["BUNIT"] for slit in slits} == {"MJy/sr"}
    assert slits[1].data.shape[1] == 11
    assert slits[0].data.shape[1] > 15
    assert calibrated[0].header["S_EXTR2D"] == calibrated[0].header["S_PHOTOM"] == "COMPLETE"
    for slit in slits:
        ny, nx = slit.data.shape
        ra, dec, wavelength, order = slit.wcs(nx // 2, ny // 2)
        assert (ra, dec) == pytest.approx((slit.header["SRCRA"], slit.header["SRCDEC"]), abs=1e-6)
        assert wavelength == pytest.approx(slit.wavelength[ny // 2, nx // 2], abs=0.05 * 0.00467)
        assert order == slit.order == 1


def test_a_missing_pixel_lowers_the_sum_and_its_estimate_restores_it(references):
    image, catalog = exposure_of("GR150R", 1)
    slits = extract_2d.fn(image, references, Extract2dOptions(source_ids=[3]), catalog)
    (slit,) = slits.slits
    dq = slit.dq.copy()
    dq[60, 5] = flags.PIXEL["DO_NOT_USE"]
    spoiled = slits.with_(slits=(slit.with_(dq=dq),))
    sums = []
    for one in (slits, spoiled, pixel_replace.fn((spoiled,), NONE, PixelReplaceOptions())[0]):
        one = photom.fn(srctype.fn(one, NONE, NoOptions()), references, PhotomOptions())
        row = extract_1d.fn(one, references, Extract1dOptions()).tables[0].rows[0]
        sums.append((row["FLUX"][60], row["NPIXELS"][60]))
    whole, lost, restored = sums
    assert (lost[1], restored[1]) == (whole[1] - 1, whole[1])
    assert lost[0] < 0.8 * whole[0]
    assert restored[0] == pytest.approx(whole[0], rel=0.15)


def test_only_the_sources_that_are_asked_for_are_extracted(references, caplog):
    image, catalog = exposure_of("GR150R", 1)
    with caplog.at_level(logging.WARNING):
        slits = extract_2d.fn(image, references, Extract2dOptions(source_ids=[5, 8, 99]), catalog)
    assert [slit.source_id for slit in slits.slits] == [5]
    assert "extract_2d: field_cat.ecsv has no source 99" in caplog.messages
    assert any(
        message.startswith("extract_2d: source 8 of field_cat.ecsv has no spectrum") for message in caplog.messages
    )
    place = catalog.table["sky_centroid"][0]
    near = Extract2dOptions(source_ra=[place.ra.deg], source_dec=[place.dec.deg])
    assert [slit.source_id for slit in extract_2d.fn(image, references, near, catalog).slits] == [3]


def test_an_empty_catalog_stops_extract_2d_and_says_so(references):
    image, catalog = exposure_of("GR150R", 1)
    with pytest.raises(
        NothingToDo, match=r"field_cat.ecsv has no source with a position: there is nothing to extract from jw0"
    ):
        extract_2d.fn(image, references, Extract2dOptions(), Catalog(catalog.table[:0]))


def test_a_catalog_of_another_field_stops_extract_2d_and_says_so(references):
    image, catalog = exposure_of("GR150R", 1)
    with pytest.raises(NothingToDo, match=r"none of the 1 sources of field_cat.ecsv has a spectrum on the detector"):
        extract_2d.fn(image, references, Extract2dOptions(), Catalog(catalog.table[3:]))


def test_without_a_pixel_area_there_is_no_flux(calibrated, references):
    slits = calibrated[0].with_(
        slits=tuple(slit.with_(header=slit.header.set(PIXAR_SR=None)) for slit in calibrated[0].slits)
    )
    with pytest.raises(ValueError, match=r"no pixel area PIXAR_SR"):
        extract_1d.fn(slits, references, Extract1dOptions())


def test_spectra_that_are_not_calibrated_are_in_counts(references):
    image, catalog = exposure_of("GR150R", 1)
    slits = extract_2d.fn(image, references, Extract2dOptions(), catalog)
    table = extract_1d.fn(slits, references, Extract1dOptions()).tables[0]
    assert table.units["FLUX"] == "DN/s"
    assert np.nanmax(table.rows["FLUX"]) < 100


def test_the_sky_is_not_subtracted_without_a_reference(references):
    image, catalog = exposure_of("GR150R", 1)
    done = background.fn(image, references, BackgroundOptions(), (), catalog)
    assert done.header["S_BKDSUB"] == "SKIPPED"
    assert done.recipe["bkg_subtract"]["reason"] == "no BKG reference file matches this exposure"


def test_a_source_without_any_value_is_left_out_of_the_mean(calibrated, references, caplog):
    spectra = extract_1d.fn(calibrated[0], references, Extract1dOptions())
    rows = spectra.tables[0].rows.copy()
    rows["FLUX"][0] = np.nan
    spoiled = spectra.with_(tables=(spectra.tables[0].with_(rows=rows),))
    with caplog.at_level(logging.WARNING):
        combined = combine_1d.fn(spoiled, NONE, Combine1dOptions())
    assert combined.tables[0].rows["SOURCE_ID"].tolist() == [5, 11]
    assert "combine_1d: source 3, order 1 has no value in any exposure, left out" in caplog.messages


def test_nothing_to_combine_is_skipped(calibrated, references):
    spectra = extract_1d.fn(calibrated[0], references, Extract1dOptions())
    rows = spectra.tables[0].rows.copy()
    rows["FLUX"] = np.nan
    done = combine_1d.fn(spectra.with_(tables=(spectra.tables[0].with_(rows=rows),)), NONE, Combine1dOptions())
    assert done.header["S_COMB1D"] == "SKIPPED"
    assert done.model == "WFSSMultiSpecModel"


def test_an_exposure_without_its_time_has_no_weight(calibrated, references):
    slits = calibrated[0].with_(header=calibrated[0].header.set(EFFEXPTM=None))
    spectra = extract_1d.fn(slits, references, Extract1dOptions())
    with pytest.raises(ValueError, match=r"no EFFEXPTM to weight its spectra with.*exptime_key=unit_weight"):
        combine_1d.fn(spectra, NONE, Combine1dOptions())
    assert combine_1d.fn(spectra, NONE, Combine1dOptions(exptime_key="unit_weight")).tables


def test_noisier_spectra_count_less_by_their_errors(calibrated, references):
    spectra = extract_1d.fn(calibrated[0], references, Extract1dOptions())
    rows = spectra.tables[0].rows.copy()
    rows["FLUX"] *= 3
    rows["FLUX_ERROR"] *= 3
    both = spectra.with_(tables=(spectra.tables[0], spectra.tables[0].with_(rows=rows)))
    (mean,) = combine_1d.fn(both, NONE, Combine1dOptions(exptime_key="snr")).tables
    (alone,) = combine_1d.fn(spectra, NONE, Combine1dOptions()).tables
    # Weights of 1 and 1/9: (1 + 3/9) / (1 + 1/9).
    np.testing.assert_allclose(mean.rows["FLUX"], 1.2 * alone.rows["FLUX"], rtol=1e-5)


def test_sources_and_orders_of_single_exposures_are_kept(references):
    image, catalog = exposure_of("GR150R", 1)
    other, _ = exposure_of("GR150R", 2)
    some = extract_2d.fn(image, references, Extract2dOptions(source_ids=[3, 11], extract_orders=[1, 2]), catalog)
    more = extract_2d.fn(other, references, Extract2dOptions(source_ids=[5, 11]), catalog)
    exposures = tuple(srctype.fn(slits, NONE, NoOptions()) for slits in (some, more))
    spectra = extract_1d.fn(exp_to_source.fn(exposures, NONE, NoOptions()), references, Extract1dOptions())
    seen = {
        (table.cards["EXPGRPID"], table.cards["SPORDER"]): table.rows["SOURCE_ID"][
            table.rows["N_ALONGDISP"] > 0
        ].tolist()
        for table in spectra.tables
    }
    one, two = (f"jw01234001001_02101_{k}" for k in (1, 2))
    assert seen[f"{one}_1", 1] == [3, 11]
    assert seen[f"{two}_1", 1] == [5, 11]
    assert set(seen) == {(f"{one}_1", 1), (f"{one}_2", 2), (f"{two}_1", 1)}
    combined = combine_1d.fn(spectra, NONE, Combine1dOptions())
    by_order = {table.cards["SPORDER"]: table.rows for table in combined.tables}
    assert by_order[1]["SOURCE_ID"].tolist() == [3, 5, 11]
    counts = {row["SOURCE_ID"]: np.nanmax(row["N_INPUT"][: row["N_ALONGDISP"]]) for row in by_order[1]}
    assert counts == {3: 1, 5: 1, 11: 2}
    assert set(by_order[2]["SOURCE_ID"].tolist()) <= {3, 11}


def test_one_exposure_alone_comes_through_stage_3_as_it_is(calibrated, references):
    slits = calibrated[0]
    sources = pixel_replace.fn(exp_to_source.fn((slits,), NONE, NoOptions()), NONE, PixelReplaceOptions())
    spectra = extract_1d.fn(sources, references, Extract1dOptions())
    (mean,) = combine_1d.fn(spectra, NONE, Combine1dOptions()).tables
    (single,) = extract_1d.fn(slits, references, Extract1dOptions()).tables
    for row, other in zip(mean.rows, single.rows, strict=True):
        n, good = row["N_ALONGDISP"], np.isfinite(other["FLUX"])
        rising = np.argsort(other["WAVELENGTH"][good])
        assert n == good.sum()
        np.testing.assert_allclose(row["FLUX"][:n], other["FLUX"][good][rising], rtol=1e-6)
        np.testing.assert_allclose(row["ERROR"][:n], other["FLUX_ERROR"][good][rising], rtol=1e-6)


def test_exposures_without_spectra_are_an_error(calibrated):
    with pytest.raises(ValueError, match=r"there is no spectrum in jw01234001001_02101_00001_nis_rate.fits"):
        exp_to_source.fn((calibrated[0].with_(slits=()),), NONE, NoOptions())


def test_spectra_of_an_order_without_sensitivity_stay_in_counts(references, caplog):
    image, catalog = exposure_of("GR150R", 1)
    slits = extract_2d.fn(image, references, Extract2dOptions(extract_orders=[1, 2]), catalog)
    assert {slit.order for slit in slits.slits} == {1, 2}
    with caplog.at_level(logging.WARNING):
        done = photom.fn(slits, references, PhotomOptions())
    assert {(slit.order, slit.header["BUNIT"]) for slit in done.slits} == {(1, "MJy/sr"), (2, "DN/s")}
    assert "photom: the PHOTOM reference file has no row for order 2, its spectra stay in DN/s" in caplog.messages
    tables = extract_1d.fn(done, references, Extract1dOptions()).tables
    assert {table.cards["SPORDER"]: table.units["FLUX"] for table in tables} == {1: "Jy", 2: "DN/s"}


def test_an_exposure_is_named_by_its_identifiers():
    assert group_id(header_of("GR150R", 2)) == "jw01234001001_02101_2"


def with_sky(references, tmp_path, level=0.6):
    """A grism image on a sky, and its references."""
    image, catalog = exposure_of("GR150R", 1)
    y, x = np.mgrid[:SIZE, :SIZE]
    sky = (1 + 0.2 * np.cos(x / 40) + 0.001 * y).astype(np.float32)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(sky, name="SCI")]).writeto(tmp_path / "bkg.fits")
    known = References({**references.files, "bkg": str(tmp_path / "bkg.fits")}, "test")
    return image.with_(data=image.data + np.float32(level) * sky), catalog, known, image


def test_the_sky_is_scaled_to_the_pixels_without_spectra(references, tmp_path):
    image, catalog, known, clean = with_sky(references, tmp_path)
    done = background.fn(image, known, BackgroundOptions(), (), catalog)
    assert done.header["BKGD_SCL"] == pytest.approx(0.6, abs=0.001)
    assert np.median(done.data - clean.data) == pytest.approx(0, abs=0.001)
    assert done.header["R_BKG"] == "crds://bkg.fits"


def test_without_a_catalog_all_pixels_count_as_sky(references, tmp_path, caplog):
    image, _, known, _ = with_sky(references, tmp_path)
    with caplog.at_level(logging.WARNING):
        done = background.fn(image, known, BackgroundOptions(), (), None)
    assert "background: there is no source catalog, the sky is scaled to all pixels" in caplog.messages
    assert done.header["S_BKDSUB"] == "COMPLETE"


def test_a_field_full_of_spectra_leaves_the_sky_in(references, tmp_path):
    image, _, known, _ = with_sky(references, tmp_path)
    crowd = Catalog(catalog_of([Place(k + 1, 3 * k, 200, half=90, extended=True) for k in range(85)], image.wcs))
    done = background.fn(image, known, BackgroundOptions(), (), crowd)
    assert done.header["S_BKDSUB"] == "SKIPPED"
    assert "pixels are free of spectra" in done.recipe["bkg_subtract"]["reason"]
    np.testing.assert_array_equal(done.data, image.data)
