"""`soci-pipeline webhook check` and `serve`, as a user calls them."""

import contextlib
import fcntl
import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode, StackError
from soci_pipeline.webhook.outbox import Outbox
from soci_pipeline.webhook.service import Service
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
    assert main(["webhook", "check", config, str(event), "--quiet"]) == ExitCode.OK
    assert "shop -> publish-image/publish" in capsys.readouterr().out


def test_check_says_why_an_event_starts_nothing(files: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    config, event = files
    event.write_text(json.dumps(support.github_push(ref="refs/heads/other")))
    assert main(["webhook", "check", config, str(event)]) == ExitCode.NOTHING_STARTED
    said = "starts nothing: no rule matches (shop: the branch is 'other'; allowed: 'main' or 'release/*')\n"
    assert capsys.readouterr().out == said
    assert main(["webhook", "check", config, str(event), "--json"]) == ExitCode.NOTHING_STARTED
    assert json.loads(capsys.readouterr().out)["skipped"] == {"shop": "another branch"}
    assert main(["webhook", "check", config, str(event), "--event-header", "ping"]) == ExitCode.NOTHING_STARTED


@pytest.mark.parametrize(
    ("event", "rule", "said"),
    [
        ({"ref": "refs/tags/nightly"}, {}, "the tag is 'nightly'; allowed: 'v*'"),
        ({"ref": "refs/tags/v1"}, {"tags": []}, "the tag is 'v1'; allowed: none"),
        ({}, {"repositories": ["other/*"]}, "the repository is 'team/shop'; allowed: 'other/*'"),
        ({}, {"branches": ["*", "!main", "!next"]}, "the branch is 'main'; allowed: '*', without 'main' or 'next'"),
        ({}, {"paths": ["docs/**"]}, "no changed path matches; allowed: 'docs/**'"),
        (
            {"ref": f"refs/heads/{'x' * 200}"},
            {"branches": list("abcdefg")},
            f"the branch is '{'x' * 100}'…; allowed: 'a' or 'b' or 'c' or 'd' or 'e' or 'f' or 'g'",
        ),
        ({}, {"on": "image", "branches": []}, "the event is a push; allowed: a pushed image"),
    ],
)
def test_check_says_what_came_and_what_the_rule_wants(
    event: dict[str, Any], rule: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, body = tmp_path / "webhook.yaml", tmp_path / "event.json"
    parameters = {"image": "registry.example/team/shop:main"}
    changes = {"deployment": "index-image/index", "parameters": parameters} | rule
    config.write_text(yaml.safe_dump(support.document(tmp_path, rules=[support.rule(**changes)])))
    body.write_text(json.dumps(support.github_push(**event)))
    assert main(["webhook", "check", str(config), str(body)]) == ExitCode.NOTHING_STARTED
    assert capsys.readouterr().out == f"starts nothing: no rule matches (shop: {said})\n"


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


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("no event", "it is not valid JSON"),
        ("{}", "missing field `kind`"),
        ('{"kind": "x"}', "its `kind` is not push or"),
    ],
)
def test_check_says_in_plain_words_what_is_wrong_with_an_event(
    text: str, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, event = tmp_path / "webhook.yaml", tmp_path / "event.json"
    tools = {"kind": "generic", "name": "tools", "secrets": [{"env": "NOT_SET_FOR_A_CHECK"}]}
    rules = [support.rule(sources=["tools"])]
    config.write_text(yaml.safe_dump(support.document(tmp_path, sources=[tools], rules=rules)))
    event.write_text(text)
    assert main(["webhook", "check", str(config), str(event)]) == ExitCode.INVALID_INPUT
    assert f"{event}: the event does not have a supported format: event: {fault}" in capsys.readouterr().err


def _served(config: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A receiver that ends by itself: a process of its own, since it changes how its process logs."""
    argv = [sys.executable, "-m", "soci_pipeline", "webhook", "serve", "--config", config]
    return subprocess.run(argv, env=os.environ | environment, check=False, capture_output=True, text=True, timeout=60)


@contextmanager
def _serving(config: Path, log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The command as a process; yields its address once it listens."""
    log.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "soci_pipeline", "webhook", "serve", "--config", str(config)]
    with log.open("wb") as sink:
        child = subprocess.Popen(argv, stderr=sink, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        support.until(lambda: "receiver listens" in log.read_text() or child.poll() is not None, seconds=30)
        assert child.poll() is None, log.read_text()
        line = next(
            line for line in map(json.loads, log.read_text().splitlines()) if line["message"] == "receiver listens"
        )
        yield f"http://{line['host']}:{line['port']}", child
    finally:
        child.kill()
        child.wait()


def test_serve_logs_json_without_secrets_and_ends_on_sigterm(tmp_path: Path) -> None:
    config, log = tmp_path / "webhook.yaml", tmp_path / "log"
    config.write_text(yaml.safe_dump(support.document(tmp_path)))
    with _serving(config, log) as (address, child):
        support.send(address, support.github_push())
        child.send_signal(signal.SIGTERM)
        status = child.wait(30)
    assert status in (0, -signal.SIGTERM)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert any(line["message"] == "event stored" and line["source"] == "github" for line in lines)
    assert support.SECRET.decode() not in log.read_text()


def test_a_second_receiver_on_the_same_outbox_is_refused_before_it_sends_anything(tmp_path: Path) -> None:
    config, log = tmp_path / "webhook.yaml", tmp_path / "log"
    config.write_text(yaml.safe_dump(support.document(tmp_path)))
    argv = [sys.executable, "-m", "soci_pipeline", "webhook", "serve", "--config", str(config)]
    with _serving(config, log):
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == ExitCode.STACK
    assert f"another receiver uses the outbox {tmp_path / 'outbox' / 'events.sqlite3'}" in done.stderr
    assert "postponed" not in done.stderr
    # The lock ended with its holder, which was killed.
    with _serving(config, log) as (address, _):
        support.send(address, support.github_push())


def test_a_second_receiver_does_not_migrate_the_outbox_of_an_older_one(tmp_path: Path) -> None:
    configuration = support.configuration(tmp_path)
    path = configuration.outbox
    path.parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE of_an_older_release (x)")
    with path.with_name(f"{path.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StackError, match="another receiver uses the outbox"), Service(configuration):
            pass
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("of_an_older_release",)]


def test_a_port_in_use_comes_with_the_place_where_another_is_taken(tmp_path: Path) -> None:
    config = tmp_path / "webhook.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(yaml.safe_dump(support.document(tmp_path, listen={"port": port})))
        argv = [sys.executable, "-m", "soci_pipeline", "webhook", "serve", "--config", str(config)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == ExitCode.STACK
    assert f"the receiver cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "a free port; 0 chooses one" in done.stderr


@pytest.mark.parametrize("status", ["12 (serve) the AWS profile", "or another receiver uses the outbox"])
def test_the_help_tells_what_a_receiver_that_does_not_start_can_lack(
    status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["webhook", "--help"])
    assert status in " ".join(capsys.readouterr().out.split())


def test_an_event_that_was_answered_survives_a_receiver_that_is_killed(tmp_path: Path) -> None:
    config, log = tmp_path / "webhook.yaml", tmp_path / "log"
    config.write_text(yaml.safe_dump(support.document(tmp_path)))
    with _serving(config, log) as (address, child):
        key = support.send(address, support.github_push())["runs"][0]["key"]
        child.kill()
    with support.fake_prefect() as prefect:
        config.write_text(yaml.safe_dump(support.document(tmp_path, prefect={"api_url": prefect.url})))
        with _serving(config, log) as (address, _):
            support.until(lambda: set(prefect.runs) == {key}, seconds=20)
            assert support.send(address, support.github_push(), delivery="2")["status"] == "duplicate"


def test_a_full_disk_is_answered_with_503_and_what_was_answered_with_202_is_kept(tmp_path: Path) -> None:
    config, log = tmp_path / "webhook.yaml", tmp_path / "log"
    document = support.document(tmp_path)
    config.write_text(yaml.safe_dump(document))
    journal = Path(f"{document['outbox']}-wal")

    def sent(address: str, number: int) -> int:
        body = json.dumps(support.github_push(before=f"{number:040x}")).encode()
        headers = support.github_headers(body)
        return httpx.post(f"{address}/webhooks/github", content=body, headers=headers, timeout=30).status_code

    with _serving(config, log) as (address, child):
        assert sent(address, 1) == 202
        # No file of the receiver's may grow beyond what the journal has now: that is what a full disk is to it.
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (journal.stat().st_size, resource.RLIM_INFINITY))
        assert sent(address, 2) == 503
        assert httpx.get(f"{address}/healthz", timeout=30).status_code == 503
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert sent(address, 3) == 202
        assert sent(address, 2) == 202
        child.kill()
    with Outbox(Path(document["outbox"])) as outbox:
        outbox.reclaim()
        # A later push of the same branch takes the place of an earlier one that Prefect does not have.
        assert outbox.counts() | {"pending": 1, "superseded": 2} == outbox.counts()


def test_serve_refuses_to_start_without_its_secrets(files: tuple[str, Path]) -> None:
    done = _served(files[0])
    assert done.returncode == ExitCode.INVALID_INPUT
    assert "NOT_SET_FOR_A_CHECK" in done.stderr
