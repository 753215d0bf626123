"""Connections: each address has its share of them, and idle ones keep nobody out."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

from soci_pipeline.webhook.http_protocol import BoundedConnection, Places, bounded_connections, sender_of
from soci_pipeline.webhook.service import serving
from tests.support import webhook as support


class FakeTransport(asyncio.Transport):
    """A connection from an address; remembers whether it was closed."""

    def __init__(self, host: str) -> None:
        super().__init__({"peername": (host, 50_000), "sockname": ("192.0.2.1", 4300)})
        self.closed = False
        self.sent = b""

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class Server:
    """Connections to a protocol with bounds, without a network."""

    def __init__(self, per_address: int, total: int, trusted: tuple[str, ...] = ()) -> None:
        self._loop = asyncio.new_event_loop()
        places = Places(per_address, total, trusted)
        self._protocol = bounded_connections(head_seconds=60, places=places)
        self._config = uvicorn.Config(self._app, log_config=None)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    def connect(self, host: str, *, busy: bool = False) -> FakeTransport:
        transport = FakeTransport(host)
        made: BoundedConnection = self._protocol(self._config, ServerState(), {}, self._loop)
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
    assert (sender_of(one) == sender_of(other)) is same


def test_the_number_of_connections_of_an_address_is_configured(tmp_path: Path) -> None:
    configuration = support.configuration(tmp_path, limits={"connections_per_address": 3})
    with serving(configuration) as (url, _), contextlib.ExitStack() as stack:
        host, port = url.removeprefix("http://").split(":")
        silent = [stack.enter_context(socket.create_connection((host, int(port)), timeout=5)) for _ in range(4)]
        assert silent[0].recv(1) == b""
        assert httpx.get(f"{url}/healthz").status_code == httpx.codes.OK
        assert silent[1].recv(1) == b""
