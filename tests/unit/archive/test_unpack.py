"""Archives of OCI layouts, unpacked blob by blob."""

from pathlib import Path

import pytest

from soci_pipeline.archive.unpack import unpacked
from soci_pipeline.errors import DamagedContent, InvalidInput
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from tests.support.archives import docker_archive, oci_archive
from tests.support.images import AMD64, add_image, image_layout, index_layout, only_manifest
from tests.support.several_images import several_images
from tests.support.tars import gzipped, tar_of


@pytest.mark.parametrize("compressed", [False, True], ids=["tar", "tar.gz"])
def test_a_layout_comes_out_of_its_tar_as_it_went_in(tmp_path: Path, compressed: bool) -> None:
    source = index_layout(tmp_path / "source", attestations=True)
    path = oci_archive(tmp_path / "image.tar", source)
    if compressed:
        path.write_bytes(gzipped(path.read_bytes()))
    layout = unpacked(path, tmp_path / "unpacked")
    assert layout.roots() == source.roots()
    assert list(layout.walk(layout.root())) == list(source.walk(source.root()))
    assert {each.name for each in tmp_path.iterdir()} == {"source", "image.tar", "unpacked"}


def test_only_what_the_index_leads_to_is_unpacked(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "source")
    source.add_bytes(b"nobody's", "text/plain")
    path = oci_archive(tmp_path / "image.tar", source, changed={"notes.txt": b"words"})
    layout = unpacked(path, tmp_path / "unpacked")
    names = {each.name for each in layout.path.rglob("*") if each.is_file()}
    assert names == {"index.json", "oci-layout", *(node.digest.hex for node in source.walk(source.root()))}


def test_the_image_of_a_name_or_a_digest_is_unpacked_alone(tmp_path: Path) -> None:
    source = several_images(tmp_path / "source", ["web-1", "cache-7"])
    path = oci_archive(tmp_path / "image.tar", source)
    web, cache = source.roots()
    assert unpacked(path, tmp_path / "all").roots() == (web, cache)
    for ref in ("cache-7", str(cache.digest)):
        layout = unpacked(path, tmp_path / ref.replace(":", "-"), ref=ref)
        assert layout.roots() == (cache,)
        assert not layout.has(web)
    with pytest.raises(InvalidInput, match="has no image 'none'"):
        unpacked(path, tmp_path / "none", ref="none")
    assert not (tmp_path / "none").exists()


def test_an_archive_of_another_kind_is_named(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "image.tar", [(AMD64, [tar_of({"a": b"x"})])])
    with pytest.raises(InvalidInput, match=r"image\.tar is not an archive of an OCI layout"):
        unpacked(path, tmp_path / "unpacked")


@pytest.mark.parametrize("part", ["manifest", "config", "layer"])
def test_a_blob_that_was_changed_is_found_and_no_image_is_left(tmp_path: Path, part: str) -> None:
    source = image_layout(tmp_path / "source")
    manifest = only_manifest(source)
    blob = {"manifest": source.root(), "config": manifest.config, "layer": manifest.layers[0]}[part]
    data = bytearray(source.read(blob))
    data[len(data) // 2] ^= 1
    path = oci_archive(tmp_path / "a.tar", source, changed={f"blobs/sha256/{blob.digest.hex}": bytes(data)})
    with pytest.raises(DamagedContent, match=str(blob.digest)):
        unpacked(path, tmp_path / "unpacked")
    assert Layout.open(tmp_path / "unpacked").roots() == ()


def test_an_image_that_was_not_saved_is_left_out_but_not_one_that_the_index_file_names(tmp_path: Path) -> None:
    source = index_layout(tmp_path / "source")
    index = source.read_document(source.root())
    absent = f"blobs/sha256/{index.children[1].digest.hex}"
    layout = unpacked(oci_archive(tmp_path / "a.tar", source, changed={absent: None}), tmp_path / "part")
    assert [layout.has(child) for child in index.children] == [True, False]
    root = f"blobs/sha256/{source.root().digest.hex}"
    with pytest.raises(DamagedContent, match=source.root().digest.hex):
        unpacked(oci_archive(tmp_path / "b.tar", source, changed={root: None}), tmp_path / "none")


def test_an_image_index_that_is_nested_too_deep_is_not_followed(tmp_path: Path) -> None:
    source = Layout.create(tmp_path / "source")
    node = add_image(source, AMD64)
    for _ in range(12):
        node = source.add_document(ImageIndex(manifests=(node,)))
    source.set_roots([node])
    with pytest.raises(InvalidInput, match="nested deeper"):
        unpacked(oci_archive(tmp_path / "a.tar", source), tmp_path / "unpacked")


def test_an_index_file_above_its_bound_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of({"oci-layout": b"{}", "index.json": b" " * ((64 << 20) + 1)}))
    with pytest.raises(InvalidInput, match="has 67108865 bytes"):
        unpacked(path, tmp_path / "unpacked")
