"""Parse the tar inside a layer incrementally while it is inflated.

`TarScanner.feed` accepts chunks of any size, in order; it skips file data and turns headers into entries. If the layer
cannot be indexed, the scanner stores the reason and ignores the rest of the stream. Corrupt headers raise `BadHeader`.
"""

import zlib
from typing import Final

from soci_pipeline.archive.tar_headers import (
    BLOCK,
    LAYOUT,
    ZERO_BLOCK,
    BadHeader,
    Header,
    NumberMemo,
    PaxRecords,
    TextMemo,
    TimeMemo,
    parse_header,
    parse_pax,
    pax_integer,
    pax_time,
    text,
)
from soci_pipeline.errors import LayerNotIndexable
from soci_pipeline.soci.limits import SPECIAL_ENTRY_BYTES
from soci_pipeline.soci.reasons import Reason
from soci_pipeline.soci.tar import entries as kinds
from soci_pipeline.soci.tar.entries import Entry

_KINDS: Final = {
    b"0": kinds.REGULAR,
    b"1": kinds.HARDLINK,
    b"2": kinds.SYMLINK,
    b"3": kinds.CHARACTER,
    b"4": kinds.BLOCK,
    b"5": kinds.DIRECTORY,
    b"6": kinds.FIFO,
}
_SPECIAL = frozenset({b"x", b"L", b"K"})
_UINT32 = 0xFFFFFFFF
_ENTRY_COST = 300  # bytes of a zTOC for an entry with a short name, and about as much memory
_RECORD_COST = 160  # bytes of memory for a PAX record in addition to its key and value; a zTOC needs a fifth of that
_VAIN_COST = 32  # per byte of PAX records that later ones replace: parsing five such bytes takes as long as an entry
_RECORD_FRAME = 10  # bytes of a PAX record in addition to its key and value
_NO_PAX: PaxRecords = ()


class OversizedHeader(Exception):
    """PAX records or a long name larger than `SPECIAL_ENTRY_BYTES`."""


