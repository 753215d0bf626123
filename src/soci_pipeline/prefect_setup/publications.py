"""Apply a publications file to a server, and the report about it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from soci_pipeline.errors import ToolFailed
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectRefused, expected_shape
from soci_pipeline.prefect_setup.publication_plan import (
    COMMON_TAG,
    FOLLOWED,
    Action,
    PlannedDeployment,
    PublicationsPlan,
    declared_names,
    plan,
)
from soci_pipeline.prefect_setup.publication_state import (
    RECORD,
    Record,
    deployment_fields,
    own_schedule,
    schedule_fields,
)
from soci_pipeline.prefect_setup.three_way import ABSENT, Difference, OnConflict, same
from soci_pipeline.publications.file import PublicationsFile
from soci_pipeline.publications.schema import FLOW

_LONGEST = 100
_RESULTS: Final = {
    Action.MAKE: ("made", "would be created"),
    Action.CHANGE: ("updated", "would be updated"),
    Action.NOTHING: ("unchanged", "unchanged"),
    Action.STOP: ("conflict, nothing was changed", "conflict, nothing would be changed"),
    Action.REMOVE: ("removed", "would be removed"),
    Action.LEFT: ("no longer in the file; --remove deletes it", "no longer in the file; --remove deletes it"),
}


def read_plan(
    api: PrefectApi, project: Path, file: PublicationsFile, *, remove: bool, prefer: OnConflict
) -> PublicationsPlan:
    """Read the server and plan; raise `InvalidInput` for parts of the file that are not allowed there."""
    try:
        existing = api.deployments_of(FLOW)
    except PrefectRefused as error:
        raise _failed(error) from error
    with expected_shape():
        return plan(file, existing, declared_names(project), remove=remove, prefer=prefer)


def apply(api: PrefectApi, planned: PublicationsPlan) -> None:
    """Apply the plan to the server; raise `ToolFailed` if it rejects a change."""
    try:
        for each in planned.deployments:
            _apply(api, each, planned)
    except PrefectRefused as error:
        raise _failed(error) from error


def _failed(error: PrefectRefused) -> ToolFailed:
    return ToolFailed(
        f"cannot set up the publications: {error.reason}",
        advice="Check that the login has permission to read and change deployments, and run this again; completed "
        "changes are kept.",
    )


def _apply(api: PrefectApi, each: PlannedDeployment, planned: PublicationsPlan) -> None:
    if each.action is Action.MAKE:
        api.create_deployment(_new_fields(each, planned))
    elif each.action is Action.CHANGE:
        # The record is written last: a run that ends earlier repeats the remaining changes and finds no conflict.
        _apply_schedule(api, each)
        fields = deployment_fields(each.merge.value, each.deployment) | _release_fields(each, planned)
        api.update_deployment(str(each.deployment["id"]), fields)
    elif each.action is Action.REMOVE:
        api.delete_deployment(str(each.deployment["id"]))


def _release_fields(each: PlannedDeployment, planned: PublicationsPlan) -> dict[str, Any]:
    """Return what a deployment shares with the release, and the record."""
    schema = {
        name: value
        for name, value in (planned.release["parameter_openapi_schema"] or {}).items()
        if not name.startswith("x-")
    }
    record = Record(each.name, planned.owner, each.file).as_json()
    fields = {name: planned.release.get(name) for name in FOLLOWED}
    return fields | {"parameter_openapi_schema": schema | {RECORD: record}}


def _new_fields(each: PlannedDeployment, planned: PublicationsPlan) -> dict[str, Any]:
    release, state = planned.release, each.merge.value
    copied = ("flow_id", "work_pool_name", "work_queue_name", "job_variables", "enforce_parameter_schema")
    return (
        {name: release[name] for name in copied if release.get(name) is not None}
        | {"name": each.name, "tags": [COMMON_TAG, planned.tag]}
        | {"schedules": [schedule_fields(state["schedule"])] if "schedule" in state else []}
        | deployment_fields(state, {"parameters": {}, "description": None, "schedules": []})
        | _release_fields(each, planned)
    )


def _apply_schedule(api: PrefectApi, each: PlannedDeployment) -> None:
    found, wanted = own_schedule(each.deployment), each.merge.value.get("schedule")
    deployment = str(each.deployment["id"])
    if found is None:
        if wanted is not None:
            api.create_schedule(deployment, schedule_fields(wanted))
    elif wanted is None:
        api.delete_schedule(deployment, str(found["id"]))
    elif any(change.path[0] == "schedule" for change in (*each.merge.changes, *each.merge.conflicts)):
        api.update_schedule(
            deployment, str(found["id"]), schedule_fields(wanted) | {"parameters": found.get("parameters") or {}}
        )


def report(planned: PublicationsPlan, *, dry_run: bool) -> dict[str, Any]:
    """Return the plan, or the result, as JSON."""
    return {"dry_run": dry_run, "publications": {each.full_name: _entry(each) for each in planned.deployments}}


def _entry(each: PlannedDeployment) -> dict[str, Any]:
    entry: dict[str, Any] = {"action": str(each.action)}
    for kind in ("changes", "kept", "conflicts"):
        if found := getattr(each.merge, kind):
            entry[kind] = [_difference(one) for one in found]
    if each.invalid:
        entry["invalid"] = each.invalid
    if each.new_release:
        entry["new_release"] = True
    return entry


def _difference(each: Difference) -> dict[str, Any]:
    sides = {"applied": each.applied, "file": each.file, "server": each.server}
    return {"path": ".".join(each.path)} | {name: value for name, value in sides.items() if value is not ABSENT}


def lines(planned: PublicationsPlan, *, dry_run: bool) -> Iterator[str]:
    """Return the plan, or the result, as text."""
    for each in planned.deployments:
        yield f"{each.full_name}: {_RESULTS[each.action][dry_run]}"
        yield from _details(each)


def _details(each: PlannedDeployment) -> Iterator[str]:
    if each.new_release and each.action is Action.CHANGE:
        yield "  release: same as the project's own deployment"
    stopped = each.action is Action.STOP
    for one in () if stopped else each.merge.changes:
        yield f"  {'.'.join(one.path)}: {_shown(one.server)} -> {_shown(one.file)}"
    for one in each.merge.conflicts:
        sides = f"applied last {_shown(one.applied)}, file {_shown(one.file)}, server {_shown(one.server)}"
        yield f"  {'.'.join(one.path)}: {sides}{'' if stopped else ' -> ' + _shown(_winner(one, each.merge.value))}"
    for one in each.merge.kept:
        yield f"  {'.'.join(one.path)}: kept {_shown(one.server)} of the server"
    if each.invalid:
        yield f"  file and server together are not valid: {each.invalid}"


def _winner(each: Difference, value: Mapping[str, Any]) -> Any:
    found: Any = value
    for key in each.path:
        found = found.get(key, ABSENT) if isinstance(found, Mapping) else ABSENT
    return each.file if same(found, each.file) else each.server


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "nothing"
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
