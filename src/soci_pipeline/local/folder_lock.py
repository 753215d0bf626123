"""A lock that several processes share through a file; the kernel releases it when its holder dies."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from soci_pipeline.process import logger


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the exclusive lock of a folder, which is made when missing; waits for another holder and says so."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger().info("waiting for another process that works in %s", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
