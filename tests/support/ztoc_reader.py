"""A second zTOC reader that shares no code with the library: plain structs, and Python's zlib on shifted bits.

It follows the schema of the reference (soci-snapshotter, ztoc/fbs/ztoc.fbs), trusts its input, and is slow.
"""

import struct
import zlib
from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """One entry of the table of contents."""

    name: bytes
    kind: bytes
    offset: int
    size: int
    pax: dict[bytes, bytes]


@dataclass(frozen=True)
class Point:
    """One checkpoint of a gzip layer."""

    compressed: int
    uncompressed: int
    bits: int
    window: bytes


class Table:
    """A flatbuffer table by slot numbers; omitted fields are 0 or empty."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.vtable = at - self._at("<i", at)

    def _at(self, form: str, at: int) -> int:
        return int(struct.unpack_from(form, self.data, at)[0])

    def _place(self, slot: int) -> int:
        if 4 + 2 * slot >= self._at("<H", self.vtable):
            return 0
        distance = self._at("<H", self.vtable + 4 + 2 * slot)
        return self.at + distance if distance else 0

    def number(self, slot: int, form: str = "<q") -> int:
        place = self._place(slot)
        return self._at(form, place) if place else 0

    def _target(self, slot: int) -> int:
        place = self._place(slot)
        return place + self._at("<I", place) if place else 0

    def text(self, slot: int) -> bytes:
        at = self._target(slot)
        return self.data[at + 4 : at + 4 + self._at("<I", at)] if at else b""

    def table(self, slot: int) -> "Table":
        return Table(self.data, self._target(slot))

    def tables(self, slot: int) -> "list[Table]":
        return [Table(self.data, at) for at in self._references(slot)]

    def texts(self, slot: int) -> list[bytes]:
        return [self.data[at + 4 : at + 4 + self._at("<I", at)] for at in self._references(slot)]

    def _references(self, slot: int) -> list[int]:
        at = self._target(slot)
        count = self._at("<I", at) if at else 0
        places = range(at + 4, at + 4 + 4 * count, 4)
        return [place + self._at("<I", place) for place in places]


class ZtocReader:
    """A zTOC and its layer's stored bytes."""

    def __init__(self, ztoc: bytes, layer: bytes) -> None:
        self.layer = layer
        root = Table(ztoc, struct.unpack_from("<I", ztoc)[0])
        assert root.text(0) == b"0.9"
        assert root.number(2) == len(layer)
        self.archive_size = root.number(3)
        self.files = [_file(entry) for entry in root.table(4).tables(0)]
        info = root.table(5)
        self.digests = info.texts(2)
        assert info.number(1, "<i") == len(self.digests) - 1
        stored = info.text(3)
        self.span_size = 0
        self.points: list[Point] = []
        if info.number(0, "<b") == 2:
            self.span_size = Table(stored, struct.unpack_from("<I", stored)[0]).number(1)
        else:
            count = struct.unpack_from("<iq", stored)[0]
            for at in range(12, 12 + count * 32785, 32785):
                start, out, bits = struct.unpack_from("<qqB", stored, at)
                self.points.append(Point(start, out, bits, stored[at + 17 : at + 32785]))
            assert len(stored) == 12 + count * 32785

    def spans(self) -> list[bytes]:
        """Return the stored bytes of each span."""
        if not self.points:
            starts = range(0, len(self.layer) or 1, self.span_size)
            return [self.layer[start : start + self.span_size] for start in starts]
        ends = [point.compressed for point in self.points[1:]] + [len(self.layer)]
        return [
            self.layer[point.compressed - bool(point.bits) : end] for point, end in zip(self.points, ends, strict=True)
        ]

    def read(self, start: int, end: int) -> bytes:
        """Return bytes of the tar, inflated from the last checkpoint before them."""
        if not self.points or start == end:
            return self.layer[start:end]
        point = [point for point in self.points if point.uncompressed <= start][-1]
        return _inflated(self.layer, point, end - point.uncompressed)[start - point.uncompressed :]


def _file(entry: Table) -> File:
    pax = {record.text(0): record.text(1) for record in entry.tables(13)}
    return File(entry.text(0), entry.text(1), entry.number(2), entry.number(3), pax)


def _inflated(layer: bytes, point: Point, size: int) -> bytes:
    """Inflate from a checkpoint, which may be within a byte: empty blocks before it replace the other bits."""
    data = layer[point.compressed - bool(point.bits) :]
    skipped = 8 - point.bits if point.bits else 0
    filling = _filling(skipped)
    begun = filling[:-1] + bytes([filling[-1] | data[0] >> skipped << skipped]) + data[1:] if skipped else data
    inflater = zlib.decompressobj(-15, zdict=point.window)
    out = inflater.decompress(begun, size)
    left = inflater.unused_data[8:]
    while left and len(out) < size:
        inflater = zlib.decompressobj(31)
        out += inflater.decompress(left, size - len(out))
        left = inflater.unused_data
    return out


# Empty deflate blocks (RFC 1951, section 3.2): the fixed one has 10 bits, this dynamic one 93.
_FIXED = [(2, 3), (0, 7)]
_DYNAMIC = [
    (4, 3), (0, 5), (0, 5), (14, 4),  # 257 lengths and 1 distance, written with 18 code lengths
    (0, 3), (0, 3), (2, 3), (2, 3), *[(0, 3)] * 13, (1, 3),  # in two bits "many zeros" and "zero", in one "one"
    (3, 2), (127, 7), (3, 2), (107, 7), (0, 1), (1, 2),  # 138 and 118 zeros, one for the end of the block, zero
    (0, 1),
]  # fmt: skip


def _filling(bits: int) -> bytes:
    """Return empty blocks that end ``bits`` bits after a byte boundary."""
    parts = _DYNAMIC if bits % 2 else []
    while sum(width for _, width in parts) % 8 != bits:
        parts = parts + _FIXED
    number = at = 0
    for value, width in parts:
        number |= value << at
        at += width
    return number.to_bytes(-(-at // 8), "little")
