"""The lock that says that a process serves a folder, where another has it and where the disk knows no locks."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from soci_pipeline.errors import StackError
from soci_pipeline.registry.server.folder_lock import FolderLock


def test_a_folder_is_free_again_once_its_lock_is_released(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(StackError, match=f"{tmp_path} is already served by another registry"):
        FolderLock(tmp_path)
    lock.release()
    FolderLock(tmp_path).release()


def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(_handle: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(StackError, match=f"cannot lock {tmp_path}: No locks available") as caught:
        FolderLock(tmp_path)
    assert caught.value.advice == "Use a local disk."
    assert set(Path("/proc/self/fd").iterdir()) == before
