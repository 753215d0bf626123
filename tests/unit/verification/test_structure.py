"""The gate's first part: what does not fit together in manifests, configs and annotations is named, all of it."""

import json
from pathlib import Path

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.images.findings import Findings
from soci_pipeline.images.graph import read_graph
from soci_pipeline.oci.annotations import IMAGE_LAYER_DIGEST, IMAGE_MANIFEST_DIGEST, REFERENCE_DIGEST, SOCI_INDEX_DIGEST
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest, parse_image_index, parse_image_manifest
from soci_pipeline.oci.media_types import OCI_CONFIG, OCI_MANIFEST, SOCI_INDEX_V2, SOCI_LAYER
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.verification.lazy_bytes import lazy_costs
from soci_pipeline.verification.structure import LayerToCheck, check_structure
from tests.support.branches import branch_plain, branch_v1, branch_v2, soci_index
from tests.support.images import AMD64, ARM64, default_layers, with_address
from tests.support.published import REPOSITORY, flip, stored, upload, upload_joined
from tests.support.registries import with_and_without_referrers

OTHER = Digest.of(b"something else")


referrers_api = with_and_without_referrers


def changed(client: RegistryClient, layout: Layout, index: Descriptor, *entries: Descriptor) -> Descriptor:
    """The same index with entries replaced (by digest) or, where the digest is new, added."""
    document = parse_image_index(layout.read(index))
    by_digest = {entry.digest: entry for entry in entries}
    kept = [by_digest.pop(entry.digest, entry) for entry in document.manifests]
    root = layout.add_document(ImageIndex(manifests=(*kept, *by_digest.values())))
    upload(client, layout, root)
    return root


def checked(
    client: RegistryClient, root: Descriptor, *platforms: Platform
) -> tuple[tuple[LayerToCheck, ...], list[str]]:
    findings = Findings()
    graph = read_graph(client, REPOSITORY, root.digest, findings)
    layers = check_structure(client, REPOSITORY, graph, platforms or None, findings)
    return layers, [str(each) for each in findings.found]


def problems(client: RegistryClient, root: Descriptor, *platforms: Platform) -> str:
    return "\n".join(checked(client, root, *platforms)[1])


def entries_of(layout: Layout, index: Descriptor) -> tuple[Descriptor, ...]:
    return parse_image_index(layout.read(index)).manifests


def test_a_joined_image_of_both_index_versions_has_no_fault(client: RegistryClient, layout: Layout) -> None:
    root = upload_joined(client, layout, branch_v2(layout, AMD64, attested=True), branch_v1(layout, ARM64))

    layers, found = checked(client, root, AMD64, Platform("linux", "arm64", "v8"))

    assert found == []
    # The first layer is the same in both images, with one zTOC.
    assert len(layers) == 3
    assert all(layer.ztoc is not None and layer.diff_id is not None for layer in layers)


def test_a_missing_platform_and_a_second_image_of_one_are_named(client: RegistryClient, layout: Layout) -> None:
    root = upload_joined(client, layout, branch_v2(layout, AMD64))
    second = branch_plain(layout, AMD64)
    upload(client, layout, second.manifest)

    found = problems(client, changed(client, layout, root, second.manifest), AMD64, ARM64)

    assert "there is no image for linux/arm64" in found
    assert "is an image for the same platform" in found


def test_a_descriptor_that_lies_about_its_platform_is_named(client: RegistryClient, layout: Layout) -> None:
    root = upload_joined(client, layout, branch_plain(layout, AMD64))
    lying = entries_of(layout, root)[0].annotated(platform=ARM64)

    assert "its descriptor says linux/arm64, but its config says linux/amd64" in problems(
        client, changed(client, layout, root, lying)
    )


def test_annotations_must_name_each_other(client: RegistryClient, layout: Layout) -> None:
    root = upload_joined(client, layout, branch_v2(layout, AMD64, attested=True))
    image, attestation, soci = entries_of(layout, root)

    backwards = problems(
        client, changed(client, layout, root, soci.annotated(annotations={IMAGE_MANIFEST_DIGEST: str(OTHER)}))
    )
    forwards = problems(
        client, changed(client, layout, root, image.annotated(annotations={SOCI_INDEX_DIGEST: str(OTHER)}))
    )
    aside = problems(
        client,
        changed(
            client,
            layout,
            root,
            attestation.annotated(annotations=attestation.annotations | {REFERENCE_DIGEST: str(OTHER)}),
        ),
    )

    assert f"SOCI index {soci.digest}: its {IMAGE_MANIFEST_DIGEST} is {OTHER}, which is not an image" in backwards
    assert f"its descriptor names the SOCI index {OTHER}" in forwards
    assert f"attestation {attestation.digest}: it is about {OTHER}" in aside


