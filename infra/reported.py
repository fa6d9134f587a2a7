"""Steps and stages as Prefect tasks and flows, without Prefect until somebody asks for it: to import it takes a second.

A command whose runs report to no server has no use for it (``infra.observed``). Where Prefect is loaded already, as in its
workers, and in tests, what is made here is Prefect's own at once.
"""

import functools
import os
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any


def as_task(function: Callable, name: str, **more: Any) -> Any:
    """``function`` as the task ``name``; its settings are those of ``infra.observed.ObservedTask``."""
    return _as(function, "ObservedTask", {"name": name, **more})


def as_flow(function: Callable, name: str, flow_run_name: Any) -> Any:
    """``function`` as the flow ``name``."""
    return _as(function, "ObservedFlow", {"name": name, "flow_run_name": flow_run_name})


def _as(function: Callable, kind: str, settings: dict[str, Any]) -> Any:
    later = _Later(function, kind, settings)
    return later.observed if "prefect" in sys.modules else later


class _Later:
    """A function that becomes a task or a flow of Prefect when one is needed."""

    def __init__(self, function: Callable, kind: str, settings: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.fn, self.kind, self.settings, self.name = function, kind, settings, settings["name"]

    @cached_property
    def observed(self) -> Any:
        """What Prefect knows it as."""
        import infra.observed

        return getattr(infra.observed, self.kind)(self.fn, **self.settings)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.observed(*args, **kwargs) if _may_report() else self.fn(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.observed, name)


def _may_report() -> bool:
    """Whether Prefect is there, or has settings, which may name a server: it then finds out itself."""
    if "prefect" in sys.modules or "PREFECT_API_URL" in os.environ or "PREFECT_PROFILE" in os.environ:
        return True
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    return profiles.exists() or Path("prefect.toml").exists()
