"""A publication that is retried in Prefect: failed branches start anew, the others are taken over."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import State
from prefect.flow_engine import run_flow
from prefect.runtime import flow_run
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running, Scheduled

from soci_pipeline.errors import BranchFailed
from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.settings import PublishSettings
from tasks.branches import Started, start, wait
from tasks.workers import Watch

LOONG, PPC = Platform("linux", "loong64"), Platform("linux", "ppc64le")
SETTINGS = PublishSettings(poll=0.01, start_timeout=600, deadline=3600)
COMMIT, NEWER = "1" * 40, "2" * 40


def _deployment(name: str, flow_name: str) -> UUID:
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name(flow_name)
        return client.create_deployment(flow_id=flow_id, name=name, enforce_parameter_schema=False)


@pytest.fixture(scope="module", autouse=True)
def branches() -> Iterator[None]:
    """What would build for the two platforms; no worker takes their runs."""
    made = [_deployment(platform.slug, "build-platform") for platform in (LOONG, PPC)]
    yield
    with get_client(sync_client=True) as client:
        for deployment in made:
            client.delete_deployment(deployment)


@dataclass
class Publication:
    """A publication of two platforms; ``states`` are set by force on the branches that an attempt waits for."""

    run: UUID
    commit: str = COMMIT
    states: dict[Platform, State[Any]] = field(default_factory=dict)
    attempts: list[dict[Platform, UUID]] = field(default_factory=list)

    def attempt(self, **states: State[Any]) -> State[Any]:
        """Run it as a worker does, with these states for the branches."""
        self.states = {Platform("linux", name): state for name, state in states.items()}

        @flow(name="publication")
        def publication() -> None:
            self._publish()

        with get_client(sync_client=True) as client:
            current = client.read_flow_run(self.run)
        ended = run_flow(publication, flow_run=current, return_type="state")
        assert isinstance(ended, State)
        return ended

    def retry(self, state: State[Any] | None = None, *, force: bool = False) -> None:
        """What the button of Prefect's UI does."""
        with get_client(sync_client=True) as client:
            answer = client.set_flow_run_state(self.run, state or AwaitingRetry(), force=force)
        assert answer.status.value == "ACCEPT"

    def _publish(self) -> None:
        parent = str(flow_run.get_id())
        assert parent == str(self.run)
        request = PublishRequest.check(
            {"image": "registry.example.com/team/app", "source": "https://git.example.com/app.git"}
            | {"platforms": ["linux/loong64", "linux/ppc64le"]}
        )
        commit = ResolvedSource(
            url="https://git.example.com/app.git", ref="refs/heads/main", commit=self.commit, commit_time=1
        )

        def begin(platform: Platform) -> Started:
            started = start(request.branch(platform, commit), parent=parent, flows_version="r")
            self._set(started)
            return started

        started = [begin(platform) for platform in (LOONG, PPC)]
        self.attempts.append({branch.platform: branch.run_id for branch in started})
        wait(started, SETTINGS, Watch({}, 60), again=begin, deadline=float("inf"))

    def _set(self, branch: Started) -> None:
        if (state := self.states.get(branch.platform)) is not None:
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(branch.run_id, state, force=True)


@pytest.fixture
def publication() -> Publication:
    deployment = _deployment(uuid4().hex, "publication")
    with get_client(sync_client=True) as client:
        return Publication(client.create_flow_run_from_deployment(deployment).id)


def _state(run: UUID) -> str:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
    assert state is not None
    return state.type.value


def _children(parent: UUID) -> int:
    with get_client(sync_client=True) as client:
        of = FlowRunFilterParentFlowRunId(any_=[parent])
        return len(client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=of)))


@pytest.mark.parametrize(
    ("retried", "force"), [(AwaitingRetry(), False), (AwaitingRetry(), True), (Scheduled(), True)], ids=str
)
def test_a_retry_starts_the_failed_branch_anew_and_takes_over_the_completed_one(
    publication: Publication, retried: State[Any], *, force: bool
) -> None:
    ended = publication.attempt(loong64=Completed(), ppc64le=Failed(message="DiskFull: no space left"))
    assert ended.is_failed()
    publication.retry(retried, force=force)
    ended = publication.attempt(ppc64le=Completed())
    assert ended.is_completed(), ended.message
    first, second = publication.attempts
    assert first[LOONG] == second[LOONG]
    assert first[PPC] != second[PPC]
    assert _children(publication.run) == 3


