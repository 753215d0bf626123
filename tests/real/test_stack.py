"""The local stack and the demo, end to end: what they publish, and that nothing of them is left."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from soci_pipeline.errors import ExitCode
from soci_pipeline.local.footprint import marked_processes
from soci_pipeline.local.stack import Stack
from soci_pipeline.process import run
from soci_pipeline.project import project_folder
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference

pytestmark = pytest.mark.real

DEMO = [sys.executable, "-m", "soci_pipeline", "demo"]
_COLD_SECONDS = 900
FOLDER = project_folder() / ".local" / "demo"


def _inside(stack: Stack, pool: str, script: str) -> str:
    """Run a shell script in the mount namespace of a worker."""
    pid = str(stack.workers[pool].process.pid)
    return run(["nsenter", "--target", pid, "--mount", "sh", "-c", script], package="util-linux").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can isolate workers")
def test_a_worker_sees_neither_the_project_nor_the_other_workers(stack: Stack) -> None:
    mine, other = stack.workers["soci-amd64"], stack.workers["soci-arm64"]
    assert other.home.is_dir()
    assert _inside(stack, "soci-amd64", f"ls {mine.home.parent}").split() == [mine.home.name]
    assert _inside(stack, "soci-amd64", f"ls {stack.folder}").split() == ["workers"]
    assert "flows" not in _inside(stack, "soci-amd64", f"ls -A {project_folder()}").split()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can isolate workers")
def test_what_a_worker_writes_outside_of_its_home_does_not_reach_another(stack: Stack) -> None:
    _inside(stack, "soci-amd64", f"echo x > {stack.folder}/left-here")
    assert "left-here" not in _inside(stack, "soci-arm64", f"ls {stack.folder}")
    assert not (stack.folder / "left-here").exists()


def test_every_pool_has_a_worker_and_prefect_keeps_its_files_below_the_stack(stack: Stack) -> None:
    assert set(stack.workers) == {"soci-amd64", "soci-arm64", "soci-control"}
    assert Path(stack.env["PREFECT_HOME"]).is_relative_to(stack.folder)
    listing = run([sys.executable, "-m", "prefect", "deployment", "ls"], env=stack.env, timeout=120).stdout
    assert "publish-image/default" in listing


@pytest.mark.timeout(1500)
def test_the_demo_publishes_both_platforms_and_the_image_answers() -> None:
    answer = _demo()
    assert [each["platform"] for each in answer["platforms"]] == ["linux/amd64", "linux/arm64"]
    assert all(any(layer["ztoc"] for layer in each["layers"]) for each in answer["platforms"])
    assert all(each["soci_index"] for each in answer["platforms"])
    assert len(answer["tags"]) == 1
    assert answer["reference"].endswith(f":{answer['tags'][0]}")
    if answer["not_built"] is None:
        assert "Hello from" in answer["page"]
    assert answer["duration_s"] < _COLD_SECONDS
    _nothing_is_left()


@pytest.mark.timeout(1500)
def test_a_kept_demo_answers_while_its_stack_is_up_and_says_what_it_could_not_build(tmp_path: Path) -> None:
    said = tmp_path / "stderr"
    with said.open("wb") as stderr, _started_demo("--keep", "--json", stdout=subprocess.PIPE, stderr=stderr) as demo:
        assert demo.stdout is not None
        lines = list(iter(demo.stdout.readline, b"}\n"))
        assert lines, said.read_text()[-5000:]
        answer = json.loads(b"".join([*lines, b"}"]))
        reference = ImageReference.parse(answer["reference"])
        with RegistryClient(reference.registry) as registry:
            published, _ = registry.get_manifest(reference.repository, reference.tag or "")
            second = subprocess.run(DEMO, check=False, capture_output=True, text=True, timeout=60)
            assert second.returncode == ExitCode.STACK
            assert "another demo is at work" in second.stderr
            assert registry.get_manifest(reference.repository, reference.tag or "")[0] == published
        mark = _mark(FOLDER / "stack")
        demo.send_signal(signal.SIGINT)
        assert (demo.stdout.read(), demo.wait(60)) == (b"", ExitCode.OK), said.read_text()[-5000:]
    assert str(published.digest) == answer["index"]
    assert [each["platform"] for each in answer["platforms"]] == ["linux/amd64", "linux/arm64"]
    assert all(each["soci_index"] for each in answer["platforms"])
    assert answer["page"] is None
    assert answer["not_built"]
    assert not any(marked_processes(mark))
    assert FOLDER.exists(), "its data are kept too"
    shutil.rmtree(FOLDER)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_demo_that_is_interrupted_stops_what_it_started(number: signal.Signals) -> None:
    with _started_demo() as demo:
        mark = _mark(FOLDER / "stack")
        _wait_for_a_process(mark)
        demo.send_signal(number)
        assert demo.wait(60) == 130
    assert not any(marked_processes(mark))
    _nothing_is_left()


@pytest.mark.timeout(600)
def test_what_a_killed_demo_left_is_taken_away_by_the_next() -> None:
    with _started_demo() as demo:
        mark = _mark(FOLDER / "stack")
        _wait_for_a_process(mark)
        demo.kill()
    assert any(marked_processes(mark))
    with _started_demo() as second:
        _wait_for_a_process(_mark(FOLDER / "stack", other_than=mark))
        assert not any(marked_processes(mark))
        second.send_signal(signal.SIGINT)
        second.wait(60)


def _demo(*options: str) -> Any:
    done = subprocess.run([*DEMO, "--json", *options], check=False, capture_output=True, text=True, timeout=1400)
    assert done.returncode == ExitCode.OK, done.stderr[-5000:]
    return json.loads(done.stdout)


@contextlib.contextmanager
def _started_demo(
    *options: str, stdout: int = subprocess.DEVNULL, stderr: int | IO[bytes] = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    argv = [*DEMO, "--builder", "prebuilt", *options]
    with subprocess.Popen(argv, stdout=stdout, stderr=stderr) as demo:
        try:
            yield demo
        finally:
            if demo.poll() is None:
                demo.kill()


def _mark(folder: Path, *, other_than: str = "") -> str:
    """The mark of the stack that runs in a folder, once there is one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            mark = str(json.loads((folder / "footprint.json").read_text())["mark"])
            if mark != other_than:
                return mark
        time.sleep(0.1)
    raise AssertionError("no stack was started")


def _wait_for_a_process(mark: str) -> None:
    deadline = time.monotonic() + 60
    while not any(marked_processes(mark)):
        assert time.monotonic() < deadline, "the stack started nothing"
        time.sleep(0.1)


def _nothing_is_left() -> None:
    assert not FOLDER.exists()


def test_the_registry_of_the_stack_answers(stack: Stack) -> None:
    with RegistryClient(stack.registry) as client:
        client.ping()
