"""Collecting branches from a registry: what a join takes is what was published, or a refusal that names what is not."""

from pathlib import Path

import pytest

from soci_pipeline.errors import JoinRefused
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, parse_image_manifest
from soci_pipeline.oci.media_types import DOCKER_FOREIGN_LAYER_GZIP
from soci_pipeline.publish.collect import collect, reader
from soci_pipeline.publish.join import join
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph
from soci_pipeline.soci.index.records import IndexVersion, PlatformImage
from tests.support.branches import branch_plain, branch_v1, branch_v2
from tests.support.images import AMD64, ARM64, default_layers, image_layout, only_manifest, with_address
from tests.support.published import REPOSITORY, stored, upload
from tests.support.registries import AT_ONCE, registry, with_and_without_referrers

referrers_api = with_and_without_referrers


def published(client: RegistryClient, layout: Layout, image: PlatformImage) -> PlatformImage:
    upload(client, layout, image.manifest, *([image.soci_index] if image.soci_index else []), *image.attestations)
    return image


def branch_index(client: RegistryClient, layout: Layout, image: PlatformImage) -> Descriptor:
    index = join([image], annotations={}, read=layout.read)
    upload(client, layout, image.manifest)
    root = layout.add_document(index)
    upload(client, layout, root)
    return root


def test_branches_given_as_manifests_or_as_indexes_join_to_the_same_bytes(
    client: RegistryClient, layout: Layout
) -> None:
    amd, arm = branch_v2(layout, AMD64), branch_v2(layout, ARM64)
    published(client, layout, amd)
    published(client, layout, arm)
    index = branch_index(client, layout, arm)
    read = reader(client, REPOSITORY)

    by_manifest = join(
        collect(client, REPOSITORY, [amd.manifest.digest, arm.manifest.digest]), annotations={}, read=read
    )
    by_index = join(collect(client, REPOSITORY, [index.digest, amd.manifest.digest]), annotations={}, read=read)

    assert by_manifest == by_index == join([arm, amd], annotations={}, read=layout.read)


def test_attestations_come_with_a_branch_that_is_an_index(client: RegistryClient, layout: Layout) -> None:
    image = branch_v2(layout, AMD64, attested=True)

    (found,) = collect(client, REPOSITORY, [branch_index(client, layout, image).digest])

    assert found.attestations == image.attestations
    assert found.soci_index == image.soci_index
    assert [layer.ztoc is not None for layer in found.layers] == [True, True]


def test_a_v1_soci_index_is_found_by_its_subject(client: RegistryClient, layout: Layout) -> None:
    image = published(client, layout, branch_v1(layout, AMD64))

    (found,) = collect(client, REPOSITORY, [image.manifest.digest])

    assert image.soci_index is not None
    assert found.soci_index is not None
    assert found.soci_version is IndexVersion.V1
    assert found.soci_index.digest == image.soci_index.digest
    assert join([found], annotations={}, read=reader(client, REPOSITORY)).manifests == (image.manifest,)


def test_everything_that_is_missing_is_named(client: RegistryClient, layout: Layout, tmp_path: Path) -> None:
    plain = published(client, layout, branch_plain(layout, AMD64))
    named = published(client, layout, branch_v2(layout, ARM64))
    assert named.soci_index is not None
    client.manifests.delete(REPOSITORY, named.soci_index.digest)
    layer = parse_image_manifest(layout.read(plain.manifest)).layers[1]
    stored(tmp_path / "registry").blob_path(layer.digest).unlink()
    nothing = Digest.of(b"nothing")

    with pytest.raises(JoinRefused) as caught:
        collect(client, REPOSITORY, [plain.manifest.digest, named.manifest.digest, nothing])

    assert f"its layer {layer.digest} is not in the repository" in caught.value.reason
    assert f"SOCI index {named.soci_index.digest}" in caught.value.reason
    assert f"{nothing}: " in caught.value.reason


def test_a_layer_that_no_registry_holds_is_not_missed(client: RegistryClient, layout: Layout) -> None:
    plain = branch_plain(layout, AMD64)
    document = parse_image_manifest(layout.read(plain.manifest))
    foreign = Descriptor(media_type=DOCKER_FOREIGN_LAYER_GZIP, digest=Digest.of(b"windows"), size=7)
    manifest = layout.add_document(document.model_copy(update={"layers": (*document.layers, foreign)}))
    push_graph(layout, manifest, client, REPOSITORY)

    [found] = collect(client, REPOSITORY, [manifest.digest])

    assert found.manifest.digest == manifest.digest


def test_an_indexed_layer_is_missed_whatever_addresses_it_has(
    client: RegistryClient, layout: Layout, tmp_path: Path
) -> None:
    image = branch_v2(layout, AMD64, layers=[with_address(layer) for layer in default_layers(AMD64)])
    published(client, layout, image)
    [record] = collect(client, REPOSITORY, [image.manifest.digest])
    indexed = next(layer.digest for layer in record.layers if layer.ztoc)
    stored(tmp_path / "registry").blob_path(indexed).unlink()
    with pytest.raises(JoinRefused, match=f"its layer {indexed} is not in the repository"):
        collect(client, REPOSITORY, [image.manifest.digest])


def test_an_index_without_an_image_and_a_soci_index_are_refused(client: RegistryClient, layout: Layout) -> None:
    image = published(client, layout, branch_v2(layout, AMD64))
    empty = layout.add_document(ImageIndex())
    upload(client, layout, empty)
    assert image.soci_index is not None

    with pytest.raises(JoinRefused) as caught:
        collect(client, REPOSITORY, [empty.digest, image.soci_index.digest])

    assert f"{empty.digest}: it contains no image" in caught.value.reason
    assert "is an artifact of type application/vnd.amazon.soci.index.v2+json" in caught.value.reason


def test_manifests_and_configs_are_read_back_from_the_registry(tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout")
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        push_graph(layout, layout.root(), client, REPOSITORY)
        read = reader(client, REPOSITORY)
        assert read(layout.root()) == layout.read(layout.root())
        config = only_manifest(layout).config
        assert read(config) == layout.read(config)
