"""What goes from exposure to exposure, and what steps make beside the ramps: suspect pixels, filled traps, masks and noise."""

import asdf
import numpy as np
import pytest
from astropy.io import fits
from hard_ramps import Exposure, make_exposure

from calibration import dq
from calibration.subarrays import Subarray
from infra.products.header import Header, ProductError
from infra.products.image import Image
from infra.products.persistence import read_suspects, read_traps_filled, write_suspects, write_traps_filled
from infra.products.ramp import Ramp
from infra.products.stored import store
from infra.references.content import ReferenceNotFound, References
from tasks.clean_flicker_noise import CleanFlickerNoiseOptions, clean_flicker_noise
from tasks.persistence import PersistenceOptions, persistence
from tasks.products import save

PERSISTENCE, SATURATED = dq.GROUP["PERSISTENCE"], dq.GROUP["SATURATED"]
EXPOSURE = Exposure("small", (1, 4, 24, 32), noutputs=1)
NONE = References({"trapdensity": None, "trappars": None, "persat": None}, "")
START = 60_139.5  # [MJD]
LATER = 60 / 86_400  # [d]


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    raw, _ = make_exposure(tmp_path_factory.mktemp("references"), EXPOSURE)
    groupdq = np.zeros(raw.data.shape, np.uint8)
    groupdq[0, 2:, 5, 7] = SATURATED
    return raw.with_(groupdq=groupdq, header=raw.header.set(EXPEND=START + 50 / 86_400))


def later(ramp: Ramp, days: float = LATER, **cards) -> Ramp:
    """A faint exposure that starts so much later."""
    header = ramp.header.set(EXPSTART=START + days, EXPEND=START + days + 50 / 86_400, **cards)
    return ramp.with_(header=header, data=ramp.data * 0, groupdq=ramp.groupdq * 0)


def test_suspect_pixels_go_on_to_the_next_exposure(ramp, tmp_path):
    first = persistence.fn(ramp, NONE, PersistenceOptions(persistence_time=100, save_persistence=True))
    url = save(first.side["persistence"], str(tmp_path / "a_persistence.asdf"))
    next_one = PersistenceOptions(persistence_time=100, persistence_array_file=url)
    second = persistence.fn(later(ramp), NONE, next_one)
    # It saturated 30 s after the first start: until 130 s, 70 s after the second.
    assert ((second.groupdq & PERSISTENCE) != 0).sum(axis=(0, 2, 3)).tolist() == [1, 1, 1, 1]
    assert second.groupdq[0, 0, 5, 7] == PERSISTENCE
    late = persistence.fn(later(ramp, 3 * LATER), NONE, next_one)
    assert not late.groupdq.any()
    assert not persistence.fn(later(ramp), NONE, PersistenceOptions(persistence_time=100)).groupdq.any()


def test_suspect_pixels_are_places_on_the_detector(ramp, tmp_path):
    first = persistence.fn(ramp, NONE, PersistenceOptions(persistence_time=100, save_persistence=True))
    url = save(first.side["persistence"], str(tmp_path / "a_persistence.asdf"))
    corner = later(ramp, SUBSTRT1=5, SUBSTRT2=3, SUBSIZE1=8, SUBSIZE2=8)
    corner = corner.with_(data=corner.data[..., :8, :8], groupdq=corner.groupdq[..., :8, :8])
    options = PersistenceOptions(persistence_time=100, persistence_array_file=url, save_persistence=True)
    second = persistence.fn(corner, NONE, options)
    assert np.argwhere(second.groupdq[0, 0]).tolist() == [[3, 3]]
    # Beside the corner other pixels stay suspect as well.
    elsewhere = later(ramp, SUBSTRT1=17, SUBSIZE1=16)
    elsewhere = elsewhere.with_(data=elsewhere.data[..., 16:], groupdq=elsewhere.groupdq[..., 16:])
    third = persistence.fn(elsewhere, NONE, options)
    assert not third.groupdq.any()
    kept = third.side["persistence"].detectors["NIS"]
    assert np.argwhere(kept.cut(Subarray(1, 1, 32, 24))).tolist() == [[5, 7]]


