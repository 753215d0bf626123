"""The outcome goes back to the forge: each change once, with a token that goes nowhere else."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import HttpUrl

from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.webhook.forge import Forge
from soci_pipeline.webhook.metrics import Metrics
from soci_pipeline.webhook.outbox import Outbox, StatusTarget
from soci_pipeline.webhook.outcomes import OutcomeWatcher
from soci_pipeline.webhook.rules import PlannedRun
from soci_pipeline.webhook.secret_values import SecretSource
from soci_pipeline.webhook.sources.github import GitHubSource
from soci_pipeline.webhook.sources.gitlab import GitLabSource
from soci_pipeline.webhook.sources.source import StatusSettings
from tests.support.webhook import COMMIT, FakePrefect, Recorded, fake_prefect, loopback


class FakeForge:
    """Remembers statuses; can be told to fail."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.faults: list[tuple[int, dict[str, Any]]] = []

    def answer(self, request: Recorded) -> tuple[int, Any]:
        self.requests.append(request)
        return self.faults.pop(0) if self.faults else (201, {"id": 1})


class Rig:
    def __init__(self, folder: Path, prefect: FakePrefect, forge: FakeForge, forge_url: str, stack: ExitStack) -> None:
        self.prefect, self.forge = prefect, forge
        self.now = 1000.0
        self.outbox = stack.enter_context(Outbox(folder / "o.sqlite3", clock=lambda: self.now))
        api = stack.enter_context(PrefectApi(prefect.url, deadline_s=0))
        key = (SecretSource(env="WEBHOOK_SECRET"),)
        status = StatusSettings(token=SecretSource(env="FORGE_TOKEN"), api_url=HttpUrl(forge_url))
        github = GitHubSource(kind="github", name="github", secrets=key, status=status)
        gitlab = GitLabSource(kind="gitlab", name="gitlab", tokens=key, status=status)
        forges = {each.name: stack.enter_context(Forge(each, status)) for each in (github, gitlab)}
        self.metrics = Metrics()
        self.watcher = OutcomeWatcher(
            self.outbox, api, self.metrics, forges=forges, every_s=1, ui_url="http://prefect.example/"
        )

    def dispatched(self, source: str = "github", project: str = "team/shop", *, number: int = 0) -> str:
        planned = PlannedRun("shop", "publish-image/publish", {}, None)
        stored = self.outbox.store(
            f"{source} {number}".encode().ljust(32), source, "x", [planned], target=StatusTarget(project, COMMIT)
        )
        run = self.outbox.claim()
        assert run is not None
        self.prefect.runs[run.key] = {
            "id": f"00000000-0000-0000-0000-{len(self.prefect.runs):012}",
            "state_type": "SCHEDULED",
        }
        self.outbox.dispatched(run, self.prefect.runs[run.key]["id"])
        return stored.keys[0]

    def becomes(self, key: str, state: str) -> None:
        self.prefect.runs[key]["state_type"] = state
        self.watcher.step()

    @property
    def states(self) -> list[str]:
        return [each.body["state"] for each in self.forge.requests]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setenv("FORGE_TOKEN", "forge-token")
    monkeypatch.setenv("WEBHOOK_SECRET", "x" * 32)
    forge = FakeForge()
    with ExitStack() as stack:
        prefect = stack.enter_context(fake_prefect())
        url = stack.enter_context(loopback(forge.answer))
        yield Rig(tmp_path, prefect, forge, url, stack)


def test_github_is_told_each_change_once_with_a_link(rig: Rig) -> None:
    key = rig.dispatched()
    for state in ("SCHEDULED", "RUNNING", "RUNNING", "COMPLETED", "COMPLETED"):
        rig.becomes(key, state)
    assert rig.states == ["pending", "pending", "success"]
    last = rig.forge.requests[-1]
    assert last.path == f"/repos/team/shop/statuses/{COMMIT}"
    assert last.headers["authorization"] == "Bearer forge-token"
    assert last.body["context"] == "soci-pipeline/shop"
    assert last.body["target_url"].startswith("http://prefect.example/runs/flow-run/0000")
    assert rig.metrics.value("soci_webhook_outcomes_total", rule="shop", outcome="COMPLETED") == 1


def test_gitlab_is_told_by_the_projects_id(rig: Rig) -> None:
    key = rig.dispatched("gitlab", "15")
    rig.becomes(key, "FAILED")
    assert rig.forge.requests[0].path == f"/projects/15/statuses/{COMMIT}"
    assert rig.forge.requests[0].headers["private-token"] == "forge-token"
    assert rig.states == ["failed"]


@pytest.mark.parametrize(
    ("state", "expected"), [("FAILED", "failure"), ("CRASHED", "error"), ("CANCELLED", "error"), ("NEW_WORD", "error")]
)
def test_every_way_to_end_is_said(rig: Rig, state: str, expected: str) -> None:
    rig.becomes(rig.dispatched(), state)
    assert rig.states == [expected]


def test_a_run_that_was_deleted_is_an_error_and_not_asked_for_again(rig: Rig) -> None:
    key = rig.dispatched()
    del rig.prefect.runs[key]
    rig.watcher.step()
    assert rig.states == ["error"]
    rig.watcher.step()
    assert len(rig.prefect.requests) == 1


