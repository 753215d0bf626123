"""The few calls of Prefect's REST API that the local stack makes; Prefect itself is not imported."""

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from soci_pipeline.errors import StackError

RECORD = "soci-branch-record"
"""The type of the artifact that carries a branch's record back."""

_PAUSE_SECONDS = 1.0
_FINISHED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a flow run stands."""

    kind: str
    message: str

    @property
    def is_final(self) -> bool:
        return self.kind in _FINISHED

    @property
    def is_completed(self) -> bool:
        return self.kind == "COMPLETED"


class PrefectApi:
    """A client of one server without authentication; a context manager.

    A server that does not answer, or answers with 5xx, is asked again for ``patience`` seconds.
    """

    def __init__(self, api_url: str, *, patience: float = 120) -> None:
        self._patience = patience
        self._client = httpx.Client(base_url=api_url, timeout=30, trust_env=False)

    def __enter__(self) -> "PrefectApi":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def online_workers(self, pool: str) -> tuple[str, ...]:
        """The names of the workers that poll a pool; none where there is no such pool."""
        found = self._call("POST", f"/work_pools/{pool}/workers/filter", {}, missing=[])
        return tuple(str(worker["name"]) for worker in found if worker["status"] == "ONLINE")

    def create_run(self, deployment: str, parameters: Mapping[str, Any]) -> str:
        """Start ``flow/deployment``; returns the id of its run."""
        found = self._call("GET", f"/deployments/name/{deployment}")
        # The key makes a repeated call answer with the run that the first one made.
        body = {"parameters": dict(parameters), "state": {"type": "SCHEDULED"}, "idempotency_key": str(uuid.uuid4())}
        return str(self._call("POST", f"/deployments/{found['id']}/create_flow_run", body)["id"])

    def state(self, run: str) -> RunState:
        """The state of a flow run."""
        answer = self._call("GET", f"/flow_runs/{run}")
        state = answer.get("state") or {}
        return RunState(kind=str(answer.get("state_type")), message=str(state.get("message") or ""))

    def cancel(self, run: str) -> None:
        """Ask for a flow run to be cancelled."""
        self._call("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})

    def children(self, run: str) -> dict[str, str]:
        """The flow runs that a run has started as its own: names by id."""
        query = {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}}
        return {str(child["id"]): str(child["name"]) for child in self._call("POST", "/flow_runs/filter", query)}

    def records(self, runs: Iterable[str]) -> tuple[str, ...]:
        """The records, as JSON texts, that runs of branches have left."""
        query = {"artifacts": {"type": {"any_": [RECORD]}}, "flow_runs": {"id": {"any_": list(runs)}}}
        return tuple(str(artifact["data"]) for artifact in self._call("POST", "/artifacts/filter", query))

    def log_lines(self, run: str, *, offset: int) -> Iterator[tuple[int, str]]:
        """Level and text of the log lines of a run, from the ``offset``-th one on."""
        logs = {"flow_run_id": {"any_": [run]}, "level": {"ge_": 20}}
        query = {"logs": logs, "sort": "TIMESTAMP_ASC", "offset": offset, "limit": 200}
        for line in self._call("POST", "/logs/filter", query):
            yield int(line["level"]), str(line["message"])

    def _call(self, method: str, path: str, body: Any = None, *, missing: Any = None) -> Any:
        """Every call can be repeated: a busy machine must not fail a run that goes on meanwhile."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self._once(method, path, body, missing=missing)
            except StackError as error:
                if not error.temporary or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_SECONDS)

    def _once(self, method: str, path: str, body: Any, *, missing: Any) -> Any:
        try:
            response = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise StackError(f"the Prefect server does not answer: {error}", temporary=True) from error
        if response.status_code == httpx.codes.NOT_FOUND and missing is not None:
            return missing
        if not response.is_success:
            said = f"the Prefect server answered {response.status_code} to {path}: {response.text[:500]}"
            raise StackError(said, temporary=response.is_server_error)
        return response.json()
