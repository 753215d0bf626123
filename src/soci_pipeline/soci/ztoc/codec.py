"""Decode zTOCs from untrusted bytes, and encode them.

A decoded zTOC is consistent: spans, digests and checkpoints match each other, entries are ascending and do not overlap.
Whether it matches a layer can only be checked with the layer; see `extract` and `sample`.
"""

from bisect import bisect_right
from dataclasses import dataclass

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import Compression
from soci_pipeline.soci.gzip.checkpoints import (
    HEAD,
    RECORD,
    WINDOW,
    Checkpoint,
    Checkpoints,
    GzipCheckpoints,
    TarSpans,
)
from soci_pipeline.soci.tar.entries import Entry
from soci_pipeline.soci.ztoc.entry_table import read_entries
from soci_pipeline.soci.ztoc.flatbuffer_reader import FlatbufferReader, InvalidFlatbuffer
from soci_pipeline.soci.ztoc.writer import TAR_ZINFO_VERSION, UNCOMPRESSED, VERSION, write_ztoc

_GZIP = 1


class InvalidZtoc(InvalidFlatbuffer):
    """The bytes are not a valid zTOC, or the zTOC is inconsistent."""


@dataclass(frozen=True, slots=True)
class Ztoc:
    """The table of contents of one layer and its checkpoints; sizes and offsets are in bytes."""

    build_tool: str
    compressed_size: int
    uncompressed_size: int
    entries: tuple[Entry, ...]
    checkpoints: Checkpoints
    span_digests: tuple[Digest, ...]

    @property
    def compression(self) -> Compression:
        """The compression of the layer."""
        return Compression.GZIP if isinstance(self.checkpoints, GzipCheckpoints) else Compression.NONE

    @property
    def span_size(self) -> int:
        """The span size that the zTOC was built with."""
        return self.checkpoints.span_size

    @property
    def spans(self) -> int:
        """The number of spans."""
        return len(self.span_digests)

    @property
    def needs_xattrs(self) -> bool:
        """Whether a runtime needs extended attributes for this layer."""
        return any(entry.needs_xattrs for entry in self.entries)

    def stored_range(self, span: int) -> tuple[int, int]:
        """Return start and end (exclusive) of a span in the layer's file. Adjacent spans may share a byte."""
        if isinstance(self.checkpoints, TarSpans):
            start = span * self.span_size
            return start, min(start + self.span_size, self.compressed_size)
        points = self.checkpoints.points
        end = points[span + 1].compressed if span + 1 < len(points) else self.compressed_size
        return points[span].first_byte, end

    def content_range(self, span: int) -> tuple[int, int]:
        """Return start and end (exclusive) of a span in the tar; for gzip, without padding after the archive."""
        if isinstance(self.checkpoints, TarSpans):
            return self.stored_range(span)
        points = self.checkpoints.points
        start = points[span].uncompressed
        end = points[span + 1].uncompressed if span + 1 < len(points) else max(self.uncompressed_size, start)
        return start, end

    def spans_of(self, start: int, end: int) -> range:
        """Return the spans that contain the bytes ``start`` to ``end`` (exclusive) of the tar."""
        if end <= start:
            return range(0)
        return range(self._span_at(start), self._span_at(end - 1) + 1)

    def _span_at(self, offset: int) -> int:
        if isinstance(self.checkpoints, TarSpans):
            return offset // self.span_size
        return bisect_right(self.checkpoints.points, offset, key=lambda point: point.uncompressed) - 1


def encode(ztoc: Ztoc) -> bytes:
    """Encode a zTOC, with the same bytes as `build_ztoc`."""
    return write_ztoc(
        list(ztoc.entries),
        ztoc.checkpoints,
        [digest.encode() for digest in ztoc.span_digests],
        build_tool=ztoc.build_tool,
        compressed_size=ztoc.compressed_size,
        uncompressed_size=ztoc.uncompressed_size,
    )


def decode(data: bytes) -> Ztoc:
    """Decode a zTOC; raise `InvalidZtoc` if it is invalid or inconsistent."""
    try:
        return _decode(FlatbufferReader(data))
    except InvalidZtoc:
        raise
    except InvalidFlatbuffer as error:
        raise InvalidZtoc(f"not a valid zTOC: {error.reason}") from error
    except (UnicodeDecodeError, InvalidInput) as error:
        raise InvalidZtoc(f"not a valid zTOC: {error!s:.200}") from error