def test_a_forge_that_is_down_is_told_later_and_one_that_refuses_is_left_alone(rig: Rig) -> None:
    key = rig.dispatched()
    rig.forge.faults = [(502, {}), (422, {"message": "No commit found"})]
    rig.becomes(key, "COMPLETED")
    rig.watcher.step()
    assert len(rig.forge.requests) == 1
    rig.now += 10
    rig.watcher.step()
    rig.now += 1000
    rig.watcher.step()
    assert len(rig.forge.requests) == 2
    assert rig.metrics.value("soci_webhook_reports_total", source="github", result="failed") == 2


def test_gitlab_that_has_the_status_already_is_content(rig: Rig) -> None:
    rig.forge.faults = [(400, {"message": "Cannot transition status via :run from :running"})]
    rig.becomes(rig.dispatched("gitlab", "15"), "RUNNING")
    assert rig.outbox.to_report() == []


def test_a_token_that_is_gone_loses_no_outcome(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORGE_TOKEN")
    key = rig.dispatched()
    rig.becomes(key, "COMPLETED")
    run = rig.outbox.run(key)
    assert run is not None
    assert (run.outcome, run.reported) == ("COMPLETED", None)
    monkeypatch.setenv("FORGE_TOKEN", "forge-token")
    rig.now += 10
    rig.watcher.step()
    assert rig.states == ["success"]
    assert rig.outbox.to_report() == []


def test_a_token_that_stays_gone_is_given_up_in_the_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORGE_TOKEN")
    rig.becomes(rig.dispatched(), "COMPLETED")
    for _ in range(20):
        rig.now += 1000
        rig.watcher.step()
    assert rig.outbox.to_report() == []
    assert rig.metrics.value("soci_webhook_reports_total", source="github", result="failed") == 13


def test_a_run_behind_many_that_do_not_end_is_asked_for_as_well(rig: Rig) -> None:
    for number in range(200):
        rig.dispatched("queue", number=number)
    last = rig.dispatched()
    rig.prefect.runs[last]["state_type"] = "COMPLETED"
    for _ in range(6):
        rig.watcher.step()
    assert rig.states == ["success"]
    asked = [each.body["flow_runs"]["id"]["any_"] for each in rig.prefect.requests]
    # Once that one has ended, the others are asked for in every round.
    assert [len(each) for each in asked] == [200, 1, 200, 200, 200, 200]


def test_prefect_being_down_changes_nothing(rig: Rig) -> None:
    rig.dispatched()
    rig.prefect.faults = [(503, "database is locked")]
    assert rig.watcher.step() == 1
    assert rig.outbox.unfinished()


def test_a_newer_outcome_has_all_its_tries(rig: Rig) -> None:
    key = rig.dispatched()
    rig.forge.faults = [(502, {})] * 14
    rig.becomes(key, "RUNNING")
    for _ in range(8):
        rig.now += 1000
        rig.watcher.step()
    rig.now += 1000
    rig.becomes(key, "COMPLETED")
    for _ in range(8):
        rig.now += 1000
        rig.watcher.step()
    assert rig.states[-1] == "success"
    assert len(rig.forge.requests) == 15
    assert rig.outbox.to_report() == []


@pytest.mark.parametrize("state", ["CRASHED", "FAILED", "CANCELLED", "COMPLETED"])
def test_an_outcome_that_changes_after_a_final_state_is_reported_again(rig: Rig, state: str) -> None:
    key = rig.dispatched()
    rig.becomes(key, state)
    rig.now += 3600
    rig.becomes(key, "RUNNING")
    last = "FAILED" if state == "COMPLETED" else "COMPLETED"
    rig.becomes(key, last)
    rig.watcher.step()
    words = {"CRASHED": "error", "FAILED": "failure", "CANCELLED": "error", "COMPLETED": "success"}
    assert rig.states == [words[state], "pending", words[last]]


def test_a_crashed_run_that_was_alive_is_reported_as_published_behind_many_that_do_not_end(rig: Rig) -> None:
    key = rig.dispatched()
    rig.becomes(key, "CRASHED")
    for number in range(200):
        rig.dispatched("queue", number=number)
    rig.prefect.runs[key]["state_type"] = "COMPLETED"
    for _ in range(12):
        rig.watcher.step()
    assert rig.states == ["error", "success"]


def test_a_run_that_ended_a_week_ago_is_no_longer_polled(rig: Rig) -> None:
    rig.becomes(rig.dispatched(), "CRASHED")
    rig.now += 7 * 24 * 3600 + 1
    polled = len(rig.prefect.requests)
    rig.watcher.step()
    assert len(rig.prefect.requests) == polled


def test_many_runs_that_ended_are_polled_a_few_at_a_time_and_each_in_its_turn(rig: Rig) -> None:
    keys = [rig.dispatched("queue", number=number) for number in range(120)]
    for key in keys:
        rig.prefect.runs[key]["state_type"] = "CRASHED"
    rig.watcher.step()
    rig.prefect.requests.clear()
    for _ in range(3):
        rig.watcher.step()
    polled = [each.body["flow_runs"]["id"]["any_"] for each in rig.prefect.requests]
    assert [len(each) for each in polled] == [50, 50, 20]
    assert len({run for each in polled for run in each}) == 120
