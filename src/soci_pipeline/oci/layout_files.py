"""Open files of an untrusted layout folder: only regular files inside the folder.

Every path is opened relative to a directory descriptor and without following links, so neither a link nor a race can
escape the folder. The path of the folder itself is chosen by the user and may contain links.
"""

import contextlib
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from soci_pipeline.errors import DamagedContent, HostileArchive, InvalidInput
from soci_pipeline.oci.digest import Digest

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_CHUNK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: if a file is replaced by a named pipe, opening it must not block.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)
_COPY = "Copy the layout with `cp -rL` if you trust what its links point to; a blob must be a regular file."

Identity = tuple[int, int, int, int]
"""Device, inode, size and modification time of a file: equal as long as the file is unchanged."""


def blob_place(digest: Digest) -> tuple[str, str, str]:
    """Return the path of a blob relative to its layout, as parts."""
    return "blobs", digest.algorithm, digest.hex


def open_file(root: Path, *parts: str) -> BinaryIO:
    """Open a regular file below ``root``; raise `FileNotFoundError`, or `HostileArchive` for any other file type."""
    with open_folder(root, *parts[:-1]) as folder:
        _check_file(folder, root, parts)
        handle = os.open(parts[-1], _FILE, dir_fd=folder)
    file = os.fdopen(handle, "rb")
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return file
    file.close()
    raise _not_regular(root, parts, "not a regular file")


def stat_file(root: Path, *parts: str) -> os.stat_result | None:
    """Stat a regular file below ``root``; return None if it is missing, raise `HostileArchive` for other file types."""
    try:
        with open_folder(root, *parts[:-1]) as folder:
            return _check_file(folder, root, parts)
    except FileNotFoundError:
        return None


def read_file(root: Path, *parts: str, limit: int) -> bytes:
    """Read a small file; raise `InvalidInput` if it is larger than ``limit`` bytes."""
    with open_file(root, *parts) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InvalidInput(f"{root.joinpath(*parts)} is larger than the limit of {limit} bytes")
    return data


def link_file(root: Path, parts: Sequence[str], target: Path) -> None:
    """Create the hard link ``target`` to a regular file below ``root``, without following links."""
    with open_folder(root, *parts[:-1]) as folder:
        _check_file(folder, root, parts)
        os.link(parts[-1], target, src_dir_fd=folder, follow_symlinks=False)


@contextlib.contextmanager
def open_folder(root: Path, *parts: str) -> Iterator[int]:
    """Yield a file descriptor of a folder below ``root``; raise `HostileArchive` if it is a link or a file."""
    handle = os.open(root, _FOLDER)
    try:
        for depth, part in enumerate(parts, start=1):
            below = _open_below(handle, root, parts[:depth], part)
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


def identity(status: os.stat_result) -> Identity:
    """Return the values that identify a file and change when its content changes."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _open_below(handle: int, root: Path, parts: Sequence[str], name: str) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=handle)
    except NotADirectoryError as error:
        mode = os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode
        raise _not_regular(root, parts, f"not a folder but {_kind(mode)}") from error


def _check_file(folder: int, root: Path, parts: Sequence[str]) -> os.stat_result:
    status = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        raise _not_regular(root, parts, f"not a regular file but {_kind(status.st_mode)}")
    return status


def _kind(mode: int) -> str:
    return next((name for matches, name in _KINDS if matches(mode)), "a device" if not stat.S_ISREG(mode) else "a file")


def _not_regular(root: Path, parts: Sequence[str], what: str) -> HostileArchive:
    return HostileArchive(f"{root.joinpath(*parts)} is {what}", advice=_COPY)


class VerifyingReader(io.BufferedIOBase):
    """Reader that hashes a blob, and raises `DamagedContent` instead of returning the last bytes if the digest differs.

    ``on_verified`` is called when the digest has been verified. Seeking is supported; each byte is hashed once.
    """

    def __init__(self, file: BinaryIO, digest: Digest, size: int, where: Path, on_verified: Callable[[], None]) -> None:
        self._file = file
        self._expected = digest
        self._size = size
        self._where = where
        self._on_verified = on_verified
        self._hash = hashlib.new(digest.algorithm)
        self._hashed = 0
        if size == 0:
            self._check()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()

    def read(self, size: int | None = -1, /) -> bytes:
        start = self._file.tell()
        data = self._file.read(-1 if size is None else size)
        end = start + len(data)
        if end > self._hashed:
            self._catch_up(start)
            self._update(memoryview(data)[self._hashed - start :])
        return data

    def close(self) -> None:
        self._file.close()
        super().close()

    def _catch_up(self, start: int) -> None:
        """Hash the bytes skipped by seeking forward."""
        while self._hashed < start:
            piece = os.pread(self._file.fileno(), min(_CHUNK, start - self._hashed), self._hashed)
            if not piece:
                return
            self._update(piece)

    def _update(self, piece: "ReadableBuffer") -> None:
        self._hash.update(piece)
        self._hashed += memoryview(piece).nbytes
        if self._hashed >= self._size:
            self._check()

    def _check(self) -> None:
        found = f"{self._expected.algorithm}:{self._hash.hexdigest()}"
        if found != self._expected:
            raise DamagedContent(f"content of {self._expected} in layout {self._where} has the digest {found}")
        self._on_verified()
