"""Compare a few spans of a layer with its zTOC: their digests, their inflated size, and the tar headers in them."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from soci_pipeline.archive.tar_headers import BLOCK, BadHeader
from soci_pipeline.errors import DamagedContent
from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.gzip.checkpoints import WINDOW, GzipCheckpoints
from soci_pipeline.soci.tar.entries import Entry
from soci_pipeline.soci.tar.stream import OversizedHeader, TarScanner
from soci_pipeline.soci.ztoc.codec import Ztoc
from soci_pipeline.soci.ztoc.extract import ReadRange, read_span

MOST_IN_MEMORY: Final = 64 << 20
"""Limit in bytes: a sampled span is in memory, both compressed and inflated. One gzip block can make a span as large as
its layer."""


def check_sample(ztoc: Ztoc, digest: Digest, read_range: ReadRange) -> None:
    """Raise `DamagedContent` if a sample of the layer does not match the zTOC or is too large.

    ``digest`` is the zTOC's and selects the sample.
    """
    for span in sample_spans(ztoc, digest):
        if is_too_large(ztoc, span):
            raise DamagedContent(f"span {span} is too large for a sample")
        content = read_span(ztoc, span, read_range(*ztoc.stored_range(span)))
        _check_windows(ztoc, span, content)
        if wrong := next(header_differences(ztoc, ztoc.content_range(span)[0], content), None):
            raise DamagedContent(f"span {span}: {wrong}")


def _check_windows(ztoc: Ztoc, span: int, content: bytes) -> None:
    """Check the windows of a span and the next one, since a wrong window would corrupt the content of files."""
    if not isinstance(ztoc.checkpoints, GzipCheckpoints):
        return
    points = ztoc.checkpoints.points
    if points[span].uncompressed == 0 and any(points[span].window):
        raise DamagedContent(f"span {span}: there is data before the start of the tar")
    if span + 1 < len(points) and points[span + 1].window != (points[span].window + content)[-WINDOW:]:
        raise DamagedContent(f"span {span}: it does not end with the window of the next one")


def is_too_large(ztoc: Ztoc, span: int) -> bool:
    """Return whether reading a span takes more than `MOST_IN_MEMORY` bytes."""
    ends = ztoc.stored_range(span), ztoc.content_range(span)
    return sum(end - start for start, end in ends) > MOST_IN_MEMORY


def sample_spans(ztoc: Ztoc, digest: Digest) -> list[int]:
    """Choose the first and last span, those with a tar header in the middle of the layer, and a pseudo-random one.

    The pseudo-random choice depends on the zTOC's digest, so that repeated runs read the same bytes.
    """
    chosen = {0, ztoc.spans - 1, int(digest.hex[:12], 16) % ztoc.spans}
    if ztoc.entries:
        header = header_start(ztoc.entries, len(ztoc.entries) // 2)
        chosen |= set(ztoc.spans_of(header, header + BLOCK))
    return sorted(chosen)


def header_start(entries: Sequence[Entry], number: int) -> int:
    """Return the offset of an entry's first header block, which follows the data of the previous entry."""
    if number == 0:
        return 0
    before = entries[number - 1]
    return before.offset + -(-before.size // BLOCK) * BLOCK


def headers_in_span(entries: Sequence[Entry], start: int, end: int) -> tuple[int, int, int]:
    """Find the entries whose headers are completely between two offsets of the tar.

    Returns the first entry, the last entry plus one, and the offset of the first header; (0, 0, ``start``) for none.
    """
    first = bisect_left(range(len(entries)), start, key=lambda number: header_start(entries, number))
    last = bisect_right(entries, end, key=lambda entry: entry.offset)
    return (first, last, header_start(entries, first)) if first < last else (0, 0, start)


def header_differences(ztoc: Ztoc, start: int, content: bytes) -> Iterator[str]:
    """Parse the complete tar headers in a part of the tar, as the snapshotter does before it serves a file.

    Yields one line for every entry that differs, and stops after an entry without a header.
    """
    first, last, header = headers_in_span(ztoc.entries, start, start + len(content))
    if first == last:
        return
    scanner = TarScanner()
    try:
        piece = content[header - start :]
        scanner.feed(piece, len(piece))
    except (BadHeader, OversizedHeader) as error:
        yield f"there is no tar header at the position of entry {first} of the zTOC: {error}"
        return
    for number, expected in enumerate(ztoc.entries[first:last]):
        name = expected.name.decode(errors="backslashreplace")
        if number >= len(scanner.entries):
            yield f"the layer has no entry {name!r} at byte {expected.offset}"
            return
        found = scanner.entries[number]
        if wrong := entry_differences(expected, found._replace(offset=found.offset + header)):
            yield f"entry {first + number}, {name!r}: {'; '.join(wrong)}"


def entry_differences(pushed: Entry, real: Entry) -> list[str]:
    """Describe the fields in which two entries differ; equal times in different time zones do not count."""
    return [
        f"{field} {shown(theirs)}, in the layer {shown(ours)}"
        for field, theirs, ours in zip(Entry._fields, pushed, real, strict=True)
        if theirs != ours and not (field == "mod_time" and _same_moment(theirs, ours))
    ]


def _same_moment(one: object, other: object) -> bool:
    if not (isinstance(one, bytes) and isinstance(other, bytes)):
        return False
    try:
        return datetime.fromisoformat(one.decode()) == datetime.fromisoformat(other.decode())
    except (ValueError, TypeError):
        return False


def shown(value: object) -> str:
    """Format a value for a message, escaped and shortened, since names may be arbitrary bytes of any length."""
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
    return repr(text[:200])
