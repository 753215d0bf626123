"""Retention: read the repository, plan, and delete while no publication moves its tags.

Reading and deleting are one step on purpose: a second attempt has to plan again, from what is there then.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from prefect import task
from pydantic import BaseModel, ConfigDict

from soci_pipeline.oci.digest import Digest
from soci_pipeline.publish.retention.plan import KeepRules, plan
from soci_pipeline.publish.retention.prune import execute, read_repository
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from tasks.policies import STEP
from tasks.run_log import run_log
from tasks.tags import alone


class Pruned(BaseModel):
    """Tags and digests that stay and that go, each with its reason; in a dry run nothing went."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kept: tuple[str, ...]
    deleted: tuple[str, ...]
    reasons: dict[str, str]
    dry_run: bool


@task(name="prune", task_run_name="prune", **STEP)
def prune(
    client: RegistryClient,
    repository: ImageReference,
    rules: KeepRules,
    *,
    consider: Sequence[Digest] = (),
    dry_run: bool = True,
) -> Pruned:
    """Delete what no rule keeps; raises `RepositoryChanged` where a tag moved in between, and then nothing went."""
    with run_log() as log, alone(repository):
        graph = read_repository(
            client,
            repository.repository,
            # What is in use and has no tag any more shares parts with what has one.
            also=[*consider, *sorted(rules.digests)],
            ages=bool(rules.latest or rules.younger_than),
        )
        made = plan(graph, rules, now=datetime.now(UTC))
        left = {} if dry_run else execute(client, repository.repository, graph, made)
        gone = tuple(name for name in made.deleted if name not in left)
        for name in gone:
            log.info("%s %s: %s", "would delete" if dry_run else "deleted", name, made.reasons[name])
        return Pruned(kept=(*made.kept, *left), deleted=gone, reasons=dict(made.reasons) | dict(left), dry_run=dry_run)
