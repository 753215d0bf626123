"""Positions in a layer where reading can start, and their serialised form in a zTOC.

gzip: a checkpoint is the end of a deflate block with the state that is needed to resume inflating there (see zlib's
example zran). Uncompressed: every multiple of the span size. The serialised forms are those of the reference
(soci-snapshotter, package ztoc/compression): packed little-endian records for gzip, a small flatbuffer for plain tar.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

WINDOW: Final = 1 << 15
"""Number of bytes of earlier output that deflate may refer to (RFC 1951, section 3.2.5)."""

HEAD: Final = struct.Struct("<iq")
RECORD: Final = struct.Struct("<qqB")


class Checkpoint(NamedTuple):
    """One position to resume from: byte offsets in the gzip file and in the tar, and the inflate state there.

    ``bits`` (0 to 7) is the number of high bits of the byte before ``compressed`` that belong to this span. ``window``
    is the 32 KiB of output before ``uncompressed``, padded with zeros at the start.
    """

    compressed: int
    uncompressed: int
    bits: int
    window: bytes

    @property
    def first_byte(self) -> int:
        """Offset of the span's first compressed byte; adjacent spans share a byte if ``bits`` is not 0."""
        return self.compressed - (1 if self.bits else 0)


@dataclass(frozen=True, slots=True)
class GzipCheckpoints:
    """All checkpoints of a gzip layer, in ascending order."""

    span_size: int
    points: Sequence[Checkpoint]

    def parts(self) -> list[bytes]:
        """Return the serialised form in parts, which avoids copying the windows."""
        parts = [HEAD.pack(len(self.points), self.span_size)]
        for point in self.points:
            parts += (RECORD.pack(point.compressed, point.uncompressed, point.bits), point.window)
        return parts


@dataclass(frozen=True, slots=True)
class TarSpans:
    """The spans of an uncompressed layer: a file of ``size`` bytes, split every ``span_size`` bytes."""

    span_size: int
    size: int


Checkpoints = GzipCheckpoints | TarSpans
