"""Reads flatbuffers that may be hostile: every position is checked, and no content is counted twice.

Offsets in a flatbuffer may point anywhere, so a small buffer can describe much content by pointing at the same bytes
again and again, or by objects that lie in one another. Strings are therefore read once a place, and all objects
together may not take more bytes than the buffer has. Of a vtable only the slots that a zTOC knows are read: one may
claim 32,000, and every table may have another.
"""

import struct
from typing import Final

from soci_pipeline.errors import DamagedContent

_U16: Final = struct.Struct("<H").unpack_from
_U32: Final = struct.Struct("<I").unpack_from
_I32: Final = struct.Struct("<i").unpack_from
_NUMBERS: Final = {form: struct.Struct(f"<{form}") for form in "bBiIqQ"}
_MOST_SLOTS: Final = 14  # those of FileMetadata, which has the most
_MOST_KEPT: Final = 1 << 12  # a writer shares a few dozen vtables


class InvalidFlatbuffer(DamagedContent):
    """Bytes that are no buffer of the expected form."""


class FlatbufferReader:
    """One buffer. Positions are bytes from its start; every method raises `InvalidFlatbuffer`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._strings: dict[int, bytes] = {}
        self._budget = len(data)
        self._vtables: dict[int, tuple[int, ...]] = {}

    def root(self) -> int:
        """The position of the root table."""
        return self._u32(0)

    def table(self, at: int) -> tuple[int, ...]:
        """For each slot of the table, how far behind ``at`` its value lies; 0 where it is left out."""
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
        """The number in a slot, 0 where it is left out; ``form`` is that of `struct`."""
        if slot >= len(slots) or not slots[slot]:
            return 0
        layout = _NUMBERS[form]
        self.inside(at + slots[slot], layout.size)
        return int(layout.unpack_from(self.data, at + slots[slot])[0])

    def reference(self, at: int, slots: tuple[int, ...], slot: int) -> int:
        """The position that a slot refers to, 0 where it is left out."""
        if slot >= len(slots) or not slots[slot]:
            return 0
        return self._followed(at + slots[slot])

    def string(self, at: int, slots: tuple[int, ...], slot: int) -> bytes:
        """The bytes of a string, empty where it is left out."""
        place = self.reference(at, slots, slot)
        return self.string_at(place) if place else b""

    def strings(self, at: int, slots: tuple[int, ...], slot: int) -> list[bytes]:
        """A vector of strings."""
        places = self.references(at, slots, slot)
        found = [self.string_at(place) for place in places]
        # What is named again counts again: whoever makes something of each would make it as often.
        self.spend(sum(map(len, found)) - sum(len(self.string_at(place)) for place in set(places)))
        return found

    def references(self, at: int, slots: tuple[int, ...], slot: int) -> list[int]:
        """The positions that a vector of references leads to."""
        place = self.reference(at, slots, slot)
        return self.references_at(place) if place else []

    def references_at(self, place: int) -> list[int]:
        """The positions that the vector of references at ``place`` leads to."""
        count = self._u32(place)
        if not count:
            return []
        self.inside(place + 4, 4 * count)
        # What has been read is not read again for another table.
        self.spend(4 * count)
        first = place + 4
        values = struct.unpack_from(f"<{count}I", self.data, first)
        return [first + 4 * index + value for index, value in enumerate(values)]

    def byte_vector(self, at: int, slots: tuple[int, ...], slot: int) -> memoryview:
        """A vector of bytes, not copied."""
        place = self.reference(at, slots, slot)
        if not place:
            return memoryview(b"")
        size = self._u32(place)
        self.inside(place + 4, size)
        return memoryview(self.data)[place + 4 : place + 4 + size]

    def string_at(self, place: int) -> bytes:
        """The bytes of the string at ``place``."""
        known = self._strings.get(place)
        if known is not None:
            return known
        # The checks are written out, since a zTOC has six strings for each entry; the calls only say what is wrong.
        data, first = self.data, place + 4
        if place < 0 or first > len(data):
            self.inside(place, 4)
        end = first + _U32(data, place)[0]
        # A NUL ends each string.
        if end >= len(data):
            self.inside(end, 1)
        self._budget -= end - place
        if self._budget < 0:
            self.spend(0)
        known = self._strings[place] = data[first:end]
        return known

    def inside(self, at: int, size: int) -> None:
        """Raise unless ``size`` bytes from ``at`` on are in the buffer."""
        if at < 0 or at + size > len(self.data):
            raise InvalidFlatbuffer(f"it refers to byte {at + size}, and has {len(self.data)}")

    def _followed(self, at: int) -> int:
        return at + self._u32(at)

    def _u32(self, at: int) -> int:
        self.inside(at, 4)
        return int(_U32(self.data, at)[0])

    def spend(self, size: int) -> None:
        """Take note of ``size`` bytes that were read; raises where more were read than there are."""
        self._budget -= size
        if self._budget < 0:
            raise InvalidFlatbuffer("it describes more content than it holds")
