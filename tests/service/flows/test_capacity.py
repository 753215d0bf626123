"""What the controller and the agent say to a real Prefect server."""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import State
from prefect.states import Cancelling, Pending, Running, Scheduled

from soci_pipeline.capacity.policy import Demand
from soci_pipeline.capacity.prefect_queue import PrefectQueue
from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from soci_pipeline.prefect_api import PrefectApi, PrefectRefused
from tests.support.auto_scaling import GROUP, instances, make_group


@flow(name="stands-for-a-branch")
def branch() -> None:
    """Never run: only its runs' states matter."""


@pytest.fixture
def api() -> Iterator[PrefectApi]:
    with get_client(sync_client=True) as client:
        address = str(client.api_url)
    with contextlib.closing(PrefectApi(address, patience_s=10)) as api:
        yield api


@pytest.fixture
def pool() -> str:
    name = f"pool-{uuid4().hex}"
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))
    return name


@pytest.fixture
def deployment(pool: str) -> UUID:
    with get_client(sync_client=True) as client:
        return client.create_deployment(flow_id=client.create_flow(branch), name=pool, work_pool_name=pool)


def _run(deployment: UUID, *states: State[Any], due: datetime | None = None) -> str:
    with get_client(sync_client=True) as client:
        state: State[Any] = Scheduled(scheduled_time=due or datetime.now(UTC))
        run = client.create_flow_run_from_deployment(deployment, state=state)
        for each in states:
            client.set_flow_run_state(run.id, each, force=True)
        return str(run.id)


def test_runs_that_are_due_wait_and_those_that_a_worker_has_run(api: PrefectApi, pool: str, deployment: UUID) -> None:
    queue = PrefectQueue(api)
    assert queue.demand(pool) == Demand(0, 0)
    _run(deployment)
    _run(deployment, due=datetime.now(UTC) + timedelta(hours=3))
    _run(deployment, Pending())
    _run(deployment, Running())
    _run(deployment, Running(), Cancelling())
    assert queue.demand(pool) == Demand(waiting=1, running=3)


def test_what_a_pool_does_not_let_through_needs_no_machine(api: PrefectApi, pool: str, deployment: UUID) -> None:
    for _ in range(3):
        _run(deployment)
    _run(deployment, Running())
    with get_client(sync_client=True) as client:
        client.update_work_pool(pool, WorkPoolUpdate(concurrency_limit=2))
        assert PrefectQueue(api).demand(pool) == Demand(waiting=1, running=1)
        client.update_work_pool(pool, WorkPoolUpdate(is_paused=True))
    assert PrefectQueue(api).demand(pool) == Demand(waiting=0, running=1)


def test_a_pool_that_is_not_there_is_refused(api: PrefectApi) -> None:
    with pytest.raises(PrefectRefused, match="no work pool"):
        PrefectQueue(api).demand("no-such-pool")


def test_an_interrupted_run_is_given_to_the_next_worker_under_its_own_id(
    api: PrefectApi, pool: str, deployment: UUID
) -> None:
    run = _run(deployment, Pending(), Running())
    api.reschedule(run, "The instance goes.")
    assert PrefectQueue(api).demand(pool) == Demand(waiting=1, running=0)
    given = api.ask("POST", f"/work_pools/{pool}/get_scheduled_flow_runs", {"limit": 5})
    assert [each["flow_run"]["id"] for each in given] == [run]
    assert api.ask("GET", f"/flow_runs/{run}")["state"]["name"] == "AwaitingRetry"


def test_a_run_that_was_to_be_cancelled_counts_as_cancelled(api: PrefectApi, deployment: UUID) -> None:
    run = _run(deployment, Running(), Cancelling())
    api.end_as_cancelled(run, "The instance goes.")
    assert api.state(run).kind == "CANCELLED"


def test_the_command_raises_a_group_while_runs_wait(
    api: PrefectApi,
    pool: str,
    deployment: UUID,
    shared_aws: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with get_client(sync_client=True) as client:
        monkeypatch.setenv("PREFECT_API_URL", str(client.api_url))
    for _ in range(3):
        _run(deployment)
    command = ["capacity", "control", "--group", f"{pool}={GROUP}", "--once", "--json"]
    scaling = make_group(shared_aws)
    assert main([*command, "--dry-run"]) == 0
    assert not instances(scaling)
    assert main([*command, "--runs-per-instance", "1"]) == 0
    assert len(instances(scaling)) == 3
    assert main(["capacity", "control", "--group", f"{pool}=somebody-elses", "--once"]) == ExitCode.INVALID_INPUT
    found = capsys.readouterr().out
    answer = json.loads(found[: found.index("}\n{") + 1])["pools"][0]
    assert (answer["waiting"], answer["capacity"], answer["desired"]) == (3, 0, 2)
