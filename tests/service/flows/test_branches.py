"""Waiting for branches: each way in which one can end, or never begin, in the states of a real server."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Crashed, Failed, Pending, Running, Scheduled

from soci_pipeline.errors import BranchFailed, ExitCode, InvalidInput, NoWorker
from soci_pipeline.oci.platform import Platform
from soci_pipeline.prefect_rest.errors import PrefectRefused
from soci_pipeline.settings import PublishSettings
from tasks.branches import Started, cancel, wait
from tasks.workers import Watch, pools_of, wait_for_workers
from tests.support.switch import Switch
from tests.support.webhook import loopback

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
SETTINGS = PublishSettings(poll=0.01, start_timeout=600, deadline=3600)


@flow(name="stands-for-a-branch")
def branch() -> None:
    """Never run: only its runs' states matter."""


@dataclass
class Pool:
    name: str

    def worker(self) -> None:
        """A worker polls, as far as the server can tell."""
        with get_client(sync_client=True) as client:
            client.send_worker_heartbeat(self.name, "worker", heartbeat_interval_seconds=30)

    def pause(self) -> None:
        with get_client(sync_client=True) as client:
            client.update_work_pool(self.name, WorkPoolUpdate(is_paused=True))


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(f"pool-{uuid4().hex[:12]}")
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=made.name, type="process"))
        yield made
        client.delete_work_pool(made.name)


def _run(platform: Platform, state: State[Any]) -> Started:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(branch, state=Scheduled())
        client.set_flow_run_state(run.id, state, force=True)
    return Started(platform, run.id)


def _state(started: Started) -> str:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(started.run_id).state
    assert state is not None
    return state.type.value


def _wait(
    *started: Started,
    pool: Pool,
    timeout: float = 60,
    deadline: float = 3600,
    at: Callable[[float], object] = lambda second: None,
    again: Callable[[Platform], Started] | None = None,
) -> tuple[Started, ...]:
    """Wait by a clock on which ten seconds pass with every look at it; ``at`` is told each of them.

    What crashed is started again by ``again``, and stays crashed where that is not given.
    """
    seconds = itertools.count(0.0, 10.0)

    def clock() -> float:
        second = next(seconds)
        at(second)
        return second

    watch = Watch(dict.fromkeys((AMD64, ARM64), pool.name), timeout, clock=clock)
    lost = again or (lambda platform: _run(platform, Crashed(message="the machine was lost")))
    return wait(started, SETTINGS, watch, again=lost, deadline=deadline, clock=clock)


@contextmanager
def _server_away() -> Iterator[Switch]:
    """Within the block the server does not answer until the switch is on."""
    url = urlsplit(PREFECT_API_URL.value() or "")
    with Switch(int(url.port or 0)) as switch:
        there = url._replace(netloc=f"127.0.0.1:{switch.port}").geturl()
        with temporary_settings(updates={PREFECT_API_URL: there}):
            yield switch


def test_branches_that_have_completed_are_enough(pool: Pool) -> None:
    started = (_run(AMD64, Completed()), _run(ARM64, Completed()))
    assert _wait(*started, pool=pool) == started


def test_every_branch_that_failed_is_named_with_its_own_words(pool: Pool) -> None:
    lines = "BuildFailed: the build of linux/arm64 failed\n  #7 ERROR: exit code: 3\n  next: Read the log"
    with pytest.raises(BranchFailed) as caught:
        _wait(
            _run(AMD64, Failed(message="DiskFull: no space left")),
            _run(ARM64, Failed(message=f"Flow run encountered an exception: {lines}")),
            pool=pool,
        )
    assert caught.value.exit_code == ExitCode.BRANCH_FAILED
    assert f"linux/amd64: DiskFull: no space left\nlinux/arm64: {lines}" in caught.value.reason


def test_a_branch_that_ended_in_another_way_than_by_an_error_says_in_which(pool: Pool) -> None:
    with pytest.raises(BranchFailed) as caught:
        _wait(_run(AMD64, Crashed(message="the machine was lost")), pool=pool)
    assert caught.value.reason.splitlines() == [
        "linux/amd64: Crashed: the machine was lost",
        "  It had already been restarted once, after: Crashed: the machine was lost",
        "Nothing was published.",
    ]


def test_a_branch_that_crashed_is_started_once_more_and_the_second_run_counts(pool: Pool) -> None:
    kept, second = _run(ARM64, Completed()), _run(AMD64, Completed())
    asked: list[Platform] = []

    def again(platform: Platform) -> Started:
        asked.append(platform)
        return second

    assert _wait(_run(AMD64, Crashed()), kept, pool=pool, again=again) == (second, kept)
    assert asked == [AMD64]


def test_a_branch_that_failed_is_not_started_once_more(pool: Pool) -> None:
    def again(platform: Platform) -> Started:
        raise AssertionError(f"{platform} was started again")

    with pytest.raises(BranchFailed, match="linux/amd64: broken"):
        _wait(_run(AMD64, Failed(message="broken")), pool=pool, again=again)


def test_a_second_run_that_fails_says_why_there_was_one(pool: Pool) -> None:
    with pytest.raises(BranchFailed) as caught:
        _wait(
            _run(AMD64, Crashed(message="no heartbeat")),
            pool=pool,
            again=lambda platform: _run(platform, Failed(message="DiskFull: no space left")),
        )
    assert caught.value.reason.splitlines() == [
        "linux/amd64: DiskFull: no space left",
        "  It had already been restarted once, after: Crashed: no heartbeat",
        "Nothing was published.",
    ]


