"""The whole set-up of a real Prefect server, with names of its own: other tests use the server too."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock

from local_stack.prefect_server import PrefectServer
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_setup.install import install

DEPLOYMENTS = Path(__file__).resolve().parents[3] / "deployments"


@pytest.fixture
def api(prefect: PrefectServer) -> Iterator[PrefectApi]:
    with PrefectApi(prefect.api_url) as client:
        yield client


@pytest.fixture
def deployments(tmp_path: Path) -> Path:
    """What the checkout declares, with the pools and automations renamed, and the automations switched off."""
    mark = uuid4().hex[:8]
    folder = tmp_path / "deployments"
    for part in ("work-pools", "automations", "block-types"):
        shutil.copytree(DEPLOYMENTS / part, folder / part)
    for path in (folder / "automations").glob("*.yaml"):
        fields = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(fields | {"name": f"{fields['name']} {mark}", "enabled": False}))
    plan = yaml.safe_load((folder / "work-pools" / "pools.yaml").read_text())
    plan["pools"] = [pool | {"name": f"{pool['name']}-{mark}"} for pool in plan["pools"]]
    (folder / "work-pools" / "pools.yaml").write_text(yaml.safe_dump(plan))
    return folder


def results(api: PrefectApi, deployments: Path, block: str | None = None) -> dict[str, set[str]]:
    """The results of a set-up by kind."""
    found: dict[str, set[str]] = {}
    for note in install(api, deployments, notify_block=block, worker_python=None):
        found.setdefault(note.kind, set()).add(note.result)
    return found


def stored(server: PrefectServer, path: str, query: dict[str, Any]) -> Any:
    answer = httpx.post(f"{server.api_url}/{path}/filter", json=query, timeout=60, trust_env=False)
    return answer.raise_for_status().json()


def test_what_was_set_up_is_unchanged_the_second_time(
    api: PrefectApi, deployments: Path, prefect: PrefectServer
) -> None:
    name = f"releases-{uuid4().hex[:8]}"
    CustomWebhookNotificationBlock(name=name, url="http://127.0.0.1:9", json_data={"body": "{{body}}"}).save(name)
    block = f"custom-webhook/{name}"

    first, second = results(api, deployments, block), results(api, deployments, block)

    assert (first["work_pools"], first["automations"]) == ({"made"}, {"made"})
    assert {kind: second[kind] for kind in ("work_pools", "automations", "blocks")} == {
        "work_pools": {"unchanged"},
        "automations": {"unchanged"},
        "blocks": {"unchanged"},
    }
    # The block stays where a later set-up does not name it.
    assert results(api, deployments)["automations"] == {"unchanged"}
    declared = yaml.safe_load((deployments / "work-pools" / "pools.yaml").read_text())
    template = json.loads((deployments / "work-pools" / declared["template"]).read_text())
    names = [pool["name"] for pool in declared["pools"]]
    pools = stored(prefect, "work_pools", {"work_pools": {"name": {"any_": names}}})
    assert [pool["base_job_template"] for pool in pools] == [template] * len(names)


def test_each_automation_of_a_name_is_brought_up_to_date_and_stays_as_it_is_switched(
    api: PrefectApi, deployments: Path
) -> None:
    path = deployments / "automations" / "crash-silent-runs.yaml"
    fields = yaml.safe_load(path.read_text())
    older = fields | {"trigger": fields["trigger"] | {"within": 90}}
    for enabled in (True, False):
        api.create_automation(older | {"enabled": enabled})

    assert "brought up to date" in results(api, deployments)["automations"]
    found = api.automations(fields["name"])
    assert [each["trigger"]["within"] for each in found] == [130, 130]
    assert {each["enabled"] for each in found} == {True, False}
    assert "unchanged" in results(api, deployments)["automations"]


def test_a_pool_keeps_what_its_operator_changed_and_gets_the_environment_that_runs_need(
    api: PrefectApi, deployments: Path
) -> None:
    declared = yaml.safe_load((deployments / "work-pools" / "pools.yaml").read_text())
    name = declared["pools"][0]["name"]
    template = json.loads((deployments / "work-pools" / declared["template"]).read_text())
    template["variables"]["properties"]["env"]["default"] = {"MINE": "1"}
    api.create_work_pool({"name": name, "type": "process", "base_job_template": template, "concurrency_limit": 3})

    assert results(api, deployments)["work_pools"] == {"made", "brought up to date"}
    pool = api.work_pool(name)
    assert pool is not None
    assert pool.concurrency_limit == 3
    assert pool.base_job_template["variables"]["properties"]["env"]["default"] == declared["environment"] | {
        "MINE": "1"
    }
