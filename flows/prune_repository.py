"""Retention for one repository: delete what no rule keeps, and never a part of what stays."""

from prefect import flow

from soci_pipeline.retention.parameters import PruneParameters
from soci_pipeline.retention.prune import Pruned
from soci_pipeline.settings import Settings
from tasks.artifacts import show_retention
from tasks.aws import connected, ecr_session
from tasks.failures import explained
from tasks.form import form
from tasks.prune import in_use, prune
from tasks.run_log import run_log
from tasks.run_names import named_after


@flow(name="prune-repository", flow_run_name=named_after("repository"))
@explained
@form(PruneParameters)
def prune_repository(request: PruneParameters) -> Pruned:
    """Delete images, SOCI indexes and attestations that no kept tag needs. By default it only says what would go."""
    image, settings = request.repository, Settings.from_environment()
    with run_log() as log, connected(image, settings) as client:
        aws = ecr_session(settings)
        used = in_use(client, image, request.in_use_ecs, aws) if request.in_use_ecs else frozenset()
        done = prune(
            client,
            image,
            request.rules(used),
            consider=request.consider,
            untagged_for=request.untagged_for,
            dry_run=request.dry_run,
            aws=aws,
        )
        log.info("%d %s, %d kept", len(done.deleted), "would go" if done.dry_run else "are gone", len(done.kept))
        show_retention(image, done)
        return done
