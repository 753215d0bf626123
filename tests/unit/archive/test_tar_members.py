import contextlib
import io
import string
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soci_pipeline.archive.tar_members import MAX_EXTENSION_BYTES, TarTable, clean_name, read_table
from soci_pipeline.errors import DamagedContent, HostileArchive
from tests.support.archives import raw_tar
from tests.support.tars import Entry, directory, hardlink, symlink, tar, tar_of


def table(data: bytes) -> TarTable:
    return read_table(io.BytesIO(data), len(data))


def content(data: bytes, name: str) -> bytes | None:
    span = table(data).find(name)
    return None if span is None else data[span.offset : span.offset + span.size]


@pytest.mark.parametrize("dialect", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_of_every_dialect_are_found_by_name(dialect: int) -> None:
    name = "a/" + "b" * 90 + "/" + "c" * 60
    data = tar([directory("a"), Entry("./a/x", b"one"), Entry(name, b"two" * 400)], dialect=dialect)
    assert content(data, "a/x") == b"one"
    assert content(data, name) == b"two" * 400


@pytest.mark.parametrize("dialect", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_very_long_name_is_read_from_its_extension_header(dialect: int) -> None:
    name = "/".join(["folder"] * 60)
    assert content(tar([Entry(name, b"deep")], dialect=dialect), name) == b"deep"


def test_links_are_followed_within_the_archive() -> None:
    data = tar([Entry("a/layer.tar", b"layer"), symlink("b/layer.tar", "../a/layer.tar"), hardlink("c", "b/layer.tar")])
    assert content(data, "b/layer.tar") == b"layer"
    assert content(data, "c") == b"layer"


def test_a_link_to_nothing_is_nothing() -> None:
    assert content(tar([symlink("a", "missing")]), "a") is None


def test_links_in_a_circle_are_refused_when_they_are_followed() -> None:
    data = tar([symlink("a", "b"), symlink("b", "a")])
    with pytest.raises(HostileArchive, match="form a loop"):
        table(data).find("a")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a/..", "a\\b"])
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(HostileArchive, match="points outside"):
        table(raw_tar([(name, tarfile.REGTYPE, b"", "")]))


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("a", tarfile.SYMTYPE, "/etc/passwd"),
        ("a", tarfile.SYMTYPE, "../x"),
        ("a/b", tarfile.SYMTYPE, "../../x"),
        ("a", tarfile.LNKTYPE, "../x"),
        ("a", tarfile.LNKTYPE, "/etc/passwd"),
    ],
)
def test_a_link_that_leads_out_is_refused(name: str, kind: bytes, target: str) -> None:
    with pytest.raises(HostileArchive, match="points outside"):
        table(raw_tar([(name, kind, b"", target)]))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"S", b"V"])
def test_devices_pipes_and_other_special_entries_are_refused(kind: bytes) -> None:
    with pytest.raises(HostileArchive):
        table(raw_tar([("dev", kind, b"", "")]))


@pytest.mark.parametrize(
    "entries",
    [
        [Entry("a", b"1"), Entry("a", b"2")],
        [Entry("a", b"1"), Entry("./a", b"2")],
        [Entry("a", b"1"), symlink("a", "b")],
        [directory("a"), Entry("a", b"1")],
        [Entry("a", b"1"), directory("a")],
    ],
)
def test_two_entries_of_one_name_are_refused(entries: list[Entry]) -> None:
    with pytest.raises(HostileArchive):
        table(tar(entries))


def test_a_folder_may_be_named_twice() -> None:
    assert content(tar([directory("a"), directory("a/"), Entry("a/x", b"1")]), "a/x") == b"1"


@pytest.mark.parametrize("entry", [symlink("a", "x" * 5000), hardlink("a", "x" * 5000), Entry("x" * 5000)])
def test_a_name_that_no_file_system_takes_is_refused(entry: Entry) -> None:
    with pytest.raises(HostileArchive, match="4096 bytes"):
        table(tar([entry]))


