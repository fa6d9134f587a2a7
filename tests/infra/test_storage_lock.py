"""Of two runs on one output only one works; a run that was killed does not keep the next one out."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from fault_proxy import make_bucket, point_at, s3_process

from infra.storage import lock as locks
from infra.storage.lock import OutputLocked, holder, locked
from infra.storage.store import StorageError, join, read_text, remove, stat_folder, write_text

REPOSITORY = Path(locks.__file__).parents[2]


@pytest.fixture(scope="module")
def s3_server():
    with s3_process() as port:
        yield port


@pytest.fixture(params=["local", "memory", "s3"])
def output(request, tmp_path, monkeypatch):
    """The URL of an empty place of each kind."""
    if request.param == "local":
        return str(tmp_path / "out")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    point_at(request.getfixturevalue("s3_server"), monkeypatch)
    return make_bucket(f"bucket-{uuid.uuid4().hex[:8]}") + "/products"


@pytest.fixture
def quick(monkeypatch):
    """Signs of life every 50 ms, and one that is 300 ms old is too old."""
    monkeypatch.setattr(locks, "BEAT", 0.05)
    monkeypatch.setattr(locks, "STALE", 0.3)
    monkeypatch.setattr(locks, "POLL", 0.02)
    monkeypatch.setattr(locks, "SETTLE", 0.1)


def held_by_another(output, **changes):
    """A lock as another run has left it."""
    other = locks.Lock(output)
    other.owner |= changes
    assert locks._swap(other.url, None, other.owner)


def test_the_second_run_is_refused_with_who_and_since_when_and_the_lock_goes_with_the_first(output):
    with locked(output):
        assert holder(output)["pid"] == os.getpid()
        with pytest.raises(OutputLocked) as caught, locked(output):
            pass
        message = str(caught.value)
        assert output in message
        assert f"process {os.getpid()}" in message
        assert "since 20" in message
        assert "--wait" in message
        assert "\n" not in message
        write_text(join(output, "a.txt"), "ours")
    assert holder(output) is None
    assert list(stat_folder(output)) == ["a.txt"], "nothing of the lock is left"
    with locked(output):
        pass


def test_the_second_run_waits_for_the_first(output, quick):
    order = []
    started = threading.Event()

    def second():
        started.set()
        with locked(output, wait=True):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(output):
        thread.start()
        started.wait()
        time.sleep(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_of_many_who_want_it_at_once_one_at_a_time_has_it(output, quick):
    inside, most, done = [], [], []

    def work(number):
        with locked(output, wait=True):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.03)
            inside.remove(number)
            done.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == list(range(5))
    assert max(most) == 1


def test_a_lock_of_a_process_that_is_no_more_is_taken_over_at_once(output):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    held_by_another(output, pid=gone.pid)
    with locked(output):
        assert holder(output)["pid"] == os.getpid()


def test_a_lock_of_an_earlier_process_with_the_number_of_a_living_one_is_taken_over(output):
    if not Path("/proc/self/stat").exists():
        pytest.skip("this system does not tell when a process started")
    held_by_another(output, process="1")
    with locked(output):
        pass


def test_a_lock_of_another_machine_is_taken_over_when_it_gives_no_sign_of_life(output, monkeypatch):
    held_by_another(output, machine="elsewhere", host="elsewhere", pid=1)
    with pytest.raises(OutputLocked, match="on elsewhere"), locked(output):
        pass
    monkeypatch.setattr(locks, "STALE", -1.0)
    with locked(output):
        assert holder(output)["machine"] != "elsewhere"


def test_a_run_that_lives_gives_signs_of_life(output, quick):
    with locked(output):
        time.sleep(0.5)
        assert locks._read(join(output, locks.NAME)).owner["beats"] > 2


def test_who_lost_the_lock_can_write_no_more_there_but_elsewhere(output, quick):
    url, elsewhere = join(output, "a.txt"), output + "-elsewhere/b.txt"
    with locked(output) as lock:
        write_text(url, "before")
        remove(lock.url)
        held_by_another(output, machine="elsewhere", host="elsewhere")
        time.sleep(0.3)
        write_text(elsewhere, "it may")
        with pytest.raises(OutputLocked, match=r"on elsewhere.*nothing more is written"):
            write_text(url, "after")
    assert read_text(url) == "before"
    assert read_text(elsewhere) == "it may"
    assert holder(output)["machine"] == "elsewhere", "the lock of the other one stays"


def test_who_was_asleep_for_long_looks_before_it_writes(output, quick, monkeypatch):
    """A machine that slept wakes in the middle of its work, before its next sign of life."""
    monkeypatch.setattr(locks, "BEAT", 1000.0)
    monkeypatch.setattr(locks, "STALE", 1000.2)
    with locked(output) as lock:
        time.sleep(0.3)
        write_text(join(output, "a.txt"), "nobody took it")
        remove(lock.url)
        held_by_another(output, machine="elsewhere", host="elsewhere")
        time.sleep(0.3)
        with pytest.raises(OutputLocked, match="was lost"):
            write_text(join(output, "a.txt"), "it was taken")
    assert read_text(join(output, "a.txt")) == "nobody took it"


RUN = """
import sys, time
from pathlib import Path
from infra.storage import lock as locks
from infra.storage.store import write_text, join
locks.POLL = 0.05
output, name = sys.argv[1:3]
with locks.locked(output, wait='wait' in sys.argv):
    print('in', flush=True)
    for number in range(5):
        write_text(join(output, f'{number}.txt'), name)
        time.sleep(0.1)
    if 'hang' in sys.argv:
        time.sleep(60)
    assert {Path(join(output, f'{n}.txt')).read_text() for n in range(5)} == {name}
