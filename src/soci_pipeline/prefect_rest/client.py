"""Client for the calls of Prefect's REST API that this library uses, over plain HTTP: Prefect itself is not imported.

The receiver dispatches runs and polls their outcomes, the local stack starts and follows publications, and `setup`
creates what the deployments need. Calls are retried while the server is unavailable. Creating a run is safe to retry,
because for a known idempotency key the server returns the existing run.
"""

from soci_pipeline.prefect_rest.automations import Automations
from soci_pipeline.prefect_rest.blocks import Blocks
from soci_pipeline.prefect_rest.deployments import Deployments
from soci_pipeline.prefect_rest.pools import WorkPools
from soci_pipeline.prefect_rest.runs import FlowRuns


class PrefectApi(FlowRuns, WorkPools, Automations, Blocks, Deployments):
    """A client of one server or Cloud workspace; see `connection.Connection`."""
