"""Retention: reads a repository into a graph, plans (`soci_pipeline.retention.prune_plan`), and deletes by the plan.

The registry API lists tags and referrers, but no untagged manifests, so the graph contains what is reachable from tags
and from digests that the caller provides. Parents are deleted before children: an interrupted run leaves untagged
manifests, but never a tag with a missing part. Pass their digests to the next run as ``consider``.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from soci_pipeline.errors import DamagedContent, InvalidInput, TagConflict
from soci_pipeline.log import logger
from soci_pipeline.oci.annotations import CREATED, SOCI_INDEX_DIGEST
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest, parse
from soci_pipeline.oci.media_types import BUILDKIT_CACHE, DOCKER_CONFIG, IMAGE_INDEXES, IMAGE_MANIFESTS, OCI_CONFIG
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import BlobUnknown, ManifestUnknown, RegistryError
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.retention.prune_plan import KeepRules, Node, PrunePlan, RepositoryGraph, plan_prune
from soci_pipeline.retention.remover import OneByOne, Remover
from soci_pipeline.retention.repository_use import remover_for, untagged
from soci_pipeline.text import counted

if TYPE_CHECKING:
    import boto3

# BuildKit's annotation on each layer of a cache.
_LAYER_CREATED = "buildkit/createdat"
_NO_SUCH_OPERATION = frozenset({400, 404, 405, 501})
# Reproducible builds often set the epoch or zip's earliest date (1980), which do not say when an image was created.
_FIRST_BELIEVABLE = datetime(1981, 1, 1, tzinfo=UTC)


class RepositoryChanged(TagConflict):
    """Tags changed between the plan and its execution; nothing was deleted."""

    default_advice = "Create a new plan, and prune while no publication of this image is running."


class Pruned(BaseModel):
    """Tags and digests that were kept and deleted, each with its reason; in a dry run, nothing was deleted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kept: tuple[str, ...]
    deleted: tuple[str, ...]
    reasons: dict[str, str]
    dry_run: bool


def prune(
    client: RegistryClient,
    image: ImageReference,
    rules: KeepRules,
    *,
    consider: Iterable[Digest] = (),
    untagged_for: timedelta | None = None,
    aws: "boto3.Session | None" = None,
    dry_run: bool = False,
    confirm: Callable[[], None] = lambda: None,
) -> Pruned:
    """Delete what no rule keeps from the repository of ``image``; a dry run only reports it.

    Untagged manifests are included if their digests are in ``consider``, or if ECR lists them as pushed longer than
    ``untagged_for`` ago. ``confirm`` is called right before anything is deleted, and may raise.

    Raises `InvalidInput` if the rules keep nothing, and what `read_repository` and `execute` raise.
    """
    graph = read_repository(
        client,
        image.repository,
        # Digests in use may have lost their tag, but share parts with tagged images.
        also=[*consider, *untagged(image, untagged_for, aws=aws), *sorted(rules.digests)],
        ages=bool(rules.latest or rules.younger_than),
    )
    made = plan_prune(graph, rules, now=datetime.now(UTC))
    made.reject_emptying(image.name)
    left: dict[str, str] = {}
    if not dry_run:
        confirm()
        left = execute(client, image.repository, graph, made, remover=remover_for(client, image, aws=aws))
    return Pruned(
        kept=(*made.kept, *left),
        deleted=tuple(name for name in made.deleted if name not in left),
        reasons=dict(made.reasons) | left,
        dry_run=dry_run,
    )


def read_repository(
    client: RegistryClient, repository: str, *, also: Iterable[Digest] = (), ages: bool = True
) -> RepositoryGraph:
    """Read the manifests that are reachable from a repository's tags, and everything that refers to them.

    ``also`` are untagged digests to consider; include those in use, so that their parts are known. With ``ages``, image
    configs are read if manifests do not say when they were created. Missing manifests are skipped. Raises
    `ManifestUnknown` if the repository does not exist, and `RegistryError` or `InvalidInput` if a manifest cannot be
    read, because its parts could not be protected.
    """
    reader = _Reader(client, repository, ages=ages)
    tags = _tags(client, repository)
    reader.read([*tags.values(), *also])
    return RepositoryGraph(tags=tags, nodes=reader.nodes)


def execute(
    client: RegistryClient,
    repository: str,
    graph: RepositoryGraph,
    plan: PrunePlan,
    *,
    remover: Remover | None = None,
) -> dict[str, str]:
    """Execute a plan; return the tags and digests that could not be deleted, with the reason.

    The tags are read again first; raises `RepositoryChanged` if they have changed. If the registry cannot delete a
    single tag, the tag stays; if it cannot delete manifests, `RegistryError` is raised.
    """
    if _tags(client, repository) != dict(graph.tags):
        raise RepositoryChanged(f"the tags of {repository} changed after the plan was made")
    hand: Remover = remover or OneByOne(client)
    left: dict[str, str] = {}
    for tag in plan.untag:
        try:
            hand.delete_tag(repository, tag)
        except RegistryError as error:
            if error.temporary or error.status not in _NO_SUCH_OPERATION:
                raise
            left[tag] = "the registry cannot remove a tag from a manifest that another tag needs"
    done = 0
    for each in plan.rounds:
        try:
            stayed = hand.delete_manifests(repository, each)
        except RegistryError as error:
            raise _cut_short(error, repository, plan, done) from error
        done += len(each) - len(stayed)
        left |= {str(digest): why for digest, why in stayed.items()}
        left |= {tag: stayed[digest] for tag, digest in graph.tags.items() if digest in stayed}
    logger().debug("%s: %s", repository, _summary_of(plan, left, done))
    return left


