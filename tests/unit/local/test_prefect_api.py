"""The calls that the stack makes to Prefect, against a server that answers as Prefect does."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from soci_pipeline.errors import StackError
from soci_pipeline.local.ports import free_port
from soci_pipeline.local.prefect_api import PrefectApi

BUSY = "database is locked"


@contextmanager
def _prefect(answers: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Answers by path; a path without one is not found. Yields the API's address and the requests so far."""
    requests: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            requests.append((self.path, json.loads(body) if body else None))
            answer = answers.get(self.path)
            if isinstance(answer, Iterator):
                answer = next(answer)
            data = json.dumps(answer).encode()
            busy = answer is BUSY
            self.send_response(503 if busy else 200 if self.path in answers else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()
            thread.join()


def test_only_workers_that_are_online_count() -> None:
    workers = [{"name": "a", "status": "ONLINE"}, {"name": "b", "status": "OFFLINE"}]
    with _prefect({"/work_pools/soci-amd64/workers/filter": workers}) as (url, _), PrefectApi(url) as api:
        assert api.online_workers("soci-amd64") == ("a",)


def test_a_pool_that_is_not_there_has_no_workers() -> None:
    with _prefect({}) as (url, _), PrefectApi(url) as api:
        assert api.online_workers("soci-amd64") == ()


def test_a_run_is_made_of_the_deployment_with_that_name() -> None:
    answers = {
        "/deployments/name/publish-image/default": {"id": "d1"},
        "/deployments/d1/create_flow_run": {"id": "r1"},
    }
    with _prefect(answers) as (url, requests), PrefectApi(url) as api:
        assert api.create_run("publish-image/default", {"image": "x"}) == "r1"
    assert requests[-1][1]["parameters"] == {"image": "x"}


@pytest.mark.parametrize(
    ("kind", "final", "completed"),
    [("RUNNING", False, False), ("COMPLETED", True, True), ("CRASHED", True, False), ("CANCELLED", True, False)],
)
def test_the_state_of_a_run_says_whether_it_is_over(kind: str, final: bool, completed: bool) -> None:
    answer = {"state_type": kind, "state": {"message": "because"}}
    with _prefect({"/flow_runs/r1": answer}) as (url, _), PrefectApi(url) as api:
        state = api.state("r1")
    assert (state.is_final, state.is_completed, state.message) == (final, completed, "because")


def test_records_are_asked_for_by_the_runs_that_left_them() -> None:
    with _prefect({"/artifacts/filter": [{"data": "{}"}]}) as (url, requests), PrefectApi(url) as api:
        assert api.records(("r2", "r3")) == ("{}",)
    assert requests[0][1]["flow_runs"] == {"id": {"any_": ["r2", "r3"]}}


def test_log_lines_come_from_an_offset_on() -> None:
    lines = [{"level": 30, "message": "careful"}]
    with _prefect({"/logs/filter": lines}) as (url, requests), PrefectApi(url) as api:
        assert list(api.log_lines("r1", offset=7)) == [(30, "careful")]
    assert requests[0][1]["offset"] == 7


def test_an_answer_that_is_no_success_is_an_error_with_its_status() -> None:
    with (
        _prefect({}) as (url, _),
        PrefectApi(url) as api,
        pytest.raises(StackError, match="answered 404 to /flow_runs/r1"),
    ):
        api.state("r1")


def test_a_server_that_is_gone_is_a_temporary_error() -> None:
    with PrefectApi(f"http://127.0.0.1:{free_port()}", patience=0) as api, pytest.raises(StackError) as caught:
        api.state("r1")
    assert caught.value.temporary


def test_a_server_that_is_busy_is_asked_again() -> None:
    answers = {"/flow_runs/r1": iter([BUSY, {"state_type": "RUNNING", "state": {}}])}
    with _prefect(answers) as (url, requests), PrefectApi(url) as api:
        assert api.state("r1").kind == "RUNNING"
    assert len(requests) == 2
