"""The calls to Prefect, against a server that answers as Prefect does."""

import contextlib
import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import httpx
import pytest

from local_stack.ports import free_port
from soci_pipeline.errors import InvalidInput, StackError
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectRefused, PrefectUnavailable
from tests.support.certificates import certificate
from tests.support.webhook import Answering, Recorded, loopback

BUSY = "database is locked"
MOVED = "moved"
DEPLOYMENT = str(UUID(int=1))
RUN = str(UUID(int=2))


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
            status = {BUSY: 503, MOVED: 307}.get(answer) if isinstance(answer, str) else None
            self.send_response(status or (200 if self.path in answers else 404))
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


@pytest.mark.parametrize(
    ("given", "header"),
    [
        ({}, None),
        ({"PREFECT_API_KEY": "pnu_1"}, "Bearer pnu_1"),
        ({"PREFECT_API_AUTH_STRING": "admin:pass"}, "Basic YWRtaW46cGFzcw=="),
        ({"PREFECT_API_KEY": "pnu_1", "PREFECT_API_AUTH_STRING": "admin:pass"}, "Basic YWRtaW46cGFzcw=="),
    ],
    ids=["nobody", "key", "auth-string", "both"],
)
def test_the_credentials_of_the_environment_are_those_that_prefect_would_take(
    given: dict[str, str], header: str | None
) -> None:
    seen: list[str | None] = []

    def answer(request: Recorded) -> tuple[int, Any]:
        seen.append(request.headers.get("authorization"))
        return 200, []

    with loopback(answer) as url, PrefectApi.from_environment({"PREFECT_API_URL": f"{url}/api"} | given) as api:
        assert api.online_workers("soci-amd64") == ()
    assert seen == [header]


def test_without_an_address_in_the_environment_nothing_is_asked() -> None:
    with pytest.raises(InvalidInput, match="PREFECT_API_URL is not set"):
        PrefectApi.from_environment({})


def test_only_workers_that_are_online_count() -> None:
    workers = [{"name": "a", "status": "ONLINE"}, {"name": "b", "status": "OFFLINE"}]
    with _prefect({"/work_pools/soci-amd64/workers/filter": workers}) as (url, _), PrefectApi(url) as api:
        assert api.online_workers("soci-amd64") == ("a",)


def test_a_pool_that_is_not_there_has_no_workers() -> None:
    with _prefect({}) as (url, _), PrefectApi(url) as api:
        assert api.online_workers("soci-amd64") == ()


def test_a_run_is_made_of_the_deployment_with_that_name() -> None:
    answers = {
        "/deployments/name/publish-image/default": {"id": DEPLOYMENT},
        f"/deployments/{DEPLOYMENT}/create_flow_run": {"id": RUN},
    }
    with _prefect(answers) as (url, requests), PrefectApi(url) as api:
        assert api.create_run("publish-image/default", {"image": "x"}) == RUN
        assert api.create_run("publish-image/default", {"image": "x"}, key="k") == RUN
    assert requests[-1][1] == {"parameters": {"image": "x"}, "idempotency_key": "k", "tags": []}
    assert requests[1][1]["idempotency_key"]


def test_a_busy_server_that_names_a_time_is_not_called_before_it() -> None:
    called: list[float] = []

    def answer(_: Recorded) -> tuple[int, Any, dict[str, str]]:
        called.append(time.monotonic())
        return (429, BUSY, {"Retry-After": "2"}) if len(called) == 1 else (200, [], {})

    with loopback(answer) as url, PrefectApi(url) as api:
        assert api.online_workers("soci-amd64") == ()
    assert called[1] - called[0] >= 2


def test_a_time_beyond_the_timeout_ends_the_call_at_once() -> None:
    called: list[str] = []

    def answer(request: Recorded) -> tuple[int, Any, dict[str, str]]:
        called.append(request.path)
        return 503, BUSY, {"Retry-After": "600"}

    with (
        loopback(answer) as url,
        PrefectApi(url, patience_s=5) as api,
        pytest.raises(PrefectUnavailable) as caught,
    ):
        api.online_workers("soci-amd64")
    assert len(called) == 1
    assert caught.value.retry_after == 600


