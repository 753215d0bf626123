"""Names of flow runs: what each is about, and a mark by which two runs of one image differ."""

from collections.abc import Callable
from typing import Any

from prefect.runtime import flow_run

from soci_pipeline.publish.request import BranchRequest
from tasks.form import LEFT_OUT

_LONGEST = 200


def named_after(parameter: str) -> Callable[[], str]:
    """Name a run after a parameter, as it was given: parameters are not checked yet."""
    return lambda: _marked(given(parameter) or f"no {parameter}")


def publication_name() -> str:
    """The image, its source and the ref that is published."""
    image, source = given("image"), given("source")
    repository = image.partition("/")[2] or image or "no image"
    # `git@host:path` and a folder have no scheme.
    return _marked(f"{repository} from {source.rpartition('://')[2] or 'no source'} {given('ref')}".strip())


def branch_name() -> str:
    """The platform, the image and the commit."""
    branch: BranchRequest = flow_run.get_parameters()["branch"]
    return _marked(f"{branch.platform} {branch.image.repository} {branch.source.commit[:12]}")


def given(name: str) -> str:
    """A parameter of this run as text; empty where it was not given."""
    value: Any = flow_run.get_parameters().get(name)
    return "" if value in (None, LEFT_OUT) else str(value)


def _marked(name: str) -> str:
    # The first digits of an id are a time, which runs that start together share.
    return f"{name[:_LONGEST]} #{str(flow_run.get_id())[-6:]}"
