"""zTOCs of any tar and any way to compress it: read back by an independent reader, and damaged in every place."""

import gzip
import io
import struct
import tarfile
import time
import zlib
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soci_pipeline.errors import DamagedContent, HostileArchive, InvalidInput, LayerNotIndexable, SociPipelineError
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import DOCKER_LAYER, DOCKER_LAYER_GZIP, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from soci_pipeline.soci.reasons import Reason
from soci_pipeline.soci.ztoc.build import build_ztoc
from soci_pipeline.soci.ztoc.codec import Ztoc, decode, encode
from soci_pipeline.soci.ztoc.extract import file_bytes
from tests.support.examples import examples
from tests.support.tars import Entry, gzip_members, gzipped, hardlink, noise, tar, tar_of, text
from tests.support.ztoc_reader import ZtocReader

QUICK = settings(max_examples=examples(25), derandomize=True, suppress_health_check=[HealthCheck.too_slow])
KINDS = {
    tarfile.REGTYPE: b"reg",
    tarfile.LNKTYPE: b"hardlink",
    tarfile.SYMTYPE: b"symlink",
    tarfile.DIRTYPE: b"dir",
    tarfile.CHRTYPE: b"char",
    tarfile.BLKTYPE: b"block",
    tarfile.FIFOTYPE: b"fifo",
}

names = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).map(
    lambda name: name.strip("/") or "x"
)
long_names = st.builds(lambda name, times: "/".join([name] * times), names.filter(lambda n: len(n) < 30), st.just(40))
contents = st.one_of(
    st.binary(max_size=600),
    st.builds(lambda size, seed: noise(size, seed=seed), st.integers(0, 9000), st.integers(0, 9)),
    st.builds(lambda size, seed: text(size, seed=seed), st.integers(0, 60_000), st.integers(0, 9)),
)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from([tarfile.REGTYPE] * 4 + list(KINDS)))
    linked = kind in (tarfile.LNKTYPE, tarfile.SYMTYPE)
    return Entry(
        draw(st.one_of(names, long_names)),
        draw(contents) if kind == tarfile.REGTYPE else b"",
        kind,
        link=draw(st.one_of(names, long_names)) if linked else "",
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, (1 << 32) - 1)),
        gid=draw(st.integers(0, (1 << 21) - 1)),
        mtime=draw(st.integers(0, (1 << 34) - 1)),
        device=(draw(st.integers(0, 255)), 7) if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE) else (0, 0),
        pax=draw(st.dictionaries(st.just("SCHILY.xattr.user.k"), st.text("abc\n=", max_size=20), max_size=1)),
    )


archives = st.builds(
    lambda items, dialect: tar(items, dialect=dialect),
    st.lists(entries(), max_size=8),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)


@st.composite
def layers(draw: st.DrawFn) -> tuple[bytes, bytes, str]:
    """A tar, the layer made of it, and the layer's media type."""
    plain = draw(archives)
    if draw(st.integers(0, 3)) == 0:
        return plain, plain, draw(st.sampled_from([OCI_LAYER, DOCKER_LAYER]))
    cuts = [0, *sorted(draw(st.lists(st.integers(0, len(plain)), max_size=3))), len(plain)]
    pieces = [plain[start:end] for start, end in pairwise(cuts)]
    packed = gzip_members(pieces, level=draw(st.integers(0, 9)))
    return plain, packed, draw(st.sampled_from([OCI_LAYER_GZIP, DOCKER_LAYER_GZIP]))


def ztoc_of(layer: bytes, media_type: str, span_size: int) -> Ztoc:
    built = build_ztoc(io.BytesIO(layer), media_type, span_size=span_size)
    ztoc = decode(built.data)
    assert encode(ztoc) == built.data
    assert (built.digest, built.size) == (Digest.of(built.data), len(built.data))
    assert (built.entries, built.spans) == (len(ztoc.entries), ztoc.spans)
    return ztoc


@QUICK
@given(layers(), st.integers(1, 70_000))
def test_python_s_tarfile_reads_the_same_entries_and_files(layer: tuple[bytes, bytes, str], span_size: int) -> None:
    plain, stored, media_type = layer
    ztoc = ztoc_of(stored, media_type, span_size)
    assert (ztoc.compressed_size, ztoc.span_size) == (len(stored), span_size)
    with tarfile.open(fileobj=io.BytesIO(plain), encoding="utf-8", errors="surrogateescape") as archive:
        members = archive.getmembers()
        assert len(members) == len(ztoc.entries)
        for member, entry in zip(members, ztoc.entries, strict=True):
            # tarfile takes the slash from the end of a folder's name; the zTOC keeps it.
            assert entry.name.decode(errors="surrogateescape").rstrip("/") == member.name.rstrip("/")
            assert entry.link.decode(errors="surrogateescape") == member.linkname
            assert (entry.kind, entry.offset) == (KINDS[member.type], member.offset_data)
            assert (entry.mode, entry.uid, entry.gid) == (member.mode, member.uid, member.gid)
            moment = datetime.fromtimestamp(int(member.mtime), UTC)
            assert entry.mod_time.decode() == moment.strftime("%Y-%m-%dT%H:%M:%SZ")
            found = {key.decode(): value.decode() for key, value in entry.pax}
            assert found == member.pax_headers
            if member.isreg():
                opened = archive.extractfile(member)
                assert opened is not None
                assert entry.size == member.size
                assert file_bytes(ztoc, entry, lambda start, end: stored[start:end]) == opened.read()


