"""The build, with its output in the run's log line by line."""

from pathlib import Path

from prefect import task

from soci_pipeline.publish import branch
from tasks.policies import STEP
from tasks.run_log import run_log
from tasks.secrets import secret_files


@task(name="build", **STEP)
def build(work: branch.Branch, tree: Path) -> branch.Built:
    """The archive or layout that the builder made; build secrets exist as files for this long only."""
    with run_log(), secret_files(work.request.build_secrets, work.folder) as secrets:
        return branch.build(work, tree, secrets=secrets)
