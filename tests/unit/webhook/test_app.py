"""The service over HTTP: bounds, states, metrics, and the way from a request to a run of a fake Prefect."""

import json
import os
import re
import socket
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from soci_pipeline.errors import StackError
from soci_pipeline.webhook.service import Service, serve, serving
from tests.support import webhook as support
from tests.support.webhook import FakePrefect, fake_prefect


@pytest.fixture
def prefect() -> Iterator[FakePrefect]:
    with fake_prefect() as fake:
        yield fake


@pytest.fixture
def address(tmp_path: Path, prefect: FakePrefect) -> Iterator[str]:
    with serving(support.configuration(tmp_path, **_changes(prefect))) as (url, _):
        yield url


def _changes(prefect: FakePrefect, **more: Any) -> dict[str, Any]:
    limits = {"body_bytes": 4096, "body_seconds": 0.5, "requests_per_minute": 1000}
    return {"prefect": {"api_url": prefect.url, "poll_outcomes_every_s": 0.05}, "limits": limits} | more


def _post(address: str, event: Any) -> httpx.Response:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    return httpx.post(f"{address}/webhooks/github", content=body, headers=support.github_headers(body))


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within ten seconds"
        time.sleep(0.02)


def test_a_signed_push_becomes_one_run_however_often_it_is_sent(address: str, prefect: FakePrefect) -> None:
    answers = [_post(address, support.github_push()).json()["status"] for _ in range(3)]
    assert answers == ["stored", "duplicate", "duplicate"]
    _until(lambda: len(prefect.runs) == 1)
    time.sleep(0.2)
    assert len(prefect.runs) == 1


def test_an_event_that_came_while_prefect_was_down_is_published_once_when_it_is_back(tmp_path: Path) -> None:
    with fake_prefect() as gone:
        port = int(gone.url.split(":")[2].split("/")[0])
    with serving(support.configuration(tmp_path, **_changes(gone))) as (address, _):
        assert _post(address, support.github_push()).status_code == 202
        _until(lambda: 'result="unavailable"' in httpx.get(f"{address}/metrics").text)
        with fake_prefect(port=port) as back:
            _until(lambda: len(back.runs) == 1)
    assert len(back.runs) == 1


def test_an_event_survives_the_receiver_itself(tmp_path: Path, prefect: FakePrefect) -> None:
    with fake_prefect() as gone:
        pass
    configuration = support.configuration(tmp_path, **_changes(gone))
    with serving(configuration) as (address, _):
        assert _post(address, support.github_push()).status_code == 202
    with serving(support.configuration(tmp_path, **_changes(prefect))) as (address, _):
        _until(lambda: len(prefect.runs) == 1)
        assert _post(address, support.github_push()).json()["status"] == "duplicate"


def test_a_body_that_is_too_large_is_refused_with_and_without_a_length(address: str) -> None:
    assert _post(address, b"x" * 5000).status_code == 413

    def chunks() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 1000

    assert httpx.post(f"{address}/webhooks/github", content=chunks()).status_code == 413