def _summary_of(plan: PrunePlan, left: Mapping[str, str], manifests: int) -> str:
    """Return how much was deleted, as text; a manifest is deleted with its tags."""
    untagged = sum(tag not in left for tag in plan.untag)
    tags = untagged + sum(tag not in left for tag in plan.deleted_tags)
    of_kept = f", {untagged} of them from manifests that are kept" if untagged else ""
    return f"deleted {counted(manifests, 'manifest')} and {counted(tags, 'tag')}{of_kept}"


def _cut_short(error: RegistryError, repository: str, plan: PrunePlan, done: int) -> RegistryError:
    if error.status == 405 or error.code == "UNSUPPORTED":
        advice = "Enable deletion in the registry, or use its own API."
    else:
        advice = f"Run it again with these digests to consider: {' '.join(plan.manifests[done:])}"
    return RegistryError(
        f"at least {done} of {len(plan.manifests)} manifests of {repository} were deleted, then: {error.reason}",
        code=error.code,
        status=error.status,
        url=error.url,
        temporary=error.temporary,
        advice=advice,
    )


def _tags(client: RegistryClient, repository: str) -> dict[str, Digest]:
    found = {}
    for tag in client.tags.list(repository):
        descriptor = client.manifests.head(repository, tag)
        if descriptor is not None:
            found[tag] = descriptor.digest
    return found


@dataclass(slots=True)
class _Reader:
    client: RegistryClient
    repository: str
    nodes: dict[Digest, Node]
    ages: bool

    def __init__(self, client: RegistryClient, repository: str, *, ages: bool) -> None:
        self.client, self.repository, self.nodes, self.ages = client, repository, {}, ages

    def read(self, start: Iterable[Digest]) -> None:
        waiting = list(start)
        seen: set[Digest] = set()
        children: dict[Digest, tuple[Digest, ...]] = {}
        while waiting:
            digest = waiting.pop()
            if digest in seen:
                continue
            seen.add(digest)
            document = self._document(digest)
            if document is None:
                continue
            children[digest] = _children(document)
            subject = document.subject.digest if document.subject else None
            is_cache = _is_cache(document)
            created = _cache_created(document) if is_cache else self._created(document)
            self.nodes[digest] = Node(digest, children[digest], subject, created, is_cache)
            waiting += children[digest]
            waiting += [subject] if subject else []
            waiting += [entry.digest for entry in self.client.referrers.list(self.repository, digest)]
        self._date_indexes()

    def _document(self, digest: Digest) -> ImageManifest | ImageIndex | None:
        try:
            descriptor, data = self.client.manifests.get(self.repository, digest)
        except ManifestUnknown:
            logger().warning("%s is listed in %s but does not exist", digest, self.repository)
            return None
        return parse(data, media_type=descriptor.media_type)

    def _created(self, document: ImageManifest | ImageIndex) -> datetime | None:
        said = document.annotations.get(CREATED)
        if said is not None:
            return _moment(said)
        if not self.ages or isinstance(document, ImageIndex):
            return None
        config = document.config
        return self._config_created(config) if config.media_type in {OCI_CONFIG, DOCKER_CONFIG} else None

    def _config_created(self, config: Descriptor) -> datetime | None:
        try:
            fields = json.loads(self.client.blobs.read(self.repository, config))
        except (BlobUnknown, DamagedContent, InvalidInput, RecursionError, ValueError) as error:
            logger().warning("cannot read the config %s, so the age of its image is unknown: %s", config.digest, error)
            return None
        created = fields.get("created") if isinstance(fields, Mapping) else None
        return _moment(created) if isinstance(created, str) else None

    def _date_indexes(self) -> None:
        """Date each index that does not say when it was created by its youngest image."""
        for digest, node in list(self.nodes.items()):
            if node.created is None and node.children:
                moments = [self.nodes[child].created for child in node.children if child in self.nodes]
                known = [moment for moment in moments if moment is not None]
                self.nodes[digest] = Node(digest, node.children, node.subject, max(known, default=None))


def _is_cache(document: ImageManifest | ImageIndex) -> bool:
    """Whether a document is a build cache, by its content, because a tag's name can be chosen freely."""
    parts = document.manifests if isinstance(document, ImageIndex) else (document.config,)
    return any(each.media_type == BUILDKIT_CACHE for each in parts)


def _cache_created(document: ImageManifest | ImageIndex) -> datetime | None:
    """Return when the newest layer of a build cache was built, or None if it is not known."""
    layers = document.manifests if isinstance(document, ImageIndex) else document.layers
    moments = [_moment(said) for layer in layers if (said := layer.annotations.get(_LAYER_CREATED))]
    return max((moment for moment in moments if moment is not None), default=None)


def _children(document: ImageManifest | ImageIndex) -> tuple[Digest, ...]:
    if isinstance(document, ImageIndex):
        return tuple(
            entry.digest for entry in document.manifests if entry.media_type in IMAGE_INDEXES | IMAGE_MANIFESTS
        )
    named = document.annotations.get(SOCI_INDEX_DIGEST)
    if named is None:
        return ()
    try:
        return (Digest(named),)
    except InvalidInput:
        # An invalid digest refers to nothing that could be kept.
        return ()


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment if moment >= _FIRST_BELIEVABLE else None
