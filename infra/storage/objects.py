"""Objects of a store: read in blocks and put in parts, each tried again where it fails, and checked against its digest.

A put of one object is atomic, and so is the end of a multipart upload: no temporary name is needed. A file is therefore
written locally, checked and put; a stream into the store would publish what was written before an exception.
"""

import hashlib
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from infra.credentials import has_credentials, hide_credentials
from infra.storage.faults import Changed, Damaged, StorageError, TransientStorageError, code_of, patiently

log = logging.getLogger(__name__)

BLOCK = 16 * 2**20  # [byte] of one request, down or up; bounds the memory that a file takes on its way
THREADS = 4  # requests for one file at a time


def open_store(url: str) -> tuple[Any, str]:
    """The file system of a URL (of ``fsspec``) and the path there.

    Raises
    ------
    StorageError
        If the URL has a password or a signature in it: it would be written into logs, headers and reports.
    """
    if has_credentials(url):
        raise StorageError(
            f"{hide_credentials(url)} has credentials in it, which would be written into logs and reports; give them by the "
            "environment (AWS_PROFILE, AWS_ACCESS_KEY_ID ...) and the URL without them"
        )
    refuse_odd_characters(url)
    import fsspec

    # Listings that are kept would hide what others have written since.
    system, path = fsspec.url_to_fs(url, use_listings_cache=False)
    if is_s3(system):
        system.retries = 1  # its client and ``patiently`` repeat what fails
    return system, path


def refuse_odd_characters(url: str) -> None:
    """Fail for a path that no line of a log could show.

    Raises
    ------
    StorageError
        If it has a control character in it.
    """
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in url):
        raise StorageError(f"{url!r} has a line break or another control character in it; correct the path")


def is_s3(system: Any) -> bool:
    """Whether a file system speaks S3."""
    return "s3" in protocols(system)


def protocols(system: Any) -> tuple[str, ...]:
    """The names of a file system's kind."""
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def info_of(url: str) -> dict[str, Any]:
    """What a store tells of an object (``size``, ``ETag`` ...); FileNotFoundError where there is none."""
    system, path = open_store(url)
    return patiently(lambda: system.info(path), f"read {url}")


def version_of(info: Mapping[str, Any]) -> str:
    """A text that changes when the object is written anew."""
    found = next((info[key] for key in ("ETag", "etag", "LastModified", "mtime", "created") if info.get(key)), "")
    # One store tells the same time as text here and as a number of seconds there.
    return str(found.timestamp() if isinstance(found, datetime) else found).strip('"')


def read_object(url: str) -> bytes:
    """The whole of a small object."""
    system, path = open_store(url)

    def read() -> bytes:
        content = system.cat_file(path)
        # A connection that ends early may look like the end of the object.
        info = system.info(path)
        if len(content) != info["size"] or _differs(system, path, info, hashlib.md5(content).hexdigest()):
            raise Damaged(f"it came with {len(content)} of its {info['size']} bytes, or others than were put")
        return content

    return patiently(read, f"read {url}")


def read_start_of_object(url: str, size: int) -> bytes:
    """The first ``size`` bytes of an object, or all that it has."""
    system, path = open_store(url)

    def read() -> bytes:
        whole = int(system.info(path)["size"])
        content = system.cat_file(path, start=0, end=min(size, whole)) if whole else b""
        if len(content) != min(size, whole):
            raise Damaged(f"it came with {len(content)} of its first {min(size, whole)} bytes")
        return content

    return patiently(read, f"read {url}")


def download(url: str, info: Mapping[str, Any], target: Path) -> None:
    """Copy an object that ``info`` tells of to a local file, whole and as it was put, or not at all.

    Raises
    ------
    TransientStorageError
        If it comes incomplete or damaged several times.
    Changed
        If it is no more the object that ``info`` tells of.
    """
    system, path = open_store(url)
    size = int(info["size"])
    part = target.with_name(target.name + ".part")

    def whole() -> None:
        try:
            _download_blocks(system, path, url, size, part)
            damaged = _differs(system, path, info, _digest_of(part, size + 1))
        except TransientStorageError:
            if version_of(system.info(path)) == version_of(info):
                raise
            damaged = True
        if (damaged or size > BLOCK) and version_of(system.info(path)) != version_of(info):
            raise Changed
        if damaged:
            raise Damaged("it came with other bytes than were put")

    patiently(whole, f"read {url}")
    os.replace(part, target)


