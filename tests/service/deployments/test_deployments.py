"""What is declared in prefect.yaml and below deployments/, held against the flows, the pools and each other."""

import importlib
import json
import shlex
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.flows import Flow

from soci_pipeline.deployment_names import PUBLISH, RENAMED
from soci_pipeline.oci.platform import Platform
from soci_pipeline.prefect_setup.pools import with_environment, with_python
from soci_pipeline.publications.schedule import check_cron, check_timezone
from soci_pipeline.webhook.flow_parameters import FLOWS
from tasks.branches import deployment_of

ROOT = Path(__file__).resolve().parents[3]
DECLARED = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
POOLS = yaml.safe_load((ROOT / "deployments" / "work-pools" / "pools.yaml").read_text())
AUTOMATIONS = sorted((ROOT / "deployments" / "automations").glob("*.yaml"))
NAMES = {
    "publish-image/publish": "soci-control",
    "build-platform/linux-amd64": "soci-amd64",
    "build-platform/linux-arm64": "soci-arm64",
    "verify-image/verify": "soci-control",
    "index-image/index": "soci-control",
    "prune-repository/prune": "soci-control",
}


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    path, _, function = deployment["entrypoint"].partition(":")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return cast("Flow[..., Any]", getattr(module, function))


def full_name(deployment: dict[str, Any]) -> str:
    return f"{flow_of(deployment).name}/{deployment['name']}"


def test_the_deployments_are_the_documented_ones_each_in_its_pool() -> None:
    assert {full_name(each): each["work_pool"]["name"] for each in DECLARED} == NAMES


@pytest.mark.parametrize("deployment", DECLARED, ids=full_name)
def test_an_entrypoint_is_a_flow_that_takes_the_declared_parameters(deployment: dict[str, Any]) -> None:
    flow = flow_of(deployment)
    assert isinstance(flow, Flow)
    assert (ROOT / deployment["entrypoint"].partition(":")[0]).is_file()
    assert set(deployment["parameters"]) <= set(flow.parameters.properties)


def test_every_pool_that_is_named_is_made_by_setup() -> None:
    assert {each["work_pool"]["name"] for each in DECLARED} == {pool["name"] for pool in POOLS["pools"]}


def test_a_publication_finds_the_deployment_of_every_default_platform() -> None:
    names = {full_name(each) for each in DECLARED}
    assert {deployment_of(Platform.parse(name)) for name in ("linux/amd64", "linux/arm64")} <= names


def test_every_flow_that_an_event_may_start_is_deployed() -> None:
    assert FLOWS.keys() <= {name.partition("/")[0] for name in NAMES}


def test_a_deployment_says_what_it_does() -> None:
    assert all(each["name"] != "default" and each["description"] for each in DECLARED)
    assert set(RENAMED.values()) <= set(NAMES)
    assert not set(RENAMED) & set(NAMES)
    assert PUBLISH in NAMES


def test_a_branch_says_that_nobody_starts_it_by_hand() -> None:
    branches = [each for each in DECLARED if full_name(each).startswith("build-platform/")]
    assert len(branches) == 2
    assert all(each["description"].startswith("Not started by hand.") for each in branches)


def test_no_deployment_of_the_project_starts_by_itself() -> None:
    assert [each["name"] for each in DECLARED if each.get("schedules")] == []


@pytest.mark.parametrize("cron", ["17 3 * * *", "*/15 0-6,22 1-15/2 jan,MAR mon-fri", "5/10 * * * 7", "0 0 31 2 1"])
def test_a_cron_expression_of_a_publication_is_one_that_prefect_takes(cron: str) -> None:
    assert CronSchedule(cron=check_cron(cron), timezone=check_timezone("Europe/Berlin")).cron == cron


