"""The whole set-up of a real Prefect server, with names of its own: other tests use the server too."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock

from local_stack.prefect_server import PrefectServer
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_setup.install import install


def results(api: PrefectApi, deployments: Path, block: str | None = None) -> dict[str, set[str]]:
    """The results of a set-up by kind."""
    found: dict[str, set[str]] = {}
    for note in install(api, deployments, notify_block=block, worker_python=None):
        found.setdefault(note.kind, set()).add(note.result)
    return found


def stored(server: PrefectServer, path: str, query: dict[str, Any]) -> Any:
    with PrefectApi(server.api_url) as api:
        return api.list_of(f"/{path}/filter", query)


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


def test_a_pool_keeps_what_its_operator_changed_and_gets_the_environment_that_runs_need(
    api: PrefectApi, deployments: Path
) -> None:
    declared = yaml.safe_load((deployments / "work-pools" / "pools.yaml").read_text())
    name = declared["pools"][0]["name"]
    template = json.loads((deployments / "work-pools" / declared["template"]).read_text())
    template["variables"]["properties"]["env"]["default"] = {"MINE": "1"}
    api.create_work_pool({"name": name, "type": "process", "base_job_template": template, "concurrency_limit": 3})

    assert results(api, deployments)["work_pools"] == {"made", "updated"}
    pool = api.work_pool(name)
    assert pool is not None
    assert pool.concurrency_limit == 3
    assert pool.base_job_template["variables"]["properties"]["env"]["default"] == declared["environment"] | {
        "MINE": "1"
    }
