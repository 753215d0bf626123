"""A newer publication cancels the older ones of the same image that have not started; all others go on."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Running, Scheduled

from soci_pipeline.registry.reference import ImageReference
from tasks.supersede import cancel_older

GIVEN: dict[str, Any] = {"image": "registry.example.com/team/app", "source": "https://git.example.com/app.git"}
IMAGE = ImageReference.parse(GIVEN["image"])
NOW = datetime.now(UTC)


@flow(name="stands-for-a-publication", validate_parameters=False)
def publication(image: str, source: str, ref: str | None = None, tags: list[str] | None = None) -> None:
    """Never run: only its runs' states matter."""


@pytest.fixture
def deployment() -> UUID:
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(publication)
        return client.create_deployment(flow_id=flow_id, name=uuid4().hex, enforce_parameter_schema=False)


def _run(deployment: UUID, due: datetime, *, running: bool = False, **change: Any) -> UUID:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(
            deployment, parameters=GIVEN | change, state=Scheduled(scheduled_time=due)
        )
        if running:
            client.set_flow_run_state(run.id, Running(), force=True)
        return run.id


def _state(run: UUID) -> str:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
    assert state is not None
    return state.type.value


def test_only_an_older_run_of_the_same_image_that_waits_is_cancelled(deployment: UUID) -> None:
    before, after = NOW - timedelta(minutes=5), NOW + timedelta(hours=5)
    older = _run(deployment, before)
    kept = [
        _run(deployment, before, running=True),
        _run(deployment, before, image="registry.example.com/team/other"),
        _run(deployment, before, ref="release"),
        _run(deployment, before, tags=["{ref}"]),
        _run(deployment, after),
    ]
    mine = _run(deployment, NOW, running=True)
    assert cancel_older(IMAGE, mine) == (older,)
    assert _state(older) == "CANCELLED"
    assert {_state(run) for run in kept} == {"RUNNING", "SCHEDULED"}


def test_two_spellings_of_one_image_are_one(deployment: UUID) -> None:
    older = _run(deployment, NOW - timedelta(minutes=1), image="app")
    mine = _run(deployment, NOW, running=True, image="docker.io/library/app")
    assert cancel_older(ImageReference.parse("app"), mine) == (older,)


def test_a_waiting_run_whose_image_is_not_a_reference_stops_no_other(deployment: UUID) -> None:
    wrong = _run(deployment, NOW - timedelta(minutes=2), image="Not A Reference")
    older = _run(deployment, NOW - timedelta(minutes=1))
    mine = _run(deployment, NOW, running=True)
    assert cancel_older(IMAGE, mine) == (older,)
    assert _state(wrong) == "SCHEDULED"


def test_a_run_without_a_deployment_supersedes_nothing() -> None:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(publication, parameters=GIVEN)
    assert cancel_older(IMAGE, run.id) == ()