def test_a_refusal_is_not_tried_again() -> None:
    called: list[str] = []

    def answer(request: Recorded) -> tuple[int, Any]:
        called.append(request.path)
        return 403, {"detail": "Forbidden"}

    with loopback(answer) as url, PrefectApi(url) as api, pytest.raises(PrefectRefused, match="403"):
        api.online_workers("soci-amd64")
    assert len(called) == 1


def test_a_run_whose_answer_says_busy_is_made_under_one_key() -> None:
    answers = {
        "/deployments/name/publish-image/default": {"id": DEPLOYMENT},
        f"/deployments/{DEPLOYMENT}/create_flow_run": iter([BUSY, {"id": RUN}]),
    }
    with _prefect(answers) as (url, requests), PrefectApi(url) as api:
        assert api.create_run("publish-image/default", {}) == RUN
    assert requests[-1][1]["idempotency_key"] == requests[-2][1]["idempotency_key"]


def test_children_are_the_runs_that_name_it_as_their_parent() -> None:
    with (
        _prefect({"/flow_runs/filter": [{"id": RUN, "name": "linux-amd64"}]}) as (url, requests),
        PrefectApi(url) as api,
    ):
        assert api.children("r0") == {RUN: "linux-amd64"}
    assert requests[0][1] == {"flow_runs": {"parent_flow_run_id": {"any_": ["r0"]}}}


def test_the_states_of_no_runs_are_not_asked_for() -> None:
    with (
        _prefect({"/flow_runs/filter": [{"id": RUN, "state_type": "RUNNING"}]}) as (url, requests),
        PrefectApi(url) as api,
    ):
        assert api.states([]) == {}
        assert api.states([RUN]) == {RUN: "RUNNING"}
    assert len(requests) == 1


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
        pytest.raises(StackError, match="answered 404 to GET /flow_runs/r1"),
    ):
        api.state("r1")


def test_a_server_that_is_gone_is_a_temporary_error() -> None:
    with PrefectApi(f"http://127.0.0.1:{free_port()}", patience_s=0) as api, pytest.raises(StackError) as caught:
        api.state("r1")
    assert isinstance(caught.value, PrefectUnavailable)
    assert caught.value.temporary


def test_no_redirect_is_followed_and_the_credentials_stay_here() -> None:
    with (
        _prefect({"/flow_runs/r1": MOVED}) as (url, requests),
        PrefectApi(url, authorization=lambda: {"Authorization": "Bearer x"}) as api,
        pytest.raises(PrefectRefused, match="own address") as caught,
    ):
        api.state("r1")
    assert caught.value.temporary
    assert len(requests) == 1


def test_a_proxy_of_the_environment_is_not_asked_for_a_server_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with _prefect({"/flow_runs/r1": {"state_type": "RUNNING"}}) as (url, _), PrefectApi(url) as api:
        assert api.state("r1").kind == "RUNNING"


