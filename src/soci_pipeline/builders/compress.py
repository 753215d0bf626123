"""Compress a layer so that the same tar gives the same bytes, and check the content of a compressed layer.

The digest of a compressed layer depends on three things that are fixed here: raw deflate at level 6 with a 32 KiB
window and the default strategy, fed in pieces of exactly 1 MiB (zlib-ng's output depends on how its input is split);
one gzip member whose header is empty (RFC 1952: no time, no name, no extra flags, operating system 255, "unknown"); and
the deflate implementation itself. The last is zlib-ng from its PyPI wheel, whose exact version the project's lock pins,
so that the system's zlib has no effect. Another zlib-ng version, or the standard library's zlib on architectures
without that wheel, may give other bytes for the same tar: a new layer digest, but the same diff id.
"""

import hashlib
import struct
import zlib as inflate
from typing import BinaryIO, Protocol

from soci_pipeline.archive.reader import CHUNK, ArchiveLimits
from soci_pipeline.errors import DamagedContent
from soci_pipeline.oci.blob_writer import BlobWriter
from soci_pipeline.oci.digest import Digest

try:
    from zlib_ng import zlib_ng as deflate
except ImportError:  # an architecture that has no wheel
    import zlib as deflate  # type: ignore[no-redef]

LEVEL = 6
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


class Readable(Protocol):
    """The interface that `compress` needs of its source."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, at most ``size``; empty at the end."""


def compress(source: Readable, target: BlobWriter) -> Digest:
    """Write one gzip member with the content of ``source``; return the digest of that content."""
    state, content, checksum, length = deflate.compressobj(LEVEL, deflate.DEFLATED, -15), hashlib.sha256(), 0, 0
    target.write(_HEADER)
    while chunk := _piece(source):
        content.update(chunk)
        checksum = inflate.crc32(chunk, checksum)
        length += len(chunk)
        target.write(state.compress(chunk))
    target.write(state.flush())
    target.write(struct.pack("<II", checksum, length & 0xFFFFFFFF))
    return Digest(f"sha256:{content.hexdigest()}")


def _piece(source: Readable) -> bytes:
    """Read exactly 1 MiB, or less only at the end, however short the reads of ``source`` are."""
    piece = source.read(CHUNK)
    while piece and len(piece) < CHUNK and (more := source.read(CHUNK - len(piece))):
        piece += more
    return piece


def inflated_digest(source: BinaryIO, *, limits: ArchiveLimits, what: str) -> Digest:
    """Return the digest of a gzip stream's content (all members); raise `DamagedContent` if the stream is invalid."""
    content, consumed, produced = hashlib.sha256(), 0, 0
    state = inflate.decompressobj(31)
    data = b""
    try:
        while data or (data := source.read(CHUNK)):
            before = len(data)
            chunk = state.decompress(data, CHUNK)
            data = state.unused_data if state.eof else state.unconsumed_tail
            consumed += before - len(data)
            produced += len(chunk)
            content.update(chunk)
            limits.check(consumed, produced, what=what)
            if state.eof and (data or (data := source.read(CHUNK))):
                state = inflate.decompressobj(31)
    except inflate.error as error:
        raise DamagedContent(f"{what} is not a valid gzip stream: {error}") from error
    if not state.eof:
        raise DamagedContent(f"{what} is truncated")
    return Digest(f"sha256:{content.hexdigest()}")
