"""The table of contents of a layer: one record for every tar header, in tar order, nothing normalised.

The snapshotter parses the tar header again before it serves a file and wants the same bytes, so names stay as they
are, duplicates stay, and PAX records are kept raw.
"""

from typing import Final, NamedTuple

from soci_pipeline.archive.tar_headers import PaxRecords

REGULAR: Final = b"reg"
HARDLINK: Final = b"hardlink"
SYMLINK: Final = b"symlink"
DIRECTORY: Final = b"dir"
CHARACTER: Final = b"char"
BLOCK: Final = b"block"
FIFO: Final = b"fifo"

KINDS: Final = frozenset({REGULAR, HARDLINK, SYMLINK, DIRECTORY, CHARACTER, BLOCK, FIFO})

XATTR_PREFIX: Final = b"SCHILY.xattr."
WHITEOUT_PREFIX: Final = b".wh."
OPAQUE_WHITEOUT: Final = b".wh..wh..opq"


class Entry(NamedTuple):
    """One tar entry as the zTOC has it; strings are raw bytes.

    ``offset`` and ``size`` are bytes in the uncompressed tar, ``offset`` that of the first data byte. ``uid`` and
    ``gid`` are 32 bits wide. ``mod_time`` is RFC 3339 in UTC, empty for a year past 9999. ``pax`` is sorted by key.
    """

    name: bytes
    kind: bytes
    offset: int
    size: int
    link: bytes
    mode: int
    uid: int
    gid: int
    uname: bytes
    gname: bytes
    mod_time: bytes
    devmajor: int
    devminor: int
    pax: PaxRecords = ()

    @property
    def needs_xattrs(self) -> bool:
        """Whether a runtime has to look at extended attributes for this entry; opaque directories become one."""
        if self.name.endswith(OPAQUE_WHITEOUT):
            return True
        return bool(self.pax) and any(key.startswith(XATTR_PREFIX) for key, _ in self.pax)
