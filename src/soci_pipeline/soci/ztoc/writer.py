"""Encode zTOCs byte for byte as the reference does.

Entries are written from last to first, directly in the form that `FlatbufferWriter.table` would produce. The shape of a
`FileMetadata` table depends only on which of its numbers are zero and on the alignment, so each shape is computed once
and then filled by one `struct` call.
"""

import struct
from array import array
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from soci_pipeline.archive.tar_headers import PaxRecords
from soci_pipeline.soci.gzip.checkpoints import Checkpoints, GzipCheckpoints, TarSpans
from soci_pipeline.soci.tar.entries import Entry
from soci_pipeline.soci.ztoc.flatbuffer_writer import FlatbufferWriter, string

VERSION: Final = b"0.9"
UNCOMPRESSED: Final = 2
TAR_ZINFO_VERSION: Final = 2

# The slots of FileMetadata with the struct format of each value; the names are mostly those of Entry.
_SLOTS: Final = (
    ("name", "O"), ("kind", "O"), ("offset", "q"), ("size", "q"), ("link", "O"), ("mode", "q"), ("uid", "I"),
    ("gid", "I"), ("uname", "O"), ("gname", "O"), ("mod_time", "O"), ("devmajor", "q"), ("devminor", "q"),
    ("xattrs", "O"),
)  # fmt: skip
_OPTIONAL: Final = {"size": 1, "mode": 2, "uid": 4, "gid": 8, "devmajor": 16, "devminor": 32, "offset": 64}
_XATTR_SLOTS: Final = (8, 4)
_BATCH: Final = 2048
_EMPTY: Final = string(b"")
_EMPTY_VECTOR: Final = bytes(4)
_XATTR: Final = struct.Struct("<iII")
_VTABLE_SIZE: Final = 32


def write_ztoc(
    entries: list[Entry],
    checkpoints: Checkpoints,
    span_digests: Sequence[bytes],
    *,
    build_tool: str,
    compressed_size: int,
    uncompressed_size: int,
) -> bytes:
    """Encode a zTOC; ``entries`` is emptied in the process, to avoid doubling the memory use.

    ``span_digests`` are strings ``sha256:…``; sizes are in bytes.
    """
    writer = FlatbufferWriter()
    version = writer.string(VERSION)
    tool = writer.string(build_tool.encode())
    metadata = _vector_of_entries(writer, entries)
    toc = writer.table([(0, "O", metadata)])
    info = _compression_info(writer, checkpoints, span_digests)
    root = writer.table(
        [
            (0, "O", version),
            (1, "O", tool),
            (4, "O", toc),
            (2, "q", compressed_size),
            (3, "q", uncompressed_size),
            (5, "O", info),
        ]
    )
    return writer.finish(root)


def _compression_info(writer: FlatbufferWriter, checkpoints: Checkpoints, span_digests: Sequence[bytes]) -> int:
    stored = writer.byte_vector(
        checkpoints.parts() if isinstance(checkpoints, GzipCheckpoints) else [_tar_zinfo(checkpoints)]
    )
    digests = writer.offset_vector([writer.string(digest) for digest in span_digests])
    algorithm = UNCOMPRESSED if isinstance(checkpoints, TarSpans) else 0
    return writer.table(
        [(1, "i", len(span_digests) - 1), (2, "O", digests), (3, "O", stored), (0, "b", algorithm)],
    )


def _tar_zinfo(spans: TarSpans) -> bytes:
    writer = FlatbufferWriter()
    root = writer.table([(0, "i", TAR_ZINFO_VERSION), (1, "q", spans.span_size), (2, "q", spans.size)])
    return writer.finish(root)


class _Shape(NamedTuple):
    """The shape of a FileMetadata table: how to fill it, its size, its vtable's slots, and its reference offsets."""

    pack: Callable[..., bytes]
    size: int
    slots: tuple[int, ...]
    name: int
    kind: int
    link: int
    uname: int
    gname: int
    mod_time: int
    xattrs: int


def _shape(present: int, phase: int) -> _Shape:
    """Compute the shape of a table that ends at ``phase`` modulo 8 and has the numbers in the bit set ``present``."""
    offset = phase
    places: dict[str, int] = {}
    forms: list[str] = []
    for name, form in _SLOTS:
        if name in _OPTIONAL and not present & _OPTIONAL[name]:
            forms.append("0s")
            continue
        size = 8 if form == "q" else 4
        padding = -offset % size
        offset += padding + size
        places[name] = offset
        forms.append(f"{form.replace('O', 'I')}{padding}x" if padding else form.replace("O", "I"))
    start = offset + 4
    distance = {name: start - place for name, place in places.items()}
    slots = tuple(distance.get(name, 0) for name, _ in _SLOTS)
    references = (distance[name] for name in ("name", "kind", "link", "uname", "gname", "mod_time", "xattrs"))
    return _Shape(struct.Struct("<i" + "".join(reversed(forms))).pack, start - phase, slots, *references)


