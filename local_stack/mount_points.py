"""Folders of the machine that stacks create only to mount on them, and share.

Each stack mounts in its own namespace, so several use one folder at once. Removing it would detach the mounts of the
others: since Linux 3.18 a folder can be removed although it is a mount point in another namespace. So each stack holds
a shared lock on the folder, and only the last one removes it. The kernel releases the lock of a killed stack.
"""

import contextlib
import fcntl
import os
import stat
from pathlib import Path

_CREATED_BY_A_STACK = stat.S_ISVTX
"""The mode bit that distinguishes a stack's folder from the machine's own; it changes nothing in an empty folder."""


def hold(folder: Path) -> int:
    """Create the folder if it is missing, and return a file descriptor that holds a shared lock on it.

    Raises `OSError` if the path is not a folder or cannot be created.
    """
    while True:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            folder.chmod(0o755 | _CREATED_BY_A_STACK)
        try:
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            if folder.is_symlink():
                raise
            # Another stack removed it after this one found it.
            continue
        fcntl.flock(held, fcntl.LOCK_SH)
        if _is_at(held, folder):
            return held
        os.close(held)


def remove_if_unused(folder: Path) -> None:
    """Remove the folder if a stack created it, none holds it any more, and it is empty."""
    with contextlib.suppress(OSError):
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(held).st_mode & _CREATED_BY_A_STACK and _is_at(held, folder):
                folder.rmdir()
        finally:
            os.close(held)


def _is_at(held: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held), folder.stat())
    except FileNotFoundError:
        return False
