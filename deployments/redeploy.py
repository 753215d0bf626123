"""The build step of every deployment: keeps what was set on the server when `prefect deploy` runs again.

When a deployment is deployed again, Prefect replaces its parameters, job variables, schedules, tags and concurrency
limit by those of `prefect.yaml`: an image and a source that were set in the UI are lost, and a schedule that was
switched on is off. This step reads them before, and restores them afterwards: at the next deployment's step, and at the
end of the process. The old description is printed if it changes, since a new release may have a better one.

A deployment that this release has renamed starts with what was set on the server under its old name.
"""

import atexit
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleUpdate, DeploymentUpdate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound, PrefectException

from soci_pipeline.deployment_names import RENAMED
from soci_pipeline.errors import StackError


@dataclass(frozen=True, slots=True)
class _Kept:
    """The earlier deployment, and a client that is not open yet: at exit, Prefect's profile is not set any more."""

    name: str
    before: DeploymentResponse
    client: SyncPrefectClient
    renamed_from: str | None = None


_PENDING: list[_Kept] = []


def keep(deployment: str) -> dict[str, str]:
    """Restore what was set on the server for ``flow/deployment`` once it is deployed again."""
    _restore_pending()
    old = next((old for old, new in RENAMED.items() if new == deployment), None)
    with get_client(sync_client=True) as client:
        before = _existing(client, deployment)
        renamed_from = old if before is None and old is not None else None
        if renamed_from is not None:
            before = _existing(client, renamed_from)
    if before is None:
        return {}
    if not _PENDING:
        atexit.unregister(_restore_at_exit)
        atexit.register(_restore_at_exit)
    _PENDING.append(_Kept(deployment, before, get_client(sync_client=True), renamed_from))
    return {}


def _existing(client: SyncPrefectClient, deployment: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(deployment)
    except ObjectNotFound:
        return None


def _restore_at_exit() -> None:
    failed = [each for each in _PENDING if not _restored(each)]
    _PENDING.clear()
    if failed:
        sys.stderr.flush()
        # An error at exit would not change the exit status.
        os._exit(1)


def _restore_pending() -> None:
    while _PENDING:
        kept = _PENDING.pop()
        if not _restored(kept):
            raise StackError(f"{kept.name} was deployed, and what was set on the server is lost", advice="See above.")


def _restored(kept: _Kept) -> bool:
    """Restore the values; print what was lost if that fails."""
    try:
        restore(kept)
    except (HTTPError, PrefectException) as error:
        schedules = [f"{each.schedule!r} {'on' if each.active else 'off'}" for each in kept.before.schedules]
        print(
            f"{kept.name}: what was set on the server could not be written back: {type(error).__name__}: {error}\n"
            f"  parameters: {kept.before.parameters}\n  schedules: {schedules}\n"
            f"  job variables: {', '.join(kept.before.job_variables or {}) or 'none'}\n"
            f"  tags: {', '.join(kept.before.tags) or 'none'}\n  concurrency limit: {_limit(kept.before)}\n"
            "  next: set these again in Prefect's UI, under Deployments.",
            file=sys.stderr,
        )
        return False
    return True


def restore(kept: _Kept) -> None:
    """Restore what has changed: values on the server are kept, those that only the file has are added."""
    with kept.client as client:
        now = client.read_deployment_by_name(kept.name)
        changes = _changes(kept, now)
        if changes:
            client.update_deployment(now.id, DeploymentUpdate(**changes))
        if kept.renamed_from is not None and any(each.active for each in kept.before.schedules):
            # Both deployments would run at the same times.
            off = [_update_of(each).model_copy(update={"active": False}) for each in kept.before.schedules]
            client.update_deployment(kept.before.id, DeploymentUpdate(schedules=off))
            print(f"{kept.renamed_from}: switched its schedules off; {kept.name} has them now")


def _changes(kept: _Kept, now: DeploymentResponse) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for field in ("parameters", "job_variables"):
        before, after = getattr(kept.before, field) or {}, getattr(now, field) or {}
        if (merged := after | before) != after:
            changes[field] = merged
            _note(kept.name, field, before, after)
    if _shape(kept.before) != _shape(now):
        changes["schedules"] = [_update_of(each) for each in kept.before.schedules]
        print(f"{kept.name}: kept the schedules of the server")
    if now.paused != kept.before.paused:
        changes["paused"] = kept.before.paused
    if own := [tag for tag in kept.before.tags if tag not in now.tags]:
        changes["tags"] = [*now.tags, *own]
        print(f"{kept.name}: kept the tags of the server: {', '.join(own)}")
    limit, options = _limit(kept.before), kept.before.concurrency_options
    if limit is not None and (limit, options) != (_limit(now), now.concurrency_options):
        changes |= {"concurrency_limit": limit, "concurrency_options": options}
        print(f"{kept.name}: kept the concurrency limit of the server: {limit}")
    if kept.before.description not in (None, "", now.description):
        print(f"{kept.name}: replaced the description of the server, which was: {kept.before.description}")
    return changes


def _limit(deployment: DeploymentResponse) -> int | None:
    found = deployment.global_concurrency_limit
    return None if found is None else found.limit


def _note(deployment: str, field: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    names = sorted(name for name in before if name not in after or before[name] != after[name])
    print(f"{deployment}: kept the {field.replace('_', ' ')} of the server: {', '.join(names)}")


def _update_of(schedule: DeploymentSchedule) -> DeploymentScheduleUpdate:
    fields = {name: getattr(schedule, name) for name in ("schedule", "active", "max_scheduled_runs", "slug")}
    given = {name: value for name, value in fields.items() if value is not None}
    return DeploymentScheduleUpdate(**given, parameters=schedule.parameters)


def _shape(deployment: DeploymentResponse) -> list[dict[str, Any]]:
    return [each.model_dump(exclude={"id", "created", "updated", "deployment_id"}) for each in deployment.schedules]
