"""A real Prefect server's queue for the simulation: runs are made, taken and ended by the API that a worker uses."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from soci_pipeline.capacity.policy import Demand
from soci_pipeline.capacity.prefect_queue import PrefectQueue
from soci_pipeline.prefect_api import PrefectApi, PrefectRefused


class PrefectBackend:
    """Work pools of the simulation's own on a server that is thrown away afterwards."""

    def __init__(self, api: PrefectApi) -> None:
        self._api = api
        self._queue = PrefectQueue(api)
        self._deployments: dict[str, str] = {}

    def add_pool(self, pool: str) -> None:
        """Make a work pool, and a deployment whose runs wait in it."""
        self._api.ask("POST", "/work_pools/", {"name": pool, "type": "process"})
        flow = self._api.ask("POST", "/flows/", {"name": "simulated-branch"})
        wanted = {"name": pool, "flow_id": flow["id"], "work_pool_name": pool}
        self._deployments[pool] = str(self._api.ask("POST", "/deployments/", wanted)["id"])

    def demand(self, pool: str) -> Demand:
        """What waits and runs, as the real controller asks for it."""
        return self._queue.demand(pool)

    def submit(self, pool: str) -> str:
        """Put a run into the queue; returns its id."""
        body = {"idempotency_key": str(uuid.uuid4()), "state": {"type": "SCHEDULED"}}
        return str(self._api.ask("POST", f"/deployments/{self._deployments[pool]}/create_flow_run", body)["id"])

    def take(self, pool: str, limit: int) -> Sequence[str]:
        """What Prefect gives a worker with so many free places; the runs are running afterwards."""
        wanted = {"limit": limit, "scheduled_before": datetime.now(UTC).isoformat()}
        given = self._api.ask("POST", f"/work_pools/{pool}/get_scheduled_flow_runs", wanted)
        taken = [str(each["flow_run"]["id"]) for each in given]
        for run in taken:
            self._set(run, "PENDING")
            self._set(run, "RUNNING")
        return taken

    def finish(self, run: str) -> None:
        """End a run well."""
        self._set(run, "COMPLETED")

    def _set(self, run: str, kind: str) -> None:
        answer = self._api.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": kind}})
        if answer["status"] != "ACCEPT":
            raise PrefectRefused(f"Prefect does not take {kind} of a simulated run: {answer['status']}")