def test_a_soci_index_that_the_image_index_does_not_list_is_named(client: RegistryClient, layout: Layout) -> None:
    root = upload_joined(client, layout, branch_v2(layout, AMD64))
    image = entries_of(layout, root)[0]
    tag_lock = layout.add_document(ImageIndex(manifests=(image,)))
    upload(client, layout, tag_lock)

    assert "not listed in the image index" in problems(client, tag_lock)
    # Read by its own manifest there is no list that it could be missing from.
    assert problems(client, image) == ""


def test_a_soci_entry_that_its_image_does_not_name_and_another_platforms_are_named(
    client: RegistryClient, layout: Layout
) -> None:
    root = upload_joined(client, layout, branch_plain(layout, AMD64))
    image = entries_of(layout, root)[0]
    stray = soci_index(layout, image, SOCI_INDEX_V2)
    upload(client, layout, stray)
    entry = stray.annotated(
        platform=ARM64, artifact_type="application/x", annotations={IMAGE_MANIFEST_DIGEST: str(image.digest)}
    )

    found = problems(client, changed(client, layout, root, entry))

    assert "so no runtime finds it" in found
    assert "it is listed for linux/arm64" in found
    assert "has the artifact type 'application/x'" in found


def test_a_missing_layer_ztoc_config_and_child_are_all_named(
    client: RegistryClient, layout: Layout, tmp_path: Path
) -> None:
    amd, arm = branch_v2(layout, AMD64), branch_v2(layout, ARM64)
    root = upload_joined(client, layout, amd, arm)
    manifest = parse_image_manifest(layout.read(amd.manifest))
    assert amd.soci_index is not None
    assert arm.soci_index is not None
    ztoc = parse_image_manifest(layout.read(amd.soci_index)).layers[0]
    arm_config = parse_image_manifest(layout.read(arm.manifest)).config
    kept = stored(tmp_path / "registry")
    for blob in (manifest.layers[1], ztoc, arm_config):
        kept.blob_path(blob.digest).unlink()
    client.manifests.delete(REPOSITORY, arm.soci_index.digest)

    found = problems(client, root, AMD64, ARM64)

    assert f"the blob {manifest.layers[1].digest} is not in the repository" in found
    assert f"zTOC {ztoc.digest}: the blob {ztoc.digest} is not in the repository" in found
    assert f"config {arm_config.digest}" in found
    assert "there is no image for linux/arm64" in found


def test_a_missing_layer_that_has_a_ztoc_is_named_whatever_addresses_it_has(
    client: RegistryClient, layout: Layout, tmp_path: Path
) -> None:
    layers = [with_address(layer) for layer in default_layers(AMD64)]
    root = upload_joined(client, layout, branch_v2(layout, AMD64, layers=layers))
    stored(tmp_path / "registry").blob_path(layers[0].digest).unlink()

    _, found = checked(client, root)

    assert [line for line in found if "is not in the repository" in line] == [
        f"linux/amd64 layer {layers[0].digest}: the blob {layers[0].digest} is not in the repository {REPOSITORY}"
    ]


def test_a_flipped_bit_in_a_manifest_a_config_and_a_soci_index_is_named(
    client: RegistryClient, layout: Layout, tmp_path: Path
) -> None:
    amd, arm = branch_v2(layout, AMD64), branch_v2(layout, ARM64)
    root = upload_joined(client, layout, amd, arm)
    assert amd.soci_index is not None
    kept = stored(tmp_path / "registry")
    config = parse_image_manifest(layout.read(arm.manifest)).config
    flip(kept.blob_path(amd.soci_index.digest), 30)
    flip(kept.blob_path(config.digest), 30)

    found = problems(client, root)

    assert f"SOCI index {amd.soci_index.digest}" in found
    assert f"config {config.digest}" in found
    flip(kept.blob_path(amd.manifest.digest), 30)
    assert f"{amd.manifest.digest}: " in problems(client, root)