def _decode(reader: FlatbufferReader) -> Ztoc:
    root = reader.root()
    slots = reader.table(root)
    version = reader.string(root, slots, 0)
    if version != VERSION:
        raise InvalidZtoc(f"not a zTOC of version {VERSION.decode()}: {version[:20]!r}")
    compressed, uncompressed = reader.number(root, slots, 2, "q"), reader.number(root, slots, 3, "q")
    if compressed < 0 or uncompressed < 0:
        raise InvalidZtoc("a zTOC with a negative size")
    toc, info = reader.reference(root, slots, 4), reader.reference(root, slots, 5)
    if not toc or not info:
        raise InvalidZtoc("a zTOC without its table of contents or its checkpoints")
    checkpoints, digests = _decode_info(reader, info, compressed)
    if isinstance(checkpoints, TarSpans) and uncompressed > compressed:
        raise InvalidZtoc(f"a zTOC of a tar of {uncompressed} bytes in an uncompressed layer of {compressed}")
    entries = read_entries(reader, reader.references(toc, reader.table(toc), 0), uncompressed)
    return Ztoc(
        build_tool=reader.string(root, slots, 1).decode(),
        compressed_size=compressed,
        uncompressed_size=uncompressed,
        entries=entries,
        checkpoints=checkpoints,
        span_digests=digests,
    )


def _decode_info(reader: FlatbufferReader, at: int, compressed: int) -> tuple[Checkpoints, tuple[Digest, ...]]:
    slots = reader.table(at)
    # 1 is gzip. It is the schema's default, so the reference omits it.
    algorithm = reader.number(at, slots, 0, "b") or _GZIP
    last = reader.number(at, slots, 1, "i")
    digests = tuple(Digest(digest.decode()) for digest in reader.strings(at, slots, 2))
    stored = reader.byte_vector(at, slots, 3)
    if algorithm == _GZIP:
        points = _decode_points(stored, compressed)
        checkpoints: Checkpoints = points
        spans = len(points.points)
    elif algorithm == UNCOMPRESSED:
        checkpoints = _decode_tar_spans(stored, compressed)
        spans = max(-(-compressed // checkpoints.span_size), 1)
    else:
        raise InvalidZtoc(f"a zTOC of the unknown compression {algorithm}")
    if not spans == len(digests) == last + 1:
        raise InvalidZtoc(f"a zTOC of {spans} spans with {len(digests)} digests, whose last span is {last}")
    return checkpoints, digests


def _decode_points(stored: memoryview, compressed: int) -> GzipCheckpoints:
    if len(stored) < HEAD.size:
        raise InvalidZtoc("a zTOC without checkpoints")
    count, span_size = HEAD.unpack_from(stored)
    step = RECORD.size + WINDOW
    if count < 1 or span_size < 1 or len(stored) != HEAD.size + count * step:
        raise InvalidZtoc(f"a zTOC of {count} checkpoints in {len(stored)} bytes")
    points: list[Checkpoint] = []
    before = (0, 0)
    for at in range(HEAD.size, len(stored), step):
        start, out, bits = RECORD.unpack_from(stored, at)
        if not before <= (start, out) or out < before[1] or start > compressed or bits > 7 or start == 0:
            raise InvalidZtoc("a zTOC whose checkpoints are out of order or outside of the layer")
        points.append(Checkpoint(start, out, bits, bytes(stored[at + RECORD.size : at + step])))
        before = (start, out)
    if points[0].uncompressed != 0:
        raise InvalidZtoc("a zTOC whose first span is not at the beginning")
    return GzipCheckpoints(span_size, points)


def _decode_tar_spans(stored: memoryview, compressed: int) -> TarSpans:
    reader = FlatbufferReader(bytes(stored))
    root = reader.root()
    slots = reader.table(root)
    version, span_size, size = (reader.number(root, slots, slot, form) for slot, form in enumerate("iqq"))
    if version != TAR_ZINFO_VERSION or span_size < 1 or size != compressed:
        raise InvalidZtoc(f"a zTOC with spans of {span_size} bytes (version {version}) in a layer of {size}")
    return TarSpans(span_size, size)
