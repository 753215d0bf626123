"""Places in a layer where reading can begin, and their stored form inside a zTOC.

gzip: a checkpoint is the end of a deflate block with all that inflating needs to go on from there (zlib's zran example
describes the idea). Uncompressed: a multiple of the span size. The stored forms are the reference's (soci-snapshotter,
package ztoc/compression): packed little-endian records for gzip, a small flatbuffer for plain tar.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

WINDOW: Final = 1 << 15
"""Bytes of earlier output that deflate may refer to (RFC 1951, section 3.2.5)."""

HEAD: Final = struct.Struct("<iq")
RECORD: Final = struct.Struct("<qqB")


class Checkpoint(NamedTuple):
    """One place to begin: offsets in bytes in the gzip file and in the tar, and the state there.

    ``bits`` (0 to 7) is how many high bits of the byte before ``compressed`` belong to this span too. ``window`` is the
    32 KiB of output before ``uncompressed``, zeros where there is less.
    """

    compressed: int
    uncompressed: int
    bits: int
    window: bytes

    @property
    def first_byte(self) -> int:
        """Where the span's compressed bytes begin; neighbours share a byte where bits are left over."""
        return self.compressed - (1 if self.bits else 0)


@dataclass(frozen=True, slots=True)
class GzipCheckpoints:
    """All checkpoints of a gzip layer, ascending."""

    span_size: int
    points: Sequence[Checkpoint]

    def parts(self) -> list[bytes]:
        """The stored form in pieces, so that the windows need not be copied together."""
        parts = [HEAD.pack(len(self.points), self.span_size)]
        for point in self.points:
            parts += (RECORD.pack(point.compressed, point.uncompressed, point.bits), point.window)
        return parts


@dataclass(frozen=True, slots=True)
class TarSpans:
    """The spans of an uncompressed layer: every ``span_size`` bytes of a file of ``size`` bytes."""

    span_size: int
    size: int


Checkpoints = GzipCheckpoints | TarSpans
