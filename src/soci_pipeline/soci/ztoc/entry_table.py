"""Decode the entries of a zTOC in one loop, since it runs for every file of every layer whose zTOC is reused.

The tables of one writer share a few vtables. Each vtable is decoded once, into a layout that unpacks all numbers and
references of a table in one step. The fast loop handles such tables, counts the bytes it has read, and stops at
anything unusual. Then all entries are read again slot by slot, by a reader that handles every valid form and reports
the error.
"""

import contextlib
import struct
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from soci_pipeline.archive.tar_headers import BLOCK, PaxRecords
from soci_pipeline.soci.tar import entries as kinds
from soci_pipeline.soci.tar.entries import Entry
from soci_pipeline.soci.ztoc.flatbuffer_reader import FlatbufferReader, InvalidFlatbuffer

# The struct format of each slot of FileMetadata; O is a reference.
_FORMS: Final = "OOqqOqIIOOOqqO"
_REFERENCES: Final = tuple(slot for slot, form in enumerate(_FORMS) if form == "O")
_I32: Final = struct.Struct("<i").unpack_from
_U32: Final = struct.Struct("<I").unpack_from
_LEAST_BYTES: Final = 20  # minimum size of an entry's table: vtable offset, name, type, data offset
_MOST_LAYOUTS: Final = 1 << 8  # a writer needs a few dozen


class _UncommonEntry(Exception):
    """The fast loop cannot read the buffer, which may still be valid."""


class _Layout(NamedTuple):
    """How to unpack a table's fields in slot order, and the offset of each reference field within the table."""

    fields: Callable[[bytes, int], tuple[Any, ...]]
    distances: tuple[int, ...]


def read_entries(reader: FlatbufferReader, places: Sequence[int], uncompressed: int) -> tuple[Entry, ...]:
    """Decode the entries of the tables at ``places``.

    Raises `InvalidFlatbuffer` if an entry is invalid, or if entries are out of order, overlap or exceed a tar of
    ``uncompressed`` bytes.
    """
    reader.spend(_LEAST_BYTES * len(places))
    # Not an except clause, which would keep the objects of the first attempt alive during the second.
    with contextlib.suppress(_UncommonEntry, struct.error):
        return tuple(_read_ordinary(reader, places, uncompressed))
    # A new reader, since the first attempt has used part of the budget.
    again = FlatbufferReader(reader.data)
    again.spend(_LEAST_BYTES * len(places))
    found, floor = [], BLOCK
    for at in places:
        entry = _read_uncommon_entry(again, at)
        floor = _end_of(entry, floor, uncompressed)
        found.append(entry)
    return tuple(found)


def _read_ordinary(reader: FlatbufferReader, places: Sequence[int], uncompressed: int) -> list[Entry]:
    """Decode entries whose tables all have a layout and whose strings together are not larger than the buffer."""
    found: list[Entry] = []
    add, make = found.append, tuple.__new__
    layouts: dict[int, _Layout] = {}
    data, floor, spent = reader.data, BLOCK, 0
    length = len(data)
    regular, known_kinds = kinds.REGULAR, kinds.KINDS
    for at in places:
        if at < 0:
            raise _UncommonEntry
        vtable = at - _I32(data, at)[0]
        layout = layouts.get(vtable)
        if layout is None:
            if len(layouts) >= _MOST_LAYOUTS:
                raise _UncommonEntry
            layout = layouts[vtable] = _layout(reader.table(at))
        fields, (name_at, kind_at, link_at, uname_at, gname_at, time_at, pax_at) = layout
        name, kind, offset, size, link, mode, uid, gid, uname, gname, time, major, minor, pax = fields(data, at)
        # The start of each string, after its length, and its end.
        name += at + name_at + 4
        kind += at + kind_at + 4
        link += at + link_at + 4
        uname += at + uname_at + 4
        gname += at + gname_at + 4
        time += at + time_at + 4
        pax += at + pax_at
        name_end = name + _U32(data, name - 4)[0]
        kind_end = kind + _U32(data, kind - 4)[0]
        link_end = link + _U32(data, link - 4)[0]
        uname_end = uname + _U32(data, uname - 4)[0]
        gname_end = gname + _U32(data, gname - 4)[0]
        time_end = time + _U32(data, time - 4)[0]
        spent += name_end - name + kind_end - kind + link_end - link
        spent += uname_end - uname + gname_end - gname + time_end - time
        # Each string is followed by a NUL.
        if spent > length or max(name_end, kind_end, link_end, uname_end, gname_end, time_end) >= length:
            raise _UncommonEntry
        kind_said = data[kind:kind_end]
        if offset < floor or size < 0 or kind_said not in known_kinds or (size and kind_said != regular):
            raise _UncommonEntry
        floor = offset + -(-size // BLOCK) * BLOCK + BLOCK
        if offset + size > uncompressed:
            raise _UncommonEntry
        add(
            make(
                Entry,
                (
                    data[name:name_end],
                    kind_said,
                    offset,
                    size,
                    data[link:link_end],
                    mode,
                    uid,
                    gid,
                    data[uname:uname_end],
                    data[gname:gname_end],
                    data[time:time_end],
                    major,
                    minor,
                    _pax(reader, pax) if _U32(data, pax)[0] else (),
                ),
            )
        )
    return found


def _layout(slots: tuple[int, ...]) -> _Layout:
    """Build the layout of a vtable; raise `_UncommonEntry` if a reference is missing or fields overlap."""
    slots = slots[: len(_FORMS)]
    if len(slots) < len(_FORMS) or not all(slots[slot] for slot in _REFERENCES):
        raise _UncommonEntry
    form, end = "<", 0
    present = sorted((place, slot) for slot, place in enumerate(slots) if place)
    for place, slot in present:
        if place < end:
            raise _UncommonEntry
        code = _FORMS[slot].replace("O", "I")
        form += f"{place - end}x{code}"
        end = place + struct.calcsize(f"<{code}")
    taken = [slot for _, slot in present]
    # An omitted number is 0: it is taken from the 0 appended after the unpacked values.
    order = itemgetter(*(taken.index(slot) if slot in taken else len(taken) for slot in range(len(_FORMS))))
    unpack = struct.Struct(form).unpack_from
    return _Layout(lambda data, at: order((*unpack(data, at), 0)), tuple(slots[slot] for slot in _REFERENCES))


def _end_of(entry: Entry, floor: int, uncompressed: int) -> int:
    """Return the lowest possible data offset of the next entry; raise `InvalidFlatbuffer` for an invalid entry."""
    size = entry.size
    if entry.kind not in kinds.KINDS:
        raise InvalidFlatbuffer(f"an entry of the unknown type {entry.kind[:20]!r}")
    if size < 0 or (size and entry.kind != kinds.REGULAR):
        raise InvalidFlatbuffer(f"a {entry.kind.decode()} of {size} bytes")
    # Each entry has a header before its data, so this also rejects two entries at the same offset.
    if entry.offset < floor or entry.offset + size > uncompressed:
        raise InvalidFlatbuffer("its entries overlap or lie outside of the archive")
    return entry.offset + -(-size // BLOCK) * BLOCK + BLOCK


def _read_uncommon_entry(reader: FlatbufferReader, at: int) -> Entry:
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


def _pax(reader: FlatbufferReader, place: int) -> PaxRecords:
    if not place:
        return ()
    records = reader.references_at(place)
    return tuple(_record(reader, each) for each in records) if records else ()


def _record(reader: FlatbufferReader, at: int) -> tuple[bytes, bytes]:
    slots = reader.table(at)
    return reader.string(at, slots, 0), reader.string(at, slots, 1)
