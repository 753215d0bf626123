"""Runs the embedded registry: in this thread (`serve`), or in another one while a block runs (`serving`)."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from soci_pipeline.errors import InvalidInput, StackError
from soci_pipeline.registry.server.app import create_app, open_storage
from soci_pipeline.registry.server.connections import Connections, counting
from soci_pipeline.registry.server.protocol import registry_protocol
from soci_pipeline.registry.server.settings import ServerSettings
from soci_pipeline.registry.server.storage import Storage

_START_SECONDS = 20.0
_BEAT_SECONDS = 0.02
_THREADS = 32
_LAST_PORT = 65_535


class _Server(uvicorn.Server):
    """Notices sooner that it shall stop: tests start and stop hundreds of these.

    At its end it closes the storage: after that uvicorn raises the signal again, and SIGTERM ends the process.
    """

    storage: Storage | None = None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.storage is not None:
            await asyncio.to_thread(self.storage.close)

    async def main_loop(self) -> None:
        # asyncio's own has six threads on two processors, and hashing some large uploads would take them all.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="registry"))
        beat = 0
        while not await self.on_tick(beat):
            beat = (beat + 1) % 864_000
            await asyncio.sleep(_BEAT_SECONDS)


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
    app: ASGIApp,
    *,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    log_level: str = "error",
    connections: Connections | None = None,
    storage: Storage | None = None,
) -> uvicorn.Server:
    """A server for an application, without a socket yet, which closes ``storage`` at its end.

    ``connections`` counts those of the socket that it will have.
    """
    if (tls_cert is None) != (tls_key is None):
        raise InvalidInput("TLS needs a certificate and its key, and one of them is missing")
    config = uvicorn.Config(
        app,
        http=registry_protocol(connections),
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
    server = _Server(config)
    server.storage = storage
    return server


@contextlib.contextmanager
def serving(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    middleware: Callable[[ASGIApp], ASGIApp] | None = None,
    settings: ServerSettings | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
) -> Iterator[str]:
    """Serve a folder from a thread while the block runs; yields the address, ``host:port``. Port 0 takes a free one.

    ``middleware`` wraps the registry's ASGI application, to see or change requests and answers.
    Raises `StackError` where the address or the folder is taken.
    """
    settings = settings or ServerSettings()
    connections = Connections(settings.connections_per_address)
    # The folder is made once the address is had.
    with counting(listen(host, port), connections) as listener, open_storage(folder, settings) as storage:
        app = create_app(storage, settings=settings)
        served = app if middleware is None else middleware(app)
        server = make_server(served, tls_cert=tls_cert, tls_key=tls_key, connections=connections, storage=storage)
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
    """Serve a folder from this thread until SIGINT or SIGTERM; raises `StackError` as `serving` does."""
    settings = settings or ServerSettings()
    connections = Connections(settings.connections_per_address)
    with counting(listen(host, port), connections) as listener, open_storage(folder, settings) as storage:
        app = create_app(storage, settings=settings)
        server = make_server(app, tls_cert=tls_cert, tls_key=tls_key, connections=connections, storage=storage)
        if on_ready is not None:
            on_ready(_address(host, listener))
        # uvicorn hands the signal on once it has stopped; here that is the wanted end.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
