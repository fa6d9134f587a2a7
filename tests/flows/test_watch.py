"""What a watch makes of exposures that come in any order: each thing once, and what comes late changes what it belongs to.

The engine of these tests makes nothing, and notes what it was asked for.
"""

import random
import threading
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
import pytest
from astropy.io import fits
from tiny_pools import exposure

from associations.generator import generate
from associations.pool import Pool, make_pool
from flows import watch as module
from flows.making import Outcome
from flows.watch import watching
from infra.products.fits import read_header

CARDS = {
    "TELESCOP": "JWST",
    "INSTRUME": "NIRISS",
    "DETECTOR": "NIS",
    "EXP_TYPE": "NIS_IMAGE",
    "FILTER": "CLEAR",
    "PUPIL": "F200W",
    "SUBARRAY": "FULL",
    "TARGNAME": "M-67",
    "PNTG_SEQ": 1,
    "VISITGRP": "02",
    "SEQ_ID": "1",
    "ACT_ID": "01",
}


def write(path, observation, number):
    """A file that is an exposure by its header."""
    header = fits.Header(CARDS | {"PROGRAM": "01571", "OBSERVTN": f"{observation:03}", "PATT_NUM": number})
    header["FILENAME"] = path.name
    data = np.full((2, 4, 4), number, np.uint16)
    fits.HDUList([fits.PrimaryHDU(header=header), fits.ImageHDU(data, name="SCI")]).writeto(path)


