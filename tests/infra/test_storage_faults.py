"""Whatever happens between us and the store, a file comes and goes whole, or the error is clear: never a part."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest
from fault_proxy import KINDS, at_random, faulty, make_bucket, point_at, s3_process

from infra.storage import faults, objects, scratch, store
from infra.storage.faults import is_transient
from infra.storage.lock import holder, locked
from infra.storage.store import (
    StorageError,
    TransientStorageError,
    clean,
    exists,
    fetch,
    fetched,
    join,
    listing,
    publish,
    read_text,
    stat_file,
    stat_folder,
    write_text,
    writing,
)

SMALL, LARGE = 200_000, 12_000_000  # bytes: in one request, and in three parts of 5 MB


@pytest.fixture(scope="module")
def server():
    with s3_process() as port:
        yield port


@pytest.fixture(autouse=True)
def small_blocks(tmp_path, monkeypatch):
    """Parts as small as S3 allows, no long waits, and a scratch folder of 40 MB."""
    monkeypatch.setattr(objects, "BLOCK", 5 * 2**20)
    monkeypatch.setattr(faults, "DELAYS", (0.01, 0.02, 0.03, 0.03, 0.03))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # else the client itself waits for seconds
    monkeypatch.setenv("CALWEAVE_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("CALWEAVE_SCRATCH_GB", "0.04")
    monkeypatch.setattr(scratch, "_folder", None)
    yield
    scratch._folder = None


@pytest.fixture
def bucket(server, monkeypatch):
    """A new bucket, without faults."""
    point_at(server, monkeypatch)
    return make_bucket(f"bucket-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def spoil(server, monkeypatch, bucket):
    """Put a proxy before the server: all that comes later goes through it."""
    proxies = []

    def start(choose):
        context = faulty(server, choose)
        proxy = context.__enter__()
        proxies.append(context)
        point_at(proxy.port, monkeypatch)
        monkeypatch.setattr("s3fs.S3FileSystem.read_timeout", 5)
        return proxy

    yield start
    for context in proxies:
        context.__exit__(None, None, None)


def content(size, seed=1):
    return random.Random(seed).randbytes(size)


def file_of(path, size, seed=1):
    path.write_bytes(content(size, seed))
    return path


def once(fault, verb, seen=None):
    """The first request that begins so meets this fault."""
    seen = Counter() if seen is None else seen

    def choose(number, line):
        if line.startswith(verb) and not seen[verb]:
            seen[verb] += 1
            return fault
        return None

    return choose


@pytest.mark.parametrize(("fault", "size"), [*((kind, SMALL) for kind in KINDS), ("cut_up", LARGE), ("short", LARGE)])
def test_one_fault_while_reading_and_one_while_writing_do_no_harm(bucket, spoil, tmp_path, fault, size):
    proxy = spoil(lambda number, line: None)
    source, url = file_of(tmp_path / "a.fits", size), f"{bucket}/a.fits"
    proxy.choose = once(fault, "PUT")
    publish(source, url)
    assert sum(proxy.faults.values()) == 1
    proxy.choose = once(fault, "GET")
    assert Path(fetch(url)).read_bytes() == content(size)
    assert sum(proxy.faults.values()) >= (1 if fault == "short" else 2)
    proxy.choose = lambda number, line: None
    assert list(stat_folder(bucket)) == ["a.fits"]


@pytest.mark.parametrize("seed", range(2))
def test_with_a_fault_in_every_sixth_request_whole_files_go_and_come(bucket, spoil, tmp_path, seed):
    proxy = spoil(at_random(seed, 1 / 6))
    for number, size in enumerate([0, 1, SMALL, LARGE, SMALL + 1, 2 * 5 * 2**20]):
        source, url = file_of(tmp_path / f"{number}.fits", size, number), f"{bucket}/{number}.fits"
        publish(source, url)
        with fetched(url) as path:
            assert Path(path).read_bytes() == content(size, number)
    text = write_text(f"{bucket}/a.json", "{}" * 100)
    assert read_text(text) == "{}" * 100
    assert exists(text)
    assert not exists(f"{bucket}/b.json")
    assert len(listing(bucket)) == 7
    assert {name: stat.size for name, stat in stat_folder(bucket).items()}["3.fits"] == LARGE
    assert len(proxy.faults) > 2, "else nothing was tried"


@pytest.mark.parametrize(
    ("fault", "size"),
    [("cut_down", SMALL), ("short", SMALL), ("slow_down", SMALL), ("cut_up", LARGE), ("lost_answer", LARGE)],
)
def test_where_every_request_fails_the_error_is_one_line_and_nothing_half_is_left(bucket, spoil, tmp_path, fault, size):
    source, url = file_of(tmp_path / "a.fits", size), f"{bucket}/a.fits"
    publish(source, url)
    earlier = stat_file(url)
    file_of(source, size, seed=2)
    proxy = spoil(lambda number, line: None)
    # What the client asks and learns of an object comes through: its size is known, its content does not come.
    proxy.choose = lambda number, line: fault if line.startswith("GET") else None
    with pytest.raises(TransientStorageError, match=rf"{url}.*tried \d times") as caught:
        fetch(url)
    assert "\n" not in str(caught.value)
    assert [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()] == []
    if fault == "short":
        return
    proxy.choose = lambda number, line: fault if line.startswith(("PUT", "POST")) else None
    with pytest.raises(TransientStorageError, match=rf"{url}.*tried \d times"):
        publish(source, url)
    proxy.choose = lambda number, line: None
    if fault == "cut_down":
        assert Path(fetch(url)).read_bytes() == content(size, 2), "it came through, but nobody told us"
    else:
        assert stat_file(url) == earlier, "the earlier file is as it was"


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (404, "NoSuchBucket"), (301, "PermanentRedirect")])
def test_what_another_attempt_does_not_mend_is_not_tried_again(bucket, spoil, tmp_path, monkeypatch, status, code):
    from botocore.exceptions import ClientError

    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert not is_transient(ClientError(answer, "GetObject"))
    proxy = spoil(lambda number, line: None)
    with pytest.raises(StorageError, match="does not exist") as caught:
        fetch(f"{bucket}/absent.fits")
    assert not isinstance(caught.value, TransientStorageError)
    assert len(proxy.requests) < 4
    proxy.requests.clear()
    with pytest.raises(StorageError) as caught:
        write_text("s3://a-bucket-that-is-not-there/a.txt", "x")
    assert not isinstance(caught.value, TransientStorageError)
    assert len(proxy.requests) < 4


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
def test_what_a_busy_store_answers_is_tried_again(status):
    from botocore.exceptions import ClientError

    answer = {"Error": {"Code": str(status)}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = OSError(5, "translated")
    error.__cause__ = ClientError(answer, "HeadObject")
    assert is_transient(error)
    assert not is_transient(OSError(28, "No space left on device"))
    assert not is_transient(ValueError("a wrong value"))


def test_an_object_that_is_written_anew_while_it_is_read_comes_as_one_of_the_two(bucket, spoil, tmp_path):
    """In each block of the first the second could be mixed: equal sizes, other bytes."""
    url = f"{bucket}/a.fits"
    one, two = file_of(tmp_path / "one", LARGE, 1), file_of(tmp_path / "two", LARGE, 2)
    publish(one, url)
    direct = objects.open_store(url)[0]
    changed = []

    def choose(number, line):
        if line.startswith("GET") and not changed:
            changed.append(line)
            # By the server's own client, between two blocks.
            threading.Thread(target=direct.put_file, args=(str(two), url.removeprefix("s3://"))).start()
            time.sleep(0.2)
        return None

    spoil(choose)
    assert Path(fetch(url)).read_bytes() in (content(LARGE, 1), content(LARGE, 2))
    assert changed


def test_what_a_killed_upload_has_left_is_removed_with_the_next_lock_and_nothing_of_it_is_seen(bucket, spoil, tmp_path):
    url = f"{bucket}/out/a.fits"
    source = file_of(tmp_path / "a.fits", 40_000_000)
    proxy = spoil(lambda number, line: "stall" if line.startswith("PUT") else None)
    code = (
        "import sys\nfrom infra.storage import objects\nfrom infra.storage.store import publish\n"
        "objects.BLOCK, objects.THREADS = 5 * 2**20, 1\nprint('begin', flush=True)\npublish(*sys.argv[1:])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(source), url], cwd=Path(store.__file__).parents[2], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    end = time.monotonic() + 30
    while not sum(line.startswith("PUT") for line in proxy.requests) > 1:
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    import boto3

    client, name = boto3.client("s3"), bucket.removeprefix("s3://")
    assert len(client.list_multipart_uploads(Bucket=name)["Uploads"]) == 1
    other = client.create_multipart_upload(Bucket=name, Key="elsewhere/b.fits")["UploadId"]
    assert not exists(url)
    with locked(f"{bucket}/out"):
        assert [one["UploadId"] for one in client.list_multipart_uploads(Bucket=name)["Uploads"]] == [other]
    assert stat_folder(bucket) == {}
    clean(bucket)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=name)


def test_a_lock_holds_through_faults(bucket, spoil):
    proxy = spoil(at_random(5, 0.25, ("cut_down", "cut_up", "slow_down", "busy", "lost_answer")))
    for number in range(6):
        with locked(f"{bucket}/out"):
            assert holder(f"{bucket}/out")["pid"] == os.getpid()
            write_text(join(bucket, "out", f"{number}.txt"), "x")
    proxy.choose = lambda number, line: None
    assert len(proxy.faults) > 2
    assert set(stat_folder(f"{bucket}/out")) == {f"{number}.txt" for number in range(6)}


def test_a_file_that_is_being_written_counts_as_scratch(bucket, tmp_path, monkeypatch):
    kept = [write_text(f"{bucket}/{number}.txt", "x" * 10_000_000) for number in range(4)]
    for url in kept:
        fetch(url)
    with writing(f"{bucket}/new.fits", size=25_000_000) as path:
        Path(path).write_bytes(b"x" * 25_000_000)
        used = sum(path.stat().st_size for path in (tmp_path / "scratch").rglob("*") if path.is_file())
        assert used <= 40_000_000
    with pytest.raises(StorageError, match="raise CALWEAVE_SCRATCH_GB"), writing(f"{bucket}/b.fits", size=50_000_000):
        pass


def test_what_a_killed_process_has_left_in_the_scratch_folder_goes_with_the_next(bucket, tmp_path, monkeypatch):
    url = write_text(f"{bucket}/a.txt", "x" * 1000)
    code = (
        "import os, signal, sys\nfrom infra.storage.store import fetch\n"
        "print(fetch(sys.argv[1]), flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, url], capture_output=True, text=True, cwd=Path(store.__file__).parents[2]
    )
    left = Path(done.stdout.strip())
    assert left.is_file()
    monkeypatch.setattr(scratch, "_folder", None)  # as in a new process
    fetch(url)
    assert not left.exists()
    assert len([path for path in (tmp_path / "scratch").rglob("*") if path.is_file()]) == 1
