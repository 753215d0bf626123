"""The build, with its output in the run's log line by line and its steps as progress."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from soci_pipeline.log import LOGGER
from soci_pipeline.publish import branch
from soci_pipeline.publish.build_cache import CacheMode
from tasks.aws import connected, ecr_session
from tasks.policies import STEP
from tasks.progress import Progress, StepLog
from tasks.run_log import run_log
from tasks.secrets import secret_files

if TYPE_CHECKING:
    import boto3


@task(name="build", task_run_name="build {work.request.platform}", **STEP)
def build(work: branch.Branch, tree: Path) -> branch.Built:
    """The archive or layout that the builder made; build secrets exist as files for this long only."""
    progress = Progress(f"Build of {work.request.platform}")
    with run_log() as log, secret_files(work.request.build_secrets, work.folder) as secrets:
        # `run_log` resets the logger.
        LOGGER.set(StepLog(log, progress))
        connect = partial(connected, settings=work.settings)
        built = branch.build(work, tree, secrets=secrets, connect=connect, aws=_session(work))
        progress.report(1, 1)
        return built


def _session(work: branch.Branch) -> "boto3.Session | None":
    """Return the session for a build cache on ECR; without a cache, no block is read."""
    return None if work.request.cache is CacheMode.OFF else ecr_session(work.settings)
