"""The lock of a folder, between processes."""

import contextlib
import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from local_stack.folder_lock import folder_lock, remove_held
from tests.support.logs import logging_to

WAITER = """
import sys
from pathlib import Path
from local_stack.folder_lock import folder_lock, remove_held
print("waiting", flush=True)
with folder_lock(Path(sys.argv[1])):
    (Path(sys.argv[1]) / "mine").touch()
"""


def test_whoever_waits_for_a_folder_that_is_removed_locks_the_one_in_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with folder_lock(folder):
        waiter = subprocess.Popen([sys.executable, "-c", WAITER, str(folder)], stdout=subprocess.PIPE)
        assert waiter.stdout is not None
        waiter.stdout.readline()
        # Not rmtree: the waiter may create its lock file between the last unlink and the rmdir, which is allowed.
        remove_held(folder)
    with waiter:
        assert waiter.wait(30) == 0
    assert (folder / "mine").exists()


HOLDER = """
import shutil, sys
from pathlib import Path
from local_stack.folder_lock import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
    if sys.argv[2] == "remove":
        shutil.rmtree(sys.argv[1])
"""


class _Release(logging.Handler):
    """Lets the holder go on as soon as somebody says that he waits."""

    def __init__(self, holder: "subprocess.Popen[bytes]") -> None:
        super().__init__()
        self.holder = holder
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())
        assert self.holder.stdin is not None
        self.holder.stdin.write(b"\n")
        self.holder.stdin.flush()


@pytest.mark.parametrize("end", ["keep", "remove"])
def test_whoever_waits_says_so_and_has_the_folder_when_it_is_free(tmp_path: Path, end: str) -> None:
    folder = tmp_path / "folder"
    argv = [sys.executable, "-c", HOLDER, str(folder), end]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        release = _Release(holder)
        with logging_to(release), folder_lock(folder):
            (folder / "mine").touch()
        assert holder.wait(30) == 0
    assert release.heard == [f"waiting for another process that works in {folder}"]
    assert (folder / "mine").exists()


def test_whoever_does_not_want_to_wait_is_told_that_it_is_taken(tmp_path: Path) -> None:
    with folder_lock(tmp_path, wait=False):
        with pytest.raises(BlockingIOError), folder_lock(tmp_path, wait=False):
            pass
        assert (tmp_path / ".lock").exists()
    with folder_lock(tmp_path, wait=False):
        pass


def test_a_folder_that_is_held_is_removed_with_its_lock_last(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with folder_lock(folder):
        (folder / "stack" / "deep").mkdir(parents=True)
        (folder / "file").touch()
        (folder / "link").symlink_to(tmp_path)
        (folder / "stack" / "deep").chmod(0o700)
        remove_held(folder)
    assert list(tmp_path.iterdir()) == []


def test_what_another_one_makes_in_the_place_of_a_removed_folder_stays(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with folder_lock(folder):
        remove_held(folder)
        with folder_lock(folder, wait=False):
            (folder / "mine").touch()
    assert (folder / "mine").exists()


def test_an_error_in_the_block_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="of the block"), folder_lock(tmp_path):
        raise FileNotFoundError("of the block")


def test_the_lock_is_free_again_after_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with folder_lock(tmp_path / "folder"):
            pass


def test_a_file_in_the_place_of_the_folder_is_no_reason_to_wait(tmp_path: Path) -> None:
    (tmp_path / "folder").touch()
    with pytest.raises(FileExistsError), folder_lock(tmp_path / "folder"):
        pytest.fail("nothing was locked")


def test_a_folder_that_comes_and_goes_is_locked_in_the_end(tmp_path: Path) -> None:
    folder, over = tmp_path / "folder", threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                folder.mkdir()
                folder.rmdir()

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(300):
            with folder_lock(folder):
                pass
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        over.set()
        other.join()
