"""Peers and applications that break the rules, over raw sockets: none of them keeps a connection or holds up others."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from soci_pipeline.http_server.server import tls_context
from tests.support.certificates import certificate
from tests.unit.http_server.test_server import LAST, at_once, echo, running, said, until_end

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


def test_tls_connections_beyond_the_limit_do_not_stay_open(tmp_path: Path) -> None:
    own = certificate(tmp_path)
    trust = ssl.create_default_context(cafile=str(own.certificate))
    trust.check_hostname = False
    with running(echo, places=1, tls=tls_context(own.certificate, own.key)) as server, ExitStack() as stack:

        def connect() -> ssl.SSLSocket:
            plain = stack.enter_context(server.connection())
            return stack.enter_context(trust.wrap_socket(plain))

        connect().sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        time.sleep(0.2)
        rejected = connect()
        # The peer does not answer the end of TLS; the server ends the TCP connection all the same.
        with socket.socket(fileno=rejected.detach()) as tcp:
            tcp.settimeout(3)
            assert until_end(tcp) is not None


@pytest.mark.parametrize(
    "request_", [LAST, b"GET / HTTP/9\r\n\r\n", LAST + LAST], ids=["answered", "rejected", "pipelined"]
)
def test_a_server_ends_while_a_tls_peer_has_yet_to_answer_the_end_of_its_connection(
    tmp_path: Path, request_: bytes
) -> None:
    # The server has closed the connection already, and closes it again when it ends.
    own = certificate(tmp_path)
    trust = ssl.create_default_context(cafile=str(own.certificate))
    trust.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = trust.wrap_bio(incoming, outgoing)
    with running(echo, grace_s=0.1, tls=tls_context(own.certificate, own.key)) as server, server.connection() as tcp:
        _exchange(tcp, incoming, outgoing, peer.do_handshake)
        peer.write(request_)
        assert _exchange(tcp, incoming, outgoing, lambda: peer.read(65536)).startswith(b"HTTP/1.1 ")
        time.sleep(0.2)
        server.server.stop()
        assert until_end(tcp) is not None


def _exchange(tcp: socket.socket, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, step: Callable[[], Any]) -> Any:
    """Repeat a step of a TLS peer that never closes, with what it sends and receives in between."""
    while True:
        try:
            return step()
        except ssl.SSLWantReadError:
            tcp.sendall(outgoing.read())
            incoming.write(tcp.recv(65536))


@pytest.mark.parametrize("app", [echo, at_once])
def test_a_body_of_tiny_chunks_does_not_hold_up_other_peers(app: ASGIApp) -> None:
    with running(app) as server, server.connection() as hostile:
        sender = threading.Thread(target=_send, args=(hostile, CHUNKED + b"1\r\nx\r\n" * 100_000))
        sender.start()
        time.sleep(0.1)
        slowest = 0.0
        for _ in range(10):
            started = time.monotonic()
            said(server, LAST)
            slowest = max(slowest, time.monotonic() - started)
        hostile.shutdown(socket.SHUT_RDWR)
        sender.join()
    assert slowest < 0.3


def _send(opened: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        opened.sendall(data)


def test_a_body_of_tiny_chunks_arrives_whole_and_the_next_request_too() -> None:
    body = b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n"
    with running(echo) as server:
        answers = said(server, CHUNKED + body + LAST)
    assert answers.count(b"x" * 20_000) == 1
    assert answers.endswith(b"/last ")
