"""Peers and applications that break the rules, over raw sockets: none of them keeps a connection or holds up others."""

import asyncio

from starlette.types import Receive, Scope, Send

from tests.unit.http_server.test_server import LAST, at_once, echo, running, said

CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


async def _raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("unforeseen")


def test_a_failed_head_request_gets_500_without_a_body_and_ends() -> None:
    with running(_raises) as server:
        answer = said(server, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert answer.endswith(b"\r\n\r\n")


def test_a_rejected_head_request_gets_400_without_a_body() -> None:
    ambiguous = b"HEAD / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"
    with running(echo) as server:
        answer = said(server, ambiguous)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\n")


def test_an_application_that_raises_a_cancellation_gets_500_and_the_connection_ends() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    with running(app) as server:
        assert said(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 500 ")


def test_an_early_response_to_a_client_that_waits_for_100_continue_closes_the_connection() -> None:
    # The client need not send the body now, so what follows is either the body or the next request.
    head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 20\r\n\r\n"
    with running(at_once) as server:
        answers = said(server, head, LAST, pause=0.1)
    assert answers.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answers.lower()
