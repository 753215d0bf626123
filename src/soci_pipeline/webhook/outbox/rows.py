"""Records for the rows of the outbox, and the states of a run."""

import json
import logging
import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from soci_pipeline.prefect_rest.runs import FINAL_STATES
from soci_pipeline.webhook.json_logs import log

FINAL_OUTCOMES = FINAL_STATES | {"NOT_STARTED", "UNKNOWN"}


class DispatchState(StrEnum):
    """The progress of a run towards Prefect; the state that it reaches there is its ``outcome``."""

    PENDING = "pending"
    DISPATCHING = "dispatching"
    DISPATCHED = "dispatched"
    SUPERSEDED = "superseded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StatusTarget:
    """The repository (or the forge's ID of it) and commit that a commit status is set on."""

    project: str
    commit: str


@dataclass(frozen=True, slots=True)
class OutboxRun:
    """One row of the runs. ``received`` is in seconds since the epoch, ``stored`` in seconds of running time."""

    id: int
    source: str
    rule: str
    deployment: str
    parameters: dict[str, Any]
    key: str
    received: float
    stored: float
    state: DispatchState
    attempts: int
    flow_run_id: str | None
    outcome: str | None
    error: str | None
    target: StatusTarget | None
    reported: str | None
    report_attempts: int


@dataclass(frozen=True, slots=True)
class Stored:
    """The result of storing an event: whether a run is ``new``, and the idempotency keys of the event's runs."""

    new: bool
    keys: tuple[str, ...]


def readable(row: sqlite3.Row) -> OutboxRun | None:
    """Convert a row to a run; log a damaged row and return None."""
    try:
        return _run(row)
    except (ValueError, TypeError, KeyError) as error:
        log(f"a run in the outbox cannot be read: {type(error).__name__}", level=logging.ERROR, run=row["id"])
        return None


def _run(row: sqlite3.Row) -> OutboxRun:
    target = json.loads(row["target"]) if row["target"] else None
    return OutboxRun(
        id=row["id"],
        source=row["source"],
        rule=row["rule"],
        deployment=row["deployment"],
        parameters=_parameters(row["parameters"]),
        key=row["key"],
        received=row["received"],
        stored=row["stored"],
        state=DispatchState(row["state"]),
        attempts=row["attempts"],
        flow_run_id=row["flow_run_id"],
        outcome=row["outcome"],
        error=row["error"],
        target=StatusTarget(**target) if target else None,
        reported=row["reported"],
        report_attempts=row["report_attempts"],
    )


def _parameters(text: str) -> dict[str, Any]:
    """Parse what `store` has written, which is always ASCII; raise `ValueError` for anything else."""
    found = json.loads(text)
    if not text.isascii() or not isinstance(found, dict):
        raise ValueError("the parameters are damaged")
    return found
