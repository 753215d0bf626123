"""A stack that cannot be brought up; what a whole one does is the real tier's."""

import os
from pathlib import Path

import pytest

from local_stack.ports import listens
from local_stack.stack import StackOptions, local_stack
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import StackError
from tests.support.prefect_command import PrefectCommand


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrefectCommand:
    """A Prefect that answers, and in which nothing can be made."""
    made = PrefectCommand.write(tmp_path / "packages")
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    return made


def test_a_stack_that_cannot_be_set_up_says_why_and_leaves_nothing_running(
    tmp_path: Path, command: PrefectCommand
) -> None:
    folder = tmp_path / "stack"
    with (
        pytest.raises(StackError, match=r"(?s)soci-pipeline setup failed\n.*cannot set up Prefect"),
        local_stack(folder, StackOptions(toolchain=Toolchain(tmp_path / "toolchain"))),
    ):
        pytest.fail("there is no stack")
    started = command.started()
    assert started["argv"] == ["server", "start"]
    with pytest.raises(ProcessLookupError):
        os.kill(started["pid"], 0)
    assert not listens(int(started["env"]["PREFECT_SERVER_API_PORT"]))
    assert not (folder / "footprint.json").exists(), "nothing is left to be taken away"


def test_a_server_that_does_not_come_up_ends_the_registry_and_git_too(tmp_path: Path, command: PrefectCommand) -> None:
    command.fail("no space left on device")
    with (
        pytest.raises(StackError, match=r"(?s)Prefect server ended while starting.*no space left"),
        local_stack(tmp_path / "stack", StackOptions(toolchain=Toolchain(tmp_path / "toolchain"))),
    ):
        pytest.fail("there is no stack")
    mark = command.started()["env"]["SOCI_PIPELINE_STACK"].encode()
    assert [path for path in Path("/proc").glob("[0-9]*") if mark in _environment(path)] == []


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""
