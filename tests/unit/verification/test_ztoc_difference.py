"""The words for what differs between a zTOC that was pushed and the one that its layer gives."""

from dataclasses import replace

import pytest

from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.gzip.checkpoints import WINDOW, Checkpoint, GzipCheckpoints, TarSpans
from soci_pipeline.soci.tar.entries import Entry
from soci_pipeline.soci.ztoc.codec import Ztoc
from soci_pipeline.verification.ztoc_difference import differences

POINTS = tuple(Checkpoint(100 * n, 1000 * n, n, bytes(WINDOW)) for n in range(3))
ENTRIES = tuple(
    Entry(b"file-%d" % n, b"reg", 512 * n, 5, b"", 0o644, 0, 0, b"", b"", b"2024-01-01T00:00:00Z", 0, 0)
    for n in range(9)
)
SPANS = tuple(Digest.of(b"%d" % n) for n in range(3))
REAL = Ztoc("tool", 300, 3000, ENTRIES, GzipCheckpoints(1000, POINTS), SPANS)


def with_points(*points: Checkpoint) -> Ztoc:
    return replace(REAL, checkpoints=GzipCheckpoints(1000, points))


def test_the_same_content_of_another_tool_is_no_difference() -> None:
    assert differences(replace(REAL, build_tool="another"), REAL) == []


@pytest.mark.parametrize(
    ("pushed", "told"),
    [
        (replace(REAL, compressed_size=301), "the layer's size is 301 instead of 300"),
        (replace(REAL, uncompressed_size=1), "the tar's size is 1 instead of 3000"),
        (replace(REAL, entries=ENTRIES[:-1]), "entry 8, 'file-8', is missing"),
        (replace(REAL, entries=(*ENTRIES, ENTRIES[0])), "entry 9, 'file-0', is not in the layer"),
        (replace(REAL, span_digests=SPANS[:2]), f"the digest of span 2 is None instead of {SPANS[2]}"),
        (replace(REAL, checkpoints=GzipCheckpoints(999, POINTS)), "its span size is 999 instead of 1000"),
        (with_points(*POINTS[:2]), "checkpoint 2 is missing"),
        (with_points(*POINTS, POINTS[0]), "checkpoint 3 is not at the end of the expected block"),
        (with_points(POINTS[0], POINTS[1]._replace(bits=7), POINTS[2]), "checkpoint 1: bits is 7 instead of 1"),
        (
            with_points(POINTS[0]._replace(window=bytes(9) + b"x" + bytes(WINDOW - 10)), *POINTS[1:]),
            "checkpoint 0: the window differs from its byte 9 on",
        ),
        (
            with_points(POINTS[0]._replace(compressed=1, uncompressed=2), *POINTS[1:]),
            "checkpoint 0: compressed offset is 1 instead of 0; uncompressed offset is 2 instead of 0",
        ),
        (
            replace(REAL, checkpoints=TarSpans(1000, 3000)),
            "its spans are every 1000 bytes of 3000 instead of 3 gzip checkpoints",
        ),
    ],
)
def test_a_difference_is_told_with_both_values(pushed: Ztoc, told: str) -> None:
    assert differences(pushed, REAL) == [told]


def test_of_many_differences_the_first_are_told_and_the_rest_counted() -> None:
    found = differences(replace(REAL, entries=tuple(each._replace(mode=0) for each in ENTRIES)), REAL)
    assert [line.partition(":")[0] for line in found[:-1]] == [f"entry {n}, 'file-{n}'" for n in range(5)]
    assert found[-1] == "and 4 more entries"
