"""The source: resolved once by the parent, fetched by every branch."""

import contextlib
import posixpath
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from prefect import task
from prefect.runtime import flow_run

from soci_pipeline.builders.builder import BuilderName
from soci_pipeline.errors import SourceError
from soci_pipeline.git import source
from soci_pipeline.git.ancestry import Ancestry, Answers
from soci_pipeline.publish import branch, tags
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
        files = (request.context, posixpath.join(request.context, request.dockerfile)) if built else ()
        found = source.resolve(request.source, request.ref, files=files, credentials=credentials)
        named = "" if found.ref == found.commit else f"{found.ref}, "
        log.info("the source is %s, %scommit %s", found.url, named, found.commit)
        return found


@task(name="fetch source", task_run_name="fetch source {work.request.platform}", **STEP)
def fetch_source(work: branch.Branch) -> Path:
    """The files of the commit, on this worker."""
    with run_log():
        return branch.check_out(work, credentials=git_credentials(work.request.source_credentials))


# What the publications of this process have looked up: the check before the build, and the move of the tags after it.
_ANSWERS: OrderedDict[str, Answers] = OrderedDict()
_MAX_PUBLICATIONS = 64


@contextlib.contextmanager
def ancestry(request: PublishRequest) -> Iterator[tags.Ancestry]:
    """Whether one commit of the source comes before another; None where that cannot be known.

    A flow run asks the source once for each pair of commits, in whichever of its tasks.
    """
    with Ancestry(
        request.source, lambda: git_credentials(request.source_credentials), answers=_answers(request)
    ) as ask:

        def answer(older: str, newer: str) -> bool | None:
            try:
                return ask(older, newer)
            except SourceError as error:
                if error.temporary:
                    raise
                return None

        yield answer


def _answers(request: PublishRequest) -> Answers:
    run_id = flow_run.get_id()
    if run_id is None:
        return {}
    answers = _ANSWERS.setdefault(f"{run_id} {request.source}", {})
    while len(_ANSWERS) > _MAX_PUBLICATIONS:
        _ANSWERS.popitem(last=False)
    return answers