@pytest.mark.parametrize(
    "state",
    [Failed(message="x"), Crashed(message="x"), Cancelled(message="x"), Failed(message="x", name="TimedOut")],
    ids=lambda state: str(state.name),
)
def test_however_a_branch_ended_badly_each_retry_starts_another_one(
    publication: Publication, state: State[Any]
) -> None:
    for _ in range(3):
        assert publication.attempt(loong64=Completed(), ppc64le=state).is_failed()
        publication.retry()
    assert publication.attempt(ppc64le=Completed()).is_completed()
    assert len({attempt[PPC] for attempt in publication.attempts}) == 4
    assert len({attempt[LOONG] for attempt in publication.attempts}) == 1


def test_retries_have_a_limit_that_is_named(publication: Publication, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.branches._MOST_ATTEMPTS", 2)
    for _ in range(2):
        publication.attempt(loong64=Completed(), ppc64le=Failed())
        publication.retry()
    with pytest.raises(BranchFailed, match="was attempt 2, which is the limit"):
        publication.attempt(ppc64le=Failed()).result()


@pytest.mark.parametrize(
    "state",
    [Scheduled(), Pending(), Running(), AwaitingRetry(), Completed()],
    ids=lambda each: str(each.name),
)
def test_a_branch_that_still_works_or_completed_later_is_taken_over(
    publication: Publication, state: State[Any]
) -> None:
    publication.attempt(loong64=Completed(), ppc64le=Failed())
    still = publication.attempts[0][PPC]
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(still, state, force=True)
    publication.retry(force=True)
    assert publication.attempt(ppc64le=Completed()).is_completed()
    assert publication.attempts[1][PPC] == still


def test_a_branch_that_is_being_cancelled_is_not_waited_for(publication: Publication) -> None:
    publication.attempt(loong64=Completed(), ppc64le=Failed())
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(publication.attempts[0][PPC], Cancelling(), force=True)
    publication.retry()
    assert publication.attempt(ppc64le=Completed()).is_completed()
    assert publication.attempts[1][PPC] != publication.attempts[0][PPC]


def test_branches_of_another_commit_are_not_taken_over(publication: Publication) -> None:
    """The branch of the source has moved since: one image must not be joined from two commits."""
    publication.attempt(loong64=Completed(), ppc64le=Failed())
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(publication.attempts[0][PPC], Running(), force=True)
    publication.commit = NEWER
    publication.retry()
    assert publication.attempt(loong64=Completed(), ppc64le=Completed()).is_completed()
    first, second = publication.attempts
    assert set(first.values()).isdisjoint(second.values())
    assert _state(first[PPC]) == "CANCELLING"
    assert _state(first[LOONG]) == "COMPLETED"


def test_a_branch_whose_run_was_deleted_is_started_anew(publication: Publication) -> None:
    publication.attempt(loong64=Completed(), ppc64le=Failed())
    publication.retry()
    publication.attempt(ppc64le=Failed())
    with get_client(sync_client=True) as client:
        client.delete_flow_run(publication.attempts[0][PPC])
    publication.retry()
    assert publication.attempt(ppc64le=Completed()).is_completed()
    assert len({attempt[PPC] for attempt in publication.attempts}) == 3


def test_two_publications_share_no_branch(publication: Publication) -> None:
    publication.attempt(loong64=Completed(), ppc64le=Completed())
    deployment = _deployment(uuid4().hex, "publication")
    with get_client(sync_client=True) as client:
        other = Publication(client.create_flow_run_from_deployment(deployment).id)
    other.attempt(loong64=Completed(), ppc64le=Completed())
    assert set(publication.attempts[0].values()).isdisjoint(other.attempts[0].values())
