"""Writing files so that nothing counts as stored that the disk did not take.

A raw write may take fewer bytes than it was given, most often on a disk that fills up, and its return value is the only
sign of that. A file system may also report a failed write as late as in ``fsync`` or ``close``.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from soci_pipeline import full_disk


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


def full_disk_reported(folder: Path) -> contextlib.AbstractContextManager[None]:
    """`full_disk.full_disk_reported`, with advice for whoever runs the server."""
    return full_disk.full_disk_reported(folder, advice="Free space on that disk.")
