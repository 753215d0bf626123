"""Handing runs to Prefect: once, whatever Prefect answers and however often it is asked."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import HttpUrl

from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectRefused, PrefectUnavailable
from soci_pipeline.webhook.configuration import PrefectSettings
from soci_pipeline.webhook.dispatch import Dispatcher
from soci_pipeline.webhook.errors import OutboxUnavailable
from soci_pipeline.webhook.metrics import Metrics
from soci_pipeline.webhook.outbox import DispatchState, Outbox
from soci_pipeline.webhook.rules import PlannedRun
from soci_pipeline.webhook.secret_values import SecretSource
from tests.support.webhook import FakePrefect, fake_prefect


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """An outbox with runs, a fake Prefect and the dispatcher between them."""

    def __init__(self, folder: Path, prefect: FakePrefect) -> None:
        self.clock = Clock()
        self.prefect = prefect
        self.outbox = Outbox(folder / "events.sqlite3", clock=self.clock)
        self.api = PrefectApi(prefect.url, timeout_s=2, deadline_s=0)
        self.metrics = Metrics()
        self.dispatcher = Dispatcher(self.outbox, self.api, self.metrics, give_up_after_s=3600, clock=self.clock)

    def store(self, number: int = 1, deployment: str = "publish-image/publish", subject: str | None = None) -> str:
        run = PlannedRun("shop", deployment, {"image": "r.example/a"}, subject)
        return self.outbox.store(number.to_bytes(32, "big"), "github", "x", [run]).keys[0]

    def state(self, key: str) -> DispatchState:
        run = self.outbox.run(key)
        assert run is not None
        return run.state

    def step(self) -> float:
        """One step, and the clock moved to the next one."""
        wait = self.dispatcher.step()
        self.clock.now += wait
        return wait


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with fake_prefect() as prefect:
        made = Rig(tmp_path, prefect)
        yield made
        made.outbox.close()
        made.api.close()


def test_a_run_is_made_with_its_parameters_key_and_tags(rig: Rig) -> None:
    key = rig.store()
    rig.step()
    made = rig.prefect.runs[key]
    assert made["parameters"] == {"image": "r.example/a"}
    assert made["tags"] == ["webhook:github", "rule:shop"]
    assert made["name"].startswith("a from no source #")
    run = rig.outbox.run(key)
    assert run is not None
    assert (run.state, run.flow_run_id) == (DispatchState.DISPATCHED, made["id"])


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
def test_a_database_that_is_locked_is_tried_again_until_it_is_not(rig: Rig, status: int) -> None:
    key = rig.store()
    rig.prefect.faults = [(status, "database is locked")] * 5
    waits = [rig.step() for _ in range(6)]
    assert rig.state(key) is DispatchState.DISPATCHED
    assert len(rig.prefect.runs) == 1
    assert 0 < waits[0] < waits[4] <= 60


def test_an_answer_that_gets_lost_makes_no_second_run(rig: Rig) -> None:
    key = rig.store()
    rig.prefect.lose_answers = 2
    for _ in range(3):
        rig.step()
    assert rig.state(key) is DispatchState.DISPATCHED
    assert len(rig.prefect.runs) == 1
    assert sum(each.path.endswith("create_flow_run") for each in rig.prefect.requests) == 3


def test_a_dispatcher_that_dies_after_handing_over_makes_no_second_run(rig: Rig) -> None:
    key = rig.store()
    claimed = rig.outbox.claim()
    assert claimed is not None
    rig.api.create_run(claimed.deployment, claimed.parameters, key=claimed.key)
    rig.outbox.reclaim()
    rig.step()
    assert rig.state(key) is DispatchState.DISPATCHED
    assert len(rig.prefect.runs) == 1


def test_while_prefect_is_down_one_run_is_tried_and_all_are_dispatched_when_it_is_back(tmp_path: Path) -> None:
    with fake_prefect() as gone:
        port = int(gone.url.split(":")[2].split("/")[0])
    rig = Rig(tmp_path, gone)
    keys = [rig.store(number) for number in range(3)]
    for _ in range(4):
        rig.step()
    assert {rig.state(key) for key in keys} == {DispatchState.PENDING}
    with fake_prefect(port=port) as back:
        for _ in range(8):
            rig.step()
        assert set(back.runs) == set(keys)
    assert {rig.state(key) for key in keys} == {DispatchState.DISPATCHED}
    rig.outbox.close()
    rig.api.close()


def test_a_missing_deployment_is_tried_again_more_slowly_and_holds_up_no_other(rig: Rig) -> None:
    missing = rig.store(1, "index-image/later")
    other = rig.store(2)
    rig.step()
    assert (rig.state(missing), rig.state(other)) == (DispatchState.PENDING, DispatchState.DISPATCHED)
    rig.prefect.deployments.add("index-image/later")
    rig.clock.now += 300
    rig.step()
    assert rig.state(missing) is DispatchState.DISPATCHED


@pytest.mark.parametrize("status", [400, 409, 422])
def test_parameters_that_prefect_refuses_are_not_tried_again(rig: Rig, status: int) -> None:
    key = rig.store()
    rig.prefect.faults = [(status, "Error creating flow run: Validation failed")]
    rig.step()
    run = rig.outbox.run(key)
    assert run is not None
    assert (run.state, run.outcome) == (DispatchState.FAILED, "NOT_STARTED")
    assert "Validation failed" in str(run.error)


def test_a_run_that_is_too_old_is_given_up(rig: Rig) -> None:
    key = rig.store()
    rig.clock.now += 3601
    rig.prefect.faults = [(503, "down")]
    rig.step()
    assert rig.state(key) is DispatchState.FAILED
    assert rig.metrics.value("soci_webhook_dispatches_total", result="failed") == 1


def test_a_newer_push_that_came_while_prefect_was_down_is_the_one_that_runs(rig: Rig) -> None:
    older = rig.store(1, subject="main")
    rig.prefect.faults = [(503, "down")]
    rig.step()
    newer = rig.store(2, subject="main")
    rig.step()
    assert (rig.state(older), rig.state(newer)) == (DispatchState.SUPERSEDED, DispatchState.DISPATCHED)
    assert set(rig.prefect.runs) == {newer}


@pytest.mark.parametrize(("name", "expected"), [("auth_string", "Basic dXNlcjpwYXNz"), ("api_key", "Bearer user:pass")])
def test_the_server_gets_its_credentials_and_errors_do_not(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    monkeypatch.setenv("CREDENTIAL", "user:pass")
    url = HttpUrl(rig.prefect.url)
    secret = SecretSource(env="CREDENTIAL")
    settings = (
        PrefectSettings(api_url=url, api_key=secret)
        if name == "api_key"
        else PrefectSettings(api_url=url, auth_string=secret)
    )
    api = PrefectApi(rig.prefect.url, authorization=settings.authorization, deadline_s=0)
    rig.prefect.faults = [(401, "Unauthorized")]
    with pytest.raises(PrefectRefused) as caught:
        api.create_run("publish-image/publish", {}, key="k")
    api.close()
    assert caught.value.temporary
    assert rig.prefect.requests[-1].headers["authorization"] == expected
    assert "dXNl" not in str(caught.value)
    assert "user:pass" not in str(caught.value)


def test_credentials_that_are_away_for_a_while_lose_no_run(tmp_path: Path, rig: Rig) -> None:
    secret = tmp_path / "key"
    settings = PrefectSettings(api_url=HttpUrl(rig.prefect.url), api_key=SecretSource(file=secret))
    with PrefectApi(rig.prefect.url, authorization=settings.authorization, deadline_s=0) as api:
        rig.dispatcher = Dispatcher(rig.outbox, api, rig.metrics, give_up_after_s=3600, clock=rig.clock)
        key = rig.store()
        rig.step()
        assert rig.state(key) is DispatchState.PENDING
        secret.write_text("a key\nof two lines")
        rig.clock.now += 300
        rig.step()
        assert rig.state(key) is DispatchState.PENDING
        secret.write_text("a key\n")
        rig.clock.now += 300
        rig.step()
    assert rig.state(key) is DispatchState.DISPATCHED
    assert rig.prefect.requests[-1].headers["authorization"] == "Bearer a key"


def test_a_disk_that_is_full_when_prefect_has_answered_makes_no_second_run_and_forgets_none(rig: Rig) -> None:
    key = rig.store()
    connection = rig.outbox._connection
    # The claim fits, and what Prefect answers does not.
    connection.execute(
        "CREATE TEMP TRIGGER full BEFORE UPDATE OF flow_run_id ON runs"
        " BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
    )
    with pytest.raises(OutboxUnavailable):
        rig.step()
    assert rig.state(key) is DispatchState.DISPATCHING
    connection.execute("DROP TRIGGER full")
    rig.step()
    rig.clock.now += 60
    rig.step()
    assert rig.state(key) is DispatchState.DISPATCHED
    assert len(rig.prefect.runs) == 1


def test_something_else_that_listens_there_is_not_taken_for_prefect(rig: Rig) -> None:
    rig.prefect.faults = [(200, "hello")]
    with pytest.raises(PrefectUnavailable, match="no id"):
        rig.api.create_run("publish-image/publish", {}, key="k")


def test_a_name_with_a_slash_cannot_reach_another_path(rig: Rig) -> None:
    with pytest.raises(PrefectRefused):
        rig.api.create_run("publish-image/../../admin", {}, key="k")
    assert rig.prefect.requests[-1].path == "/api/deployments/name/publish-image/..%2F..%2Fadmin"


@pytest.mark.parametrize("status", [401, 402, 403, 405, 407, 410, 421, 451, 501])
def test_a_refusal_is_not_an_outage(rig: Rig, status: int) -> None:
    refused, other = rig.store(1), rig.store(2)
    rig.prefect.faults = [(status, "Forbidden")]
    assert rig.step() == 5.0
    assert (rig.state(refused), rig.state(other)) == (DispatchState.PENDING, DispatchState.DISPATCHED)
    assert rig.metrics.value("soci_webhook_dispatches_total", result="refused") == 1
    assert rig.metrics.value("soci_webhook_dispatches_total", result="unavailable") == 0


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_says_when_to_retry_is_left_alone_until_then(rig: Rig, status: int) -> None:
    key = rig.store()
    rig.prefect.faults = [(status, "busy")]
    rig.prefect.headers = {"Retry-After": "120"}
    assert rig.dispatcher.step() == pytest.approx(120, abs=1)
    asked = len(rig.prefect.requests)
    rig.clock.now += 119
    rig.dispatcher.step()
    assert len(rig.prefect.requests) == asked
    rig.clock.now += 2
    rig.dispatcher.step()
    assert rig.state(key) is DispatchState.DISPATCHED


def test_a_clock_of_the_machine_that_jumps_neither_gives_up_nor_holds_back(
    tmp_path: Path, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    with Outbox(tmp_path / "real.sqlite3") as outbox:
        dispatcher = Dispatcher(outbox, rig.api, rig.metrics, give_up_after_s=3600)
        runs = [PlannedRun("shop", "publish-image/publish", {}, None)]
        (key,) = outbox.store(b"1" * 32, "github", "x", runs).keys
        for jump, faults in ((365 * 86400.0, [(503, "down")]), (-365 * 86400.0, [])):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            rig.prefect.faults = faults
            time.sleep(max(0.0, dispatcher.step()) if faults else 0)
        dispatcher.step()
        run = outbox.run(key)
    assert run is not None
    assert run.state is DispatchState.DISPATCHED
