"""The index: a zTOC for each layer that qualifies, and the reason for each that does not."""

from prefect import task
from soci_pipeline.soci.convert import Conversion

from soci_pipeline.oci.layout import Layout
from soci_pipeline.publish import branch
from tasks.policies import STEP
from tasks.run_log import run_log


@task(name="index", **STEP)
def index(work: branch.Branch, layout: Layout) -> Conversion:
    """The indexed image, as a layout on this worker."""
    with run_log() as log:
        conversion = branch.index(work, layout)
        for image in conversion.images:
            log.info("%s", branch.describe(image))
        return conversion
