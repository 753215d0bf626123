"""The lock of a folder, between processes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from soci_pipeline.local.folder_lock import folder_lock

WAITER = """
import sys
from pathlib import Path
from soci_pipeline.local.folder_lock import folder_lock
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
        shutil.rmtree(folder)
    with waiter:
        assert waiter.wait(30) == 0
    assert (folder / "mine").exists()


def test_an_error_in_the_block_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="of the block"), folder_lock(tmp_path):
        raise FileNotFoundError("of the block")


def test_the_lock_is_free_again_after_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with folder_lock(tmp_path / "folder"):
            pass