def test_a_body_that_never_ends_is_cut_off(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nslow")
        assert connection.recv(200).startswith(b"HTTP/1.1 408")


def test_a_sender_that_goes_away_in_the_middle_does_no_harm(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nslow")
    assert httpx.get(f"{address}/healthz").status_code == 200


def test_other_paths_and_methods_are_refused_in_json(address: str) -> None:
    for method, path, status in (
        ("GET", "/webhooks/github", 405),
        ("POST", "/webhooks/nobody", 404),
        ("POST", "/webhooks/..%2Fhealthz", 404),
        ("GET", "/", 404),
        ("POST", "/healthz", 405),
    ):
        answer = httpx.request(method, address + path)
        assert answer.status_code == status
        assert answer.json().keys() == {"error", "detail"}


@pytest.mark.first
def test_health_says_how_much_is_waiting_and_turns_bad_with_the_outbox(tmp_path: Path, prefect: FakePrefect) -> None:
    configuration = support.configuration(tmp_path, **_changes(prefect))
    with serving(configuration) as (address, _):
        well = httpx.get(f"{address}/healthz")
        assert (well.status_code, well.json()) == (
            200,
            {"ok": True, "threads": {"dispatch": True, "outcomes": True}, "pending": 0},
        )
        other = sqlite3.connect(configuration.outbox, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        assert httpx.get(f"{address}/healthz", timeout=30).status_code == 503
        other.execute("ROLLBACK")
        other.close()


def test_health_is_bad_while_events_are_answered_503_because_of_a_full_disk(
    tmp_path: Path, prefect: FakePrefect
) -> None:
    limits = {"body_bytes": 1 << 20, "body_seconds": 5, "requests_per_minute": 1000}
    rule = support.rule(parameters=support.rule()["parameters"] | {"build_args": {"A": "x" * 300_000}})
    with serving(support.configuration(tmp_path, **_changes(prefect, limits=limits, rules=[rule]))) as (
        address,
        service,
    ):
        connection = service.outbox._connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 40}")
        assert httpx.get(f"{address}/healthz").status_code == 200
        for number in range(2):
            assert _post(address, support.github_push(before=f"{number:040}")).status_code == 503
            answer = httpx.get(f"{address}/healthz")
            assert (answer.status_code, answer.json()["faults"]) == (503, ["cannot write to the outbox"])
        connection.execute("PRAGMA max_page_count = 1000000")
        assert httpx.get(f"{address}/healthz").status_code == 200
        assert _post(address, support.github_push()).status_code == 202


def test_health_is_bad_while_events_are_answered_503_because_no_secret_can_be_read(
    tmp_path: Path, prefect: FakePrefect
) -> None:
    with serving(support.configuration(tmp_path, **_changes(prefect))) as (address, _):
        (tmp_path / "old").unlink()
        assert _post(address, support.github_push()).status_code == 401
        assert httpx.get(f"{address}/healthz").status_code == 200
        (tmp_path / "new").unlink()
        assert _post(address, support.github_push()).status_code == 503
        answer = httpx.get(f"{address}/healthz")
        assert (answer.status_code, answer.json()["faults"]) == (503, ["the source github has no secret"])


def test_the_files_of_a_running_receiver_are_private(tmp_path: Path, prefect: FakePrefect) -> None:
    before = os.umask(0)
    try:
        with serving(support.configuration(tmp_path, **_changes(prefect))) as (address, _):
            _post(address, support.github_push())
            files = list((tmp_path / "outbox").iterdir())
            assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    finally:
        os.umask(before)
    assert {path.name for path in files} >= {"events.sqlite3", "events.sqlite3-wal", "events.sqlite3.lock"}


def test_metrics_are_in_prometheus_format_and_count(address: str, prefect: FakePrefect) -> None:
    _post(address, support.github_push())
    httpx.post(f"{address}/webhooks/github", json={})
    _until(lambda: len(prefect.runs) == 1)
    key = next(iter(prefect.runs))
    prefect.runs[key]["state_type"] = "COMPLETED"
    _until(lambda: 'outcome="COMPLETED"' in httpx.get(f"{address}/metrics").text)
    answer = httpx.get(f"{address}/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    assert 'soci_webhook_requests_total{result="stored",source="github"} 1.0' in lines
    assert 'soci_webhook_requests_total{result="unauthorized",source="github"} 1.0' in lines
    assert 'soci_webhook_runs{state="dispatched"} 1.0' in lines
    assert "soci_webhook_oldest_pending_seconds 0.0" in lines
    assert 'soci_webhook_up{thread="dispatch"} 1.0' in lines
    assert "# TYPE soci_webhook_runs gauge" in lines


def test_the_description_lists_each_source_and_no_secret(address: str, tmp_path: Path) -> None:
    document = httpx.get(f"{address}/openapi.json").json()
    assert set(document["paths"]) == {"/webhooks/github", "/healthz", "/metrics"}
    assert str(tmp_path) not in json.dumps(document)


def test_the_description_asks_of_an_event_what_the_receiver_asks(address: str) -> None:
    schemas = httpx.get(f"{address}/openapi.json").json()["components"]["schemas"]
    assert schemas["Push"]["required"] == ["kind", "repository", "clone_url", "ref", "commit"]
    repository = schemas["Image"]["properties"]["repository"]["pattern"]
    assert re.search(repository, "registry.example/team/shop")
    assert not re.search(repository, "team shop")


def test_a_port_that_is_taken_is_said(tmp_path: Path, prefect: FakePrefect) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = {"port": taken.getsockname()[1]}
        configuration = support.configuration(tmp_path, **_changes(prefect, listen=listen))
        with pytest.raises(StackError, match="cannot listen"):
            serve(configuration)
        with pytest.raises(StackError, match="did not start"), serving(configuration):
            pass


def test_a_service_that_was_left_has_no_thread_behind(tmp_path: Path, prefect: FakePrefect) -> None:
    with Service(support.configuration(tmp_path, **_changes(prefect))) as service:
        assert service.health()["ok"]
    assert not any(loop.alive for loop in service._loops)
