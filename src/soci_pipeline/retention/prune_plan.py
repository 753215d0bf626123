"""Plans what to delete from a repository, from a graph of its manifests and the rules, before anything is deleted.

This module uses no network and no clock. A kept manifest keeps others along four kinds of edges: from an index to its
entries, from an image to the SOCI index in its annotation, from a manifest to its referrers (v1 SOCI indexes,
signatures, provenance), and from a referrer to its subject. The registry itself removes unused blobs.
"""

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.validation import in_one_line, problems_of

UNDATED = "it has no creation time"
"""Reason for a tag that is kept because its age is unknown, which the rules by age cannot judge."""
CACHE_DAYS = 30
"""Default number of days that a build cache is kept after its newest layer was built."""
MOST_DAYS = 100_000
"""Maximum age in a rule, in days; longer ages would exceed the range of Python's dates."""
_SHOWN = 10
# distribution-spec, "Referrers Tag Schema"; cosign's tags add a suffix.
_ATTACHED_TAG = re.compile(r"sha256-([0-9a-f]{64})(\.[A-Za-z0-9._-]+)?\Z")


@dataclass(frozen=True, slots=True)
class Node:
    """One manifest; ``children`` are the manifests it requires: an index's entries, an image's v2 SOCI index.

    ``is_cache`` marks the build cache of a branch, which is not an image and has a separate retention rule.
    """

    digest: Digest
    children: tuple[Digest, ...] = ()
    subject: Digest | None = None
    created: datetime | None = None
    is_cache: bool = False


@dataclass(frozen=True, slots=True)
class RepositoryGraph:
    """The tags of a repository and the manifests that are reachable from them or were given by digest."""

    tags: Mapping[str, Digest]
    nodes: Mapping[Digest, Node]


TagPattern = Annotated[str, Field(max_length=200)]
"""A pattern for `fnmatch`, which does not backtrack over `*`: the lengths of pattern and tag bound its time."""


