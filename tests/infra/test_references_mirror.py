"""A reference cache on an object store gives the files that a local one gives, each fetched once."""

import uuid
from pathlib import Path

import pytest
from fault_proxy import at_random, faulty, make_bucket, point_at, s3_process
from tiny_cache import references_folder, write_cache

from infra.references.client import ReferenceCacheError
from infra.references.select import select_references
from infra.storage import faults
from infra.storage.store import StorageError, publish, remove

HEADER = {
    "INSTRUME": "NIRISS", "DETECTOR": "NIS", "SUBARRAY": "FULL", "EXP_TYPE": "NIS_IMAGE", "DATE-OBS": "2023-05-01",
    "TIME-OBS": "00:00:00.000",
}  # fmt: skip
MASK, FLAT = "jwst_niriss_mask_0001.fits", "jwst_niriss_flat_0001.fits"


@pytest.fixture(scope="module")
def server():
    with s3_process() as port:
        yield port


@pytest.fixture
def remote(server, tmp_path, monkeypatch):
    """A cache with two files, in a bucket, and ``CRDS_PATH`` that names it."""
    point_at(server, monkeypatch)
    folder = write_cache(tmp_path / "observatory", {"mask": {("NIS", "FULL"): MASK}, "flat": {("NIS", "FULL"): FLAT}})
    for name in (MASK, FLAT):
        (references_folder(folder) / name).write_bytes(name.encode() * 1000)
    url = make_bucket(f"bucket-{uuid.uuid4().hex[:8]}") + "/crds"
    for path in folder.rglob("*"):
        if path.is_file():
            publish(path, f"{url}/{path.relative_to(folder)}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CRDS_SERVER_URL", raising=False)
    monkeypatch.delenv("CRDS_CONTEXT", raising=False)
    monkeypatch.setenv("CALWEAVE_CRDS_MIRROR", "")
    monkeypatch.setenv("CRDS_PATH", url)
    return url


def test_files_come_when_they_are_needed_and_once(remote, server, tmp_path, monkeypatch):
    with faulty(server, lambda number, line: None) as proxy:
        point_at(proxy.port, monkeypatch)
        path = Path(select_references(HEADER, ["mask"]).files["mask"])
        assert path.read_bytes() == MASK.encode() * 1000
        assert path.is_relative_to(tmp_path / "cache")
        assert not any(FLAT in line for line in proxy.requests), "which nobody needs yet"
        asked = len(proxy.requests)
        select_references(HEADER, ["mask"])
        assert len(proxy.requests) == asked
        assert Path(select_references(HEADER, ["flat"]).files["flat"]).read_bytes() == FLAT.encode() * 1000
        proxy.requests.clear()
        monkeypatch.setenv("CRDS_PATH", remote)  # the next run looks whether the rules have changed
        select_references(HEADER, ["mask", "flat"])
        assert [line for line in proxy.requests if "list-type" not in line] == []


def test_they_come_whole_through_faults(remote, server, monkeypatch):
    monkeypatch.setattr(faults, "DELAYS", (0.01,) * 5)
    with faulty(server, at_random(3, 0.2)) as proxy:
        point_at(proxy.port, monkeypatch)
        found = select_references(HEADER, ["mask", "flat"]).files
        assert proxy.faults
    assert {name: Path(path).read_bytes() for name, path in found.items()} == {
        "mask": MASK.encode() * 1000, "flat": FLAT.encode() * 1000
    }  # fmt: skip


def test_a_file_that_the_remote_cache_has_not_is_missing(remote):
    remove(f"{remote}/references/jwst/niriss/{MASK}")
    with pytest.raises(ReferenceCacheError, match=f"does not hold {MASK}"):
        select_references(HEADER, ["mask"])


def test_a_folder_that_is_no_cache_is_an_error_that_says_so(remote, monkeypatch):
    monkeypatch.setenv("CRDS_PATH", f"{remote}/elsewhere")
    with pytest.raises(ReferenceCacheError, match="is no reference cache"):
        select_references(HEADER, ["mask"])
    monkeypatch.setenv("CRDS_PATH", "s3://a-bucket-that-is-not-there/crds")
    with pytest.raises((ReferenceCacheError, StorageError)):
        select_references(HEADER, ["mask"])
