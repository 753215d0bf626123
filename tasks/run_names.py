"""Names of flow runs: their subject, and a suffix that distinguishes runs of one image."""

from collections.abc import Callable, Mapping
from typing import Any

from prefect.runtime import flow_run

from soci_pipeline.publish.request import BranchRequest
from tasks.form import LEFT_OUT

_LONGEST = 200


def named_after(parameter: str) -> Callable[[], str]:
    """Name a run after a parameter, unvalidated."""
    return lambda: _marked(_given(flow_run.get_parameters(), parameter) or f"no {parameter}")


def publication_name() -> str:
    """Name a publication by its image, source and ref."""
    return _marked(name_of(flow_run.get_parameters()))


def name_of(parameters: Mapping[str, Any]) -> str:
    """Return the short name of a publication, for lists. The parameters are not validated yet."""
    image, source, ref = (_given(parameters, name) for name in ("image", "source", "ref"))
    repository = image.partition("/")[2] or image or "no image"
    # `git@host:path` and a folder have no scheme.
    return f"{repository} from {source.rpartition('://')[2] or 'no source'} {ref}".strip()


def branch_name() -> str:
    """Name a branch by its platform, image and commit."""
    branch: BranchRequest = flow_run.get_parameters()["branch"]
    return _marked(f"{branch.platform} {branch.image.repository} {branch.source.commit[:12]}")


def _given(parameters: Mapping[str, Any], name: str) -> str:
    value = parameters.get(name)
    return "" if value in (None, LEFT_OUT) else str(value)


def _marked(name: str) -> str:
    # The first digits of an id are a timestamp, which runs started together share.
    return f"{name[:_LONGEST]} #{str(flow_run.get_id())[-6:]}"
