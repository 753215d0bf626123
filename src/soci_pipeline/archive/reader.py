"""Read the files of an untrusted image archive, a tar or an unpacked folder, without unpacking it."""

import contextlib
import gzip
import io
import os
import stat
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from soci_pipeline.archive.tar_headers import BLOCK
from soci_pipeline.archive.tar_members import Span, clean_name, is_tar, read_table
from soci_pipeline.errors import DamagedContent, HostileArchive, InvalidInput
from soci_pipeline.full_disk import full_disk_reported
from soci_pipeline.oci.layout_files import open_file, stat_file
from soci_pipeline.oci.media_types import GZIP_MAGIC, ZSTD_MAGIC

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK = 1 << 20

_OTHER_COMPRESSIONS = {ZSTD_MAGIC: "zstd", b"\xfd7zX": "xz", b"BZh": "bzip2"}


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Limits for inflated content, which reject decompression bombs.

    ``inflated_bytes`` limits the size of an archive or layer. Beyond ``free_bytes``, ``ratio`` limits the compression
    ratio: gzip can reach 1032, real layers stay below 20.
    """

    inflated_bytes: int = 64 << 30
    free_bytes: int = 64 << 20
    ratio: int = 200

    def check(self, consumed: int, produced: int, *, what: str) -> None:
        """Raise `HostileArchive` if inflating ``consumed`` bytes to ``produced`` bytes exceeds a limit."""
        if produced > self.inflated_bytes:
            raise HostileArchive(f"{what} inflates to more than {self.inflated_bytes} bytes")
        if produced > self.free_bytes and produced > self.ratio * consumed:
            raise HostileArchive(
                f"{what} inflates to more than {self.ratio} times its size, as only a decompression bomb does"
            )


class Archive(Protocol):
    """The files of an archive by name. Names are relative and use ``/``; links are followed within the archive."""

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, or None if it does not exist."""

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; raise `DamagedContent` if it does not exist."""


@contextlib.contextmanager
def open_archive(path: Path, *, scratch: Path | None = None, limits: ArchiveLimits | None = None) -> Iterator[Archive]:
    """Open a folder, a tar or a gzipped tar.

    A gzipped tar is inflated into an unnamed file in ``scratch`` (default: the system's temporary folder). Raises
    `InvalidInput` for any other path, `HostileArchive` or `DamagedContent` for an invalid archive.
    """
    if path.is_dir():
        yield FolderArchive(path)
        return
    if path.exists() and not path.is_file():
        # Opening a named pipe would block until it has a writer.
        raise InvalidInput(f"{path} is neither a file nor a folder")
    try:
        file: BinaryIO = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"the image archive {path} cannot be read: {error.strerror}") from error
    with contextlib.ExitStack() as stack:
        stack.enter_context(file)
        start = file.read(4)
        for magic, name in _OTHER_COMPRESSIONS.items():
            if start.startswith(magic):
                raise InvalidInput(f"{path} is compressed with {name}", advice="Use a plain or gzipped tar.")
        if start.startswith(GZIP_MAGIC):
            file = stack.enter_context(_inflated(file, scratch, limits or ArchiveLimits()))
        file.seek(0)
        if not is_tar(file.read(BLOCK)):
            raise InvalidInput(f"{path} is not a tar archive", advice="Use an OCI layout as a folder or a tar archive.")
        try:
            archive = TarArchive(file)
        except (DamagedContent, HostileArchive) as error:
            raise type(error)(f"{path}: {error.reason}", advice=error.advice) from error
        yield archive


class FolderArchive:
    """An unpacked archive. Links may point anywhere inside the folder; others raise `HostileArchive`."""

    def __init__(self, path: Path) -> None:
        self._root = path.resolve()

    def _find(self, name: str) -> tuple[str, ...] | None:
        """Resolve links and return the path of a regular file relative to the folder, as parts; None if missing."""
        try:
            path = (self._root / clean_name(name)).resolve()
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, RuntimeError) as error:
            raise HostileArchive(f"the entry {name[:200]!r} of the archive cannot be followed: {error}") from error
        if not path.is_relative_to(self._root):
            raise HostileArchive(f"the archive contains a link that points outside of it: {name[:200]!r}")
        if not stat.S_ISREG(mode):
            return None
        return path.relative_to(self._root).parts

    def size(self, name: str) -> int | None:
        parts = self._find(name)
        status = None if parts is None else stat_file(self._root, *parts)
        return None if status is None else status.st_size

    def open(self, name: str) -> BinaryIO:
        parts = self._find(name)
        if parts is None:
            raise DamagedContent(f"the archive does not contain {name[:200]!r}")
        # Links are already resolved; `open_file` rejects a link that has replaced a file since then.
        return open_file(self._root, *parts)


class TarArchive:
    """A tar that is read in place, by the table of its members. The caller closes the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._table = read_table(file, os.fstat(file.fileno()).st_size)

    def size(self, name: str) -> int | None:
        span = self._table.find(clean_name(name))
        return None if span is None else span.size

    def open(self, name: str) -> BinaryIO:
        span = self._table.find(clean_name(name))
        if span is None:
            raise DamagedContent(f"the archive does not contain {name[:200]!r}")
        return cast("BinaryIO", io.BufferedReader(_SpanReader(self._file.fileno(), span), CHUNK))


class _SpanReader(io.RawIOBase):
    """Reads one member with `os.pread`, so that several members can be open at the same time."""

    def __init__(self, descriptor: int, span: Span) -> None:
        self._descriptor = descriptor
        self._position = span.offset
        self._end = span.offset + span.size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        data = os.pread(self._descriptor, min(len(view), self._end - self._position), self._position)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


@contextlib.contextmanager
def _inflated(file: BinaryIO, scratch: Path | None, limits: ArchiveLimits) -> Iterator[BinaryIO]:
    file.seek(0)
    where = scratch or Path(tempfile.gettempdir())
    with tempfile.TemporaryFile(dir=where) as target:
        produced = 0
        try:
            with full_disk_reported(where), gzip.GzipFile(fileobj=file) as source:
                while chunk := source.read(CHUNK):
                    produced += len(chunk)
                    limits.check(file.tell(), produced, what="the gzipped archive")
                    target.write(chunk)
                target.flush()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DamagedContent(f"the gzipped archive is damaged: {error}") from error
        yield cast("BinaryIO", target)
