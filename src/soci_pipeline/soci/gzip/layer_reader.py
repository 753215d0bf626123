"""Read a layer once, sequentially, as a stream of events.

The events are chunks of the file, chunks of the tar inside it, and the checkpoints where spans start. For speed,
inflating stops at the end of a deflate block only if a checkpoint may be due. Memory use is a few buffers, independent
of the layer's size.
"""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from soci_pipeline.errors import HostileArchive, LayerNotIndexable
from soci_pipeline.oci.media_types import GZIP_MAGIC
from soci_pipeline.soci.gzip.checkpoints import WINDOW, Checkpoint
from soci_pipeline.soci.gzip.inflate import BLOCK, BUFFER_ERROR, GZIP, NO_FLUSH, OK, STREAM_END, Buffer, Inflater
from soci_pipeline.soci.limits import Limits
from soci_pipeline.soci.reasons import Reason

_BUFFER_BYTES: Final = 1 << 20
_BUFFERS: Final = 4
_MOST_IDLE_READS: Final = 64
_AT_BOUNDARY: Final = 128
_LAST_BLOCK: Final = 64
_COMPRESS_AGAIN: Final = (
    "Compress the layer again. Indexed or not, containerd cannot unpack it unless pigz is installed there: Go's gzip "
    "rejects what follows the stream."
)


class Damaged(Exception):
    """The layer is corrupt; the message says how."""


@dataclass(slots=True)
class Slot:
    """A buffer of a ring, and the pending work that still reads it."""

    buffer: Buffer
    busy: "Future[None] | None" = None


class Ring:
    """Buffers that are used in turn; each is reused when the work on it has finished."""

    def __init__(self) -> None:
        self._slots = [Slot(Buffer(_BUFFER_BYTES)) for _ in range(_BUFFERS)]
        self._turn = 0

    def next(self) -> Slot:
        """Wait for the next buffer and return it; raise the error of the work on it if that failed."""
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % _BUFFERS
        if slot.busy is not None:
            slot.busy.result()
            slot.busy = None
        return slot


@dataclass(frozen=True, slots=True)
class Stored:
    """The next bytes of the file, from ``start`` to ``end`` in a buffer."""

    slot: Slot
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Content:
    """The next ``size`` bytes of the tar, from the start of a buffer."""

    slot: Slot
    size: int


Event = Stored | Content | Checkpoint


def read_plain(source: BinaryIO) -> Iterator[Event]:
    """Read an uncompressed layer; each chunk is yielded both as `Stored` and as `Content`."""
    ring = Ring()
    while True:
        slot = ring.next()
        size = _fill(source, slot.buffer)
        if size == 0:
            return
        yield Stored(slot, 0, size)
        yield Content(slot, size)


def read_gzip(source: BinaryIO, span_size: int, limits: Limits) -> Iterator[Event]:
    """Read a gzip layer of one or more members.

    Raises `Damaged` for a corrupt layer, `HostileArchive` if it exceeds a limit, and `LayerNotIndexable` for bytes
    after the last member.
    """
    with Inflater(GZIP) as inflater:
        yield from _GzipReader(source, span_size, limits, inflater).events()


