"""Errors as a user reads them: one line."""

import errno

from infra.monitoring import ROOMS


def one_line(error: BaseException) -> tuple[bool, str]:
    """Whether an error is one that we foresaw, and its line: ours as they are, the others with a way to learn more."""
    text = " ".join(str(error).split())
    if type(error).__module__.split(".")[0] in ROOMS:
        return True, text
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            True,
            f"no space left for {error.filename or 'the products'}; free some, or choose another folder with --out",
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return (
            True,
            f"{error.filename or 'the output'} cannot be written ({error.strerror}); choose another folder with --out",
        )
    if isinstance(error, MemoryError):
        return True, "out of memory; run fewer products at a time with --workers 1"
    return False, f"{type(error).__name__}: {text} (not foreseen: run again with -v for the trace, and report it)"
