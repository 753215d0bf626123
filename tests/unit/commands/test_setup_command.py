"""`soci-pipeline setup` where Prefect does not take it: a checkout whose set-up fails as Prefect's client does."""

import json
from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode

REPOSITORY = Path(__file__).resolve().parents[3]

# Prefect's client is so many calls deep that the beginning of its traceback is not kept.
_INSTALL = """
def send(depth):
    return connect(depth - 1)

def connect(depth):
    if not depth:
        raise ConnectionError("nothing listens at http://127.0.0.1:1/api")
    return send(depth)

send(60)
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "flows").mkdir()
    (tmp_path / "prefect.yaml").write_text("name: soci-pipeline\n")
    (tmp_path / "deployments").mkdir()
    (tmp_path / "deployments" / "__init__.py").write_text("")
    monkeypatch.setenv("SOCI_PIPELINE_HOME", str(tmp_path))
    return tmp_path


def test_a_server_that_does_not_answer_is_one_line_without_the_way_there(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "deployments" / "install.py").write_text(_INSTALL)
    assert main(["setup"]) == ExitCode.TOOL_FAILED
    what, next_step = capsys.readouterr().err.splitlines()
    assert what == (
        "soci-pipeline: Prefect could not be set up: ConnectionError: nothing listens at http://127.0.0.1:1/api"
    )
    assert "PREFECT_API_URL" in next_step


def test_a_python_that_is_not_on_this_machine_is_warned_of(
    checkout: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (checkout / "deployments" / "install.py").write_text(
        "import json, sys\nprint(json.dumps({'given': {'words': sys.argv[2]}}))\n"
    )
    assert main(["setup", "--worker-python", "/nowhere/python"]) == ExitCode.OK
    assert "given words: /nowhere/python" in capsys.readouterr().out
    assert "/nowhere/python cannot be run on this machine" in caplog.text
    caplog.clear()
    assert main(["setup", "--worker-python", "none"]) == ExitCode.OK
    assert not caplog.messages
    assert main(["setup", "--worker-python", "bin/python"]) == ExitCode.INVALID_INPUT


@pytest.mark.parametrize("name", ["foo", "foo/", "/foo", "a/b/c", ""])
def test_a_block_without_type_or_name_is_refused_before_anything_is_asked_for(
    checkout: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (checkout / "deployments" / "install.py").write_text("raise SystemExit('asked')\n")
    assert main(["setup", "--notify-block", name]) == ExitCode.INVALID_INPUT
    what, next_step = capsys.readouterr().err.splitlines()
    assert what == f"soci-pipeline: --notify-block {name!r} is not of the form TYPE/NAME"
    assert "slack-webhook/releases" in next_step


def test_what_was_made_is_told_in_plain_words(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = {"work_pools": {"p": "made"}, "limits": {"p": "at most 3 runs at once"}, "commands": {"p": "its own"}}
    (checkout / "deployments" / "install.py").write_text(f"print({json.dumps(json.dumps(report))})\n")
    assert main(["setup"]) == ExitCode.OK
    assert capsys.readouterr().out.splitlines() == [
        *("work pool p: made", "limit p: at most 3 runs at once", "python p: its own")
    ]
    assert main(["setup", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == report


def test_words_that_are_no_traceback_are_shown_whole(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "deployments" / "install.py").write_text('raise SystemExit("no room\\nat the inn")\n')
    assert main(["setup"]) == ExitCode.TOOL_FAILED
    assert "no room\nat the inn" in capsys.readouterr().err
