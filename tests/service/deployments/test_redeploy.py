"""The build step of the deployments: what it writes back to a real server, and what it says where it cannot."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentScheduleUpdate, DeploymentUpdate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from deployments import redeploy
from local_stack.ports import free_port
from local_stack.prefect_server import PrefectServer

DAILY = CronSchedule(cron="0 4 * * 1", timezone="Europe/Berlin", day_or=False)
HOURLY = IntervalSchedule(interval=timedelta(hours=1), timezone="UTC")
RULE = RRuleSchedule(rrule="FREQ=WEEKLY;BYDAY=TU", timezone="UTC")


@flow(name="deployed-again")
def deployed() -> None:
    """Never run: only its deployments matter."""


@pytest.fixture
def name(prefect: PrefectServer) -> Iterator[str]:
    """A deployment with three schedules, one of which is on."""
    own = f"kept-{uuid4().hex[:8]}"
    schedules = [
        DeploymentScheduleCreate(schedule=DAILY, active=True, parameters={"x": 1}),
        DeploymentScheduleCreate(schedule=HOURLY, active=False, slug="hourly"),
        DeploymentScheduleCreate(schedule=RULE, active=False),
    ]
    with get_client(sync_client=True) as client:
        made = client.create_deployment(
            client.create_flow(deployed),
            own,
            parameters={"image": "a", "tags": ["t"]},
            schedules=schedules,
            enforce_parameter_schema=False,
        )
        yield f"deployed-again/{own}"
        redeploy._PENDING.clear()
        client.delete_deployment(made)


def _id(name: str) -> UUID:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(name).id


def _deploy_again(name: str, parameters: dict[str, Any]) -> None:
    """As Prefect does it: with what the file says."""
    schedule = DeploymentScheduleUpdate(schedule=CronSchedule(cron="17 3 * * *"), active=False)
    with get_client(sync_client=True) as client:
        client.update_deployment(_id(name), DeploymentUpdate(parameters=parameters, schedules=[schedule]))


def _state(name: str) -> tuple[dict[str, Any], set[tuple[str, bool, str | None, str]]]:
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(name)
    schedules = {
        (each.schedule.model_dump_json(), each.active, each.slug, str(each.parameters)) for each in found.schedules
    }
    return found.parameters, schedules


def test_parameters_and_schedules_of_every_kind_are_written_back(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, schedules = _state(name)
    redeploy.keep(name)
    _deploy_again(name, {"tags": ["declared"], "pull": True})
    # The turn of the next deployment, which is not there yet.
    redeploy.keep("deployed-again/never-made")
    assert _state(name) == ({"image": "a", "tags": ["t"], "pull": True}, schedules)
    printed = capsys.readouterr().out
    assert f"{name}: kept the parameters of the server: image, tags" in printed
    assert f"{name}: kept the schedules of the server" in printed


def test_tags_and_a_limit_are_kept_and_a_description_is_not_lost_without_a_word(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    mine = DeploymentUpdate(
        tags=["soci-pipeline", "web"], description="Ask the web team", concurrency_limit=3, concurrency_options=options
    )
    declared = DeploymentUpdate(tags=["soci-pipeline", "new"], description="Of the file", concurrency_limit=None)
    with get_client(sync_client=True) as client:
        client.update_deployment(_id(name), mine)
        redeploy.keep(name)
        client.update_deployment(_id(name), declared)
        redeploy._restore_pending()
        found = client.read_deployment_by_name(name)
    assert found.tags == ["soci-pipeline", "new", "web"]
    assert found.global_concurrency_limit is not None
    assert (found.global_concurrency_limit.limit, found.concurrency_options) == (3, options)
    printed = capsys.readouterr().out
    assert f"{name}: kept the tags of the server: web" in printed
    assert f"{name}: kept the concurrency limit of the server: 3" in printed
    assert f"{name}: replaced the description of the server, which was: Ask the web team" in printed


def test_a_limit_that_only_the_file_has_counts(name: str) -> None:
    redeploy.keep(name)
    with get_client(sync_client=True) as client:
        client.update_deployment(_id(name), DeploymentUpdate(concurrency_limit=1))
        redeploy._restore_pending()
        found = client.read_deployment_by_name(name)
    assert found.global_concurrency_limit is not None
    assert found.global_concurrency_limit.limit == 1


def test_what_has_not_changed_is_neither_written_nor_mentioned(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = _state(name)
    redeploy.keep(name)
    redeploy._restore_pending()
    assert _state(name) == before
    assert capsys.readouterr().out == ""


def test_a_server_that_is_gone_by_then_leaves_a_message_with_all_that_was_set(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = {PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    redeploy.keep(name)
    (kept,) = redeploy._PENDING
    with temporary_settings(updates=gone):
        lost = redeploy._Kept(name, kept.before, get_client(sync_client=True))
        assert not redeploy._restored(lost)
    said = capsys.readouterr().err
    assert f"{name}: what was set on the server could not be written back" in said
    assert "'image': 'a'" in said
    assert "0 4 * * 1" in said
    assert "next: set these again" in said


def test_a_renamed_deployment_starts_with_what_was_set_under_its_old_name(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, schedules = _state(name)
    new = f"{name}-renamed"
    monkeypatch.setattr(redeploy, "RENAMED", {name: new})
    redeploy.keep(new)
    with get_client(sync_client=True) as client:
        made = client.create_deployment(
            client.create_flow(deployed),
            new.partition("/")[2],
            parameters={"pull": True},
            enforce_parameter_schema=False,
        )
        try:
            redeploy._restore_pending()
            assert _state(new) == ({"image": "a", "tags": ["t"], "pull": True}, schedules)
            assert not any(each.active for each in client.read_deployment_by_name(name).schedules)
            assert f"{name}: switched its schedules off; {new} has them now" in capsys.readouterr().out
            # From then on the new one counts, whatever becomes of the old one.
            redeploy.keep(new)
            assert [each.renamed_from for each in redeploy._PENDING] == [None]
        finally:
            client.delete_deployment(made)
