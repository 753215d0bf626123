"""Which spans of a layer a sample reads, and which tar headers lie in them."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.entries import Entry
from soci_pipeline.soci.tar_headers import BLOCK
from soci_pipeline.soci.ztoc_codec import Ztoc


def sample_spans(ztoc: Ztoc, digest: Digest) -> list[int]:
    """The first span, the last, one with a tar header in the middle of the layer, and one by lot.

    The lot is drawn by the zTOC's digest, so that a run that is repeated reads the same bytes.
    """
    chosen = {0, ztoc.spans - 1, int(digest.hex[:12], 16) % ztoc.spans}
    if ztoc.entries:
        header = header_start(ztoc.entries, len(ztoc.entries) // 2)
        chosen |= set(ztoc.spans_of(header, header + BLOCK))
    return sorted(chosen)


def header_start(entries: Sequence[Entry], number: int) -> int:
    """Where the first header block of an entry begins: behind the data of the entry before it."""
    if number == 0:
        return 0
    before = entries[number - 1]
    return before.offset + -(-before.size // BLOCK) * BLOCK


def headers_in_span(entries: Sequence[Entry], start: int, end: int) -> tuple[int, int, int]:
    """The entries whose headers lie whole between two offsets of the tar.

    Answers with the first, one past the last, and where the first's header begins; twice the same number for none.
    """
    first = bisect_left(range(len(entries)), start, key=lambda number: header_start(entries, number))
    last = bisect_right(entries, end, key=lambda entry: entry.offset)
    return (first, last, header_start(entries, first)) if first < last else (0, 0, start)
