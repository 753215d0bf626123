"""Calls of Prefect's client to a server that is away, busy, or refuses."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from soci_pipeline.prefect_rest.errors import PrefectRefused, PrefectUnavailable
from tasks.aws import load_block
from tasks.outage import retry_during_outage
from tests.support.webhook import Recorded, loopback

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


@contextmanager
def _server(answers: Sequence[Answer]) -> Iterator[list[float]]:
    """A server that answers so, the last one for ever; when it was asked.

    Prefect's client repeats nothing itself, but waits after 429, 502 and 503.
    """
    asked: list[float] = []

    def answer(request: Recorded) -> Answer:
        if "csrf-token" in request.path:
            return 404, {}
        asked.append(time.monotonic())
        return answers[min(len(asked), len(answers)) - 1]

    with loopback(answer) as url:
        settings = {PREFECT_API_URL: f"{url}/api", PREFECT_CLIENT_MAX_RETRIES: 0}
        with temporary_settings(updates=settings):
            yield asked


def _count() -> Callable[[], int]:
    def call() -> int:
        with get_client(sync_client=True) as client:
            return int(client.request("POST", "/flow_runs/count").json())

    return call


def test_a_busy_server_is_asked_again() -> None:
    with _server([(504, {}), (500, {}), (200, 7)]) as asked:
        assert retry_during_outage(_count()) == 7
    assert len(asked) == 3


def test_a_server_that_names_a_time_is_not_asked_before() -> None:
    with _server([(500, {}, {"Retry-After": "4"}), (200, 7)]) as asked:
        assert retry_during_outage(_count()) == 7
    assert asked[1] - asked[0] >= 4


def test_a_time_beyond_what_an_outage_may_last_ends_the_wait_at_once() -> None:
    with _server([(500, {}, {"Retry-After": "4000"})]) as asked, pytest.raises(httpx.HTTPStatusError):
        retry_during_outage(_count())
    assert len(asked) == 1


def test_a_server_that_stays_away_ends_the_wait() -> None:
    with _server([(504, {})]) as asked, pytest.raises(httpx.HTTPStatusError):
        retry_during_outage(_count(), seconds=3)
    assert len(asked) > 1


@pytest.mark.parametrize("page", [b"<html>maintenance</html>", b""])
def test_a_page_in_the_servers_place_is_an_outage(page: bytes) -> None:
    """A proxy answers so, with 200, while it has no server behind it."""
    with _server([(200, page), (200, page), (200, 7)]) as asked:
        assert retry_during_outage(_count()) == 7
    assert len(asked) == 3
    with _server([(200, page)]), pytest.raises(PrefectUnavailable, match="did not return valid JSON"):
        retry_during_outage(_count(), seconds=1)


def test_a_page_in_the_servers_place_is_not_a_missing_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.aws.retry_during_outage", partial(retry_during_outage, seconds=1))
    with (
        _server([(200, b"<html>maintenance</html>")]),
        pytest.raises(PrefectUnavailable, match="did not return valid JSON"),
    ):
        load_block("secret/made")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_no_outage(status: int) -> None:
    with _server([(status, {})]) as asked, pytest.raises(PrefectRefused, match=f"{status} to POST") as caught:
        retry_during_outage(_count())
    assert len(asked) == 1
    assert "credentials" in (caught.value.advice or "").lower()
    assert not caught.value.temporary


def test_another_answer_is_no_outage() -> None:
    with _server([(409, {})]) as asked, pytest.raises(httpx.HTTPStatusError):
        retry_during_outage(_count())
    assert len(asked) == 1
