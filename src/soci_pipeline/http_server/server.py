"""The server: accepts connections on a listening socket until it is stopped."""

import asyncio
import contextlib
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType

from starlette.types import ASGIApp

from soci_pipeline.errors import InvalidInput, StackError
from soci_pipeline.http_server.connections import Connections, Place, peer_of
from soci_pipeline.http_server.protocol import HttpConnection, Limits

_ACCEPTED_AT_ONCE = 64
_BACKLOG = 256
_LAST_PORT = 65_535
_NO_FILES_PAUSE_S = 1.0
_START_S = 20.0
_TLS_PARTS_MISSING = "TLS requires a certificate and its key, but one of them is missing"


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises `StackError` if the address is in use or not one of this machine, `InvalidInput` for an invalid port.
    """
    if not 0 <= port <= _LAST_PORT:
        raise InvalidInput(
            f"{port} is not a valid port", advice=f"A port is a number up to {_LAST_PORT}; 0 chooses a free one."
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        advice = "Use an address of this machine (`--host`) and a free port (`--port`); 0 chooses one."
        raise StackError(f"cannot listen on {host}:{port}: {error.strerror}", advice=advice) from error


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return the TLS context, or None without a certificate and key; raise `InvalidInput` if they cannot be used."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise InvalidInput(_TLS_PARTS_MISSING)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        reason = error.strerror or "they do not match, or are not PEM"
        raise InvalidInput(f"cannot load the TLS certificate {certificate} with the key {key}: {reason}") from error
    return context


class HttpServer:
    """Serves an application on a listening socket, and closes the socket. TLS handshakes are limited separately.

    ``threads`` is the size of asyncio's default thread pool; None keeps asyncio's default.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        connections: Connections,
        limits: Limits,
        *,
        tls: ssl.SSLContext | None = None,
        grace_s: float = 2.0,
        threads: int | None = None,
    ) -> None:
        self._app = app
        self._listener = listener
        self._connections = connections
        self._handshakes = connections.handshakes()
        self._limits = limits
        self._tls = tls
        self._grace_s = grace_s
        self._threads = threads
        self._open: set[HttpConnection] = set()
        self._arriving: set[asyncio.Task[None]] = set()
        self._stops = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, *, on_ready: Callable[[], None] = lambda: None) -> signal.Signals | None:
        """Serve until `stop` is called or, in the main thread, SIGINT or SIGTERM arrives; return the first signal.

        The caller cleans up and raises the signal again. A second signal or `stop` aborts the requests in progress.
        """
        with _signals(self.stop) as received:
            asyncio.run(self._serve(on_ready))
        return received[0] if received else None

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Serve in a thread while the block runs; raise `StackError` if the server does not start."""
        ready = threading.Event()
        thread = threading.Thread(target=self.run, kwargs={"on_ready": ready.set}, name=name, daemon=True)
        thread.start()
        try:
            if not ready.wait(_START_S):
                raise StackError(f"the {name} did not start")
            yield
        finally:
            self.stop()
            thread.join(_START_S)

    def stop(self) -> None:
        """Stop the server, from any thread. A second call aborts the requests in progress."""
        self._stops += 1
        # The loop may not have started yet (`_serve` checks then) or may be closed already.
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._check_stop_requests)

    async def _serve(self, on_ready: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping, self._hurry = asyncio.Event(), asyncio.Event()
        self._check_stop_requests()
        if self._threads is not None:
            self._loop.set_default_executor(ThreadPoolExecutor(self._threads, thread_name_prefix="http"))
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)
        on_ready()
        await self._stopping.wait()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        await self._end()

    def _check_stop_requests(self) -> None:
        if self._stops > 0:
            self._stopping.set()
        if self._stops > 1:
            self._hurry.set()

    async def _end(self) -> None:
        """Wait for requests in progress during the grace period, then abort the rest."""
        for arriving in self._arriving:
            arriving.cancel()
        for connection in tuple(self._open):
            connection.stop()
        self._stop_if_idle()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), self._grace_s)
        tasks = [each.task for each in self._open if each.task is not None]
        for connection in self._open:
            connection.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._arriving, return_exceptions=True)
        # The aborted connections are closed in the next iteration of the loop.
        await asyncio.sleep(0)

    def _stop_if_idle(self) -> None:
        if self._stopping.is_set() and not self._open:
            self._hurry.set()

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._pause()
                return
            connection.setblocking(False)
            # Without it, a response in two packets waits 40 ms for a delayed acknowledgement.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._arrive(connection, str(address[0]))

    def _pause(self) -> None:
        """Stop accepting for a while if no more files can be opened; open connections may end in the meantime."""
        if self._loop is None:
            return
        self._loop.remove_reader(self._listener)
        self._loop.call_later(_NO_FILES_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        if self._loop is not None and not self._stopping.is_set():
            self._loop.add_reader(self._listener, self._accept)

    def _arrive(self, connection: socket.socket, host: str) -> None:
        place = None
        if self._tls is not None:
            place = self._handshakes.admit(peer_of(host), lambda: _shut_down(connection))
            if place is None:
                connection.close()
                return
        task = asyncio.ensure_future(self._connect(connection, place))
        self._arriving.add(task)
        task.add_done_callback(partial(self._arrived, connection))

    def _arrived(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        if task.cancelled():
            # If the task was cancelled before it started, nothing else closes the connection.
            connection.close()

    async def _connect(self, connection: socket.socket, handshake: Place | None) -> None:
        loop = asyncio.get_running_loop()
        times = (self._limits.head_s, self._limits.read_s) if self._tls else (None, None)
        try:
            await loop.connect_accepted_socket(
                lambda: self._protocol(loop, handshake),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=times[0],
                ssl_shutdown_timeout=times[1],
            )
        except OSError:
            # The handshake failed or timed out, or the peer disconnected.
            connection.close()
        finally:
            if handshake is not None:
                handshake.leave()

    def _protocol(self, loop: asyncio.AbstractEventLoop, handshake: Place | None) -> HttpConnection:
        return HttpConnection(
            self._app, self._limits, self._connections, loop=loop, track=self._track, tls=handshake is not None
        )

    def _track(self, connection: HttpConnection, is_open: bool) -> None:
        if is_open:
            self._open.add(connection)
            return
        self._open.discard(connection)
        self._stop_if_idle()


def _shut_down(connection: socket.socket) -> None:
    """Shut a connection down; the event loop notices and closes it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[list[signal.Signals]]:
    """Call `stop` on SIGINT and SIGTERM in the block; yield the received signals. No-op outside the main thread."""
    received: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
