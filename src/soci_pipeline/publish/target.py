"""The target of a publication, created once before the build and read by every later step."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.publish.registries import check_push
from soci_pipeline.publish.tag_names import TagNames
from soci_pipeline.publish.tags import IsAncestor, TagRecord, check_tags_before_build, move_tags
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.tag_mutability import TagMutability
from soci_pipeline.soci.index.records import PlatformImage


@dataclass(frozen=True, slots=True)
class Target:
    """A repository, its client, and the tags to move.

    ``ancestry`` opens the history of the source and compares two commits. ``force`` allows an older commit to replace a
    newer one.
    """

    image: ImageReference
    client: RegistryClient
    names: TagNames
    ancestry: Callable[[], AbstractContextManager[IsAncestor]]
    mutability: TagMutability = field(default_factory=TagMutability)
    force: bool = False

    def check(self, revision: str) -> None:
        """Raise the error that a push or a tag move is certain to end with. Nothing is stored.

        Raises as `check_push` and `check_tags_before_build`.
        """
        check_push(self.client, self.image.repository)
        with self.ancestry() as is_ancestor:
            check_tags_before_build(
                self.client,
                self.image.repository,
                self.names.tags,
                revision=revision,
                mutability=self.mutability,
                ancestry=is_ancestor,
                force=self.force,
            )

    def move_tags(
        self, index: Descriptor, images: Sequence[PlatformImage], *, confirm: Callable[[], None]
    ) -> tuple[TagRecord, ...]:
        """Point the tags at ``index``, and the tags of single platforms at their images; raise as `tags.move_tags`."""
        with self.ancestry() as is_ancestor:
            return move_tags(
                self.client,
                self.image.repository,
                index,
                self.names.tags,
                mutability=self.mutability,
                ancestry=is_ancestor,
                force=self.force,
                others={
                    own[image.platform.normalised()]: image.manifest
                    for own in self.names.of_platforms
                    for image in images
                },
                confirm=confirm,
            )
