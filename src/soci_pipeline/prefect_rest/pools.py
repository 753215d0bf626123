"""Work pools, and the workers that poll them."""

from urllib.parse import quote

from soci_pipeline.prefect_rest.connection import Connection
from soci_pipeline.prefect_rest.errors import expected_shape


class WorkPools(Connection):
    """The calls about work pools."""

    def online_workers(self, pool: str) -> tuple[str, ...]:
        """The names of the workers that poll a pool; none where there is no such pool."""
        found = self.list_of(f"/work_pools/{quote(pool, safe='')}/workers/filter", {}, missing=[])
        with expected_shape():
            return tuple(str(worker["name"]) for worker in found if worker["status"] == "ONLINE")
