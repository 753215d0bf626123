"""Folders for a run's temporary files that tell a later reaper whether their run is still alive.

A folder is locked by its run for as long as it lives. The kernel drops the lock when the process dies, whatever killed
it, so no process ids are compared and none can be mistaken.
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
    """A new folder in ``parent`` (default: the system's temporary folder), removed when the block is left.

    ``before_removal`` may take out what must stay; if it raises, the folder is kept.
    """
    where = Path(tempfile.gettempdir()) if parent is None else parent
    where.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-", dir=where))
    # The lock is never seen without its holder: it gets its name once it is held, and is let go when all is removed.
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
    """Whether the run of a working folder is gone; its lock is held meanwhile, so that two reapers do not meet."""
    try:
        lock = os.open(path / LOCK, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        # Killed between the making of the folder and of its lock, or being made right now: age decides.
        yield _older_than(path, seconds=60)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        # Where its run has removed the lock while it was opened here, there is nothing left to see to.
        yield os.fstat(lock).st_nlink > 0
    finally:
        os.close(lock)


def _older_than(path: Path, *, seconds: float) -> bool:
    import time

    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > seconds
    return False
