"""zTOCs from other people: any bytes are a zTOC that fits together, or are refused by name."""

import contextlib
import io
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soci_pipeline.oci.media_types import OCI_LAYER, OCI_LAYER_GZIP
from soci_pipeline.soci.gzip.checkpoints import TarSpans
from soci_pipeline.soci.ztoc.build import build_ztoc
from soci_pipeline.soci.ztoc.codec import InvalidZtoc, decode, encode
from soci_pipeline.soci.ztoc.flatbuffer_writer import FlatbufferWriter
from soci_pipeline.soci.ztoc.writer import UNCOMPRESSED, VERSION, write_ztoc
from tests.support.examples import examples
from tests.support.tars import Entry, directory, gzipped, tar, text

ARCHIVE = tar([directory("d"), Entry("d/a", text(20_000), pax={"SCHILY.xattr.user.a": "1"}), Entry("b")])
ZTOCS = (
    build_ztoc(io.BytesIO(ARCHIVE), OCI_LAYER, span_size=1000).data,
    build_ztoc(io.BytesIO(gzipped(ARCHIVE)), OCI_LAYER_GZIP).data,
)
BOUNDED = settings(max_examples=examples(200), derandomize=True)


@BOUNDED
@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidZtoc):
        decode(data)


@BOUNDED
@given(
    st.sampled_from(ZTOCS), st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_changed_bytes_are_refused_or_read_the_same_after_writing(data: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(data)
    for place, value in changes:
        changed[place % len(changed)] = value
    with contextlib.suppress(InvalidZtoc):
        ztoc = decode(bytes(changed))
        assert decode(encode(ztoc)) == ztoc


@pytest.mark.parametrize("data", ZTOCS)
@pytest.mark.parametrize("length", [0, 1, 3, 4, 40, 1000, -1000, -4])
def test_a_truncated_ztoc_is_refused(data: bytes, length: int) -> None:
    with pytest.raises(InvalidZtoc):
        decode(data[:length])


def small_objects(entries: int = 1, spans: int = 1, *, vtable_bytes: int = 0, uncompressed: int = 1 << 39) -> bytes:
    """A zTOC of an uncompressed layer, as small as the format allows: all entries share their strings, all spans one.

    With ``vtable_bytes`` each entry has a vtable of its own that claims to be so large.
    """
    writer = FlatbufferWriter()
    version, tool = writer.string(VERSION), writer.string(b"x" * vtable_bytes)
    empty, kind, no_records = writer.string(b""), writer.string(b"reg"), writer.offset_vector([])
    starts = []
    for number in reversed(range(entries)):
        if vtable_bytes:
            writer.vtables.clear()
        texts = ((slot, "O", empty) for slot in (0, 4, 8, 9, 10))
        starts.append(writer.table([*texts, (1, "O", kind), (2, "q", 512 + 1024 * number), (13, "O", no_records)]))
    toc = writer.table([(0, "O", writer.offset_vector(starts[::-1]))])
    zinfo = FlatbufferWriter()
    stored = writer.byte_vector(
        [zinfo.finish(zinfo.table([(0, "i", 2), (1, "q", (1 << 39) // spans), (2, "q", 1 << 39)]))]
    )
    digests = writer.offset_vector([writer.string(b"sha256:" + b"0" * 64)] * spans)
    info = writer.table([(1, "i", spans - 1), (2, "O", digests), (3, "O", stored), (0, "b", UNCOMPRESSED)])
    sizes = [(2, "q", 1 << 39), (3, "q", uncompressed)]
    root = writer.table([(0, "O", version), (1, "O", tool), *sizes, (4, "O", toc), (5, "O", info)])
    data = bytearray(writer.finish(root))
    for start in starts if vtable_bytes else ():
        at = len(data) - start
        struct.pack_into("<H", data, at - struct.unpack_from("<i", data, at)[0], vtable_bytes)
    return bytes(data)


def test_the_smallest_objects_that_the_format_allows_are_read() -> None:
    ztoc = decode(small_objects(entries=3))
    assert [entry.offset for entry in ztoc.entries] == [512, 1536, 2560]
    assert ztoc.spans == 1


@pytest.mark.parametrize(("entries", "vtable_bytes"), [(3000, 0), (3000, 32), (300, 65534)])
def test_a_ztoc_takes_memory_in_proportion_to_its_bytes_whatever_its_vtables_claim(
    entries: int, vtable_bytes: int
) -> None:
    data = small_objects(entries, vtable_bytes=vtable_bytes)
    decode(data)
    tracemalloc.start()
    try:
        assert len(decode(data).entries) == entries
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * len(data)


def test_spans_that_share_one_digest_cannot_be_more_than_the_bytes_of_the_ztoc() -> None:
    assert decode(small_objects(spans=2)).spans == 2
    with pytest.raises(InvalidZtoc, match="more content"):
        decode(small_objects(spans=1000))


def test_a_tar_that_is_larger_than_its_uncompressed_layer_is_refused() -> None:
    with pytest.raises(InvalidZtoc, match="uncompressed layer"):
        decode(small_objects(uncompressed=(1 << 39) + 1))


def test_a_file_beyond_the_end_of_an_uncompressed_layer_is_refused() -> None:
    whole = decode(ZTOCS[0])
    beyond = whole.entries[-1]._replace(offset=1 << 60, size=1 << 60)
    forged = write_ztoc(
        [*whole.entries, beyond],
        TarSpans(whole.span_size, whole.compressed_size),
        [digest.encode() for digest in whole.span_digests],
        build_tool=whole.build_tool,
        compressed_size=whole.compressed_size,
        uncompressed_size=1 << 62,
    )
    with pytest.raises(InvalidZtoc, match="uncompressed layer"):
        decode(forged)
