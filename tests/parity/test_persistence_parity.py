"""Suspect pixels are flagged, and handed on in a file, as by the official pipeline (jwst 3.0.0): same flags, same array.

A chain of three exposures of one detector, in time order; either package reads what the other wrote.
"""

import shutil

import asdf
import numpy as np
import pytest
from carried_parity import load, run_peer, write_cache

from calibration import dq
from infra.products.header import Header
from infra.products.persistence import read_suspects, write_suspects
from infra.products.ramp import Ramp, read_ramp, write_ramp
from infra.references.content import References
from tasks.persistence import PersistenceOptions, persistence

SHAPE = (2, 6, 40, 48)
STARTS = (60_139.5, 60_139.502, 60_139.5031)  # [MJD]
OPTIONS = {"persistence_time": 150, "dn_threshold": 20_000.0}
NONE = References({"trapdensity": None, "trappars": None, "persat": None}, "")


def ramp_of(number):
    rng = np.random.default_rng(number)
    data = np.cumsum(10 ** rng.uniform(0, 4.1, SHAPE[2:]) * np.ones(SHAPE), axis=1).astype(np.float32)
    groupdq = np.where(np.cumsum(data > 45_000, axis=1) > 0, dq.GROUP["SATURATED"], np.uint8(0))
    header = Header(
        {
            "INSTRUME": "NIRISS", "DETECTOR": "NIS", "EXP_TYPE": "NIS_IMAGE", "TGROUP": 10.0, "TFRAME": 10.0, "NINTS": 2,
            "NGROUPS": 6, "EXPSTART": STARTS[number], "EFFINTTM": 60.0, "SUBSTRT1": 101, "SUBSTRT2": 51, "SUBSIZE1": 48,
            "SUBSIZE2": 40, "FASTAXIS": -2, "SLOWAXIS": -1, "FILENAME": f"exposure{number}_jump.fits",
        }
    )  # fmt: skip
    return Ramp(header, data, np.zeros(SHAPE[2:], np.uint32), groupdq)


@pytest.fixture(scope="module")
def made(tmp_path_factory, peer):
    folder = tmp_path_factory.mktemp("persistence_parity")
    jobs = []
    for number in range(3):
        write_ramp(ramp_of(number), folder / f"exposure{number}_jump.fits")
        options = {**OPTIONS, "save_persistence": f"{folder}/theirs{number}.asdf", "persistence_dnu": number == 2}
        if number:
            options["persistence_array_file"] = f"{folder}/theirs{number - 1}.asdf"
        jobs.append({
            "name": f"exposure{number}", "step": "persistence", "model": "RampModel", "references": {},
            "exposure": f"{folder}/exposure{number}_jump.fits", "options": options,
        })  # fmt: skip
    # The last one again, after what ours wrote of the second.
    second = persistence.fn(
        read_ramp(folder / "exposure1_jump.fits"),
        NONE,
        PersistenceOptions(**OPTIONS, save_persistence=True),
    )
    write_suspects(second.side["persistence"], folder / "ours1.asdf")
    options = {**OPTIONS, "persistence_array_file": f"{folder}/ours1.asdf", "save_persistence": f"{folder}/mixed.asdf"}
    jobs.append({**jobs[-1], "name": "mixed", "options": options})
    run_peer(peer, folder, write_cache(folder / "crds", {}), jobs)
    return folder


def test_a_chain_of_exposures_is_flagged_as_by_the_official_pipeline(made, tmp_path):
    for number in range(3):
        options = {**OPTIONS, "save_persistence": True, "persistence_dnu": number == 2}
        if number:
            options["persistence_array_file"] = str(tmp_path / f"ours{number - 1}.asdf")
        done = persistence.fn(read_ramp(made / f"exposure{number}_jump.fits"), NONE, PersistenceOptions(**options))
        write_suspects(done.side["persistence"], tmp_path / f"ours{number}.asdf")
        np.testing.assert_array_equal(done.groupdq, load(made, f"exposure{number}")["groupdq"], err_msg=str(number))
        with asdf.open(made / f"theirs{number}.asdf", lazy_load=False, memmap=False) as file:
            theirs = file.tree["NIS"]
            mine = read_suspects(tmp_path / f"ours{number}.asdf").detectors["NIS"]
            np.testing.assert_array_equal(mine.rows, theirs["rows"])
            np.testing.assert_array_equal(mine.cols, theirs["cols"])
            np.testing.assert_allclose(mine.vals, theirs["vals"], rtol=0, atol=1e-3)
    suspect = (done.groupdq & dq.GROUP["PERSISTENCE"]) != 0
    assert 0.02 < suspect[:, 0].mean() < 0.9


def test_either_reads_what_the_other_wrote(made, tmp_path):
    theirs = shutil.copy(made / "theirs1.asdf", tmp_path)
    done = persistence.fn(
        read_ramp(made / "exposure2_jump.fits"),
        NONE,
        PersistenceOptions(**OPTIONS, persistence_array_file=theirs, persistence_dnu=True),
    )
    np.testing.assert_array_equal(done.groupdq, load(made, "exposure2")["groupdq"])
    mine = persistence.fn(
        read_ramp(made / "exposure2_jump.fits"),
        NONE,
        PersistenceOptions(**OPTIONS, persistence_array_file=str(made / "ours1.asdf")),
    )
    np.testing.assert_array_equal(mine.groupdq, load(made, "mixed")["groupdq"])
