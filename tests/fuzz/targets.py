"""What is fuzzed: each target takes any bytes, and may end only well or with an error that the library names.

A target also compares: a wrong answer raises `AssertionError`, which the fuzzer takes for a crash.
"""

import contextlib
import gzip
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from soci_pipeline.archive.tar_headers import BadHeader
from soci_pipeline.errors import SociPipelineError
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.image_config import diff_ids_of_config, platform_of_config
from soci_pipeline.oci.index_file import parse_roots
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest, parse
from soci_pipeline.oci.media_types import OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP
from soci_pipeline.oci.platform import Platform
from soci_pipeline.soci.limits import Limits
from soci_pipeline.soci.tar.entries import Entry
from soci_pipeline.soci.tar.stream import OversizedHeader, TarScanner
from soci_pipeline.soci.ztoc.build import build_ztoc
from soci_pipeline.soci.ztoc.codec import decode, encode
from soci_pipeline.soci.ztoc.extract import read_span
from tests.support import tars

LIMITS = Limits(uncompressed=16 << 20, ztoc=8 << 20)
_BLOCK = 512
_SPAN_BYTES = 4096

TarAnswer = tuple[list[Entry], str | None, int] | str


@dataclass(frozen=True)
class Target:
    """``run`` takes one input; ``seeds`` are inputs to begin with."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


def fuzz_tar(data: bytes) -> None:
    """A tar, whole and in pieces: both must have one answer. The first byte chooses the pieces."""
    if not data:
        return
    archive = with_checksums(data[1:])
    assert scan(archive, len(archive) or 1) == scan(archive, 1 + data[0] * 7)


def scan(archive: bytes, step: int) -> TarAnswer:
    """The answer of the scanner for an archive that comes ``step`` bytes at a time; a text where it is damaged."""
    scanner = TarScanner()
    try:
        for start in range(0, len(archive), step):
            piece = archive[start : start + step]
            scanner.feed(piece, len(piece))
        code = scanner.refusal.code if scanner.refusal else None
        return scanner.entries, code, 0 if code else scanner.finish()
    except (BadHeader, OversizedHeader) as error:
        return type(error).__name__


def with_checksums(archive: bytes) -> bytes:
    """The archive with right checksums in what looks like headers: a fuzzer cannot guess them."""
    fixed = bytearray(archive)
    for at in range(0, len(fixed) - _BLOCK + 1, _BLOCK):
        if fixed[at + 257 : at + 262] == b"ustar":
            fixed[at + 148 : at + 156] = b" " * 8
            fixed[at + 148 : at + 156] = b"%06o\0 " % sum(fixed[at : at + _BLOCK])
    return bytes(fixed)


def fuzz_gzip(data: bytes) -> None:
    """A gzip stream. The first byte chooses the span size, and whether the rest is deflate that gets a right frame."""
    if not data:
        return
    layer = data[1:] if data[0] & 1 else framed(data[1:])
    span_size = 1 + (data[0] >> 1) * 97
    with contextlib.suppress(SociPipelineError):
        built = build_ztoc(io.BytesIO(layer), OCI_LAYER_GZIP, span_size=span_size, limits=LIMITS)
        content = gzip.decompress(layer)
        ztoc = decode(built.data)
        assert encode(ztoc) == built.data
        for span in range(ztoc.spans):
            first, end = ztoc.content_range(span)
            start, stop = ztoc.stored_range(span)
            assert read_span(ztoc, span, layer[start:stop]) == content[first:end]


def framed(deflate: bytes) -> bytes:
    """A gzip member of a deflate stream, with the right checksum where it inflates."""
    inflater = zlib.decompressobj(-15)
    content = b""
    with contextlib.suppress(zlib.error):
        content = inflater.decompress(deflate, 1 << 20)
    used = deflate[: len(deflate) - len(inflater.unused_data)]
    trailer = struct.pack("<II", zlib.crc32(content), len(content))
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + used + trailer + inflater.unused_data


def fuzz_ztoc(data: bytes) -> None:
    """The bytes of a zTOC; what can be read must stay the same through writing it, and its spans must be readable."""
    with contextlib.suppress(SociPipelineError):
        ztoc = decode(data)
        assert decode(encode(ztoc)) == ztoc
        for span in range(min(ztoc.spans, 8)):
            start, stop = ztoc.stored_range(span)
            stored = data[: min(max(stop - start, 0), _SPAN_BYTES)]
            claimed = replace(ztoc, span_digests=(Digest.of(stored),) * ztoc.spans)
            with contextlib.suppress(SociPipelineError):
                read_span(claimed, span, stored)


def fuzz_manifest(data: bytes) -> None:
    """A manifest, an image index, an index.json, an image config: what is read can be written, and read again."""
    for read in (platform_of_config, diff_ids_of_config):
        with contextlib.suppress(SociPipelineError):
            read(data)
    with contextlib.suppress(SociPipelineError):
        ImageIndex(manifests=parse_roots(data, Path("fuzzed"))).encode()
    with contextlib.suppress(SociPipelineError):
        written = parse(parse(data).encode())
        assert parse(written.encode()) == written


def seed_archives() -> list[bytes]:
    """Small archives with every kind of entry and every dialect."""
    entries = [
        tars.directory("d"),
        tars.Entry("d/file", b"content" * 100, pax={"SCHILY.xattr.user.a": "b"}),
        tars.Entry("n" * 120, b"x", mtime=1.5, uid=1 << 22),
        tars.symlink("d/link", "file"),
        tars.hardlink("d/hard", "d/file"),
        tars.Entry("dev", kind=tarfile.CHRTYPE, device=(1, 3)),
        tars.Entry("pipe", kind=tarfile.FIFOTYPE),
    ]
    plain = [entry for entry in entries if len(entry.name) < 100]
    dialects = ((tarfile.PAX_FORMAT, entries), (tarfile.GNU_FORMAT, entries), (tarfile.USTAR_FORMAT, plain))
    # Without the padding to 10 KiB, which only keeps the fuzzer from what matters.
    return [tars.tar(kept, dialect=dialect).rstrip(b"\0") + bytes(1536) for dialect, kept in dialects]


def _tar_seeds() -> list[bytes]:
    return [bytes([pieces]) + archive for archive in seed_archives() for pieces in (0, 73)]


def _gzip_seeds() -> list[bytes]:
    archives = seed_archives()
    whole = [b"\1" + tars.gzipped(archive, level=level) for archive in archives[:1] for level in (0, 1, 9)]
    members = b"\x41" + tars.gzip_members([archives[0][:700], archives[0][700:]])
    bare = [b"\0" + tars.gzipped(archive)[10:-8] for archive in archives]
    return [*whole, members, *bare]


def _ztoc_seeds() -> list[bytes]:
    archive = seed_archives()[0]
    plain = build_ztoc(io.BytesIO(archive), OCI_LAYER, span_size=1000)
    packed = build_ztoc(io.BytesIO(tars.gzipped(archive)), OCI_LAYER_GZIP)
    return [plain.data, packed.data]


def _manifest_seeds() -> list[bytes]:
    platform = Platform("linux", "arm64", "v8", os_features=("a",))
    blob = Descriptor(
        media_type=OCI_CONFIG, digest=Digest.of(b"{}"), size=2, urls=("https://example.org",), data="e30="
    )
    manifest = ImageManifest(config=blob, layers=(blob,), subject=blob, annotations={"a<&>": "\u2028"})
    index = ImageIndex(manifests=(manifest.descriptor.annotated(platform=platform, artifact_type="a/b"),))
    config = {"os": "linux", "architecture": "arm64", "rootfs": {"type": "layers", "diff_ids": [str(blob.digest)]}}
    return [manifest.encode(), index.encode(), json.dumps(config).encode(), b'{"schemaVersion":2,"a":"\\ud800"}']


TARGETS = {
    "manifest": Target(fuzz_manifest, _manifest_seeds),
    "tar": Target(fuzz_tar, _tar_seeds),
    "gzip": Target(fuzz_gzip, _gzip_seeds),
    "ztoc": Target(fuzz_ztoc, _ztoc_seeds),
}
