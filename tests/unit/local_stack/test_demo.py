"""The command line of the demo: options, errors and exit statuses, without a stack."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from local_stack.folder_lock import folder_lock
from soci_pipeline.builders.builder import BuilderName
from soci_pipeline.errors import ExitCode
from soci_pipeline.project import HOME

REPOSITORY = Path(__file__).resolve().parents[3]


def _called(*argv: str, home: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """Run the command at the top of the checkout; ``home`` is where it takes the project to be."""
    command = [sys.executable, "-m", "local_stack", *argv]
    environment = dict(os.environ) | {HOME: str(home)}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def test_the_demo_is_started_from_the_top_of_a_checkout_and_shows_its_exit_statuses() -> None:
    done = _called("demo", "--help")
    assert done.returncode == ExitCode.OK
    assert "Exit statuses: 0 published" in done.stdout
    options = ("--builder", "--toolchain", "--database", "--keep", "--json", "--verbose", "--quiet")
    assert all(option in done.stdout for option in options)
    assert f"--builder [{'|'.join(BuilderName)}]" in done.stdout


@pytest.mark.parametrize("argv", [["no-such"], ["demo", "--builder", "kaniko"], ["demo", "--kep"]])
def test_a_wrong_call_is_a_usage_error(argv: list[str]) -> None:
    done = _called(*argv)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert "python -m local_stack" in done.stderr
    assert "--help" in done.stderr


def test_a_demo_beside_another_one_fails_and_says_so_in_json_too(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "prefect.yaml").touch()
    with folder_lock(tmp_path / ".local" / "demo"):
        done = _called("demo", "--builder", "prebuilt", "--json", home=tmp_path)
    failure = json.loads(done.stdout)
    assert (done.returncode, failure["exit_code"]) == (ExitCode.STACK, ExitCode.STACK)
    assert failure["error"] == "StackError"
    assert failure["reason"].startswith("another demo is running in ")
    assert failure["reason"] in done.stderr
    assert "next: Wait until it finishes" in done.stderr
