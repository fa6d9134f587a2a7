"""Flows and tasks report to a Prefect server where there is one, and are their functions where there is none."""

from prefect.context import FlowRunContext, TaskRunContext

from infra.observed import ObservedFlow, ObservedTask


def look(number: int) -> tuple[int, bool]:
    return number + 1, FlowRunContext.get() is not None or TaskRunContext.get() is not None


def test_without_a_server_a_task_is_its_function(monkeypatch):
    monkeypatch.setattr("infra.observed.is_observed", lambda: False)
    assert ObservedTask(look, "look")(1) == (2, False)
    assert ObservedFlow(look, "look", "look {number}")(1) == (2, False)


def test_with_a_server_a_flow_and_its_tasks_are_runs_of_prefect(prefect_backend):
    task = ObservedTask(look, "look")
    seen = []

    def both(number: int) -> int:
        seen.append(FlowRunContext.get().flow_run.name)
        seen.append(task(number))
        return number

    assert ObservedFlow(both, "both", "both {number}")(1) == 1
    assert seen == ["both 1", (2, True)]
