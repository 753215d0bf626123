"""The branches of a publication: one deployment run for each platform, started at once, waited for, cancelled with it.

`run_deployment` never raises for a failed child, so every state is looked at here. A branch's record comes back as an
artifact of its run and is read by the run's id: a key would be shared by all runs.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling

from soci_pipeline.errors import BranchFailed
from soci_pipeline.oci.platform import Platform
from soci_pipeline.process import logger
from soci_pipeline.publish.release import RELEASE
from soci_pipeline.publish.request import BranchRequest
from soci_pipeline.settings import PublishSettings
from tasks.clock import Clock
from tasks.outage import ERRORS, Outage, patiently
from tasks.workers import Watch, lack_of

_UNFINISHED = [kind for kind in StateType if kind not in TERMINAL_STATES]


def deployment_of(platform: Platform) -> str:
    """The deployment that builds for a platform; its work pool has the machines."""
    return f"build-platform/{platform.slug}"


@dataclass(frozen=True, slots=True)
class Started:
    """A branch that was started."""

    platform: Platform
    run_id: UUID


def start(request: BranchRequest, *, parent: str, release: str) -> Started:
    """Start the branch of one platform; a retried parent gets the same run again."""
    platform = request.platform
    made = patiently(
        lambda: run_deployment(
            deployment_of(platform),
            parameters={"branch": request.model_dump(mode="json")},
            flow_run_name=f"{platform} {request.image.repository} {request.source.commit[:12]}",
            idempotency_key=f"{parent}-{platform}",
            job_variables={"env": {RELEASE: release}},
            tags=[f"platform:{platform}"],
            as_subflow=True,
            timeout=0,
        )
    )
    run = cast("FlowRun", made)  # a coroutine for callers that are one
    logger().info("started %s as flow run %s", platform, run.id)
    return Started(platform, run.id)


@dataclass
class _Waiting:
    """What is known of the branches that are waited for. ``idle`` are those that no worker has taken yet."""

    left: dict[UUID, Platform]
    idle: set[UUID] = field(default_factory=set)
    pending_since: dict[UUID, float] = field(default_factory=dict)
    failures: dict[Platform, str] = field(default_factory=dict)

    def fail(self, run_id: UUID, reason: str) -> None:
        platform = self.left.pop(run_id)
        self.failures.setdefault(platform, reason)
        logger().error("%s failed: %s", platform, reason)


def wait(
    started: Sequence[Started],
    settings: PublishSettings,
    watch: Watch,
    *,
    deadline: float,
    clock: Clock = time.monotonic,
) -> None:
    """Return when every branch has completed; when all have ended and some failed, raise `BranchFailed` naming each.

    ``deadline`` is a time of ``clock``. A branch without a worker, one that never starts and one past the deadline are
    cancelled and count as failed. The server may be away for some minutes meanwhile; raises `PrefectRefused` where it
    refuses this run's credentials.
    """
    waiting = _Waiting({branch.run_id: branch.platform for branch in started})
    outage = Outage(clock=clock)
    with get_client(sync_client=True) as client:
        while waiting.left:
            try:
                _look(client, waiting, clock())
                _give_up(client, waiting, settings, watch, deadline=deadline, now=clock())
                outage.over()
                pause = settings.poll
            except ERRORS as error:
                pause = max(settings.poll, outage.pause_after(error))
            if waiting.left:
                time.sleep(pause)
    if waiting.failures:
        lines = [f"{platform}: {reason}" for platform, reason in sorted(waiting.failures.items())]
        raise BranchFailed(
            "nothing was published, because of\n" + "\n".join(lines),
            advice="Mend what each names; its flow run has its whole log. Publishing again reuses what is there.",
        )


def _look(client: SyncPrefectClient, waiting: _Waiting, now: float) -> None:
    """Take the branches that have ended off the list, and note which wait for a worker or for their first line."""
    runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(waiting.left))))
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
            logger().info("%s is done", waiting.left.pop(run.id))
        elif state is not None and state.is_final():
            waiting.fail(run.id, _reason(run))
    for run_id in set(waiting.left) - {run.id for run in runs}:
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
    """Cancel and fail the branches that will not end well by themselves."""
    hopeless: dict[UUID, str] = {}
    idle = {waiting.left[run_id]: run_id for run_id in waiting.idle if run_id in waiting.left}
    taken = {waiting.left[run_id]: run_id for run_id in waiting.pending_since if run_id in waiting.left}
    for platform, lack in watch.abandoned(partial(lack_of, client), list(idle), list(taken)).items():
        hopeless[(idle | taken)[platform]] = f"NoWorker: {lack.reason}. {lack.advice}"
    for run_id, since in waiting.pending_since.items():
        if run_id in waiting.left and now - since > settings.start_timeout:
            hopeless[run_id] = f"a worker took it and did not start it within {settings.start_timeout:g} s"
    if now > deadline:
        hopeless |= dict.fromkeys(waiting.left, f"it was not done within the deadline of {settings.deadline:g} s")
    for run_id, reason in hopeless.items():
        cancel(client, run_id, reason)
        waiting.fail(run_id, reason)


def _reason(run: FlowRun) -> str:
    """Why a branch did not complete, in its own words."""
    state = run.state
    if state is None:
        return "its flow run has no state"
    said = (state.message or "").removeprefix("Flow run encountered an exception: ").strip()
    return f"{state.name}: {said}" if said and not state.is_failed() else said or state.name or "it failed"


def cancel(client: SyncPrefectClient, run_id: UUID, reason: str) -> None:
    """Have a flow run ended: at once where nothing runs yet, else by the worker that has it; one may be deleted."""
    with contextlib.suppress(ObjectNotFound):
        run = client.read_flow_run(run_id)
        if run.state is None or run.state.is_final():
            return
        stop: State[Any] = Cancelled(message=reason) if run.state.is_scheduled() else Cancelling(message=reason)
        client.set_flow_run_state(run_id, stop)


def cancel_children(parent: UUID, reason: str) -> int:
    """Cancel what a publication has started and what has not ended yet; returns how many runs that were."""
    return patiently(lambda: _cancel_children(parent, reason))


def _cancel_children(parent: UUID, reason: str) -> int:
    unfinished = FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNFINISHED))
    children = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]), state=unfinished)
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=children)
        for run in runs:
            cancel(client, run.id, reason)
    return len(runs)
