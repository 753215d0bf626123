"""A lock that several processes share through a file; the kernel releases it when its holder dies."""

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
    """Hold the exclusive lock of a folder, which is made when missing; waits for another holder and says so.

    Raises `BlockingIOError` where another one holds it and ``wait`` is false.
    The holder may remove the folder: whoever waited for it then locks the one that takes its place.
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
    """Remove a folder whose lock one holds, the lock last: nobody has the folder before all in it is gone."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink(missing_ok=True)
    (folder / _LOCK).unlink(missing_ok=True)
    # Another one may have it by now, or something could not be removed.
    with contextlib.suppress(OSError):
        folder.rmdir()


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
