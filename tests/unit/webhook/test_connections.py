"""Connections: each address has its share of them, and idle ones keep nobody out."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from soci_pipeline.http_server.connections import Connections, peer_of
from soci_pipeline.http_server.protocol import HttpConnection, Limits
from soci_pipeline.webhook.proxies import TrustedProxies
from soci_pipeline.webhook.service import _BUSY, serving
from tests.support import webhook as support
from tests.support.certificates import certificate


class FakeTransport(asyncio.Transport):
    """A connection from an address; remembers whether it was closed."""

    def __init__(self, host: str) -> None:
        super().__init__({"peername": (host, 50_000), "sockname": ("192.0.2.1", 4300)})
        self.closed = False
        self.sent = b""

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class Server:
    """Connections to a protocol with bounds, without a network."""

    def __init__(self, per_address: int, total: int, trusted: tuple[str, ...] = ()) -> None:
        self._loop = asyncio.new_event_loop()
        trusts = TrustedProxies(trusted).__contains__
        self._connections = Connections(per_address, most=total, unbounded=trusts, exact=True)
        self._limits = Limits(head_s=60, busy=_BUSY)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    def connect(self, host: str, *, busy: bool = False) -> FakeTransport:
        transport = FakeTransport(host)
        made = HttpConnection(self._app, self._limits, self._connections, loop=self._loop)
        made.connection_made(transport)
        if busy and not transport.closed:
            made.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        return transport

    def close(self) -> None:
        self._loop.run_until_complete(asyncio.sleep(0))
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


@pytest.fixture
def servers() -> Iterator[Any]:
    made: list[Server] = []

    def make(*arguments: Any, **more: Any) -> Server:
        made.append(Server(*arguments, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_an_idle_connection_makes_room_for_a_newer_one_of_its_address(servers: Any) -> None:
    server = cast("Server", servers(2, 100))
    other = server.connect("203.0.113.9")
    connections = [server.connect("198.51.100.1") for _ in range(5)]
    assert [each.closed for each in connections] == [True, True, True, False, False]
    assert not other.closed


def test_a_connection_is_refused_where_all_of_its_address_are_busy(servers: Any) -> None:
    server = cast("Server", servers(2, 100))
    busy = [server.connect("198.51.100.1", busy=True) for _ in range(2)]
    refused = server.connect("198.51.100.1")
    assert refused.sent.startswith(b"HTTP/1.1 503 ")
    assert refused.closed
    assert not any(each.closed for each in busy)
    assert not server.connect("198.51.100.2").closed


def test_many_addresses_together_are_bounded_too_and_idle_ones_go_first(servers: Any) -> None:
    server = cast("Server", servers(2, 4))
    busy = server.connect("198.51.100.1", busy=True)
    idle = [server.connect(f"198.51.100.{number}") for number in range(2, 8)]
    assert not busy.closed
    assert [each.closed for each in idle] == [True, True, True, False, False, False]


@pytest.mark.parametrize("trusted", ["198.51.100.1", "198.51.100.0/24", "*"])
def test_a_trusted_proxy_stands_for_many_senders(servers: Any, trusted: str) -> None:
    server = cast("Server", servers(2, 100, (trusted,)))
    assert not any(server.connect("198.51.100.1").closed for _ in range(10))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:198.51.100.1", "198.51.100.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("198.51.100.1", "198.51.100.2", False),
    ],
)
def test_an_ipv6_sender_is_counted_by_its_network(one: str, other: str, same: bool) -> None:
    assert (peer_of(one) == peer_of(other)) is same


def test_the_number_of_connections_of_an_address_is_configured(tmp_path: Path) -> None:
    configuration = support.configuration(tmp_path, limits={"connections_per_address": 3})
    with serving(configuration) as (url, _), contextlib.ExitStack() as stack:
        host, port = url.removeprefix("http://").split(":")
        silent = [stack.enter_context(socket.create_connection((host, int(port)), timeout=5)) for _ in range(4)]
        assert silent[0].recv(1) == b""
        assert httpx.get(f"{url}/healthz").status_code == httpx.codes.OK
        assert silent[1].recv(1) == b""


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_tls_handshakes_that_do_not_end_keep_nobody_out_and_are_bounded(tmp_path: Path) -> None:
    own = certificate(tmp_path)
    listen = {"port": 0, "tls_cert": str(own.certificate), "tls_key": str(own.key)}
    configuration = support.configuration(tmp_path, listen=listen, limits={"connections_per_address": 10})
    trust = ssl.create_default_context(cafile=str(own.certificate))
    with serving(configuration) as (url, _), contextlib.ExitStack() as stack:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        before = _open_files()
        silent = [stack.enter_context(socket.create_connection(address, timeout=5)) for _ in range(300)]
        assert silent[0].recv(1) == b""
        support.until(lambda: _open_files() <= before + 300 + 10, seconds=10)
        for _ in range(20):
            health = httpx.get(f"{url.replace('http:', 'https:')}/healthz", verify=trust)
            assert health.status_code == httpx.codes.OK


def test_a_refused_tls_connection_does_not_stay_open_because_its_sender_says_nothing(tmp_path: Path) -> None:
    own = certificate(tmp_path)
    listen = {"port": 0, "tls_cert": str(own.certificate), "tls_key": str(own.key)}
    configuration = support.configuration(tmp_path, listen=listen, limits={"connections_per_address": 2})
    trust = ssl.create_default_context(cafile=str(own.certificate))
    head = b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
    with serving(configuration) as (url, _), contextlib.ExitStack() as stack:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        before = _open_files()
        for _ in range(20):
            plain = stack.enter_context(socket.create_connection(address, timeout=5))
            with contextlib.suppress(OSError):
                stack.enter_context(trust.wrap_socket(plain, server_hostname="127.0.0.1")).sendall(head)
        support.until(lambda: _open_files() <= before + 20 + 2, seconds=5)


def test_a_sender_that_reads_no_answer_is_cut_off(tmp_path: Path) -> None:
    requests = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 50
    with (
        serving(support.configuration(tmp_path, limits={"body_seconds": 0.5})) as (url, _),
        socket.socket() as connection,
    ):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        with pytest.raises(ConnectionError):
            connection.sendall(requests * 20_000)


def test_no_connection_becomes_a_websocket(tmp_path: Path) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    with serving(support.configuration(tmp_path)) as (url, _):
        answer = httpx.get(f"{url}/healthz", headers=upgrade | {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="})
    assert answer.status_code == httpx.codes.OK


@pytest.mark.parametrize("sender", ["2001:db8::{:x}", "{}, what is not an address {}", "x" * 5000 + "{}"])
def test_many_names_of_one_sender_share_one_rate(tmp_path: Path, sender: str) -> None:
    changes = {"listen": {"port": 0, "trusted_proxies": ["127.0.0.1"]}, "limits": {"requests_per_minute": 3}}
    with serving(support.configuration(tmp_path, **changes)) as (url, _):
        names = [sender.format(number, number) for number in range(6)]
        answers = [httpx.post(f"{url}/webhooks/github", headers={"X-Forwarded-For": name}) for name in names]
    assert [each.status_code for each in answers] == [401, 401, 401, 429, 429, 429]
