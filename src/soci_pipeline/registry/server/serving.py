"""Runs the embedded registry: in this thread (`serve`), or in another one while a block runs (`serving`)."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from soci_pipeline.errors import InvalidInput, StackError
from soci_pipeline.registry.server.app import create_app
from soci_pipeline.registry.server.faults import TRANSPORT, Fault, FaultPlan
from soci_pipeline.registry.server.settings import ServerSettings

_START_SECONDS = 20.0
_BEAT_SECONDS = 0.02
_LAST_PORT = 65_535


class _Protocol(H11Protocol):
    """Gives each request its connection, which a fault plan needs to break it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does this only for sockets that name their protocol, which accepted ones do not; without it, each
        # answer waits 40 ms for a delayed acknowledgement between its head and its body.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app: Any = _with_transport(self.app, transport)


class _Server(uvicorn.Server):
    """Notices sooner that it shall stop: tests start and stop hundreds of these."""

    async def main_loop(self) -> None:
        beat = 0
        while not await self.on_tick(beat):
            beat = (beat + 1) % 864_000
            await asyncio.sleep(_BEAT_SECONDS)


def _with_transport(app: Any, transport: asyncio.Transport) -> ASGIApp:
    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("extensions", {})[TRANSPORT] = transport
        await app(scope, receive, send)

    return wrapped


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises `StackError` where the address cannot be had, `InvalidInput` for what is no port."""
    if not 0 <= port <= _LAST_PORT:
        raise InvalidInput(f"{port} is no port", advice=f"A port is a number up to {_LAST_PORT}; 0 finds a free one.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        advice = "Take an address of this machine (`--host`), and a port that is free (`--port`): 0 finds one."
        raise StackError(f"cannot listen on {host}:{port}: {error.strerror}", advice=advice) from error


def make_server(
    app: ASGIApp, *, tls_cert: Path | None = None, tls_key: Path | None = None, log_level: str = "error"
) -> uvicorn.Server:
    """A server for an application, without a socket yet."""
    if (tls_cert is None) != (tls_key is None):
        raise InvalidInput("TLS needs a certificate and its key, and one of them is missing")
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level=log_level,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
    )
    return _Server(config)


@contextlib.contextmanager
def serving(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    faults: FaultPlan | Iterable[Fault] | None = None,
    settings: ServerSettings | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
) -> Iterator[str]:
    """Serve a folder from a thread while the block runs; yields the address, ``host:port``. Port 0 takes a free one."""
    # The folder is made once the address is had.
    with listen(host, port) as listener:
        app = create_app(folder, faults=faults, settings=settings)
        # Answers that are cut on purpose are no news.
        level = "error" if faults is None else "critical"
        server = make_server(app, tls_cert=tls_cert, tls_key=tls_key, log_level=level)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="registry", daemon=True)
        thread.start()
        try:
            _wait(server, thread)
            yield _address(host, listener)
        finally:
            server.should_exit = True
            thread.join(_START_SECONDS)


def _address(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _wait(server: uvicorn.Server, thread: threading.Thread) -> None:
    end = time.monotonic() + _START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > end:
            raise StackError("the embedded registry did not start")
        time.sleep(0.005)


def serve(
    folder: Path,
    *,
    host: str,
    port: int,
    settings: ServerSettings | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a folder from this thread until SIGINT or SIGTERM."""
    with listen(host, port) as listener:
        server = make_server(create_app(folder, settings=settings), tls_cert=tls_cert, tls_key=tls_key)
        if on_ready is not None:
            on_ready(_address(host, listener))
        # uvicorn hands the signal on once it has stopped; here that is the wanted end.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
