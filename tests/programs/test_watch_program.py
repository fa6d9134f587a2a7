"""A program that arrives piece by piece ends as a run of all of it, and a watch that starts again has nothing to do."""

import shutil
import threading
import time

import pytest
from small_program import ALL, FROM_IMAGES, RATES, made, states, tree

from flows.watch import watching


@pytest.fixture
def incoming(program, tmp_path):
    """A folder to which the program has still to come; its pool is there."""
    folder = tmp_path / "incoming"
    folder.mkdir()
    (pool,) = program.folder.glob("*_pool.csv")
    shutil.copy(pool, folder)
    return folder


def test_a_program_that_arrives_piece_by_piece_ends_as_a_run(program, calibrated, incoming, tmp_path):
    def deliver():
        for path in sorted((program.folder / "uncal").iterdir(), reverse=True):
            data = path.read_bytes()
            with (incoming / path.name).open("wb") as file:
                file.write(data[: len(data) // 2])
                file.flush()
                time.sleep(0.3)
                file.write(data[len(data) // 2 :])

    courier = threading.Thread(target=deliver)
    courier.start()
    out = tmp_path / "watched"
    run = watching(str(incoming), str(out), {}, 2, deadline=1000, stop_after=4)
    courier.join()
    assert made(run) == ALL
    assert tree(out) == tree(calibrated.products)

    again = watching(str(incoming), str(out), {}, 2, deadline=1000, stop_after=1)
    assert set(states(again).values()) == {"current"}
    assert tree(out) == tree(calibrated.products)

    # A better copy of an exposure comes: its branch, and nothing else.
    first = incoming / program.uncal(RATES["first"]).name
    data = bytearray(first.read_bytes())
    data[-3000] ^= 1
    first.write_bytes(data)
    last = watching(str(incoming), str(out), {}, 2, deadline=1000, stop_after=1)
    assert made(last) <= FROM_IMAGES - {RATES["second"]}
    assert RATES["first"] in made(last)


def test_a_damaged_exposure_stops_its_branch_and_heals(program, calibrated, incoming, tmp_path, monkeypatch):
    monkeypatch.setattr("infra.products.arrivals.PATIENCE", 0.5)
    for path in (program.folder / "uncal").iterdir():
        shutil.copy(path, incoming)
    bad = incoming / program.uncal(RATES["GR150R"]).name
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "watched"
    done = states(watching(str(incoming), str(out), {}, 2, deadline=1.0, stop_after=3))
    assert done[RATES["GR150R"]] == "failed"
    assert {state for name, state in done.items() if name != RATES["GR150R"]} == {"done"}
    assert len(done) < len(ALL)
    bad.write_bytes(whole)
    healed = states(watching(str(incoming), str(out), {}, 2, deadline=1.0, stop_after=3))
    assert set(healed.values()) <= {"done", "current"}
    # Associations are numbered as they come; all else is as it would have been.
    assert set(tree(out)) == set(tree(calibrated.products))