@pytest.mark.parametrize("deployment", DECLARED, ids=full_name)
def test_a_deployment_fits_the_job_template_of_its_pool(deployment: dict[str, Any]) -> None:
    template = json.loads((ROOT / "deployments" / "work-pools" / POOLS["template"]).read_text())
    assert set(deployment["work_pool"]["job_variables"]) <= set(template["variables"]["properties"])


def test_the_template_of_the_pools_has_the_environment_that_runs_need() -> None:
    template = json.loads((ROOT / "deployments" / "work-pools" / POOLS["template"]).read_text())
    assert with_environment(template, POOLS["environment"]) == template


def test_a_known_python_becomes_the_command_of_the_pools_and_nothing_else_changes() -> None:
    template = json.loads((ROOT / "deployments" / "work-pools" / POOLS["template"]).read_text())
    changed = with_python(template, "/opt/the project/python")
    assert shlex.split(changed["variables"]["properties"]["command"].pop("default")) == [
        *("/opt/the project/python", "-m", "prefect.engine")
    ]
    assert template["variables"]["properties"]["command"].pop("default") is None
    assert changed == template


def test_without_a_known_python_the_command_is_left_to_prefect() -> None:
    template = json.loads((ROOT / "deployments" / "work-pools" / POOLS["template"]).read_text())
    assert with_python(template, None) == template


def test_a_known_python_can_be_taken_back() -> None:
    template = json.loads((ROOT / "deployments" / "work-pools" / POOLS["template"]).read_text())
    assert with_python(with_python(template, "/nowhere/python"), "none") == template


@pytest.mark.parametrize("path", AUTOMATIONS, ids=lambda path: path.stem)
def test_an_automation_is_one_that_prefect_takes(path: Path) -> None:
    text = path.read_text().replace("{{ notify_block }}", "11111111-2222-3333-4444-555555555555")
    automation = AutomationCore.model_validate(yaml.safe_load(text))
    assert automation.enabled
    assert automation.actions


def test_the_client_of_a_run_tries_for_longer_than_a_minute() -> None:
    retries = int(POOLS["environment"]["PREFECT_CLIENT_MAX_RETRIES"])
    assert sum(2**attempt for attempt in range(1, retries + 1)) >= 120


def test_a_run_is_silent_for_longer_than_a_server_that_is_away_for_a_minute_before_it_is_crashed() -> None:
    beat = int(POOLS["environment"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    automation = yaml.safe_load((ROOT / "deployments" / "automations" / "crash-silent-runs.yaml").read_text())
    # The last heartbeat before the outage and the first one after it are each up to one interval away from it.
    assert automation["trigger"]["within"] >= 60 + 2 * beat + 10


def test_a_silent_run_is_given_up_after_three_missed_heartbeats() -> None:
    beat = int(POOLS["environment"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    automation = yaml.safe_load((ROOT / "deployments" / "automations" / "crash-silent-runs.yaml").read_text())
    assert automation["trigger"]["within"] >= 3 * beat


@pytest.mark.parametrize("path", AUTOMATIONS, ids=lambda path: path.stem)
def test_an_automation_matches_only_flows_of_this_project_with_the_tag_of_its_deployments(path: Path) -> None:
    tag, flow = yaml.safe_load(path.read_text())["trigger"]["match_related"]
    assert tag == {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.soci-pipeline"}
    assert all("soci-pipeline" in deployment["tags"] for deployment in DECLARED)
    flows = {flow_of(deployment).name for deployment in DECLARED}
    names = flow["prefect.resource.name"]
    assert flow["prefect.resource.role"] == "flow"
    assert set([names] if isinstance(names, str) else names) == (
        flows if path.stem == "crash-silent-runs" else {"publish-image"}
    )


@pytest.mark.parametrize("deployment", DECLARED, ids=full_name)
def test_every_deployment_keeps_what_was_set_on_the_server(deployment: dict[str, Any]) -> None:
    assert deployment["build"] == [{"deployments.redeploy.keep": {"deployment": full_name(deployment)}}]
