"""Locate the files of an untrusted tar archive.

Nothing is unpacked: an archive is scanned into a table of names and byte ranges. Names and links that lead out of the
archive are rejected, links are only followed within the table, and other entry types are rejected. Supports POSIX pax
(IEEE 1003.1, "pax Interchange Format") and GNU's long names; image archives need no sparse files, devices or pipes.
"""

from dataclasses import dataclass, field
from typing import BinaryIO

from soci_pipeline.archive.tar_headers import (
    BLOCK,
    ZERO_BLOCK,
    BadHeader,
    Header,
    parse_header,
    parse_pax,
    pax_integer,
    text,
)
from soci_pipeline.errors import DamagedContent, HostileArchive

MAX_MEMBERS = 100_000
MAX_EXTENSION_BYTES = 1 << 20
MAX_NAME_BYTES = 4096
_MAX_LINKS = 16

_EXTENSIONS = b"x", b"g", b"L", b"K"
_REGULAR = b"\0", b"0"
_DIRECTORY = b"5"
_LINKS = {b"1": "hard link", b"2": "symbolic link"}
_REFUSED = {b"3": "character device", b"4": "block device", b"6": "pipe"}


@dataclass(frozen=True, slots=True)
class Span:
    """The byte range of one file in the archive."""

    offset: int
    size: int


@dataclass(slots=True)
class TarTable:
    """The regular files of an archive by normalised name, and the links between them."""

    files: dict[str, Span] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)

    def find(self, name: str) -> Span | None:
        """Find a file by name, following links within the archive; return None if it does not exist.

        Raises `HostileArchive` for a loop of links.
        """
        for _ in range(_MAX_LINKS):
            if name not in self.links:
                return self.files.get(name)
            name = self.links[name]
        raise HostileArchive(f"links of the archive form a loop at {name[:200]!r}")


@dataclass(slots=True)
class _Pending:
    """The fields that extension headers set for the next entry."""

    name: bytes | None = None
    link: bytes | None = None
    size: int | None = None


