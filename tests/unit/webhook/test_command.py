"""`soci-pipeline webhook check` and `serve`, as a user calls them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from tests.support import webhook as support


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, Path]:
    config = tmp_path / "webhook.yaml"
    document = support.document(tmp_path)
    document["sources"][0]["secrets"] = [{"env": "NOT_SET_FOR_A_CHECK"}]
    config.write_text(yaml.safe_dump(document))
    return str(config), tmp_path / "event.json"


def test_check_shows_the_parameters_of_each_run(files: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    config, event = files
    event.write_text(json.dumps(support.github_push()))
    assert main(["webhook", "check", config, str(event), "--json"]) == ExitCode.OK
    answer = json.loads(capsys.readouterr().out)
    assert answer["runs"][0]["parameters"]["ref"] == support.COMMIT
    assert main(["webhook", "check", config, str(event)]) == ExitCode.OK
    assert "shop -> publish-image/default" in capsys.readouterr().out


def test_check_says_why_an_event_starts_nothing(files: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    config, event = files
    event.write_text(json.dumps(support.github_push(ref="refs/heads/other")))
    assert main(["webhook", "check", config, str(event)]) == ExitCode.NOTHING_STARTED
    assert "another branch" in capsys.readouterr().out
    assert main(["webhook", "check", config, str(event), "--event-header", "ping"]) == ExitCode.NOTHING_STARTED


@pytest.mark.parametrize("text", ["{", "{}", json.dumps(support.github_push(ref="refs/heads/$(id)"))])
def test_check_refuses_an_event_that_the_receiver_would_refuse(files: tuple[str, Path], text: str) -> None:
    config, event = files
    event.write_text(text)
    assert main(["webhook", "check", config, str(event)]) == ExitCode.INVALID_INPUT


def test_check_names_the_sources_where_there_are_several(
    files: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, event = files
    event.write_text("{}")
    assert main(["webhook", "check", config, str(event), "--source", "nobody"]) == ExitCode.INVALID_INPUT
    assert "github" in capsys.readouterr().err
    assert main(["webhook", "check", config, str(tmp_path / "absent")]) == ExitCode.INVALID_INPUT


def test_serve_logs_json_without_secrets_and_ends_on_sigterm(tmp_path: Path) -> None:
    config = tmp_path / "webhook.yaml"
    config.write_text(yaml.safe_dump(support.document(tmp_path)))
    argv = [sys.executable, "-m", "soci_pipeline", "webhook", "serve", "--config", str(config)]
    log = tmp_path / "log"
    with log.open("wb") as sink:
        child = subprocess.Popen(argv, stderr=sink, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        deadline = time.monotonic() + 30
        while "receiver listens" not in log.read_text():
            assert child.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        status = child.wait(30)
    finally:
        child.kill()
        child.wait()
    assert status in (0, -signal.SIGTERM)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    assert support.SECRET.decode() not in log.read_text()


def test_serve_refuses_to_start_without_its_secrets(files: tuple[str, Path]) -> None:
    assert main(["webhook", "serve", "--config", files[0]]) == ExitCode.INVALID_INPUT