def _vector_of_entries(writer: FlatbufferWriter, entries: list[Entry]) -> int:
    starts = array("I")
    writer.alignment = max(writer.alignment, 8 if entries else 4)
    shapes: dict[int, _Shape] = {}
    strings: dict[bytes, bytes] = {}
    while entries:
        batch = entries[-_BATCH:]
        del entries[-_BATCH:]
        _put_entries(writer, batch, starts, shapes, strings)
        if len(strings) > 1 << 16:
            strings.clear()
    starts.reverse()
    return writer.offset_vector(starts)


def _put_entries(
    writer: FlatbufferWriter,
    batch: list[Entry],
    starts: "array[int]",
    shapes: dict[int, _Shape],
    strings: dict[bytes, bytes],
) -> None:
    """Write a batch of entries, last first, in a single loop for speed."""
    joined: list[bytes] = []
    base = writer.offset
    known, learn, vtable_of = strings.get, strings.setdefault, writer.vtables.get
    for entry in reversed(batch):
        name, kind, offset, size, link, mode, uid, gid, uname, gname, mod_time, devmajor, devminor, pax = entry
        name_s = string(name)
        kind_s = known(kind) or learn(kind, string(kind))
        link_s = string(link) if link else _EMPTY
        uname_s = known(uname) or learn(uname, string(uname))
        gname_s = known(gname) or learn(gname, string(gname))
        time_s = known(mod_time) or learn(mod_time, string(mod_time))
        tail = b"%b%b%b%b%b%b" % (time_s, gname_s, uname_s, link_s, kind_s, name_s)
        xattrs_s = _xattrs(writer, pax, base + len(tail)) if pax else _EMPTY_VECTOR
        end = base + len(tail) + len(xattrs_s)
        # fmt: off
        key = (
            (8 if size else 0) | (16 if mode else 0) | (32 if uid else 0) | (64 if gid else 0)
            | (128 if devmajor else 0) | (256 if devminor else 0) | (512 if offset else 0) | (end & 7)
        )
        shape = shapes.get(key)
        if shape is None:
            shape = shapes[key] = _shape(key >> 3, end & 7)
        table_size = shape.size
        base = end + table_size
        starts.append(base)
        shared = vtable_of(shape.slots)
        time_at = table_size + len(xattrs_s)
        gname_at = time_at + len(time_s)
        uname_at = gname_at + len(gname_s)
        link_at = uname_at + len(uname_s)
        kind_at = link_at + len(link_s)
        table = shape.pack(
            _VTABLE_SIZE if shared is None else shared - base, table_size - shape.xattrs, devminor or b"",
            devmajor or b"", time_at - shape.mod_time, gname_at - shape.gname, uname_at - shape.uname, gid or b"",
            uid or b"", mode or b"", link_at - shape.link, size or b"", offset or b"", kind_at - shape.kind,
            kind_at + len(kind_s) - shape.name,
        )
        # fmt: on
        joined.append(b"%b%b%b" % (table, xattrs_s, tail))
        if shared is None:
            joined.append(struct.pack("<16H", _VTABLE_SIZE, table_size, *shape.slots))
            base += _VTABLE_SIZE
            writer.vtables[shape.slots] = base
    joined.reverse()
    writer.put(b"".join(joined))


def _xattrs(writer: FlatbufferWriter, pax: PaxRecords, offset: int) -> bytes:
    """Encode the PAX records of an entry and their vector, to be placed before the object at ``offset``."""
    parts: list[bytes] = []
    starts: list[int] = []
    for key, value in pax:
        value_s = string(value)
        key_s = string(key)
        offset += 12 + len(value_s) + len(key_s)
        starts.append(offset)
        shared = writer.vtables.get(_XATTR_SLOTS)
        distance = 8 if shared is None else shared - offset
        parts.append(_XATTR.pack(distance, 8, 4 + len(value_s)) + value_s + key_s)
        if shared is None:
            parts.append(struct.pack("<4H", 8, 12, *_XATTR_SLOTS))
            offset += 8
            writer.vtables[_XATTR_SLOTS] = offset
    end = offset + 4 * len(pax)
    parts.append(struct.pack(f"<{len(pax) + 1}I", len(pax), *(end - 4 * i - start for i, start in enumerate(starts))))
    parts.reverse()
    return b"".join(parts)