def read_table(archive: BinaryIO, length: int) -> TarTable:
    """Scan an archive of ``length`` bytes from its start.

    Raises `HostileArchive` for names and links that lead out of the archive, duplicates, special files, oversized
    headers and too many entries, and `DamagedContent` for a truncated or corrupt archive.
    """
    table, pending, position, members = TarTable(), _Pending(), 0, 0
    while (block := _exactly(archive, position, BLOCK)) != ZERO_BLOCK:
        members += 1
        if members > MAX_MEMBERS:
            raise HostileArchive(f"the archive has more than {MAX_MEMBERS} entries")
        header = _header(block, position)
        data, size = position + BLOCK, header.size
        if header.flag in _EXTENSIONS:
            if size > MAX_EXTENSION_BYTES:
                raise HostileArchive(f"an extension header of {size} bytes exceeds the limit of {MAX_EXTENSION_BYTES}")
            _extend(pending, header.flag, _exactly(archive, data, size))
        else:
            size = size if pending.size is None else pending.size
            if header.flag not in _REGULAR:
                size = 0
            if data + size > length:
                raise DamagedContent("the archive is cut off in the middle of a file")
            _enter(table, pending, header, Span(data, size))
            pending = _Pending()
        position = data + -(-size // BLOCK) * BLOCK
        if position >= length:
            break
    return table


def is_tar(start: bytes) -> bool:
    """Return whether the first block of a file can be a tar's: a zero block, or a header with a valid checksum."""
    if len(start) != BLOCK:
        return False
    try:
        return start == ZERO_BLOCK or bool(parse_header(start))
    except BadHeader:
        return False


def clean_name(name: str) -> str:
    """Normalise a member's name: remove ``.`` components and extra slashes.

    Raises `HostileArchive` for a name that is too long or leads out of the archive.
    """
    if len(name.encode(errors="surrogateescape")) > MAX_NAME_BYTES:
        raise HostileArchive("the archive contains a name of more than 4096 bytes")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
        raise HostileArchive(f"the archive contains an entry that points outside of it: {name[:200]!r}")
    return "/".join(parts)


def _enter(table: TarTable, pending: _Pending, header: Header, span: Span) -> None:
    kind = header.flag
    name = clean_name(_decoded(header.name if pending.name is None else pending.name))
    if kind == _DIRECTORY or (kind in _REGULAR and (pending.name or header.name).endswith(b"/")):
        table.folders.add(name)
        if name in table.files or name in table.links:
            raise HostileArchive(f"the archive has both a folder and a file {name[:200]!r}")
        return
    if not name or name in table.files or name in table.links or name in table.folders:
        raise HostileArchive(f"the archive contains two entries with the same name: {name[:200]!r}")
    if kind in _REGULAR:
        table.files[name] = span
    elif kind in _LINKS:
        target = header.link if pending.link is None else pending.link
        table.links[name] = _link_target(name, _decoded(target), _LINKS[kind])
    else:
        what = _REFUSED.get(kind, f"entry of type {kind!r}")
        raise HostileArchive(f"the archive has a {what}, which no image archive needs: {name[:200]!r}")


def _link_target(name: str, target: str, what: str) -> str:
    """Resolve a link's target to a name in the archive: a symbolic link is relative to its folder, a hard link is not.

    Raises `HostileArchive` for a target that is too long or leads out of the archive.
    """
    if what == "hard link":
        return clean_name(target)
    if len(target) > MAX_NAME_BYTES:
        raise HostileArchive(f"the archive has a {what} to a name of more than {MAX_NAME_BYTES} bytes: {name[:200]!r}")
    if target.startswith("/") or "\0" in target or "\\" in target:
        raise HostileArchive(f"the archive has a {what} that points outside of it: {name[:200]!r}")
    parts = name.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            if not parts:
                raise HostileArchive(f"the archive has a {what} that points outside of it: {name[:200]!r}")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _extend(pending: _Pending, kind: bytes, data: bytes) -> None:
    if kind == b"L":
        pending.name = text(data)
    elif kind == b"K":
        pending.link = text(data)
    else:
        records = _pax_records(data)
        if kind == b"g":
            # Such a global record would affect all following entries; times and comments are harmless.
            if records.keys() & {b"path", b"linkpath", b"size"}:
                raise HostileArchive("the archive renames all its entries through one global header")
            return
        if any(key.startswith(b"GNU.sparse.") for key in records):
            raise HostileArchive("the archive has a sparse file, which no image archive needs")
        pending.name = records.get(b"path", pending.name)
        pending.link = records.get(b"linkpath", pending.link)
        if b"size" in records:
            pending.size = _size(records[b"size"])


def _header(block: bytes, position: int) -> Header:
    try:
        header = parse_header(block)
    except BadHeader as error:
        raise DamagedContent(f"the header at byte {position} of the archive is damaged: {error}") from error
    if header.size < 0:
        raise DamagedContent(f"the header at byte {position} of the archive has a negative size")
    return header


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    try:
        # Some writers pad the records with NULs and include them in the size.
        return dict(parse_pax(data.rstrip(b"\0")))
    except BadHeader as error:
        raise DamagedContent(f"an extended header of the archive is damaged: {error}") from error


def _size(value: bytes) -> int:
    try:
        size = pax_integer(value)
    except BadHeader as error:
        raise DamagedContent(f"an extended header of the archive is damaged: {error}") from error
    if size < 0:
        raise DamagedContent("an extended header of the archive has a negative size")
    return size


def _decoded(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def _exactly(archive: BinaryIO, position: int, size: int) -> bytes:
    archive.seek(position)
    data = archive.read(size)
    if len(data) != size:
        raise DamagedContent("the archive is cut off in the middle of a header")
    return data
