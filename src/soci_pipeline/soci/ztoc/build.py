"""Build the zTOC of one layer in a single pass: inflate once, parse the tar while inflating, hash the spans.

One thread reads and inflates, another parses headers and hashes; inflating and hashing release the GIL.
"""

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from soci_pipeline.archive.tar_headers import BadHeader
from soci_pipeline.errors import DamagedContent, HostileArchive, InvalidInput, LayerNotIndexable
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import Compression, layer_compression
from soci_pipeline.soci.gzip.checkpoints import Checkpoint, Checkpoints, GzipCheckpoints, TarSpans
from soci_pipeline.soci.gzip.layer_reader import Content, Damaged, Event, Stored, read_gzip, read_plain
from soci_pipeline.soci.gzip.span_digests import GzipSpanDigests, SpanDigests, TarSpanDigests
from soci_pipeline.soci.gzip.span_size import DEFAULT_SPAN_SIZE
from soci_pipeline.soci.limits import DEFAULT_LIMITS, Limits
from soci_pipeline.soci.reasons import Reason, reason_by_type
from soci_pipeline.soci.tar.stream import OversizedHeader, TarScanner
from soci_pipeline.soci.ztoc.build_tool import BUILD_TOOL
from soci_pipeline.soci.ztoc.writer import write_ztoc

_SPAN_COST = 80  # bytes of a zTOC for each span's digest


@dataclass(frozen=True, slots=True)
class BuiltZtoc:
    """A zTOC with metadata. ``needs_xattrs``: whether a runtime needs extended attributes. Sizes are in bytes."""

    data: bytes
    digest: Digest
    size: int
    spans: int
    entries: int
    needs_xattrs: bool
    compressed_size: int
    uncompressed_size: int


def _refuse_by_type(media_type: str) -> None:
    reason = reason_by_type(media_type)
    if reason is Reason.ZSTD:
        raise LayerNotIndexable(reason, "the zTOC format supports only gzip and uncompressed layers")
    if reason is not None:
        raise LayerNotIndexable(reason, f"the media type {media_type[:100]} is not an indexable layer type")


def build_ztoc(
    source: BinaryIO | Path,
    media_type: str,
    *,
    span_size: int = DEFAULT_SPAN_SIZE,
    build_tool: str = BUILD_TOOL,
    layer_size: int | None = None,
    layer_digest: Digest | None = None,
    limits: Limits = DEFAULT_LIMITS,
    on_bytes: Callable[[int], None] | None = None,
) -> BuiltZtoc:
    """Build the zTOC of a layer, whose compression is determined by ``media_type``.

    ``span_size`` is in bytes of the uncompressed tar. ``layer_digest`` and ``layer_size`` are verified in the same
    pass. ``on_bytes`` is called from another thread with the number of bytes read.

    Raises `LayerNotIndexable` with a `Reason`, `DamagedContent` for a layer that is truncated or has a wrong checksum
    or an invalid tar, and `HostileArchive` if a limit is exceeded. The latter two name the layer's digest if it is
    known or can be computed. Raises `InvalidInput` for an invalid span size.
    """
    if not 1 <= span_size < 1 << 63:
        raise InvalidInput(f"a span of {span_size} bytes; it must be at least 1 and at most 63 bits")
    _refuse_by_type(media_type)
    with _opened(source) as stream:
        one_pass = _Pass(
            layer_compression(media_type), span_size, limits, checked=layer_digest is not None, on_bytes=on_bytes
        )
        try:
            one_pass.run(stream)
            return _finished(one_pass, build_tool, layer_size, layer_digest)
        except (Damaged, BadHeader) as error:
            name = layer_digest or _digest_of(stream)
            raise DamagedContent(f"layer {name} is damaged: {error}") from error
        except (HostileArchive, OversizedHeader) as error:
            name = layer_digest or _digest_of(stream)
            advice = "If the layer is valid, raise the limit."
            reason = error.reason if isinstance(error, HostileArchive) else str(error)
            raise HostileArchive(f"layer {name} is rejected: {reason}", advice=advice) from error