def flushed(data: bytes, *, level: int, mode: int, every: int, strategy: int) -> bytes:
    """A gzip member with a flush every so many bytes, as parallel and rsync-friendly compressors write them."""
    deflate = zlib.compressobj(level, 8, -15, 8, strategy)
    pieces = [
        part
        for start in range(0, len(data), every)
        for part in (deflate.compress(data[start : start + every]), deflate.flush(mode))
    ]
    trailer = struct.pack("<II", zlib.crc32(data), len(data))
    return b"\x1f\x8b\x08\x0c" + bytes(6) + b"\x05\0extra" + b"name\0" + b"".join(pieces) + deflate.flush() + trailer


@settings(QUICK, max_examples=examples(15))
@given(
    archives,
    st.lists(st.integers(0, 60_000), max_size=2),
    st.sampled_from([0, 1, 6, 9]),
    st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_PARTIAL_FLUSH, zlib.Z_BLOCK, zlib.Z_NO_FLUSH]),
    st.integers(300, 70_000),
    st.sampled_from([zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE]),
)
def test_a_reader_that_shares_no_code_finds_each_file_through_the_spans(
    plain: bytes, cuts: list[int], level: int, mode: int, every: int, strategy: int
) -> None:
    ends = [0, *sorted(min(cut, len(plain)) for cut in cuts), len(plain)]
    members = (plain[start:end] for start, end in pairwise(ends))
    layer = b"".join(flushed(each, level=level, mode=mode, every=every, strategy=strategy) for each in members)
    reader = ZtocReader(build_ztoc(io.BytesIO(layer), OCI_LAYER_GZIP, span_size=max(len(plain) // 50, 400)).data, layer)
    assert [str(Digest.of(span)).encode() for span in reader.spans()] == reader.digests
    with tarfile.open(fileobj=io.BytesIO(plain), encoding="utf-8", errors="surrogateescape") as archive:
        regular = [member for member in archive.getmembers() if member.isreg()]
    found = [file for file in reader.files if file.kind == b"reg"]
    assert [(file.offset, file.size) for file in found] == [(each.offset_data, each.size) for each in regular]
    for file in found:
        assert reader.read(file.offset, file.offset + file.size) == plain[file.offset : file.offset + file.size]


SOUND = gzip_members([tar_of({"a": text(30_000), "b": noise(3_000), "c": b"c"})[:20_000], b""]) + gzipped(
    tar_of({"a": text(30_000), "b": noise(3_000), "c": b"c"})[20_000:]
)


def outcome(layer: bytes) -> bytes | None:
    """The zTOC of a layer; None where it is refused verified, with its digest or its reason."""
    try:
        return build_ztoc(io.BytesIO(layer), OCI_LAYER_GZIP, span_size=5000).data
    except (LayerNotIndexable, DamagedContent, HostileArchive) as error:
        check_named(error, layer)
    return None


def check_named(error: SociPipelineError, layer: bytes) -> None:
    """A refusal has a code that is recorded, or names the layer's digest."""
    named = Reason(error.code) if isinstance(error, LayerNotIndexable) else str(Digest.of(layer)) in error.reason
    assert named


@QUICK
@given(st.integers(0, len(SOUND) - 1))
def test_a_truncated_layer_is_refused_by_name(length: int) -> None:
    answer = outcome(SOUND[:length])
    # A cut at the end of a member leaves a sound gzip file, whose tar must then be the one that ends there.
    if answer is not None:
        assert decode(answer).uncompressed_size <= len(gzip.decompress(SOUND[:length]))


@settings(QUICK, max_examples=examples(150))
@given(st.integers(0, len(SOUND) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_found_or_does_not_matter(place: int, flip: int) -> None:
    layer = bytearray(SOUND)
    layer[place] ^= flip
    answer = outcome(bytes(layer))
    if answer is not None:
        # Only bytes that gzip does not check (time, system and such of a header) may go unnoticed.
        assert gzip.decompress(layer) == gzip.decompress(SOUND)
        assert decode(answer).entries == decode(outcome(SOUND) or b"").entries


@pytest.mark.parametrize("place", range(0, len(SOUND), 211))
def test_a_layer_that_is_not_what_its_digest_says_is_refused(place: int) -> None:
    layer = bytearray(SOUND)
    layer[place] ^= 1
    with pytest.raises(DamagedContent) as caught:
        build_ztoc(io.BytesIO(layer), OCI_LAYER_GZIP, layer_digest=Digest.of(SOUND), layer_size=len(SOUND))
    assert str(Digest.of(SOUND)) in caught.value.reason


def test_a_layer_of_another_size_is_refused() -> None:
    with pytest.raises(DamagedContent, match="not 7"):
        build_ztoc(io.BytesIO(SOUND), OCI_LAYER_GZIP, layer_size=7)


@QUICK
@given(st.binary(max_size=3000))
def test_any_bytes_are_a_layer_or_refused_by_name(data: bytes) -> None:
    for layer, media_type in ((data, OCI_LAYER), (data, OCI_LAYER_GZIP), (gzipped(data), OCI_LAYER_GZIP)):
        try:
            build_ztoc(io.BytesIO(layer), media_type, span_size=1000)
        except (LayerNotIndexable, DamagedContent, HostileArchive) as error:
            check_named(error, layer)


def headers(entry: Entry, *, flag: bytes) -> bytes:
    """The archive of one entry, its type flag replaced and its checksum made right."""
    archive = bytearray(tar([entry], dialect=tarfile.USTAR_FORMAT))
    archive[156:157] = flag
    archive[148:156] = b" " * 8
    archive[148:156] = b"%06o\0 " % sum(archive[:512])
    return bytes(archive)


GLOBAL = tarfile.TarInfo.create_pax_global_header({"comment": "a commit"}) + tar_of({"a": b"a"})
REASONS = {
    "global header": (GLOBAL, OCI_LAYER, "unsupported-entry"),
    "sparse file": (headers(Entry("s"), flag=b"S"), OCI_LAYER, "unsupported-entry"),
    "contiguous file": (headers(Entry("s", b"data"), flag=b"7"), OCI_LAYER, "unsupported-entry"),
    "sparse by records": (tar([Entry("s", pax={"GNU.sparse.major": "1"})]), OCI_LAYER, "unsupported-entry"),
    "link with size": (headers(Entry("h", b"data"), flag=b"1"), OCI_LAYER, "hardlink-with-size"),
    "folder with size": (headers(Entry("d", b"data"), flag=b"5"), OCI_LAYER, "unsupported-entry"),
    "bytes after": (gzipped(tar_of({"a": b"a"})) + b"more", OCI_LAYER_GZIP, "trailing-bytes"),
    "one byte behind": (gzipped(tar_of({"a": b"a"})) + b"\0", OCI_LAYER_GZIP, "trailing-bytes"),
    "half a magic behind": (gzipped(tar_of({"a": b"a"})) + b"\x1f", OCI_LAYER_GZIP, "trailing-bytes"),
    "zstd": (b"\x28\xb5\x2f\xfd", OCI_LAYER_ZSTD, "zstd"),
    "foreign": (b"", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"),
    "no layer": (b"", "text/plain", "foreign"),
}


@pytest.mark.parametrize("case", sorted(REASONS))
def test_a_sound_layer_that_cannot_be_indexed_has_a_reason(case: str) -> None:
    layer, media_type, reason = REASONS[case]
    with pytest.raises(LayerNotIndexable) as caught:
        build_ztoc(io.BytesIO(layer), media_type)
    assert caught.value.code == reason


def test_damage_outweighs_a_reason() -> None:
    layer = bytearray(gzipped(GLOBAL))
    layer[-8] ^= 1
    with pytest.raises(DamagedContent):
        build_ztoc(io.BytesIO(layer), OCI_LAYER_GZIP)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", [0, 1024, 2048])
def test_a_damaged_header_is_refused_wherever_it_is(place: int, packed: bool) -> None:
    archive = bytearray(tar_of({"a": b"a", "b": b"b", "c": b"c"}))
    archive[place] ^= 1
    layer = gzipped(bytes(archive)) if packed else bytes(archive)
    with pytest.raises(DamagedContent, match=str(Digest.of(layer))):
        build_ztoc(io.BytesIO(layer), OCI_LAYER_GZIP if packed else OCI_LAYER)


def test_a_plain_hard_link_is_indexed() -> None:
    ztoc = ztoc_of(tar([Entry("a", b"a"), hardlink("b", "a")]), OCI_LAYER, 1000)
    assert [entry.kind for entry in ztoc.entries] == [b"reg", b"hardlink"]


def test_a_span_of_nothing_cannot_be_meant() -> None:
    with pytest.raises(InvalidInput):
        build_ztoc(io.BytesIO(SOUND), OCI_LAYER_GZIP, span_size=0)


def test_the_time_zone_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = tar([Entry("a", b"a", mtime=1.25), Entry("b", mtime=1 << 33)])
    answers = set()
    try:
        for zone in ("UTC", "Asia/Kathmandu", "America/St_Johns"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            answers.add(build_ztoc(io.BytesIO(layer), OCI_LAYER).data)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert len(answers) == 1


def test_the_engines_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    from soci_pipeline.soci.gzip import inflate

    answers = set()
    try:
        for name in ("zlib", "zlib-ng"):
            monkeypatch.setenv(inflate.ENGINE_VARIABLE, name)
            inflate.engine.cache_clear()
            answers.add(outcome(SOUND))
    finally:
        monkeypatch.undo()
        inflate.engine.cache_clear()
    assert len(answers) == 1
