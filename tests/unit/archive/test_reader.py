"""Archives that are read in place: which files are one, and which are refused."""

import gzip
import os
from pathlib import Path

import pytest

from soci_pipeline.archive.reader import ArchiveLimits, open_archive
from soci_pipeline.errors import DamagedContent, HostileArchive, InvalidInput
from tests.support.archives import everything_below, oci_archive
from tests.support.images import image_layout, only_manifest
from tests.support.imported import imported
from tests.support.tars import Entry, gzipped, symlink, tar, tar_of, text


@pytest.mark.parametrize(
    "data",
    [b"no archive at all", b"x" * 4096, gzip.compress(b"just text", mtime=0)],
    ids=["text", "x only", "gzip of text"],
)
def test_a_file_that_is_no_archive_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "notes.tar"
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=r"notes\.tar is not a tar archive"):
        imported(path, tmp_path)


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="neither a file nor a folder"):
        imported(tmp_path / "pipe", tmp_path)


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        imported(tmp_path / "missing.tar", tmp_path)


@pytest.mark.parametrize(("start", "name"), [(b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ", "xz"), (b"BZh9", "bzip2")])
def test_another_compression_is_named(tmp_path: Path, start: bytes, name: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(start + bytes(600))
    with pytest.raises(InvalidInput, match=name):
        imported(path, tmp_path)


def test_a_bomb_of_an_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzipped(bytes(4 << 20), level=9))
    with pytest.raises(HostileArchive, match="bomb"):
        imported(path, tmp_path, limits=ArchiveLimits(free_bytes=1 << 20))
    assert everything_below(tmp_path) == {"a.tar.gz"}


def test_a_truncated_gzip_archive_is_damaged(tmp_path: Path) -> None:
    path = oci_archive(tmp_path / "a.tar.gz", image_layout(tmp_path / "source"))
    path.write_bytes(gzipped(path.read_bytes())[:-20])
    with pytest.raises(DamagedContent):
        imported(path, tmp_path)


def test_a_link_out_of_a_folder_is_refused(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "source")
    layer = source.blob_path(only_manifest(source).layers[0].digest)
    secret = tmp_path / "secret"
    secret.write_bytes(layer.read_bytes())
    layer.unlink()
    layer.symlink_to(secret)
    with pytest.raises(HostileArchive, match="points outside"):
        imported(source.path, tmp_path)


FILES = {"a": text(3_000_000), "folder/b": b"words"}


@pytest.mark.parametrize("packed", ["folder", "tar", "tar.gz"])
def test_files_are_read_by_name_however_they_are_packed(tmp_path: Path, packed: str) -> None:
    path = tmp_path / "source"
    if packed == "folder":
        for name, data in FILES.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    else:
        path.write_bytes(tar_of(FILES) if packed == "tar" else gzipped(tar_of(FILES)))
    with open_archive(path, scratch=tmp_path) as archive:
        for name, data in FILES.items():
            assert archive.size(name) == len(data)
            with archive.open(name) as file:
                assert file.read() == data
        assert archive.size("folder") is None
        assert archive.size("missing") is None
        with pytest.raises(DamagedContent, match="does not contain 'missing'"):
            archive.open("missing")
    assert {each.name for each in tmp_path.iterdir()} == {"source"}


def test_several_files_of_a_tar_are_read_at_once_and_each_ends_where_it_ends(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of({"a": b"1234", "b": b"5678"}))
    with open_archive(tmp_path / "a.tar") as archive, archive.open("a") as a, archive.open("b") as b:
        assert [a.read(2), b.read(2), a.read(), b.read(), a.read()] == [b"12", b"56", b"34", b"78", b""]


@pytest.mark.parametrize("packed", [True, False], ids=["tar", "folder"])
def test_a_link_within_the_archive_leads_to_its_file(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "source"
    if packed:
        path.write_bytes(tar([Entry("blob", b"words"), symlink("folder/link", "../blob")]))
    else:
        (path / "folder").mkdir(parents=True)
        (path / "blob").write_bytes(b"words")
        (path / "folder" / "link").symlink_to("../blob")
    with open_archive(path) as archive, archive.open("folder/link") as file:
        assert archive.size("folder/link") == 5
        assert file.read() == b"words"


def test_links_of_a_folder_that_lead_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with open_archive(tmp_path) as archive, pytest.raises(HostileArchive, match="'a'"):
        archive.size("a")


def test_only_what_inflates_more_than_the_limits_allow_is_a_bomb() -> None:
    limits = ArchiveLimits(inflated_bytes=1000, free_bytes=100, ratio=5)
    for consumed, produced in ((0, 100), (21, 105), (200, 1000)):
        limits.check(consumed, produced, what="the layer")
    with pytest.raises(HostileArchive, match="the layer inflates to more than 5 times its size"):
        limits.check(20, 101, what="the layer")
    with pytest.raises(HostileArchive, match="the layer inflates to more than 1000 bytes"):
        limits.check(1000, 1001, what="the layer")
