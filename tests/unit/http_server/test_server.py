"""The HTTP server with applications of the test's own, over real connections."""

import asyncio
import contextlib
import gc
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from soci_pipeline.errors import InvalidInput
from soci_pipeline.http_server.connections import Connections
from soci_pipeline.http_server.protocol import Limits
from soci_pipeline.http_server.server import HttpServer, listen, tls_context
from tests.support.certificates import certificate

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
PATIENT = Limits(head_s=10, keep_alive_s=10, body_s=10, read_s=10)


@dataclass
class Server:
    """A running server, and what its application saw."""

    address: tuple[str, int]
    server: HttpServer

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        with socket.create_connection(self.address, timeout=10) as opened:
            yield opened


@contextmanager
def running(
    app: ASGIApp, limits: Limits = PATIENT, *, places: int = 100, tls: ssl.SSLContext | None = None, **options: Any
) -> Iterator[Server]:
    with listen("127.0.0.1", 0) as listener:
        table = Connections(places, most=2 * places)
        server = HttpServer(app, listener, table, limits, tls=tls, **options)
        with server.running("test server"):
            yield Server(listener.getsockname()[:2], server)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the path and the body."""
    request = Request(scope, receive)
    body = await request.body()
    await Response(request.url.path.encode() + b" " + body)(scope, receive, send)


def until_end(opened: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := opened.recv(65536):
            received += piece
    return received


def said(server: Server, *pieces: bytes, pause: float = 0.0) -> bytes:
    with server.connection() as opened:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                opened.sendall(piece)
                time.sleep(pause)
        return until_end(opened)


LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_pipelined_requests_are_answered_one_by_one_in_their_order() -> None:
    posts = [b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nb%d" % (n, n) for n in range(5)]
    with running(echo) as server:
        answers = said(server, b"".join(posts) + LAST)
    assert re.findall(rb"/\d b\d", answers) == [b"/%d b%d" % (n, n) for n in range(5)]
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 6
    assert answers.endswith(b"/last ")


def test_a_small_response_with_its_head_is_one_piece_and_has_a_date() -> None:
    with running(echo) as server, server.connection() as opened:
        opened.sendall(GET)
        answer = opened.recv(65536)
    assert answer.endswith(b"/a ")
    assert b"\r\ndate: " in answer


def test_a_client_that_waits_for_100_continue_gets_it_once_the_body_is_read() -> None:
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"
    with running(echo) as server, server.connection() as opened:
        opened.sendall(head)
        assert opened.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        opened.sendall(b"body")
        assert until_end(opened).endswith(b"/a body")


@pytest.mark.parametrize("size", [0, 1, 64 << 10, 5 << 20])
def test_bodies_of_any_size_go_both_ways(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with running(echo) as server:
        url = "http://{}:{}/a".format(*server.address)
        for content in (body, iter([body[: size // 2], body[size // 2 :]])):
            assert httpx.post(url, content=content, trust_env=False).content == b"/a " + body


def test_a_response_to_head_has_a_length_and_no_body() -> None:
    with running(echo) as server:
        answer = said(server, LAST.replace(b"GET", b"HEAD"))
    assert b"content-length: 6\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_an_old_client_gets_an_answer_that_ends_with_its_connection() -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    with running(stream) as server:
        assert said(server, b"GET / HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nonetwo")
        assert b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n" in said(server, LAST)


async def at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without a look at the body."""
    await Response(b"no")(scope, receive, send)


def test_what_is_left_of_a_body_after_the_answer_is_no_request() -> None:
    inside = b"GET /inside HTTP/1.1\r\nHost: x\r\n\r\n"
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(inside)
    with running(at_once) as server:
        assert said(server, post, inside + LAST, pause=0.1).count(b"HTTP/1.1 ") == 2


def test_what_is_left_of_a_body_after_the_answer_has_only_as_long_as_a_head() -> None:
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with running(at_once, Limits(head_s=0.3, keep_alive_s=10, body_s=10, read_s=10)) as server:
        started = time.monotonic()
        assert said(server, post, *[b"x"] * 20, pause=0.1).count(b"HTTP/1.1 200") == 1
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("sent", [[b""], [b"GET / HT"], [b"GET / HTTP/1.1\r\n", *[b"A: b\r\n"] * 20]])
def test_a_head_that_does_not_end_is_cut_off_however_it_drips(sent: list[bytes]) -> None:
    with running(echo, Limits(head_s=0.3, keep_alive_s=10, body_s=10, read_s=10)) as server:
        started = time.monotonic()
        assert said(server, *sent, pause=0.1) == b""
        assert time.monotonic() - started < 5


