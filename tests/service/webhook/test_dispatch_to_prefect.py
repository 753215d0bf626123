"""The receiver with a real Prefect server and no worker: a busy server makes no run twice and loses none."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local_stack.prefect_server import PrefectServer
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.webhook.service import Service, serving
from tests.support import webhook as support
from tests.support.webhook import runs_of, send, stored_run, until


@pytest.fixture(scope="module")
def bare_prefect(prefect: PrefectServer) -> str:
    """A Prefect server with one deployment and no worker: runs stay scheduled."""
    with PrefectApi(prefect.api_url) as api:
        flow = api.ask("POST", "/flows/", {"name": "publish-image"})
        schema = {"type": "object", "properties": {"image": {"type": "string"}}, "required": ["image"]}
        deployment = {"name": "publish", "flow_id": flow["id"], "parameter_openapi_schema": schema}
        api.ask("POST", "/deployments/", deployment)
    return prefect.api_url


def test_a_burst_of_pushes_becomes_as_many_runs_on_a_server_that_is_busy(bare_prefect: str, tmp_path: Path) -> None:
    commits = [f"{number:040x}" for number in range(1, 31)]
    limits = {"requests_per_minute": 1000, "events_per_minute": 1000}
    rules = [support.rule(supersede=False)]
    prefect = {"api_url": bare_prefect}
    with serving(support.configuration(tmp_path, rules=rules, limits=limits, prefect=prefect)) as (address, service):

        def push(commit: str) -> str:
            event = support.github_push(after=commit, head_commit={"id": commit})
            answers = [send(address, event, delivery=str(number)) for number in range(2)]
            return str(answers[0]["runs"][0]["key"])

        with ThreadPoolExecutor(8) as pool:
            keys = list(pool.map(push, commits))
        until(lambda: service.outbox.counts()["dispatched"] == len(commits), seconds=90)
    assert len(set(keys)) == len(commits)
    counts = [len(runs_of(bare_prefect, key)) for key in keys]
    assert counts == [1] * len(commits)


def test_the_outcome_that_a_real_server_gives_is_understood(bare_prefect: str, tmp_path: Path) -> None:
    prefect = {"api_url": bare_prefect, "poll_outcomes_every_s": 0.1}
    with serving(support.configuration(tmp_path, prefect=prefect)) as (address, service):
        push = support.github_push(before="e" * 40)
        key = send(address, push)["runs"][0]["key"]
        until(lambda: stored_run(service, key).outcome == "SCHEDULED", seconds=30)
        run = stored_run(service, key).flow_run_id
        state: dict[str, object] = {"state": {"type": "FAILED", "message": "on purpose"}, "force": True}
        with PrefectApi(bare_prefect) as api:
            api.ask("POST", f"/flow_runs/{run}/set_state", state)
        until(lambda: stored_run(service, key).outcome == "FAILED", seconds=30)
    assert stored_run_after(service, tmp_path, key) == "FAILED"


def stored_run_after(service: Service, folder: Path, key: str) -> str | None:
    """The outcome as the next receiver finds it in the file."""
    with serving(service.configuration) as (_, again):
        return stored_run(again, key).outcome
