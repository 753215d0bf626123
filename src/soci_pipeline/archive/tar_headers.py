"""Parse single tar headers as Go's archive/tar does, which every container runtime uses.

Formats: V7, ustar (POSIX.1-1988), pax (POSIX.1-2001), GNU and star. Numbers are octal, or base-256 if the first bit is
set. A header that Go rejects raises `BadHeader`. Knowledge about the fields of a header is confined to this module;
only `soci.tar.stream` unpacks plain headers with `LAYOUT` in its own loop, for speed.
"""

import re
import struct
import zlib
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

BLOCK: Final = 512
ZERO_BLOCK: Final = bytes(BLOCK)

# name mode uid gid size mtime checksum type link magic uname gname devmajor devminor prefix (rest) trailer
LAYOUT: Final = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s8x4s")

_INT64_MAX = (1 << 63) - 1
_DECIMAL = re.compile(rb"[+-]?[0-9]+\Z")
_DIGITS = re.compile(rb"[0-9]*\Z")
_STRING_KEYS = frozenset({b"path", b"linkpath", b"uname", b"gname"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_ONE = -62135596800
_YEAR_ZERO = -62167219200
_YEAR_10000 = 253402300800
_400_YEARS = 12622780800
_MEMO_LIMIT = 1 << 16


PaxRecords = tuple[tuple[bytes, bytes], ...]
"""Key and value of each record; `parse_pax` sorts them by key."""


class BadHeader(Exception):
    """The header or PAX record is invalid, so the tar is corrupt."""


class Header(NamedTuple):
    """The fields of one header block, before PAX records and GNU long names are applied."""

    name: bytes
    flag: bytes
    size: int
    link: bytes
    mode: int
    uid: int
    gid: int
    uname: bytes
    gname: bytes
    mtime: int
    devmajor: int
    devminor: int


class NumberMemo(dict[bytes, int]):
    """Cache of parsed numeric fields: most headers of a layer repeat the same few values."""

    def __missing__(self, field: bytes) -> int:
        if len(self) >= _MEMO_LIMIT:
            self.clear()
        self[field] = value = number(field)
        return value


class TextMemo(dict[bytes, bytes]):
    """Cache of parsed string fields, such as owner names; sharing the objects saves memory too."""

    def __missing__(self, field: bytes) -> bytes:
        if len(self) >= _MEMO_LIMIT:
            self.clear()
        self[field] = value = text(field)
        return value


class TimeMemo(dict[int, bytes]):
    """Cache of formatted times without a fraction, by seconds since the epoch."""

    def __missing__(self, seconds: int) -> bytes:
        if len(self) >= _MEMO_LIMIT:
            self.clear()
        self[seconds] = value = rfc3339(seconds, 0)
        return value


def number(field: bytes) -> int:
    """Parse a numeric field: octal, padded with spaces or NULs (empty is 0), or base-256 (GNU), signed, up to 63 bits.

    Raises `BadHeader` for anything else.
    """
    if field and field[0] & 0x80:
        return _base256(field)
    digits = text(field.strip(b" \0"))
    if not digits:
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise BadHeader(f"not an octal number: {field!r}")
    return int(digits, 8)


def _base256(field: bytes) -> int:
    negative = bool(field[0] & 0x40)
    inverse = 0xFF if negative else 0
    value = int.from_bytes(bytes(byte ^ inverse for byte in field), "big")
    value &= (1 << (8 * len(field) - 1)) - 1
    if value > _INT64_MAX:
        raise BadHeader(f"a number of more than 63 bits: {field!r}")
    return ~value if negative else value


def text(field: bytes) -> bytes:
    """Parse a string field: everything before the first NUL."""
    end = field.find(0)
    return field if end < 0 else field[:end]


def rfc3339(seconds: int, nanoseconds: int) -> bytes:
    """Format a UTC time without trailing zeros in the fraction; as in Go, empty outside of the years 0 to 9999."""
    seconds, nanoseconds = seconds + nanoseconds // 10**9, nanoseconds % 10**9
    if not _YEAR_ZERO <= seconds < _YEAR_10000:
        return b""
    shift = 400 if seconds < _YEAR_ONE else 0
    moment = _EPOCH + timedelta(seconds=seconds + (_400_YEARS if shift else 0))
    fraction = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    return f"{moment.year - shift:04}-{moment:%m-%dT%H:%M:%S}{fraction}Z".encode()


def parse_header(block: bytes | bytearray | memoryview, at: int = 0) -> Header:
    """Parse the header block at an offset; raise `BadHeader` if its checksum or a field is invalid."""
    fields = LAYOUT.unpack_from(block, at)
    (name, mode, uid, gid, size, mtime, checksum, flag, link, magic, uname, gname, major, minor, prefix, trailer) = (
        fields
    )
    check_sum(block, at, checksum)
    common = text(name), flag, number(size), text(link), number(mode), number(uid), number(gid)
    if magic[:6] == b"ustar\0":
        prefix = prefix[:131] if trailer == b"tar\0" else prefix
        if trailer == b"tar\0":
            number(bytes(block[at + 476 : at + 488]))
            number(bytes(block[at + 488 : at + 500]))
    elif magic == b"ustar  \0":
        prefix = _gnu_prefix(prefix)
    else:
        return Header(*common, b"", b"", number(mtime), 0, 0)
    before = text(prefix)
    full = b"%b/%b" % (before, common[0]) if before else common[0]
    return Header(full, *common[1:], text(uname), text(gname), number(mtime), number(major), number(minor))


def _gnu_prefix(region: bytes) -> bytes:
    # GNU stores two times where ustar has the prefix. Old versions of Go's writer put a prefix there, so Go's reader
    # treats the region as a prefix if the times are not valid numbers.
    try:
        for part in (region[:12], region[12:24]):
            if part[0]:
                number(part)
    except BadHeader:
        before = text(region)
        return before if before.isascii() else b""
    return b""


def check_sum(block: bytes | bytearray | memoryview, at: int, stored: bytes) -> None:
    """Verify a header's checksum, unsigned or, as in old tars, signed; raise `BadHeader` if it is wrong."""
    if stored[0] & 0x80:
        raise BadHeader("its checksum is not octal")
    expected = number(stored)
    view = memoryview(block)[at : at + BLOCK]
    # The low half of Adler-32 is 1 plus the sum of the bytes, modulo 65521, which the sum of 256 bytes cannot reach.
    total = (zlib.adler32(view[:256]) & 0xFFFF) + (zlib.adler32(view[256:]) & 0xFFFF) - 2
    if total - sum(stored) + 256 == expected:
        return
    signed = total - 256 * sum(1 for byte in view if byte > 127)
    own = sum(byte - 256 if byte > 127 else byte for byte in stored)
    if signed - own + 256 != expected:
        raise BadHeader("its checksum is wrong")


def parse_pax(data: bytes) -> PaxRecords:
    """Parse the records of an extended header (POSIX.1-2001, "pax Extended Header"), sorted by key.

    The last record of a key wins. Raises `BadHeader` for an invalid record.
    """
    records: dict[bytes, bytes] = {}
    position, end = 0, len(data)
    while position < end:
        space = data.find(b" ", position, position + 24)
        digits = data[position:space] if space >= 0 else b""
        if not _DECIMAL.match(digits):
            raise BadHeader("a PAX record without a length")
        stop = position + int(digits)
        if int(digits) < 5 or stop > end or stop <= space + 1 or data[stop - 1] != 0x0A:
            raise BadHeader("a PAX record whose length is wrong")
        key, equals, value = data[space + 1 : stop - 1].partition(b"=")
        if not equals or not key or 0 in (value if key in _STRING_KEYS else key):
            raise BadHeader("a PAX record without a key, or with a NUL in it")
        records[key] = value
        position = stop
    return tuple(sorted(records.items()))


def pax_integer(value: bytes) -> int:
    """Parse a signed decimal integer of 64 bits; raise `BadHeader` if it is invalid."""
    if not _DECIMAL.match(value) or len(value) > 20 or not -_INT64_MAX - 1 <= int(value) <= _INT64_MAX:
        raise BadHeader(f"not a number in a PAX record: {value[:40]!r}")
    return int(value)


def pax_time(value: bytes) -> bytes:
    """Convert a time in seconds with a fraction to RFC 3339; digits beyond nanoseconds are truncated.

    Raises `BadHeader` if it is invalid.
    """
    whole, _, fraction = value.partition(b".")
    seconds = pax_integer(whole)
    if not _DIGITS.match(fraction):
        raise BadHeader(f"not a time in a PAX record: {value[:40]!r}")
    nanoseconds = int(fraction[:9].ljust(9, b"0")) if fraction else 0
    return rfc3339(seconds, -nanoseconds if whole.startswith(b"-") else nanoseconds)
