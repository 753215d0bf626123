"""The source: resolved once by the parent, fetched by every branch."""

from pathlib import Path

from prefect import task

from soci_pipeline.build.builder import BuilderName
from soci_pipeline.errors import SourceError
from soci_pipeline.publish import branch, source
from soci_pipeline.publish.request import PublishRequest
from tasks.policies import STEP
from tasks.run_log import run_log
from tasks.secrets import git_credentials


@task(name="resolve source", task_run_name="resolve source", **STEP)
def resolve_source(request: PublishRequest) -> source.ResolvedSource:
    """One commit for all branches; what the build needs of it is looked up before anything is built."""
    with run_log() as log:
        credentials = git_credentials(request.source_credentials)
        built = request.builder is not BuilderName.PREBUILT
        files = (request.context, request.dockerfile_in_source) if built else ()
        found = source.resolve(request.source, request.ref, files=files, credentials=credentials)
        named = "" if found.ref == found.commit else f"{found.ref}, "
        log.info("the source is %s, %scommit %s", found.url, named, found.commit)
        return found


@task(name="fetch source", task_run_name="fetch source {work.request.platform}", **STEP)
def fetch_source(work: branch.Branch) -> Path:
    """The files of the commit, on this worker."""
    with run_log():
        return branch.check_out(work, credentials=git_credentials(work.request.source_credentials))


def is_ancestor(request: PublishRequest, older: str, newer: str) -> bool | None:
    """Whether one commit of the source comes before another; None where that cannot be known."""
    try:
        return source.is_ancestor(request.source, older, newer, credentials=git_credentials(request.source_credentials))
    except SourceError as error:
        if error.temporary:
            raise
        return None
