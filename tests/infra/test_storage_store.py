"""A file appears whole or not at all, and reads the same, on a local disk, in memory and on s3."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import fsspec
import pytest
from fault_proxy import make_bucket, point_at, s3_process

from infra.storage import faults, objects, scratch, store
from infra.storage.store import (
    StorageError,
    TransientStorageError,
    clean,
    exists,
    fetch,
    fetched,
    folder_of,
    join,
    listing,
    name_of,
    publish,
    read_text,
    remove,
    stat_file,
    stat_folder,
    write_text,
    writing,
)


@pytest.fixture(scope="module")
def s3_server():
    with s3_process() as port:
        yield port


@pytest.fixture(params=["local", "file", "memory", "s3"])
def folder(request, tmp_path, monkeypatch):
    """The URL of an empty place of each kind."""
    if request.param == "local":
        return str(tmp_path / "out")
    if request.param == "file":
        return f"file://{tmp_path / 'out'}"
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    point_at(request.getfixturevalue("s3_server"), monkeypatch)
    return make_bucket(f"bucket-{uuid.uuid4().hex[:8]}") + "/products"


@pytest.fixture
def small_scratch(tmp_path, monkeypatch):
    """A new scratch folder of 10 kB."""
    monkeypatch.setenv("CALWEAVE_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("CALWEAVE_SCRATCH_GB", "1e-5")
    monkeypatch.setattr(scratch, "_folder", None)
    yield tmp_path / "scratch"
    scratch._folder = None


def files_below(path):
    return [entry for entry in Path(path).rglob("*") if entry.is_file()]


def test_what_is_written_is_read_again(folder):
    url = join(folder, "a_rate.fits")
    assert not exists(url)
    with writing(url) as path:
        assert name_of(path) == "a_rate.fits", "writers put it into FILENAME"
        Path(path).write_bytes(b"\x00\xffpixels")
        assert not exists(url), "not before it is whole"
    assert exists(url)
    assert Path(fetch(url)).read_bytes() == b"\x00\xffpixels"
    assert name_of(fetch(url)) == "a_rate.fits"


def test_publish_puts_a_complete_file_over_an_earlier_one(folder, tmp_path):
    url = join(folder, "a.fits")
    (tmp_path / "one").write_bytes(b"one")
    (tmp_path / "two").write_bytes(b"the second")
    assert publish(tmp_path / "one", url) == url
    assert Path(fetch(url)).read_bytes() == b"one"
    publish(tmp_path / "two", url)
    assert Path(fetch(url)).read_bytes() == b"the second"
    assert (tmp_path / "two").exists()


def interrupted(url):
    with writing(url) as path:
        Path(path).write_bytes(b"half")
        raise ZeroDivisionError


def test_an_exception_while_writing_leaves_nothing_and_the_earlier_file_as_it_was(folder):
    url = join(folder, "a.fits")
    with pytest.raises(ZeroDivisionError):
        interrupted(url)
    assert not exists(url)
    write_text(url, "whole")
    with pytest.raises(ZeroDivisionError):
        interrupted(url)
    assert read_text(url) == "whole"
    assert listing(folder) == [url]
    if store.is_local(folder):
        assert [path.name for path in Path(store.local_path(folder)).iterdir()] == ["a.fits"]


def test_text_is_utf8(folder):
    url = join(folder, "report.json")
    assert write_text(url, "0.1″ ± 3 µJy\n") == url
    assert read_text(url) == "0.1″ ± 3 µJy\n"


def test_listing_is_sorted_by_pattern_and_without_hidden_files(folder):
    for name in ("b_rate.fits", "a_rate.fits", "a_cal.fits", "deep/c_rate.fits", ".hidden_rate.fits"):
        write_text(join(folder, name), name)
    assert listing(folder, "*_rate.fits") == [join(folder, "a_rate.fits"), join(folder, "b_rate.fits")]
    assert listing(folder) == [join(folder, name) for name in ("a_cal.fits", "a_rate.fits", "b_rate.fits")]
    assert listing(folder + "/", "**/*_rate.fits") == [
        join(folder, n) for n in ("a_rate.fits", "b_rate.fits", "deep/c_rate.fits")
    ]


def test_a_whole_folder_is_known_in_one_call(folder):
    assert stat_folder(folder) == {}, "a folder that is not there is an empty one"
    for name, text in (("b.fits", "b"), ("a.fits", "aaa"), ("deep/er/c.fits", "cc"), (".side/a.json", "{}")):
        write_text(join(folder, name), text)
    before = stat_folder(folder)
    assert {name: stat.size for name, stat in before.items()} == {
        ".side/a.json": 2, "a.fits": 3, "b.fits": 1, "deep/er/c.fits": 2
    }  # fmt: skip
    assert list(before) == sorted(before)
    time.sleep(0.01)
    write_text(join(folder, "a.fits"), "xyz")
    after = stat_folder(folder + "/")
    assert {name for name in after if after[name] != before[name]} == {"a.fits"}, "same size, another content"
    with writing(join(folder, "deep/new.fits")) as path:
        Path(path).write_text("half")
        assert stat_folder(folder) == after, "what is being written is not there yet"


def test_one_file_is_told_of_as_its_folder_tells_and_can_be_removed(folder):
    url = write_text(join(folder, "a.fits"), "abc")
    assert stat_file(url) == stat_folder(folder)["a.fits"]
    for _ in range(2):
        remove(url)
        assert stat_file(url) is None


def test_a_whole_folder_does_not_enter_links(tmp_path):
    write_text(str(tmp_path / "outside" / "x.fits"), "x")
    write_text(str(tmp_path / "in" / "a.fits"), "a")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "b.fits").symlink_to(tmp_path / "outside" / "x.fits")
    (tmp_path / "in" / "broken.fits").symlink_to(tmp_path / "nowhere")
    assert list(stat_folder(str(tmp_path / "in"))) == ["a.fits", "b.fits"]


@pytest.mark.parametrize("folder", ["s3"], indirect=True)
def test_a_folder_of_a_store_takes_no_request_for_each_file(folder, monkeypatch):
    import boto3

    client = boto3.client("s3")
    bucket, prefix = folder.removeprefix("s3://").split("/")
    for number in range(40):
        client.put_object(Bucket=bucket, Key=f"{prefix}/{number:05}.txt", Body=b"x")
    calls = []
    s3 = type(fsspec.filesystem("s3", use_listings_cache=False))
    original = s3._call_s3
    monkeypatch.setattr(s3, "_call_s3", lambda *args, **kw: calls.append(args[1]) or original(*args, **kw))
    assert len(stat_folder(folder)) == 40
    assert len(calls) < 5, "not one for each file"


def test_what_is_not_there_is_an_error_of_one_line_that_names_it(folder):
    url = join(folder, "absent.fits")
    for read in (fetch, read_text, listing):
        with pytest.raises(StorageError, match=r"absent.fits.*correct the path") as caught:
            read(url)
        assert "\n" not in str(caught.value)


def test_readers_never_see_a_part(folder):
    """While one file is published over and over in two lengths, each reading is one of the two."""
    url = join(folder, "a.txt")
    texts = ["x" * 300_000, "y" * 500_000]
    write_text(url, texts[0])
    stop = threading.Event()
    odd = []

    def read():
        while not stop.is_set():
            text = read_text(url)
            if text not in texts:
                odd.append((len(text), set(text)))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(12):
        write_text(url, texts[number % 2])
    stop.set()
    reader.join()
    assert odd == []


def test_of_many_who_publish_one_name_one_wins_whole(folder):
    url = join(folder, "a.txt")
    texts = [str(number) * (10_000 + number) for number in range(8)]
    threads = [threading.Thread(target=write_text, args=(url, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_text(url) in texts
    assert listing(folder) == [url]


def test_a_changed_object_is_fetched_anew(folder):
    url = join(folder, "a.txt")
    write_text(url, "one")
    assert Path(fetch(url)).read_text() == "one"
    time.sleep(0.01)
    write_text(url, "two")
    assert Path(fetch(url)).read_text() == "two"


@pytest.mark.parametrize("folder", ["s3"], indirect=True)
def test_what_another_client_puts_is_seen_at_once(folder):
    boto3 = pytest.importorskip("boto3")
    url = join(folder, "b.txt")
    write_text(join(folder, "a.txt"), "one")
    assert len(listing(folder)) == 1
    assert not exists(url)
    bucket = folder.removeprefix("s3://").split("/")[0]
    client = boto3.client("s3")
    client.put_object(Bucket=bucket, Key="products/b.txt", Body=b"by another")
    assert exists(url)
    assert listing(folder) == [join(folder, "a.txt"), url]
    assert read_text(url) == "by another"


def test_a_local_file_is_fetched_as_it_is(tmp_path):
    (tmp_path / "a.fits").write_bytes(b"x")
    assert fetch(str(tmp_path / "a.fits")) == str(tmp_path / "a.fits")
    assert fetch(f"file://{tmp_path / 'a.fits'}") == str(tmp_path / "a.fits")
    with pytest.raises(StorageError, match="is a folder"):
        fetch(str(tmp_path))


def test_the_scratch_folder_stays_below_its_limit(small_scratch):
    place = f"memory://{uuid.uuid4().hex}"
    urls = [write_text(join(place, f"{number}.txt"), str(number) * 3000) for number in range(6)]
    for number, url in enumerate(urls):
        assert Path(fetch(url)).read_text() == str(number) * 3000
        assert sum(path.stat().st_size for path in files_below(small_scratch)) <= 10_000
    assert len(files_below(small_scratch)) == 3
    again = fetch(urls[5])
    assert again == fetch(urls[5]), "what is there is not copied again"
    with pytest.raises(StorageError, match="raise CALWEAVE_SCRATCH_GB"):
        fetch(write_text(join(place, "big.txt"), "x" * 10_001))


def test_a_copy_that_is_being_read_stays_and_others_wait_for_its_room(small_scratch):
    place = f"memory://{uuid.uuid4().hex}"
    first = write_text(join(place, "first.txt"), "1" * 6000)
    second = write_text(join(place, "second.txt"), "2" * 6000)
    found = []
    thread = threading.Thread(target=lambda: found.append(Path(fetch(second)).read_text()))
    with fetched(first) as path:
        thread.start()
        time.sleep(0.1)
        assert found == []
        assert Path(path).read_text() == "1" * 6000
    thread.join(5)
    assert found == ["2" * 6000]
    assert len(files_below(small_scratch)) == 1


def test_threads_that_wait_for_the_room_of_each_other_are_told_so(small_scratch):
    place = f"memory://{uuid.uuid4().hex}"
    read = [write_text(join(place, f"{number}.txt"), str(number) * 4000) for number in range(2)]
    both, ended = threading.Barrier(2), []

    def work(number):
        try:
            with fetched(read[number]):
                both.wait()
                with writing(join(place, f"made{number}.txt"), size=5000) as path:
                    Path(path).write_text("made")
            ended.append("made")
        except TransientStorageError as error:
            ended.append("told" if "raise CALWEAVE_SCRATCH_GB" in str(error) else str(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(ended) == ["made", "told"], "who is told makes room for the other"


def test_many_threads_fetch_one_object_once(small_scratch):
    url = write_text(f"memory://{uuid.uuid4().hex}/a.txt", "x" * 5000)
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(fetch(url))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 8
    assert len(set(paths)) == 1


class ShortStore:
    """A store whose answers end early, as when a connection is cut, the first ``times``."""

    protocol = "short"

    def __init__(self, times):
        self.times, self.asked = times, 0

    def info(self, path):
        return {"name": path, "size": 100, "type": "file"}

    def cat_file(self, path):
        self.asked += 1
        return b"x" * (60 if self.asked <= self.times else 100)

    def put_file(self, source, path):
        pass


def test_a_short_answer_is_asked_for_again_and_at_last_an_error_of_which_nothing_stays(
    small_scratch, monkeypatch, tmp_path
):
    monkeypatch.setattr(faults, "DELAYS", (0.001, 0.001))
    soon, never = ShortStore(2), ShortStore(1000)
    monkeypatch.setattr(objects, "open_store", lambda url: (soon if "soon" in url else never, "a"))
    assert Path(fetch("short://soon")).read_bytes() == b"x" * 100
    with pytest.raises(TransientStorageError, match="60 of its 100 bytes; tried 3 times"):
        fetch("short://never")
    assert [path.name for path in files_below(small_scratch)] == ["soon"]
    (tmp_path / "whole").write_bytes(b"x" * 120)
    with pytest.raises(TransientStorageError, match="has 100 bytes of it after writing 120"):
        publish(tmp_path / "whole", "short://a")


def test_a_process_killed_while_writing_leaves_no_product_and_the_next_one_cleans_up(tmp_path):
    url = str(tmp_path / "a_rate.fits")
    code = (
        "import sys, time\n"
        "from infra.storage.store import writing\n"
        f"with writing({url!r}) as path:\n"
        "    file = open(path, 'wb'); file.write(b'half'); file.flush()\n"
        "    print('half', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path(store.__file__).parents[2]
    )
    assert process.stdout.readline() == "half\n"
    other = str(tmp_path / "b_rate.fits")
    write_text(other, "whole")
    assert len(files_below(tmp_path)) == 2, "what a living process writes is left alone"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not exists(url)
    assert listing(str(tmp_path)) == [other]
    clean(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["b_rate.fits"]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("/proc/self/out", "correct the path|may write"),
        ("{tmp}/a_file/out", "a part of the path is a file"),
    ],
)
def test_a_place_that_cannot_be_written_is_an_error_of_one_line(tmp_path, place, reason):
    (tmp_path / "a_file").write_text("I am a file")
    with (
        pytest.raises(StorageError, match=reason) as caught,
        writing(join(place.format(tmp=tmp_path), "a.fits")) as path,
    ):
        Path(path).write_bytes(b"x")
    assert "\n" not in str(caught.value)
    assert "cannot write" in str(caught.value)
    assert [path.name for path in files_below(tmp_path)] == ["a_file"]


def test_a_full_disk_is_an_error_that_says_so_and_nothing_is_left(tmp_path):
    """/dev/full answers each write as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this machine")

    def write():
        with writing(str(tmp_path / "a.fits")) as path:
            Path(path).write_bytes(b"half")
            Path("/dev/full").write_bytes(b"x" * 100_000)

    with pytest.raises(StorageError, match=r"a.fits: No space left on device; free some space"):
        write()
    assert files_below(tmp_path) == []