def test_an_oversized_extension_header_is_refused() -> None:
    data = tar([Entry("a", pax={"comment": "x" * (MAX_EXTENSION_BYTES + 1)})])
    with pytest.raises(HostileArchive, match="extension header"):
        table(data)


def test_a_global_header_that_renames_entries_is_refused() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers={"path": "x"}) as archive:
        archive.addfile(tarfile.TarInfo("a"))
    with pytest.raises(HostileArchive, match="global header"):
        table(buffer.getvalue())


def test_a_global_comment_as_git_writes_it_is_ignored() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers={"comment": "0123abcd"}) as archive:
        archive.addfile(tarfile.TarInfo("a"))
    assert content(buffer.getvalue(), "a") == b""


@pytest.mark.parametrize("keep", [100, 512, 700, 1024 + 300])
def test_a_truncated_archive_is_damaged(keep: int) -> None:
    with pytest.raises(DamagedContent):
        table(tar_of({"a": bytes(900)})[:keep])


def test_an_archive_without_its_trailer_is_read_to_its_end() -> None:
    assert content(tar_of({"a": b"x"})[:1024], "a") == b"x"


def test_a_flipped_bit_in_a_header_is_damage() -> None:
    data = bytearray(tar_of({"a": b"x"}))
    data[0] ^= 1
    with pytest.raises(DamagedContent, match="checksum"):
        table(bytes(data))


def test_a_size_of_impossible_magnitude_is_damage() -> None:
    info = tarfile.TarInfo("a")
    info.size = 1 << 62
    header = info.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(DamagedContent):
        table(header + bytes(1024))


_PIECES = st.sampled_from(["..", ".", "", "a", "b", "\\", "c d", "é", "~"])
_NAMES = st.lists(_PIECES, min_size=1, max_size=8).map("/".join)


@given(_NAMES)
def test_a_cleaned_name_never_leads_out(name: str) -> None:
    try:
        cleaned = clean_name(name)
    except HostileArchive:
        return
    parts = cleaned.split("/") if cleaned else []
    assert ".." not in parts
    assert not cleaned.startswith("/")
    assert clean_name(cleaned) == cleaned


@given(st.lists(st.tuples(_NAMES, st.sampled_from([b"0", b"1", b"2", b"5"]), _NAMES), max_size=6))
def test_whatever_the_names_are_a_table_holds_only_names_inside(entries: list[tuple[str, bytes, str]]) -> None:
    data = raw_tar([(name, kind, b"x" if kind == b"0" else b"", target) for name, kind, target in entries])
    try:
        found = table(data)
    except (HostileArchive, DamagedContent):
        return
    for name in [*found.files, *found.links, *found.links.values(), *found.folders]:
        assert ".." not in name.split("/")
        assert not name.startswith("/")
    for span in found.files.values():
        assert span.offset + span.size <= len(data)


@given(st.binary(max_size=2048))
def test_random_bytes_are_refused_by_name_or_read(data: bytes) -> None:
    with contextlib.suppress(HostileArchive, DamagedContent):
        table(data)


@given(st.integers(0, 511), st.integers(0, 255), st.text(string.ascii_letters, min_size=1, max_size=90))
def test_any_changed_header_byte_is_refused_or_harmless(position: int, value: int, name: str) -> None:
    data = bytearray(tar_of({name: b"content"}))
    data[position] = value
    try:
        found = table(bytes(data))
    except (HostileArchive, DamagedContent):
        return
    assert all(span.offset + span.size <= len(data) for span in found.files.values())


def test_a_header_that_the_runtimes_do_not_read_is_damage() -> None:
    data = bytearray(tar_of({"a": b"x"}))
    data[100:108] = b"worng!!\0"  # the mode
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    with pytest.raises(DamagedContent, match="header at byte 0 of the archive is damaged: not an octal number"):
        table(bytes(data))


def test_an_extended_header_that_is_filled_up_with_nuls_is_read() -> None:
    data = bytearray(tar([Entry("a", b"x", pax={"path": "renamed"})]))
    data[124:136] = b"%011o\0" % 512  # the size of the extended header
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    assert content(bytes(data), "renamed") == b"x"
