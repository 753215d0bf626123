"""What a stack leaves is taken away at its end, or by the next one; what is foreign is left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local_stack.footprint import VARIABLE, footprint, marked_processes


def _sleeper(mark: str | None) -> subprocess.Popen[bytes]:
    env = dict(os.environ) | ({VARIABLE: mark} if mark else {})
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=env, start_new_session=True)


def test_processes_with_the_mark_end_with_the_block_and_others_live_on(tmp_path: Path) -> None:
    other = _sleeper(None)
    try:
        with footprint(tmp_path) as traces:
            mine = _sleeper(traces.mark)
        assert mine.wait(5) == -signal.SIGTERM
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_stack.footprint._GRACE_SECONDS", 0.3)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with footprint(tmp_path) as traces:
        env = dict(os.environ) | traces.environment
        with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE) as stubborn:
            assert stubborn.stdout is not None
            stubborn.stdout.readline()
            traces.undo()
            assert stubborn.wait(5) == -signal.SIGKILL


def test_folders_are_removed_in_the_reverse_order(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    with footprint(tmp_path / "stack") as traces:
        traces.hold_mount_point(outer)
        traces.record_folder(inner)
        inner.mkdir()
        (inner / "file").write_text("x")
    assert not outer.exists()


def test_a_mount_point_that_is_not_empty_at_the_end_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    with footprint(tmp_path / "stack") as traces:
        traces.hold_mount_point(folder)
        (folder / "somebody-elses").write_text("x")
    assert folder.exists()


def test_an_empty_folder_of_the_machine_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "of the machine"
    folder.mkdir()
    with footprint(tmp_path / "stack") as traces:
        traces.hold_mount_point(folder)
    assert folder.exists()


def test_the_last_of_several_stacks_removes_their_mount_point(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    with footprint(tmp_path / "second") as second:
        with footprint(tmp_path / "first") as first:
            first.hold_mount_point(folder)
            second.hold_mount_point(folder)
        assert folder.exists()
    assert not folder.exists()


def test_what_a_killed_stack_left_is_taken_away_by_the_next_start(tmp_path: Path) -> None:
    left = tmp_path / "left"
    code = (
        "import os, signal, subprocess, sys\n"
        "from pathlib import Path\n"
        "from local_stack.footprint import footprint\n"
        f"with footprint(Path({str(tmp_path / 'stack')!r})) as traces:\n"
        f"    traces.record_folder(Path({str(left)!r}))\n"
        f"    Path({str(left)!r}).mkdir()\n"
        "    env = dict(os.environ) | traces.environment\n"
        "    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], env=env, start_new_session=True,\n"
        "                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    mark = json.loads((tmp_path / "stack" / "footprint.json").read_text())["mark"]
    assert left.exists()
    assert any(marked_processes(mark))
    with footprint(tmp_path / "stack") as traces:
        assert traces.mark != mark
        assert not left.exists()
        assert not any(marked_processes(mark))
    assert not (tmp_path / "stack" / "footprint.json").exists()


def test_a_second_stack_in_the_same_folder_waits_for_the_first(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from local_stack.footprint import footprint\n"
        f"with footprint(Path({str(tmp_path)!r})):\n"
        "    print('in', flush=True)\n"
    )
    with footprint(tmp_path):
        second = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        time.sleep(0.5)
        assert second.poll() is None
    with second:
        assert second.communicate(timeout=30)[0] == b"in\n"


def test_a_damaged_record_does_not_keep_the_next_stack_from_starting(tmp_path: Path) -> None:
    (tmp_path / "footprint.json").write_text("{")
    with footprint(tmp_path) as traces:
        assert traces.environment == {VARIABLE: traces.mark}