def test_a_layer_of_another_size_is_named(client: RegistryClient, layout: Layout, tmp_path: Path) -> None:
    image = branch_plain(layout, AMD64)
    root = upload_joined(client, layout, image)
    layer = parse_image_manifest(layout.read(image.manifest)).layers[0]
    path = stored(tmp_path / "registry").blob_path(layer.digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])

    assert f"has {layer.size - 1} bytes, not {layer.size}" in problems(client, root)


def test_diff_ids_that_do_not_count_up_are_named(client: RegistryClient, layout: Layout) -> None:
    plain = branch_plain(layout, AMD64)
    manifest = parse_image_manifest(layout.read(plain.manifest))
    config = json.loads(layout.read(manifest.config))
    config["rootfs"]["diff_ids"].pop()
    stored_config = layout.add_bytes(json.dumps(config).encode(), OCI_CONFIG)
    image = layout.add_document(manifest.replaced(config=stored_config))
    upload(client, layout, image)

    assert "it has 1 diff ids for 2 layers" in problems(client, image)


def test_a_ztoc_of_no_layer_and_of_another_media_type_is_named(client: RegistryClient, layout: Layout) -> None:
    plain = branch_plain(layout, AMD64)
    layers = parse_image_manifest(layout.read(plain.manifest)).layers
    ztocs = (
        layout.add_bytes(b"1", SOCI_LAYER).annotated(annotations={IMAGE_LAYER_DIGEST: str(OTHER)}),
        layout.add_bytes(b"2", SOCI_LAYER).annotated(
            annotations={
                IMAGE_LAYER_DIGEST: str(layers[0].digest),
                "com.amazon.soci.image-layer-mediaType": "application/x",
            }
        ),
    )
    soci = layout.add_document(ImageManifest(config=layout.add_bytes(b"{}", OCI_CONFIG), layers=ztocs))
    manifest = parse_image_manifest(layout.read(plain.manifest))
    image = layout.add_document(manifest.replaced(annotations={SOCI_INDEX_DIGEST: str(soci.digest)}))
    upload(client, layout, soci, image)

    found = problems(client, image)

    assert f"its {IMAGE_LAYER_DIGEST} is {OTHER}, which is not a layer" in found
    assert "it says that its layer is application/x" in found
    assert f"its config has the type {OCI_CONFIG}" in found


def test_an_annotation_that_is_no_digest_is_named(client: RegistryClient, layout: Layout) -> None:
    manifest = parse_image_manifest(layout.read(branch_plain(layout, AMD64).manifest))
    image = layout.add_document(manifest.replaced(annotations={SOCI_INDEX_DIGEST: "sha256:oops"}))
    upload(client, layout, image)

    assert "SOCI index sha256:oops: not a valid digest" in problems(client, image)


def test_lazy_bytes_are_all_that_a_start_waits_for(client: RegistryClient, layout: Layout) -> None:
    image = branch_v2(layout, AMD64)
    root = upload_joined(client, layout, image, branch_plain(layout, ARM64))

    amd, arm = lazy_costs(read_graph(client, REPOSITORY, root.digest, Findings()))

    manifest = parse_image_manifest(layout.read(image.manifest))
    assert image.soci_index is not None
    soci = parse_image_manifest(layout.read(image.soci_index))
    small = root.size + image.manifest.size + manifest.config.size
    assert amd.total_bytes == small + sum(layer.size for layer in manifest.layers)
    assert amd.lazy_bytes == small + image.soci_index.size + 2 + sum(ztoc.size for ztoc in soci.layers)
    assert arm.lazy_bytes == arm.total_bytes
    assert image.manifest.media_type == OCI_MANIFEST


def test_an_index_that_lists_thousands_is_not_followed(client: RegistryClient, layout: Layout) -> None:
    image = branch_plain(layout, AMD64)
    upload(client, layout, image.manifest)
    crowd = layout.add_document(ImageIndex(manifests=(image.manifest,) * 5000))
    upload(client, layout, crowd)
    with pytest.raises(InvalidInput, match="5000 entries"):
        read_graph(client, REPOSITORY, crowd.digest, Findings())
