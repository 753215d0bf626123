"""The branches of a publication: start one deployment run per platform, wait for all, cancel them with it.

`run_deployment` never raises for a failed child, so every state is checked here. A branch's record is an artifact of
its run and is read by run id, since a key would be shared by all runs.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling

from soci_pipeline.errors import BranchFailed
from soci_pipeline.log import logger
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.release import EXPECTED_RELEASE
from soci_pipeline.publish.request import BranchRequest
from soci_pipeline.publish.run_names import abbreviated
from soci_pipeline.settings import PublishSettings
from tasks.clock import Clock
from tasks.failures import BranchesFailed, FailedBranch
from tasks.outage import ERRORS, Outage, retry_during_outage
from tasks.ui_links import run_page
from tasks.workers import Watch, find_missing_requirement

_MOST_ATTEMPTS = 100
_UNFINISHED = [kind for kind in StateType if kind not in TERMINAL_STATES]


def deployment_of(platform: Platform) -> str:
    """Return the deployment that builds for a platform; its work pool has the machines."""
    return f"build-platform/{platform.slug}"


@dataclass(frozen=True, slots=True)
class Started:
    """A branch that was started."""

    platform: Platform
    run_id: UUID


def start(request: BranchRequest, *, parent: str, flows_version: str) -> Started:
    """Start the branch of one platform, or reuse the one that an earlier attempt of the same parent started.

    A branch is reused if it is running or completed for the same request. A branch that failed, crashed or was
    cancelled is started again, and so is one for another commit: a name such as `main` may have moved.
    """
    platform = request.platform
    branch = request.model_dump(mode="json")
    key = f"{parent}-{platform}"
    with get_client(sync_client=True) as client:
        attempts = retry_during_outage(lambda: _attempts(client, key))
        for _, run in sorted(attempts.items(), reverse=True):
            if _is_reusable(run, branch):
                logger().info("%s continues as flow run %s, which was started earlier", platform, run.id)
                return Started(platform, run.id)
            retry_during_outage(
                partial(cancel, client, run.id, "the publication was retried and started another branch")
            )
    number = max(attempts, default=0) + 1
    made = retry_during_outage(
        lambda: run_deployment(
            deployment_of(platform),
            parameters={"branch": branch},
            flow_run_name=f"{platform} {request.image.repository} {abbreviated(request.source.commit)}",
            idempotency_key=_key(key, number),
            job_variables={"env": {EXPECTED_RELEASE: flows_version}},
            tags=[f"platform:{platform}"],
            as_subflow=True,
            timeout=0,
        )
    )
    started = cast("FlowRun", made)  # a coroutine only in async callers
    logger().info("started %s as flow run %s", platform, started.id)
    return Started(platform, started.id)


def _key(key: str, number: int) -> str:
    """Return the idempotency key of an attempt; it prevents a second run if the first response is lost."""
    return key if number == 1 else f"{key}-{number}"


def _attempts(client: SyncPrefectClient, key: str) -> dict[int, FlowRun]:
    """Return the existing runs of a branch by attempt number; deleted ones are missing."""
    numbers = {_key(key, number): number for number in range(1, _MOST_ATTEMPTS + 1)}
    keys = FlowRunFilterIdempotencyKey(any_=list(numbers))
    runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(idempotency_key=keys), limit=_MOST_ATTEMPTS)
    attempts = {numbers[run.idempotency_key]: run for run in runs if run.idempotency_key in numbers}
    if _MOST_ATTEMPTS in attempts:
        raise BranchFailed(
            f"the flow run {attempts[_MOST_ATTEMPTS].name!r} was attempt {_MOST_ATTEMPTS}, which is the limit",
            advice="Start a new publication instead of retrying this one.",
        )
    return attempts


def _is_reusable(run: FlowRun, branch: Mapping[str, Any]) -> bool:
    if run.parameters.get("branch") != branch or run.state is None:
        return False
    return run.state.is_completed() or not (run.state.is_final() or run.state.is_cancelling())


@dataclass
class _Waiting:
    """The state of the branches being waited for.

    ``idle`` are those that no worker has taken yet; ``crashes`` has the reason of each first crash.
    """

    left: dict[UUID, Platform]
    again: Callable[[Platform], Started]
    idle: set[UUID] = field(default_factory=set)
    pending_since: dict[UUID, float] = field(default_factory=dict)
    crashes: dict[Platform, str] = field(default_factory=dict)
    failures: dict[Platform, FailedBranch] = field(default_factory=dict)
    completed: dict[Platform, Started] = field(default_factory=dict)

    def complete(self, run_id: UUID) -> None:
        platform = self.left.pop(run_id)
        self.completed[platform] = Started(platform, run_id)
        logger().info("%s is complete", platform)

    def crash(self, run_id: UUID, reason: str) -> None:
        """Restart a branch after its machine was lost; a second crash is a failure."""
        platform = self.left[run_id]
        if platform in self.crashes:
            self.fail(run_id, reason)
            return
        logger().warning("starting %s once more: %s", platform, reason)
        started = self.again(platform)
        self.crashes[platform] = reason
        del self.left[run_id]
        self.left[started.run_id] = platform

    def fail(self, run_id: UUID, reason: str) -> None:
        platform = self.left.pop(run_id)
        if platform in self.crashes:
            reason = f"{reason}\n  It had already been restarted once, after: {self.crashes[platform]}"
        self.failures.setdefault(platform, FailedBranch(platform, reason, run_id))
        # Only this link: the error that ends the publication contains the reason.
        logger().warning("%s failed; its flow run has the log: %s", platform, run_page(run_id) or run_id)


def wait(
    started: Sequence[Started],
    settings: PublishSettings,
    watch: Watch,
    *,
    again: Callable[[Platform], Started],
    deadline: float,
    clock: Clock = time.monotonic,
) -> tuple[Started, ...]:
    """Return the runs that completed the branches, in the given order; raise `BranchFailed` naming each that failed.

    Returns or raises after all branches have ended. A branch whose run crashed is restarted once by ``again``, since
    another machine may succeed. ``deadline`` is a time of ``clock``. A branch without a worker, one that never starts
    and one past the deadline are cancelled and count as failed. Tolerates an outage of the server for some minutes;
    raises `PrefectRefused` if the server rejects this run's credentials.
    """
    waiting = _Waiting({branch.run_id: branch.platform for branch in started}, again)
    outage = Outage(clock=clock)
    with get_client(sync_client=True) as client:
        while waiting.left:
            try:
                _poll(client, waiting, clock())
                _give_up(client, waiting, settings, watch, deadline=deadline, now=clock())
                outage.over()
                pause = settings.poll
            except ERRORS as error:
                pause = max(settings.poll, outage.pause_after(error))
            if waiting.left:
                time.sleep(pause)
    if waiting.failures:
        raise BranchesFailed(tuple(waiting.failures[platform] for platform in sorted(waiting.failures)))
    return tuple(waiting.completed[branch.platform] for branch in started)


def _poll(client: SyncPrefectClient, waiting: _Waiting, now: float) -> None:
    """Remove branches that have ended, and note which wait for a worker or for their first line."""
    asked = set(waiting.left)
    runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(asked))))
    for run in runs:
        state = run.state
        waiting.idle.discard(run.id)
        if state is None or state.is_scheduled():
            waiting.idle.add(run.id)
        if state is not None and state.is_pending():
            waiting.pending_since.setdefault(run.id, now)
        else:
            waiting.pending_since.pop(run.id, None)
        if state is not None and state.is_completed():
            waiting.complete(run.id)
        elif state is not None and state.is_crashed():
            waiting.crash(run.id, _reason(run))
        elif state is not None and state.is_final():
            waiting.fail(run.id, _reason(run))
    for run_id in asked - {run.id for run in runs}:
        waiting.fail(run_id, "its flow run was deleted")


def _give_up(
    client: SyncPrefectClient,
    waiting: _Waiting,
    settings: PublishSettings,
    watch: Watch,
    *,
    deadline: float,
    now: float,
) -> None:
    """Cancel and fail the branches that cannot complete on their own."""
    hopeless: dict[UUID, str] = {}
    idle = {waiting.left[run_id]: run_id for run_id in waiting.idle if run_id in waiting.left}
    taken = {waiting.left[run_id]: run_id for run_id in waiting.pending_since if run_id in waiting.left}
    for platform, missing_requirement in watch.abandoned(
        partial(find_missing_requirement, client), list(idle), list(taken)
    ).items():
        hopeless[(idle | taken)[platform]] = f"NoWorker: {missing_requirement.reason}. {missing_requirement.advice}"
    for run_id, since in waiting.pending_since.items():
        if run_id in waiting.left and now - since > settings.start_timeout:
            hopeless[run_id] = f"a worker accepted it but did not start it within {settings.start_timeout:g} s"
    if now > deadline:
        hopeless |= dict.fromkeys(waiting.left, f"it did not finish within the deadline of {settings.deadline:g} s")
    for run_id, reason in hopeless.items():
        cancel(client, run_id, reason)
        waiting.fail(run_id, reason)


def _reason(run: FlowRun) -> str:
    """Return why a branch did not complete, from its state's message."""
    state = run.state
    if state is None:
        return "its flow run has no state"
    said = (state.message or "").removeprefix("Flow run encountered an exception: ").strip()
    return f"{state.name}: {said}" if said and not state.is_failed() else said or state.name or "it failed"


def cancel(client: SyncPrefectClient, run_id: UUID, reason: str) -> None:
    """End a flow run, immediately if nothing runs yet, else through its worker; do nothing if it was deleted."""
    with contextlib.suppress(ObjectNotFound):
        run = client.read_flow_run(run_id)
        if run.state is None or run.state.is_final():
            return
        stop: State[Any] = Cancelled(message=reason) if run.state.is_scheduled() else Cancelling(message=reason)
        client.set_flow_run_state(run_id, stop)


def cancel_children(parent: UUID, reason: str) -> int:
    """Cancel the unfinished runs that a publication has started; return their number."""
    return retry_during_outage(lambda: _cancel_children(parent, reason))


def _cancel_children(parent: UUID, reason: str) -> int:
    unfinished = FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNFINISHED))
    children = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]), state=unfinished)
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=children)
        for run in runs:
            cancel(client, run.id, reason)
    return len(runs)