@pytest.fixture
def exposures(tmp_path):
    """50 exposures: five observations of ten."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    for observation in range(1, 6):
        for number in range(1, 11):
            write(place / f"jw01571{observation:03}001_02101_{number:05}_nis_uncal.fits", observation, number)
    return sorted(place.iterdir())


@pytest.fixture
def asked(monkeypatch):
    """What the engine was asked for, in order; it says that all is well."""
    found = []

    @contextmanager
    def open_engine(name, slots, timeout):
        def submit(job):
            done = Future()
            found.append(job)
            done.set_result(Outcome("done", fingerprint=f"{job.node.name} {len(found)}"))
            return done

        yield submit

    monkeypatch.setattr(module, "open_engine", open_engine)
    return found


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("CRDS_PATH", str(tmp_path / "no_references"))
    monkeypatch.setenv("CRDS_CONTEXT", "jwst_0001.pmap")
    monkeypatch.setattr(module, "PAUSE", 0.1)
    monkeypatch.setattr("flows.plan.context_name", lambda: "jwst_0001.pmap")
    source, output = tmp_path / "incoming", tmp_path / "products"
    source.mkdir()
    output.mkdir()
    return source, output


def announce(source, exposures):
    """A pool that lists them all, as the archive gives it."""
    pool = make_pool({path.name: read_header(path) for path in exposures}, "jw01571_pool.csv")
    (source / "jw01571_pool.csv").write_text(pool.to_text())
    return pool


def names(pool):
    return {association.file_name.removesuffix("_asn.json") for association in generate(pool)}


def deliver(source, exposures, seed):
    """Bring the exposures in random order: in parts, by renaming, twice."""
    dice = random.Random(seed)
    for path in dice.sample(exposures, len(exposures)):
        data, target = path.read_bytes(), source / path.name
        match dice.randrange(3):
            case 0:
                with target.open("wb") as file:
                    for start in range(0, len(data), 3000):
                        file.write(data[start : start + 3000])
                        file.flush()
                        time.sleep(0.005)
            case 1:
                (source / "coming.part").write_bytes(data)
                (source / "coming.part").rename(target)
            case 2:
                target.write_bytes(data)
                (source / "copies").mkdir(exist_ok=True)
                (source / "copies" / path.name).write_bytes(data)


def test_everything_is_made_once_whatever_the_order(places, exposures, asked):
    source, output = places
    pool = announce(source, exposures)
    courier = threading.Thread(target=deliver, args=(source, exposures, 5))
    courier.start()
    run = watching(str(source), str(output), deadline=1000, stop_after=2)
    courier.join()
    count = Counter(job.node.name for job in asked)
    first = {path.name.replace("_uncal.fits", "_rate") for path in exposures}
    assert set(count.values()) == {1}
    assert set(count) == first | names(pool)
    assert len(names(pool)) > 50
    assert {node["state"] for node in run["nodes"]} == {"done"}
    order = [job.node.name for job in asked]
    for job in asked:
        assert all(order.index(need) < order.index(job.node.name) for need in job.node.needs)


def test_a_candidate_without_a_pool_goes_on_when_nothing_more_comes(places, exposures, asked):
    source, output = places
    for path in exposures[:3]:
        (source / path.name).write_bytes(path.read_bytes())
    watching(str(source), str(output), deadline=0.3, stop_after=0.8)
    level3 = [job.node for job in asked if job.node.stage == "image3"]
    assert [len(node.reads) for node in level3] == [3]
    assert (output / "calweave_pool.csv").is_file()


def test_what_comes_late_changes_what_it_belongs_to_and_nothing_else(places, exposures, asked):
    source, output = places
    early = exposures[:2] + exposures[10:12]
    for path in early:
        (source / path.name).write_bytes(path.read_bytes())

    def late():
        while sum(job.node.stage == "image3" for job in list(asked)) < 2:
            time.sleep(0.05)
        (source / exposures[2].name).write_bytes(exposures[2].read_bytes())

    courier = threading.Thread(target=late)
    courier.start()
    watching(str(source), str(output), deadline=0.3, stop_after=2.5)
    courier.join()
    count = Counter(job.node.name for job in asked)
    again = {name for name, times in count.items() if times > 1}
    mosaics = [job.node for job in asked if job.node.stage == "image3"]
    assert again == {mosaics[-1].name}
    assert "o001" in mosaics[-1].name
    assert [len(node.reads) for node in mosaics] == [2, 2, 3]
    assert len({(job.node.stage, job.node.makes) for job in asked}) == len(count), "no product has two names"


def test_an_announced_exposure_that_does_not_come_is_told(places, exposures, asked, caplog):
    source, output = places
    announce(source, exposures[:3])
    for path in exposures[:2]:
        (source / path.name).write_bytes(path.read_bytes())
    watching(str(source), str(output), deadline=0.3, stop_after=0.8)
    assert f"o001 goes on without {exposures[2].name}" in caplog.text
    assert [len(job.node.reads) for job in asked if job.node.stage == "image3"] == [2]


def test_an_exposure_that_is_withdrawn_before_it_was_made_does_not_count(places, exposures, monkeypatch):
    source, output = places
    asked, held = [], []

    @contextmanager
    def slow(name, slots, timeout):
        def submit(job):
            asked.append(job)
            held.append(Future())
            if job.node.target.endswith(exposures[0].name):
                (source / exposures[0].name).unlink()
                held[-1].set_result(Outcome("failed", error="it went away", failure="input"))
            else:
                held[-1].set_result(Outcome("done", fingerprint="x"))
            return held[-1]

        yield submit

    monkeypatch.setattr(module, "open_engine", slow)
    for path in exposures[:3]:
        (source / path.name).write_bytes(path.read_bytes())
    watching(str(source), str(output), deadline=0.5, stop_after=1)
    mosaics = [job.node for job in asked if job.node.stage == "image3"]
    assert [len(node.reads) for node in mosaics] == [2]


def test_mosaics_of_several_observations_wait_for_each(places, exposures, asked):
    source, output = places
    both = exposures[:2] + exposures[10:12]
    pool = make_pool({path.name: read_header(path) for path in both}, "jw01571_pool.csv", [("c1001", "mosaic")])
    (source / "jw01571_pool.csv").write_text(pool.to_text())
    for path in both:
        (source / path.name).write_bytes(path.read_bytes())
    watching(str(source), str(output), deadline=1000, stop_after=0.5)
    assert Counter(job.node.name for job in asked) == Counter(
        {*names(pool), *(path.name.replace("_uncal.fits", "_rate") for path in both)}
    )
    assert any("c1001" in job.node.name for job in asked)


def test_the_rows_of_these_tests_are_those_of_the_pool_maker(exposures):
    row = make_pool({exposures[0].name: read_header(exposures[0])}).rows[0]
    expected = Pool("x", (), (exposure(1, 1),)).rows[0]
    assert {key: row[key] for key in ("exp_type", "pupil", "asn_candidate", "obs_num")} == {
        key: expected[key] for key in ("exp_type", "pupil", "asn_candidate", "obs_num")
    }
