"""Read flatbuffers from untrusted input: check every position, and limit the total amount of decoded content.

Offsets in a flatbuffer may point anywhere, so a small buffer can describe a lot of content by referring to the same
bytes repeatedly or by overlapping objects. Therefore strings are decoded once per position, and all objects together
may not be larger than the buffer. Only the vtable slots that a zTOC uses are read, because a vtable can claim up to
32,000 slots, and every table can have its own.
"""

import struct
from typing import Final

from soci_pipeline.errors import DamagedContent

_U16: Final = struct.Struct("<H").unpack_from
_U32: Final = struct.Struct("<I").unpack_from
_I32: Final = struct.Struct("<i").unpack_from
_NUMBERS: Final = {form: struct.Struct(f"<{form}") for form in "bBiIqQ"}
_MOST_SLOTS: Final = 14  # FileMetadata has the most slots
_MOST_KEPT: Final = 1 << 12  # limit for cached vtables; a writer shares a few dozen


class InvalidFlatbuffer(DamagedContent):
    """The bytes are not a valid flatbuffer of the expected type."""


class FlatbufferReader:
    """Reader for one buffer. Positions are byte offsets from its start; every method raises `InvalidFlatbuffer`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._strings: dict[int, bytes] = {}
        self._budget = len(data)
        self._vtables: dict[int, tuple[int, ...]] = {}

    def root(self) -> int:
        """Return the position of the root table."""
        return self._u32(0)

    def table(self, at: int) -> tuple[int, ...]:
        """Return the offset of each slot's value relative to ``at``; 0 if the slot is omitted."""
        self.inside(at, 4)
        vtable = at - _I32(self.data, at)[0]
        known = self._vtables.get(vtable)
        if known is None:
            self.inside(vtable, 4)
            size = _U16(self.data, vtable)[0]
            if size < 4 or size % 2:
                raise InvalidFlatbuffer("a vtable of an impossible size")
            self.inside(vtable, size)
            count = min(size // 2 - 2, _MOST_SLOTS)
            known = struct.unpack_from(f"<{count}H", self.data, vtable + 4)
            if len(self._vtables) < _MOST_KEPT:
                self._vtables[vtable] = known
        return known

    def number(self, at: int, slots: tuple[int, ...], slot: int, form: str) -> int:
        """Return the number in a slot, or 0 if it is omitted; ``form`` is a `struct` format character."""
        if slot >= len(slots) or not slots[slot]:
            return 0
        layout = _NUMBERS[form]
        self.inside(at + slots[slot], layout.size)
        return int(layout.unpack_from(self.data, at + slots[slot])[0])

    def reference(self, at: int, slots: tuple[int, ...], slot: int) -> int:
        """Return the position that a slot refers to, or 0 if it is omitted."""
        if slot >= len(slots) or not slots[slot]:
            return 0
        return self._followed(at + slots[slot])

    def string(self, at: int, slots: tuple[int, ...], slot: int) -> bytes:
        """Return the bytes of the string in a slot; empty if it is omitted."""
        place = self.reference(at, slots, slot)
        return self.string_at(place) if place else b""

    def strings(self, at: int, slots: tuple[int, ...], slot: int) -> list[bytes]:
        """Return the vector of strings in a slot."""
        places = self.references(at, slots, slot)
        found = [self.string_at(place) for place in places]
        # Repeated strings count each time, since callers create an object for each of them.
        self.spend(sum(map(len, found)) - sum(len(self.string_at(place)) for place in set(places)))
        return found

    def references(self, at: int, slots: tuple[int, ...], slot: int) -> list[int]:
        """Return the positions in the vector of references in a slot."""
        place = self.reference(at, slots, slot)
        return self.references_at(place) if place else []

    def references_at(self, place: int) -> list[int]:
        """Return the positions in the vector of references at ``place``."""
        count = self._u32(place)
        if not count:
            return []
        self.inside(place + 4, 4 * count)
        # Count the vector, since many tables may refer to the same one.
        self.spend(4 * count)
        first = place + 4
        values = struct.unpack_from(f"<{count}I", self.data, first)
        return [first + 4 * index + value for index, value in enumerate(values)]

    def byte_vector(self, at: int, slots: tuple[int, ...], slot: int) -> memoryview:
        """Return the vector of bytes in a slot, without copying it."""
        place = self.reference(at, slots, slot)
        if not place:
            return memoryview(b"")
        size = self._u32(place)
        self.inside(place + 4, size)
        return memoryview(self.data)[place + 4 : place + 4 + size]

    def string_at(self, place: int) -> bytes:
        """Return the bytes of the string at ``place``."""
        known = self._strings.get(place)
        if known is not None:
            return known
        # Checks are inlined for speed, since a zTOC has six strings per entry; the calls only raise the error.
        data, first = self.data, place + 4
        if place < 0 or first > len(data):
            self.inside(place, 4)
        end = first + _U32(data, place)[0]
        # Each string is followed by a NUL.
        if end >= len(data):
            self.inside(end, 1)
        self._budget -= end - place
        if self._budget < 0:
            self.spend(0)
        known = self._strings[place] = data[first:end]
        return known

    def inside(self, at: int, size: int) -> None:
        """Raise unless the ``size`` bytes at ``at`` are in the buffer."""
        if at < 0 or at + size > len(self.data):
            raise InvalidFlatbuffer(f"it refers to byte {at + size} but is only {len(self.data)} bytes long")

    def _followed(self, at: int) -> int:
        return at + self._u32(at)

    def _u32(self, at: int) -> int:
        self.inside(at, 4)
        return int(_U32(self.data, at)[0])

    def spend(self, size: int) -> None:
        """Subtract ``size`` bytes from the budget; raise if more was read than the buffer contains."""
        self._budget -= size
        if self._budget < 0:
            raise InvalidFlatbuffer("it describes more content than it contains")
