"""Moving the deploy tags, the last step of a publication: each to the verified index, or not at all.

A tag that has the digest already is left alone, whatever the repository's rule; another digest under an immutable tag,
and a newer commit under a mutable one, are conflicts, found for all tags, those of single platforms too, before the
first is written. Registries have no compare-and-swap, so each tag is read again right before it is written, and the
caller holds the limit of one publication for an image reference at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from soci_pipeline.errors import InvalidInput, TagConflict
from soci_pipeline.log import logger
from soci_pipeline.oci.annotations import REVISION
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.manifest import parse
from soci_pipeline.publish.tag_names import check_tag
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.tag_mutability import TagMutability

IsAncestor = Callable[[str, str], bool | None]
"""Whether the first commit is an ancestor of the second; None where that cannot be known."""


class Outcome(StrEnum):
    """What became of one tag."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"


class TagRecord(BaseModel):
    """One tag after the move; ``previous`` is the digest that it had before, or None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tag: str
    digest: Digest
    previous: Digest | None
    outcome: Outcome


def move_tags(
    client: RegistryClient,
    repository: str,
    index: Descriptor,
    tags: Sequence[str],
    *,
    mutability: TagMutability | None = None,
    ancestry: IsAncestor | None = None,
    force: bool = False,
    others: Mapping[str, Descriptor] | None = None,
    confirm: Callable[[], None] = lambda: None,
) -> tuple[TagRecord, ...]:
    """Point ``tags`` at a manifest that is in the repository; returns one record a tag, in the order given.

    ``others`` are tags of other manifests that belong to it (each platform's own); their records come last. Immutable
    tags are written first, then mutable ones that are new, then mutable ones that move; among equals, ``others`` come
    before the index that they are a part of. ``ancestry`` None, or an unknown answer, means that the order of two
    commits does not matter. ``force`` lets an older commit replace a newer one; it moves no immutable tag. ``confirm``
    is called right before the first tag is written, when all else has been checked; it may raise.

    Raises `TagConflict` naming all conflicts, before anything is written, or where a tag changed in between;
    `ManifestUnknown` where a manifest is not in the repository; `InvalidInput` where two are to get one tag.
    """
    rule = mutability or TagMutability()
    targets = _targets(index, tags, others or {})
    manifests = {each.digest: client.manifests.get(repository, each.digest) for each in (index, *targets.values())}
    revision = _revision(manifests[index.digest][1])
    gate = _Gate(client, repository, rule, revision, None if force else ancestry)
    before = {tag: gate.current(tag) for tag in targets}
    _raise_conflicts([line for tag, each in targets.items() if (line := gate.conflict(tag, before[tag], each.digest))])
    confirm()
    records = {}

    def turn(tag: str) -> tuple[bool, bool, bool]:
        return rule.allows_moving(tag), before[tag] is not None, targets[tag].digest == index.digest

    for tag in sorted(targets, key=turn):
        records[tag] = _move(gate, tag, *manifests[targets[tag].digest])
        logger().info("tag %s: %s, %s", tag, records[tag].outcome, records[tag].digest)
    return tuple(records[tag] for tag in targets)


def _targets(index: Descriptor, tags: Sequence[str], others: Mapping[str, Descriptor]) -> dict[str, Descriptor]:
    """What each tag is to point at; the index's tags first."""
    targets = {check_tag(tag): index for tag in tags}
    for tag, manifest in others.items():
        if targets.setdefault(check_tag(tag), manifest).digest != manifest.digest:
            raise InvalidInput(f"the tag {tag} is asked for the image index and for the image of one platform")
    return targets


def _move(gate: "_Gate", tag: str, descriptor: Descriptor, data: bytes) -> TagRecord:
    # Somebody else may have moved it since the first look.
    current = gate.current(tag)
    previous = current.digest if current else None
    if previous == descriptor.digest:
        return TagRecord(tag=tag, digest=descriptor.digest, previous=previous, outcome=Outcome.UNCHANGED)
    if line := gate.conflict(tag, current, descriptor.digest):
        _raise_conflicts([line])
    gate.client.manifests.put(gate.repository, tag, data, descriptor.media_type)
    return TagRecord(tag=tag, digest=descriptor.digest, previous=previous, outcome=Outcome.WRITTEN)


def check_tags_before_build(
    client: RegistryClient,
    repository: str,
    tags: Sequence[str],
    *,
    revision: str,
    mutability: TagMutability | None = None,
    ancestry: IsAncestor | None = None,
    force: bool = False,
) -> None:
    """Raise `TagConflict` where it is plain before the build that a tag cannot be moved afterwards.

    An immutable tag whose image was made from the same commit is no conflict yet: the build may well give the same
    digest. A repository that is not there yet has no tags.
    """
    rule = mutability or TagMutability()
    gate = _Gate(client, repository, rule, revision, None if force else ancestry)
    lines = []
    for tag in dict.fromkeys(check_tag(tag) for tag in tags):
        current = gate.current(tag)
        if current is None:
            continue
        there = gate.revision_of(current)
        if not rule.allows_moving(tag) and there != revision:
            lines.append(f"{tag} is immutable and holds {current.digest}, made from {there or 'an unknown commit'}")
        elif line := gate.newer_conflict(tag, current):
            lines.append(line)
    _raise_conflicts(lines)


class _Gate:
    """The rules for one publication; remembers the commit of each digest that it read, and the order of commits."""

    def __init__(
        self,
        client: RegistryClient,
        repository: str,
        rule: TagMutability,
        revision: str | None,
        ancestry: IsAncestor | None,
    ) -> None:
        self.client = client
        self.repository = repository
        self._rule = rule
        self._revision = revision
        self._ancestry = ancestry
        self._known: dict[Digest, str | None] = {}
        self._orders: dict[tuple[str, str], bool | None] = {}

    def current(self, tag: str) -> Descriptor | None:
        """What the tag points at now."""
        return self.client.manifests.head(self.repository, tag)

    def conflict(self, tag: str, current: Descriptor | None, wanted: Digest) -> str | None:
        """Why the tag may not move, or None."""
        if current is None or current.digest == wanted:
            return None
        if not self._rule.allows_moving(tag):
            return f"{tag} is immutable and holds {current.digest}, not {wanted}"
        return self.newer_conflict(tag, current)

    def newer_conflict(self, tag: str, current: Descriptor) -> str | None:
        """That the tag holds a newer commit, where that is a conflict."""
        if not self.is_newer(current):
            return None
        there = self.revision_of(current)
        return f"{tag} holds {current.digest} of commit {there}, which is newer than {self._revision}"

    def is_newer(self, current: Descriptor) -> bool:
        """Whether what is there was made from a descendant of our commit, as far as is known."""
        if self._ancestry is None or self._revision is None:
            return False
        there = self.revision_of(current)
        return there is not None and there != self._revision and self._descends(self._revision, there)

    def _descends(self, older: str, newer: str) -> bool:
        """Whether the second commit is known to come after the first; each pair is asked about once."""
        if (older, newer) not in self._orders and self._ancestry is not None:
            self._orders[older, newer] = self._ancestry(older, newer)
        return self._orders.get((older, newer)) is True

    def revision_of(self, current: Descriptor) -> str | None:
        """The commit that a manifest says it was made from."""
        if current.digest not in self._known:
            _, data = self.client.manifests.get(self.repository, current.digest)
            self._known[current.digest] = _revision(data)
        return self._known[current.digest]


def _raise_conflicts(lines: Sequence[str]) -> None:
    if lines:
        raise TagConflict(
            "no tag was moved further, because:\n" + "\n".join(f"  - {line}" for line in lines),
            advice="Publish under another tag (for example {short_sha}), or ask for the move with force where it is "
            "an older commit that shall replace a newer one.",
        )


def _revision(data: bytes) -> str | None:
    return parse(data).annotations.get(REVISION)
