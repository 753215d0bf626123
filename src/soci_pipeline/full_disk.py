"""Distinguish a full disk from other failures: a disk, quota or file size limit is exhausted."""

import contextlib
import errno
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from soci_pipeline.errors import DiskFull

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextlib.contextmanager
def full_disk_reported(folder: Path, *, step: str = "", advice: str | None = None) -> Iterator[None]:
    """Raise `DiskFull` if the block fails to write to ``folder`` for lack of space; ``step`` says when."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        when = f" {step}" if step else ""
        if error.errno == errno.ENOSPC:
            raise DiskFull(f"no space left on the disk of {folder}{when}", advice=advice) from error
        raise DiskFull(f"cannot write to {folder}{when}: {os.strerror(error.errno)}", advice=advice) from error


def write_all(file: FileIO, data: bytes | bytearray | memoryview) -> None:
    """Write all bytes at the file's position; raise `OSError` if the file does not take them all."""
    view = memoryview(data)
    while view:
        taken = file.write(view)
        if not taken:
            raise OSError(errno.EIO, "nothing could be written to the file", str(file.name))
        view = view[taken:]