class TarScanner:
    """Collects the entries of one tar stream; `finish` returns the size of the archive."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.refusal: LayerNotIndexable | None = None
        self._extra_cost = 0
        self._position = 0  # stream offset after the bytes fed so far
        self._next = 0  # stream offset of the next header or special data
        self._data_end = 0  # end of the last file's data, before its padding
        self._carry = b""
        self._zero_blocks = 0
        self._archive_size: int | None = None
        self._special = b""  # type flag of the special entry whose data comes next
        self._special_size = 0
        self._in_a_row = 0  # consecutive special entries, since the last normal entry
        self._pax = _NO_PAX
        self._long_name = b""
        self._long_link = b""
        self._numbers = NumberMemo()
        self._texts = TextMemo()
        self._times = TimeMemo()

    @property
    def cost(self) -> int:
        """Estimated size in bytes of the entries in the zTOC so far.

        Input that produces no output is counted too, because otherwise a small bomb could keep the scanner busy for
        hours: PAX records that later ones replace, and more consecutive special entries than there are types.
        """
        return _ENTRY_COST * len(self.entries) + self._extra_cost

    def feed(self, piece: bytearray | bytes, size: int) -> None:
        """Parse the first ``size`` bytes of the next chunk; raise `BadHeader` or `OversizedHeader`."""
        start, self._position = self._position, self._position + size
        if self._is_done():
            return
        if self._carry:
            piece, start = self._carry + piece[:size], start - len(self._carry)
            size, self._carry = len(piece), b""
        while not self._is_done():
            at = self._next - start
            if at + (self._special_size if self._special else BLOCK) > size:
                if at < size:
                    self._carry = bytes(piece[at:size])
                return
            if self._special:
                self._read_special(bytes(piece[at : at + self._special_size]))
            else:
                self._read_plain_headers(piece, start, size)

    def _is_done(self) -> bool:
        return self._archive_size is not None or self.refusal is not None

    def finish(self) -> int:
        """Return the size of the archive in bytes, including its trailer, at the end of the stream.

        Raises `BadHeader` if the stream ends inside an entry.
        """
        if self._special or self._carry or self._position < self._data_end:
            raise BadHeader("the tar is truncated in the middle of an entry")
        return self._position if self._archive_size is None else self._archive_size

    def _read_plain_headers(self, piece: bytearray | bytes, start: int, size: int) -> None:
        """Parse consecutive plain ustar headers, which nearly all headers are; pass others to `_read_header`.

        A single loop with inlined code, because the interpreter's time per entry dominates the cost of indexing.
        """
        unpack, kind_of, numbers, texts, times = LAYOUT.unpack_from, _KINDS.get, self._numbers, self._texts, self._times
        adler, new, add, no_pax, view = zlib.adler32, tuple.__new__, self.entries.append, _NO_PAX, memoryview(piece)
        at, last = self._next - start, size - BLOCK
        plain = not (self._pax or self._long_name or self._long_link or self._zero_blocks)
        try:
            while at <= last:
                # fmt: off
                (name, mode, uid, gid, length, mtime, checksum, flag, link, magic,
                 uname, gname, major, minor, prefix, trailer) = unpack(piece, at)
                # fmt: on
                kind = kind_of(flag)
                if not plain or kind is None or magic != b"ustar\x0000" or trailer == b"tar\0" or checksum[0] > 127:
                    self._next = start + at
                    self._read_header(piece, at)
                    return
                total = (adler(view[at : at + 256]) & 0xFFFF) + (adler(view[at + 256 : at + BLOCK]) & 0xFFFF) - 2
                bytes_in = numbers[length]
                if total - sum(checksum) + 256 != numbers[checksum] or (bytes_in and flag != b"0") or bytes_in < 0:
                    self._next = start + at
                    self._read_header(piece, at)
                    return
                at += BLOCK
                end = name.find(0)
                name = name if end < 0 else name[:end]
                if prefix[0]:
                    name = b"%b/%b" % (texts[prefix], name)
                    self._extra_cost += len(name)
                if link[0]:
                    end = link.find(0)
                    link = link if end < 0 else link[:end]
                    self._extra_cost += len(link)
                else:
                    link = b""
                # fmt: off
                add(new(Entry, (
                    name, kind, start + at, bytes_in, link, numbers[mode], numbers[uid] & _UINT32,
                    numbers[gid] & _UINT32, texts[uname], texts[gname], times[numbers[mtime]],
                    numbers[major], numbers[minor], no_pax,
                )))
                # fmt: on
                self._data_end = start + at + bytes_in
                at += (bytes_in + 511) & -512
            self._next = start + at
        finally:
            view.release()

    def _read_header(self, piece: bytearray | bytes, at: int) -> None:
        """Parse one header of any type at offset ``at`` of the chunk, which is ``self._next`` in the stream."""
        block = bytes(piece[at : at + BLOCK])
        self._next += BLOCK
        if block == ZERO_BLOCK:
            self._zero_blocks += 1
            if self._zero_blocks == 2:
                self._archive_size = self._next
            return
        if self._zero_blocks:
            raise BadHeader("a zero block is followed by something else")
        header = parse_header(block)
        if header.flag in _SPECIAL:
            self._expect_special(header)
        elif header.flag == b"g":
            self._refuse(Reason.UNSUPPORTED_ENTRY, "a PAX global header, such as git archive writes")
        else:
            self._add(header)

    def _expect_special(self, header: Header) -> None:
        if header.size < 0:
            raise BadHeader("a negative size")
        if header.size > SPECIAL_ENTRY_BYTES:
            raise OversizedHeader(f"an extended header of {header.size} bytes; the limit is {SPECIAL_ENTRY_BYTES}")
        self._special, self._special_size = header.flag, header.size
        self._data_end = self._next + header.size

    def _read_special(self, data: bytes) -> None:
        flag, self._special = self._special, b""
        self._next += (self._special_size + 511) & -512
        self._in_a_row += 1
        if self._in_a_row > len(_SPECIAL):
            self._extra_cost += _ENTRY_COST
        if flag == b"x":
            self._pax = parse_pax(data)
            used = sum(_RECORD_FRAME + len(key) + len(value) for key, value in self._pax)
            self._extra_cost += _VAIN_COST * max(len(data) - used, 0)
        elif flag == b"L":
            self._long_name = text(data)
        else:
            self._long_link = text(data)

    def _add(self, header: Header) -> None:
        pax, self._pax = self._pax, _NO_PAX
        name, link = self._long_name, self._long_link
        self._long_name = self._long_link = b""
        self._in_a_row = 0
        entry, size = self._merged(header, pax, name, link)
        kind = _KINDS.get(header.flag)
        if header.flag == b"\0":
            kind = kinds.DIRECTORY if entry.name.endswith(b"/") else kinds.REGULAR
        if kind is None:
            self._refuse(Reason.UNSUPPORTED_ENTRY, f"{_shown(entry.name)} has the type {header.flag!r}")
        elif any(key.startswith(b"GNU.sparse.") for key, _ in pax):
            self._refuse(Reason.UNSUPPORTED_ENTRY, f"{_shown(entry.name)} is a sparse file")
        elif size < 0:
            raise BadHeader("a negative size")
        elif size and kind is kinds.HARDLINK:
            self._refuse(Reason.HARDLINK_WITH_SIZE, f"{_shown(entry.name)} is a hard link of {size} bytes")
        elif size and kind is not kinds.REGULAR:
            self._refuse(Reason.UNSUPPORTED_ENTRY, f"{_shown(entry.name)} is a {kind.decode()} of {size} bytes")
        else:
            self._data_end = self._next + size
            self._next += (size + 511) & -512
            self.entries.append(entry._replace(kind=kind))
            self._extra_cost += len(entry.name) + len(entry.link)
            self._extra_cost += sum(_RECORD_COST + len(key) + len(value) for key, value in pax)

    def _merged(self, header: Header, pax: PaxRecords, long_name: bytes, long_link: bytes) -> tuple[Entry, int]:
        name, link, uname, gname = header.name, header.link, header.uname, header.gname
        uid, gid, size, mod_time = header.uid, header.gid, header.size, self._times[header.mtime]
        for key, value in pax:
            # An empty value does not override the header, as in Go's reader.
            match key if value else b"":
                case b"path":
                    name = value
                case b"linkpath":
                    link = value
                case b"uname":
                    uname = value
                case b"gname":
                    gname = value
                case b"uid":
                    uid = pax_integer(value)
                case b"gid":
                    gid = pax_integer(value)
                case b"size":
                    size = pax_integer(value)
                case b"mtime":
                    mod_time = pax_time(value)
                case b"atime" | b"ctime":
                    pax_time(value)
                case _:
                    pass
        # fmt: off
        return Entry(
            long_name or name, b"", self._next, size, long_link or link, header.mode, uid & _UINT32, gid & _UINT32,
            uname, gname, mod_time, header.devmajor, header.devminor, pax,
        ), size
        # fmt: on

    def _refuse(self, reason: Reason, detail: str) -> None:
        # The rest of the stream is still inflated and verified: corruption takes precedence over this reason.
        self.refusal = LayerNotIndexable(reason, detail)
        self._data_end = 0
        self.entries.clear()


def _shown(name: bytes) -> str:
    return repr(name[-80:].decode(errors="replace"))
