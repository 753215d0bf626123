import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from soci_pipeline.machine.reaper import reap
from soci_pipeline.machine.working_folder import BUILDER_RECORD, CONTAINERD_RECORD, LOCK, PREFIX, working_folder
from soci_pipeline.publish.leftovers import REMOVERS
from tests.support.fake_programs import Programs


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    (tmp_path / "bin").mkdir()
    return Programs(tmp_path / "bin")


def left_over(root: Path, name: str = "left") -> Path:
    """What a killed run leaves: its folder, with a lock that nobody holds."""
    folder = root / f"{PREFIX}run-{name}"
    (folder / "built").mkdir(parents=True)
    (folder / LOCK).touch()
    (folder / "built" / "image.tar").write_bytes(b"x")
    return folder


def test_a_working_folder_goes_with_its_block_even_on_failure(tmp_path: Path) -> None:
    def fail() -> None:
        with working_folder(tmp_path) as folder:
            (folder / "x").mkdir()
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_living_run_is_not_touched(tmp_path: Path) -> None:
    with working_folder(tmp_path) as folder:
        assert reap(tmp_path, REMOVERS).folders == ()
        assert folder.is_dir()


def test_folders_that_come_and_go_are_never_taken_for_left_ones(tmp_path: Path) -> None:
    """Several runs of one worker: each looks for left-overs while others begin and end."""
    script = textwrap.dedent(f"""
        from pathlib import Path
        from soci_pipeline.machine.working_folder import working_folder
        for _ in range(100):
            with working_folder(Path({str(tmp_path)!r})) as folder:
                for number in range(30):
                    (folder / str(number)).mkdir()
                    (folder / str(number) / "file").touch()
                assert len(list(folder.iterdir())) == 31
    """)
    children = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    reaped: list[Path] = []
    while any(child.poll() is None for child in children):
        reaped += reap(tmp_path, REMOVERS).folders
    assert reaped == []
    assert [child.returncode for child in children] == [0, 0]
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from soci_pipeline.machine.working_folder import working_folder
        with working_folder(Path({str(tmp_path)!r})) as folder:
            print(folder, flush=True)
            time.sleep(300)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        folder = Path(child.stdout.readline().strip())
        assert reap(tmp_path, REMOVERS).folders == ()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert reap(tmp_path, REMOVERS).folders == (folder,)
    assert not folder.exists()


def test_folders_and_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / f"{PREFIX}file").write_text("x")
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "mine")
    (tmp_path / f"{PREFIX}fresh").mkdir()
    assert reap(tmp_path, REMOVERS).folders == ()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_folder_whose_run_was_killed_before_it_had_a_lock_goes_when_it_is_old(tmp_path: Path) -> None:
    folder = tmp_path / f"{PREFIX}old"
    folder.mkdir()
    os.utime(folder, (1, 1))
    assert reap(tmp_path, REMOVERS).folders == (folder,)


def test_the_builder_of_a_killed_run_is_removed_with_it(programs: Programs, tmp_path: Path) -> None:
    programs.add("docker", "exit 0")
    folder = left_over(tmp_path)
    (folder / "built" / BUILDER_RECORD).write_text(f"{PREFIX}abc\n")
    assert reap(tmp_path, REMOVERS, env=programs.env).removed[BUILDER_RECORD] == (f"{PREFIX}abc",)
    assert programs.calls() == [f"docker buildx rm --force {PREFIX}abc"]
    assert not folder.exists()


def test_a_builder_that_is_gone_already_is_no_obstacle(programs: Programs, tmp_path: Path) -> None:
    programs.add("docker", "echo 'ERROR: no builder \"x\" found' >&2; exit 1")
    folder = left_over(tmp_path)
    (folder / BUILDER_RECORD).write_text(f"{PREFIX}abc\n")
    reap(tmp_path, REMOVERS, env=programs.env)
    assert not folder.exists()


def test_a_folder_stays_for_the_next_attempt_while_its_engine_is_down(programs: Programs, tmp_path: Path) -> None:
    programs.add("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    folder = left_over(tmp_path)
    (folder / BUILDER_RECORD).write_text(f"{PREFIX}abc\n")
    assert reap(tmp_path, REMOVERS, env=programs.env).folders == ()
    assert folder.is_dir()


def test_a_record_that_names_the_builder_of_somebody_else_is_not_followed(programs: Programs, tmp_path: Path) -> None:
    programs.add("docker", "exit 0")
    (left_over(tmp_path) / BUILDER_RECORD).write_text("default\n")
    reap(tmp_path, REMOVERS, env=programs.env)
    assert programs.calls() == []


def test_the_containerd_namespace_of_a_killed_run_is_purged(programs: Programs, tmp_path: Path) -> None:
    programs.add("ctr", f'case "$*" in "namespaces list --quiet") echo {PREFIX}abc ;; esac')
    path = tmp_path / "containerd.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        (left_over(tmp_path) / CONTAINERD_RECORD).write_text(f"{path}\n{PREFIX}abc\n")
        assert reap(tmp_path, REMOVERS, env=programs.env).removed[CONTAINERD_RECORD] == (f"{PREFIX}abc",)
    assert programs.calls()[-1] == f"ctr namespaces remove {PREFIX}abc"
