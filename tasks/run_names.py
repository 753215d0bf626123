"""Names of flow runs: what each is about, and a mark by which two runs of one image differ."""

from collections.abc import Callable

from prefect.runtime import flow_run

from soci_pipeline.publish import run_names
from soci_pipeline.publish.request import BranchRequest


def named_after(parameter: str) -> Callable[[], str]:
    """Name a run after a parameter, as it was given: parameters are not checked yet."""
    return lambda: _marked(run_names.value_of(flow_run.get_parameters(), parameter) or f"no {parameter}")


def publication_name() -> str:
    """The image, its source and the ref that is published."""
    return _marked(run_names.publication_name(flow_run.get_parameters()))


def branch_name() -> str:
    """The platform, the image and the commit."""
    branch: BranchRequest = flow_run.get_parameters()["branch"]
    return _marked(f"{branch.platform} {branch.image.repository} {run_names.abbreviated(branch.source.commit)}")


def _marked(name: str) -> str:
    # The first digits of an id are a time, which runs that start together share.
    return run_names.marked(name, str(flow_run.get_id()))
