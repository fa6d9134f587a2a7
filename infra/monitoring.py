"""What people see of a run: one log line per step in the terminal, and the same lines on the run's page in Prefect."""

import contextlib
import contextvars
import logging
import os
from collections.abc import Iterator

from rich.console import Console
from rich.logging import RichHandler

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


def _name_the_product(record: logging.LogRecord) -> bool:
    record.product = _product.get()
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
