"""The tar scanner against Python's tarfile as an independent reader, and on archives that are wrong."""

import contextlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soci_pipeline.archive.tar_headers import BadHeader
from soci_pipeline.errors import LayerNotIndexable
from soci_pipeline.soci.reasons import Reason
from soci_pipeline.soci.tar.entries import Entry as TocEntry
from soci_pipeline.soci.tar.stream import OversizedHeader, TarScanner
from tests.support.examples import examples
from tests.support.tars import Entry, directory, hardlink, symlink, tar

USTAR = tarfile.USTAR_FORMAT
KINDS = {
    tarfile.REGTYPE: b"reg",
    tarfile.LNKTYPE: b"hardlink",
    tarfile.SYMTYPE: b"symlink",
    tarfile.DIRTYPE: b"dir",
    tarfile.CHRTYPE: b"char",
    tarfile.BLKTYPE: b"block",
    tarfile.FIFOTYPE: b"fifo",
}


def scan(data: bytes, *, piece: int = 1 << 20) -> tuple[list[TocEntry], int]:
    scanner = TarScanner()
    for at in range(0, len(data), piece):
        part = data[at : at + piece]
        # A buffer is longer than what it holds; what lies behind must not be read.
        scanner.feed(bytearray(part + b"\xff" * 600), len(part))
    if scanner.refusal is not None:
        raise scanner.refusal
    size = scanner.finish()
    return scanner.entries, size


names = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=130
).filter(lambda name: name not in (".", ".."))


def seconds(microseconds: int) -> float:
    """Python's tarfile writes what is nearer to 0 with an exponent, which the format does not know."""
    value = microseconds / 10**6
    return value if abs(value) >= 1e-4 else 0.0


entries = st.builds(
    Entry,
    name=st.lists(names, min_size=1, max_size=3).map("/".join),
    data=st.binary(max_size=1500),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 3_000_000),
    gid=st.integers(0, 3_000_000),
    uname=st.text("abcdefgh", max_size=10),
    mtime=st.integers(0, 8_000_000_000) | st.integers(-(10**12), 10**15).map(seconds),
    pax=st.dictionaries(st.sampled_from(["SCHILY.xattr.user.a", "comment"]), st.text("xyz", max_size=9), max_size=2),
)
others = st.one_of(
    st.builds(directory, names),
    st.builds(symlink, names, names),
    st.builds(hardlink, names, names),
    st.builds(Entry, names, kind=st.just(tarfile.CHRTYPE), device=st.tuples(st.integers(0, 255), st.integers(0, 255))),
    st.builds(Entry, names, kind=st.just(tarfile.FIFOTYPE)),
)


