"""Write flatbuffers from back to front, exactly as the reference's library does.

The format leaves choices to the writer (order, sharing of vtables, padding), but digests require identical bytes. This
writer follows the Go implementation: every object is placed before those written earlier, alignment is relative to the
end, and an equal earlier vtable is shared (https://flatbuffers.dev/internals/). Offsets are in bytes from the end.
"""

import io
import struct
from collections.abc import Iterable, Sequence
from typing import Final

from soci_pipeline.errors import HostileArchive

MAX_BYTES: Final = (1 << 31) - 1
"""Maximum size of a buffer: some offsets are signed 32-bit integers."""

_U32 = struct.Struct("<I")
_PADS: Final = tuple(bytes(4 - rest) for rest in range(4))

Field = tuple[int, str, int]
"""Slot number, struct format (``I``, ``q``, ``i``, ``b``; ``O`` for an offset), and value."""


def string(data: bytes) -> bytes:
    """Encode a string as in the buffer: its length, its bytes, a NUL, and padding to four bytes."""
    size = len(data)
    return b"%b%b%b" % (_U32.pack(size), data, _PADS[size & 3])


class FlatbufferWriter:
    """Collects the pieces of a buffer in reverse order; `finish` joins them."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.offset = 0
        self.vtables: dict[tuple[int, ...], int] = {}
        self.alignment = 1

    def put(self, data: bytes) -> int:
        """Prepend bytes and return their offset."""
        self.pieces.append(data)
        self.offset += len(data)
        return self.offset

    def align(self, size: int, following: int = 0) -> None:
        """Add padding so that after ``following`` more bytes the offset is a multiple of ``size``."""
        self.alignment = max(self.alignment, size)
        if padding := -(self.offset + following) % size:
            self.put(bytes(padding))

    def string(self, data: bytes) -> int:
        """Write a string and return its offset."""
        self.align(4, len(data) + 1)
        return self.put(b"%b%b\0" % (_U32.pack(len(data)), data))

    def byte_vector(self, parts: Sequence[bytes]) -> int:
        """Write a vector of bytes, given in parts to avoid copying, and return its offset."""
        size = sum(map(len, parts))
        self.align(4, size)
        for part in reversed(parts):
            self.put(part)
        return self.put(_U32.pack(size))

    def offset_vector(self, offsets: Sequence[int]) -> int:
        """Write a vector of references to objects written earlier, in the given order, and return its offset."""
        count = len(offsets)
        self.align(4)
        end = self.offset + 4 * count
        relative = [end - 4 * index - target for index, target in enumerate(offsets)]
        self.put(struct.pack(f"<{count}I", *relative))
        return self.put(_U32.pack(count))

    def table(self, fields: Iterable[Field]) -> int:
        """Write a table with fields in the given order, omit values of 0, the default, and return its offset."""
        end = self.offset
        places: dict[int, int] = {}
        for slot, form, value in fields:
            if value == 0:
                continue
            size = 4 if form == "O" else struct.calcsize(f"<{form}")
            self.align(size)
            position = self.offset + size
            self.put(_U32.pack(position - value) if form == "O" else struct.pack(f"<{form}", value))
            places[slot] = position
        self.align(4)
        start = self.offset + 4
        slots = tuple(start - places[slot] if slot in places else 0 for slot in range(max(places, default=-1) + 1))
        self.place_start(slots, start - end)
        return start

    def place_start(self, slots: tuple[int, ...], size: int) -> None:
        """Write a table's first four bytes, which refer to its vtable, and the vtable itself unless it is shared."""
        start = self.offset + 4
        shared = self.vtables.get(slots)
        if shared is not None:
            self.put(struct.pack("<i", shared - start))
            return
        vtable = struct.pack(f"<{len(slots) + 2}H", 2 * len(slots) + 4, size, *slots)
        self.put(struct.pack("<i", len(vtable)))
        self.vtables[slots] = self.put(vtable)

    def finish(self, root: int) -> bytes:
        """Return the complete buffer; release the pieces while joining them, to avoid doubling the memory use."""
        self.align(self.alignment, 4)
        self.put(_U32.pack(self.offset + 4 - root))
        if self.offset > MAX_BYTES:
            raise HostileArchive(f"a zTOC of {self.offset} bytes exceeds the 2 GiB limit of the format")
        out = io.BytesIO()
        pieces = self.pieces
        while pieces:
            out.write(pieces.pop())
        return out.getvalue()
