"""Synthetic programs on disk: exposures, references, pool and truth."""

import ast
import hashlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from stdatamodels.jwst import datamodels

from calibration.simulate import niriss
from calibration.simulate.field import Pointing
from calibration.simulate.references import MEAN_GAIN
from infra.products.fits import read_header
from infra.products.ramp import read_ramp
from infra.synthetic.crds_cache import Rule, known_types, write_mappings
from infra.synthetic.headers import boresight
from infra.synthetic.imaging_references import distortion_model, image_apertures
from infra.synthetic.program import SyntheticProgram, write_program

SMALL = {"size": 128, "ngroups": 3, "grism_ngroups": 2, "dithers": 2, "grism_dithers": 1}


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> SyntheticProgram:
    return write_program(tmp_path_factory.mktemp("synthetic") / "program", seed=7, **SMALL)


def truth(program: SyntheticProgram, name: str) -> Table:
    return Table.read(program.folder / "truth" / f"{name}.ecsv")


def references(program: SyntheticProgram) -> dict[str, Path]:
    return {path.name: path for path in program.crds.glob("references/jwst/*/*")}


def test_exposures_open_in_the_data_models_without_a_warning(program):
    for path in program.uncal:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with datamodels.Level1bModel(str(path)) as model:
                model.validate()
                assert model.data.dtype == np.uint16
                assert len(model.group) == model.meta.exposure.ngroups
                assert len(model.int_times) == model.meta.exposure.nints
                assert model.meta.filename == path.name


def test_reference_files_open_in_their_data_models_without_a_warning(program):
    for name, path in references(program).items():
        if "pars-" in name:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with datamodels.open(str(path)) as model:
                model.validate()
                assert model.meta.reftype.lower() == name.split("_")[2]


def test_every_known_keyword_of_the_raw_headers_has_its_place(program):
    for path in program.uncal:
        header = read_header(path)
        assert not header.unknown, "keywords that no data model knows"
        for key in ("RA_REF", "DEC_REF", "ROLL_REF", "V2_REF", "V3_REF", "VPARITY", "V3I_YANG", "VA_SCALE", "FWCPOS"):
            assert key in header


CLIENT = """
import json, sys
import crds
wanted, exposures = json.load(sys.stdin)
print(json.dumps([crds.getreferences(e, reftypes=wanted, context="jwst_0001.pmap", observatory="jwst") for e in exposures]))
"""


