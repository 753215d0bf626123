"""One HTTP/1.1 connection: closes it if the peer stalls, and rejects ambiguous requests."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

import h11
from starlette.types import ASGIApp, Scope

from soci_pipeline.http_server.connections import Connections, Place, peer_of
from soci_pipeline.http_server.exchange import Exchange, plain_response

_HEAD_BYTES = 64 << 10
_UNREAD_BYTES = 64 << 10
# Parsed per turn of the event loop, so that a body in tiny chunks does not delay other connections.
_EVENTS_AT_ONCE = 32
# How far asyncio drains its write buffer before it resumes writing, with the default high and low water marks.
_READ_BYTES = 48 << 10


@dataclass(frozen=True, slots=True)
class Limits:
    """Timeouts in seconds after which the connection of a stalled peer is closed."""

    head_s: float = 10.0
    """For the head of a request, from when it can start until it is complete."""
    keep_alive_s: float = 10.0
    """Between two requests."""
    body_s: float | None = None
    """Between two pieces of a body that the application waits for. None: the application applies its own timeout."""
    read_s: float = 10.0
    """For reading 48 KiB of a response that is waiting to be sent."""
    busy: bytes = b""
    """The response if there is no free slot for the connection; if empty, it is closed without a response."""


class HttpConnection(asyncio.Protocol):
    """Passes requests to an application one at a time, each after the response to the previous one is complete.

    ``track`` is called with True when the connection is made, and with False when it is lost.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        connections: Connections,
        *,
        loop: asyncio.AbstractEventLoop,
        track: Callable[["HttpConnection", bool], None] = lambda _connection, _open: None,
        tls: bool = False,
    ) -> None:
        self._app = app
        self._limits = limits
        self._connections = connections
        self._loop = loop
        self._track = track
        self._scheme = "https" if tls else "http"
        self._conn = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        self._exchange: Exchange | None = None
        self._place: Place | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._in_head = True
        self._is_head = False  # whether the method is HEAD
        self._unread = 0
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        self._turn: asyncio.Handle | None = None  # will parse the rest of the received data
        self.will_close = False
        self.task: asyncio.Task[None] | None = None
        """The task that runs the application for the current request."""

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a slot in the connection table, and wait for the first request."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("HTTP requires a stream")
        self.transport = transport
        self._track(self, True)
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self._client = (str(peer[0]), int(peer[1])) if peer else None
        self._server = (str(own[0]), int(own[1])) if own else None
        self._place = self._connections.admit(peer_of(self._client[0] if self._client else ""), transport.abort)
        if self._place is None:
            self.write(self._limits.busy)
            # Abort: this connection is not counted, and with TLS an orderly close would wait for the peer.
            transport.abort()
            return
        self._within(self._limits.head_s)

    def data_received(self, data: bytes) -> None:
        """Parse the received data, and update the timeout."""
        if self.transport.is_closing():
            return
        if self._exchange is not None and self._deadline is not None:
            self._within(self._limits.body_s)
        elif self._exchange is None and not self._in_head:
            self._in_head = True
            self._within(self._limits.head_s)
        self._conn.receive_data(data)
        self._read()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - signature of asyncio.Protocol
        """Free the slot, and end the exchange in progress."""
        for handle in (self._timer, self._read_timer, self._turn):
            if handle is not None:
                handle.cancel()
        if self._place is not None:
            self._place.leave()
        if self._exchange is not None:
            self._exchange.disconnect()
        self._writable.set()
        self._track(self, False)

    def pause_writing(self) -> None:
        """Stop sending until the peer has read more, and start the timeout for that."""
        self._writable.clear()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Resume sending after the peer has read enough."""
        self._writable.set()
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None
        if self.transport.is_closing():
            self._watch_reader()

    # Called by an exchange.

    async def writable(self) -> None:
        """Wait until the write buffer has room."""
        if not self._writable.is_set():
            await self._writable.wait()

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def wait_for_body(self) -> None:
        """Read more of the body for the application, with a timeout."""
        self._resume_reading()
        if self._exchange is not None and self._exchange.wants_body:
            self._within(self._limits.body_s)

    def complete(self) -> None:
        """Finish the response; then start the next request or close the connection."""
        self._exchange = self.task = None
        if self._place is not None:
            self._place.idle()
        if self.will_close or self._conn.our_state is not h11.DONE:
            self.close()
            return
        self._resume_reading()
        if self._conn.their_state is h11.DONE:
            self._next_request()
            self._read()
        else:
            # The rest of the request's body must arrive within the timeout of a head.
            self._in_head = True
            self._within(self._limits.head_s)

    def close(self) -> None:
        """Close after everything is sent, or abort if the peer stops reading."""
        self._deadline = None
        # After a second close, a TLS transport of asyncio loses its protocol, and every later call fails.
        if not self.transport.is_closing():
            self.transport.close()
        if self._read_timer is None:
            self._watch_reader()

    def stop(self) -> None:
        """Close now, or after the request in progress."""
        self.will_close = True
        if self._exchange is None:
            self.close()

    # Reading.

    def _resume_reading(self) -> None:
        """Resume reading from the peer, unless received data is still unparsed."""
        if self._turn is None:
            self.transport.resume_reading()

    def _read_on(self) -> None:
        self._turn = None
        if self._exchange is None or self._exchange.unread <= _UNREAD_BYTES:
            self.transport.resume_reading()
        self._read()

    def _read(self) -> None:
        if self._turn is not None:
            return
        for _ in range(_EVENTS_AT_ONCE):
            if self.transport.is_closing():
                return
            try:
                event = self._conn.next_event()
            except h11.RemoteProtocolError as error:
                self._reject(error.error_status_hint, "The request is not valid HTTP/1.1.")
                return
            if event is h11.NEED_DATA:
                return
            if event is h11.PAUSED:
                # The next request was received already; it waits until the response to this one is complete.
                self.transport.pause_reading()
                return
            self._take(event)
        self.transport.pause_reading()
        self._turn = self._loop.call_soon(self._read_on)

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Request):
            self._begin(event)
        elif isinstance(event, h11.Data) and self._exchange is not None:
            self._deadline = None
            if self._exchange.take(event.data) > _UNREAD_BYTES:
                self.transport.pause_reading()
        elif isinstance(event, h11.EndOfMessage):
            if self._exchange is not None:
                self._deadline = None
                self._exchange.end_of_body()
            elif self._conn.our_state is h11.DONE:
                self._next_request()

    def _begin(self, request: h11.Request) -> None:
        self._is_head = request.method == b"HEAD"
        headers = list(request.headers)
        names = {name for name, _ in headers}
        # A proxy in front of this server may interpret it differently (RFC 9112, section 6.1: request smuggling).
        if b"transfer-encoding" in names and (b"content-length" in names or request.http_version != b"1.1"):
            self._reject(400, "Transfer-Encoding with Content-Length, or in HTTP/1.0, is ambiguous.")
            return
        if request.method == b"CONNECT":
            self._reject(501, "This server is not a proxy.")
            return
        self._in_head = False
        self._deadline = None
        if self._place is not None:
            self._place.busy()
        self._exchange = Exchange(self, self._conn, request.method)
        scope = self._scope(request, headers)
        self.task = self._loop.create_task(self._exchange.run(self._app, scope))

    def _scope(self, request: h11.Request, headers: list[tuple[bytes, bytes]]) -> Scope:
        path, _, query = request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.http_version.decode("ascii"),
            "server": self._server,
            "client": self._client,
            "scheme": self._scheme,
            "method": request.method.decode("ascii"),
            "root_path": "",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "headers": headers,
            "state": {},
        }

    def _next_request(self) -> None:
        self._conn.start_next_cycle()
        self._in_head = self._is_head = False
        self._within(self._limits.keep_alive_s)

    def _reject(self, status: int, text: str) -> None:
        if self._conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.write(plain_response(self._conn, status, text, is_head=self._is_head))
        if self._exchange is not None:
            self._exchange.disconnect()
        self.close()

    # Timeouts.

    def _within(self, seconds: float | None) -> None:
        """Start the timeout for the peer; None stops it. The timer is rescheduled only if it would fire too late."""
        if seconds is None:
            self._deadline = None
            return
        self._deadline = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look)
        elif self._exchange is None and not self._in_head:
            self.close()
        else:
            self.transport.abort()

    def _watch_reader(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        self._read_timer = self._loop.call_later(self._limits.read_s, self._check_unread)

    def _check_unread(self) -> None:
        if self.transport.get_write_buffer_size() > self._unread - _READ_BYTES:
            self.transport.abort()
        else:
            self._watch_reader()