def test_a_file_too_large_for_the_limit_of_the_process_is_an_error(tmp_path):
    """A limit on the size of files (as ulimit -f) cuts a write in the middle."""
    code = (
        "import pathlib, resource, signal\n"
        "from infra.storage.store import writing, StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        f"    with writing({str(tmp_path / 'a.fits')!r}) as path:\n"
        "        pathlib.Path(path).write_bytes(b'x' * 5000)\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    cwd = Path(store.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=True)
    assert "cannot write" in done.stdout
    assert "File too large" in done.stdout
    assert files_below(tmp_path) == []


def test_a_folder_in_the_place_of_a_file_is_an_error(tmp_path):
    (tmp_path / "a.fits").mkdir()
    with pytest.raises(StorageError, match="there is a folder of that name"):
        write_text(str(tmp_path / "a.fits"), "x")
    with pytest.raises(StorageError, match="is a file, not a folder"):
        listing(write_text(str(tmp_path / "b.fits"), "x"))


def test_join_stays_inside_the_folder():
    assert join("/data", "a.fits") == "/data/a.fits"
    assert join("/", "a.fits") == "/a.fits"
    assert join("out/", "deep", "a.fits") == "out/deep/a.fits"
    assert join("memory://", "a.fits") == "memory://a.fits"
    assert join("s3://bucket/", "a.fits") == "s3://bucket/a.fits"
    for part in ("../a.fits", "/etc/passwd", "s3://other/a.fits", "deep/../../a.fits", ""):
        with pytest.raises(StorageError, match="inside /data"):
            join("/data", part)


def test_names_and_folders_of_urls():
    assert name_of("s3://bucket/products/a.fits") == "a.fits"
    assert folder_of("s3://bucket/products/a.fits") == "s3://bucket/products"
    assert folder_of("/a.fits") == "/"
    assert folder_of("a.fits") == "."


def test_an_unknown_kind_of_store_is_an_error_that_names_the_known_ones():
    with pytest.raises(StorageError, match="use a local path, memory:// or s3"):
        fetch("nowhere://a.fits")


def test_a_store_that_cannot_be_reached_is_an_error_of_one_line(monkeypatch):
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageError, match=r"s3://nobucket/a\.fits") as caught:
        fetch("s3://nobucket/a.fits")
    assert "\n" not in str(caught.value)


def test_only_the_scratch_of_this_process_is_used_and_it_goes_with_it(tmp_path):
    code = "from infra.storage.store import fetch, write_text\nprint(fetch(write_text('memory://x/a.txt', 'text')))\n"
    cwd = Path(store.__file__).parents[2]
    environment = {**os.environ, "CALWEAVE_SCRATCH": str(tmp_path / "scratch")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, env=environment, check=True
    )
    assert done.stdout.startswith(str(tmp_path / "scratch"))
    assert list((tmp_path / "scratch").iterdir()) == []
