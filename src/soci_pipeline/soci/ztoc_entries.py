"""Reads the entries of a zTOC: one loop, since it is paid for every file of every layer whose zTOC is used again.

The tables of one writer share a few vtables. What a vtable says is worked out once, as a layout that takes all numbers
and references of a table in one step; a table of any other form is read slot by slot.
"""

import struct
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from soci_pipeline.soci import entries as kinds
from soci_pipeline.soci.entries import Entry
from soci_pipeline.soci.flatbuffer_reader import FlatbufferReader, InvalidFlatbuffer
from soci_pipeline.soci.tar_headers import BLOCK

# The fields of FileMetadata by slot; O is a reference.
_FORMS: Final = "OOqqOqIIOOOqqO"
_REFERENCES: Final = tuple(slot for slot, form in enumerate(_FORMS) if form == "O")
_I32: Final = struct.Struct("<i").unpack_from


class _Layout(NamedTuple):
    """How to take a table's fields in the order of their slots, and how far behind it each reference lies."""

    fields: Callable[[bytes, int], tuple[Any, ...]]
    distances: tuple[int, ...]


def read_entries(reader: FlatbufferReader, places: Sequence[int], uncompressed: int) -> tuple[Entry, ...]:
    """The entries of the tables at ``places``, in order and without overlap in a tar of ``uncompressed`` bytes.

    Raises `InvalidFlatbuffer` for anything else.
    """
    found: list[Entry] = []
    layouts: dict[int, _Layout | None] = {}
    data, string, floor = reader.data, reader.string_at, BLOCK
    for at in places:
        reader.inside(at, 4)
        vtable = at - _I32(data, at)[0]
        if vtable not in layouts:
            layouts[vtable] = _layout(reader.table(at))
        layout = layouts[vtable]
        if layout is None:
            entry = _slot_by_slot(reader, at)
        else:
            try:
                fields = layout.fields(data, at)
            except struct.error as error:
                raise InvalidFlatbuffer("a table reaches beyond the end") from error
            name, kind, offset, size, link, mode, uid, gid, uname, gname, time, major, minor, pax = fields
            name_at, kind_at, link_at, uname_at, gname_at, time_at, pax_at = layout.distances
            entry = Entry(
                string(at + name_at + name),
                string(at + kind_at + kind),
                offset,
                size,
                string(at + link_at + link),
                mode,
                uid,
                gid,
                string(at + uname_at + uname),
                string(at + gname_at + gname),
                string(at + time_at + time),
                major,
                minor,
                _pax(reader, at + pax_at + pax),
            )
        floor = _end_of(entry, floor, uncompressed)
        found.append(entry)
    return tuple(found)


def _layout(slots: tuple[int, ...]) -> _Layout | None:
    """None for a table that no writer makes: without some reference, or with fields that lie in one another."""
    slots = slots[: len(_FORMS)]
    if len(slots) < len(_FORMS) or not all(slots[slot] for slot in _REFERENCES):
        return None
    form, end = "<", 0
    present = sorted((place, slot) for slot, place in enumerate(slots) if place)
    for place, slot in present:
        if place < end:
            return None
        code = _FORMS[slot].replace("O", "I")
        form += f"{place - end}x{code}"
        end = place + struct.calcsize(f"<{code}")
    taken = [slot for _, slot in present]
    # A number that is left out is 0, which comes behind those that are there.
    order = itemgetter(*(taken.index(slot) if slot in taken else len(taken) for slot in range(len(_FORMS))))
    unpack = struct.Struct(form).unpack_from
    return _Layout(lambda data, at: order((*unpack(data, at), 0)), tuple(slots[slot] for slot in _REFERENCES))


def _end_of(entry: Entry, floor: int, uncompressed: int) -> int:
    """Where the data of the next entry can begin at the earliest; raises for an entry that cannot be."""
    size = entry.size
    if entry.kind not in kinds.KINDS:
        raise InvalidFlatbuffer(f"an entry of the unknown type {entry.kind[:20]!r}")
    if size < 0 or (size and entry.kind != kinds.REGULAR):
        raise InvalidFlatbuffer(f"a {entry.kind.decode()} of {size} bytes")
    # Each entry has a header of its own before its data; this also refuses two entries at one place.
    if entry.offset < floor or entry.offset + size > uncompressed:
        raise InvalidFlatbuffer("its entries overlap or lie outside of the archive")
    return entry.offset + -(-size // BLOCK) * BLOCK + BLOCK


def _slot_by_slot(reader: FlatbufferReader, at: int) -> Entry:
    slots = reader.table(at)
    string, number = reader.string, reader.number
    return Entry(
        name=string(at, slots, 0),
        kind=string(at, slots, 1),
        offset=number(at, slots, 2, "q"),
        size=number(at, slots, 3, "q"),
        link=string(at, slots, 4),
        mode=number(at, slots, 5, "q"),
        uid=number(at, slots, 6, "I"),
        gid=number(at, slots, 7, "I"),
        uname=string(at, slots, 8),
        gname=string(at, slots, 9),
        mod_time=string(at, slots, 10),
        devmajor=number(at, slots, 11, "q"),
        devminor=number(at, slots, 12, "q"),
        pax=_pax(reader, reader.reference(at, slots, 13)),
    )


def _pax(reader: FlatbufferReader, place: int) -> tuple[tuple[bytes, bytes], ...]:
    if not place:
        return ()
    records = reader.references_at(place)
    return tuple(_record(reader, each) for each in records) if records else ()


def _record(reader: FlatbufferReader, at: int) -> tuple[bytes, bytes]:
    slots = reader.table(at)
    return reader.string(at, slots, 0), reader.string(at, slots, 1)