"""


def start(output, *words):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, output, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip


def test_two_processes_never_mix_and_one_that_is_killed_lets_go(tmp_path):
    output = str(tmp_path / "out")
    first = start(output, "first", "hang")
    assert first.stdout.readline() == "in\n"
    refused = start(output, "second")
    _, errors = refused.communicate(timeout=30)
    assert refused.returncode == 1
    assert f"process {first.pid}" in errors
    waiting = start(output, "third", "wait")
    time.sleep(0.7)
    assert waiting.poll() is None
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert waiting.communicate(timeout=30)[0] == "in\n"
    assert waiting.returncode == 0
    assert stat_folder(output).keys() == {f"{number}.txt" for number in range(5)}


def test_a_stopped_process_keeps_its_lock(tmp_path, quick):
    output = str(tmp_path / "out")
    first = start(output, "first", "hang")
    assert first.stdout.readline() == "in\n"
    first.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    with pytest.raises(OutputLocked), locked(output):
        pass
    first.kill()
    first.communicate()


def test_something_else_in_the_place_of_the_lock_is_no_lock_of_a_living_run(tmp_path, monkeypatch):
    (tmp_path / locks.NAME).write_text("half a lo")
    with pytest.raises(OutputLocked), locked(str(tmp_path)):
        pass
    monkeypatch.setattr(locks, "STALE", -1.0)
    with locked(str(tmp_path)):
        assert holder(str(tmp_path))["pid"] == os.getpid()


def test_an_output_that_cannot_be_written_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="a part of the path is a file"), locked(str(tmp_path / "file" / "out")):
        pass


@pytest.mark.parametrize("output", ["s3"], indirect=True)
def test_a_store_that_knows_no_conditions_lets_the_last_one_have_it(output, quick, monkeypatch):
    """As rclone does: it puts whatever the condition says."""
    put = locks._put_s3
    monkeypatch.setattr(locks, "_put_s3", lambda system, path, text, condition: put(system, path, text, {}))
    test_of_many_who_want_it_at_once_one_at_a_time_has_it(output, None)


def test_where_folders_cannot_be_locked_the_last_one_has_it(tmp_path, quick, monkeypatch):
    """As on some network file systems."""

    def refuse(handle, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    test_of_many_who_want_it_at_once_one_at_a_time_has_it(str(tmp_path / "out"), None)


def test_the_command_is_refused_by_a_run_that_works_there_or_waits_for_it(tmp_path, calweave_process):
    """By the real command line, on an exposure that cannot be calibrated: it is told apart by what it says."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "jw09801001001_02101_00001_nis_uncal.fits").write_bytes(b"no FITS file")
    out = str(tmp_path / "out")
    words = ("run", tmp_path / "raw", "--out", out, "--workers", 1)
    with locked(out):
        done = calweave_process(*words, crds=tmp_path / "crds")
        assert done.returncode == 1
        assert f"{out} is in use by another run on" in done.stderr
        assert f"process {os.getpid()}" in done.stderr
        assert set(stat_folder(out)) == {locks.NAME}, "it wrote nothing"
        command = [sys.executable, "-m", "flows.cli", *map(str, words), "--wait"]
        environment = os.environ | {"CRDS_PATH": str(tmp_path / "crds"), "COLUMNS": "300"}
        second = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True)
        told = ""
        while "waiting for it to end" not in told:
            line = second.stderr.readline()
            assert line, told
            told += line
        assert second.poll() is None
    told += second.communicate(timeout=120)[1]
    assert f"{out} is in use by another run on" in told
    assert "expected a FITS file" in told, "then it does its work"
    assert locks.NAME not in stat_folder(out)