def test_a_connection_between_two_requests_may_wait_for_longer_than_for_a_head() -> None:
    limits = Limits(head_s=0.2, keep_alive_s=1.0, body_s=10, read_s=10)
    with running(echo, limits) as server, server.connection() as opened:
        for _ in range(2):
            opened.sendall(GET)
            assert opened.recv(65536).endswith(b"/a ")
            time.sleep(0.6)
        assert opened.recv(1) == b""


def test_a_body_that_stops_is_cut_off_and_the_application_is_told() -> None:
    told = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    with running(app, Limits(head_s=10, keep_alive_s=10, body_s=0.2, read_s=10)) as server:
        assert said(server, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx") == b""
        assert told.wait(5)


def test_an_application_that_takes_its_time_over_a_body_is_not_cut_off() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await asyncio.sleep(0.6)
        await echo(scope, receive, send)

    with running(app, Limits(head_s=10, keep_alive_s=10, body_s=0.2, read_s=10)) as server:
        post = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
        assert b"200 OK" in said(server, post, b"a", b"b", pause=0.05)


def test_a_peer_that_does_not_read_the_last_answer_does_not_keep_its_place() -> None:
    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(b"x" * (32 << 20), headers={"Connection": "close"})(scope, receive, send)

    limits = Limits(head_s=10, keep_alive_s=10, body_s=10, read_s=0.3)
    with running(large, limits, places=1) as server, server.connection() as opened:
        opened.sendall(GET)
        time.sleep(1.5)
        with server.connection() as other:
            other.sendall(GET)
            assert other.recv(1) == b"H"


def test_a_peer_that_reads_the_last_answer_slowly_gets_all_of_it() -> None:
    size = 16 << 20

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(b"x" * size, headers={"Connection": "close"})(scope, receive, send)

    limits = Limits(head_s=10, keep_alive_s=10, body_s=10, read_s=0.5)
    with running(large, limits) as server, socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        opened.settimeout(10)
        opened.connect(server.address)
        opened.sendall(GET)
        received, started = 0, time.monotonic()
        while piece := opened.recv(256 << 10):
            received += len(piece)
            time.sleep(len(piece) / (8 << 20))
    assert received > size
    assert time.monotonic() - started > 1


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (1 << 17), 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n", 400),
    ],
)
def test_what_is_not_http_is_rejected_and_the_connection_closed(request_: bytes, status: int) -> None:
    with running(echo) as server:
        answer = said(server, request_ + LAST)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
def test_no_connection_changes_its_protocol(upgrade: bytes) -> None:
    asked = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n"
    with running(echo) as server:
        answers = said(server, asked + LAST)
    assert [answers.count(b"HTTP/1.1 200"), answers.count(b"HTTP/1.1 101")] == [2, 0]


