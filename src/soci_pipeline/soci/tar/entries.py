"""The table of contents of a layer: one entry for every tar header, in tar order, without normalisation.

Before it serves a file, the snapshotter parses the tar header again and requires the same bytes. So names are
unchanged, duplicates are kept, and PAX records are raw.
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
    """One tar entry as stored in a zTOC; strings are raw bytes.

    ``offset`` is that of the first data byte in the uncompressed tar; ``offset`` and ``size`` are in bytes. ``uid`` and
    ``gid`` are 32 bits wide. ``mod_time`` is RFC 3339 in UTC, empty outside of the years 0 to 9999. ``pax`` is sorted
    by key.
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
        """Whether a runtime needs extended attributes for this entry; overlayfs stores opaque directories as one."""
        if self.name.endswith(OPAQUE_WHITEOUT):
            return True
        return bool(self.pax) and any(key.startswith(XATTR_PREFIX) for key, _ in self.pax)
