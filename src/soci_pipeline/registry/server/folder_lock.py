"""File lock on a folder, held by the process that serves it."""

import fcntl
import os
import weakref
from pathlib import Path

from soci_pipeline.errors import StackError


class FolderLock:
    """An exclusive lock on a folder, released when the process ends or the last reference is gone.

    Raises `StackError` if another registry holds it or the file system does not support locks.
    """

    def __init__(self, folder: Path) -> None:
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        self.release = weakref.finalize(self, os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise StackError(
                f"{folder} is already served by another registry",
                advice="Stop that registry or use another folder: two registries would damage each other's uploads.",
            ) from error
        except OSError as error:
            self.release()
            raise StackError(f"cannot lock {folder}: {error.strerror}", advice="Use a local disk.") from error