def test_a_server_that_is_busy_is_asked_again() -> None:
    answers = {"/flow_runs/r1": iter([BUSY, {"state_type": "RUNNING", "state": {}}])}
    with _prefect(answers) as (url, requests), PrefectApi(url) as api:
        assert api.state("r1").kind == "RUNNING"
    assert len(requests) == 2


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:42o0/api", "http://127.0.0.1:99999/api", "http://[::1", f"http://{'a' * 64}.example/api"],
    ids=["letter", "too-large", "bracket", "long-name"],
)
def test_what_is_no_address_is_invalid_input_without_its_password(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        PrefectApi.from_environment({"PREFECT_API_URL": url.replace("://", "://user:do-not-show@")})
    assert caught.value.reason == "PREFECT_API_URL is no address"
    assert "http://127.0.0.1:4200/api" in str(caught.value.advice)
    assert "do-not-show" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/api", "localhost:4200/api", "127.0.0.1:4200/api", "http:///api"])
def test_an_address_that_is_not_of_http_is_invalid_input(url: str) -> None:
    with pytest.raises(InvalidInput, match="no address that begins with http:// or https://"):
        PrefectApi(url)


def test_a_server_that_cannot_be_reached_comes_with_the_cause() -> None:
    url = f"http://user:do-not-show@127.0.0.1:{free_port()}/api"
    with (
        PrefectApi(url, patience_s=0) as api,
        pytest.raises(PrefectUnavailable, match=r"does not answer \(\[Errno \d+\] Connection refused\)") as caught,
    ):
        api.state("r1")
    assert "do-not-show" not in "".join(traceback.format_exception(caught.value))


def test_a_header_that_cannot_be_sent_is_not_shown() -> None:
    header = {"Authorization": "Bearer do-not-show\n"}
    with (
        _prefect({}) as (url, _),
        PrefectApi(url, authorization=lambda: header, patience_s=0) as api,
        pytest.raises(PrefectUnavailable, match=r"LocalProtocolError\)") as caught,
    ):
        api.state("r1")
    assert "do-not-show" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "login",
    [{"PREFECT_API_KEY": "schl\u00fcssel"}, {"PREFECT_API_AUTH_STRING": "admin:\udce9"}],
    ids=["letter", "byte that is none"],
)
def test_a_login_that_no_header_can_carry_is_refused_before_anything_is_sent(login: dict[str, str]) -> None:
    with _prefect({}) as (url, requests):
        api = PrefectApi.from_environment(login | {"PREFECT_API_URL": url})
        with api, pytest.raises(PrefectRefused, match="no header can carry them") as caught:
            api.state("r1")
    assert requests == []
    assert next(iter(login.values())) not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("variable", ["PREFECT_API_SSL_CERT_FILE", "SSL_CERT_FILE"])
