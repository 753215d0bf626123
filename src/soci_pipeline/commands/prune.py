"""Delete everything from a repository that no kept tag needs: tags, images, SOCI indexes, attestations and referrers.

At least one rule is required. A tag is kept if any rule matches; everything that it needs, and everything that refers
to that, is kept with it. --dry-run shows the plan. Images are deleted before their parts, so that no tag ever has
missing parts; layers and zTOCs are blobs, which the registry removes once no manifest refers to them. For build caches
(the parameter `cache: registry` of a publication), only --keep and --cache-days apply. On ECR, ECR's own API deletes.
--in-use-ecs also keeps what ECS runs or would start; if a cluster cannot be read, nothing is deleted. Do not run it
during a publication of the same image: content that the publication found in the registry could be deleted.

Exit statuses: 0 done, or planned; 3 no rule, an invalid one, or rules that keep nothing; 10 to 12 the registry rejects
the request (deletion may be disabled), does not answer, or requires other credentials; 18 tags changed after the plan
was made, and nothing was deleted.
"""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import FILE_PATH, Arguments, command
from soci_pipeline.commands.numbers import quantity, whole
from soci_pipeline.commands.registry_access import client_for, registry_options, repository_of
from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.retention.prune import Pruned, prune
from soci_pipeline.retention.prune_plan import CACHE_DAYS, MOST_DAYS, UNDATED, KeepRules
from soci_pipeline.retention.repository_use import in_use_by_ecs
from soci_pipeline.text import counted

_DAYS = quantity("days", least=0.001, most=MOST_DAYS)


@command(__doc__)
@click.argument("repository", metavar="REPOSITORY", help="the repository, without a tag")
@click.option("--keep", multiple=True, metavar="PATTERN", help="tags to keep, with * and ?; may be repeated")
@click.option("--keep-latest", type=whole(least=0), default=0, metavar="N", help="keep the N newest images")
@click.option("--keep-days", type=_DAYS, metavar="DAYS", help="keep images created in the last DAYS days")
@click.option(
    "--cache-days",
    type=_DAYS,
    default=CACHE_DAYS,
    metavar="DAYS",
    help="keep build caches for DAYS days after their newest layer was built",
)
@click.option(
    "--keep-in-use",
    type=FILE_PATH,
    metavar="FILE",
    help="keep these digests: a file with one digest, or reference with a digest, a line",
)
@click.option(
    "--consider",
    type=FILE_PATH,
    metavar="FILE",
    help="also consider these untagged digests, for example those that an interrupted run left behind",
)
@click.option(
    "--in-use-ecs",
    multiple=True,
    metavar="CLUSTER",
    help="keep images used by services and tasks of this ECS cluster (a name, an ARN, or * for all); may be repeated",
)
@click.option(
    "--untagged-days",
    type=_DAYS,
    metavar="DAYS",
    help="ECR: also consider untagged manifests that were pushed more than DAYS days ago",
)
@click.option("--dry-run", is_flag=True, help="show the plan and delete nothing")
@registry_options
def run(arguments: Arguments) -> CommandResult:
    reference = repository_of(arguments.repository)
    with client_for(arguments, reference) as client:
        rules = KeepRules.of(
            tags=tuple(arguments.keep),
            latest=arguments.keep_latest,
            younger_than=_days(arguments.keep_days),
            digests=in_use_by_ecs(client, reference, arguments.in_use_ecs) | set(_digests(arguments.keep_in_use)),
            caches_younger_than=timedelta(days=arguments.cache_days),
        )
        done = prune(
            client,
            reference,
            rules,
            consider=_digests(arguments.consider),
            untagged_for=_days(arguments.untagged_days),
            dry_run=arguments.dry_run,
        )
    return CommandResult(json=done.model_dump(mode="json"), text=_text(done))


def _days(count: float | None) -> timedelta | None:
    return None if count is None else timedelta(days=count)


def _digests(path: Path | None) -> list[Digest]:
    if path is None:
        return []
    try:
        lines: Iterable[str] = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error
    wanted = (line.strip() for line in lines)
    return [Digest(line.rpartition("@")[2]) for line in wanted if line and not line.startswith("#")]


def _text(done: Pruned) -> str:
    verb = "would go" if done.dry_run else "gone"
    lines = [f"kept      {name}  ({done.reasons[name]})" for name in done.kept]
    lines += [f"{verb:<9} {name}  ({done.reasons[name]})" for name in done.deleted]
    # A digest contains a colon, a tag does not.
    manifests = sum(":" in name for name in done.deleted)
    tags = len(done.deleted) - manifests
    lines.append(f"{counted(tags, 'tag')} and {counted(manifests, 'manifest')} {verb}")
    undated = sum(done.reasons[name] == UNDATED for name in done.kept)
    return "\n".join([*lines, _about_undated(undated)] if undated else lines)


def _about_undated(tags: int) -> str:
    return (
        f"kept because the rules by age (--keep-latest, --keep-days) do not apply: {counted(tags, 'tag')}, whose "
        "images have no creation time; to delete some, list the tags to keep with --keep instead"
    )
