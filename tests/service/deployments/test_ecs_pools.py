"""The job templates for branches on ECS, held against what the installed prefect-aws and botocore make of them."""

import json
from pathlib import Path
from typing import Any, cast

import anyio
import botocore.session
import pytest
import yaml
from prefect.client.orchestration import PrefectClient
from prefect_aws.workers.ecs_worker import ECSJobConfiguration, ECSWorker

from soci_pipeline.prefect_setup.pools import with_environment

FOLDER = Path(__file__).resolve().parents[3] / "deployments" / "work-pools"
MACHINES = {"amd64": "X86_64", "arm64": "ARM64"}
OURS = {"runtimePlatform", "ephemeralStorage", "requiresCompatibilities", "networkMode"}


def template(architecture: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FOLDER / f"ecs-{architecture}.json").read_text())
    return read


def without_defaults(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: {key: value for key, value in each.items() if key != "default"} for name, each in properties.items()}


def placeholders(configuration: Any) -> set[str]:
    text = json.dumps(configuration)
    return {word.partition("}}")[0].strip() for word in text.split("{{")[1:]}


@pytest.mark.parametrize("architecture", MACHINES)
def test_a_template_has_the_variables_of_the_installed_worker(architecture: str) -> None:
    shipped = ECSWorker.get_default_base_job_template()
    mine = template(architecture)
    assert without_defaults(mine["variables"]["properties"]) == without_defaults(shipped["variables"]["properties"])
    assert placeholders(mine["job_configuration"]) == placeholders(shipped["job_configuration"])
    assert set(mine["job_configuration"]) == set(shipped["job_configuration"])


@pytest.mark.parametrize(("architecture", "machine"), MACHINES.items())
def test_the_worker_makes_a_task_of_the_right_architecture_of_it(architecture: str, machine: str) -> None:
    async def made() -> ECSJobConfiguration:
        values = {"image": "registry.example.com/soci-pipeline:1", "vpc_id": "vpc-1", "cluster": "branches"}
        # Asked only where a template refers to a block, and these do not.
        nobody = PrefectClient("http://127.0.0.1:9/api")
        found: ECSJobConfiguration = await ECSJobConfiguration.from_template_and_values(
            template(architecture), values, client=nobody
        )
        return found

    configuration = anyio.run(made)
    definition = configuration.task_definition
    assert definition is not None
    assert definition["runtimePlatform"] == {"cpuArchitecture": machine, "operatingSystemFamily": "LINUX"}
    assert definition["containerDefinitions"][0]["image"] == "registry.example.com/soci-pipeline:1"
    assert configuration.env["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
    assert configuration.command == "prefect flow-run execute"


@pytest.mark.parametrize("architecture", MACHINES)
def test_what_was_added_to_the_shipped_template_is_known_to_ecs(architecture: str) -> None:
    shipped = ECSWorker.get_default_base_job_template()["job_configuration"]["task_definition"]
    mine = template(architecture)["job_configuration"]["task_definition"]
    assert set(mine) - set(shipped) == OURS
    model = botocore.session.get_session().get_service_model("ecs").operation_model("RegisterTaskDefinition")
    known = cast("Any", model.input_shape).members
    assert set(mine) <= set(known)
    assert mine["runtimePlatform"]["cpuArchitecture"] in known["runtimePlatform"].members["cpuArchitecture"].enum
    assert mine["networkMode"] in known["networkMode"].enum
    assert set(mine["requiresCompatibilities"]) <= set(known["requiresCompatibilities"].member.enum)
    assert set(mine["containerDefinitions"][0]) <= set(known["containerDefinitions"].member.members)


def test_the_two_templates_differ_in_the_architecture_alone() -> None:
    amd, arm = (json.dumps(template(architecture)) for architecture in MACHINES)
    assert amd.replace('"X86_64"', '"ARM64"').replace("soci-branch-amd64", "soci-branch-arm64") == arm


@pytest.mark.parametrize("architecture", MACHINES)
def test_a_pool_of_it_needs_nothing_more_from_setup(architecture: str) -> None:
    needed = yaml.safe_load((FOLDER / "pools.yaml").read_text())["environment"]
    assert with_environment(template(architecture), needed) == template(architecture)