class _Pass:
    """One pass over one layer: the state of the thread that parses and hashes."""

    def __init__(
        self,
        compression: Compression,
        span_size: int,
        limits: Limits,
        *,
        checked: bool,
        on_bytes: Callable[[int], None] | None,
    ) -> None:
        self.compression = compression
        self.span_size = span_size
        self.limits = limits
        self.scanner = TarScanner()
        self.points: list[Checkpoint] = []
        self.gzip_digests = GzipSpanDigests()
        self.digests: SpanDigests = self.gzip_digests
        if compression is Compression.NONE:
            self.digests = TarSpanDigests(span_size)
        self.whole = hashlib.sha256() if checked else None
        self.stored = 0
        self.on_bytes = on_bytes
        self._failed = False

    def run(self, source: BinaryIO) -> None:
        gzip = self.compression is Compression.GZIP
        events = read_gzip(source, self.span_size, self.limits) if gzip else read_plain(source)
        with _worker() as submit:
            # A slot refers only to its latest work, so check the result of every future here.
            pending: deque[Future[None]] = deque()
            try:
                for event in events:
                    pending.append(submit(self._take_unless_failed, event))
                    if not isinstance(event, Checkpoint):
                        event.slot.busy = pending[-1]
                    while pending and pending[0].done():
                        pending.popleft().result()
            except LayerNotIndexable:
                # Corruption in chunks already submitted takes precedence over the reason, regardless of timing.
                _wait_for(pending)
                raise
            _wait_for(pending)

    def _take_unless_failed(self, event: Event) -> None:
        """Process an event unless an earlier one failed, since otherwise events in the queue could exceed a limit."""
        if self._failed:
            return
        self._failed = True
        self._take(event)
        self._failed = False

    def _take(self, event: Event) -> None:
        match event:
            case Stored(slot, start, end):
                view = slot.buffer.view[start:end]
                self.digests.update(view)
                if self.whole is not None:
                    self.whole.update(view)
                self.stored += end - start
                if self.on_bytes is not None:
                    self.on_bytes(end - start)
                self._bound()
            case Content(slot, size):
                self.scanner.feed(slot.buffer.data, size)
                self._bound()
            case Checkpoint():
                self.gzip_digests.cut(event)
                self.points.append(event)

    def _bound(self) -> None:
        spans = len(self.points) * 32768 if self.points else self.stored // self.span_size * _SPAN_COST
        self.bound(self.scanner.cost + spans)

    def bound(self, size: int) -> None:
        """Raise `HostileArchive` if a zTOC of ``size`` bytes is too large; during the pass ``size`` is an estimate."""
        if size > self.limits.ztoc:
            raise HostileArchive(f"its zTOC would exceed the limit of {self.limits.ztoc} bytes")

    def checkpoints(self) -> Checkpoints:
        if self.compression is Compression.GZIP:
            return GzipCheckpoints(self.span_size, self.points)
        return TarSpans(self.span_size, self.stored)


def _finished(one_pass: _Pass, build_tool: str, layer_size: int | None, layer_digest: Digest | None) -> BuiltZtoc:
    if layer_size is not None and one_pass.stored != layer_size:
        raise Damaged(f"it has {one_pass.stored} bytes, not {layer_size}")
    if one_pass.whole is not None and one_pass.whole.hexdigest() != (layer_digest or Digest.of(b"")).hex:
        raise Damaged(f"its content has the digest sha256:{one_pass.whole.hexdigest()}")
    if one_pass.scanner.refusal is not None:
        raise one_pass.scanner.refusal
    uncompressed_size = one_pass.scanner.finish()
    entries = one_pass.scanner.entries
    count = len(entries)
    needs_xattrs = any(entry.needs_xattrs for entry in entries)
    span_digests = one_pass.digests.finish()
    data = write_ztoc(
        entries,
        one_pass.checkpoints(),
        span_digests,
        build_tool=build_tool,
        compressed_size=one_pass.stored,
        uncompressed_size=uncompressed_size,
    )
    one_pass.bound(len(data))
    return BuiltZtoc(
        data=data,
        digest=Digest.of(data),
        size=len(data),
        spans=len(span_digests),
        entries=count,
        needs_xattrs=needs_xattrs,
        compressed_size=one_pass.stored,
        uncompressed_size=uncompressed_size,
    )


def _wait_for(pending: "deque[Future[None]]") -> None:
    for work in pending:
        work.result()


@contextlib.contextmanager
def _worker() -> Iterator[Callable[..., "Future[None]"]]:
    executor = ThreadPoolExecutor(1, thread_name_prefix="ztoc")
    try:
        yield executor.submit
    finally:
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _opened(source: BinaryIO | Path) -> Iterator[BinaryIO]:
    if isinstance(source, Path):
        with source.open("rb", buffering=0) as file:
            yield file
    else:
        yield source


def _digest_of(source: BinaryIO) -> str:
    """Return the layer's digest for an error message, if the source can be read again."""
    try:
        source.seek(0)
        return Digest.of_stream(source)
    except (OSError, AttributeError, ValueError):
        return "(of unknown digest)"
