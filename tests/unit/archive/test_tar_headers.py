"""Header blocks and PAX records, field by field; the expectations are those of Go's archive/tar."""

import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soci_pipeline.archive.tar_headers import (
    BLOCK,
    BadHeader,
    number,
    parse_header,
    parse_pax,
    pax_integer,
    pax_time,
    rfc3339,
    text,
)


def block(**fields: object) -> bytearray:
    info = tarfile.TarInfo("name")
    for key, value in fields.items():
        setattr(info, key, value)
    return bytearray(info.tobuf(tarfile.USTAR_FORMAT)[:BLOCK])


def summed(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644),
        (b"   644 \0", 0o644),
        (b"\0\0\0\0\0\0\0\0", 0),
        (b"        ", 0),
        (b"12\x003456\0", 0o12),
        (b"\x80\x00\x00\x00\x00\x00\x00\x07", 7),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", -1),
        (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
        (b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7, (1 << 63) - 1),
    ],
)
def test_numbers_are_octal_or_base_256(field: bytes, value: int) -> None:
    assert number(field) == value


@pytest.mark.parametrize(
    "field", [b"0000648\0", b"0o644\0", b"-1\0", b"+1\0", b"1_0\0", b"1 0\0", b"\x80" + b"\xff" * 11]
)
def test_other_numbers_are_refused(field: bytes) -> None:
    with pytest.raises(BadHeader):
        number(field)


def test_a_text_ends_at_its_first_nul() -> None:
    assert text(b"abc\0def") == b"abc"
    assert text(b"abc") == b"abc"


@pytest.mark.parametrize(
    ("seconds", "nanoseconds", "expected"),
    [
        (0, 0, b"1970-01-01T00:00:00Z"),
        (1, 500_000_000, b"1970-01-01T00:00:01.5Z"),
        (-1, -500_000_000, b"1969-12-31T23:59:58.5Z"),
        (1, 1, b"1970-01-01T00:00:01.000000001Z"),
        (253402300799, 0, b"9999-12-31T23:59:59Z"),
        (253402300800, 0, b""),
        (-62135596800, 0, b"0001-01-01T00:00:00Z"),
        (-62135596801, 0, b"0000-12-31T23:59:59Z"),
        (-62167219200, 0, b"0000-01-01T00:00:00Z"),
        (-62167219201, 0, b""),
        (1 << 62, 0, b""),
    ],
)
def test_times_are_utc_without_trailing_zeros(seconds: int, nanoseconds: int, expected: bytes) -> None:
    assert rfc3339(seconds, nanoseconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"1.5", b"1970-01-01T00:00:01.5Z"),
        (b"-0.5", b"1969-12-31T23:59:59.5Z"),
        (b"1.1234567899", b"1970-01-01T00:00:01.123456789Z"),
        (b"1.", b"1970-01-01T00:00:01Z"),
        (b"+7", b"1970-01-01T00:00:07Z"),
    ],
)
def test_pax_times_may_have_a_fraction(value: bytes, expected: bytes) -> None:
    assert pax_time(value) == expected


@pytest.mark.parametrize("value", [b"", b"x", b"1.x", b"1.5.5", b"1e3", b"9" * 30, b" 1", b"1\n"])
def test_other_pax_times_are_refused(value: bytes) -> None:
    with pytest.raises(BadHeader):
        pax_time(value)


def test_pax_integers_have_64_bits() -> None:
    assert pax_integer(b"9223372036854775807") == (1 << 63) - 1
    with pytest.raises(BadHeader):
        pax_integer(b"9223372036854775808")


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    size = len(body)
    while len(str(size)) + len(body) != size:
        size = len(str(size)) + len(body)
    return str(size).encode() + body


keys = st.binary(min_size=1, max_size=20).filter(lambda key: b"=" not in key and b"\0" not in key)


@given(st.dictionaries(keys, st.binary(max_size=50).filter(lambda value: b"\0" not in value), max_size=8))
def test_pax_records_come_back_sorted(records: dict[bytes, bytes]) -> None:
    data = b"".join(record(key, value) for key, value in records.items())
    assert parse_pax(data) == tuple(sorted(records.items()))


@pytest.mark.parametrize(
    "data",
    [
        b"5\n",
        b"3 a\n",
        b"99 a=b\n",
        b"6 a=bc",
        b"7 a=bX8",
        b"6 =bc\n",
        b"6 abc\n",
        b"12345678901234567890123456789 a=b\n",
        b"-6 a=b\n",
        b"9 path=a\0\n"[:9],
        b"4 \n\n\n",
    ],
)
def test_broken_pax_records_are_refused(data: bytes) -> None:
    with pytest.raises(BadHeader):
        parse_pax(data)


def test_a_later_pax_record_wins() -> None:
    assert parse_pax(record(b"k", b"1") + record(b"k", b"2")) == ((b"k", b"2"),)


def test_a_checksum_may_be_signed() -> None:
    header = block(name="\u00e4" * 10)
    signed = sum(byte - 256 if byte > 127 else byte for byte in header[:148] + b" " * 8 + header[156:])
    header[148:156] = b"%06o\0 " % signed
    assert parse_header(bytes(header)).name == ("\u00e4" * 10).encode()


def test_a_wrong_checksum_is_refused() -> None:
    header = block()
    header[0] ^= 1
    with pytest.raises(BadHeader, match="checksum"):
        parse_header(bytes(header))


def test_a_v7_header_has_no_owner_names() -> None:
    header = block(uname="user", gname="group", devmajor=3)
    header[257:265] = bytes(8)
    parsed = parse_header(summed(header))
    assert (parsed.uname, parsed.gname, parsed.devmajor) == (b"", b"", 0)


def test_a_ustar_prefix_comes_before_the_name() -> None:
    header = block()
    header[345:348] = b"a/b"
    assert parse_header(summed(header)).name == b"a/b/name"


def test_a_star_prefix_is_shorter() -> None:
    header = block()
    header[345:500] = b"p" * 131 + b"00000000001\0" * 2
    header[508:512] = b"tar\0"
    assert parse_header(summed(header)).name == b"p" * 131 + b"/name"


def test_gnu_keeps_times_where_the_prefix_would_be() -> None:
    header = block()
    header[257:265] = b"ustar  \0"
    header[345:369] = b"00000000001\0" * 2
    assert parse_header(summed(header)).name == b"name"
    header[345:369] = b"some/folder" + bytes(13)
    assert parse_header(summed(header)).name == b"some/folder/name"
