"""File writes that never report success for data that is not on the disk.

A raw write may write fewer bytes than requested, most often on a full disk, and only its return value shows it. A file
system may also report a failed write as late as in ``fsync`` or ``close``.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from soci_pipeline import full_disk


@contextlib.contextmanager
def fresh_file(path: Path, data: Iterable[bytes], *, sync: bool = False) -> Iterator[Path]:
    """Write a temporary file in the folder of ``path``, for the caller to rename; remove it at the end otherwise."""
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
    """Wait until a file's content, or a folder's entries, are on the disk; raise `OSError` if that fails."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def full_disk_reported(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Like `full_disk.full_disk_reported`, with advice for the server's operator."""
    return full_disk.full_disk_reported(folder, advice="Free space on that disk.")