def _download_blocks(system: Any, path: str, url: str, size: int, part: Path) -> None:
    with part.open("wb") as file:

        def block(start: int) -> None:
            stop = min(start + BLOCK, size)

            def read() -> bytes:
                content = system.cat_file(path, start=start, end=stop) if size > BLOCK else system.cat_file(path)
                if len(content) != stop - start:
                    raise Damaged(f"it came with {start + len(content)} of its {size} bytes")
                return content

            os.pwrite(file.fileno(), patiently(read, f"read {url}"), start)

        starts = range(0, size, BLOCK)
        if len(starts) < 2:
            for start in starts:
                block(start)
            return
        with ThreadPoolExecutor(THREADS, thread_name_prefix="download") as pool:
            for _ in pool.map(block, starts):
                pass


def upload(local_file: str | Path, url: str) -> None:
    """Put a local file, and check that the store has it whole.

    Raises
    ------
    TransientStorageError
        If the store has something else after several attempts.
    """
    system, path = open_store(url)
    size = Path(local_file).stat().st_size

    def put() -> None:
        if "memory" in protocols(system):
            # Its put_file shows the file while it grows; its pipe_file sets it at once.
            system.pipe_file(path, Path(local_file).read_bytes())
        elif is_s3(system):
            try:
                system.put_file(str(local_file), path, chunksize=BLOCK, max_concurrency=THREADS)
            except FileNotFoundError as error:
                if code_of(error) == "NoSuchUpload":  # ended by a request whose answer was lost, or cleared by another
                    raise Damaged("its upload is not known to the store any more") from error
                raise
        else:
            system.put_file(str(local_file), path)
        info = system.info(path)
        if info["size"] != size:
            raise Damaged(f"the store has {info['size']} bytes of it after writing {size}")
        if is_s3(system) and _differs(system, path, info, _digest_of(local_file, 2 * BLOCK)):
            raise Damaged("the store has other bytes than were written")

    patiently(put, f"write {url}")


def _differs(system: Any, path: str, info: Mapping[str, Any], digest: str) -> bool:
    """Whether an object has another digest than ``digest``; where the store keeps no digest, it does not."""
    tag = version_of(info) if is_s3(system) else ""
    if tag == digest or ("-" in tag) != ("-" in digest) or not tag:
        return False
    if tag.partition("-")[2] != digest.partition("-")[2]:
        return False  # put in other parts, by another program
    # The tag of an object that is encrypted with a key of its owner is no digest.
    bucket, key, _ = system.split_path(path)
    head = system.call_s3("head_object", Bucket=bucket, Key=key)
    encrypted = head.get("ServerSideEncryption") in ("aws:kms", "aws:kms:dsse") or head.get("SSECustomerAlgorithm")
    return not encrypted


def _digest_of(local_file: str | Path, one_piece: int) -> str:
    """The ETag of a file: its MD5, or that of the MD5s of its parts with their number where it has ``one_piece`` or more."""
    with Path(local_file).open("rb") as file:
        if Path(local_file).stat().st_size < one_piece:
            return hashlib.file_digest(file, "md5").hexdigest()
        parts = [hashlib.md5(block).digest() for block in iter(lambda: file.read(BLOCK), b"")]
    return f"{hashlib.md5(b''.join(parts)).hexdigest()}-{len(parts)}"


def remove_unfinished_uploads(url: str) -> int:
    """Remove what killed runs have left of multipart uploads below a folder; returns how many.

    Only for who holds the lock of the folder: it would remove those of others too.
    """
    system, path = open_store(url)
    if not is_s3(system):
        return 0
    bucket, key, _ = system.split_path(path)
    removed = 0
    try:
        prefix = key.rstrip("/") + "/" if key else ""
        found = patiently(
            lambda: system.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix), f"list {url}"
        ).get("Uploads", [])
        for one in found:
            if not one["Key"].startswith(prefix):  # not every store heeds the prefix
                continue
            names = {"Bucket": bucket, "Key": one["Key"], "UploadId": one["UploadId"]}
            patiently(partial(system.call_s3, "abort_multipart_upload", **names), f"clean {url}")
            removed += 1
    except (OSError, NotImplementedError) as error:  # not permitted, or not known to this store: no product suffers
        log.warning("%s: cannot look for unfinished uploads: %s", url, hide_credentials(str(error)))
    if removed:
        log.info("%s: removed %d unfinished uploads of runs that were killed", url, removed)
    return removed
