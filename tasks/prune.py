"""Retention: read the repository, plan, and delete while no publication moves its tags.

Reading and deleting are one task on purpose: a retry must plan again from the current content.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from prefect import task

from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.retention.prune import Pruned
from soci_pipeline.retention.prune import prune as prune_repository
from soci_pipeline.retention.prune_plan import KeepRules
from soci_pipeline.retention.repository_use import in_use_by_ecs
from tasks.policies import STEP
from tasks.run_log import run_log
from tasks.tags import check_own_state, tag_lock

if TYPE_CHECKING:
    import boto3


@task(name="read ECS usage", task_run_name="read ECS usage", **STEP)
def in_use(
    client: RegistryClient, repository: ImageReference, clusters: Sequence[str], aws: "boto3.Session | None" = None
) -> frozenset[Digest]:
    """The digests that the clusters use."""
    with run_log():
        return in_use_by_ecs(client, repository, clusters, aws=aws)


@task(name="prune", task_run_name="prune", **STEP)
def prune(
    client: RegistryClient,
    repository: ImageReference,
    rules: KeepRules,
    *,
    consider: Sequence[Digest],
    untagged_for: timedelta | None,
    dry_run: bool,
    aws: "boto3.Session | None" = None,
) -> Pruned:
    """Delete what no rule keeps; raises `RepositoryChanged` where a tag moved in between, and then nothing went."""
    with run_log() as log, tag_lock(repository):
        done = prune_repository(
            client,
            repository,
            rules,
            consider=consider,
            untagged_for=untagged_for,
            aws=aws,
            dry_run=dry_run,
            confirm=check_own_state,
        )
        for name in done.deleted:
            log.info("%s %s: %s", "would delete" if done.dry_run else "deleted", name, done.reasons[name])
        return done
