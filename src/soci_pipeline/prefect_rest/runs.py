"""Flow runs: create them from deployments, follow and cancel them, and read their artifacts."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from soci_pipeline.deployment_names import RENAMED
from soci_pipeline.prefect_rest.connection import Connection
from soci_pipeline.prefect_rest.errors import PrefectRefused, PrefectUnavailable, expected_shape

RECORD = "soci-branch-record"
"""The type of the artifact that contains a branch's record."""

RESULT = "soci-publication-result"
"""The type of the artifact that contains a publication's result, for the caller that waits for it."""

PROGRESS = "progress"
"""The type of Prefect's built-in progress artifacts, whose data is a percentage."""

RunNaming = Callable[[str, Mapping[str, Any], str], str]
"""The name of a run, by its deployment, its parameters with those of the deployment, and its idempotency key."""

FINAL_STATES = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
"""The state types in which a flow run stays unless it is changed from outside."""


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a flow run."""

    kind: str
    message: str
    name: str = ""
    """As ``Late`` or ``Running``."""
    pool: str = ""
    """The work pool that it is started in; empty where it has none."""

    @property
    def is_final(self) -> bool:
        return self.kind in FINAL_STATES

    @property
    def is_completed(self) -> bool:
        return self.kind == "COMPLETED"


@dataclass(frozen=True, slots=True)
class ChildRun:
    """A flow run started by another flow run."""

    id: str
    name: str
    tags: tuple[str, ...]
    state: str
    """The name of its state, such as ``Late`` or ``Running``."""
    kind: str
    message: str
    pool: str = ""

    @property
    def is_failed(self) -> bool:
        return self.kind in FINAL_STATES and self.kind != "COMPLETED"


class FlowRuns(Connection):
    """API calls for flow runs."""

    def work_pool_of(self, deployment: str) -> str | None:
        """Return the work pool of ``flow/deployment``, "" if it has none; None if the deployment does not exist."""
        flow, _, name = deployment.partition("/")
        found = self.ask("GET", f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}", missing={})
        with expected_shape():
            return str(found.get("work_pool_name") or "") if found else None

    def child_runs(self, run: str) -> tuple[ChildRun, ...]:
        """Return the child runs of a flow run with their states, ordered by creation time."""
        query = {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}}
        with expected_shape():
            found = sorted(self.list_of("/flow_runs/filter", query), key=lambda child: str(child.get("created")))
            return tuple(_child(child) for child in found)

    def progress(self, runs: Iterable[str]) -> dict[str, int]:
        """Return the percentage of each step of these runs, by the step's description."""
        asked = list(runs)
        if not asked:
            return {}
        query = {"artifacts": {"type": {"any_": [PROGRESS]}}, "flow_runs": {"id": {"any_": asked}}}
        with expected_shape():
            found = self.list_of("/artifacts/filter", query)
            # A percentage that is not a number raises ValueError or OverflowError here.
            return {str(artifact["description"]): int(float(artifact["data"])) for artifact in found}

    def result(self, run: str) -> str | None:
        """Return the latest result of a publication as a JSON string; None if there is none."""
        query = {"artifacts": {"type": {"any_": [RESULT]}}, "flow_runs": {"id": {"any_": [run]}}}
        with expected_shape():
            found = sorted(self.list_of("/artifacts/filter", query), key=lambda artifact: str(artifact.get("created")))
            return str(found[-1]["data"]) if found else None

    def create_run(
        self,
        deployment: str,
        parameters: Mapping[str, Any],
        *,
        key: str | None = None,
        tags: Sequence[str] = (),
        naming: RunNaming | None = None,
    ) -> str:
        """Make a run of ``flow/deployment``; returns its id, the same one for the same ``key``.

        ``naming`` makes its name; without it the server makes up one.

        Raises `PrefectUnavailable` where a later try may succeed by itself, `PrefectRefused` otherwise (``temporary``
        where the deployment or the credentials are wrong, which somebody may put right).
        """
        found = self._deployment(deployment)
        key = key or str(uuid.uuid4())
        body: dict[str, Any] = {"parameters": dict(parameters), "idempotency_key": key, "tags": list(tags)}
        if naming is not None:
            with expected_shape():
                body["name"] = naming(deployment, dict(found.get("parameters") or {}) | dict(parameters), key)
        return _id(self.ask("POST", f"/deployments/{_id(found)}/create_flow_run", body))

    def _deployment(self, deployment: str) -> Any:
        try:
            return self.ask("GET", _deployment_path(deployment))
        except PrefectRefused as error:
            new = RENAMED.get(deployment)
            if new is None or error.status != HTTPStatus.NOT_FOUND:
                raise
            raise PrefectRefused(
                f"the deployment {deployment} does not exist; it is now named {new}",
                advice=f"Use {new} in the rule or script that starts it.",
                temporary=True,
                status=error.status,
            ) from error

    def has_deployment(self, deployment: str) -> bool:
        """Whether the deployment ``flow/deployment`` exists."""
        return bool(self.ask("GET", _deployment_path(deployment), missing={}))

    def state(self, run: str) -> RunState:
        """Return the state of a flow run."""
        answer = self.ask("GET", f"/flow_runs/{run}")
        with expected_shape():
            state = answer.get("state") or {}
            return RunState(
                kind=str(answer.get("state_type")),
                message=str(state.get("message") or ""),
                name=str(answer.get("state_name") or ""),
                pool=str(answer.get("work_pool_name") or ""),
            )

    def active_runs(self, pool: str) -> int:
        """How many runs count towards the concurrency limit of a work pool."""
        kinds = {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}
        query = {"work_pools": {"name": {"any_": [pool]}}, "flow_runs": {"state": kinds}}
        with expected_shape():
            return int(self.ask("POST", "/flow_runs/count", query))

    def states(self, runs: Sequence[str]) -> dict[str, str]:
        """Return the state type (``COMPLETED``…) of each run; deleted runs are missing from the result."""
        if not runs:
            return {}
        found = self.list_of("/flow_runs/filter", {"flow_runs": {"id": {"any_": list(runs)}}, "limit": len(runs)})
        with expected_shape():
            return {_id(each): str(each.get("state_type") or "SCHEDULED") for each in found}

    def cancel(self, run: str) -> None:
        """Request the cancellation of a flow run."""
        self.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})

    def children(self, run: str) -> dict[str, str]:
        """Return the names of the child runs of a flow run, by ID."""
        query = {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}}
        with expected_shape():
            return {_id(child): str(child["name"]) for child in self.list_of("/flow_runs/filter", query)}

    def records(self, runs: Iterable[str]) -> tuple[str, ...]:
        """Return the records of branch runs as JSON strings."""
        query = {"artifacts": {"type": {"any_": [RECORD]}}, "flow_runs": {"id": {"any_": list(runs)}}}
        with expected_shape():
            return tuple(str(artifact["data"]) for artifact in self.list_of("/artifacts/filter", query))

    def log_lines(self, run: str, *, offset: int) -> Iterator[tuple[int, str]]:
        """Yield level and message of up to 200 log lines of a run (INFO and above), from number ``offset`` on."""
        logs = {"flow_run_id": {"any_": [run]}, "level": {"ge_": 20}}
        query = {"logs": logs, "sort": "TIMESTAMP_ASC", "offset": offset, "limit": 200}
        with expected_shape():
            lines = [(int(line["level"]), str(line["message"])) for line in self.list_of("/logs/filter", query)]
        yield from lines


def _child(document: Any) -> ChildRun:
    state = document.get("state") or {}
    return ChildRun(
        id=_id(document),
        name=str(document["name"]),
        tags=tuple(map(str, document.get("tags") or ())),
        state=str(document.get("state_name") or "Scheduled"),
        kind=str(document.get("state_type") or "SCHEDULED"),
        message=str(state.get("message") or ""),
        pool=str(document.get("work_pool_name") or ""),
    )


def _deployment_path(deployment: str) -> str:
    flow, _, name = deployment.partition("/")
    return f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}"


def _id(document: Any) -> str:
    try:
        return str(uuid.UUID(document["id"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PrefectUnavailable("Prefect returned no id; another program may be listening there") from error
