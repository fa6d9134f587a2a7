"""Single synthetic exposures on disk: raw files as the archive has them, segments, references, truth."""

import warnings

import numpy as np
import pytest
from astropy.io import fits
from stdatamodels.jwst import datamodels

from calibration.simulate.detector import HIT
from infra.products.ramp import read_ramp
from infra.synthetic.exposure import write_truth
from infra.synthetic.miri import write_miri_exposure
from infra.synthetic.near_infrared import MODES, write_near_infrared_exposure

SMALL = [name for name, mode in MODES.items() if mode.area.xsize * mode.area.ysize < 2e5]


@pytest.fixture(scope="module", params=SMALL)
def made(request, tmp_path_factory):
    name = request.param
    return MODES[name], write_near_infrared_exposure(tmp_path_factory.mktemp(name), name, nints=2, ngroups=3, seed=5)


def test_the_files_open_in_the_data_models_without_a_warning(made):
    mode, exposure = made
    references = exposure.crds / "references" / "jwst" / mode.instrument.lower()
    for path in [*exposure.files, *references.glob("*.fits")]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with datamodels.open(str(path)) as model:
                model.validate()


def test_a_raw_exposure_has_what_its_mode_says(made):
    mode, exposure = made
    ramp = read_ramp(exposure.uncal)
    assert ramp.data.shape == (2, 3, mode.area.ysize, mode.area.xsize)
    assert (ramp.zeroframe is not None) == mode.zeroframe == ramp.header["ZEROFRAM"]
    assert ramp.header["TGROUP"] == pytest.approx((mode.nframes + mode.groupgap) * mode.tframe)
    assert not ramp.header.unknown, "keywords that no data model knows"
    assert ramp.int_times["integration_number"].tolist() == [1, 2]


def test_the_brightest_pixels_have_a_first_frame_that_their_first_group_has_not(tmp_path):
    rate = np.full((64, 2048), 0.92 * 45_800 * 1.82 / 0.34061)
    exposure = write_near_infrared_exposure(tmp_path, "nircam-subgrism64", ngroups=3, rate=rate)
    ramp = read_ramp(exposure.uncal)
    with fits.open(exposure.crds / "references" / "jwst" / "nircam" / "jwst_nircam_saturation_0001.fits") as hdulist:
        threshold = hdulist["SCI"].data
    good = (exposure.detector.dq & 1) == 0
    assert np.count_nonzero((ramp.zeroframe[0] < threshold) & (ramp.data[0, 0] >= threshold) & good) > 10_000


def test_the_divisor_of_the_electronics_is_in_the_numbers(tmp_path):
    rate = np.zeros((64, 64))
    runs = [
        write_near_infrared_exposure(tmp_path / str(d), "nircam-sub64p", rate=rate, divisor=d, particles=0)
        for d in (2, 8)
    ]
    plain, scaled = (read_ramp(run.uncal) for run in runs)
    assert (plain.header["FRMDIVSR"], scaled.header["FRMDIVSR"]) == (2, 8)
    np.testing.assert_allclose(4 * scaled.data, plain.data, atol=2.1)


def test_segments_share_out_the_integrations_of_one_exposure(tmp_path):
    whole = write_near_infrared_exposure(tmp_path / "whole", "niriss-sub80", nints=5, ngroups=2)
    parts = write_near_infrared_exposure(tmp_path / "parts", "niriss-sub80", nints=5, ngroups=2, segments=2)
    assert [path.name[19:] for path in parts.files] == ["_00001-seg001_nis_uncal.fits", "_00001-seg002_nis_uncal.fits"]
    ramps = [read_ramp(path) for path in parts.files]
    np.testing.assert_array_equal(np.concatenate([ramp.data for ramp in ramps]), read_ramp(whole.uncal).data)
    for key, values in {
        "EXSEGNUM": [1, 2],
        "EXSEGTOT": [2, 2],
        "INTSTART": [1, 3],
        "INTEND": [2, 5],
        "NINTS": [5, 5],
    }.items():
        assert [ramp.header[key] for ramp in ramps] == values
    assert all(len(ramp.int_times) == 5 for ramp in ramps)
    with pytest.raises(ValueError, match="from 1 to the 5 integrations"):
        write_near_infrared_exposure(tmp_path, "niriss-sub80", nints=5, segments=6)


def test_hits_are_told_where_they_are_seen(tmp_path):
    exposure = write_near_infrared_exposure(
        tmp_path, "niriss-sub80", nints=2, ngroups=6, particles=3000, rate=np.zeros((80, 80))
    )
    ramp, hits = read_ramp(exposure.uncal).data, exposure.hits
    strong = hits[(hits["charge"] > 5000) & (hits["group"] > 0) & (hits["charge"] < 30_000)]
    assert strong.size > 20
    i, g, y, x = (strong[name] for name in ("integration", "group", "y", "x"))
    rise = ramp[i, g, y, x] - ramp[i, g - 1, y, x]
    gain = exposure.detector.gain[y, x]
    # The neighbours get 2.2 % of it, the response is not straight, and a second hit may be in the same group.
    np.testing.assert_allclose(np.median(rise * gain / strong["charge"]), 0.96, atol=0.03)
    assert np.mean(rise * gain > 0.8 * strong["charge"]) > 0.99


def test_an_averaged_group_sees_a_part_of_a_hit_between_its_frames(tmp_path):
    exposure = write_near_infrared_exposure(tmp_path, "nircam-subgrism64", ngroups=4, particles=20)
    assert set(np.unique(exposure.hits["part"])) == {0.25, 0.5, 0.75, 1.0}


def test_large_events_are_simulated_where_they_are_asked_for(tmp_path):
    snowy = write_near_infrared_exposure(tmp_path / "snow", "nircam-sub160", nints=2, snowball_rate=1000.0, particles=0)
    assert np.count_nonzero(snowy.hits["charge"] > 300_000) > 20
    showery = write_miri_exposure(tmp_path / "shower", nints=2, subarray="SUB64", shower_rate=1.0, particles=0)
    assert showery.hits.size > 500
    assert showery.hits["charge"].max() < 300


def test_the_truth_is_a_file(tmp_path):
    hits = np.array([(0, 1, 5, 6, 700.0, 1.0)], HIT)
    write_truth(tmp_path / "truth.fits", np.full((4, 5), 2, np.float32), hits)
    with fits.open(tmp_path / "truth.fits") as hdulist:
        assert hdulist["RATE"].data.shape == (4, 5)
        assert hdulist["HITS"].data["charge"].tolist() == [700.0]


def test_a_mode_that_nobody_knows_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="nircam-image"):
        write_near_infrared_exposure(tmp_path, "nircam-sub161")
