"""What people see of a run: one log line per step in the terminal, and the same lines on the run's page in Prefect."""

import contextlib
import contextvars
import logging
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.logging import RichHandler

from infra.credentials import hide_credentials

ROOMS = ("calibration", "associations", "infra", "tasks", "flows")

_product: contextvars.ContextVar[str] = contextvars.ContextVar("product", default="")


@contextlib.contextmanager
def working_on(product: str) -> Iterator[None]:
    """Log lines within name this product."""
    token = _product.set(product)
    try:
        yield
    finally:
        _product.reset(token)


def product_at_work() -> str:
    """The product that this is part of the work on; empty where none was named."""
    return _product.get()


def product_of_now() -> str:
    """The product that this thread works on."""
    return _product.get()


def _name_the_product(record: logging.LogRecord) -> bool:
    record.product = getattr(record, "product", "") or _product.get()  # a line of a worker process has its own
    return True


def quiet_prefect(verbose: bool = False) -> None:
    """Set Prefect's environment for a run from the command line; call it before Prefect is imported.

    What the user has set stays. Prefect's own lines are left to its pages, and go to the terminal with ``verbose``; ours
    go to both. Nothing is reported home.
    """
    for name, value in {
        "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(ROOMS),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO" if verbose else "CRITICAL",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_CLI_COLORS": "false",
        # A server of this process needs time on a loaded machine.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }.items():
        os.environ.setdefault(name, value)


class _Masked(logging.LogRecord):
    """A log line without the credentials that may be in it: addresses, answers of servers, what libraries say."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info:
            # What a formatter finds here it takes as it is.
            self.exc_text = hide_credentials(logging.Formatter().formatException(self.exc_info))  # type: ignore[arg-type]

    def getMessage(self) -> str:
        return hide_credentials(super().getMessage())


# For the lines of all libraries, wherever they go (terminal, Prefect, a file), in every process that loads this.
logging.setLogRecordFactory(_Masked)


def show_logs(console: Console, verbose: bool = False) -> None:
    """Print the lines of our rooms to ``console``: what was done, or with ``verbose`` everything."""
    handler = RichHandler(
        console=console, show_path=False, show_level=True, omit_repeated_times=False, log_time_format="%H:%M:%S"
    )
    handler.addFilter(_name_the_product)
    handler.setFormatter(logging.Formatter("%(product)s %(message)s"))
    for room in ROOMS:
        logger = logging.getLogger(room)
        logger.setLevel(logging.DEBUG if verbose else logging.INFO)
        logger.handlers = [handler]
        logger.propagate = False


class Pixels:
    """How many pixels are set in a map: an argument for ``%d`` in a log line, which blocks of an exposure share.

    Parameters
    ----------
    where : ndarray of bool
    """

    def __init__(self, where: Any) -> None:
        self.where = where

    def __int__(self) -> int:
        return int(np.count_nonzero(self.where))

    def __or__(self, other: "Pixels") -> "Pixels":
        return Pixels(self.where | other.where)


_lines: contextvars.ContextVar[list[logging.LogRecord] | None] = contextvars.ContextVar("lines", default=None)


def _keep_back(record: logging.LogRecord) -> bool:
    lines = _lines.get()
    if lines is not None:
        if isinstance(record.args, tuple):
            # As words: an exception would hold on to the arrays of the block through its trace.
            record.args = tuple(str(value) if isinstance(value, BaseException) else value for value in record.args)
        lines.append(record)
    return lines is None


@contextlib.contextmanager
def one_line_each() -> Iterator[None]:
    """What the steps log within comes at the end, a line that is said again only once, with the ``Pixels`` of all.

    For the blocks of one exposure: in each, a step says the same, but for what it counts.
    """
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.startswith(("tasks.", "calibration.")):
            logger.addFilter(_keep_back)
    token = _lines.set([])
    try:
        yield
    finally:
        lines = _lines.get() or []
        _lines.reset(token)
        for record in _merge(lines):
            logging.getLogger(record.name).handle(record)


def _merge(lines: list[logging.LogRecord]) -> list[logging.LogRecord]:
    """Records of the same words with equal arguments as one; ``Pixels`` are added up."""
    merged: dict[object, logging.LogRecord] = {}
    for record in lines:
        values: tuple[Any, ...] = record.args if isinstance(record.args, tuple) else (record.args,)
        words = tuple("pixels" if isinstance(value, Pixels) else str(value) for value in values)
        first = merged.setdefault((record.name, record.msg, words), record)
        if first is not record and isinstance(first.args, tuple):
            first.args = tuple(a | b if isinstance(a, Pixels) else a for a, b in zip(first.args, values, strict=True))
    return list(merged.values())