def test_a_server_that_is_away_when_a_branch_is_started_once_more_starts_it_once(pool: Pool) -> None:
    second = _run(AMD64, Completed())
    tries: list[Platform] = []

    def again(platform: Platform) -> Started:
        tries.append(platform)
        if len(tries) == 1:
            raise httpx.ConnectError("away")
        return second

    assert _wait(_run(AMD64, Crashed()), pool=pool, again=again) == (second,)
    assert len(tries) == 2


def test_all_branches_are_waited_for_where_one_has_failed(pool: Pool) -> None:
    pool.worker()
    slow = _run(ARM64, Running())
    with pytest.raises(BranchFailed, match=r"linux/amd64: broken(?s:.*)linux/arm64: it did not finish within"):
        _wait(_run(AMD64, Failed(message="broken")), slow, pool=pool, deadline=300)
    assert _state(slow) == "CANCELLING"


def test_a_branch_that_nobody_takes_fails_when_patience_is_at_its_end(pool: Pool) -> None:
    waiting = _run(AMD64, Scheduled())
    start = rf"\. Start one with `prefect worker start --pool {pool.name}`"
    with pytest.raises(BranchFailed, match=f"linux/amd64: NoWorker: no worker polls the work pool {pool.name}{start}"):
        _wait(waiting, pool=pool)
    assert _state(waiting) == "CANCELLED"


def test_a_branch_whose_worker_is_gone_before_it_began_does_not_wait_for_its_start(pool: Pool) -> None:
    taken = _run(AMD64, Pending())
    with pytest.raises(
        BranchFailed, match=r"linux/amd64: NoWorker: no worker polls .* the one that accepted it is gone"
    ):
        _wait(taken, pool=pool, timeout=3000)
    assert _state(taken) == "CANCELLING"


def test_a_branch_that_a_living_worker_does_not_begin_fails_in_the_end(pool: Pool) -> None:
    pool.worker()
    with pytest.raises(BranchFailed, match="linux/amd64: a worker accepted it but did not start it within 600 s"):
        _wait(_run(AMD64, Pending()), pool=pool)


def test_cancelling_a_run_that_was_deleted_is_done_already() -> None:
    with get_client(sync_client=True) as client:
        cancel(client, uuid4(), "nobody needs it any more")


def test_a_branch_that_was_deleted_is_a_failure(pool: Pool) -> None:
    started = _run(AMD64, Running())
    with get_client(sync_client=True) as client:
        client.delete_flow_run(started.run_id)
    with pytest.raises(BranchFailed, match="linux/amd64: its flow run was deleted"):
        _wait(started, pool=pool)


def test_a_server_that_is_away_for_some_minutes_loses_no_branch(pool: Pool) -> None:
    done = _run(AMD64, Completed())
    asked = []

    def at(second: float) -> None:
        asked.append(second)
        if second == 200:
            switch.on()

    with _server_away() as switch:
        _wait(done, pool=pool, at=at)
    assert max(asked) > 200


def test_a_server_that_stays_away_ends_the_wait(pool: Pool) -> None:
    started = _run(AMD64, Completed())
    asked: list[float] = []
    with _server_away(), pytest.raises(httpx.ConnectError):
        _wait(started, pool=pool, at=asked.append)
    assert 300 < max(asked) < 400


def test_a_server_that_refuses_the_credentials_ends_the_wait_at_once(pool: Pool) -> None:
    started = _run(AMD64, Completed())
    asked: list[float] = []
    with (
        loopback(lambda _: (403, {"detail": "Forbidden"})) as url,
        temporary_settings(updates={PREFECT_API_URL: url}),
        pytest.raises(PrefectRefused, match="Prefect answered 403") as caught,
    ):
        _wait(started, pool=pool, at=asked.append)
    assert max(asked) < 100
    assert "permission to create and read runs" in (caught.value.advice or "")


def test_a_pool_without_a_worker_is_named_with_its_platform_and_what_to_do(pool: Pool) -> None:
    with pytest.raises(NoWorker) as caught:
        wait_for_workers({ARM64: pool.name}, 0.2)
    assert (
        caught.value.reason
        == f"linux/arm64: no worker polls the work pool {pool.name}, and none came online within 0.2 s"
    )
    assert f"prefect worker start --pool {pool.name}" in (caught.value.advice or "")
    pool.worker()
    wait_for_workers({ARM64: pool.name}, 0)
    pool.pause()
    with pytest.raises(NoWorker, match="is paused") as caught:
        wait_for_workers({ARM64: pool.name}, 0)
    assert f"prefect work-pool resume {pool.name}" in str(caught.value.advice)


def test_a_pool_or_deployment_that_does_not_exist_is_named() -> None:
    with pytest.raises(NoWorker, match="linux/arm64: missing work pool: never-made"):
        wait_for_workers({ARM64: "never-made"}, 0)
    with pytest.raises(InvalidInput, match="the deployment build-platform/linux-s390x does not exist"):
        pools_of({Platform("linux", "s390x"): "build-platform/linux-s390x"})
