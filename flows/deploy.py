"""``calweave deploy`` and ``calweave serve``: the deployments of ``infra/deployments/prefect.yaml``, on a server.

``deploy`` registers them with a work pool, whose workers run them; ``serve`` runs them on this machine as long as it lives.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import serve
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from rich.console import Console
from rich.table import Table

from infra.credentials import has_credentials
from infra.deployments.pools import NOTHING_TO_PULL, DeploymentError, ensure_pool, read_deployments, require_server
from infra.storage.store import is_local, local_path


def deployments(source: str, output: str, cron: str, slots: int, pool: str | None = None) -> list[RunnerDeployment]:
    """The deployments for ``source``: the folder of a program, or ``FOLDER/*`` for all programs in a folder.

    Raises
    ------
    DeploymentError
        If an address holds credentials: Prefect shows parameters to all who can open its pages.
    """
    for url in (source, output):
        if has_credentials(url):
            raise DeploymentError(
                "the address of the input or output holds credentials, which everybody could read in Prefect's pages; give "
                "them to the worker by its environment (AWS_PROFILE, AWS_ACCESS_KEY_ID ...) and the address without"
            )
    many = source.endswith("/*")
    values = {
        "CALWEAVE_INPUT": _absolute(source),
        "CALWEAVE_OUTPUT": _absolute(output),
        "CALWEAVE_CRON": cron,
        "CALWEAVE_ONE": not many,
        "CALWEAVE_MANY": many,
        "CALWEAVE_POOL": pool,
    }
    return [_deployment(entry, slots, pool) for entry in read_deployments(values)]


def _deployment(entry: Mapping[str, Any], slots: int, pool: str | None) -> RunnerDeployment:
    where: dict[str, Any] = {}
    if pool is not None:
        where = {"work_pool_name": pool, "job_variables": entry["work_pool"]["job_variables"]}
    deployment = RunnerDeployment.from_entrypoint(
        entry["entrypoint"],
        name=entry["name"],
        description=entry["description"],
        parameters={**entry.get("parameters", {}), "slots": slots},
        schedules=[_schedule(one) for one in entry.get("schedules", [])],
        concurrency_limit=ConcurrencyLimitConfig(**limit) if (limit := entry.get("concurrency_limit")) else None,
        paused=False,  # where it was served before, the end of that paused it
        **where,
    )
    if pool is None:
        # Said and not only left out: else those of an earlier `deploy` would stay.
        deployment.work_pool_name = deployment.work_queue_name = None
    else:
        deployment.storage = NOTHING_TO_PULL
    return deployment


def _schedule(entry: Mapping[str, Any]) -> DeploymentScheduleCreate:
    when = CronSchedule(cron=entry["cron"], timezone=entry["timezone"])
    return DeploymentScheduleCreate(schedule=when, active=entry["active"], slug=entry["slug"])


def register(source: str, output: str, cron: str, slots: int, pool: str, kind: str, console: Console) -> int:
    """Make the work pool where there is none, and register the deployments; returns the exit code."""
    require_server()
    found = deployments(source, output, cron, slots, pool)
    made = ensure_pool(pool, kind)
    console.print(f"work pool {pool} ({kind}) {'made' if made else 'is there, and stays as it is'}")
    for deployment in found:
        deployment.apply()
    _show(found, console)
    worker = f"prefect worker start --pool {pool}" + ("" if kind == "process" else f" --type {kind}")
    console.print(
        f"start a worker where the runs shall be, with the credentials of the stores in its environment: {worker}"
    )
    return 0


def serve_here(source: str, output: str, cron: str, slots: int, limit: int, console: Console) -> int:
    """Serve the deployments from this machine until it is interrupted; returns the exit code."""
    require_server()
    found = deployments(source, output, cron, slots)
    _show(found, console)
    console.print("serving them here until Ctrl-C", highlight=False)
    serve(*found, limit=limit, print_starting_message=False)
    return 0


def _show(found: list[RunnerDeployment], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("deployment", "when (UTC)", "what"):
        table.add_column(heading)
    for deployment in found:
        when = [
            getattr(schedule.schedule, "cron", "") if schedule.active else "when asked"
            for schedule in deployment.schedules
        ]
        table.add_row(
            f"{deployment.flow_name}/{deployment.name}", ", ".join(when) or "when asked", deployment.description
        )
    console.print(table)


def _absolute(url: str) -> str:
    """A local path as it is seen from any folder: workers run in others."""
    return str(Path(os.path.abspath(local_path(url)))) if is_local(url) else url  # resolve() would follow links
