"""HTTP/1.1 as the embedded registry reads it: connections that stall are closed, ambiguous requests are rejected."""

import asyncio
import re
import socket
from typing import Any, ClassVar

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from soci_pipeline.registry.server.answers import json_response
from soci_pipeline.registry.server.connections import Connections

STALL_SECONDS = 30.0
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._-]{1,255})(?::[0-9]{1,5})?\Z")


class RegistryProtocol(H11Protocol):
    """Closes connections that make no progress, tells the table which ones are idle, and checks each request's head."""

    connections_table: ClassVar[Connections | None] = None
    stall_seconds: ClassVar[float] = STALL_SECONDS
    _handle = -1
    _received = 0
    _requests = 0
    _seen: object = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch."""
        super().connection_made(transport)
        raw = transport.get_extra_info("socket")
        # asyncio does this only for sockets that name their protocol, which accepted ones do not; without it, each
        # answer waits 40 ms for a delayed acknowledgement between its head and its body.
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._handle = raw.fileno()
        self.app: Any = unambiguous(self.app)
        self._seen = self._waits_for()
        self._timer = self.loop.call_later(self.stall_seconds, self._look)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._received += len(data)
        super().data_received(data)
        self._mark()

    def on_response_complete(self) -> None:
        """A request is done, and the next one may be waiting already."""
        self._requests += 1
        super().on_response_complete()
        self._mark()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _mark(self) -> None:
        if self.connections_table is not None and not self.transport.is_closing():
            self.connections_table.mark(self._handle, idle=self._is_idle)

    def _look(self) -> None:
        """Close the connection where the client has done nothing that this waits for since the last time."""
        waits_for = self._waits_for()
        if waits_for is not None and waits_for == self._seen:
            self.transport.abort()
            return
        self._seen = waits_for
        self._timer = self.loop.call_later(self.stall_seconds, self._look)

    def _waits_for(self) -> object:
        """What the client has to do next, with how far it has come; None where it has to do nothing."""
        if self._is_idle:
            # Between two requests the keep-alive timeout applies.
            between = self._requests > 0 and not self.conn.trailing_data[0]
            return None if between else ("send a head", self._requests)
        if self.flow.write_paused:
            return "read the answer", self.transport.get_write_buffer_size()
        # A client that waits for `100 Continue` waits for this side.
        if self.cycle.more_body and not self.flow.read_paused and not self.cycle.waiting_for_100_continue:
            return "send the body", self._received
        return None

    @property
    def _is_idle(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete


def registry_protocol(table: Connections | None) -> type[RegistryProtocol]:
    """The protocol for a server with that table of connections."""
    return type("RegistryProtocol", (RegistryProtocol,), {"connections_table": table})


def unambiguous(app: ASGIApp) -> ASGIApp:
    """Reject requests that a proxy before this server may read in another way, and close their connection.

    Those are a Transfer-Encoding with a Content-Length, or in HTTP/1.0 (RFC 9112, section 6.1: request smuggling), and
    a Host that is not a host and a port.
    """

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        problem = _problem(scope) if scope["type"] == "http" else None
        if problem is None:
            await app(scope, receive, send)
            return
        errors = {"errors": [{"code": "UNSUPPORTED", "message": problem}]}
        await json_response(errors, status=400, headers={"Connection": "close"})(scope, receive, send)

    return checked


def _problem(scope: Scope) -> str | None:
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers and b"content-length" in headers:
        return "a request must not have both Content-Length and Transfer-Encoding"
    if b"transfer-encoding" in headers and scope["http_version"] != "1.1":
        return "Transfer-Encoding requires HTTP/1.1"
    if b"host" in headers and not _HOST.match(headers[b"host"]):
        return "the Host header is not a host and a port"
    return None
