"""The calls of Prefect's REST API that this library makes, over plain HTTP: Prefect itself is not imported.

The receiver hands runs over and looks at what becomes of them, the local stack starts and follows publications. Every
call can be repeated; an idempotency key makes that true of creating a run, since the server answers with the run that
it made the first time.
"""

from soci_pipeline.prefect_rest.pools import WorkPools
from soci_pipeline.prefect_rest.runs import FlowRuns


class PrefectApi(FlowRuns, WorkPools):
    """A client of one server or Cloud workspace; see `connection.Connection`."""