def test_a_named_file_keeps_the_other_detectors(ramp, tmp_path):
    path = tmp_path / "all.asdf"
    # As the official pipeline writes it: without the place of the subarray.
    entry = {"filename": "x", "rows": np.array([1]), "cols": np.array([2]), "vals": np.array([5e9]), "pers_time": 100}
    asdf.AsdfFile({"NRCA1": entry}).write_to(path)
    options = PersistenceOptions(
        persistence_time=100, save_persistence=str(path.with_suffix("")), persistence_array_file=str(path)
    )
    done = persistence.fn(ramp, NONE, options)
    (url,) = done.side
    assert url == str(path)
    save(done.side[url], url)
    detectors = read_suspects(path).detectors
    assert set(detectors) == {"NIS", "NRCA1"}
    assert detectors["NRCA1"].cut(Subarray(100, 100, 4, 4))[1, 2] == 5e9
    # It was saturated at 30 s, and the exposure is at MJD 60139.5.
    assert detectors["NIS"].vals.tolist() == [(60_139.5 - 40_587) * 86_400 + 130]


def test_suspect_pixels_of_another_window_are_not_used(ramp, tmp_path, caplog):
    first = persistence.fn(ramp, NONE, PersistenceOptions(persistence_time=1000, save_persistence=True))
    url = save(first.side["persistence"], str(tmp_path / "a_persistence.asdf"))
    second = persistence.fn(later(ramp), NONE, PersistenceOptions(persistence_time=100, persistence_array_file=url))
    assert not second.groupdq.any()
    assert "persistence_time of 1000 s, not 100" in caplog.text


def test_a_file_that_is_no_persistence_array_is_an_error(ramp, tmp_path):
    bad = tmp_path / "bad.asdf"
    bad.write_text("not this")
    with pytest.raises(ProductError, match="cannot read it as a persistence array"):
        persistence.fn(ramp, NONE, PersistenceOptions(persistence_time=100, persistence_array_file=str(bad)))
    entry = {"rows": np.array([1, 2]), "cols": np.array([2]), "vals": np.array([5e9]), "pers_time": 100}
    asdf.AsdfFile({"NIS": entry}).write_to(bad)
    with pytest.raises(ProductError, match="of one length"):
        read_suspects(bad)


@pytest.fixture(scope="module")
def traps(tmp_path_factory):
    """References of the trap model for the area of the exposure."""
    folder = tmp_path_factory.mktemp("traps")
    cards = {"SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": 32, "SUBSIZE2": 24}
    files = {}
    for reftype, level in (("trapdensity", 1.0), ("persat", 60_000.0)):
        primary = fits.PrimaryHDU()
        primary.header.update(cards)
        flags = np.zeros((24, 32), np.uint32)
        flags[0, 0] = 1
        data = fits.ImageHDU(np.full((24, 32), level, np.float32), name="SCI")
        fits.HDUList([primary, data, fits.ImageHDU(flags, name="DQ")]).writeto(folder / f"{reftype}.fits")
        files[reftype] = str(folder / f"{reftype}.fits")
    names = ("capture0", "capture1", "capture2", "decay_param")
    table = np.array([(180, -1 / 400, 120, -1 / 3000), (60, -1 / 60, 30, -1 / 300)], [(name, "f8") for name in names])
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(table, name="TRAPPARS")]).writeto(folder / "trappars.fits")
    return References({**files, "trappars": str(folder / "trappars.fits")}, "")


def bright(ramp: Ramp) -> Ramp:
    data = np.zeros_like(ramp.data)
    data[0] += 1000 * np.arange(4, dtype=np.float32)[:, None, None]
    data[0, :, 10, 10] *= 18
    return ramp.with_(data=data, groupdq=ramp.groupdq * 0)


