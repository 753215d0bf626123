"""One call to Prefect: repeated while the server is away, and never with the login in an error."""

import time
import traceback
from typing import Any

import httpx
import pytest

from local_stack.ports import free_port
from soci_pipeline.errors import StackError
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectRefused, PrefectUnavailable
from tests.support.prefect_answers import BUSY, MOVED, answering
from tests.support.webhook import Answering, Recorded, loopback


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
        PrefectApi(url, deadline_s=5) as api,
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


def test_an_answer_that_is_no_success_is_an_error_with_its_status() -> None:
    with (
        answering({}) as (url, _),
        PrefectApi(url) as api,
        pytest.raises(StackError, match="answered 404 to GET /flow_runs/r1"),
    ):
        api.state("r1")


def test_a_server_that_is_gone_is_a_temporary_error() -> None:
    with PrefectApi(f"http://127.0.0.1:{free_port()}", deadline_s=0) as api, pytest.raises(StackError) as caught:
        api.state("r1")
    assert isinstance(caught.value, PrefectUnavailable)
    assert caught.value.temporary


def test_no_redirect_is_followed_and_the_credentials_stay_here() -> None:
    with (
        answering({"/flow_runs/r1": MOVED}) as (url, requests),
        PrefectApi(url, authorization=lambda: {"Authorization": "Bearer x"}) as api,
        pytest.raises(PrefectRefused, match="own URL, which ends") as caught,
    ):
        api.state("r1")
    assert caught.value.temporary
    assert len(requests) == 1


def test_a_proxy_of_the_environment_is_not_asked_for_a_server_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with answering({"/flow_runs/r1": {"state_type": "RUNNING"}}) as (url, _), PrefectApi(url) as api:
        assert api.state("r1").kind == "RUNNING"


def test_a_server_that_is_busy_is_asked_again() -> None:
    answers = {"/flow_runs/r1": iter([BUSY, {"state_type": "RUNNING", "state": {}}])}
    with answering(answers) as (url, requests), PrefectApi(url) as api:
        assert api.state("r1").kind == "RUNNING"
    assert len(requests) == 2


def test_a_server_that_cannot_be_reached_comes_with_the_cause() -> None:
    url = f"http://user:do-not-show@127.0.0.1:{free_port()}/api"
    with (
        PrefectApi(url, deadline_s=0) as api,
        pytest.raises(PrefectUnavailable, match=r"does not answer \(\[Errno \d+\] Connection refused\)") as caught,
    ):
        api.state("r1")
    assert "do-not-show" not in "".join(traceback.format_exception(caught.value))


def test_a_header_that_cannot_be_sent_is_not_shown() -> None:
    header = {"Authorization": "Bearer do-not-show\n"}
    with (
        answering({}) as (url, _),
        PrefectApi(url, authorization=lambda: header, deadline_s=0) as api,
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
    with answering({}) as (url, requests):
        api = PrefectApi.from_environment(login | {"PREFECT_API_URL": url})
        with api, pytest.raises(PrefectRefused, match="contain characters that are not allowed in a header") as caught:
            api.state("r1")
    assert requests == []
    assert next(iter(login.values())) not in "".join(traceback.format_exception(caught.value))


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
        PrefectApi(url, authorization=lambda: login, deadline_s=0) as api,
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

    with loopback(answer) as url, PrefectApi(url, deadline_s=0) as api, pytest.raises(PrefectUnavailable, match="CSRF"):
        api.children("r1")
