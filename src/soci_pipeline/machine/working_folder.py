"""Folders for a run's temporary files that show a later reaper whether their run is still alive.

A run locks its folder while it lives. The kernel releases the lock when the process dies, for whatever reason, so no
process ids are compared and none can be confused.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

PREFIX = "soci-pipeline-"
LOCK = ".alive"
NEW_LOCK = ".new"
BUILDER_RECORD = ".buildx-builder"
CONTAINERD_RECORD = ".containerd-namespace"


@contextlib.contextmanager
def working_folder(
    parent: Path | None = None, *, purpose: str = "run", before_removal: Callable[[Path], None] = lambda _: None
) -> Iterator[Path]:
    """Create a folder in ``parent`` (default: the system's temporary folder); remove it after the block.

    ``before_removal`` may move out what must be kept; if it raises, the folder is kept.
    """
    where = Path(tempfile.gettempdir()) if parent is None else parent
    where.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-", dir=where))
    # The lock file never exists unlocked: it gets its name once locked, and is released after everything is removed.
    with (path / NEW_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (path / NEW_LOCK).rename(path / LOCK)
        try:
            yield path
        finally:
            before_removal(path)
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def abandoned(path: Path) -> Iterator[bool]:
    """Whether the run of a working folder is gone; holds its lock meanwhile, to exclude other reapers."""
    try:
        lock = os.open(path / LOCK, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        # Killed between creating the folder and its lock, or just being created: age decides.
        yield _older_than(path, seconds=60)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        # If the run has removed the lock file while it was opened here, nothing is left to clean up.
        yield os.fstat(lock).st_nlink > 0
    finally:
        os.close(lock)


def _older_than(path: Path, *, seconds: float) -> bool:
    import time

    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > seconds
    return False