def test_filled_traps_go_on_to_the_next_exposure(ramp, traps, tmp_path):
    first = persistence.fn(bright(ramp), traps, PersistenceOptions())
    filled = first.side["trapsfilled"]
    assert filled.data.shape == (2, 24, 32)
    assert filled.data[0, 10, 10] == pytest.approx(filled.data[0, 10, 9] * 18**2, rel=1e-5)
    assert not filled.data[:, 0, 0].any()  # DO_NOT_USE in the density
    url = save(filled, str(tmp_path / "a_trapsfilled.fits"))
    assert read_traps_filled(url).header["EXPEND"] == ramp.header["EXPEND"]
    options = PersistenceOptions(input_trapsfilled=url, save_persistence=True, flag_pers_cutoff=1.0)
    second = persistence.fn(later(ramp), traps, options)
    subtracted = second.side["output_pers"].data
    np.testing.assert_allclose(-second.data, subtracted)
    assert subtracted[0, -1, 10, 10] > 5
    assert np.argwhere(second.pixeldq & dq.PIXEL["PERSISTENCE"]).tolist() == [[10, 10]]
    # What is released is no longer filled.
    left = second.side["trapsfilled"].data
    assert (left.sum(axis=0) < filled.data.sum(axis=0))[1:].all()
    assert "trapsfilled" not in persistence.fn(bright(ramp), traps, PersistenceOptions(save_trapsfilled=False)).side
    assert second.header["R_TRPDEN"] == "crds://trapdensity.fits"


def test_traps_around_a_subarray_empty_as_those_within(ramp, traps, tmp_path):
    filled = persistence.fn(bright(ramp), traps, PersistenceOptions()).side["trapsfilled"]
    url = save(filled, str(tmp_path / "a_trapsfilled.fits"))
    corner = later(ramp, SUBSTRT1=9, SUBSTRT2=9, SUBSIZE1=8, SUBSIZE2=8)
    corner = corner.with_(
        data=corner.data[..., :8, :8], groupdq=corner.groupdq[..., :8, :8], pixeldq=corner.pixeldq[:8, :8]
    )
    whole = persistence.fn(later(ramp), traps, PersistenceOptions(input_trapsfilled=url))
    part = persistence.fn(corner, traps, PersistenceOptions(input_trapsfilled=url))
    np.testing.assert_allclose(part.data, whole.data[..., 8:16, 8:16])
    after = part.side["trapsfilled"]
    assert after.header.subarray == Subarray(1, 1, 32, 24)
    # Four groups and a reset of 10 s within; from start to end, 50 s, around.
    np.testing.assert_allclose(after.data, whole.side["trapsfilled"].data, rtol=1e-5)


def test_filled_traps_of_something_else_are_an_error(ramp, traps, tmp_path):
    filled = persistence.fn(bright(ramp), traps, PersistenceOptions()).side["trapsfilled"]
    for change, message in (
        ({"DETECTOR": "NRCA1"}, "has the filled traps of NRCA1"),
        ({"EXPEND": START + 1}, "after this one began"),
    ):
        path = tmp_path / f"{next(iter(change))}_trapsfilled.fits"
        write_traps_filled(filled.with_(header=filled.header.set(change)), path)
        with pytest.raises(ProductError, match=message):
            persistence.fn(later(ramp), traps, PersistenceOptions(input_trapsfilled=str(path)))
    path = tmp_path / "three_trapsfilled.fits"
    write_traps_filled(filled.with_(data=np.zeros((3, 24, 32))), path)
    with pytest.raises(ProductError, match="has 3 trap families"):
        persistence.fn(later(ramp), traps, PersistenceOptions(input_trapsfilled=str(path)))


