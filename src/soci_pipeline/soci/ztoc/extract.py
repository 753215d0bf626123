"""Read parts of a layer by means of its zTOC, as the snapshotter does: single spans instead of the whole layer."""

from collections.abc import Callable, Iterator
from typing import Final

from soci_pipeline.errors import DamagedContent, InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.gzip.checkpoints import Checkpoint, GzipCheckpoints
from soci_pipeline.soci.gzip.inflate import BUFFER_ERROR, GZIP, NO_FLUSH, OK, RAW, STREAM_END, Buffer, Inflater
from soci_pipeline.soci.tar import entries as kinds
from soci_pipeline.soci.tar.entries import Entry
from soci_pipeline.soci.tar.tree import Folder, LayerTree
from soci_pipeline.soci.ztoc.codec import InvalidZtoc, Ztoc

ReadRange = Callable[[int, int], bytes]
"""Function that reads the bytes ``start`` to ``end`` (exclusive) of a layer's file."""

_TRAILER: Final = 8
_MOST_OUT_OF_ONE: Final = 1032  # maximum ratio of deflate: 258 bytes for two bits (RFC 1951)


def read_span(ztoc: Ztoc, span: int, compressed: bytes) -> bytes:
    """Return the part of the tar in a span, given the bytes of `Ztoc.stored_range`.

    Raises `DamagedContent` if the bytes do not match the digest in the zTOC or do not inflate to the expected size, and
    `InvalidInput` if the span does not exist.
    """
    if not 0 <= span < ztoc.spans:
        raise InvalidInput(f"span {span} does not exist; the zTOC has {ztoc.spans}")
    if Digest.of(compressed) != ztoc.span_digests[span]:
        raise DamagedContent(f"span {span} has the digest {Digest.of(compressed)}, not {ztoc.span_digests[span]}")
    if not isinstance(ztoc.checkpoints, GzipCheckpoints):
        return compressed
    start, end = ztoc.content_range(span)
    if end - start > len(compressed) * _MOST_OUT_OF_ONE:
        raise InvalidZtoc(
            f"span {span} claims {end - start} bytes from {len(compressed)} compressed ones, which is impossible"
        )
    return _inflated(ztoc.checkpoints.points[span], compressed, end - start, span)


def _inflated(point: Checkpoint, compressed: bytes, size: int, span: int) -> bytes:
    """Inflate ``size`` bytes from a checkpoint, across the boundaries of gzip members."""
    if size == 0:
        return b""
    source, target = Buffer(len(compressed)), Buffer(size)
    source.view[:] = compressed
    position = 1 if point.bits else 0
    with Inflater(RAW) as inflater:
        inflater.resume(point.window, point.bits, compressed[0] >> (8 - point.bits) if point.bits else 0)
        inflater.give(source.address + position, len(compressed) - position)
        inflater.take(target.address, size)
        raw = True
        while inflater.room_left:
            before = inflater.input_left, inflater.room_left
            status = inflater.run(NO_FLUSH)
            if status == STREAM_END:
                left = inflater.input_left - (_TRAILER if raw else 0)
                if left <= 0:
                    break
                inflater.give(source.address + len(compressed) - left, left)
                inflater.reset(GZIP)
                raw = False
            elif status not in (OK, BUFFER_ERROR):
                raise DamagedContent(f"span {span} does not inflate from its checkpoint: {inflater.message}")
            elif before == (inflater.input_left, inflater.room_left):
                break
        if inflater.room_left:
            raise DamagedContent(f"span {span} inflates to {size - inflater.room_left} bytes, not {size}")
    return bytes(target.view)


def file_chunks(ztoc: Ztoc, entry: Entry, read_range: ReadRange) -> Iterator[bytes]:
    """Yield the content of a regular file, span by span; only the spans that contain it are read."""
    end = entry.offset + entry.size
    for span in ztoc.spans_of(entry.offset, end):
        content = read_span(ztoc, span, read_range(*ztoc.stored_range(span)))
        first, _ = ztoc.content_range(span)
        yield content[max(entry.offset - first, 0) : end - first]


def file_bytes(ztoc: Ztoc, entry: Entry, read_range: ReadRange) -> bytes:
    """Return the content of a regular file."""
    return b"".join(file_chunks(ztoc, entry, read_range))


def find_file(ztoc: Ztoc, path: str) -> Entry:
    """Return the regular file at a path as a container sees this layer (see `LayerTree`); follow hard links.

    Raises `InvalidInput` if the path does not exist or is not a regular file.
    """
    found = LayerTree(ztoc.entries).find(path.encode(errors="surrogateescape"))
    if found is None:
        raise InvalidInput(f"the layer has no {path!r}", advice="`soci-pipeline ztoc-info` lists the files of a zTOC.")
    if isinstance(found, Folder):
        raise InvalidInput(f"{path!r} is not a regular file but a directory")
    if found.kind == kinds.REGULAR:
        return found
    target = f" to {found.link.decode(errors='replace')!r}" if found.link else ""
    if found.kind == kinds.HARDLINK:
        raise InvalidInput(
            f"{path!r} is a hard link{target}, which the layer does not contain before the link",
            advice="Build the layer again: no runtime can unpack a hard link without its target.",
        )
    raise InvalidInput(f"{path!r} is not a regular file but a {found.kind.decode()}{target}")
