"""Names of flow runs: their subject, and a suffix that distinguishes runs of one image."""

from collections.abc import Callable

from prefect.runtime import flow_run

from soci_pipeline.publish import run_names
from soci_pipeline.publish.request import BranchRequest


def named_after(parameter: str) -> Callable[[], str]:
    """Name a run after a parameter, unvalidated."""
    return lambda: _marked(run_names.value_of(flow_run.get_parameters(), parameter) or f"no {parameter}")


def publication_name() -> str:
    """Name a publication by its image, source and ref."""
    return _marked(run_names.publication_name(flow_run.get_parameters()))


def branch_name() -> str:
    """Name a branch by its platform, image and commit."""
    branch: BranchRequest = flow_run.get_parameters()["branch"]
    return _marked(f"{branch.platform} {branch.image.repository} {run_names.abbreviated(branch.source.commit)}")


def _marked(name: str) -> str:
    # The first digits of an id are a timestamp, which runs started together share.
    return run_names.marked(name, str(flow_run.get_id()))
