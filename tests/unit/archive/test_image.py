"""Finding the one image that is meant: by its platform, and by its name where there are several."""

import gzip
from pathlib import Path

import pytest

from soci_pipeline.builders.import_image import import_image
from soci_pipeline.errors import DamagedContent, HostileArchive, InvalidInput, PlatformMismatch
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from tests.support.archives import docker_archive, oci_archive
from tests.support.images import AMD64, ARM64, add_image, image_layout, index_layout
from tests.support.imported import OTHER, PLAIN, imported, stored
from tests.support.several_images import several_images
from tests.support.tars import tar_of


def test_the_platform_is_picked_from_an_archive_with_several(tmp_path: Path) -> None:
    source = index_layout(tmp_path / "source", (ARM64, AMD64))
    assert imported(source.path, tmp_path).root().platform == AMD64
    archive = docker_archive(tmp_path / "d.tar", [(ARM64, [PLAIN]), (AMD64, [OTHER])])
    assert gzip.decompress(stored(import_image(archive, tmp_path / "d", platform=AMD64))) == OTHER


def test_another_platform_than_asked_for_is_named(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "source", ARM64)
    with pytest.raises(PlatformMismatch, match="linux/amd64 was requested, but the archive contains linux/arm64"):
        imported(source.path, tmp_path)


def test_a_descriptor_that_claims_another_platform_than_the_config_is_refused(tmp_path: Path) -> None:
    source = Layout.create(tmp_path / "source")
    source.set_roots([add_image(source, ARM64).annotated(platform=AMD64)])
    with pytest.raises(PlatformMismatch, match="but its config says linux/arm64"):
        imported(source.path, tmp_path)


def test_two_images_of_one_platform_are_refused(tmp_path: Path) -> None:
    source = Layout.create(tmp_path / "source")
    source.set_roots([add_image(source, AMD64), add_image(source, AMD64, env=("A=1",))])
    with pytest.raises(InvalidInput, match="2 images for linux/amd64"):
        imported(source.path, tmp_path)


def test_images_of_other_platforms_may_be_missing_as_an_engine_saves_them(tmp_path: Path) -> None:
    source = Layout.create(tmp_path / "source")
    absent = add_image(source, ARM64)
    index = ImageIndex(manifests=(absent, add_image(source, AMD64)))
    source.set_roots([source.add_document(index)])
    source.blob_path(absent.digest).unlink()
    assert imported(source.path, tmp_path).root().platform == AMD64


@pytest.mark.parametrize("part", ["manifest", "config"])
def test_a_platform_that_is_listed_and_was_not_saved_is_named_with_those_that_were(tmp_path: Path, part: str) -> None:
    source = index_layout(tmp_path / "source", (AMD64, ARM64))
    index = source.read_document(source.root())
    assert isinstance(index, ImageIndex)
    manifest = source.read_document(index.manifests[1])
    assert isinstance(manifest, ImageManifest)
    lost = index.manifests[1].digest if part == "manifest" else manifest.config.digest
    source.blob_path(lost).unlink()
    assert imported(source.path, tmp_path / "held").root().platform == AMD64
    with pytest.raises(DamagedContent, match=f"linux/arm64 was requested; .* its blob is missing: {lost}") as caught:
        import_image(source.path, tmp_path / "lost", platform=ARM64)
    assert "contains linux/amd64" in str(caught.value.advice)
    assert not (tmp_path / "lost").exists()


def test_a_missing_platform_in_a_nested_index_and_a_root_that_is_missing_do_not_matter(tmp_path: Path) -> None:
    source = Layout.create(tmp_path / "source")
    absent, here = add_image(source, ARM64), add_image(source, AMD64)
    nested = source.add_document(ImageIndex(manifests=(absent, here)))
    nowhere = source.add_document(ImageIndex(manifests=(absent,)))
    source.set_roots([nowhere, source.add_document(ImageIndex(manifests=(nested,)))])
    source.blob_path(absent.digest).unlink()
    source.blob_path(nowhere.digest).unlink()
    assert imported(source.path, tmp_path).root().platform == AMD64
    with pytest.raises(DamagedContent, match="lists it, but its blob"):
        import_image(source.path, tmp_path / "lost", platform=ARM64)


def test_what_holds_no_image_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of({"hello": b"world"}))
    with pytest.raises(InvalidInput, match="contains no image"):
        imported(path, tmp_path)


def test_an_index_nested_too_deep_is_refused(tmp_path: Path) -> None:
    source = Layout.create(tmp_path / "source")
    node = add_image(source, AMD64)
    for _ in range(6):
        node = source.add_document(ImageIndex(manifests=(node,)))
    source.set_roots([node])
    with pytest.raises(HostileArchive, match="nested deeper"):
        imported(source.path, tmp_path)


def test_two_images_of_one_platform_in_an_oci_archive_are_listed_and_one_is_chosen(tmp_path: Path) -> None:
    source = several_images(tmp_path / "source", ["web-1", "cache-7"])
    for path in (source.path, oci_archive(tmp_path / "image.tar", source)):
        with pytest.raises(InvalidInput, match="2 images for linux/amd64") as caught:
            imported(path, tmp_path)
        first, second = source.roots()
        assert f"web-1  {first.digest}\n  cache-7  {second.digest}" in caught.value.reason
        assert "#ref=NAME" in str(caught.value.advice)
        assert imported(path, tmp_path, ref="cache-7").root().digest == second.digest
        assert imported(path, tmp_path, ref=str(first.digest)).root().digest == first.digest
        with pytest.raises(InvalidInput, match="has no image 'none'"):
            imported(path, tmp_path, ref="none")


def test_two_images_of_one_platform_in_a_docker_archive_are_listed_and_one_is_chosen(tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "a.tar", [(AMD64, [PLAIN]), (AMD64, [OTHER])])
    with pytest.raises(InvalidInput, match="2 images for linux/amd64") as caught:
        imported(archive, tmp_path)
    assert "test:0  sha256:" in caught.value.reason
    assert "test:1  sha256:" in caught.value.reason
    chosen = imported(archive, tmp_path, ref="test:1")
    assert gzip.decompress(stored(chosen)) == OTHER
    with pytest.raises(InvalidInput, match="has no image 'none'"):
        imported(archive, tmp_path, ref="none")
