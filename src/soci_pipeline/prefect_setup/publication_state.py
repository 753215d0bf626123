"""A publication as one JSON value, read from the file or its deployment, and the record of the last applied state.

The record is in the deployment itself, as an extension key of its parameter schema: it is written by the same call as
the parameters, copied to no run, and not shown in Prefect's UI, which does not change schemas. Prefect's labels cannot
be changed without replacing the deployment and are copied to each run; a Prefect variable would outlive its deployment.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from soci_pipeline.prefect_setup.three_way import ABSENT
from soci_pipeline.publications.schema import Publication, WhenBusy, without_defaults

RECORD: Final = "x-soci-pipeline-publication"
SLUG: Final = "publications-file"
"""The slug of the schedule in the file; all other schedules of a deployment are not changed."""
_STRATEGIES: Final = {WhenBusy.WAIT: "ENQUEUE", WhenBusy.SKIP: "CANCEL_NEW"}
_WHEN_BUSY: Final = {strategy: str(when) for when, strategy in _STRATEGIES.items()}
State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """The last applied state: the deployment's name, the file's owner, and the state."""

    name: str
    owner: str
    applied: State

    def as_json(self) -> dict[str, Any]:
        """Return the form in which it is stored."""
        return {"version": 1, "name": self.name, "owner": self.owner, "applied": self.applied}

    @classmethod
    def of(cls, deployment: Mapping[str, Any]) -> "Record | None":
        """Read the record of a deployment on the server; None if it has none, or one with an unknown format."""
        found = (deployment.get("parameter_openapi_schema") or {}).get(RECORD)
        if not isinstance(found, dict) or not isinstance(found.get("applied"), dict):
            return None
        return cls(str(found.get("name")), str(found.get("owner")), found["applied"])


def state_of_file(publication: Publication) -> State:
    """Return the state in the file."""
    state: State = {
        "parameters": publication.parameters,
        "description": publication.description or _described(publication),
    }
    if publication.schedule is not None:
        state["schedule"] = publication.schedule.model_dump(mode="json")
    if publication.concurrency is not None:
        state["concurrency"] = publication.concurrency.model_dump(mode="json")
    return state


def _described(publication: Publication) -> str:
    return f"Publish {publication.image}. Declared in a publications file."


def state_of_server(deployment: Mapping[str, Any]) -> State:
    """Return the state on the server."""
    state: State = {"parameters": without_defaults(deployment["parameters"] or {})}
    if deployment["description"]:
        state["description"] = deployment["description"]
    schedule = own_schedule(deployment)
    if schedule is not None:
        state["schedule"] = _schedule_state(schedule)
    limit = deployment.get("global_concurrency_limit")
    if limit:
        strategy = (deployment.get("concurrency_options") or {}).get("collision_strategy", "ENQUEUE")
        state["concurrency"] = {"limit": limit["limit"], "when_busy": _WHEN_BUSY.get(strategy, strategy)}
    return state


def own_schedule(deployment: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the schedule from the file on the server.

    A schedule loses its slug if all schedules of a deployment are replaced at once; a single one is assumed to be ours.
    """
    schedules = [dict(each) for each in deployment["schedules"]]
    ours = [each for each in schedules if each.get("slug") == SLUG]
    single = schedules if len(schedules) == 1 and not schedules[0].get("slug") else []
    return next(iter(ours or single), None)


def _schedule_state(schedule: Mapping[str, Any]) -> State:
    rule, active = schedule["schedule"], schedule["active"]
    if "cron" not in rule:
        # An interval or a recurrence rule, which only the server supports.
        return {"other": dict(rule), "active": active}
    state = {"cron": rule["cron"], "timezone": rule.get("timezone") or "UTC", "active": active}
    # Prefect's default is what the file intends; it has no other value.
    return state if rule.get("day_or", True) else state | {"day_or": False}


def schedule_fields(state: State) -> dict[str, Any]:
    """Return a schedule in the form of Prefect's REST API."""
    rule = {name: state[name] for name in ("cron", "timezone", "day_or") if name in state}
    return {
        "schedule": rule if "cron" in state else state["other"],
        "active": state.get("active", True),
        "slug": SLUG,
    }


def deployment_fields(state: State, deployment: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a deployment, except its schedules, that give it this state."""
    fields: dict[str, Any] = {"parameters": state["parameters"], "description": state.get("description", "")}
    concurrency = state.get("concurrency", ABSENT)
    if concurrency == state_of_server(deployment).get("concurrency", ABSENT):
        return fields
    if concurrency is ABSENT:
        return fields | {"concurrency_limit": None}
    when = concurrency.get("when_busy", str(WhenBusy.WAIT))
    strategy = {str(name): value for name, value in _STRATEGIES.items()}.get(when, when)
    options = (deployment.get("concurrency_options") or {}) | {"collision_strategy": strategy}
    return fields | {"concurrency_limit": concurrency["limit"], "concurrency_options": options}
