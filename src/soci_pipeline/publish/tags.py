"""Move the deploy tags, the last step of a publication: each to the verified index, or none at all.

A tag that already has the digest is not changed, whatever the repository's rule. Another digest under an immutable tag,
and a newer commit under a mutable one, are conflicts; they are found for all tags, including those of single platforms,
before the first is written. Registries have no compare-and-swap, so each tag is read again right before it is written,
and the caller holds the limit of one publication per image reference.
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
"""Whether the first commit is an ancestor of the second; None if that is unknown."""


class Outcome(StrEnum):
    """The result for one tag."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"


class TagRecord(BaseModel):
    """One tag after the move; ``previous`` is its earlier digest, or None."""

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
    """Point ``tags`` at a manifest in the repository; return one record per tag, in the given order.

    ``others`` are tags of other manifests that belong to it (each platform's own); their records come last. Immutable
    tags are written first, then new mutable ones, then mutable ones that move; among equals, ``others`` come before the
    index that they are part of. If ``ancestry`` is None or gives no answer, the order of two commits is not checked.
    ``force`` allows an older commit to replace a newer one; it moves no immutable tag. ``confirm`` is called right
    before the first tag is written, after all other checks; it may raise.

    Raises `TagConflict` naming all conflicts before anything is written, or if a tag changed in the meantime;
    `ManifestUnknown` if a manifest is not in the repository; `InvalidInput` if one tag is given twice.
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
    """Return the target of each tag; the index's tags first."""
    targets = {check_tag(tag): index for tag in tags}
    for tag, manifest in others.items():
        if targets.setdefault(check_tag(tag), manifest).digest != manifest.digest:
            raise InvalidInput(f"the tag {tag} is requested for both the image index and the image of one platform")
    return targets


def _move(gate: "_Gate", tag: str, descriptor: Descriptor, data: bytes) -> TagRecord:
    # Another client may have moved it since the first read.
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
    """Raise `TagConflict` if it is certain before the build that a tag cannot move.

    An immutable tag of the same commit is not a conflict yet, because the build may give the same digest. A repository
    that does not exist yet has no tags.
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
    """The rules for one publication; caches the commit of each digest and the order of commits."""

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
        """Return the current content of the tag."""
        return self.client.manifests.head(self.repository, tag)

    def conflict(self, tag: str, current: Descriptor | None, wanted: Digest) -> str | None:
        """Return why the tag must not move, or None."""
        if current is None or current.digest == wanted:
            return None
        if not self._rule.allows_moving(tag):
            return f"{tag} is immutable and holds {current.digest}, not {wanted}"
        return self.newer_conflict(tag, current)

    def newer_conflict(self, tag: str, current: Descriptor) -> str | None:
        """Return the conflict with a newer commit under the tag, if there is one."""
        if not self.is_newer(current):
            return None
        there = self.revision_of(current)
        return f"{tag} holds {current.digest} of commit {there}, which is newer than {self._revision}"

    def is_newer(self, current: Descriptor) -> bool:
        """Whether the current image was built from a descendant of our commit, as far as is known."""
        if self._ancestry is None or self._revision is None:
            return False
        there = self.revision_of(current)
        return there is not None and there != self._revision and self._descends(self._revision, there)

    def _descends(self, older: str, newer: str) -> bool:
        """Whether the second commit is known to be newer than the first; each pair is looked up once."""
        if (older, newer) not in self._orders and self._ancestry is not None:
            self._orders[older, newer] = self._ancestry(older, newer)
        return self._orders.get((older, newer)) is True

    def revision_of(self, current: Descriptor) -> str | None:
        """Return the commit that a manifest names as its source."""
        if current.digest not in self._known:
            _, data = self.client.manifests.get(self.repository, current.digest)
            self._known[current.digest] = _revision(data)
        return self._known[current.digest]


def _raise_conflicts(lines: Sequence[str]) -> None:
    if lines:
        raise TagConflict(
            "Stopped moving tags:\n" + "\n".join(f"  - {line}" for line in lines),
            advice="Use another tag (for example {short_sha}), or set `force` if an older commit is to replace a "
            "newer one.",
        )


def _revision(data: bytes) -> str | None:
    return parse(data).annotations.get(REVISION)
