"""Work pools, and the workers that poll them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from soci_pipeline.prefect_rest.connection import Connection
from soci_pipeline.prefect_rest.errors import expected_shape


@dataclass(frozen=True, slots=True)
class WorkPool:
    """A work pool on the server."""

    name: str
    type: str
    base_job_template: dict[str, Any]
    concurrency_limit: int | None
    is_paused: bool = False


class WorkPools(Connection):
    """API calls for work pools."""

    def online_workers(self, pool: str) -> tuple[str, ...]:
        """Return the names of the online workers of a pool; empty if the pool does not exist."""
        found = self.list_of(f"{_path(pool)}/workers/filter", {}, missing=[])
        with expected_shape():
            return tuple(str(worker["name"]) for worker in found if worker["status"] == "ONLINE")

    def work_pool(self, name: str) -> WorkPool | None:
        """Return a work pool by name; None if it does not exist."""
        found = self.ask("GET", _path(name), missing={})
        with expected_shape():
            if not found:
                return None
            limit, template = found["concurrency_limit"], dict(found["base_job_template"] or {})
            paused = bool(found.get("is_paused"))
            most = None if limit is None else int(limit)
            return WorkPool(str(found["name"]), str(found["type"]), template, most, paused)

    def create_work_pool(self, fields: Mapping[str, Any]) -> None:
        """Make a work pool; if an answer is lost, one of its name is looked up before another attempt."""
        name = str(fields["name"])
        self.create("/work_pools/", dict(fields), lambda: self.work_pool(name) is not None)

    def update_work_pool(self, name: str, fields: Mapping[str, Any]) -> None:
        """Update these fields of a work pool."""
        self.ask("PATCH", _path(name), dict(fields))


def _path(pool: str) -> str:
    return f"/work_pools/{quote(pool, safe='')}"
