"""Synthetic programs of direct images on disk: exposures, references, pool and truth."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from stdatamodels.jwst import datamodels

from calibration.simulate import nircam
from infra.products.fits import read_header
from infra.products.ramp import read_ramp
from infra.synthetic.imaging import PRESETS, cut_outs, dither_steps, write_imaging_program
from infra.synthetic.program import SyntheticProgram

SMALL = {"size": 96, "ngroups": 3, "dithers": 2}
#: Preset -> what differs from the default; together they have all that a program can have.
VARIANTS = {
    "nircam-imaging": {"dithers": 1, "tiles": 2},
    "niriss-imaging": {},
    "miri-imaging": {"filter_name": "F1000W"},
    "fgs-imaging": {},
    "moving-target": {"filter_name": "F444W"},
}

PAIR = {**SMALL, "detectors": ("NRCA1", "NRCA2"), "pointing_error": 200.0, "sky_offset": 0.5}


@pytest.fixture(scope="module", params=VARIANTS)
def program(request, tmp_path_factory) -> SyntheticProgram:
    folder = tmp_path_factory.mktemp(request.param) / "program"
    return write_imaging_program(folder, request.param, **SMALL | VARIANTS[request.param])


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> SyntheticProgram:
    """Two detectors of NIRCam, two dithers, large errors."""
    folder = tmp_path_factory.mktemp("pair") / "program"
    return write_imaging_program(folder, "nircam-imaging", **PAIR)


def truth(program: SyntheticProgram, name: str) -> Table:
    return Table.read(program.folder / "truth" / f"{name}.ecsv")


def test_all_files_open_in_the_data_models_without_a_warning(program):
    references = (path for path in program.crds.glob("references/jwst/*/*") if "pars-" not in path.name)
    for path in (*program.uncal, *references):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with datamodels.open(str(path)) as model:
                model.validate()


def test_headers_have_only_keywords_that_a_data_model_knows(program):
    for path in program.uncal:
        header = read_header(path)
        assert not header.unknown
        assert header["FILENAME"] == path.name
        assert header["VISIT"] == path.name[10:13]


def test_two_runs_of_one_seed_give_the_same_bytes(pair, tmp_path):
    again = write_imaging_program(tmp_path / "again", "nircam-imaging", **PAIR)

    def digests(folder: Path) -> dict[str, str]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    assert digests(again.folder) == digests(pair.folder)


def test_what_is_bright_in_the_truth_is_bright_in_the_counts(program):
    path = program.uncal[0]
    ramp = read_ramp(path)
    image = ramp.data[0, -1].astype(float) - ramp.data[0, 0]
    with fits.open(program.folder / "truth" / path.name.replace("_uncal", "_truth")) as hdulist:
        surface, hits = hdulist["SURFACE"].data, hdulist["HITS"].data
    good = np.ones(surface.shape, bool)
    good[hits["y"], hits["x"]] = False
    bright = good & (surface > np.percentile(surface, 99.9))
    noise = 1.4826 * np.median(np.abs(image - np.median(image)))
    assert bright.sum() > 4
    assert np.median(image[bright]) > np.median(image) + 10 * noise


def test_detectors_share_the_errors_of_the_pointing_and_the_sky(pair):
    table = truth(pair, "exposures")
    for name in ("v2_error", "v3_error", "sky"):
        by_exposure = np.asarray(table[name]).reshape(2, 2)
        assert np.all(by_exposure[:, 0] == by_exposure[:, 1])
        assert by_exposure[0, 0] != by_exposure[1, 0]


def test_the_header_does_not_know_the_error_of_the_pointing(pair):
    for row, path in zip(truth(pair, "exposures"), pair.uncal, strict=True):
        header = read_header(path)
        east = (row["ra_ref"] - header["RA_REF"]) * np.cos(np.deg2rad(header["DEC_REF"])) * 3.6e6
        north = (row["dec_ref"] - header["DEC_REF"]) * 3.6e6
        assert np.hypot(east, north) == pytest.approx(np.hypot(row["v2_error"], row["v3_error"]), rel=1e-3)


def test_cut_outs_of_detectors_side_by_side_lie_at_the_gap_between_them():
    areas = cut_outs(nircam.imager("F150W", ("NRCA1", "NRCA2")), 96)
    # NRCA2 is above NRCA1 in V3, which grows with the rows of both.
    assert areas["NRCA1"].ystart + areas["NRCA1"].ysize - 1 == 2048
    assert areas["NRCA2"].ystart == 1
    assert cut_outs(nircam.imager("F150W", ("NRCA1",)), 96)["NRCA1"].xstart == 977


def test_dithers_start_at_the_target_and_fill_their_square():
    steps = np.array(dither_steps(32, 1.0))
    assert tuple(steps[0]) == (0.0, 0.0)
    assert np.abs(steps).max() <= 0.5
    assert np.histogram2d(*steps.T, bins=3, range=((-0.5, 0.5), (-0.5, 0.5)))[0].min() >= 2


def test_a_target_stays_where_it_is_while_the_telescope_follows_it(tmp_path):
    program = write_imaging_program(tmp_path / "program", "moving-target", **SMALL, pointing_error=0.0)
    headers = [read_header(path) for path in program.uncal]
    assert {header["TARGTYPE"] for header in headers} == {"MOVING"}
    moved = np.hypot(
        (headers[1]["MT_RA"] - headers[0]["MT_RA"]) * np.cos(np.deg2rad(headers[0]["MT_DEC"])),
        headers[1]["MT_DEC"] - headers[0]["MT_DEC"],
    )
    seconds = (headers[1]["EXPMID"] - headers[0]["EXPMID"]) * 86400
    assert moved * 3600 == pytest.approx(18 / 3600 * seconds, rel=1e-3)
    (source,) = truth(program, "sources")
    assert source["ra"] == pytest.approx(np.mean([header["MT_RA"] for header in headers]), abs=1e-9)
    places = [truth(program, path.name.replace("_uncal.fits", "_positions"))[0] for path in program.uncal]
    steps = np.diff([(place["x"], place["y"]) for place in places], axis=0)
    # It moves on the detector by the dither alone, and that is less than the square that dithers fill.
    assert np.abs(steps).max() < 13
    image = fits.getdata(program.folder / "truth" / program.uncal[0].name.replace("_uncal", "_truth"), "SURFACE")
    y, x = np.unravel_index(np.argmax(image), image.shape)
    assert (x, y) == pytest.approx((places[0]["x"], places[0]["y"]), abs=0.6)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"preset": "nirspec-imaging"}, "preset must be one of nircam-imaging"),
        ({"size": 4096}, "from 64 to 2048"),
        ({"preset": "miri-imaging", "size": 2048}, "from 64 to 1024"),
        ({"size": 97}, "even number"),
        ({"dithers": 0}, "dithers must be at least 1"),
        ({"tiles": 0}, "tiles must be at least 1"),
        ({"ngroups": 1}, "at least 2"),
        ({"pointing_error": -1.0}, "pointing_error must be a number from 0"),
        ({"sky_offset": np.nan}, "sky_offset must be a number from 0"),
        ({"preset": "moving-target", "tiles": 2}, "has one tile, not 2"),
    ],
)
def test_a_wrong_parameter_is_refused_and_nothing_is_written(tmp_path, wrong, words):
    with pytest.raises(ValueError, match=words):
        write_imaging_program(tmp_path / "program", **{"preset": "nircam-imaging", **wrong})
    assert not (tmp_path / "program").exists()


def test_a_folder_with_a_program_is_left_alone(pair):
    with pytest.raises(FileExistsError, match="already holds a program"):
        write_imaging_program(pair.folder, "nircam-imaging", **SMALL)


def test_every_preset_is_tried_here():
    assert set(VARIANTS) == set(PRESETS)