def test_the_client_resolves_every_type_for_every_exposure(program):
    exposures = []
    for path in program.uncal:
        header = read_header(path)
        names = "INSTRUME DETECTOR EXP_TYPE FILTER PUPIL READPATT SUBARRAY DATE-OBS TIME-OBS".split()
        paths = (
            "META.INSTRUMENT.NAME META.INSTRUMENT.DETECTOR META.EXPOSURE.TYPE META.INSTRUMENT.FILTER META.INSTRUMENT.PUPIL "
            "META.EXPOSURE.READPATT META.SUBARRAY.NAME META.OBSERVATION.DATE META.OBSERVATION.TIME"
        ).split()
        exposures.append({key: header[name] for key, name in zip(paths, names, strict=True)})
    clean = {key: value for key, value in os.environ.items() if not key.startswith("CRDS_")}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps([known_types(), exposures]),
        env=clean | {"CRDS_PATH": str(program.crds), "CRDS_SERVER_URL": "https://jwst-serverless-mode.stsci.edu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for header, found in zip(exposures, json.loads(done.stdout.splitlines()[-1]), strict=True):
        files = {reftype: name for reftype, name in found.items() if not name.upper().startswith("NOT FOUND")}
        assert all(Path(name).is_file() for name in files.values())
        needed = {"mask", "saturation", "superbias", "linearity", "dark", "gain", "readnoise", "ipc", "flat", "photom"}
        needed |= {"distortion", "filteroffset", "apcorr", "abvegaoffset"}
        spectra = {"specwcs", "wavelengthrange", "bkg", "wfssbkg"}
        if header["META.EXPOSURE.TYPE"] == "NIS_WFSS":
            assert needed | spectra <= set(files)
            assert header["META.INSTRUMENT.FILTER"] == fits.getval(files["flat"], "FILTER")
        else:
            assert needed | {"area", "pars-outlierdetectionstep"} <= set(files)
            assert not spectra & set(files)


def test_two_runs_of_one_seed_give_the_same_bytes(program, tmp_path):
    again = write_program(tmp_path / "again", seed=7, **SMALL)

    def digests(folder: Path) -> dict[str, str]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    assert digests(again.folder) == digests(program.folder)


def test_another_seed_gives_other_sources_and_other_noise(program, tmp_path):
    other = write_program(tmp_path / "other", seed=8, **SMALL)
    assert other.sources != program.sources
    assert (read_ramp(other.uncal[0]).data != read_ramp(program.uncal[0]).data).mean() > 0.9


def test_the_brightest_star_stands_where_the_truth_says(program):
    path = program.uncal[-1]
    ramp = read_ramp(path)
    image = ramp.data[0, -1] - ramp.data[0, 0]
    image = image - np.median(image)
    sources = truth(program, "sources")
    stars = sources[(sources["kind"] == "star")]
    number = int(stars["id"][np.argmin(stars["abmag"])])
    row = next(row for row in truth(program, path.stem.replace("_uncal", "_positions")) if row["id"] == number)
    assert row["inside"]
    x0, y0 = round(row["x"]), round(row["y"])
    box = image[y0 - 2 : y0 + 3, x0 - 2 : x0 + 3]
    y, x = np.indices(box.shape)
    assert (x * box).sum() / box.sum() + x0 - 2 == pytest.approx(row["x"], abs=0.2)
    assert (y * box).sum() / box.sum() + y0 - 2 == pytest.approx(row["y"], abs=0.2)


def test_the_counts_of_a_bright_star_are_those_of_its_magnitude(program):
    path = program.uncal[-1]
    ramp = read_ramp(path)
    seconds = (ramp.header["NGROUPS"] - 1) * ramp.header["TGROUP"]
    with datamodels.open(str(references(program)["jwst_niriss_photom_0001.fits"])) as photom:
        conversion = photom.phot_table["photmjsr"][0] * photom.meta.photometry.pixelarea_steradians * 1e6
    sources = truth(program, "sources")
    stars = sources[sources["kind"] == "star"]
    star = stars[np.argmin(stars["abmag"])]
    row = next(row for row in truth(program, path.stem.replace("_uncal", "_positions")) if row["id"] == star["id"])
    x0, y0 = round(row["x"]), round(row["y"])
    # Raw counts are a few per cent low, by non-linearity; the sky is taken from a frame around the box.
    wide = (ramp.data[0, -1] - ramp.data[0, 0])[y0 - 9 : y0 + 10, x0 - 9 : x0 + 10]
    box = wide[3:-3, 3:-3]
    counts = box.sum() - np.median(np.r_[wide[:2].ravel(), wide[-2:].ravel()]) * box.size
    assert counts / seconds * conversion == pytest.approx(star["flux"], rel=0.08)


def test_a_line_of_the_truth_lies_on_its_trace(program):
    lines = truth(program, "lines")
    for path in program.uncal[:2]:
        header = read_header(path)
        origin = (header["SUBSTRT1"] - 1, header["SUBSTRT2"] - 1)
        grism = niriss.grism(header["FILTER"])
        for row in truth(program, path.stem.replace("_uncal", "_positions")):
            own = lines[lines["id"] == row["id"]]
            if len(own) == 0:
                assert not np.isfinite(row["x_line"])
                continue
            # The optics are those of the full frame, whatever part of it is read.
            x, y = grism.position(1, row["x"] + origin[0], row["y"] + origin[1], own["wavelength"][0])
            assert (x - origin[0], y - origin[1]) == pytest.approx((row["x_line"], row["y_line"]), abs=1e-6)


def test_the_trace_reference_of_a_cut_out_takes_pixels_of_the_cut_out(program):
    with datamodels.open(str(references(program)["jwst_niriss_specwcs_0002.asdf"])) as model:
        k = list(model.orders).index(1)
        x, y, wavelength = 40.0, 75.0, 2.1
        t = model.invdispl[k](wavelength)
        dx = sum(term(x, y) * t**power for power, term in enumerate(model.dispx[k]))
        dy = sum(term(x, y) * t**power for power, term in enumerate(model.dispy[k]))
        turn = -np.deg2rad(niriss.WHEEL["GR150C"] - model.fwcpos_ref)
    expected = niriss.grism("GR150C").position(1, 960 + x, 960 + y, wavelength)
    assert 960 + x + dx * np.cos(turn) - dy * np.sin(turn) == pytest.approx(float(expected[0]), abs=1e-9)
    assert 960 + y + dx * np.sin(turn) + dy * np.cos(turn) == pytest.approx(float(expected[1]), abs=1e-9)


def test_the_distortion_reference_agrees_with_the_simulator_both_ways():
    distortion = niriss.distortion("CLEAR", "F200W")
    model = distortion_model(distortion)
    x, y = np.random.default_rng(1).uniform(0, 2047, (2, 200))
    np.testing.assert_allclose(model(x, y), distortion.to_v2v3(x, y), atol=1e-9)
    np.testing.assert_allclose(model.inverse(*distortion.to_v2v3(x, y)), (x, y), atol=1e-4)


def test_the_dark_of_each_read_pattern_grows_with_the_time_of_its_groups(program):
    for path in (path for name, path in references(program).items() if "_dark_" in name):
        with datamodels.open(str(path)) as dark:
            step, first = dark.data[1] - dark.data[0], dark.data[0]
            nframes = dark.meta.exposure.nframes
            lit = first > 0
            np.testing.assert_allclose((first / step)[lit], 0.5 * (nframes + 1) / nframes, rtol=1e-4)


def test_the_flat_of_the_images_holds_the_area_of_the_pixels(program):
    found = references(program)
    flat, spectral, area = (
        fits.getdata(found[name])
        for name in ("jwst_niriss_flat_0001.fits", "jwst_niriss_flat_0002.fits", "jwst_niriss_area_0001.fits")
    )
    good = fits.getdata(found["jwst_niriss_flat_0001.fits"], "DQ") == 0
    assert area.shape == (2048, 2048)
    area = area[960:1088, 960:1088]
    np.testing.assert_allclose((flat / spectral)[good], area[good], rtol=1e-5)
    gain = fits.getdata(found["jwst_niriss_gain_0001.fits"])
    assert gain.mean() == pytest.approx(MEAN_GAIN, rel=0.02)


def test_aperture_corrections_fall_towards_one(program):
    rows = np.array(image_apertures(niriss.imager()))
    assert np.all(np.diff(rows[:, 1]) > 0)
    assert np.all(np.diff(rows[:, 2]) < 0)
    assert np.all(rows[:, 2] > 1)


def test_guider_references_cover_the_acquisition_window_of_the_real_exposure(program, shared):
    window = read_header(next((shared / "real" / "uncal").glob("*acq1*_uncal.fits"))).subarray
    for reftype in ("mask", "flat", "gain", "readnoise"):
        header = fits.getheader(references(program)[f"jwst_fgs_{reftype}_0001.fits"])
        assert header["SUBSTRT1"] <= window.xstart
        assert header["SUBSTRT2"] <= window.ystart
        assert header["SUBSTRT1"] + header["SUBSIZE1"] >= window.xstart + window.xsize
        assert header["SUBSTRT2"] + header["SUBSIZE2"] >= window.ystart + window.ysize


def test_the_pool_has_a_row_per_exposure_and_a_later_direct_image_for_each_grism_exposure(program):
    rows = [line.split("|") for line in program.pool.read_text().splitlines()]
    pool = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert [row["FILENAME"] for row in pool] == [path.name for path in program.uncal]
    assert all(ast.literal_eval(row["ASN_CANDIDATE"]) == [("o001", "observation")] for row in pool)
    direct = [int(row["EXPSPCIN"]) for row in pool if row["EXP_TYPE"] == "NIS_IMAGE"]
    grism = [int(row["EXPSPCIN"]) for row in pool if row["EXP_TYPE"] == "NIS_WFSS"]
    assert direct
    assert all(any(specification < later for later in direct) for specification in grism)


def test_exposures_follow_one_another_in_time(program):
    times = [(header["EXPSTART"], header["EXPEND"]) for header in map(read_header, program.uncal)]
    for (start, end), (following, _) in zip(times, [*times[1:], (np.inf, np.inf)], strict=True):
        assert start < end < following


def test_the_boresight_is_where_the_field_is_not():

    distortion = niriss.distortion("", "")
    ra, dec, angle = boresight(distortion, Pointing(53.1625, -27.7914, 57.0, 1.0))
    away = np.hypot((ra - 53.1625) * np.cos(np.deg2rad(dec)), dec + 27.7914) * 3600
    assert away == pytest.approx(np.hypot(distortion.v2_ref, distortion.v3_ref), rel=1e-3)
    assert angle == pytest.approx(57.0, abs=0.2)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"preset": "nirspec"}, "preset must be one of niriss-wfss"),
        ({"size": 100_000}, "even number of pixels from 64 to 2048"),
        ({"dithers": 0}, "dithers must be from 1 to 6"),
        ({"grism_dithers": 9}, "grism_dithers must be from 1 to 4"),
        ({"ngroups": 1}, "at least 2"),
    ],
)
def test_a_wrong_parameter_is_refused_and_nothing_is_written(tmp_path, wrong, words):
    with pytest.raises(ValueError, match=words):
        write_program(tmp_path / "program", **wrong)
    assert not (tmp_path / "program").exists()


def test_a_folder_with_a_program_is_left_alone(program):
    with pytest.raises(FileExistsError, match="already holds a program"):
        write_program(program.folder, **SMALL)


def test_rules_of_one_type_must_match_the_same_parameters(tmp_path):
    rules = [
        Rule("flat", "a.fits", {"META.INSTRUMENT.DETECTOR": "NIS"}),
        Rule("flat", "b.fits", {"META.EXPOSURE.TYPE": "NIS_IMAGE"}),
    ]
    with pytest.raises(ValueError, match="must match"):
        write_mappings(tmp_path, {"NIRISS": rules})