@dataclass(slots=True)
class _GzipReader:
    source: BinaryIO
    span_size: int
    limits: Limits
    inflater: Inflater
    files: Ring = field(default_factory=Ring)
    contents: Ring = field(default_factory=Ring)
    total_in: int = 0
    total_out: int = 0
    last: int = 0  # total_out at the last checkpoint
    points: int = 0
    member_start: int = 0
    filled: int = 0
    before: bytes = bytes(WINDOW)  # the output before the current buffer

    def events(self) -> Iterator[Event]:
        ended = False
        out = self.contents.next()
        while True:
            slot = self.files.next()
            size = _fill(self.source, slot.buffer)
            if self.total_in == 0 and slot.buffer.data[:2] != GZIP_MAGIC[:size]:
                raise Damaged("it does not start with a gzip header")
            if size == 0:
                break
            if ended:
                self._next_member()
            self.inflater.give(slot.buffer.address, size)
            reported = 0
            idle = 0
            while True:
                if self.filled == _BUFFER_BYTES:
                    yield Content(out, self.filled)
                    self.before, self.filled = bytes(out.buffer.view[-WINDOW:]), 0
                    out = self.contents.next()
                left = self.inflater.input_left
                ended, stopped, starved = self._step(out)
                used = size - self.inflater.input_left
                idle = 0 if left != self.inflater.input_left or not starved else idle + 1
                if stopped:
                    yield Stored(slot, reported, used)
                    reported = used
                    yield self._checkpoint(out)
                if ended and used < size:
                    self._next_member()
                elif ended or (used == size and not stopped and self.inflater.room_left):
                    break
                elif idle > _MOST_IDLE_READS:
                    raise Damaged("inflating it makes no progress")
            yield Stored(slot, reported, size)
        if not ended:
            self._cut_short()
        yield Content(out, self.filled)

    def _step(self, out: Slot) -> tuple[bool, bool, bool]:
        """Inflate once; return whether the member ended, whether a checkpoint is due, whether nothing was written."""
        room = _BUFFER_BYTES - self.filled
        until_due = self.last + self.span_size - self.total_out
        # A checkpoint is due when more than a span was written since the last one, or nothing at all so far.
        flush = BLOCK if until_due <= 0 or self.total_out == 0 else NO_FLUSH
        if flush == NO_FLUSH:
            room = min(room, until_due)
        inflater = self.inflater
        inflater.take(out.buffer.address + self.filled, room)
        left = inflater.input_left
        status = inflater.run(flush)
        written = room - inflater.room_left
        self.filled += written
        self.total_out += written
        self.total_in += left - inflater.input_left
        if self.total_out > self.limits.uncompressed:
            raise HostileArchive(f"it inflates to more than the limit of {self.limits.uncompressed} bytes")
        if status == STREAM_END:
            return True, False, False
        if status not in (OK, BUFFER_ERROR):
            self._refuse()
        state = inflater.data_type
        at_boundary = flush == BLOCK and state & _AT_BOUNDARY and not state & _LAST_BLOCK
        due = self.total_out == 0 or self.total_out - self.last > self.span_size
        return False, bool(at_boundary and due), written == 0

    def _checkpoint(self, out: Slot) -> Checkpoint:
        self.last = self.total_out
        self.points += 1
        if self.points * WINDOW > self.limits.ztoc:
            raise HostileArchive(f"its checkpoints alone exceed the limit of {self.limits.ztoc} bytes")
        view, filled = out.buffer.view, self.filled
        if filled >= WINDOW:
            window = bytes(view[filled - WINDOW : filled])
        else:
            window = self.before[filled:] + bytes(view[:filled])
        return Checkpoint(self.total_in, self.total_out, self.inflater.data_type & 7, window)

    def _next_member(self) -> None:
        self.inflater.reset(GZIP)
        self.member_start = self.total_in

    def _refuse(self) -> None:
        if self.member_start and self.inflater.message == "incorrect header check":
            self._trailing()
        raise Damaged(f"inflating it fails after {self.total_in} bytes: {self.inflater.message}")

    def _cut_short(self) -> None:
        if self.member_start and self.total_in - self.member_start < len(GZIP_MAGIC):
            self._trailing()
        raise Damaged(f"it is truncated after {self.total_in} bytes")

    def _trailing(self) -> None:
        detail = f"there are bytes after the last gzip member, which ends at {self.member_start}"
        raise LayerNotIndexable(Reason.TRAILING_BYTES, detail, advice=_COMPRESS_AGAIN)


def _fill(source: BinaryIO, buffer: Buffer) -> int:
    """Read until the buffer is full or the source ends; return the number of bytes read."""
    size = 0
    while size < len(buffer):
        data = source.read(len(buffer) - size) if not hasattr(source, "readinto") else None
        if data is None:
            count = source.readinto(buffer.view[size:])  # type: ignore[attr-defined]
        else:
            buffer.view[size : size + len(data)] = data
            count = len(data)
        if not count:
            break
        size += count
    return size
