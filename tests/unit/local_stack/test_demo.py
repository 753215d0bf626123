"""The command line of the demo: options, errors and exit statuses, without a stack."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from local_stack import demo
from local_stack.__main__ import main
from local_stack.folder_lock import folder_lock
from soci_pipeline.commands import CommandResult
from soci_pipeline.errors import ExitCode
from soci_pipeline.project import HOME

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own, so that a demo of the developer's does not matter."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "prefect.yaml").touch()
    monkeypatch.setenv(HOME, str(tmp_path))
    return tmp_path


def test_the_demo_is_started_from_the_top_of_a_checkout_and_shows_its_exit_statuses() -> None:
    argv = [sys.executable, "-m", "local_stack", "demo", "--help"]
    said = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert "Exit statuses: 0 published" in said
    assert all(option in said for option in ("--builder", "--toolchain", "--database", "--keep", "--json", "--quiet"))


@pytest.mark.parametrize("argv", [[], ["no-such"], ["demo", "--builder", "kaniko"], ["demo", "--kep"]])
def test_a_wrong_call_is_a_usage_error(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert said.startswith("Usage: python -m local_stack")
    assert "--help" in said


def test_a_demo_beside_another_one_fails_and_says_so_in_json_too(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with folder_lock(checkout / ".local" / "demo"):
        assert main(["demo", "--builder", "prebuilt", "--json"]) == ExitCode.STACK
    said = capsys.readouterr()
    failure = json.loads(said.out)
    assert failure["error"] == "StackError"
    assert failure["reason"].startswith("another demo is at work in ")
    assert failure["exit_code"] == ExitCode.STACK
    assert failure["reason"] in said.err
    assert "next: Let it end" in said.err


def test_an_interrupted_demo_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> CommandResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.run, "callback", interrupted)
    assert main(["demo", "--json"]) == 130
    said = capsys.readouterr()
    assert (json.loads(said.out)["error"], said.err) == ("Interrupted", "interrupted\n")