@settings(deadline=None)
@given(st.lists(entries | others, max_size=12), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_entries_are_what_tarfile_reads(listed: list[Entry], dialect: int) -> None:
    data = tar(listed, dialect=dialect)
    found, size = scan(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
    assert len(found) == len(members)
    for entry, member in zip(found, members, strict=True):
        assert entry.name.decode().rstrip("/") == member.name.rstrip("/")
        assert entry.kind == KINDS[member.type]
        assert entry.offset == member.offset_data
        assert (entry.size, entry.mode, entry.uid, entry.gid) == (member.size, member.mode, member.uid, member.gid)
        assert (entry.uname.decode(), entry.gname.decode()) == (member.uname, member.gname)
        assert entry.link.decode() == member.linkname
        assert (entry.devmajor, entry.devminor) == (member.devmajor, member.devminor)
        for key, value in entry.pax:
            assert member.pax_headers[key.decode()] == value.decode()
    assert size <= len(data)
    assert not any(data[size:])


@settings(max_examples=examples(40))
@given(st.lists(entries | others, max_size=8), st.integers(1, 2000))
def test_the_pieces_in_which_a_tar_comes_do_not_matter(listed: list[Entry], piece: int) -> None:
    data = tar(listed)
    assert scan(data, piece=piece) == scan(data)


@settings(max_examples=examples(300))
@given(st.lists(entries | others, min_size=1, max_size=4), st.data())
def test_a_flipped_byte_gives_an_answer_or_a_named_error(listed: list[Entry], data: st.DataObject) -> None:
    archive = bytearray(tar(listed))
    at = data.draw(st.integers(0, len(archive) - 1))
    archive[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(BadHeader, OversizedHeader, LayerNotIndexable):
        scan(bytes(archive))


def refusal(data: bytes) -> LayerNotIndexable:
    with pytest.raises(LayerNotIndexable) as caught:
        scan(data)
    return caught.value


def header(**fields: object) -> bytearray:
    info = tarfile.TarInfo("name")
    for key, value in fields.items():
        setattr(info, key, value)
    return bytearray(info.tobuf(tarfile.USTAR_FORMAT)[:512])


def with_checksum_in_base_256(block: bytearray) -> bytes:
    """Right in value and wrong in form: a checksum is always octal text."""
    block[148:156] = (1 << 63 | int(bytes(block[148:154]), 8)).to_bytes(8, "big")
    return bytes(block)


END = bytes(1024)


def test_a_hard_link_of_some_size_is_refused_with_its_reason() -> None:
    data = bytes(header(type=tarfile.LNKTYPE, size=5, linkname="x")) + END
    assert refusal(data).code == Reason.HARDLINK_WITH_SIZE


@pytest.mark.parametrize("kind", [b"7", b"S", b"g", b"V", b"D", b"Z"])
def test_other_types_are_refused_with_their_reason(kind: bytes) -> None:
    assert refusal(bytes(header(type=kind)) + END).code == Reason.UNSUPPORTED_ENTRY


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE])
def test_a_size_where_there_is_no_data_is_refused_with_its_reason(kind: bytes) -> None:
    assert refusal(bytes(header(type=kind, size=100)) + END).code == Reason.UNSUPPORTED_ENTRY


def test_a_folder_by_its_long_name_has_no_data_whatever_its_size_says() -> None:
    long_name = bytes(header(name="././@LongLink", type=tarfile.GNUTYPE_LONGNAME, size=7)) + b"folder/".ljust(
        512, b"\0"
    )
    data = long_name + bytes(header(type=b"\0", size=512)) + bytes(header(name="next")) + END
    assert refusal(data).code == Reason.UNSUPPORTED_ENTRY


def test_a_sparse_file_in_pax_records_is_refused_with_its_reason() -> None:
    data = tar([Entry("sparse", b"0" * 100, pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})])
    assert refusal(data).code == Reason.UNSUPPORTED_ENTRY


def test_a_typeflag_of_nul_is_a_folder_where_the_name_says_so() -> None:
    folder, file = header(name="folder/", type=b"\0"), header(type=b"\0")
    found, _ = scan(bytes(folder) + bytes(file) + END)
    assert [entry.kind for entry in found] == [b"dir", b"reg"]


def test_the_archive_ends_behind_its_second_zero_block() -> None:
    _, size = scan(bytes(header()) + END + bytes(5000))
    assert size == 512 + 1024


def test_an_archive_without_a_trailer_ends_where_the_stream_does() -> None:
    found, size = scan(bytes(header(size=3)) + b"abc")
    assert (len(found), size) == (1, 515)


@pytest.mark.parametrize(
    "data",
    [
        bytes(header(size=1000)) + b"short",
        bytes(header(size=7 << 30)) + b"short",
        bytes(header())[:300],
        bytes(512) + bytes(header()) + END,
        b"x" * 2048,
        bytes(header(type=b"x", size=600)) + b"12 a=b",
        with_checksum_in_base_256(header()) + END,
    ],
)
def test_a_broken_tar_is_refused(data: bytes) -> None:
    with pytest.raises(BadHeader):
        scan(data)


def test_a_pax_header_without_end_is_refused_unread() -> None:
    with pytest.raises(OversizedHeader):
        scan(bytes(header(type=b"x", size=(1 << 20) + 1)))


