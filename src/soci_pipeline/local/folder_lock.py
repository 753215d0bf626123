"""A lock that several processes share through a file; the kernel releases it when its holder dies."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from soci_pipeline.process import logger


@contextlib.contextmanager
def folder_lock(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the exclusive lock of a folder, which is made when missing; waits for another holder and says so.

    Raises `BlockingIOError` where another one holds it and ``wait`` is false.
    The holder may remove the folder: whoever waited for it then locks the one that takes its place.
    """
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / ".lock").open("w")
        except FileNotFoundError:
            continue
        except FileExistsError:
            if _is_in_the_way(folder):
                raise
            continue
        with file:
            _take(file, folder, wait=wait)
            if _is_still_there(file, folder / ".lock"):
                yield
                return


def _is_in_the_way(path: Path) -> bool:
    """Whether it is no folder; one that was removed just after it was found is not there now, or is again."""
    try:
        return not stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _take(file: TextIO, folder: Path, *, wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise
        logger().info("waiting for another process that works in %s", folder)
        fcntl.flock(file, fcntl.LOCK_EX)


def _is_still_there(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
