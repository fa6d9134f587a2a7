"""What can go wrong with a store: told in one line, tried again where that helps, and never with a credential in it."""

import errno
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from infra.credentials import hide_credentials

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_ADVICE = {
    errno.ENOSPC: "free some space there, or choose another folder",
    errno.EDQUOT: "free some of your quota, or choose another folder",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a folder that you may write and read, or change its permissions",
    errno.EPERM: "choose a folder that you may write and read, or change its permissions",
    errno.ENOTDIR: "a part of the path is a file, not a folder: correct the path",
    errno.EEXIST: "it is a file, not a folder: correct the path",
    errno.EISDIR: "there is a folder of that name: correct the path",
    errno.ENOENT: "correct the path",
    errno.EINVAL: "correct the path",
    errno.ENAMETOOLONG: "choose a shorter path",
}

#: Seconds between two attempts of one request; each of them is itself repeated by the store's client, where it has one.
DELAYS = (0.25, 0.5, 1.0, 2.0, 4.0)

#: Seconds after which no more than three attempts are made.
PATIENCE = 30.0

# Codes of S3, and of what speaks like it, for what another attempt may mend.
_TRANSIENT_CODES = frozenset(
    "SlowDown InternalError ServiceUnavailable Throttling ThrottlingException TooManyRequests RequestTimeout "
    "RequestTimeTooSkewed IncompleteBody BadDigest XAmzContentSHA256Mismatch XAmzContentChecksumMismatch NoSuchUpload "
    "InvalidPart OperationAborted BandwidthLimitExceeded".split()
)
_TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504, 509})
_TRANSIENT_BOTOCORE = frozenset(
    "HTTPClientError ConnectionError EndpointConnectionError ConnectTimeoutError ReadTimeoutError ConnectionClosedError "
    "ProxyConnectionError ResponseStreamingError IncompleteReadError ResponseParserError ChecksumError "
    "FlexibleChecksumError AwsChunkedWrapperError SSLError".split()
)
_TRANSIENT_ERRNO = frozenset(
    {
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.EPIPE,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
    }
)


class StorageError(Exception):
    """A file cannot be read or written; the message says which, why and what to do, in one line."""

    def __init__(self, message: str):
        super().__init__(hide_credentials(message))


class TransientStorageError(StorageError):
    """The same, where the store was asked several times and may answer later: the work is worth another attempt."""

    transient = True


class Damaged(Exception):
    """What came, or what was put, is not the whole file."""


class Changed(Exception):
    """An object was written anew while it was read: what came may be of both, and must be read from the start."""


@contextmanager
def errors(verb: str, url: str) -> Iterator[None]:
    """Turn what a file system or a store reports into one line of ours."""
    try:
        yield
    except FileNotFoundError as error:
        if verb == "write":
            raise StorageError(f"cannot write {url}: {_reason(error)}; correct the path") from error
        raise StorageError(f"{url} does not exist; correct the path") from error
    except OSError as error:
        if error.errno is None and "Not enough space on disk" in str(error):  # astropy's words for it
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        advice = _ADVICE.get(error.errno or 0, "check that the place can be reached and has room")
        if isinstance(error, PermissionError) and error.errno is None:
            advice = "check the credentials and what they permit"
        kind = TransientStorageError if is_transient(error) else StorageError
        raise kind(f"cannot {verb} {url}: {_reason(error)}; {advice}") from error
    except ImportError as error:
        raise StorageError(
            f"cannot {verb} {url}: {error}; install the package, for s3 with: pip install 'calweave[s3]'"
        ) from error
    except Exception as error:
        if type(error).__module__.startswith("botocore"):
            raise StorageError(
                f"cannot {verb} {url}: {_reason(error)}; check endpoint and credentials of the store"
            ) from error
        if isinstance(error, ValueError) and str(error).startswith("Protocol not known"):
            raise StorageError(f"cannot {verb} {url}: {error}; use a local path, memory:// or s3://") from error
        if isinstance(error, ValueError) and "null byte" in str(error):
            raise StorageError(f"cannot {verb} {url!r}: it has a null character in it; correct the path") from error
        raise


def patiently(action: Callable[[], Answer], what: str) -> Answer:
    """Do something with a store, again after a while where it fails with what another attempt may mend.

    Raises
    ------
    TransientStorageError
        If it fails so each time. Any other error is left as it is, and not tried again.
    """
    start = time.monotonic()
    attempt = 0
    while True:
        try:
            return action()
        except Exception as error:
            if not is_transient(error) or isinstance(error, TransientStorageError):  # which was tried often already
                raise
            attempt += 1
            waited = time.monotonic() - start
            if attempt > len(DELAYS) or (attempt > 2 and waited > PATIENCE):
                raise TransientStorageError(
                    f"cannot {what}: {_reason(error)}; tried {attempt} times in {waited:.0f} s; check that the store can be "
                    "reached (endpoint, network), or run again later"
                ) from error
            delay = DELAYS[attempt - 1] * random.uniform(0.5, 1)  # else all that were cut off come again at once
            log.warning("cannot %s: %s; trying again in %.1f s", what, _reason(error), delay)
            time.sleep(delay)


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may succeed: a cut connection, a timeout, a busy or failing server, a part of a file."""
    if isinstance(error, TransientStorageError | Damaged):
        return True
    if isinstance(error, StorageError):
        return False
    code, status = _answer_of(error)
    if code or status:
        return code in _TRANSIENT_CODES or status in _TRANSIENT_STATUS
    for one in _chain(error):
        module = type(one).__module__.split(".")[0]
        if module in ("botocore", "aiobotocore") and type(one).__name__ in _TRANSIENT_BOTOCORE:
            return True
        if module == "aiohttp" or isinstance(one, TimeoutError | ConnectionError):
            return True
        if isinstance(one, OSError) and one.errno in _TRANSIENT_ERRNO:
            return True
    return False


def code_of(error: BaseException) -> str:
    """The code of a store's answer (``NoSuchKey``, or ``404`` where it has no body); empty where there was none."""
    return _answer_of(error)[0]


def _answer_of(error: BaseException) -> tuple[str, int]:
    for one in _chain(error):
        response: Any = getattr(one, "response", None)
        if isinstance(response, dict) and "Error" in response:
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return str(response["Error"].get("Code", "")), int(status or 0)
    return "", 0


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return hide_credentials(" ".join(str(text).split()))