def test_a_negative_size_in_a_pax_record_is_refused() -> None:
    with pytest.raises(BadHeader):
        scan(tar([Entry("a", pax={"size": "-512"})]))


def test_duplicates_stay() -> None:
    found, _ = scan(tar([Entry("a", b"1"), Entry("a", b"22")]))
    assert [(entry.name, entry.size) for entry in found] == [(b"a", 1), (b"a", 2)]


def special(kind: bytes, data: bytes) -> bytes:
    """An entry that says something of the next one."""
    return bytes(header(name="special", type=kind, size=len(data))) + data + bytes(-len(data) % 512)


class SlowReads(TarScanner):
    """Counts the headers that the loop for plain ones leaves to the reader of all kinds."""

    count = 0

    def _read_header(self, piece: bytearray | bytes, at: int) -> None:
        self.count += 1
        super()._read_header(piece, at)


def test_all_plain_headers_are_read_in_the_one_loop() -> None:
    """The other reader gives the same entries, and takes several times as long."""
    scanner = SlowReads()
    listed = [
        Entry(f"{'p' * number}/file-{number}", b"x" * 37 * number, uname="u" * (number % 9)) for number in range(99)
    ]
    data = tar([*listed, symlink("link", "target"), hardlink("same", "file"), directory("folder")], dialect=USTAR)
    scanner.feed(data, len(data))
    assert len(scanner.entries) == 102
    assert scanner.count == 2  # the zero blocks


@pytest.mark.parametrize("piece", [512, 700, 1 << 20])
def test_a_header_with_a_signed_checksum_lies_where_it_lies_among_plain_ones(piece: int) -> None:
    old = header(name="\u00e9", size=3)
    signed = sum(byte - 256 if byte > 127 else byte for byte in old[:148] + b" " * 8 + old[156:])
    old[148:156] = b"%06o\0 " % signed
    plain = bytes(header(size=3)) + b"abc".ljust(512, b"\0")
    found, _ = scan(plain + bytes(old) + b"abc".ljust(512, b"\0") + plain + END, piece=piece)
    assert [(entry.name.decode(), entry.offset) for entry in found] == [
        ("name", 512),
        ("\u00e9", 1536),
        ("name", 2560),
    ]


def test_an_empty_name_is_read_as_one() -> None:
    found, _ = scan(bytes(header(name="")) + bytes(header(name="next")) + END)
    assert [entry.name for entry in found] == [b"", b"next"]


@pytest.mark.parametrize(
    ("data", "cost"),
    [
        (bytes(header()), 300),
        (bytes(header()) * 2, 600),
        (tar([Entry("p" * 140 + "/" + "n" * 90)], dialect=USTAR), 300 + 231),
        (tar([symlink("a", "target")], dialect=USTAR), 300 + len("target")),
        (special(b"K", b"k" * 150) + special(b"L", b"l" * 130) + bytes(header(type=b"2")), 300 + 150 + 130),
        (special(b"x", b"6 a=b\n7 cc=d\n") + bytes(header()), 300 + len("name") + 2 * 160 + len("abccd")),
        (special(b"x", b"5 a=\n" * 100) + bytes(header()), 300 + len("name") + 160 + 1 + 32 * (500 - 10 - 1)),
        (special(b"L", b"long") * 5 + bytes(header()), 3 * 300 + len("long")),
        (
            special(b"L", b"long") * 3 + bytes(header()) + special(b"L", b"long") + bytes(header()),
            600 + 2 * len("long"),
        ),
    ],
    ids=["one", "two", "prefix", "link", "long names", "records", "records in vain", "five in a row", "three in a row"],
)
def test_the_cost_counts_what_entries_take_and_what_is_read_in_vain(data: bytes, cost: int) -> None:
    scanner = TarScanner()
    scanner.feed(data, len(data))
    assert scanner.cost == cost
