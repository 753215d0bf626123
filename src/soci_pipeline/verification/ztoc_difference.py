"""Describes the differences between a pushed zTOC and the zTOC built from its layer."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.gzip.checkpoints import Checkpoint, GzipCheckpoints, TarSpans
from soci_pipeline.soci.tar.entries import Entry
from soci_pipeline.soci.ztoc.codec import Ztoc
from soci_pipeline.soci.ztoc.sample import entry_differences, shown

_NAMED = 5
"""Maximum number of entries, checkpoints and spans to describe, each; the others are counted."""


def differences(pushed: Ztoc, real: Ztoc) -> list[str]:
    """Return one line per difference, the first few of each kind and a count of the rest; empty if there are none.

    The build tool may differ, and a time may be in another time zone, as in zTOCs of the reference implementation.
    """
    found = [
        f"{name} is {theirs!r} instead of {ours!r}"
        for name, theirs, ours in (
            ("the layer's size", pushed.compressed_size, real.compressed_size),
            ("the tar's size", pushed.uncompressed_size, real.uncompressed_size),
        )
        if theirs != ours
    ]
    found += _first(_entries(pushed.entries, real.entries), "entries")
    found += _first(_checkpoints(pushed, real), "checkpoints")
    found += _first(_span_digests(pushed.span_digests, real.span_digests), "span digests")
    return found


def _first(lines: Iterator[str], kind: str) -> list[str]:
    found: list[str] = []
    more = 0
    for line in lines:
        if len(found) < _NAMED:
            found.append(line)
        else:
            more += 1
    return [*found, f"and {more} more {kind}"] if more else found


def _entries(pushed: Sequence[Entry], real: Sequence[Entry]) -> Iterator[str]:
    for number, (theirs, ours) in enumerate(zip_longest(pushed, real)):
        if theirs == ours:
            continue
        if theirs is None:
            yield f"entry {number}, {shown(ours.name)}, is missing"
        elif ours is None:
            yield f"entry {number}, {shown(theirs.name)}, is not in the layer"
        elif fields := entry_differences(theirs, ours):
            yield f"entry {number}, {shown(ours.name)}: {'; '.join(fields)}"


def _checkpoints(pushed: Ztoc, real: Ztoc) -> Iterator[str]:
    theirs, ours = pushed.checkpoints, real.checkpoints
    if isinstance(theirs, TarSpans) or isinstance(ours, TarSpans):
        if theirs != ours:
            yield f"its spans are {_kind(theirs)} instead of {_kind(ours)}"
        return
    if theirs.span_size != ours.span_size:
        yield f"its span size is {theirs.span_size} instead of {ours.span_size}"
    for number, (one, other) in enumerate(zip_longest(theirs.points, ours.points)):
        if one is None:
            yield f"checkpoint {number} is missing"
        elif other is None:
            yield f"checkpoint {number} is not at the end of the expected block"
        elif one != other:
            yield f"checkpoint {number}: {'; '.join(_point_differences(one, other))}"


def _point_differences(pushed: Checkpoint, real: Checkpoint) -> list[str]:
    lines = [
        f"{field} is {theirs} instead of {ours}"
        for field, theirs, ours in (
            ("compressed offset", pushed.compressed, real.compressed),
            ("uncompressed offset", pushed.uncompressed, real.uncompressed),
            ("bits", pushed.bits, real.bits),
        )
        if theirs != ours
    ]
    if pushed.window != real.window:
        at = next(at for at, (one, other) in enumerate(zip_longest(pushed.window, real.window)) if one != other)
        lines.append(f"the window differs from its byte {at} on")
    return lines


def _kind(checkpoints: GzipCheckpoints | TarSpans) -> str:
    if isinstance(checkpoints, TarSpans):
        return f"every {checkpoints.span_size} bytes of {checkpoints.size}"
    return f"{len(checkpoints.points)} gzip checkpoints"


def _span_digests(pushed: Sequence[Digest], real: Sequence[Digest]) -> Iterator[str]:
    for number, (theirs, ours) in enumerate(zip_longest(pushed, real)):
        if theirs != ours:
            yield f"the digest of span {number} is {theirs} instead of {ours}"
