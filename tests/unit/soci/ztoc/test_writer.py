"""The laid-out tables of the fast writer against the plain writer, field by field."""

from hypothesis import given, settings
from hypothesis import strategies as st

from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.gzip.checkpoints import WINDOW, Checkpoint, GzipCheckpoints
from soci_pipeline.soci.tar.entries import Entry
from soci_pipeline.soci.ztoc.codec import Ztoc, decode, encode
from soci_pipeline.soci.ztoc.flatbuffer_writer import FlatbufferWriter
from soci_pipeline.soci.ztoc.writer import _vector_of_entries, write_ztoc
from tests.support.examples import examples

raw = st.binary(max_size=40)
numbers = st.just(0) | st.integers(-(1 << 63), (1 << 63) - 1)
unsigned = st.just(0) | st.integers(0, (1 << 32) - 1)
some_entries = st.lists(
    st.builds(
        Entry,
        name=raw,
        kind=st.sampled_from([b"reg", b"dir", b"symlink"]),
        offset=st.integers(512, 1 << 40),
        size=st.just(0) | st.integers(0, 1 << 40),
        link=raw,
        mode=numbers,
        uid=unsigned,
        gid=unsigned,
        uname=raw,
        gname=raw,
        mod_time=st.sampled_from([b"", b"2024-01-01T00:00:00Z", b"2024-01-01T00:00:00.5Z"]),
        devmajor=numbers,
        devminor=numbers,
        pax=st.dictionaries(raw, raw, max_size=4).map(lambda records: tuple(sorted(records.items()))),
    ),
    max_size=30,
)


def plainly(writer: FlatbufferWriter, entry: Entry) -> int:
    """One FileMetadata in the order of the schema, with nothing laid out beforehand."""
    strings = [writer.string(value) for value in (entry.name, entry.kind, entry.link, entry.uname, entry.gname)]
    name, kind, link, uname, gname = strings
    time = writer.string(entry.mod_time)
    xattrs = []
    for key, value in entry.pax:
        key_at, value_at = writer.string(key), writer.string(value)
        xattrs.append(writer.table([(0, "O", key_at), (1, "O", value_at)]))
    vector = writer.offset_vector(xattrs)
    return writer.table(
        [
            (0, "O", name), (1, "O", kind), (2, "q", entry.offset), (3, "q", entry.size), (4, "O", link),
            (5, "q", entry.mode), (6, "I", entry.uid), (7, "I", entry.gid), (8, "O", uname), (9, "O", gname),
            (10, "O", time), (11, "q", entry.devmajor), (12, "q", entry.devminor), (13, "O", vector),
        ]
    )  # fmt: skip


@settings(deadline=None)
@given(some_entries, st.binary(max_size=9))
def test_the_fast_writer_writes_what_the_plain_one_does(listed: list[Entry], before: bytes) -> None:
    fast, plain = FlatbufferWriter(), FlatbufferWriter()
    for writer in (fast, plain):
        writer.string(before)
    places = [plainly(plain, entry) for entry in reversed(listed)]
    expected = plain.offset_vector(places[::-1])
    assert _vector_of_entries(fast, list(listed)) == expected
    assert fast.finish(expected) == plain.finish(expected)


@settings(max_examples=examples(50))
@given(some_entries, st.text(max_size=20), st.lists(st.integers(1, 1000), min_size=1, max_size=3))
def test_a_ztoc_comes_back_from_its_bytes(listed: list[Entry], tool: str, steps: list[int]) -> None:
    ascending: list[Entry] = []
    offset = 512
    for entry in listed:
        size = entry.size % 5000 if entry.kind == b"reg" else 0
        ascending.append(entry._replace(offset=offset, size=size))
        offset += -(-size // 512) * 512 + 512
    points = [
        Checkpoint(10 + sum(steps[:index]), 100 * sum(steps[:index]), index % 8, bytes([index]) * WINDOW)
        for index in range(len(steps))
    ]
    ztoc = Ztoc(
        build_tool=tool,
        compressed_size=10_000,
        uncompressed_size=offset,
        entries=tuple(ascending),
        checkpoints=GzipCheckpoints(100, points),
        span_digests=tuple(Digest.of(bytes([index])) for index in range(len(steps))),
    )
    assert decode(encode(ztoc)) == ztoc


def test_an_empty_table_of_contents_is_written() -> None:
    data = write_ztoc(
        [],
        GzipCheckpoints(1, [Checkpoint(10, 0, 0, bytes(WINDOW))]),
        [Digest.of(b"").encode()],
        build_tool="t",
        compressed_size=20,
        uncompressed_size=0,
    )
    assert decode(data).entries == ()
