"""A layout as a tar file: the same for the same layout, and nothing in it that its roots do not reach."""

import resource
import tarfile
from pathlib import Path

import pytest

from local_stack.plain_image import add_image, add_layer, file_member
from soci_pipeline.archive.write import write_archive
from soci_pipeline.errors import DamagedContent, DiskFull
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.index_file import parse_roots
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageManifest
from soci_pipeline.oci.platform import Platform

ARM = Platform("linux", "arm64")


def _layout(folder: Path, *names: str) -> tuple[Layout, list[Descriptor]]:
    """A layout of images with a file each, all of them with one more layer in common."""
    layout = Layout.create(folder)
    common = add_layer(layout, [file_member("common", b"x")], created_by="test")
    images = []
    for name in names:
        layer = add_layer(layout, [file_member(name, b"x")], created_by="test")
        images.append(add_image(layout, [common, layer], ARM, created=0, config={}))
    layout.set_roots(images)
    return layout, images


def _content(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as members:
        names = members.getnames()
        assert len(names) == len(set(names))
        return {name: file.read() for name in names if (file := members.extractfile(name))}


def _paths(layout: Layout, *images: Descriptor) -> set[str]:
    nodes = {node.digest for image in images for node in layout.walk(image)}
    return {"oci-layout", "index.json", *(f"blobs/sha256/{digest.hex}" for digest in nodes)}


def test_an_archive_of_the_same_layout_has_the_same_bytes_and_is_the_layout(tmp_path: Path) -> None:
    first, second = (
        write_archive(_layout(tmp_path / name, "a", "b")[0], tmp_path / f"{name}.tar") for name in ("1", "2")
    )
    assert first.read_bytes() == second.read_bytes()
    layout, images = Layout.open(tmp_path / "1"), Layout.open(tmp_path / "1").roots()
    content = _content(first)
    assert set(content) == _paths(layout, *images)
    assert all(data == (layout.path / name).read_bytes() for name, data in content.items())


def test_roots_can_be_chosen_and_named(tmp_path: Path) -> None:
    layout, (image, _) = _layout(tmp_path / "layout", "a", "b")
    named = image.annotated(annotations={"io.containerd.image.name": "example/a:1"})
    content = _content(write_archive(layout, tmp_path / "a.tar", roots=[named]))
    assert set(content) == _paths(layout, image)
    assert parse_roots(content["index.json"], tmp_path) == (named,)


def test_a_blob_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    layout, (image,) = _layout(tmp_path / "layout", "a")
    manifest = layout.read_document(image)
    assert isinstance(manifest, ImageManifest)
    layout.blob_path(manifest.layers[0].digest).unlink()
    content = _content(write_archive(layout, tmp_path / "a.tar"))
    assert set(content) == _paths(layout, image) - {f"blobs/sha256/{manifest.layers[0].digest.hex}"}


def test_an_archive_that_the_disk_does_not_take_leaves_the_earlier_one(tmp_path: Path) -> None:
    layout, (image,) = _layout(tmp_path / "layout", "a")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "out").mkdir()
    archive = write_archive(layout, tmp_path / "out" / "a.tar", roots=[])
    earlier = archive.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limit[1]))
    try:
        with pytest.raises(DiskFull, match="File too large"):
            write_archive(layout, archive, roots=[image])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert archive.read_bytes() == earlier
    assert list(archive.parent.iterdir()) == [archive]


def test_an_archive_of_a_damaged_layout_is_not_written(tmp_path: Path) -> None:
    layout, (image,) = _layout(tmp_path / "layout", "a")
    damaged = layout.blob_path(next(layout.walk(image)).digest)
    damaged.chmod(0o644)
    damaged.write_bytes(b"!" * damaged.stat().st_size)
    with pytest.raises(DamagedContent, match="has the digest"):
        write_archive(Layout.open(layout.path), tmp_path / "a.tar")
    assert list(tmp_path.iterdir()) == [layout.path]
