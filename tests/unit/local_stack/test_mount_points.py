"""Mount points that several stacks create, use and remove at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local_stack.mount_points import hold, remove_if_unused

# Each process asserts that the folder is there for as long as it holds it.
_COMES_AND_GOES = """
import os, sys
from pathlib import Path
from local_stack.mount_points import hold, remove_if_unused
folder = Path(sys.argv[1])
for _ in range(300):
    held = hold(folder)
    for _ in range(5):
        assert os.path.samestat(os.fstat(held), folder.stat())
    os.close(held)
    remove_if_unused(folder)
"""


def test_a_mount_point_stays_while_it_is_held_however_many_stacks_come_and_go(tmp_path: Path) -> None:
    folder = tmp_path / "parent" / "shared"
    command = [sys.executable, "-c", _COMES_AND_GOES, str(folder)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [("", 0)] * 4
    remove_if_unused(folder)
    assert not folder.exists()


def test_a_killed_stack_holds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom local_stack.mount_points import hold\n"
        "hold(Path(sys.argv[1]))\nprint(flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as stack:
        assert stack.stdout is not None
        stack.stdout.readline()
        remove_if_unused(folder)
        assert folder.exists()
        stack.send_signal(signal.SIGKILL)
    remove_if_unused(folder)
    assert not folder.exists()


def test_a_folder_of_the_machine_is_used_and_kept_with_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o710)
    os.close(hold(folder))
    remove_if_unused(folder)
    assert folder.stat().st_mode & 0o7777 == 0o710


def test_what_is_not_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        hold(tmp_path / "file")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OSError, match="link"):
        hold(tmp_path / "link")