def test_without_a_time_and_without_references_there_is_nothing_to_do(ramp, traps):
    skipped = persistence.fn(ramp, NONE, PersistenceOptions()).recipe["persistence"]
    assert skipped["status"] == "SKIPPED"
    assert "TRAPDENSITY, TRAPPARS, PERSAT" in skipped["reason"]
    flagged = persistence.fn(ramp, traps, PersistenceOptions(persistence_time=10))
    assert np.array_equal(flagged.data, ramp.data), "a time asks for flags, not for the trap model"


def test_suspects_survive_their_file(ramp, tmp_path):
    made = persistence.fn(ramp, NONE, PersistenceOptions(persistence_time=100, save_persistence=True))
    suspects = made.side["persistence"]
    write_suspects(suspects, tmp_path / "x.asdf")
    back = read_suspects(tmp_path / "x.asdf").detectors["NIS"]
    mine = suspects.detectors["NIS"]
    for name in ("rows", "cols", "vals"):
        np.testing.assert_array_equal(getattr(back, name), getattr(mine, name))
    assert (back.origin, back.pers_time, back.filename) == ((1, 1), 100, "small_uncal.fits")


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """A ramp of sky with stripes, three integrations, and its references."""
    raw, references = make_exposure(
        tmp_path_factory.mktemp("sky"), Exposure("sky", (3, 3, 32, 48), start=(101, 101), axes=(-2, -1))
    )
    rng = np.random.default_rng(6)
    data = 20 * np.arange(3)[:, None, None] + rng.normal(0, 3, raw.data.shape) + rng.normal(0, 5, (3, 3, 1, 48))
    return raw.with_(data=data.astype(np.float32)), References({**references.files, "flat": None}, "")


def test_mask_background_and_noise_come_beside_the_ramps_on_request(sky):
    ramp, references = sky
    options = CleanFlickerNoiseOptions(save_mask=True, save_background=True, save_noise=True)
    done = clean_flicker_noise.fn(ramp, references, options)
    assert set(done.side) == {"mask", "flicker_bkg", "flicker_noise"}
    assert 0.8 < done.side["mask"].data.mean() < 1
    np.testing.assert_allclose(done.side["flicker_noise"].data, done.data - ramp.data)
    assert np.median(done.side["flicker_bkg"].data[:, 1:]) == pytest.approx(20, abs=2)
    assert not done.side["flicker_bkg"].data[:, 0].any()


def test_the_median_of_the_integrations_lets_the_first_group_be_cleaned(sky):
    ramp, references = sky
    done = clean_flicker_noise.fn(ramp, references, CleanFlickerNoiseOptions(background_method="median_image"))
    assert not np.array_equal(done.data[:, 0], ramp.data[:, 0])
    # Its own stripes of each integration are gone, those of the median stay.
    assert done.data.std(axis=0).mean() < 0.8 * ramp.data.std(axis=0).mean()
    one = ramp.with_(data=ramp.data[:1], groupdq=ramp.groupdq[:1])
    skipped = clean_flicker_noise.fn(one, references, CleanFlickerNoiseOptions(background_method="median_image"))
    assert "two integrations" in skipped.recipe["clean_flicker_noise"]["reason"]


@pytest.mark.parametrize(("cards", "options", "reason"), [
    ({"EXP_TYPE": "NIS_IMAGE"}, {"fit_method": "fft"}, "fit_method=fft is for"),
    ({"EXP_TYPE": "MIR_MRS"}, {}, "not for MIR_MRS"),
])  # fmt: skip
def test_noise_that_is_not_fitted_in_this_mode_is_left(sky, cards, options, reason):
    ramp, references = sky
    other = ramp.with_(header=ramp.header.set(cards))
    done = clean_flicker_noise.fn(other, references, CleanFlickerNoiseOptions(**options))
    assert reason in done.recipe["clean_flicker_noise"]["reason"]
    assert done.data is ramp.data


