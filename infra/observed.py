"""Flows and tasks that report to a Prefect server where there is one, and are plain function calls where there is none.

A server of its own for every command would cost 3 to 15 s at the start. So a run reports where ``PREFECT_API_URL`` (or the
Prefect profile) names a server, or where it is part of a run that Prefect started; otherwise the same functions run
in this process with nothing between. The products are the same.
"""

from typing import Any

from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TaskRunContext
from prefect.results import ResultRecord
from prefect.settings import get_current_settings
from prefect.states import State


def is_observed() -> bool:
    """Whether runs report to a Prefect server: one is configured, or Prefect started what calls this."""
    if FlowRunContext.get() is not None or TaskRunContext.get() is not None:
        return True
    return get_current_settings().api.url is not None


def in_flow_run() -> bool:
    """Whether a flow that reports is what calls this: only then can tasks be handed to its runner."""
    return FlowRunContext.get() is not None


def result_of(returned: Any) -> Any:
    """What a flow or task returned, also where Prefect put it into a state, and a failed one; what it raised is raised."""
    data = returned.data if isinstance(returned, State) else returned
    data = data.result if isinstance(data, ResultRecord) else data
    if isinstance(data, BaseException):
        raise data
    return data


class ObservedFlow(Flow):
    """A Prefect flow; called without a server it is its function. Names go in and out, nothing is kept or validated."""

    def __init__(self, fn: Any, name: str, flow_run_name: Any) -> None:
        super().__init__(fn, name=name, flow_run_name=flow_run_name, persist_result=False, validate_parameters=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs) if is_observed() else self.fn(*args, **kwargs)


class ObservedTask(Task):
    """A Prefect task that keeps no results; called without a server it is its function."""

    def __init__(self, fn: Any, name: str, **more: Any) -> None:
        # Prefect's own policy would pickle and hash every input: seconds and a second copy of a ramp.
        super().__init__(fn, name=name, cache_policy=NO_CACHE, persist_result=False, **more)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs) if is_observed() else self.fn(*args, **kwargs)
