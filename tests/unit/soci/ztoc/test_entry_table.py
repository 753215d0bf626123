"""Entries of tables in other forms than our own writer's: what is skipped, in another order, or in one another."""

import struct

import pytest

from soci_pipeline.soci.tar.entries import Entry
from soci_pipeline.soci.ztoc.entry_table import read_entries
from soci_pipeline.soci.ztoc.flatbuffer_reader import FlatbufferReader, InvalidFlatbuffer

SIZES = {"O": 4, "I": 4, "q": 8}
FORMS = "OOqqOqIIOOOqqO"
TEXTS = {0: b"usr/a", 1: b"reg", 4: b"", 8: b"root", 9: b"wheel", 10: b"2024-01-01T00:00:00Z"}
NUMBERS = {2: 1024, 3: 7, 5: 0o644, 6: 10, 7: 20, 11: 1, 12: 2}
WHOLE = Entry(b"usr/a", b"reg", 1024, 7, b"", 0o644, 10, 20, b"root", b"wheel", TEXTS[10], 1, 2)


def table(order: list[int], *, places: dict[int, int] | None = None) -> FlatbufferReader:
    """A buffer with one FileMetadata table at 40: its slots in that order, or at ``places``; all references follow."""
    found, end = {}, 4
    for slot in order:
        found[slot] = end
        end += SIZES[FORMS[slot]]
    found |= places or {}
    body, strings = bytearray(end), bytearray()
    for slot, place in found.items():
        if FORMS[slot] == "O":
            struct.pack_into("<I", body, place, end - place + len(strings))
            text = TEXTS.get(slot)
            strings += struct.pack("<I", 0) if text is None else struct.pack("<I", len(text)) + text + b"\0"
        else:
            struct.pack_into(f"<{FORMS[slot]}", body, place, NUMBERS[slot])
    struct.pack_into("<i", body, 0, 36)
    slots = [found.get(slot, 0) for slot in range(len(FORMS))]
    vtable = struct.pack("<16H", 32, end, *slots)
    return FlatbufferReader(bytes(4) + vtable + bytes(4) + body + strings)


ALL = list(range(len(FORMS)))


@pytest.mark.parametrize("order", [ALL, ALL[::-1], [13, *ALL[:13]]], ids=["slots", "backwards", "mixed"])
def test_fields_are_found_wherever_the_vtable_puts_them(order: list[int]) -> None:
    assert read_entries(table(order), [40], 4096) == (WHOLE,)


def test_numbers_that_are_left_out_are_zero() -> None:
    order = [slot for slot in ALL if slot not in (3, 5, 6, 7, 11, 12)]
    (found,) = read_entries(table(order), [40], 4096)
    assert found == WHOLE._replace(size=0, mode=0, uid=0, gid=0, devmajor=0, devminor=0)


def test_strings_that_are_left_out_are_empty() -> None:
    order = [slot for slot in ALL if slot not in (8, 9, 10, 13)]
    (found,) = read_entries(table(order), [40], 4096)
    assert found == WHOLE._replace(uname=b"", gname=b"", mod_time=b"")


def test_fields_that_lie_in_one_another_are_read_as_the_vtable_says() -> None:
    # Both numbers are in one place, so both are what was written there last.
    reader = table([slot for slot in ALL if slot != 12], places={12: 4 + sum(SIZES[FORMS[s]] for s in ALL[:11])})
    (found,) = read_entries(reader, [40], 4096)
    assert (found.devmajor, found.devminor) == (2, 2)
    assert found._replace(devmajor=1) == WHOLE


def test_a_table_that_is_cut_off_is_refused() -> None:
    whole = table(ALL).data
    for size in range(36, len(whole)):
        with pytest.raises(InvalidFlatbuffer):
            read_entries(FlatbufferReader(whole[:size]), [40], 4096)


@pytest.mark.parametrize("place", [-1, 10**9, 39], ids=str)
def test_a_table_that_is_elsewhere_is_refused(place: int) -> None:
    with pytest.raises(InvalidFlatbuffer):
        read_entries(table(ALL), [place], 4096)


def test_one_long_string_that_many_entries_share_is_read_for_each() -> None:
    """Together they say far more than the buffer holds, which is no reason to refuse a writer that shares strings."""
    name, count = b"n" * 4096, 50
    places = [40 + 80 * number for number in range(count)]
    end = places[-1] + 80
    strings = struct.pack("<I", len(name)) + name + b"\0" * 4 + struct.pack("<I3s1x", 3, b"reg") + bytes(4)
    kind, nothing = end + 4 + len(name) + 4, end + len(strings) - 4
    slots = {slot: 4 + sum(SIZES[FORMS[other]] for other in ALL[:slot]) for slot in ALL}
    data = bytearray(4) + struct.pack("<16H", 32, 80, *(slots[slot] for slot in ALL)) + bytes(4)
    for number, place in enumerate(places):
        body = bytearray(struct.pack("<i", place - 4)) + bytes(76)
        for slot in ALL:
            if FORMS[slot] == "O":
                target = {0: end, 1: kind}.get(slot, nothing)
                struct.pack_into("<I", body, slots[slot], target - place - slots[slot])
        struct.pack_into("<q", body, slots[2], 512 * (number + 1))
        data += body
    found = read_entries(FlatbufferReader(bytes(data + strings + b"\0")), places, 1 << 20)
    assert [(entry.name, entry.kind, entry.offset) for entry in found] == [
        (name, b"reg", 512 * (number + 1)) for number in range(count)
    ]
