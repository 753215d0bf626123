import errno
import io
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from soci_pipeline.errors import DamagedContent, DiskFull, InvalidInput
from soci_pipeline.oci import media_types
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def _left_behind(layout: Layout) -> list[Path]:
    return list((layout.path / ".incoming").rglob("*"))


def test_a_blob_is_stored_under_its_digest_and_read_back(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "image")
    blob = layout.add_bytes(b"content", "text/plain")
    assert Layout.open(tmp_path / "image").read(blob) == b"content"
    assert (tmp_path / "image" / "blobs" / "sha256" / blob.digest.hex).read_bytes() == b"content"


def test_content_of_another_digest_or_size_leaves_nothing(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    with pytest.raises(DamagedContent, match="has the digest"), layout.writer(expected=Digest.of(b"other")) as blob:
        blob.write(b"content")
    with pytest.raises(DamagedContent, match="has 3 bytes, not 7"), layout.writer(size=7) as blob:
        blob.write(b"con")
    with pytest.raises(DamagedContent, match="longer than the expected 2 bytes"), layout.writer(size=2) as blob:
        blob.write(b"con")
    with pytest.raises(KeyboardInterrupt), layout.writer() as blob:  # noqa: PT012
        blob.write(b"con")
        raise KeyboardInterrupt
    assert list((tmp_path / "blobs" / "sha256").iterdir()) == []
    assert _left_behind(layout) == []


def test_a_blob_that_changed_on_disk_is_found_when_it_is_read(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    blob = layout.add_bytes(b"content", "text/plain")
    path = layout.blob_path(blob.digest)
    path.chmod(0o644)
    path.write_bytes(b"c0ntent")
    with pytest.raises(DamagedContent, match="has the digest"):
        layout.read(blob)
    path.write_bytes(b"short")
    with pytest.raises(DamagedContent, match="has 5 bytes, not 7"):
        layout.read(blob)
    path.unlink()
    with pytest.raises(DamagedContent, match="is missing"):
        layout.read(blob)


def test_a_graph_is_walked_children_first_and_each_blob_once(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    config = layout.add_bytes(b"{}", media_types.OCI_CONFIG)
    layer = layout.add_bytes(b"layer", media_types.OCI_LAYER)
    images = [
        layout.add_document(ImageManifest(config=config, layers=(layer,), annotations={"n": str(number)}))
        for number in range(2)
    ]
    root = layout.add_document(ImageIndex(manifests=tuple(images)))
    assert list(layout.walk(root)) == [config, layer, images[0], images[1], root]


def test_what_refers_to_an_image_is_found_beside_it_and_nothing_else(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    config = layout.add_bytes(b"{}", media_types.OCI_CONFIG)
    image = layout.add_document(ImageManifest(config=config))
    referrer = layout.add_document(ImageManifest(config=config, subject=image))
    elsewhere = config.annotated(digest=Digest.of(b"another image"))
    layout.add_document(ImageManifest(config=config, subject=elsewhere))
    layout.add_bytes(b"{ not a manifest", "text/plain")
    root = layout.add_document(ImageIndex(manifests=(image,)))
    assert layout.referrers(root) == (referrer,)


def test_the_root_is_the_one_descriptor_of_index_json(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    with pytest.raises(InvalidInput, match="lists 0 images"):
        layout.root()
    root = layout.add_document(ImageIndex())
    layout.set_roots([root])
    assert Layout.open(tmp_path).root() == root


def test_a_folder_that_is_no_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not an OCI image layout"):
        Layout.open(tmp_path)
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion":"2"}')
    with pytest.raises(InvalidInput, match="version '2'"):
        Layout.open(tmp_path)


def test_an_archive_or_nothing_at_all_is_told_from_a_folder_that_is_no_layout(tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(b"")
    with pytest.raises(InvalidInput) as archive:
        Layout.open(tmp_path / "image.tar")
    assert "soci-pipeline convert" in str(archive.value.advice)
    with pytest.raises(InvalidInput) as nothing:
        Layout.open(tmp_path / "absent")
    assert nothing.value.reason == f"{tmp_path / 'absent'} does not exist"
    assert "--output type=oci,tar=false,dest=FOLDER" in str(nothing.value.advice)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"[" * 100_000, b'{"schemaVersion":2}', b"\xff\xfe", None])
def test_an_index_json_that_lists_nothing_readable_is_refused(tmp_path: Path, content: bytes | None) -> None:
    layout = Layout.create(tmp_path)
    (tmp_path / "index.json").unlink()
    if content is not None:
        (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(InvalidInput):
        layout.roots()


def test_a_blob_of_another_layout_is_linked_not_copied(tmp_path: Path) -> None:
    one, two = Layout.create(tmp_path / "one"), Layout.create(tmp_path / "two")
    blob = one.add_bytes(b"content", "text/plain")
    two.link_from(one, blob)
    two.link_from(one, blob)
    assert two.read(blob) == b"content"
    assert two.blob_path(blob.digest).samefile(one.blob_path(blob.digest))


class Failing(io.FileIO):
    """A file that fails as a full or broken disk does."""

    failure = 0
    """The number of the error that its close raises, as NFS does; 0 lets writes take nothing instead."""

    def write(self, data: "ReadableBuffer", /) -> int:
        return super().write(data) if self.failure else 0

    def close(self) -> None:
        closed = self.closed
        super().close()
        if self.failure and not closed:
            raise OSError(self.failure, os.strerror(self.failure))


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EFBIG, DiskFull), (errno.EIO, OSError), (0, OSError)],
)
def test_a_blob_that_the_disk_does_not_take_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    layout = Layout.create(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Failing, "failure", number)
        patched.setattr(os, "fdopen", lambda handle, *_, **__: Failing(handle, "w"))
        with pytest.raises(error):
            layout.add_bytes(b"content", "text/plain")
    assert list((tmp_path / "blobs" / "sha256").iterdir()) == []
    assert _left_behind(layout) == []
    layout.add_bytes(b"content", "text/plain")


def test_a_limit_on_the_size_of_files_is_reported_as_a_full_disk(tmp_path: Path) -> None:
    layout, limit = Layout.create(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(DiskFull, match="File too large"):
            layout.add_bytes(b"x" * 2000, "text/plain")
        with pytest.raises(DiskFull, match="File too large"):
            layout.set_roots([ImageIndex(annotations={"a": "x" * 2000}).descriptor] * 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert layout.roots() == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".incoming", "blobs", "index.json", "oci-layout"]
