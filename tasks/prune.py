"""Retention: read the repository, plan, and delete while no publication moves its tags.

Reading and deleting are one step on purpose: a second attempt has to plan again, from what is there then.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prefect import task
from pydantic import BaseModel, ConfigDict

from soci_pipeline.oci.digest import Digest
from soci_pipeline.publish.image_parameters import PruneParameters
from soci_pipeline.publish.retention.plan import KeepRules, plan
from soci_pipeline.publish.retention.prune import execute, read_repository
from soci_pipeline.publish.retention.repository_use import in_use_by_ecs, remover_for, untagged
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from tasks.policies import STEP
from tasks.run_log import run_log
from tasks.tags import alone

if TYPE_CHECKING:
    import boto3


class Pruned(BaseModel):
    """Tags and digests that stay and that go, each with its reason; in a dry run nothing went."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kept: tuple[str, ...]
    deleted: tuple[str, ...]
    reasons: dict[str, str]
    dry_run: bool


@task(name="look at ECS", task_run_name="look at ECS", **STEP)
def in_use(
    client: RegistryClient, repository: ImageReference, clusters: Sequence[str], aws: "boto3.Session | None" = None
) -> frozenset[Digest]:
    """The digests that the clusters use."""
    with run_log():
        return in_use_by_ecs(client, repository, clusters, aws=aws)


@task(name="prune", task_run_name="prune", **STEP)
def prune(
    client: RegistryClient, request: PruneParameters, rules: KeepRules, aws: "boto3.Session | None" = None
) -> Pruned:
    """Delete what no rule keeps; raises `RepositoryChanged` where a tag moved in between, and then nothing went."""
    image = request.repository
    with run_log() as log, alone(image):
        graph = read_repository(
            client,
            image.repository,
            # What is in use and has no tag any more shares parts with what has one.
            also=[*request.consider, *untagged(image, request.untagged_for, aws=aws), *sorted(rules.digests)],
            ages=bool(rules.latest or rules.younger_than),
        )
        made = plan(graph, rules, now=datetime.now(UTC))
        made.refuse_emptying(image.name)
        left: dict[str, str] = {}
        if not request.dry_run:
            left = execute(client, image.repository, graph, made, remover=remover_for(client, image, aws=aws))
        gone = tuple(name for name in made.deleted if name not in left)
        for name in gone:
            log.info("%s %s: %s", "would delete" if request.dry_run else "deleted", name, made.reasons[name])
        reasons = dict(made.reasons) | left
        return Pruned(kept=(*made.kept, *left), deleted=gone, reasons=reasons, dry_run=request.dry_run)
