"""Writing files so that nothing counts as stored that the disk did not take.

A raw write may take fewer bytes than it was given, most often on a disk that fills up, and its return value is the only
sign of that. A file system may also report a failed write as late as in ``fsync`` or ``close``.
"""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path

from soci_pipeline.errors import DiskFull

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_all(file: FileIO, data: bytes) -> None:
    """Write all bytes at the file's position; raises `OSError` where the file does not take them all."""
    view = memoryview(data)
    while view:
        taken = file.write(view)
        if not taken:
            raise OSError(errno.EIO, "the file took no bytes", str(file.name))
        view = view[taken:]


@contextlib.contextmanager
def fresh_file(path: Path, data: Iterable[bytes], *, sync: bool = False) -> Iterator[Path]:
    """A temporary file with that content beside ``path``, to be renamed; removed at the end where it was not."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name.lstrip('.')}.")
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        fresh.chmod(0o644)
        yield fresh
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()


def sync_file(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk; raises `OSError` where that fails."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def full_disk_reported(folder: Path) -> Iterator[None]:
    """Raise `DiskFull` where a disk, a quota or a limit on file sizes is exhausted."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        cause = os.strerror(error.errno)
        raise DiskFull(f"cannot write to {folder}: {cause}", advice="Free space on that disk.") from error
