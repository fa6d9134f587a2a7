"""Slitless spectra against the official package, on the same grism images and catalog.

The tolerances are those of the mode: boxes within 1 pixel, wavelengths within 0.1 of a spectral pixel, fluxes within
0.5 % or 0.1 of the error. The package turns the trace and its wavelengths to opposite sides when the wheel is not where
the reference knows it (0.002 pixels here); we turn both to the side of the trace. It also weights all spectra of a source
with the time of its first exposure, so that the exposures here are equally long.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tiny_cache import write_cache
from wfss_scene import Place, catalog_of, draw_spectra, wcs_of, write_model_references

from calibration import dq as flags
from infra.products.catalog import Catalog, read_catalog, write_catalog
from infra.products.header import Header
from infra.products.image import Image, read_image, write_image
from infra.products.slits import read_slits, write_slits
from infra.products.spectrum import read_spectra
from infra.references.content import References
from infra.synthetic.crds_cache import known_types
from tasks.combine_1d import Combine1dOptions, combine_1d
from tasks.exp_to_source import exp_to_source
from tasks.extract_1d import Extract1dOptions, extract_1d
from tasks.extract_2d import Extract2dOptions, extract_2d
from tasks.photom import PhotomOptions, photom
from tasks.pixel_replace import PixelReplaceOptions, pixel_replace
from tasks.srctype import srctype
from tasks.step import NoOptions

SIZE = 256
NAMES = {"GR150R": (1, 2), "GR150C": (3,)}
PIXEL = 1.55 / 331.85  # um
NONE = References({}, "none")

PEER = """
import sys
from jwst.extract_2d import Extract2dStep
from jwst.srctype import SourceTypeStep
from jwst.photom import PhotomStep
from jwst.extract_1d import Extract1dStep
from jwst.pipeline import Spec3Pipeline
from jwst.pixel_replace import PixelReplaceStep
for k in (1, 2, 3):
    name = f"jw01234001001_02101_0000{k}_nis"
    slits = Extract2dStep.call(name + "_rate.fits", override_wavelengthrange="wavelengthrange.asdf")
    slits = SourceTypeStep.call(slits)
    slits = PhotomStep.call(slits, override_photom="photom.fits", override_area="N/A")
    slits.save("peer/" + name + "_cal.fits")
    Extract1dStep.call(slits, override_apcorr="N/A", override_psf="N/A").save("peer/" + name + "_x1d.fits")
for algorithm in ("mingrad", "fit_profile"):
    filled = PixelReplaceStep.call("jw01234001001_02101_00001_nis_cal.fits", skip=False, algorithm=algorithm)
    filled.save(f"peer/{algorithm}_cal.fits")
