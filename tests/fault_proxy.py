"""An S3 server in a process of its own, and a proxy before it that spoils what goes through, as networks and stores do."""

import contextlib
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

SERVER = "from moto.server import main; import sys; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"

#: What a server of moto takes, as it takes anything.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAFAULTPROXYTESTS0", "AWS_SECRET_ACCESS_KEY": "eIgh7+hUndReD/and_tWo=secrets"}

KINDS = ("cut_down", "cut_up", "slow_down", "busy", "short", "stall", "lost_answer")


@contextlib.contextmanager
def s3_process() -> Iterator[int]:
    """A moto server in its own process; gives its port."""
    pytest.importorskip("moto.server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, "the moto server ended at once"
            assert time.monotonic() < end, "the moto server does not answer"
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def point_at(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clients of this process, and of those that it starts, talk to the S3 server of a port."""
    s3fs = pytest.importorskip("s3fs")
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        **CREDENTIALS,
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    s3fs.S3FileSystem.clear_instance_cache()  # those that talk to an earlier server


def make_bucket(name: str) -> str:
    """Make a bucket on the server that the environment names; gives its URL."""
    import boto3

    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@dataclass
class FaultProxy:
    """A proxy of HTTP/1.1 on a free port of this machine.

    ``choose`` is asked for each request, with its number and its first line, which fault it meets: one of ``KINDS`` or
    None. What happened is counted in ``faults`` and ``requests`` (by the method and what it asks for).
    """

    target: int
    choose: Callable[[int, str], str | None] = lambda number, line: None
    faults: Counter = field(default_factory=Counter)
    requests: list[str] = field(default_factory=list)
    most_sent: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._ended = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._ended = True
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended:
            with contextlib.suppress(OSError):
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """The requests of one connection, each on a new connection to the server."""
        with client, contextlib.suppress(OSError, EOFError):
            reader = client.makefile("rb")
            while not self._ended:
                head = _read_head(reader)
                line = head.split(b"\r\n", 1)[0].decode("latin-1")
                with self._lock:
                    self.requests.append(line)
                    fault = self.choose(len(self.requests) - 1, line)
                length = _length(head)
                # A fault in the body of what has none does not happen.
                if fault == "cut_up" and not length:
                    fault = "cut_down"
                if fault:
                    with self._lock:
                        self.faults[fault] += 1
                if b"100-continue" in head.lower():
                    client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                if fault == "cut_up":
                    reader.read(length // 2)
                    return _reset(client)
                body = _read_body(reader, head, length)
                if fault in ("slow_down", "busy"):
                    code = b"SlowDown" if fault == "slow_down" else b"InternalError"
                    status = b"503 Slow Down" if fault == "slow_down" else b"500 Internal Server Error"
                    text = b"<Error><Code>" + code + b"</Code><Message>reduce your request rate</Message></Error>"
                    text = b"" if line.startswith("HEAD") else text
                    client.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(text)) + text)
                    continue
                answer_head, answer = self._ask(head, body, line.startswith("HEAD"))
                if fault == "lost_answer":  # the server has done it, but nobody hears so
                    return _reset(client)
                if fault == "stall":
                    time.sleep(0.3)
                if fault == "cut_down":
                    whole = answer_head + answer
                    client.sendall(whole[: len(whole) // 2 if answer else len(answer_head) // 2])
                    return _reset(client)
                if fault == "short" and line.startswith("GET") and answer:
                    # A wrong length in the head: for the client it looks whole.
                    half = answer[: len(answer) // 2]
                    answer_head = re.sub(rb"(?i)(content-length: *)\d+", rb"\g<1>%d" % len(half), answer_head)
                    answer = half
                client.sendall(answer_head + answer)

    def _ask(self, head: bytes, body: bytes, no_body: bool) -> tuple[bytes, bytes]:
        head = re.sub(rb"(?im)^(connection|expect):[^\r]*\r\n", b"", head)
        head = head[:-2] + b"Connection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.target), timeout=30) as server:
            server.sendall(head + body)
            answer = b"".join(iter(lambda: server.recv(2**16), b""))
        answer_head, _, content = answer.partition(b"\r\n\r\n")
        answer_head = re.sub(rb"(?im)^connection:[^\r\n]*(\r\n)?", b"", answer_head).rstrip(b"\r\n") + b"\r\n\r\n"
        if not no_body and b"content-length" not in answer_head.lower():
            answer_head = answer_head[:-2] + b"Content-Length: %d\r\n\r\n" % len(content)
        return answer_head, content


@contextlib.contextmanager
def faulty(target: int, choose: Callable[[int, str], str | None]) -> Iterator[FaultProxy]:
    """A proxy before the server of a port, for as long as the context lasts."""
    proxy = FaultProxy(target, choose)
    try:
        yield proxy
    finally:
        proxy.close()


def at_random(seed: int, share: float, kinds: tuple[str, ...] = KINDS) -> Callable[[int, str], str | None]:
    """Spoil this share of all requests, each in one of these ways."""
    rng = random.Random(seed)
    return lambda number, line: rng.choice(kinds) if rng.random() < share else None


def _read_head(reader) -> bytes:
    lines = []
    while True:
        line = reader.readline()
        if not line:
            raise EOFError
        lines.append(line)
        if line == b"\r\n":
            return b"".join(lines)


def _length(head: bytes) -> int:
    found = re.search(rb"(?im)^content-length: *(\d+)", head)
    return int(found[1]) if found else 0


def _read_body(reader, head: bytes, length: int) -> bytes:
    if not re.search(rb"(?im)^transfer-encoding: *chunked", head):
        body = reader.read(length)
        if len(body) < length:
            raise EOFError
        return body
    pieces = []
    while True:
        size = reader.readline()
        pieces.append(size)
        count = int(size.split(b";")[0], 16)
        if count == 0:
            while (line := reader.readline()) not in (b"\r\n", b""):
                pieces.append(line)
            return b"".join([*pieces, b"\r\n"])
        pieces.append(reader.read(count + 2))


def _reset(client: socket.socket) -> None:
    """Cut the connection as a crash does, without a goodbye."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
