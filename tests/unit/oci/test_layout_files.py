"""What a layout folder from elsewhere may hold, and that only regular files inside it are ever read."""

import os
import shutil
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from soci_pipeline.archive.unpack import unpacked
from soci_pipeline.archive.write import write_archive
from soci_pipeline.errors import DamagedContent, HostileArchive, InvalidInput
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.layout_files import open_file, stat_file
from soci_pipeline.oci.manifest import MAX_MANIFEST_BYTES, ImageManifest
from soci_pipeline.oci.media_types import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST

CONTENT = b"content that is nobody's business"


def _link(path: Path) -> None:
    outside = path.parent.parent.parent.parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def _link_within(path: Path) -> None:
    inside = path.with_name("0" * 64)
    path.rename(inside)
    path.symlink_to(inside.name)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _socket(path: Path) -> None:
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _linked_folder(path: Path) -> None:
    moved = path.parent.parent.parent.parent / "elsewhere"
    path.parent.rename(moved)
    path.parent.symlink_to(moved)


def _linked_blobs(path: Path) -> None:
    blobs = path.parent.parent
    blobs.rename(blobs.parent.parent / "elsewhere")
    blobs.symlink_to(blobs.parent.parent / "elsewhere")


SPOILED = [_link, _link_within, _pipe, _socket, _folder, _device, _linked_folder, _linked_blobs]


@pytest.fixture
def blob(layout: Layout) -> Descriptor:
    return layout.add_bytes(CONTENT, OCI_LAYER)


@pytest.mark.parametrize("spoil", SPOILED)
def test_only_a_regular_file_inside_the_layout_is_a_blob(
    spoil: Callable[[Path], None], layout: Layout, blob: Descriptor, tmp_path: Path
) -> None:
    spoil(layout.blob_path(blob.digest))
    opened, target = Layout.open(layout.path), Layout.create(tmp_path / "target")
    reads: list[Callable[[], object]] = [
        lambda: opened.has(blob),
        lambda: opened.is_verified(blob),
        lambda: opened.open_blob(blob),
        lambda: opened.open_verified(blob),
        lambda: opened.read(blob),
        lambda: target.take_over(opened, blob),
        lambda: target.link_from(opened, blob),
        lambda: opened.referrers(blob),
        lambda: write_archive(opened, tmp_path / "archive.tar", roots=[blob]),
    ]
    for read in reads:
        with pytest.raises(HostileArchive, match=r"is not a (regular file|folder)") as caught:
            read()
        assert "cp -rL" in str(caught.value.advice)
    assert not target.has(blob)
    assert not list((target.path / ".incoming").glob("*"))


@pytest.mark.parametrize("name", ["oci-layout", "index.json"])
def test_the_files_of_the_layout_itself_are_not_read_through_links(name: str, layout: Layout, tmp_path: Path) -> None:
    (layout.path / name).rename(tmp_path / "outside")
    (layout.path / name).symlink_to(tmp_path / "outside")
    with pytest.raises(HostileArchive, match=f"{name} is not a regular file but a symbolic link"):
        Layout.open(layout.path).roots()
    (layout.path / name).unlink()
    os.mkfifo(layout.path / name)
    with pytest.raises(HostileArchive, match="a pipe"):
        Layout.open(layout.path).roots()


def test_a_huge_index_json_is_refused_unread(layout: Layout) -> None:
    with (layout.path / "index.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidInput, match="larger than the limit"):
        layout.roots()
    with (layout.path / "oci-layout").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidInput, match="larger than the limit"):
        Layout.open(layout.path)


def test_an_index_json_larger_than_a_manifest_may_be_is_read(layout: Layout, tmp_path: Path) -> None:
    """As the folder of a repository with many manifests has it."""
    roots = [
        Descriptor(media_type=OCI_MANIFEST, digest=Digest.of(str(at).encode()), size=at).annotated(
            annotations={"org.opencontainers.image.ref.name": f"tag-{at}"}
        )
        for at in range(25_000)
    ]
    layout.set_roots(roots)
    assert (layout.path / "index.json").stat().st_size > MAX_MANIFEST_BYTES
    assert layout.roots() == tuple(roots)
    with tarfile.open(tmp_path / "layout.tar", "w") as archive:
        archive.add(layout.path, arcname=".")
    with pytest.raises(InvalidInput, match="has no image 'other'"):
        unpacked(tmp_path / "layout.tar", tmp_path / "unpacked", ref="other")


