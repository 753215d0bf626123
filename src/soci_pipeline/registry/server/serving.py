"""Runs the embedded registry: in the current thread (`serve`), or in another one while a block runs (`serving`)."""

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from starlette.types import ASGIApp

from soci_pipeline.http_server.connections import Connections, most_connections
from soci_pipeline.http_server.protocol import Limits
from soci_pipeline.http_server.server import HttpServer, listen, tls_context
from soci_pipeline.registry.server.app import create_app, open_storage
from soci_pipeline.registry.server.hosts import with_valid_host
from soci_pipeline.registry.server.settings import ServerSettings

_KEEP_ALIVE_SECONDS = 75.0
# asyncio's default pool has six threads on two CPUs, and hashing a few large uploads would occupy all of them.
_THREADS = 32
# One open file for the connection, one for a blob; with TLS, one more during the handshake.
_FILES, _FILES_WITH_TLS = 2, 3
Middleware = Callable[[ASGIApp], ASGIApp]


def make_server(
    app: ASGIApp,
    listener: socket.socket,
    *,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    settings: ServerSettings | None = None,
) -> HttpServer:
    """Create a server for an application on a listening socket, with the limits of the embedded registry."""
    settings = settings or ServerSettings()
    tls = tls_context(tls_cert, tls_key)
    most = most_connections(files_per_connection=_FILES if tls is None else _FILES_WITH_TLS)
    stall_s = settings.stall_seconds
    limits = Limits(head_s=stall_s, body_s=stall_s, read_s=stall_s, keep_alive_s=_KEEP_ALIVE_SECONDS)
    connections = Connections(settings.connections_per_address, most=most)
    return HttpServer(with_valid_host(app), listener, connections, limits, tls=tls, threads=_THREADS)


@contextlib.contextmanager
def serving(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    middleware: Middleware | None = None,
    settings: ServerSettings | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
) -> Iterator[str]:
    """Serve a folder from a thread while the block runs; yield ``host:port``. Port 0 selects a free port.

    ``middleware`` wraps the registry's ASGI application, to inspect or change requests and responses. Raises
    `StackError` if the host and port or the folder is already in use.
    """
    with (
        _registry(folder, host, port, middleware=middleware, settings=settings, tls_cert=tls_cert, tls_key=tls_key) as (
            server,
            address,
        ),
        server.running("embedded registry"),
    ):
        yield address


@contextlib.contextmanager
def _registry(
    folder: Path,
    host: str,
    port: int,
    *,
    settings: ServerSettings | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    middleware: Middleware | None = None,
) -> Iterator[tuple[HttpServer, str]]:
    """Yield a server for a folder and its ``host:port``; close the folder at the end of the block."""
    settings = settings or ServerSettings()
    # Listen first, so that no folder is created if the port is in use.
    with listen(host, port) as listener, open_storage(folder, settings) as storage:
        app = create_app(storage, settings=settings)
        served = app if middleware is None else middleware(app)
        server = make_server(served, listener, tls_cert=tls_cert, tls_key=tls_key, settings=settings)
        yield server, _address(host, listener)


def _address(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def serve(
    folder: Path,
    *,
    host: str,
    port: int,
    settings: ServerSettings | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    on_ready: Callable[[str], None] = lambda _address: None,
) -> None:
    """Serve a folder from the current thread until SIGINT or SIGTERM; raise `StackError` as `serving` does."""
    with _registry(folder, host, port, settings=settings, tls_cert=tls_cert, tls_key=tls_key) as (server, address):
        received = server.run(on_ready=lambda: on_ready(address))
    # A signal is the normal way to stop, so suppress KeyboardInterrupt.
    if received is not None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(received)
