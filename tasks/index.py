"""The index: a zTOC for each layer that qualifies, and the reason for each that does not."""

from prefect import task

from soci_pipeline.oci.layout import Layout
from soci_pipeline.publish import branch
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.index.convert import Conversion
from tasks.policies import STEP
from tasks.run_log import run_log


@task(name="index", task_run_name="index {work.request.platform}", **STEP)
def index(work: branch.Branch, layout: Layout, client: RegistryClient) -> Conversion:
    """The indexed image, as a layout on this worker."""
    with run_log() as log:
        conversion = branch.index(work, layout, client)
        for image in conversion.images:
            log.info("%s", branch.describe(image))
        return conversion
