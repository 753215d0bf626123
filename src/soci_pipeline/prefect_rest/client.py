"""The calls of Prefect's REST API that this library makes, over plain HTTP: Prefect itself is not imported.

The receiver hands runs over and looks at what becomes of them, the local stack starts and follows publications, `setup`
makes what the deployments need. A call is repeated while the server is away; an idempotency key lets creating a run be
repeated, since the server answers with the run that it made the first time.
"""

from soci_pipeline.prefect_rest.automations import Automations
from soci_pipeline.prefect_rest.blocks import Blocks
from soci_pipeline.prefect_rest.deployments import Deployments
from soci_pipeline.prefect_rest.pools import WorkPools
from soci_pipeline.prefect_rest.runs import FlowRuns


class PrefectApi(FlowRuns, WorkPools, Automations, Blocks, Deployments):
    """A client of one server or Cloud workspace; see `connection.Connection`."""