# The package's stage 3 on our products.
extract = {"override_apcorr": "N/A", "override_psf": "N/A", "override_extract1d": "N/A"}
Spec3Pipeline.call("spec3_asn.json", save_results=True, output_dir="peer", steps={"extract_1d": extract})
"""


def field():
    """Sources in the field, at its edges and outside of it, points and extended ones."""
    rng = np.random.default_rng(11)
    return [
        Place(k + 1, *rng.uniform(-30, SIZE + 100, 2), rng.uniform(2, 8), rng.uniform(18, 26), bool(k % 2))
        for k in range(16)
    ]


def write_inputs(folder: Path) -> References:
    """Grism images after assign_wcs, their catalog, reference files, and an association."""
    places = field()
    levels = [(200 * 10 ** (-0.2 * (place.abmag - 20)), 1.0) for place in places]
    for grism, numbers in NAMES.items():
        wcs = wcs_of(grism, SIZE, turn=0.02)
        write_catalog(Catalog(catalog_of(places, wcs)), folder / "field_cat.ecsv")
        for number in numbers:
            rng = np.random.default_rng(number)
            data = (draw_spectra(wcs, SIZE, places, levels) + rng.normal(0, 0.02, (SIZE, SIZE))).astype(np.float32)
            dq = (rng.random(data.shape) < 0.005).astype(np.uint32)
            data[dq > 0] = np.nan
            var = np.where(dq > 0, np.nan, 0.02**2).astype(np.float32)
            header = Header(
                {
                    "TELESCOP": "JWST", "INSTRUME": "NIRISS", "DETECTOR": "NIS", "EXP_TYPE": "NIS_WFSS",
                    "FILTER": grism, "PUPIL": "F200W", "SUBARRAY": "FULL", "SUBSTRT1": 1, "SUBSTRT2": 1,
                    "SUBSIZE1": SIZE, "SUBSIZE2": SIZE, "FASTAXIS": -2, "SLOWAXIS": -1, "EFFEXPTM": 100.0,
                    "EFFINTTM": 50.0, "NINTS": 1, "NGROUPS": 5, "PROGRAM": "01234", "OBSERVTN": "001", "VISIT": "001",
                    "VISITGRP": "02", "SEQ_ID": "1", "ACT_ID": "01", "EXPOSURE": str(number), "EXPMID": 60000.0,
                    "DATE-OBS": "2023-07-14", "TIME-OBS": "12:00:00", "TARG_RA": 53.16, "TARG_DEC": -27.79,
                    "BUNIT": "DN/s", "SCATFILE": "field_cat.ecsv", "DISPAXIS": 2 if grism == "GR150R" else 1,
                    "S_WCS": "COMPLETE", "SPECSYS": "BARYCENT",
                    "S_REGION": "POLYGON ICRS  53.16 -27.79 53.17 -27.79 53.17 -27.78 53.16 -27.78",
                }
            )  # fmt: skip
            image = Image(header, data, np.sqrt(var), dq, 0.5 * var, 0.5 * var, 0 * var, wcs=wcs)
            write_image(image, folder / f"jw01234001001_02101_0000{number}_nis_rate.fits")
    members = [{"expname": f"jw01234001001_02101_0000{k}_nis_cal.fits", "exptype": "science"} for k in (1, 2, 3)]
    association = {
        "asn_type": "spec3", "asn_rule": "x", "asn_id": "o001", "asn_pool": "none", "program": "01234",
        "products": [{"name": "jw01234-o001_t001_niriss_gr150-f200w", "members": members}],
    }  # fmt: skip
    (folder / "spec3_asn.json").write_text(json.dumps(association))
    return write_model_references(folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory, peer):
    """A folder with the official package's products in ``peer/``, and ours beside."""
    folder = tmp_path_factory.mktemp("wfss")
    references = write_inputs(folder)
    for k in (1, 2, 3):
        name = f"jw01234001001_02101_0000{k}_nis"
        slits = extract_2d.fn(
            read_image(folder / f"{name}_rate.fits"),
            references,
            Extract2dOptions(),
            read_catalog(folder / "field_cat.ecsv"),
        )
        slits = photom.fn(srctype.fn(slits, NONE, NoOptions()), references, PhotomOptions())
        write_slits(slits, folder / f"{name}_cal.fits")
    cache = write_cache(folder / "crds", dict.fromkeys(known_types(), "N/A"))
    (folder / "peer").mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PYTHON"))}
    environment |= {"CRDS_PATH": str(cache), "CRDS_SERVER_URL": "https://jwst-serverless-mode.stsci.edu"}
    done = subprocess.run([peer, "-c", PEER], cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, references


def slits_of(folder, k):
    """Our slits and theirs, by source and order."""
    name = f"jw01234001001_02101_0000{k}_nis_cal.fits"
    sets = (read_slits(folder / name), read_slits(folder / "peer" / name))
    return tuple({(slit.source_id, slit.order): slit for slit in one.slits} for one in sets)


@pytest.mark.parametrize("k", [1, 3])
def test_sources_orders_and_boxes_are_the_same(both, k):
    ours, theirs = slits_of(both[0], k)
    assert list(ours) == list(theirs)
    assert len(ours) > 3
    for key, slit in ours.items():
        for card in ("SLTSTRT1", "SLTSTRT2", "SLTSIZE1", "SLTSIZE2"):
            assert abs(slit.header[card] - theirs[key].header[card]) <= 1
        for card in ("SLTNAME", "SRCTYPE", "BUNIT", "DISPAXIS", "SPECSYS"):
            assert slit.header[card] == theirs[key].header[card]
        for card in ("SRCXPOS", "SRCYPOS", "SRCRA", "SRCDEC", "PHOTMJSR", "PHOTUJA2", "PIXAR_SR"):
            assert slit.header[card] == pytest.approx(theirs[key].header[card], rel=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_wavelengths_flags_and_calibrated_pixels_are_the_same(both, k):
    ours, theirs = slits_of(both[0], k)
    for key, slit in ours.items():
        other = theirs[key]
        assert slit.data.shape == other.data.shape, "the boxes are the same here"
        np.testing.assert_allclose(slit.wavelength, other.wavelength, atol=0.1 * PIXEL)
        np.testing.assert_array_equal(slit.dq, other.dq)
        assert np.nanmax(np.abs(slit.data - other.data) / other.err) < 0.1
        np.testing.assert_allclose(slit.err, other.err, rtol=0.005)
        np.testing.assert_allclose(slit.wcs(3.0, 4.0)[:2], other.wcs(3.0, 4.0)[:2], rtol=1e-9)


def close(ours, theirs, error):
    return (np.abs(ours - theirs) <= np.maximum(0.005 * np.abs(theirs), 0.1 * error)) | (
        np.isnan(ours) & np.isnan(theirs)
    )


@pytest.mark.parametrize("k", [1, 3])
def test_extracted_spectra_are_the_same(both, k):
    folder, references = both
    name = f"jw01234001001_02101_0000{k}_nis"
    ours = extract_1d.fn(read_slits(folder / f"{name}_cal.fits"), references, Extract1dOptions())
    theirs = read_spectra(folder / "peer" / f"{name}_x1d.fits")
    assert ours.model == theirs.model
    for one, other in zip(ours.tables, theirs.tables, strict=True):
        assert one.units == other.units
        assert one.rows.dtype.names == other.rows.dtype.names
        assert {card: one.cards[card] for card in ("EXPGRPID", "SPORDER", "DISPAXIS", "EFFEXPTM", "EFFINTTM")} == {
            card: other.cards[card] for card in ("EXPGRPID", "SPORDER", "DISPAXIS", "EFFEXPTM", "EFFINTTM")
        }
        for column in ("SOURCE_ID", "N_ALONGDISP", "DQ", "NPIXELS", "EXTRACT2D_XSTART", "EXTRACT2D_YSTOP"):
            np.testing.assert_array_equal(one.rows[column], other.rows[column])
        np.testing.assert_array_equal(one.rows["SOURCE_TYPE"].astype(str), other.rows["SOURCE_TYPE"].astype(str))
        np.testing.assert_allclose(one.rows["WAVELENGTH"], other.rows["WAVELENGTH"], atol=0.1 * PIXEL)
        for column, error in (("FLUX", "FLUX_ERROR"), ("SURF_BRIGHT", "SB_ERROR")):
            assert close(one.rows[column], other.rows[column], other.rows[error]).all()
        for column in ("FLUX_ERROR", "SB_ERROR", "FLUX_VAR_POISSON", "SB_VAR_RNOISE"):
            np.testing.assert_allclose(one.rows[column], other.rows[column], rtol=0.01)


@pytest.mark.parametrize(("algorithm", "same"), [("mingrad", 0.98), ("fit_profile", 0.9)])
def test_estimated_pixels_are_the_same(both, algorithm, same):
    """Of those that both estimate: the package leaves the outer two rows and columns alone in mingrad, and fits the scale
    of a profile to absolute values, which noise raises."""
    folder, _ = both
    slits = read_slits(folder / "jw01234001001_02101_00001_nis_cal.fits")
    (ours,) = pixel_replace.fn((slits,), NONE, PixelReplaceOptions(algorithm=algorithm))
    theirs = read_slits(folder / "peer" / f"{algorithm}_cal.fits")
    estimated, agree, only_theirs = 0, 0, 0
    for one, other in zip(ours.slits, theirs.slits, strict=True):
        flagged = [(slit.dq & flags.PIXEL["FLUX_ESTIMATED"]) != 0 for slit in (one, other)]
        both_did = flagged[0] & flagged[1]
        only_theirs += np.count_nonzero(flagged[1] & ~flagged[0] & np.isfinite(other.data))
        estimated += np.count_nonzero(both_did)
        agree += np.count_nonzero(close(one.data[both_did], other.data[both_did], other.err[both_did]))
    assert estimated > 20
    assert agree >= same * estimated
    assert only_theirs == 0


def test_stage_3_of_the_package_takes_our_products_and_gives_what_ours_gives(both):
    folder, references = both
    sets = tuple(read_slits(folder / f"jw01234001001_02101_0000{k}_nis_cal.fits") for k in (1, 2, 3))
    spectra = extract_1d.fn(exp_to_source.fn(sets, NONE, NoOptions()), references, Extract1dOptions())
    combined = combine_1d.fn(spectra, NONE, Combine1dOptions())
    theirs = read_spectra(folder / "jw01234-o001_t001_niriss_gr150-f200w_x1d.fits")
    for one, other in zip(spectra.tables, theirs.tables, strict=True):
        assert one.cards["EXPGRPID"] == other.cards["EXPGRPID"]
        np.testing.assert_array_equal(one.rows["SOURCE_ID"], other.rows["SOURCE_ID"])
        assert close(one.rows["FLUX"], other.rows["FLUX"], other.rows["FLUX_ERROR"]).all()
    (mean,) = combined.tables
    (other,) = read_spectra(folder / "jw01234-o001_t001_niriss_gr150-f200w_c1d.fits").tables
    assert mean.units == other.units
    np.testing.assert_array_equal(mean.rows["SOURCE_ID"], other.rows["SOURCE_ID"])
    compared = 0
    for row, peer_row in zip(mean.rows, other.rows, strict=True):
        n, m = int(row["N_ALONGDISP"]), int(peer_row["N_ALONGDISP"])
        middle = (row["WAVELENGTH"][:n] > 1.75) & (row["WAVELENGTH"][:n] < 1.95)
        if middle.sum() < 20:
            continue
        compared += 1
        # The elements are not at the same wavelengths: compare what does not depend on where they are.
        peer_middle = (peer_row["WAVELENGTH"][:m] > 1.75) & (peer_row["WAVELENGTH"][:m] < 1.95)
        error = np.median(row["ERROR"][:n][middle]) / np.sqrt(middle.sum())
        difference = row["FLUX"][:n][middle].mean() - peer_row["FLUX"][:m][peer_middle].mean()
        assert abs(difference) < max(0.005 * abs(row["FLUX"][:n][middle].mean()), 0.5 * error)
        assert np.median(row["ERROR"][:n][middle]) == pytest.approx(
            np.median(peer_row["ERROR"][:m][peer_middle]), rel=0.1
        )
    assert compared > 3