def test_the_layout_itself_may_be_reached_through_a_link(layout: Layout, blob: Descriptor, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(layout.path)
    assert Layout.open(tmp_path / "link").read(blob) == CONTENT


def test_what_is_missing_is_not_hostile(layout: Layout, blob: Descriptor) -> None:
    layout.blob_path(blob.digest).unlink()
    assert not layout.has(blob)
    shutil.rmtree(layout.path / "blobs")
    assert not layout.has(blob)
    with pytest.raises(DamagedContent, match="is missing"):
        layout.open_blob(blob)


def test_a_blob_is_taken_over_only_with_its_digest(layout: Layout, blob: Descriptor, tmp_path: Path) -> None:
    path = layout.blob_path(blob.digest)
    path.chmod(0o644)
    path.write_bytes(CONTENT[::-1])
    target = Layout.create(tmp_path / "target")
    with pytest.raises(DamagedContent, match="has the digest"):
        target.take_over(Layout.open(layout.path), blob)
    assert not target.has(blob)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DamagedContent, match="bytes, not"):
        target.take_over(Layout.open(layout.path), blob)
    path.write_bytes(CONTENT)
    target.take_over(Layout.open(layout.path), blob)
    assert target.read(blob) == CONTENT
    assert target.blob_path(blob.digest).samefile(path)


def test_a_blob_that_changes_after_it_was_verified_is_verified_again(
    layout: Layout, blob: Descriptor, tmp_path: Path
) -> None:
    assert layout.is_verified(blob)
    path = layout.blob_path(blob.digest)
    path.unlink()
    path.write_bytes(CONTENT[::-1])
    assert not layout.is_verified(blob)
    with pytest.raises(DamagedContent, match="has the digest"):
        Layout.create(tmp_path / "target").take_over(layout, blob)


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_the_last_bytes_of_a_wrong_blob_are_not_handed_out(piece: int, layout: Layout, blob: Descriptor) -> None:
    path = layout.blob_path(blob.digest)
    path.chmod(0o644)
    path.write_bytes(CONTENT[::-1])
    read = b""
    with Layout.open(layout.path).open_verified(blob) as file, pytest.raises(DamagedContent, match="has the digest"):  # noqa: PT012
        while data := file.read(piece):
            read += data
    assert len(read) < len(CONTENT)


def test_a_blob_is_verified_once_in_whatever_order_it_is_read(layout: Layout, blob: Descriptor) -> None:
    opened = Layout.open(layout.path)
    with opened.open_verified(blob) as file:
        file.seek(20)
        assert file.read(4) == CONTENT[20:24]
        file.seek(0)
        assert file.read(10) == CONTENT[:10]
        assert not opened.is_verified(blob)
        assert file.read() == CONTENT[10:]
    assert opened.is_verified(blob)
    empty = layout.add_bytes(b"", OCI_LAYER)
    with opened.open_verified(empty) as file:
        assert file.read() == b""


def test_names_that_are_not_digests_are_not_taken_for_referrers(layout: Layout, tmp_path: Path) -> None:
    config = layout.add_bytes(b"{}", OCI_CONFIG)
    image = layout.add_document(ImageManifest(config=config))
    folder = layout.path / "blobs" / "sha256"
    (folder / "notes").write_bytes(ImageManifest(config=config, subject=image).encode())
    os.mkfifo(folder / "pipe")
    assert layout.referrers(image) == ()


def test_a_layout_without_blobs_has_no_referrers(layout: Layout, blob: Descriptor) -> None:
    shutil.rmtree(layout.path / "blobs")
    assert layout.referrers(blob) == ()


def test_a_file_below_a_folder_is_opened_and_its_status_read(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"123")
    with open_file(tmp_path, "a", "b", "c") as file:
        assert file.read() == b"123"
    status = stat_file(tmp_path, "a", "b", "c")
    assert status is not None
    assert status.st_size == 3
    assert stat_file(tmp_path, "a", "none", "c") is None
