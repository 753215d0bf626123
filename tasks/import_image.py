"""The import: what the builder made, verified blob by blob."""

from prefect import task

from soci_pipeline.oci.layout import Layout
from soci_pipeline.publish import branch
from tasks.policies import STEP
from tasks.run_log import run_log


@task(name="import", task_run_name="import {work.request.platform}", **STEP)
def import_image(work: branch.Branch, built: branch.Built) -> Layout:
    """An OCI layout with one image in it."""
    with run_log():
        return branch.import_built(work, built)
