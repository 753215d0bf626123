"""Which images of a layout are converted, and which cannot be told apart."""

from pathlib import Path

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.platform import Platform
from soci_pipeline.soci.index.convert import convert
from soci_pipeline.soci.index.records import SociOptions
from soci_pipeline.soci.index.source_images import check_images, read_layout
from tests.support.images import AMD64, ARM64, add_image, gzip_layer, index_layout
from tests.support.several_images import one_platform_twice, several_images


def test_an_image_index_with_two_different_images_of_one_platform_is_refused(tmp_path: Path) -> None:
    layout = one_platform_twice(tmp_path / "layout")
    for platforms in (None, [AMD64]):
        with pytest.raises(InvalidInput, match="2 different images for linux/amd64") as caught:
            read_layout(layout, platforms)
        document = layout.read_document(layout.root())
        assert all(str(child.digest) in caught.value.reason for child in document.children)
        assert "one image for each platform" in str(caught.value.advice)


@pytest.mark.parametrize("depth", [1, 2])
def test_an_image_of_a_nested_image_index_counts_too(layout: Layout, depth: int) -> None:
    one, two = (add_image(layout, AMD64, [gzip_layer({"a": name})]) for name in (b"1", b"2"))
    for _ in range(depth):
        two = layout.add_document(ImageIndex(manifests=(two,)))
    layout.set_roots([root := layout.add_document(ImageIndex(manifests=(one, two)))])
    with pytest.raises(InvalidInput, match="2 different images for linux/amd64"):
        read_layout(layout, None)
    with pytest.raises(InvalidInput, match="2 different images for linux/amd64"):
        check_images(layout, root)


def test_a_nested_image_index_of_another_platform_is_kept(layout: Layout) -> None:
    nested = layout.add_document(ImageIndex(manifests=(add_image(layout, ARM64),)))
    layout.set_roots([root := layout.add_document(ImageIndex(manifests=(add_image(layout, AMD64), nested)))])
    check_images(layout, root)
    assert len(read_layout(layout, None).images) == 1


@pytest.mark.parametrize(
    "other", [Platform("linux", "arm64", "v8"), Platform("linux", "arm64", "v8.0"), Platform("Linux", "ARM64")]
)
def test_a_platform_that_is_spelled_in_two_ways_is_one(layout: Layout, other: Platform) -> None:
    images = [add_image(layout, platform, [gzip_layer({"a": str(platform).encode()})]) for platform in (ARM64, other)]
    layout.set_roots([layout.add_document(ImageIndex(manifests=tuple(images)))])
    with pytest.raises(InvalidInput, match="2 different images for linux/arm64"):
        read_layout(layout, None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Platform("windows", "amd64", "", "10.0.17763"), Platform("windows", "amd64", "", "10.0.20348")),
        (Platform("linux", "amd64"), Platform("linux", "amd64", "v3")),
        (Platform("linux", "arm", "v6"), Platform("linux", "arm", "v7")),
    ],
)
def test_versions_and_variants_of_a_platform_are_different_platforms(
    one: Platform, other: Platform, layout: Layout
) -> None:
    images = [add_image(layout, each, [gzip_layer({"a": repr(each).encode()})]) for each in (one, other)]
    layout.set_roots([layout.add_document(ImageIndex(manifests=tuple(images)))])
    assert len(read_layout(layout, None).images) == 2


def test_an_artifact_with_the_config_of_an_image_is_not_an_image(layout: Layout) -> None:
    """The entry need not say that its manifest is an artifact, and verification goes by the manifest."""
    image = add_image(layout, AMD64)
    manifest = layout.read_document(image)
    assert isinstance(manifest, ImageManifest)
    artifact = layout.add_document(manifest.replaced(artifact_type="example/artifact"))
    layout.set_roots([layout.add_document(ImageIndex(manifests=(image, artifact)))])
    assert [found.descriptor.digest for found in read_layout(layout, None).images] == [image.digest]


def test_one_image_in_two_forms_is_not_two_images(layout: Layout) -> None:
    image = add_image(layout, AMD64)
    manifest = layout.read_document(image)
    assert isinstance(manifest, ImageManifest)
    other = layout.add_document(manifest.replaced(annotations={"compression": "another"})).annotated(platform=AMD64)
    layout.set_roots([layout.add_document(ImageIndex(manifests=(image, other)))])
    assert len(read_layout(layout, None).images) == 2


def test_a_name_chooses_an_image_index_among_others(tmp_path: Path) -> None:
    layout = index_layout(tmp_path / "layout")
    index = layout.root().annotated(annotations={"org.opencontainers.image.ref.name": "web"})
    other = add_image(layout, AMD64, [gzip_layer({"other": b"1"})])
    named = other.annotated(annotations={"io.containerd.image.name": "docker.io/library/other:1"})
    layout.set_roots([index, named])
    with pytest.raises(InvalidInput, match="separate images") as caught:
        read_layout(layout, None)
    assert "docker.io/library/other:1" in caught.value.reason
    result = convert(layout, tmp_path / "web", options=SociOptions(), ref="web")
    assert result.root.digest == index.digest
    result = convert(layout, tmp_path / "other", options=SociOptions(), ref="docker.io/library/other:1")
    assert [image.manifest.digest for image in result.images] == [other.digest]


def test_a_name_that_several_images_have_chooses_none(tmp_path: Path) -> None:
    layout = several_images(tmp_path / "layout", ["latest", "latest"])
    with pytest.raises(InvalidInput, match="matches 2 images") as caught:
        read_layout(layout, None, ref="latest")
    assert "digest" in str(caught.value.advice)
    digest = str(layout.roots()[1].digest)
    assert [image.descriptor.digest for image in read_layout(layout, None, ref=digest).images] == [digest]