def test_known_traces_of_soss_are_masked(tmp_path):
    header = Header(
        {"EXP_TYPE": "NIS_SOSS", "SUBARRAY": "SUBSTRIP96", "PWCPOS": 245.9, "SLOWAXIS": -1, "DETECTOR": "NIS",
         "INSTRUME": "NIRISS", "SUBSTRT1": 1, "SUBSTRT2": 1803, "SUBSIZE1": 2048, "SUBSIZE2": 96}
    )  # fmt: skip
    x = np.linspace(0, 2047, 50)
    traces = [{"trace": np.stack([x, np.full(50, 60.0)], axis=1), "pivot_x": 1000.0, "pivot_y": 50.0}]
    asdf.AsdfFile({"meta": {"pwcpos_cmd": 245.9}, "traces": traces}).write_to(tmp_path / "pastasoss.asdf")
    files = {"gain": None, "readnoise": None, "flat": None, "pastasoss": str(tmp_path / "pastasoss.asdf")}
    rate = np.random.default_rng(1).normal(1, 0.1, (96, 2048)).astype(np.float32)
    image = Image(header, rate, rate, np.zeros((96, 2048), np.uint32))
    options = CleanFlickerNoiseOptions(mask_science_regions=True, save_mask=True, n_sigma=0)
    mask = clean_flicker_noise.fn(image, References(files, ""), options).side["mask"].data
    assert not mask[34:67].any()
    assert mask[:34].all()
    assert mask[67:].all()
    with pytest.raises(ReferenceNotFound, match="PASTASOSS"):
        clean_flicker_noise.fn(image, References({**files, "pastasoss": None}, ""), options)
    slits = image.with_(header=header.set(EXP_TYPE="NRS_FIXEDSLIT", SUBARRAY="ALLSLITS"))
    with pytest.raises(ProductError, match="not known for NRS_FIXEDSLIT"):
        clean_flicker_noise.fn(slits, References(files, ""), options)


def stored(ramp: Ramp) -> Ramp:
    """The same ramp with its large arrays on disk."""
    arrays = {}
    for name in ("data", "groupdq"):
        array = getattr(ramp, name)
        arrays[name] = store(array.shape, array.dtype, 8)
        arrays[name][:] = array
    return ramp.with_(**arrays)


@pytest.mark.parametrize(("task", "options"), [
    (clean_flicker_noise, CleanFlickerNoiseOptions(save_noise=True)),
    (clean_flicker_noise, CleanFlickerNoiseOptions(single_mask=False)),
    (clean_flicker_noise, CleanFlickerNoiseOptions(background_method="median_image", save_background=True)),
    (persistence, PersistenceOptions(persistence_time=50, dn_threshold=45.0)),
    (persistence, PersistenceOptions(save_persistence=True)),
])  # fmt: skip
def test_a_ramp_on_disk_gives_the_same(sky, traps, task, options):
    ramp, references = sky
    files = {**references.files, **traps.files}
    area = dict(SUBSTRT1=1, SUBSTRT2=1, SUBSIZE1=32, SUBSIZE2=24)
    small = ramp.with_(
        header=ramp.header.set(area), data=ramp.data[..., :24, :32].copy(), groupdq=ramp.groupdq[..., :24, :32].copy(),
        pixeldq=ramp.pixeldq[:24, :32],
    )  # fmt: skip
    one = small if task is persistence else ramp
    in_memory = task.fn(one, References(files, ""), options)
    on_disk = task.fn(stored(one), References(files, ""), options)
    assert in_memory.recipe[task.name]["status"] == "COMPLETE"
    np.testing.assert_array_equal(on_disk.data[:], in_memory.data)
    np.testing.assert_array_equal(on_disk.groupdq[:], in_memory.groupdq)
    np.testing.assert_array_equal(on_disk.pixeldq, in_memory.pixeldq)
    assert set(on_disk.side) == set(in_memory.side)
    for key in set(on_disk.side) & {"flicker_noise", "flicker_bkg", "output_pers", "trapsfilled"}:
        np.testing.assert_array_equal(on_disk.side[key].data[:], in_memory.side[key].data)
