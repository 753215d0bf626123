"""The source: resolved once by the parent, fetched by every branch."""

from collections.abc import Sequence
from pathlib import Path

from prefect import task

from soci_pipeline.git.ancestry import CommitOrder
from soci_pipeline.git.source import ResolvedSource, resolve
from soci_pipeline.publish import branch
from soci_pipeline.publish.source import Source
from tasks.policies import STEP
from tasks.run_log import run_log
from tasks.secrets import git_credentials


@task(name="resolve source", task_run_name="resolve source", **STEP)
def resolve_source(
    url: str, ref: str | None, files: Sequence[str] = (), credentials: str | None = None
) -> ResolvedSource:
    """One commit for all branches; the files that the build needs of it are looked up before anything is built.

    ``credentials`` names the place that holds them. Prefect draws the branches behind this task since its result's own
    texts are in their parameters; it does not look for those of a record inside the result.
    """
    with run_log() as log:
        found = resolve(url, ref, files=files, credentials=git_credentials(credentials))
        named = "" if found.ref == found.commit else f"{found.ref}, "
        log.info("the source is %s, %scommit %s", found.url, named, found.commit)
        return found


@task(name="fetch source", task_run_name="fetch source {work.request.platform}", **STEP)
def fetch_source(work: branch.Branch) -> Path:
    """The files of the commit, on this worker."""
    with run_log():
        return branch.check_out(work, credentials=git_credentials(work.request.source_credentials))


def ancestry_of(source: Source) -> CommitOrder:
    """Return the history of the source; several tasks of a publication use it, but each pair is looked up once."""
    return CommitOrder(source.commit.url, lambda: git_credentials(source.credentials))