class KeepRules(BaseModel):
    """Rules for what to keep; a tag stays if any rule matches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tags: tuple[TagPattern, ...] = Field(default=(), max_length=100, description="Patterns of tags, with * and ?.")
    latest: int = Field(default=0, ge=0, description="Number of newest images, by their time of creation.")
    younger_than: timedelta | None = Field(default=None, description="Images created less than this before now.")
    digests: frozenset[Digest] = Field(default=frozenset(), description="Digests in use, for example by services.")
    caches_younger_than: timedelta = Field(
        default=timedelta(days=CACHE_DAYS),
        description="Time to keep a build cache after its newest layer was built.",
    )

    @model_validator(mode="after")
    def _something_is_kept(self) -> Self:
        if not (self.tags or self.latest or self.younger_than or self.digests):
            raise ValueError("there is no rule for what to keep, so everything would be deleted")
        return self

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Create the rules; raise `InvalidInput` if they are not valid."""
        try:
            return cls(**values)
        except ValidationError as error:
            advice = (
                "Add a rule: a pattern of tags (`--keep`), a number of the latest (`--keep-latest`), an age in "
                "days (`--keep-days`), or digests in use (`--keep-in-use`); a flow's parameters are `keep`, "
                "`keep_latest`, `keep_days` and `keep_in_use`."
            )
            raise InvalidInput(
                f"not a valid retention rule: {in_one_line(problems_of(error))}", advice=advice
            ) from error


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What to delete, in order: the tags in ``untag``, whose manifests stay, then ``rounds`` of manifests with tags.

    At no point does a remaining tag lack a part: no manifest is a part of another one in the same or a later round.
    ``reasons`` has a line for each tag and digest.
    """

    kept_tags: tuple[str, ...]
    kept_manifests: tuple[Digest, ...]
    untag: tuple[str, ...]
    deleted_tags: tuple[str, ...]
    rounds: tuple[tuple[Digest, ...], ...]
    reasons: Mapping[str, str] = field(default_factory=dict)
    caches: frozenset[str] = frozenset()
    """Tags and digests that are build caches."""

    @property
    def manifests(self) -> tuple[Digest, ...]:
        """Digests of the manifests to delete, in order."""
        return tuple(digest for each in self.rounds for digest in each)

    @property
    def kept(self) -> list[str]:
        """Tags and digests to keep."""
        return [*self.kept_tags, *self.kept_manifests]

    @property
    def deleted(self) -> list[str]:
        """Tags and digests to delete, in order."""
        return [*self.untag, *self.deleted_tags, *self.manifests]

    def reject_emptying(self, repository: str) -> None:
        """Raise `InvalidInput` if all images would be deleted, as with a mistyped pattern or only a rule by age."""
        images = [tag for tag in self.deleted_tags if tag not in self.caches]
        if images and not set(self.kept) - self.caches:
            shown = ", ".join(images[:_SHOWN]) + (", …" if len(images) > _SHOWN else "")
            raise InvalidInput(
                f"the rules keep nothing of {repository}, so all of it would be deleted",
                advice=f"Check the rules, or also keep the latest images; the existing tags are: {shown}.",
            )


def attached_to(tag: str) -> Digest | None:
    """Return the digest that a fallback tag for referrers or a cosign tag belongs to; None for other tags.

    Such a tag does not keep anything by itself.
    """
    match = _ATTACHED_TAG.match(tag)
    return Digest(f"sha256:{match[1]}") if match else None


def plan_prune(graph: RepositoryGraph, rules: KeepRules, *, now: datetime) -> PrunePlan:
    """Decide which tags and manifests to keep and delete; ``now`` must have a time zone."""
    deploy = {tag: digest for tag, digest in graph.tags.items() if attached_to(tag) is None}
    reasons: dict[str, str] = _kept_tags(graph, deploy, rules, now)
    edges = _Edges.of(graph)
    kept = _reachable({deploy[tag]: f"under the tag {tag}" for tag in reasons}, rules, graph, edges)
    _keep_attached(graph, kept, reasons)
    deleted = [digest for digest in graph.nodes if digest not in kept]
    untag = sorted(tag for tag, digest in graph.tags.items() if tag not in reasons and digest in kept)
    gone = sorted(tag for tag, digest in graph.tags.items() if tag not in reasons and digest not in kept)
    kept_tags = tuple(sorted(reasons))
    reasons |= dict.fromkeys(untag, "no rule keeps this tag; another tag needs its manifest")
    reasons |= dict.fromkeys(gone, "no rule keeps this tag")
    old = f"a build cache older than {rules.caches_younger_than}"
    reasons |= {tag: old for tag in gone if (node := graph.nodes.get(graph.tags[tag])) is not None and node.is_cache}
    reasons |= {str(digest): why for digest, why in kept.items()}
    reasons |= {str(digest): "no kept tag needs it" for digest in deleted}
    return PrunePlan(
        kept_tags=kept_tags,
        kept_manifests=tuple(sorted(digest for digest in graph.nodes if digest in kept)),
        untag=tuple(untag),
        deleted_tags=tuple(gone),
        rounds=tuple(_in_deletion_order(deleted, graph, edges)),
        reasons=reasons,
        caches=_caches(graph),
    )


def _caches(graph: RepositoryGraph) -> frozenset[str]:
    digests = {digest for digest, node in graph.nodes.items() if node.is_cache}
    return frozenset({*map(str, digests), *(tag for tag, digest in graph.tags.items() if digest in digests)})


def _kept_tags(graph: RepositoryGraph, deploy: Mapping[str, Digest], rules: KeepRules, now: datetime) -> dict[str, str]:
    newest = _newest(graph, deploy, rules.latest)
    reasons = {}
    for tag, digest in sorted(deploy.items()):
        why = _why_kept(tag, graph.nodes.get(digest), rules, now)
        if why is None and digest in newest:
            why = f"one of the {rules.latest} newest images"
        if why in (None, UNDATED) and digest in rules.digests:
            why = "its digest is in use"
        if why is not None:
            reasons[tag] = why
    return reasons


def _why_kept(tag: str, node: Node | None, rules: KeepRules, now: datetime) -> str | None:
    for pattern in rules.tags:
        if fnmatch.fnmatchcase(tag, pattern):
            return f"matches the pattern {pattern}"
    if node is not None and node.is_cache:
        return _why_cache_kept(node, rules, now)
    if rules.younger_than is None and not rules.latest:
        return None
    # An image of unknown age may be the newest one.
    if node is None or node.created is None:
        return UNDATED
    if rules.younger_than is not None and now - node.created < rules.younger_than:
        return f"younger than {rules.younger_than}"
    return None


def _why_cache_kept(node: Node, rules: KeepRules, now: datetime) -> str | None:
    if node.created is None:
        return f"a build cache; {UNDATED}"
    is_young = now - node.created < rules.caches_younger_than
    return f"a build cache younger than {rules.caches_younger_than}" if is_young else None


def _newest(graph: RepositoryGraph, deploy: Mapping[str, Digest], count: int) -> frozenset[Digest]:
    dated = {
        digest: created
        for digest in deploy.values()
        if (node := graph.nodes.get(digest)) is not None and (created := node.created) is not None
        if not node.is_cache
    }
    return frozenset(sorted(dated, key=lambda digest: (dated[digest], digest), reverse=True)[:count])


@dataclass(frozen=True, slots=True)
class _Edges:
    """The referrers of each digest, including the manifests of fallback and cosign tags that belong to it."""

    referrers: Mapping[Digest, tuple[Digest, ...]]

    @classmethod
    def of(cls, graph: RepositoryGraph) -> Self:
        referrers: dict[Digest, list[Digest]] = {}
        for node in graph.nodes.values():
            if node.subject is not None:
                referrers.setdefault(node.subject, []).append(node.digest)
        for tag, digest in graph.tags.items():
            subject = attached_to(tag)
            if subject is not None:
                referrers.setdefault(subject, []).append(digest)
        return cls({subject: tuple(sorted(set(each))) for subject, each in referrers.items()})

    def of_kept(self, digest: Digest, node: Node | None) -> Iterable[tuple[Digest, str]]:
        """Yield what a kept manifest keeps, with the reason; without a ``node``, only its referrers."""
        for referrer in self.referrers.get(digest, ()):
            yield referrer, f"refers to {digest}"
        if node is None:
            return
        for child in node.children:
            yield child, f"part of {digest}"
        if node.subject is not None:
            yield node.subject, f"the subject of {digest}"


def _reachable(
    roots: Mapping[Digest, str], rules: KeepRules, graph: RepositoryGraph, edges: _Edges
) -> dict[Digest, str]:
    """Return all digests that are kept, with the reason; they include digests that are not in the graph."""
    kept: dict[Digest, str] = {}
    waiting = [*roots.items(), *((digest, "its digest is in use") for digest in sorted(rules.digests))]
    while waiting:
        digest, why = waiting.pop()
        if digest in kept:
            continue
        kept[digest] = why
        waiting += edges.of_kept(digest, graph.nodes.get(digest))
    return kept


def _keep_attached(graph: RepositoryGraph, kept: Mapping[Digest, str], reasons: dict[str, str]) -> None:
    for tag in graph.tags:
        subject = attached_to(tag)
        if subject is not None and subject in kept:
            reasons[tag] = f"belongs to {subject}"


def _in_deletion_order(
    deleted: Sequence[Digest], graph: RepositoryGraph, edges: _Edges
) -> Iterator[tuple[Digest, ...]]:
    """Yield rounds of manifests to delete: parents before children, and subjects before their referrers.

    If the two contradict (an index that lists its own subject), only the first counts, because any manifest may have a
    tag, which must never lack a part. Within a round, manifests are sorted by digest, so that plans are reproducible.
    """
    doomed = set(deleted)
    parents: dict[Digest, set[Digest]] = {digest: set() for digest in doomed}
    subjects: dict[Digest, set[Digest]] = {digest: set() for digest in doomed}
    for digest in doomed:
        for child in graph.nodes[digest].children:
            if child in doomed:
                parents[child].add(digest)
        for referrer in edges.referrers.get(digest, ()):
            if referrer in doomed and referrer != digest:
                subjects[referrer].add(digest)
    gone: set[Digest] = set()
    left = sorted(doomed)
    while left:
        free = [each for each in left if parents[each] <= gone]
        ready = [each for each in free if subjects[each] <= gone] or free[:1]
        yield tuple(ready)
        gone |= set(ready)
        left = [each for each in left if each not in gone]
