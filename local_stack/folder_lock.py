"""A lock that processes share through a file; the kernel releases it when its holder dies."""

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from soci_pipeline.log import logger

_LOCK = ".lock"


@contextlib.contextmanager
def folder_lock(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the exclusive lock of a folder, which is created if missing; log and wait if another process holds it.

    Raises `BlockingIOError` if another process holds it and ``wait`` is false. The holder may remove the folder:
    waiting processes then lock the one that replaces it.
    """
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / _LOCK).open("w")
        except FileNotFoundError:
            continue
        except FileExistsError:
            if _is_in_the_way(folder):
                raise
            continue
        with file:
            _take(file, folder, wait=wait)
            if _is_still_there(file, folder / _LOCK):
                yield
                return


def remove_held(folder: Path) -> None:
    """Remove a folder whose lock the caller holds, the lock last: others get the folder only once it is empty."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink(missing_ok=True)
    (folder / _LOCK).unlink(missing_ok=True)
    # Another process may have it by now, or something could not be removed.
    with contextlib.suppress(OSError):
        folder.rmdir()


def _is_in_the_way(path: Path) -> bool:
    """Whether the path is not a folder; a folder that was removed in the meantime does not count."""
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
