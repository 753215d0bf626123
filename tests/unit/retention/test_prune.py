"""Retention against a registry: both index versions, attestations, referrers by API and by fallback tag."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.annotations import CREATED
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import BUILDKIT_CACHE, OCI_CONFIG, OCI_EMPTY, OCI_LAYER_GZIP
from soci_pipeline.publish.join import join
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import ManifestUnknown, RegistryError
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.referrers import fallback_tag
from soci_pipeline.retention.prune import RepositoryChanged, execute, prune, read_repository
from soci_pipeline.retention.prune_plan import KeepRules, RepositoryGraph, plan_prune
from soci_pipeline.soci.index.records import PlatformImage
from tests.support import deviations
from tests.support.branches import branch_v1, branch_v2
from tests.support.images import AMD64, ARM64, add_image, gzip_layer
from tests.support.published import REPOSITORY, tag, upload
from tests.support.registries import AT_ONCE, registry, with_and_without_referrers
from tests.support.strange import strange

NOW = datetime(2026, 11, 24, tzinfo=UTC)


referrers_api = with_and_without_referrers


def release(client: RegistryClient, layout: Layout, name: str, *images: PlatformImage) -> Descriptor:
    for image in images:
        upload(client, layout, image.manifest, *([image.soci_index] if image.soci_index else []))
    index = layout.add_document(join(images, annotations={"release": name}, read=layout.read))
    tag(client, layout, index, name)
    return index


def attach(client: RegistryClient, layout: Layout, subject: Descriptor) -> Descriptor:
    document = ImageManifest(
        artifact_type="application/vnd.test.signature", config=layout.add_bytes(b"{}", OCI_EMPTY), subject=subject.plain
    )
    root = layout.add_document(document)
    upload(client, layout, root)
    return root


def pruned(client: RegistryClient, **rules: object) -> RepositoryGraph:
    graph = read_repository(client, REPOSITORY)
    execute(client, REPOSITORY, graph, plan_prune(graph, KeepRules.of(**rules), now=NOW))
    return graph


def test_what_is_left_is_whole_for_both_index_versions(client: RegistryClient, layout: Layout) -> None:
    kept = branch_v2(layout, AMD64, attested=True), branch_v1(layout, ARM64)
    old = branch_v2(layout, AMD64, attested=True, layers=[gzip_layer({"old": b"1"})]), kept[1]
    new_index, old_index = release(client, layout, "v2", *kept), release(client, layout, "v1", *old)
    signature, old_signature = attach(client, layout, new_index), attach(client, layout, old_index)

    pruned(client, tags=["v2"])

    assert old[0].soci_index is not None
    assert kept[0].soci_index is not None
    assert kept[1].soci_index is not None
    own = (old_index, old[0].manifest, old[0].attestations[0], old[0].soci_index, old_signature)
    shared = (new_index, kept[0].manifest, kept[0].attestations[0], kept[0].soci_index, signature, kept[1].manifest)
    left = {
        each.digest for each in (*own, *shared, kept[1].soci_index) if client.manifests.head(REPOSITORY, each.digest)
    }
    assert left == {each.digest for each in (*shared, kept[1].soci_index)}
    assert [name for name in client.tags.list(REPOSITORY) if not name.startswith("sha256-")] == ["v2"]
    assert plan_prune(read_repository(client, REPOSITORY), KeepRules.of(tags=["v2"]), now=NOW).deleted == []


def test_a_fallback_tag_goes_with_its_subject(tmp_path: Path, layout: Layout) -> None:
    with registry(tmp_path / "old", referrers=False, settings=AT_ONCE) as client:
        gone = release(client, layout, "v1", branch_v1(layout, AMD64))
        image = branch_v1(layout, ARM64)
        release(client, layout, "v2", image)
        assert len([name for name in client.tags.list(REPOSITORY) if name.startswith("sha256-")]) == 2

        pruned(client, tags=["v2"])

        assert set(client.tags.list(REPOSITORY)) == {"v2", fallback_tag(image.manifest.digest)}
        assert client.manifests.head(REPOSITORY, gone.digest) is None


def test_a_tag_on_a_manifest_that_is_needed_is_only_taken_off(client: RegistryClient, layout: Layout) -> None:
    image = branch_v2(layout, AMD64)
    release(client, layout, "v1", image)
    tag(client, layout, image.manifest, "v1-amd64")

    pruned(client, tags=["v1"])

    assert "v1-amd64" not in client.tags.list(REPOSITORY)
    assert client.manifests.head(REPOSITORY, image.manifest.digest) is not None


def test_what_went_is_logged_in_the_numbers_of_the_answer(
    client: RegistryClient, layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    image = branch_v2(layout, AMD64)
    kept, old = release(client, layout, "v1", image), release(client, layout, "v0", image)
    for name, root in (("v1-amd64", image.manifest), ("latest", kept), ("oldest", old)):
        tag(client, layout, root, name)

    with caplog.at_level("DEBUG", "soci_pipeline"):
        done = prune(client, ImageReference(client.registry, REPOSITORY), KeepRules.of(tags=["v1"]))

    assert done.deleted == ("latest", "v1-amd64", "oldest", "v0", old.digest)
    said = f"{REPOSITORY}: deleted 1 manifest and 4 tags, 2 of them from manifests that are kept"
    assert said in caplog.messages


def test_a_registry_that_cannot_delete_tags_keeps_them_with_a_reason(client: RegistryClient, layout: Layout) -> None:
    image = branch_v2(layout, AMD64)
    release(client, layout, "v1", image)
    tag(client, layout, image.manifest, "v1-amd64")
    graph = read_repository(client, REPOSITORY)
    made = plan_prune(graph, KeepRules.of(tags=["v1"]), now=NOW)

    class OldRegistry:
        def delete_manifests(self, repository: str, digests: Sequence[Digest]) -> dict[Digest, str]:
            raise AssertionError("nothing has to be deleted here")

        def delete_tag(self, repository: str, tag: str) -> None:
            raise RegistryError("no such operation", code="UNSUPPORTED", status=405)

    left = execute(client, REPOSITORY, graph, made, remover=OldRegistry())

    assert list(left) == ["v1-amd64"]


def test_tags_that_changed_after_the_plan_stop_it(client: RegistryClient, layout: Layout) -> None:
    release(client, layout, "v1", branch_v2(layout, AMD64))
    graph = read_repository(client, REPOSITORY)
    made = plan_prune(graph, KeepRules.of(tags=["nothing"]), now=NOW)
    release(client, layout, "v2", branch_v2(layout, AMD64))

    with pytest.raises(RepositoryChanged, match="changed after the plan"):
        execute(client, REPOSITORY, graph, made)
    assert set(made.manifests) <= set(read_repository(client, REPOSITORY).nodes)


def test_a_run_that_was_cut_short_names_what_is_left_for_the_next(client: RegistryClient, layout: Layout) -> None:
    release(client, layout, "v1", branch_v2(layout, AMD64))
    graph = read_repository(client, REPOSITORY)
    made = plan_prune(graph, KeepRules.of(tags=["nothing"]), now=NOW)

    class Failing:
        done = 0

        def delete_manifests(self, repository: str, digests: Sequence[Digest]) -> dict[Digest, str]:
            for digest in digests:
                if self.done:
                    raise RegistryError("it is tired", status=500, temporary=True)
                self.done += 1
                client.manifests.delete(repository, digest)
            return {}

        def delete_tag(self, repository: str, tag: str) -> None:
            client.tags.delete(repository, tag)

    with pytest.raises(RegistryError, match=r"1 of 3 manifests .* it is tired") as caught:
        execute(client, REPOSITORY, graph, made, remover=Failing())

    rest = [Digest(word) for word in str(caught.value.advice).split() if word.startswith("sha256:")]
    again = read_repository(client, REPOSITORY, also=rest)
    assert again.tags == {} or all(name.startswith("sha256-") for name in again.tags)
    execute(client, REPOSITORY, again, plan_prune(again, KeepRules.of(tags=["nothing"]), now=NOW))
    assert all(client.manifests.head(REPOSITORY, each) is None for each in made.manifests)


def test_ages_come_from_the_index_or_from_the_youngest_of_its_images(client: RegistryClient, layout: Layout) -> None:
    said = layout.add_document(ImageIndex(manifests=(), annotations={CREATED: "2026-11-20T00:00:00Z"}))
    tag(client, layout, said, "said")
    tag(client, layout, layout.add_document(ImageIndex(manifests=(add_image(layout, AMD64),))), "from-config")
    epoch = layout.add_bytes(b'{"created":"1970-01-01T00:00:00Z","os":"linux","architecture":"arm64"}', OCI_CONFIG)
    tag(client, layout, layout.add_document(ImageManifest(config=epoch)), "epoch")

    graph = read_repository(client, REPOSITORY)

    created = {name: graph.nodes[digest].created for name, digest in graph.tags.items()}
    assert created == {
        "said": datetime(2026, 11, 20, tzinfo=UTC),
        "from-config": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        "epoch": None,
    }
    assert plan_prune(graph, KeepRules.of(younger_than=timedelta(days=7)), now=NOW).kept_tags == ("epoch", "said")
    assert read_repository(client, REPOSITORY, ages=False).nodes[graph.tags["from-config"]].created is None


def test_a_part_that_is_missing_already_does_not_stop_it(client: RegistryClient, layout: Layout) -> None:
    image = branch_v2(layout, AMD64)
    index = release(client, layout, "v1", image)
    client.manifests.delete(REPOSITORY, image.manifest.digest)

    pruned(client, tags=["nothing"])

    assert client.manifests.head(REPOSITORY, index.digest) is None


def test_an_unknown_repository_and_no_rule_are_errors(client: RegistryClient) -> None:
    with pytest.raises(ManifestUnknown):
        read_repository(client, "nobody/nothing")
    with pytest.raises(InvalidInput, match="retention rule: latest: Input should be greater"):
        KeepRules.of(latest=-1)


@pytest.mark.parametrize("config", [b"[" * 100_000, b"", b'{"created": 1}', b'{"created": "soon"}'])
def test_a_config_of_any_shape_has_no_age(client: RegistryClient, layout: Layout, config: bytes) -> None:
    tag(client, layout, layout.add_document(ImageManifest(config=layout.add_bytes(config, OCI_CONFIG))), "odd")
    graph = read_repository(client, REPOSITORY)
    assert graph.nodes[graph.tags["odd"]].created is None


def test_nothing_is_deleted_for_a_caller_that_may_not_any_more(client: RegistryClient, layout: Layout) -> None:
    index = release(client, layout, "v1", branch_v2(layout, AMD64))
    release(client, layout, "v2", branch_v2(layout, ARM64))

    def refuse() -> None:
        raise InvalidInput("not any more")

    image, rules = ImageReference(client.registry, REPOSITORY), KeepRules.of(tags=["v2"])
    with pytest.raises(InvalidInput, match="not any more"):
        prune(client, image, rules, confirm=refuse)
    assert prune(client, image, rules, confirm=refuse, dry_run=True).deleted
    assert client.manifests.head(REPOSITORY, "v1") == index.plain


def add_cache(client: RegistryClient, layout: Layout, name: str, *, days: float, as_index: bool = False) -> None:
    """A build cache as BuildKit writes it: a manifest, or before image-manifest=true an index of layers."""
    built = (NOW - timedelta(days=days)).isoformat()
    data = gzip_layer({name: name.encode()}).data
    layer = layout.add_bytes(data, OCI_LAYER_GZIP).annotated(annotations={"buildkit/createdat": built})
    config = layout.add_bytes(f'{{"records": ["{name}"]}}'.encode(), BUILDKIT_CACHE)
    document = ImageIndex(manifests=(layer, config)) if as_index else ImageManifest(config=config, layers=(layer,))
    root = layout.add_document(document)
    for blob in (layer, config):
        client.blobs.upload_bytes(REPOSITORY, layout.read(blob), blob.media_type)
    client.manifests.put(REPOSITORY, name, layout.read(root), root.media_type)


def test_build_caches_are_known_by_their_content_and_go_by_the_age_of_their_newest_layer(
    client: RegistryClient, layout: Layout
) -> None:
    release(client, layout, "v2", branch_v2(layout, AMD64))
    add_cache(client, layout, "any-name", days=3)
    add_cache(client, layout, "another", days=40)

    pruned(client, tags=["v2"])

    assert {tag for tag in client.tags.list(REPOSITORY) if not tag.startswith("sha256-")} == {"any-name", "v2"}


def test_a_build_cache_that_is_an_index_of_layers_is_known_too(layout: Layout) -> None:
    # The embedded registry takes no index of blobs; others do.
    with strange(deviations.Registry().answer) as address, RegistryClient(address, settings=AT_ONCE) as client:
        add_cache(client, layout, "old-form", days=3, as_index=True)
        (node,) = read_repository(client, REPOSITORY).nodes.values()
    assert (node.is_cache, node.created, node.children) == (True, NOW - timedelta(days=3), ())
