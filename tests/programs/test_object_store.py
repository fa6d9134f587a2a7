"""A whole program from bucket to bucket: the bytes of a local run, within the scratch folder's limit, through all faults."""

import contextlib
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
from fault_proxy import CREDENTIALS, at_random, faulty, make_bucket, point_at, s3_process
from small_program import EPOCH, SmallProgram

from calibration.jit import cache_root
from infra.storage.store import fetch, publish, stat_folder
from infra.synthetic.program import write_program

REPOSITORY = Path(__file__).resolve().parents[2]
API_KEY = "pnu_0123456789abcdefghijklmnopqrstuvwxyz"
SCRATCH = 12_000_000  # bytes; the raw exposures and the products together have more


@pytest.fixture(scope="module")
def server():
    with s3_process() as port:
        yield port


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> SmallProgram:
    """The program, and its products by a run from folder to folder."""
    folder = tmp_path_factory.mktemp("local")
    write_program(folder / "program", size=192, ngroups=3, grism_ngroups=3, dithers=2, grism_dithers=1)
    program = SmallProgram(folder / "program", folder / "products")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        patch.setenv("CRDS_PATH", str(program.crds))
        program.run()
    return program


@pytest.fixture
def bucket(local, server, monkeypatch) -> str:
    """A bucket with the raw exposures, the pool and the reference files."""
    point_at(server, monkeypatch)
    url = make_bucket(f"bucket-{uuid.uuid4().hex[:8]}")
    for path in [*local.folder.glob("uncal/*.fits"), *local.folder.glob("*_pool.csv")]:
        publish(path, f"{url}/raw/{path.relative_to(local.folder)}")
    for path in local.crds.rglob("*"):
        if path.is_file():
            publish(path, f"{url}/crds/{path.relative_to(local.crds)}")
    return url


class Watched:
    """A run of the command line whose scratch folder is looked at all the while."""

    def __init__(self, folder, bucket, *words):
        environment = os.environ | {
            "CALWEAVE_SCRATCH": str(folder / "scratch"),
            "CALWEAVE_SCRATCH_GB": str(SCRATCH / 1e9),
            "SOURCE_DATE_EPOCH": EPOCH,
            "CRDS_PATH": f"{bucket}/crds",
            "XDG_CACHE_HOME": str(folder / "cache"),
            "CALWEAVE_KERNEL_CACHE": str(cache_root()),
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_KEY": API_KEY,
        }
        (folder / "scratch").mkdir()
        self.most, self._folder = 0, folder / "scratch"
        self._ended = threading.Event()
        watcher = threading.Thread(target=self._watch)
        watcher.start()
        command = [sys.executable, "-m", "flows.cli", *map(str, words)]
        try:
            self.done = subprocess.run(
                command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600
            )
        finally:
            self._ended.set()
            watcher.join()

    def _watch(self):
        while not self._ended.wait(0.005):
            self.most = max(self.most, used(self._folder))


def used(folder):
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # it went while we were looking
                total += (Path(where) / name).stat().st_size
    return total


def products_of(listing):
    return {name for name in listing if name.startswith("jw")}


def assert_as_local(bucket, local):
    made = products_of(stat_folder(f"{bucket}/products"))
    assert made == products_of(path.name for path in local.products.iterdir())
    other = [
        name
        for name in sorted(made)
        if Path(fetch(f"{bucket}/products/{name}")).read_bytes() != (local.products / name).read_bytes()
    ]
    assert other == []


def test_from_bucket_to_bucket_the_bytes_are_those_of_a_local_run(bucket, local, server, tmp_path, monkeypatch):
    """With one request in twenty failing; the raw exposures, the reference files and the products are objects."""
    with faulty(server, at_random(17, 0.05)) as proxy:
        point_at(proxy.port, monkeypatch)
        run = Watched(tmp_path, bucket, "run", f"{bucket}/raw", "--out", f"{bucket}/products", "--workers", 2, "-v")
    point_at(server, monkeypatch)
    assert run.done.returncode == 0, run.done.stderr
    assert len(proxy.faults) > 2
    assert_as_local(bucket, local)
    assert 0 < run.most <= SCRATCH
    assert list((tmp_path / "scratch").iterdir()) == [], "nothing stays"
    assert ".calweave.lock" not in stat_folder(f"{bucket}/products")
    # Those who may read the output, the log or what is left on the disk learn no credential.
    told = [run.done.stdout.encode(), run.done.stderr.encode()]
    told += [Path(fetch(f"{bucket}/products/{name}")).read_bytes() for name in stat_folder(f"{bucket}/products")]
    told += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(told) > 20
    for secret in (*CREDENTIALS.values(), API_KEY):
        assert not any(secret.encode() in text for text in told)
