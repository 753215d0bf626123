"""`python -m local_stack engine` as a person uses it: started, sourced in another shell, stopped."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from local_stack.toolchain import ENGINE, Toolchain
from soci_pipeline.errors import ExitCode
from tests.support.documentation import REPOSITORY, documented
from tests.support.webhook import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a private engine")

WITHOUT = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "CONTAINERD_"))}


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[str]
    folder: Path


@pytest.fixture
def running(toolchain: Toolchain, tmp_path: Path) -> Iterator[Running]:
    toolchain.ensure(ENGINE)
    folder = tmp_path / "engine"
    with subprocess.Popen(_command(folder), cwd=REPOSITORY, env=WITHOUT, stdout=subprocess.PIPE, text=True) as process:
        try:
            until((folder / "environment").exists, seconds=180)
            yield Running(process, folder)
        finally:
            process.kill()


def _command(folder: Path) -> list[str]:
    """The documented command with this interpreter and a folder of the test."""
    (shown,) = documented("docs/workers.md", ".venv/bin/python -m local_stack engine").commands()
    return [sys.executable, *shlex.split(shown)[1:], "--folder", str(folder)]


def test_another_shell_uses_the_engine_and_a_signal_ends_it_with_everything(running: Running) -> None:
    block = documented("docs/workers.md", "source .local/engine/environment")
    assert "Server:" in block.run(REPOSITORY, replacing={".local/engine": str(running.folder)}, env=WITHOUT).stdout

    second = subprocess.run(
        _command(running.folder), cwd=REPOSITORY, env=WITHOUT, capture_output=True, text=True, check=False
    )
    assert second.returncode == ExitCode.STACK
    assert "another private engine runs in" in second.stderr

    running.process.send_signal(signal.SIGTERM)
    printed, _ = running.process.communicate(timeout=60)
    assert running.process.returncode == ExitCode.OK
    assert printed.strip() == f"source {running.folder / 'environment'}"
    assert not (running.folder / "environment").exists()
    assert (running.folder / "engine" / "data").is_dir(), "images stay for the next start"
