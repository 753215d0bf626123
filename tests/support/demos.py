"""Run `python -m local_stack demo` as a user does, and check what it leaves behind."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from local_stack.footprint import marked_processes
from soci_pipeline.errors import ExitCode
from soci_pipeline.project import project_folder

DEMO = [sys.executable, "-m", "local_stack", "demo"]
FOLDER = project_folder() / ".local" / "demo"


def whole_demo(*options: str) -> Any:
    done = subprocess.run([*DEMO, "--json", *options], check=False, capture_output=True, text=True, timeout=1400)
    assert done.returncode == ExitCode.OK, done.stderr[-5000:]
    return json.loads(done.stdout)


@contextlib.contextmanager
def started_demo(
    *options: str, stdout: int = subprocess.DEVNULL, stderr: int | IO[bytes] = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    argv = [*DEMO, "--builder", "prebuilt", *options]
    with subprocess.Popen(argv, stdout=stdout, stderr=stderr) as demo:
        try:
            yield demo
        finally:
            if demo.poll() is None:
                demo.kill()


def mark_of(folder: Path, *, other_than: str = "") -> str:
    """Return the mark of the stack in a folder, once there is one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            mark = str(json.loads((folder / "footprint.json").read_text())["mark"])
            if mark != other_than:
                return mark
        time.sleep(0.1)
    raise AssertionError("no stack was started")


def wait_for_a_process(mark: str) -> None:
    deadline = time.monotonic() + 60
    while not any(marked_processes(mark)):
        assert time.monotonic() < deadline, "the stack started nothing"
        time.sleep(0.1)


def nothing_is_left() -> None:
    assert not FOLDER.exists()
