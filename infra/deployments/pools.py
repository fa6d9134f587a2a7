"""Work pools: where deployments run, and what a job asks for.

Each kind has its template of a job beside this file (Prefect's own for processes). Credentials are no part of a template: they
come from the environment of the worker, from a secret of the cluster, or from the role of the task.
"""

import json
import logging
import math
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.runner.storage import LocalStorage
from prefect.settings import get_current_settings

log = logging.getLogger(__name__)

#: Pairs of Fargate: processors [1/1024] -> smallest and largest memory, and its step [MiB].
#: AWS documentation, "Amazon ECS task definition parameters for Fargate", section Task size.
FARGATE: Mapping[int, tuple[int, int, int]] = {
    256: (512, 2048, 512),  # 512, 1024 and 2048; 1536 is none, see below
    512: (1024, 4096, 1024),
    1024: (2048, 8192, 1024),
    2048: (4096, 16384, 1024),
    4096: (8192, 30720, 1024),
    8192: (16384, 61440, 4096),
    16384: (32768, 122880, 8192),
}

MIB = 1 << 20

#: The flows are installed where they run. Without a step that says where to be, a worker copies the folder in which the
#: deployment was registered.
NOTHING_TO_PULL = LocalStorage("/")

_NAME = re.compile(r"\{\{ \$(\w+) \}\}")


class DeploymentError(Exception):
    """A deployment cannot be registered or served; the message says why and what to do."""


def require_server() -> str:
    """The address of the Prefect server that is configured and answers.

    Raises
    ------
    DeploymentError
        If there is none, or it does not answer.
    """
    url = get_current_settings().api.url
    if not url:
        raise DeploymentError(
            "no Prefect server is configured, and schedules need one: start it with `make ui` (or `prefect server start`) "
            "and set PREFECT_API_URL=http://127.0.0.1:4200/api, or the address of yours"
        )
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if error is not None:
        raise DeploymentError(
            f"the Prefect server PREFECT_API_URL={url} does not answer ({type(error).__name__}); start it, or correct the "
            "address or its credentials"
        )
    return str(url)


def base_job_template(kind: str) -> dict[str, Any] | None:
    """The template of a job of a work pool; None for processes, which have Prefect's own."""
    if kind == "process":
        return None
    return json.loads(files(__package__).joinpath(f"{kind}.json").read_text(encoding="utf-8"))


def ensure_pool(name: str, kind: str) -> bool:
    """Make a work pool, if there is none of this name; one that is there is left as it is. Tells whether it was made.

    Raises
    ------
    DeploymentError
        If there is one of another kind.
    """
    with get_client(sync_client=True) as client:
        try:
            pool = client.read_work_pool(name)
        except ObjectNotFound:
            template = base_job_template(kind)
            more = {} if template is None else {"base_job_template": template}
            client.create_work_pool(WorkPoolCreate(name=name, type=kind, **more))
            return True
    if pool.type != kind:
        raise DeploymentError(
            f"the work pool {name} is there already and runs {pool.type} jobs, not {kind}; choose another name with --pool, "
            f"or say --kind {pool.type}"
        )
    return False


def kind_of_pool(name: str) -> str:
    """What the workers of a pool start: ``process``, ``kubernetes``, ``ecs`` or another type of Prefect.

    Raises
    ------
    DeploymentError
        If there is no pool of this name.
    """
    require_server()
    with get_client(sync_client=True) as client:
        try:
            return client.read_work_pool(name).type
        except ObjectNotFound as error:
            raise DeploymentError(
                f"there is no work pool {name}; make it with `calweave deploy`, or with "
                f"`prefect work-pool create {name} --type process`"
            ) from error


def job_resources(kind: str, memory_bytes: int, cores: int = 1) -> dict[str, Any]:
    """The job variables with which a job gets this memory and so many processors.

    Raises
    ------
    DeploymentError
        If no machine of Fargate is so large.
    """
    if kind not in ("kubernetes", "ecs"):  # a process takes what it needs; of other types we know no names
        return {}
    if kind == "kubernetes":
        return {"memory": f"{max(1, math.ceil(memory_bytes / MIB))}Mi", "cpu": str(cores)}
    for cpu, (smallest, largest, step) in FARGATE.items():
        memory = max(smallest, math.ceil(memory_bytes / MIB / step) * step)
        memory = 2048 if (cpu, memory) == (256, 1536) else memory
        if cpu >= 1024 * cores and memory <= largest:
            return {"cpu": cpu, "memory": memory}
    raise DeploymentError(
        f"expected a job of at most 16 processors and 120 GiB, the largest of Fargate, but it needs {cores} and "
        f"{memory_bytes / 2**30:.0f} GiB; use a Kubernetes pool on larger machines"
    )


def read_deployments(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The deployments of ``prefect.yaml``, with ``{{ $NAME }}`` replaced by the value of that name.

    Raises
    ------
    DeploymentError
        If a name has no value.
    """
    text = files(__package__).joinpath("prefect.yaml").read_text(encoding="utf-8")
    return _fill(yaml.safe_load(text)["deployments"], values)


def _fill(node: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(node, dict):
        return {key: _fill(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_fill(value, values) for value in node]
    found = _NAME.fullmatch(node) if isinstance(node, str) else None
    if found is None:
        return node
    if found.group(1) not in values:
        raise DeploymentError(
            f"prefect.yaml: expected a value for {found.group(1)}, but there are only {', '.join(values)}"
        )
    return values[found.group(1)]  # it stands alone: a value may be no text
