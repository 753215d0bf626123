"""Documents of an archive: bounded and verified before anything is read out of them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from soci_pipeline.archive.documents import is_layout, read_blob, read_document, read_index
from soci_pipeline.archive.reader import FolderArchive
from soci_pipeline.errors import DamagedContent, HostileArchive
from soci_pipeline.oci.media_types import OCI_CONFIG
from tests.support.images import image_layout
from tests.support.imported import imported
from tests.support.tars import tar_of


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("index.json", b"[" * 200_000 + b"]" * 200_000),
        ("index.json", b" " * ((4 << 20) + 1)),
        ("manifest.json", b"[" * 200_000 + b"]" * 200_000),
    ],
)
def test_huge_and_deeply_nested_documents_are_refused(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / "a.tar"
    files = {name: data} | ({"oci-layout": b"{}"} if name == "index.json" else {})
    path.write_bytes(tar_of(files))
    with pytest.raises(HostileArchive):
        imported(path, tmp_path)


@pytest.mark.parametrize("missing", ["index.json", "oci-layout"])
def test_a_layout_has_both_of_its_files(tmp_path: Path, missing: str) -> None:
    layout = image_layout(tmp_path)
    assert is_layout(FolderArchive(layout.path))
    (layout.path / missing).unlink()
    assert not is_layout(FolderArchive(layout.path))


@pytest.mark.parametrize("media_type", [None, "application/json", 3])
def test_an_index_file_is_one_whatever_media_type_it_claims(tmp_path: Path, media_type: object) -> None:
    layout = image_layout(tmp_path)
    path = layout.path / "index.json"
    fields = json.loads(path.read_bytes())
    fields.pop("mediaType", None)
    path.write_text(json.dumps(fields | ({} if media_type is None else {"mediaType": media_type})))
    assert read_index(FolderArchive(layout.path)).manifests[0].digest == layout.root().digest


@pytest.mark.parametrize("text", ["[]", "3", "{", '{"schemaVersion": 2, "manifests": 3}'])
def test_an_index_file_of_another_shape_is_damage(tmp_path: Path, text: str) -> None:
    layout = image_layout(tmp_path)
    (layout.path / "index.json").write_text(text)
    with pytest.raises(DamagedContent):
        read_index(FolderArchive(layout.path))


def test_a_document_comes_with_its_exact_bytes(tmp_path: Path) -> None:
    layout = image_layout(tmp_path)
    document, data = read_document(FolderArchive(layout.path), layout.root())
    assert document == layout.read_document(layout.root())
    assert data == layout.read(layout.root())


@pytest.mark.parametrize("change", [bytes.upper, lambda data: data + b" ", lambda data: data[:-1]])
def test_a_blob_that_is_not_what_its_descriptor_says_is_damage(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    layout = image_layout(tmp_path)
    root = layout.root()
    path = layout.blob_path(root.digest)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(change(data))
    with pytest.raises(DamagedContent, match=f"blob {root.digest} of the archive does not match its descriptor"):
        read_blob(FolderArchive(layout.path), root)


def test_a_blob_that_is_too_large_for_a_document_is_not_read(tmp_path: Path) -> None:
    layout = image_layout(tmp_path)
    large = layout.add_bytes(bytes((4 << 20) + 1), OCI_CONFIG)
    with pytest.raises(HostileArchive, match="4194305 bytes"):
        read_blob(FolderArchive(layout.path), large)