def test_the_server_is_not_a_proxy() -> None:
    with running(echo) as server:
        answer = said(server, b"CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n" + LAST)
    assert answer.startswith(b"HTTP/1.1 501 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_an_application_that_fails_is_answered_for_with_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/a":
            raise RuntimeError("unforeseen")
        if scope["path"] == "/b":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if scope["path"] == "/c":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
            await send({"type": "http.response.body", "body": b"too much"})

    with running(app) as server:
        assert said(server, GET).startswith(b"HTTP/1.1 500 ")
        assert said(server, GET.replace(b"/a", b"/b")).endswith(b"half")
        assert said(server, GET.replace(b"/a", b"/c")) == b""
        assert said(server, GET.replace(b"/a", b"/d%0a")).startswith(b"HTTP/1.1 500 ")
    assert "unforeseen" in caplog.text
    assert "did not complete its response: GET /d%0a" in caplog.text


def test_a_server_that_is_stopped_answers_what_is_under_way_and_nothing_else() -> None:
    begun, go_on = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.to_thread(go_on.wait, 10)
        await echo(scope, receive, send)

    with running(app, grace_s=10) as server, server.connection() as busy, server.connection() as idle:
        busy.sendall(GET)
        assert begun.wait(5)
        server.server.stop()
        assert idle.recv(1) == b""
        with pytest.raises(OSError, match="refused"), server.connection():
            pass
        go_on.set()
        answer = until_end(busy)
    assert answer.endswith(b"/a ")
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("stops", [1, 2])
def test_a_request_that_does_not_end_delays_the_end_by_the_time_of_grace_or_until_the_second_stop(stops: int) -> None:
    begun = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.sleep(60)

    with running(app, grace_s=0.3 if stops == 1 else 30) as server, server.connection() as opened:
        opened.sendall(GET)
        assert begun.wait(5)
        started = time.monotonic()
        for _ in range(stops):
            server.server.stop()
        assert until_end(opened) == b""
        assert time.monotonic() - started < 5


def test_an_idle_server_stops_at_once() -> None:
    with running(echo) as server, server.connection() as opened:
        opened.sendall(GET)
        opened.recv(65536)
        started = time.monotonic()
        server.server.stop()
        assert opened.recv(1) == b""
        assert time.monotonic() - started < 0.1


SIGNALLED = """
import sys
from soci_pipeline.http_server.connections import Connections
from soci_pipeline.http_server.protocol import Limits
from soci_pipeline.http_server.server import HttpServer, listen
listener = listen("127.0.0.1", 0)
server = HttpServer(None, listener, Connections(1), Limits())
print(server.run(on_ready=lambda: print("ready", flush=True)).name)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_is_returned(number: signal.Signals) -> None:
    argv = [sys.executable, "-c", SIGNALLED]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        assert child.stdout.read() == f"{number.name}\n"
        assert child.wait(10) == 0


FEW_FILES = """
import resource
from soci_pipeline.http_server.connections import Connections
from soci_pipeline.http_server.protocol import Limits
from soci_pipeline.http_server.server import HttpServer, listen
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})
listener = listen("127.0.0.1", 0)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
server = HttpServer(app, listener, Connections(1000, most=2000), Limits())
server.run(on_ready=lambda: print(listener.getsockname()[1], flush=True))
"""


def test_a_server_without_a_free_file_accepts_again_once_there_is_one() -> None:
    argv = [sys.executable, "-c", FEW_FILES]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child, contextlib.ExitStack() as stack:
        assert child.stdout is not None
        address = ("127.0.0.1", int(child.stdout.readline()))
        try:
            with contextlib.ExitStack() as many:
                for _ in range(60):
                    many.enter_context(socket.create_connection(address, timeout=10))
                time.sleep(0.2)
            opened = stack.enter_context(socket.create_connection(address, timeout=10))
            opened.sendall(GET)
            assert opened.recv(65536).startswith(b"HTTP/1.1 204 ")
        finally:
            child.terminate()


def test_a_tls_handshake_that_does_not_end_is_cut_off(tmp_path: Path) -> None:
    own = certificate(tmp_path)
    limits = Limits(head_s=0.3, keep_alive_s=10, body_s=10, read_s=10)
    with running(echo, limits, tls=tls_context(own.certificate, own.key)) as server:
        assert said(server, b"") == b""
        url = f"https://127.0.0.1:{server.address[1]}/a"
        trust = ssl.create_default_context(cafile=str(own.certificate))
        assert httpx.get(url, verify=trust, trust_env=False).text == "/a "


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    own = certificate(tmp_path)
    for pair in ((own.certificate, tmp_path / "absent"), (own.key, own.key)):
        with pytest.raises(InvalidInput, match=str(pair[0])):
            tls_context(*pair)
    with pytest.raises(InvalidInput, match="one of them is missing"):
        tls_context(own.certificate, None)


def test_connections_that_come_with_the_end_are_closed_too() -> None:
    # They are accepted in the same round of the loop in which the server is told to stop.
    with contextlib.ExitStack() as peers:
        for _ in range(30):
            with running(echo) as server:
                for _ in range(5):
                    peers.enter_context(socket.create_connection(server.address, timeout=10))
        # A socket that nobody closed warns when it is collected, and a warning fails the test.
        gc.collect()
