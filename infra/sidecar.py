"""The record of a node: what it made, from what and how, in ``OUTPUT/.calweave/<node>.json`` beside the products.

A record is written last, when all products of its node are published, and appears whole or not at all: what it says is on
the disk. Its fingerprint is a hash of the node's recipe: the content of its inputs (of what other nodes make, their
fingerprints), the reference files, the options, the code. Two equal fingerprints mean equal products.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from infra.storage.store import StorageError, is_local, join, name_of, read_text, write_text

log = logging.getLogger(__name__)

FOLDER = ".calweave"
FORMAT = 1
READERS = 32  # records read at the same time from an object store


@dataclass(frozen=True)
class File:
    """A file as it was: size [bytes], the store's word for this version of it, and the SHA-256 of its content."""

    size: int
    version: str
    sha256: str


@dataclass(frozen=True)
class Record:
    """What became of one node.

    Attributes
    ----------
    node, stage : str
        Its name and pipeline.
    target : str
        What its stage flow was called with (a URL).
    overrides : mapping
        The options that the run was asked for: step -> option -> value.
    state : str
        "done", or "empty" where there was nothing on the detector.
    fingerprint : str
        Hash of ``recipe``.
    recipe : mapping
        What the products follow from; see ``flows.plan``.
    inputs : mapping
        Name -> file, of the inputs that no node makes.
    products : mapping
        Name -> file.
    references : mapping
        Name -> SHA-1, size [bytes] and version, of the reference files in the cache of the machine that made it.
    retired : tuple of str
        What an earlier recipe of the node made and this one does not; these files are removed.
    work : int
        Samples that went through: pixels x groups x integrations in stage 1, pixels of the science members later.
    attempts : int
    seconds, cpu_seconds : float
    peak_memory_bytes : int or None
        Of the process; None where others ran in it at the same time.
    bytes_in, bytes_out : int
        Of the files of ``recipe["inputs"]`` and of the products.
    started, ended : str
        UTC.
    """

    node: str
    stage: str
    state: str
    fingerprint: str
    recipe: Mapping[str, Any]
    target: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, File] = field(default_factory=dict)
    products: Mapping[str, File] = field(default_factory=dict)
    references: Mapping[str, tuple[str, int, str]] = field(default_factory=dict)
    retired: tuple[str, ...] = ()
    error: str | None = None
    work: int = 0
    attempts: int = 1
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    started: str | None = None
    ended: str | None = None


def fingerprint_of(recipe: Mapping[str, Any]) -> str:
    """The hash of a recipe: SHA-256 of its JSON with sorted keys."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a local file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_name(node: str) -> str:
    """The place of a node's record, relative to the output."""
    return f"{FOLDER}/{node}.json"


def write_record(record: Record, output: str) -> None:
    """Publish a record, over the earlier one of its node."""
    write_text(join(output, record_name(record.node)), json.dumps({"format": FORMAT, **asdict(record)}, indent=1))


def read_record(url: str) -> Record | None:
    """The record of a file; None, with a line in the log, where it is none of ours: its node is then made anew."""
    try:
        tree = json.loads(read_text(url))
        if tree.get("format") != FORMAT:
            raise ValueError(f"expected format {FORMAT}, but it is {tree.get('format')!r}")
        known = {entry.name for entry in fields(Record)}
        values = {key: value for key, value in tree.items() if key in known}
        for key in ("inputs", "products"):
            values[key] = {name: File(**file) for name, file in values[key].items()}
        values["references"] = {name: tuple(what) for name, what in values["references"].items()}
        return Record(**{**values, "retired": tuple(values["retired"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("%s is not a record that can be used (%s); what it tells of is made anew", name_of(url), error)
        return None


def read_records(output: str, listing: Iterable[str]) -> dict[str, Record]:
    """Node -> record, of all records among the file names of a listing of ``output``."""
    urls = [
        join(output, name)
        for name in listing
        if name.startswith(f"{FOLDER}/") and name.endswith(".json") and name.count("/") == 1
    ]
    if is_local(output):
        records = [read_record(url) for url in urls]
    else:
        with ThreadPoolExecutor(READERS) as pool:
            records = list(pool.map(_read_if_there, urls))
    return {record.node: record for record in records if record is not None}


def _read_if_there(url: str) -> Record | None:
    try:
        return read_record(url)
    except StorageError as error:
        log.warning("%s; what it tells of is made anew", error)
        return None


_published: ContextVar[dict[str, tuple[int, str]] | None] = ContextVar("published", default=None)


@contextmanager
def collecting() -> Iterator[dict[str, tuple[int, str]]]:
    """The products that are saved within: name -> size and SHA-256, taken from the file before it is published."""
    made: dict[str, tuple[int, str]] = {}
    token = _published.set(made)
    try:
        yield made
    finally:
        _published.reset(token)


def note_product(path: str, url: str) -> None:
    """A complete local file is about to be published as ``url``: for the record, where one is kept."""
    made = _published.get()
    if made is not None:
        made[name_of(url)] = (Path(path).stat().st_size, sha256_of(path))
