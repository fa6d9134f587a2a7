"""Work pools, job templates and the deployments, without a server."""

import json
from importlib import import_module

import botocore.session
import pytest
from botocore.validate import ParamValidator
from prefect import Flow
from prefect.client.schemas.objects import WorkPool
from prefect.client.schemas.schedules import CronSchedule
from prefect.utilities.templating import apply_values, find_placeholders

from infra.deployments.pools import (
    FARGATE,
    DeploymentError,
    base_job_template,
    job_resources,
    read_deployments,
    require_server,
)

GIB = 1 << 30
VALUES = {
    "CALWEAVE_INPUT": "s3://raw/01234",
    "CALWEAVE_OUTPUT": "s3://products/01234",
    "CALWEAVE_CRON": "0 3 * * *",
    "CALWEAVE_ONE": True,
    "CALWEAVE_MANY": False,
    "CALWEAVE_POOL": "calweave",
}
FROM_THE_WORKER = {"name": "calweave-run", "command": ["prefect", "flow-run", "execute"], "labels": {}, "env": {}}


def rendered(kind, **variables):
    """The job configuration as a worker makes it: defaults of the template under what the run asks for."""
    template = base_job_template(kind)
    defaults = {
        name: schema["default"] for name, schema in template["variables"]["properties"].items() if "default" in schema
    }
    return apply_values(template["job_configuration"], {**FROM_THE_WORKER, **defaults, **variables})


@pytest.mark.parametrize("kind", ["kubernetes", "ecs"])
def test_every_variable_of_a_job_is_declared_and_every_declared_one_is_used(kind):
    template = base_job_template(kind)
    used = {placeholder.name for placeholder in find_placeholders(template["job_configuration"])}
    assert used == set(template["variables"]["properties"])


@pytest.mark.parametrize("kind", ["kubernetes", "ecs"])
def test_a_template_is_one_that_the_server_of_prefect_accepts(kind):
    pool = WorkPool(name="calweave", type=kind, base_job_template=base_job_template(kind))
    assert pool.base_job_template["job_configuration"]


def test_a_job_of_kubernetes_gets_the_memory_that_is_asked_for_and_no_rights():
    job = rendered("kubernetes", **job_resources("kubernetes", 3 * GIB + 1, 2))["job_manifest"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"] == {"requests": {"cpu": "2", "memory": "3073Mi"}, "limits": {"memory": "3073Mi"}}
    assert pod["securityContext"]["runAsNonRoot"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert job["spec"]["backoffLimit"] == 0, "Prefect says what is tried again, not the cluster"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_a_job_of_ecs_is_one_that_the_interface_of_aws_accepts():
    made = rendered("ecs", **job_resources("ecs", 3 * GIB), execution_role_arn="arn:role", crds_file_system="fs-1")
    made |= {"image": "calweave:0.1.0"}
    service = botocore.session.get_session().get_service_model("ecs")
    definition = {**made["task_definition"]}
    # The worker turns these into text, as the interface wants them.
    definition |= {key: str(definition[key]) for key in ("cpu", "memory")}
    report = ParamValidator().validate(definition, service.operation_model("RegisterTaskDefinition").input_shape)
    assert not report.has_errors(), report.generate_report()
    request = json.loads(json.dumps(made["task_run_request"]))
    overrides = request["overrides"]
    overrides |= {key: str(overrides[key]) for key in ("cpu", "memory")}
    overrides["containerOverrides"][0]["environment"] = []
    request |= {"tags": [], "taskDefinition": "arn:task"}
    report = ParamValidator().validate(request, service.operation_model("RunTask").input_shape)
    assert not report.has_errors(), report.generate_report()
    assert (definition["cpu"], definition["memory"]) == ("1024", "3072")


@pytest.mark.parametrize(
    ("memory", "cores", "expected"),
    [
        (0.3, 0, (256, 512)),
        (1.2, 0, (256, 2048)),
        (0.3, 1, (1024, 2048)),
        (8.0, 1, (1024, 8192)),
        (8.1, 1, (2048, 9216)),
        (31.0, 1, (8192, 32768)),
        (120.0, 4, (16384, 122880)),
    ],
)
def test_fargate_gets_a_pair_that_it_has(memory, cores, expected):
    found = job_resources("ecs", int(memory * GIB), cores)
    assert (found["cpu"], found["memory"]) == expected
    smallest, largest, step = FARGATE[found["cpu"]]
    assert smallest <= found["memory"] <= largest
    assert (found["memory"] - smallest) % step == 0


def test_a_job_that_no_machine_of_fargate_holds_is_an_error():
    with pytest.raises(DeploymentError, match="at most 16 processors and 120 GiB"):
        job_resources("ecs", 121 * GIB)


def test_deployments_name_flows_that_exist_and_parameters_that_they_take():
    for entry in read_deployments(VALUES):
        assert ":" not in entry["entrypoint"], "Prefect would take it for a file"
        module, _, name = entry["entrypoint"].rpartition(".")
        flow = getattr(import_module(module), name)
        assert isinstance(flow, Flow)
        assert set(entry.get("parameters", {})) <= set(flow.parameters.properties), entry["name"]
        for schedule in entry.get("schedules", []):
            CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])


def test_a_deployment_that_writes_runs_once_at_a_time():
    scheduled = [entry for entry in read_deployments(VALUES) if entry.get("schedules")]
    assert {entry["name"] for entry in scheduled} == {"program", "campaign", "new-context"}
    assert all(entry["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"} for entry in scheduled)


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(DeploymentError, match="CALWEAVE_POOL"):
        read_deployments({name: value for name, value in VALUES.items() if name != "CALWEAVE_POOL"})


def test_no_deployment_and_no_template_holds_a_credential():
    text = json.dumps([read_deployments(VALUES), base_job_template("kubernetes"), base_job_template("ecs")])
    for name in ("AWS_SECRET_ACCESS_KEY", "PREFECT_API_KEY", "PASSWORD"):
        assert name not in text.upper()


def test_without_a_server_the_error_says_how_to_start_one(monkeypatch, tmp_path):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(DeploymentError, match="prefect server start"),
    ):
        require_server()
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(DeploymentError, match="does not answer"),
    ):
        require_server()
