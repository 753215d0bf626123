"""The start of a publication through Prefect, and its dry run."""

from dataclasses import replace
from pathlib import Path

from soci_pipeline.errors import InvalidInput
from soci_pipeline.log import logger
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.publish.dry_run import Plan, plan_of, without_new_repository
from soci_pipeline.publish.local_run import prepared_commit, target_of
from soci_pipeline.publish.registries import connect
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.publish.run_names import waiting_name
from soci_pipeline.publish.secret_places import credentials_from, read_here
from soci_pipeline.publish.work_tree import below_top, read_work_tree
from soci_pipeline.remote_publish.readiness import DEPLOYMENT, Part, check_parts, parts_of
from soci_pipeline.settings import Settings


def remote_request(request: PublishRequest) -> PublishRequest:
    """Return the request in a form that workers can read: a folder is replaced by the top of its repository.

    Raises `InvalidInput` for a folder without a commit.
    """
    if not request.source.startswith("/"):
        return request
    tree = read_work_tree(Path(request.source))
    if tree.top is None or tree.head is None:
        raise InvalidInput(
            f"SOURCE {request.source!r} has no commit that a worker can read: {tree.why_uncommitted}",
            advice="Publish it from this machine with --local, or use the URL of a git repository.",
        )
    if tree.changes:
        logger().warning("not published, because workers read only commits: %s", tree.why_uncommitted)
    logger().warning("the workers must have the repository at the same path: %s", tree.top)
    return request.model_copy(update={"source": str(tree.top), "context": below_top(tree, request.context)})


def ready_parts(api: PrefectApi, request: PublishRequest) -> tuple[Part, ...]:
    """Check deployments, pools and workers before anything starts; raise `StackError` or `NoWorker`.

    With ``worker_wait`` a platform may have no worker yet, because the run waits for one.
    """
    parts = parts_of(api, request.platforms)
    waits = bool(request.worker_wait)
    check_parts([part for part in parts if not waits or part.deployment == DEPLOYMENT])
    for part in parts:
        if part.missing_requirement is not None:
            logger().warning("%s: %s. %s", part.what, part.missing_requirement, part.advice)
    return parts


def start(api: PrefectApi, request: PublishRequest) -> str:
    """Start the publication; return the id of its flow run."""
    given = request.model_dump(mode="json", exclude_unset=True, exclude={"context"})
    return api.create_run(DEPLOYMENT, given | {"context": request.context}, naming=waiting_name)


def plan_remote(api: PrefectApi, request: PublishRequest, settings: Settings) -> Plan:
    """Check what is possible from this machine, and list the pool and workers for each platform.

    This machine's credentials are used for the source and the registry; a worker's may differ. Raises as `plan_here`,
    `StackError` and `NoWorker`.
    """
    parts = ready_parts(api, request)
    place = request.source_credentials
    credentials = None if place is None else credentials_from(place, read_here)
    ready = prepared_commit(request, credentials)
    settings = without_new_repository(settings)
    builders = {part.what: _who(part) for part in parts if part.deployment != DEPLOYMENT}
    with connect(request.image, settings) as client:
        return replace(plan_of(ready, target_of(ready, client, settings), builders), runs_in=_who(parts[0]))


def _who(part: Part) -> str:
    workers = ", ".join(part.workers) or f"no worker yet: {part.missing_requirement}"
    return f"work pool {part.pool} ({workers})"
