"""Failures: the line that a user reads, the kind, and with it what a run does about it."""

import errno
from collections.abc import Iterable
from dataclasses import dataclass

from infra.credentials import hide_credentials
from infra.monitoring import ROOMS

_PLACE_FULL = (errno.ENOSPC, errno.EDQUOT)
_PLACE_FORBIDDEN = (errno.EACCES, errno.EROFS, errno.EPERM)
_CONNECTION_CUT = (
    errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE, errno.ETIMEDOUT, errno.EHOSTUNREACH,
    errno.ENETUNREACH, errno.EAGAIN, errno.ESTALE, errno.EIO,
)  # fmt: skip


@dataclass(frozen=True)
class Policy:
    """What a run does about a kind of failure.

    ``tries``: how often a node is tried in all; ``delay`` [s] before the second, three times as long before each next;
    ``alone``: whether it is tried again with nothing beside it; ``exit_code``: of a run in which nothing else failed (as
    in sysexits.h); ``remedy``: what the user can do.
    """

    tries: int = 1
    delay: float = 0.0
    alone: bool = False
    exit_code: int = 1
    remedy: str = ""


#: Kind of failure -> policy.
POLICIES = {
    "transient": Policy(
        3, delay=2.0, exit_code=75, remedy="the store or the network failed several times: run again later"
    ),
    "memory": Policy(
        2,
        alone=True,
        remedy="run with fewer --workers or on a machine with more memory, or raise --memory if it is too low",
    ),
    "killed": Policy(
        2,
        alone=True,
        exit_code=71,
        remedy="a worker process was killed, most often for want of memory: run with fewer --workers",
    ),
    "timeout": Policy(exit_code=75, remedy="raise --timeout, or see why it takes so long with `calweave stage ... -v`"),
    "place": Policy(
        exit_code=73, remedy="make room or choose another folder with --out, and run again: what is complete stays"
    ),
    "input": Policy(remedy="put the file right and run again: only what needs it is made"),
    "program": Policy(exit_code=70, remedy="run `calweave stage` on it with -v for the trace, and report it"),
}


@dataclass(frozen=True)
class Failure:
    """A failure: its kind (of ``POLICIES``), the line to read, and whether we foresaw it."""

    kind: str
    line: str
    foreseen: bool


def classify(error: BaseException) -> Failure:
    """The kind of an error, by its type and by what caused it."""
    foreseen, line = one_line(error)
    chain = _chain(error)
    if any(isinstance(one, MemoryError) for one in chain):
        kind = "memory"
    elif any(isinstance(one, OSError) and one.errno in _PLACE_FULL + _PLACE_FORBIDDEN for one in chain):
        kind = "place"
    elif any(_is_transient(one) for one in chain):
        kind = "transient"
    else:
        kind = "input" if foreseen else "program"
    return Failure(kind, line, foreseen)


def exit_code_of(kinds: Iterable[str | None]) -> int:
    """The exit code of a run with failures of these kinds: that of the kind where there is one, else 1."""
    codes = {POLICIES[kind].exit_code if kind in POLICIES else 1 for kind in kinds}
    return codes.pop() if len(codes) == 1 else 1


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in chain:
        chain.append(step)
        step = step.__cause__ or (None if step.__suppress_context__ else step.__context__)
    return chain


def _is_transient(error: BaseException) -> bool:
    if getattr(error, "transient", False) or isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError):
        return error.errno in _CONNECTION_CUT
    response = getattr(error, "response", None)  # botocore's ClientError
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status == 429
    module = type(error).__module__.split(".")[0]
    return module in ("aiohttp", "urllib3", "botocore") and "Connection" in type(error).__name__


def one_line(error: BaseException) -> tuple[bool, str]:
    """Whether an error is one that we foresaw, and its line: ours as they are, the others with a way to learn more."""
    text = hide_credentials(" ".join(str(error).split()))
    if type(error).__module__.split(".")[0] in ROOMS:
        return True, text
    if isinstance(error, OSError) and error.errno in _PLACE_FULL:
        return (
            True,
            f"no space left for {error.filename or 'the products'}; free some, or choose another folder with --out",
        )
    if isinstance(error, OSError) and error.errno in _PLACE_FORBIDDEN:
        return (
            True,
            f"{error.filename or 'the output'} cannot be written ({error.strerror}); choose another folder with --out",
        )
    if isinstance(error, MemoryError):
        return True, "out of memory; run fewer products at a time with --workers 1"
    return False, f"{type(error).__name__}: {text} (not foreseen: run again with -v for the trace, and report it)"
