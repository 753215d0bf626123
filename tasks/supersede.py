"""Cancel older publications of the same image and ref that have not started yet."""

import contextlib
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType

from soci_pipeline.errors import InvalidInput
from soci_pipeline.log import logger
from soci_pipeline.registry.reference import ImageReference
from tasks.branches import cancel
from tasks.outage import retry_during_outage

_NOT_STARTED = [StateType.SCHEDULED, StateType.PENDING]
_IDENTITY = ("image", "ref", "source", "platforms", "tags")


def cancel_older(image: ImageReference, run_id: UUID) -> tuple[UUID, ...]:
    """Cancel waiting runs of the same deployment that are due before this one and would publish the same tags."""
    return retry_during_outage(lambda: _cancel_older(image, run_id))


def _cancel_older(image: ImageReference, run_id: UUID) -> tuple[UUID, ...]:
    with get_client(sync_client=True) as client:
        mine = client.read_flow_run(run_id)
        if mine.deployment_id is None:
            return ()
        waiting = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[mine.deployment_id]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_NOT_STARTED)),
            )
        )
        older = [run for run in waiting if _is_older(run, mine) and same_target(run.parameters, mine.parameters)]
        for run in older:
            logger().info("the older run %s has not started and is superseded by this one", run.name)
            cancel(client, run.id, f"superseded by the newer run {mine.name} of {image}")
    return tuple(run.id for run in older)


def same_target(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two publications have the same target: all parameters that decide it are equal."""
    return all(_comparable(name, one.get(name)) == _comparable(name, other.get(name)) for name in _IDENTITY)


def _comparable(name: str, value: Any) -> Any:
    if name == "image" and isinstance(value, str):
        # Another run's parameters are not validated yet.
        with contextlib.suppress(InvalidInput):
            return str(ImageReference.parse(value))
    return value


def _is_older(run: FlowRun, mine: FlowRun) -> bool:
    # Future runs of a schedule are created in advance, so their creation date does not make them older.
    due, mine_due = run.expected_start_time, mine.expected_start_time
    return run.id != mine.id and due is not None and mine_due is not None and due < mine_due