def test_an_authority_of_ones_own_is_trusted_as_by_prefect(variable: str, tmp_path: Path) -> None:
    own = certificate(tmp_path)
    with loopback(lambda _: (200, []), own=own) as url:
        given = {"PREFECT_API_URL": f"{url}/api"}
        with PrefectApi.from_environment(given | {variable: str(own.certificate)}, patience_s=0) as api:
            assert api.online_workers("soci-amd64") == ()
        with (
            PrefectApi.from_environment(given, patience_s=0) as api,
            pytest.raises(PrefectUnavailable, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            api.online_workers("soci-amd64")


def test_the_environment_of_the_process_says_whom_to_trust_where_no_other_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = certificate(tmp_path)
    monkeypatch.setenv("PREFECT_API_SSL_CERT_FILE", str(own.certificate))
    with loopback(lambda _: (200, []), own=own) as url, PrefectApi(f"{url}/api", patience_s=0) as api:
        assert api.online_workers("soci-amd64") == ()


@pytest.mark.parametrize(("value", "verified"), [("true", False), ("1", False), ("True", False), ("false", True)])
def test_no_certificate_is_verified_where_prefect_would_not(value: str, verified: bool, tmp_path: Path) -> None:
    with loopback(lambda _: (200, []), own=certificate(tmp_path)) as url:
        given = {"PREFECT_API_URL": f"{url}/api", "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": value}
        with PrefectApi.from_environment(given, patience_s=0) as api:
            if verified:
                with pytest.raises(PrefectUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
                    api.online_workers("soci-amd64")
            else:
                assert api.online_workers("soci-amd64") == ()


@pytest.mark.parametrize("content", [None, "no certificate"], ids=["missing", "other"])
def test_a_file_that_holds_no_certificates_is_named(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    given = {"PREFECT_API_SSL_CERT_FILE": str(file)}
    with pytest.raises(InvalidInput, match=str(file)) as caught:
        PrefectApi.from_environment(given | {"PREFECT_API_URL": "https://127.0.0.1:1/api"})
    assert "None" not in caught.value.reason
    assert "PREFECT_API_SSL_CERT_FILE" in str(caught.value.advice)
    # Without TLS there is nothing to verify.
    PrefectApi.from_environment(given | {"PREFECT_API_URL": "http://127.0.0.1:1/api"}).close()


def _protected(requests: list[Recorded], valid: dict[str, str]) -> Answering:
    """A server with CSRF protection, as Prefect's: tokens by client, each wanted by everything but reading."""

    def answer(request: Recorded) -> tuple[int, Any]:
        requests.append(request)
        url = httpx.URL(request.path)
        if url.path == "/csrf-token":
            client = url.params["client"]
            valid[client] = f"token-{len(requests)}"
            return 200, {"token": valid[client], "client": client, "expiration": "2100-01-01T00:00:00Z"}
        token = request.headers.get("prefect-csrf-token")
        if request.method == "GET":
            return 200, {"state_type": "RUNNING"}
        if token is None:
            return 403, {"detail": "Missing CSRF token."}
        if valid.get(request.headers["prefect-csrf-client"]) != token:
            return 403, {"detail": "Invalid CSRF token or client identifier."}
        return 200, []

    return answer


def test_a_server_with_csrf_protection_is_given_its_token() -> None:
    requests: list[Recorded] = []
    valid: dict[str, str] = {}
    login = {"Authorization": "Bearer x"}
    with (
        loopback(_protected(requests, valid)) as url,
        PrefectApi(url, authorization=lambda: login, patience_s=0) as api,
    ):
        assert api.state("r1").kind == "RUNNING"
        assert len(requests) == 1
        assert api.children("r1") == {}
        assert api.children("r1") == {}
        # Asked for once, and kept.
        assert [request.method for request in requests] == ["GET", "POST", "GET", "POST", "POST"]
        valid.clear()
        assert api.children("r1") == {}
    assert {request.headers.get("authorization") for request in requests} == {"Bearer x"}


@pytest.mark.parametrize("token", [(403, {"detail": "Missing CSRF token."}), (200, {"token": "x"}), (200, [])])
def test_a_token_that_is_not_to_be_had_is_a_temporary_error(token: tuple[int, Any]) -> None:
    def answer(request: Recorded) -> tuple[int, Any]:
        return token if request.path.startswith("/csrf-token") else (403, {"detail": "Invalid CSRF token."})

    with loopback(answer) as url, PrefectApi(url, patience_s=0) as api, pytest.raises(PrefectUnavailable, match="CSRF"):
        api.children("r1")


RUN = "00000000-0000-0000-0000-000000000001"
CALLS: dict[str, Callable[[PrefectApi], object]] = {
    "create": lambda api: api.create_run("publish-image/default", {}),
    "state": lambda api: api.state(RUN),
    "states": lambda api: api.states([RUN]),
    "children": lambda api: api.children(RUN),
    "records": lambda api: api.records([RUN]),
    "lines": lambda api: list(api.log_lines(RUN, offset=0)),
    "workers": lambda api: api.online_workers("pool"),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_of_another_shape_is_an_error_of_the_library(call: str) -> None:
    answers: list[Any] = []
    shapes: list[Any] = [None, 1, "text", [], [1], [None], {"id": RUN, "state": "text"}, {"state": [1]}, {"id": {}}]
    lists: list[Any] = [[{}], [{"id": RUN}], [{"level": "x", "message": ""}], [{"level": float("inf"), "message": 1}]]
    with loopback(lambda _: (200, answers[-1])) as url, PrefectApi(url, patience_s=0) as api:
        for answer in (*shapes, *lists):
            answers.append(answer)
            with contextlib.suppress(PrefectRefused, PrefectUnavailable):
                CALLS[call](api)
