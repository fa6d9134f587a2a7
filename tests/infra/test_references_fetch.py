"""References are fetched from a server once, however many processes ask, and refused when they come damaged."""

import hashlib
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny_cache import CONTEXT, references_folder, write_cache

from infra.references import client
from infra.references.client import ReferenceCacheError
from infra.references.fetch import sha1_of
from infra.references.select import select_references

HEADER = {
    "INSTRUME": "NIRISS", "DETECTOR": "NIS", "SUBARRAY": "FULL", "EXP_TYPE": "NIS_IMAGE", "DATE-OBS": "2023-05-01",
    "TIME-OBS": "00:00:00.000",
}  # fmt: skip
MASK = "jwst_niriss_mask_0001.fits"
CONTENT = b"the pixels of a mask" * 1000


class Server:
    """What the observatory's server answers, on this machine: its information, rules and files, slowly."""

    def __init__(self, folder: Path, damage: bool = False, seconds: float = 0.3):
        self.requests: list[str] = []
        self.folder = folder
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                method = self.path.split("/")[2]
                self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append(method)
                result = outer.information() if method == "get_server_info" else outer.mapping_names()
                self.answer(json.dumps({"result": result, "error": None}).encode())

            def do_GET(self):
                name = self.path.rsplit("/", 1)[-1]
                outer.requests.append(name)
                (path,) = outer.folder.rglob(name)
                content = path.read_bytes()
                if name == MASK:
                    time.sleep(seconds)
                    content = content[::-1] if damage else content
                self.answer(content)

            def answer(self, content):
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *words):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://localhost:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def files(self):
        return [path for path in self.folder.rglob("jwst_*") if path.is_file()]

    def mapping_names(self):
        return [path.name for path in self.files() if path.suffix in (".pmap", ".imap", ".rmap")]

    def information(self):
        known = {
            path.name: {"size": str(path.stat().st_size), "sha1sum": hashlib.sha1(path.read_bytes()).hexdigest()}
            for path in self.files()
        }
        return {
            "observatory": "jwst", "operational_context": CONTEXT, "latest_context": CONTEXT, "bad_files_list": [],
            "last_synced": "2026-01-01 00:00:00", "crds_version": {"str": "14"}, "download_metadata": known,
            "force_remote_mode": False,
            "mappings": self.mapping_names(), **{
                f"{kind}_url": {"jwst": f"{self.url}/{kind}s/"} for kind in ("mapping", "reference", "config", "pickle")
            },
        }  # fmt: skip


@pytest.fixture
def start_server(tmp_path, monkeypatch):
    started = []

    def start(**options):
        folder = write_cache(tmp_path / "observatory", {"mask": {("NIS", "FULL"): MASK}})
        (references_folder(folder) / MASK).write_bytes(CONTENT)
        server = Server(folder, **options)
        started.append(server)
        monkeypatch.setenv("CRDS_PATH", str(tmp_path / "cache"))
        monkeypatch.setenv("CRDS_SERVER_URL", server.url)
        monkeypatch.setenv("CRDS_CLIENT_RETRY_COUNT", "1")
        monkeypatch.setenv("CRDS_CLIENT_RETRY_DELAY_SECONDS", "0")
        monkeypatch.delenv("CRDS_CONTEXT", raising=False)
        return server

    yield start
    for server in started:
        server.http.shutdown()
        server.http.server_close()


def test_rules_and_files_are_fetched_once_and_then_used_from_the_cache(start_server, tmp_path, monkeypatch):
    server = start_server()
    references = select_references(HEADER, ["mask"])
    assert Path(references.path("mask")).read_bytes() == CONTENT
    assert Path(references.path("mask")).is_relative_to(tmp_path / "cache")
    assert references.sha1 == {MASK: hashlib.sha1(CONTENT).hexdigest()}
    select_references(HEADER, ["mask"])
    assert server.requests.count(MASK) == 1
    assert server.requests.count(CONTEXT) == 1

    monkeypatch.setenv("CRDS_SERVER_URL", "https://jwst-serverless-mode.stsci.edu")
    offline = select_references(HEADER, ["mask"])
    assert offline.files == references.files
    assert offline.context == CONTEXT


def test_processes_that_want_one_slow_file_at_once_fetch_it_once_and_all_get_it(start_server):
    server = start_server(seconds=6)  # the client alone gives up after 5 s, and dies
    code = (
        "from infra.references.select import select_references\n"
        f"print(open(select_references({HEADER!r}, ['mask']).path('mask'), 'rb').read() == {CONTENT!r})\n"
    )
    root = Path(client.__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert out == "True\n", err
    assert server.requests.count(MASK) == 1


def test_threads_that_want_one_slow_file_at_once_fetch_it_once(start_server):
    server = start_server()
    found = []
    threads = [threading.Thread(target=lambda: found.append(select_references(HEADER, ["mask"]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [references.name("mask") for references in found] == [MASK] * 4
    assert server.requests.count(MASK) == 1


def test_a_file_that_comes_damaged_is_refused_and_does_not_stay(start_server, tmp_path):
    start_server(damage=True)
    with pytest.raises(ReferenceCacheError, match=f"{MASK}.*sha1sum|{MASK}.*SHA-1"):
        select_references(HEADER, ["mask"])
    assert list((tmp_path / "cache").rglob(MASK)) == []


def test_a_server_that_is_not_there_is_an_error_of_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("CRDS_PATH", str(tmp_path / "cache"))
    monkeypatch.setenv("CRDS_SERVER_URL", "http://localhost:9")
    monkeypatch.setenv("CRDS_CLIENT_RETRY_COUNT", "1")
    monkeypatch.setenv("CRDS_CLIENT_RETRY_DELAY_SECONDS", "0")
    monkeypatch.delenv("CRDS_CONTEXT", raising=False)
    with pytest.raises(ReferenceCacheError) as caught:
        select_references(HEADER, ["mask"])
    assert "\n" not in str(caught.value)
    assert "CRDS_SERVER_URL" in str(caught.value)


def test_the_sha1_of_a_file_is_computed_anew_when_it_has_changed(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(b"one")
    assert sha1_of(path) == hashlib.sha1(b"one").hexdigest()
    time.sleep(0.01)
    path.write_bytes(b"two")
    assert sha1_of(path) == hashlib.sha1(b"two").hexdigest()
