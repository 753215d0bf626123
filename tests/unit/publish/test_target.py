"""The target of a publication: one record that checks the tags before the build and moves them after it."""

from contextlib import nullcontext

import pytest

from soci_pipeline.errors import TagConflict
from soci_pipeline.oci.annotations import REVISION
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.publish.tag_names import TagNames
from soci_pipeline.publish.target import Target
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.tag_mutability import TagMutability
from soci_pipeline.soci.index.records import PlatformImage
from tests.support.images import AMD64, ARM64, add_image
from tests.support.published import REPOSITORY, upload

OLD, NEW = "1" * 40, "2" * 40
TAGS = TagNames(("v1", "main"), ({AMD64: "v1-amd64", ARM64: "v1-arm64"}, {AMD64: "main-amd64", ARM64: "main-arm64"}))


def _target(client: RegistryClient, names: TagNames = TAGS, *, force: bool = False, rule: str = "MUTABLE") -> Target:
    image = ImageReference(client.registry, REPOSITORY)
    return Target(
        image,
        client,
        names,
        lambda: nullcontext(lambda older, newer: (older, newer) == (OLD, NEW)),
        TagMutability.of(rule),
        force,
    )


def _published(client: RegistryClient, layout: Layout, revision: str) -> tuple[Descriptor, list[PlatformImage]]:
    entries = [add_image(layout, platform) for platform in (AMD64, ARM64)]
    index = layout.add_document(ImageIndex(manifests=tuple(entries), annotations={REVISION: revision}))
    upload(client, layout, index)
    platforms = (AMD64, ARM64)
    images = [
        PlatformImage(platform=platform, manifest=entry, soci_index=None, layers=())
        for platform, entry in zip(platforms, entries, strict=True)
    ]
    return index, images


def test_the_tags_of_the_index_and_of_each_platform_move_together(client: RegistryClient, layout: Layout) -> None:
    target = _target(client)
    index, images = _published(client, layout, NEW)
    target.check(NEW)
    records = target.move_tags(index, images, confirm=lambda: None)
    digests = {AMD64: images[0].manifest.digest, ARM64: images[1].manifest.digest}
    assert [(each.tag, each.digest) for each in records] == [
        ("v1", index.digest),
        ("main", index.digest),
        ("v1-amd64", digests[AMD64]),
        ("v1-arm64", digests[ARM64]),
        ("main-amd64", digests[AMD64]),
        ("main-arm64", digests[ARM64]),
    ]


def test_an_older_commit_is_rejected_by_the_check_and_by_the_move(client: RegistryClient, layout: Layout) -> None:
    names = TagNames(("v1",))
    newer, _ = _published(client, layout, NEW)
    _target(client, names).move_tags(newer, (), confirm=lambda: None)
    older, _ = _published(client, layout, OLD)
    with pytest.raises(TagConflict, match="newer"):
        _target(client, names).check(OLD)
    with pytest.raises(TagConflict, match="newer"):
        _target(client, names).move_tags(older, (), confirm=lambda: None)
    forced = _target(client, names, force=True)
    forced.check(OLD)
    assert [each.digest for each in forced.move_tags(older, (), confirm=lambda: None)] == [older.digest]


def test_the_rule_of_the_repository_counts_before_the_build_and_after_it(
    client: RegistryClient, layout: Layout
) -> None:
    names = TagNames(("v1",))
    before, _ = _published(client, layout, OLD)
    _target(client, names).move_tags(before, (), confirm=lambda: None)
    after, _ = _published(client, layout, NEW)
    immutable = _target(client, names, rule="IMMUTABLE")
    with pytest.raises(TagConflict, match="immutable"):
        immutable.check(NEW)
    with pytest.raises(TagConflict, match="immutable"):
        immutable.move_tags(after, (), confirm=lambda: None)


def test_the_caller_may_stop_the_move_before_the_first_tag_is_written(client: RegistryClient, layout: Layout) -> None:
    index, images = _published(client, layout, NEW)

    def stop() -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        _target(client).move_tags(index, images, confirm=stop)
    assert client.tags.list(REPOSITORY) == ()
