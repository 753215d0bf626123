"""A registry on loopback under the name of an ECR registry, over https like the real one.

Clients reach it through ``HTTPS_PROXY``: the proxy accepts tunnels to that name only, terminates TLS with a certificate
for the name, and forwards the content.
"""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from local_stack.ports import LOOPBACK
from tests.support.aws import REGISTRY
from tests.support.certificates import certificate

EcrStart = Callable[[str], Path]
"""Starts a registry under ECR's name that requires this password; returns the authority to trust."""


@contextlib.contextmanager
def named_as_ecr(
    address: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, on_upload: Callable[[int], None] | None = None
) -> Iterator[Path]:
    """Give the registry at ``address`` ECR's name during the block; yield the CA certificate to trust (PEM).

    ``on_upload`` receives the total number of bytes sent by clients, before the last of them reach the registry.
    """
    own = certificate(folder, REGISTRY)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.certificate, own.key)
    way = _Way(address, context, on_upload or (lambda _: None))
    thread = threading.Thread(target=lambda: asyncio.run(way.serve()))
    thread.start()
    assert way.ready.wait(30)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://{LOOPBACK}:{way.port}")
    try:
        yield own.certificate
    finally:
        way.stop()
        thread.join()


class _Way:
    """Both servers in one event loop: the proxy, and the TLS termination behind it."""

    def __init__(self, address: str, context: ssl.SSLContext, on_upload: Callable[[int], None]) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._context = context
        self._on_upload = on_upload
        self._sent = 0
        self._tls_port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.ready = threading.Event()

    async def serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        inner = await asyncio.start_server(self._kept(self._plain), LOOPBACK, 0, ssl=self._context)
        outer = await asyncio.start_server(self._kept(self._tunnel), LOOPBACK, 0)
        self._tls_port, self.port = (each.sockets[0].getsockname()[1] for each in (inner, outer))
        async with inner, outer:
            self.ready.set()
            await self._end.wait()
            for task in self._tasks:
                task.cancel()
            # In any state: a transport that outlives its loop causes a warning in a later test.
            for writer in self._writers:
                _abort(writer)
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0.05)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)

    def _kept(self, handle: "_Handle") -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.add(writer)
            task = self._loop.create_task(_until_it_ends(handle(reader, writer)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return start

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        known = head.startswith(f"CONNECT {REGISTRY}:443 ".encode())
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if known else b"HTTP/1.1 403 Forbidden\r\n\r\n")
        if known:
            await _join(reader, writer, await self._connected(self._tls_port), lambda _: None)
        else:
            await _close(writer)

    async def _plain(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join(reader, writer, await self._connected(self._port, self._host), self._count)

    async def _connected(self, port: int, host: str = LOOPBACK) -> "_Stream":
        opened = await asyncio.open_connection(host, port)
        self._writers.add(opened[1])
        return opened

    def _count(self, more: int) -> None:
        self._sent += more
        self._on_upload(self._sent)


_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


def _abort(writer: asyncio.StreamWriter) -> None:
    # Python 3.11.2 (Debian 12) accesses the transport below TLS after it is gone.
    with contextlib.suppress(AttributeError):
        writer.transport.abort()


async def _until_it_ends(connection: Coroutine[None, None, None]) -> None:
    """Ignore that a client disconnects, possibly before sending anything."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        await connection


async def _join(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, other: _Stream, count: Callable[[int], None]
) -> None:
    """Copy in both directions until one end closes, then close both."""
    ways = [asyncio.ensure_future(_copy(reader, other[1], count))]
    ways.append(asyncio.ensure_future(_copy(other[0], writer, lambda _: None)))
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await _close(writer)
        await _close(other[1])


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, count: Callable[[int], None]) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(1 << 16):
            count(len(data))
            sink.write(data)
            await sink.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
