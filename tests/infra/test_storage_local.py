"""A local folder shows whole files only: through kills, many writers, and disks that fail."""

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from infra.storage import local, store
from infra.storage.local import PART, machine, remove_leftovers, writer
from infra.storage.lock import locked
from infra.storage.store import (
    StorageError,
    TransientStorageError,
    clean,
    join,
    read_text,
    stat_folder,
    write_text,
    writing,
)

WRITER = """
import sys
from pathlib import Path
from infra.storage.store import join, writing
output = sys.argv[1]
print('begin', flush=True)
for turn in range(100000):
    for number in range(4):
        with writing(join(output, f'{number}.bin')) as path, open(path, 'wb') as file:
            for _ in range(20):
                file.write(bytes([turn % 256]) * 10_000)
                file.flush()
"""


def test_killed_at_any_moment_a_writer_leaves_whole_files_only(tmp_path):
    rng = random.Random(632)
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "out")],
            stdout=subprocess.PIPE, cwd=Path(store.__file__).parents[2],
        )  # fmt: skip
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for name in stat_folder(str(tmp_path / "out")):
            content = (tmp_path / "out" / name).read_bytes()
            assert len(content) == 200_000
            assert len(set(content)) == 1
    with locked(str(tmp_path / "out")):
        assert not [name for name in os.listdir(tmp_path / "out") if name.startswith(PART)], "the next run cleans up"


def test_many_threads_write_one_folder(tmp_path):
    """Each its own files, and all of them one; what one leaves unfinished is in nobody's way."""
    texts = {f"{number}-{turn}": str(number) * 5000 for number in range(12) for turn in range(5)}
    texts_of_all = {str(number) * (1000 + number) for number in range(12)}

    def work(number):
        for turn in range(5):
            write_text(join(str(tmp_path), f"{number}-{turn}"), str(number) * 5000)
            write_text(join(str(tmp_path), "shared"), str(number) * (1000 + number))
            with pytest.raises(ZeroDivisionError), writing(join(str(tmp_path), "never")):
                raise ZeroDivisionError

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(os.listdir(tmp_path)) == sorted([*texts, "shared"])
    assert all((tmp_path / name).read_text() == text for name, text in texts.items())
    assert read_text(join(str(tmp_path), "shared")) in texts_of_all


@pytest.mark.parametrize(
    ("call", "number", "kind", "advice"),
    [
        ("replace", errno.ESTALE, TransientStorageError, "Stale file handle"),
        ("replace", errno.EROFS, StorageError, "choose a folder that can be written"),
        ("replace", errno.EACCES, StorageError, "change its permissions"),
        ("fsync", errno.EIO, StorageError, "Input/output error"),
        ("fsync", errno.ENOSPC, StorageError, "free some space"),
        ("fsync", errno.EDQUOT, StorageError, "quota"),
    ],
)
def test_a_disk_that_fails_at_the_last_moment_leaves_the_earlier_file(
    tmp_path, monkeypatch, call, number, kind, advice
):
    """A network file system tells of a full disk or a lost server only when the file is closed or moved."""
    url = write_text(join(str(tmp_path), "a.txt"), "earlier")

    def fail(*words):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(local.os, call, fail)
        with pytest.raises(StorageError, match=advice) as caught:
            write_text(url, "later")
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert read_text(url) == "earlier"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_reader_that_has_an_earlier_file_open_reads_it_to_its_end(tmp_path):
    url = write_text(join(str(tmp_path), "a.txt"), "earlier" * 1000)
    with Path(url).open() as file:
        assert file.read(7) == "earlier"
        write_text(url, "later")
        assert file.read() == "earlier" * 999
    assert read_text(url) == "later"


def test_what_another_machine_writes_is_left_alone_unless_it_is_old(tmp_path):
    theirs = tmp_path / f"{PART}elsewhere.00000000-1-0123abcd"
    old = tmp_path / f"{PART}elsewhere.00000000-1-0123abce"
    ours = tmp_path / f"{PART}{writer()}"
    dead = tmp_path / f"{PART}{machine()}-{_dead_process()}-0123abcd"
    strange = tmp_path / f"{PART}of-a-user"
    for folder in (theirs, old, ours, dead, strange):
        folder.mkdir()
    os.utime(old, (1e9, 1e9))
    os.utime(strange, (1e9, 1e9))
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {theirs, ours, strange}


def _dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_to_clean_what_is_not_there_is_no_error(tmp_path):
    clean(str(tmp_path / "nothing"))
