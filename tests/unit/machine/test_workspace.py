"""Run folders: removed at the end, removed by the next run after a kill, with the processes; live ones untouched."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.machine.workspace import RUN_VARIABLE, reap, workspace
from soci_pipeline.publish.leftovers import REMOVERS
from tests.support.processes import is_alive

# A run as a worker would have it: a folder with a file in it, and a program that was started from it.
RUN = """
import subprocess, sys, tempfile, time
from pathlib import Path
from soci_pipeline.machine.workspace import workspace
with workspace(Path(sys.argv[1]), "other", {}) as folder:
    (folder / "built").write_text("x")
    kept = tempfile.mkdtemp()
    subprocess.run(["mktemp"], check=True, stdout=subprocess.DEVNULL)
    child = subprocess.Popen(["sleep", "300"], start_new_session=True, stdout=subprocess.DEVNULL)
    print(folder, child.pid, flush=True)
    time.sleep(300)
"""


def _start(root: Path) -> tuple[subprocess.Popen[str], Path, int]:
    run = subprocess.Popen([sys.executable, "-c", RUN, str(root)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    folder, child = run.stdout.readline().split()
    return run, Path(folder), int(child)


def test_a_run_has_an_empty_private_folder_that_its_programs_know_and_that_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "work"
    with workspace(root, "linux-amd64-1", REMOVERS) as folder:
        assert "linux-amd64-1" in folder.name
        assert os.environ[RUN_VARIABLE] == str(folder)
        assert root.stat().st_mode & 0o777 == 0o700
        (folder / "file").write_text("x")
    assert not folder.exists()
    assert RUN_VARIABLE not in os.environ


def test_a_folder_goes_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), workspace(tmp_path, "run", REMOVERS) as folder:
        raise RuntimeError
    assert not folder.exists()


def test_what_a_killed_run_left_goes_at_the_next_start_with_its_programs(tmp_path: Path) -> None:
    run, folder, child = _start(tmp_path)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert folder.exists()
    assert is_alive(child)
    with workspace(tmp_path, "next", REMOVERS):
        assert not folder.exists()
        assert not is_alive(child)


def test_temporary_files_of_a_run_and_of_its_programs_lie_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    run, folder, child = _start(tmp_path / "work")
    run.kill()
    run.communicate()
    os.kill(child, signal.SIGKILL)
    assert list(elsewhere.iterdir()) == []
    assert len(list((folder / "tmp").iterdir())) == 2


def test_a_living_run_keeps_its_folder_and_its_programs(tmp_path: Path) -> None:
    run, folder, child = _start(tmp_path)
    try:
        assert reap(tmp_path, REMOVERS) == ()
        assert (folder / "built").exists()
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)
        run.kill()
        run.communicate()


def test_a_killed_run_that_is_not_collected_yet_counts_as_gone(tmp_path: Path) -> None:
    run, folder, child = _start(tmp_path)
    run.kill()
    # A zombie holds no lock; nobody has waited for it.
    time.sleep(0.3)
    assert reap(tmp_path, REMOVERS) == (folder,)
    assert not is_alive(child)
    run.communicate()


def test_nothing_is_reaped_where_nothing_is(tmp_path: Path) -> None:
    assert reap(tmp_path / "nowhere", REMOVERS) == ()


@pytest.mark.parametrize("name", ["", "../x", "a/b", "UPPER", "-x"])
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput), workspace(tmp_path, name, REMOVERS):
        pass
