"""Retention for one repository: delete what no rule keeps, and never a part of what stays."""

from datetime import timedelta

from prefect import flow
from pydantic import NonNegativeInt, PositiveFloat

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.publish.retention.plan import KeepRules
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import Settings
from tasks.aws import connected
from tasks.prune import Pruned, prune
from tasks.run_log import run_log


@flow(name="prune-repository", flow_run_name="{repository}")
def prune_repository(
    repository: str,
    keep: list[str] = [],  # noqa: B006 - Prefect shows it in the form, and nothing changes it
    keep_latest: NonNegativeInt = 0,
    keep_days: PositiveFloat | None = None,
    keep_in_use: list[str] = [],  # noqa: B006 - as above
    consider: list[str] = [],  # noqa: B006 - as above
    dry_run: bool = True,
) -> Pruned:
    """Delete images, SOCI indexes and attestations that no kept tag needs. By default it only says what would go.

    Args:
        repository: The image's repository, as registry/repository without a tag.
        keep: Patterns of tags that stay, with * and ?.
        keep_latest: So many of the newest images stay.
        keep_days: Images created in the last so many days stay.
        keep_in_use: Digests, or references with a digest, that services run now.
        consider: Untagged digests to look at too, for example what a run that was cut short has left.
        dry_run: Say what would go, and delete nothing. Switch it off when the plan is right.

    """
    image = ImageReference.parse(repository)
    if image.target is not None:
        raise InvalidInput(f"{image} has a tag or digest", advice="Give the repository alone, and tags in `keep`.")
    rules = KeepRules.of(
        tags=tuple(keep),
        latest=keep_latest,
        younger_than=None if keep_days is None else timedelta(days=keep_days),
        digests=frozenset(_digests(keep_in_use)),
    )
    with run_log() as log, connected(image, Settings.from_environment()) as client:
        done = prune(client, image, rules, consider=_digests(consider), dry_run=dry_run)
        log.info("%d %s, %d stay", len(done.deleted), "would go" if dry_run else "are gone", len(done.kept))
        return done


def _digests(names: list[str]) -> list[Digest]:
    return [Digest(name.strip().rpartition("@")[2]) for name in names]
