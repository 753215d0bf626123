"""One request and its response, passed between h11 and the ASGI application."""

import asyncio
import http
import time
from email.utils import formatdate
from typing import Protocol

import h11
from starlette.types import ASGIApp, Message, Scope

from soci_pipeline.log import logger

_PHRASES = {each.value: each.phrase.encode() for each in http.HTTPStatus}
_JOINED_BYTES = 64 << 10
_DISCONNECT = "http.disconnect"
Headers = list[tuple[bytes, bytes]]


class Carrier(Protocol):
    """The interface of the connection that an exchange uses."""

    @property
    def will_close(self) -> bool: ...

    async def writable(self) -> None: ...
    def write(self, data: bytes) -> None: ...
    def wait_for_body(self) -> None: ...
    def complete(self) -> None: ...
    def close(self) -> None: ...


class _Date:
    """The value of the Date header, cached for a second."""

    def __init__(self) -> None:
        self._second = 0
        self._value = b""

    def value(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second, self._value = second, formatdate(second, usegmt=True).encode()
        return self._value


_DATE = _Date()


class Exchange:
    """Runs the application for one request. Call `disconnect` if the peer has gone or violated the protocol."""

    def __init__(self, carrier: Carrier, conn: h11.Connection, method: bytes) -> None:
        self._carrier = carrier
        self._conn = conn
        self._is_head = method == b"HEAD"
        self._body = bytearray()
        self._is_whole = False
        self._news = asyncio.Event()
        self._start: Message | None = None
        self._is_over = False

    @property
    def wants_body(self) -> bool:
        """Whether the request's body is not complete yet."""
        return not self._is_whole

    @property
    def unread(self) -> int:
        """The number of bytes of the body that the application has not read."""
        return len(self._body)

    def take(self, data: bytes) -> int:
        """Add a piece of the request's body; return how many bytes the application has not read."""
        self._body += data
        self._news.set()
        return len(self._body)

    def end_of_body(self) -> None:
        """Mark the request as complete."""
        self._is_whole = True
        self._news.set()

    def disconnect(self) -> None:
        """End the exchange: nothing more is received from the peer or sent to it."""
        self._is_over = True
        self._news.set()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Run the application; if it fails or does not complete the response, send a 500 or close the connection."""
        try:
            await app(scope, self._receive, self._send)
        except asyncio.CancelledError:
            # When the server stops, the connection is closed already; any other cancellation is an application error.
            if not self._is_over:
                self._fail("the application was cancelled: %s %s", scope)
            raise
        except Exception as error:  # noqa: BLE001 - the server must survive any application error
            self._fail("the application failed: %s %s", scope, exc_info=error)
        if not self._is_over:
            self._fail("the application did not complete its response: %s %s", scope)

    def _fail(self, message: str, scope: Scope, *, exc_info: Exception | None = None) -> None:
        # The raw path is percent-encoded, so it cannot add a line to the log.
        logger().error(message, scope["method"], scope["raw_path"].decode("ascii"), exc_info=exc_info)
        if self._is_over:
            return
        self._is_over = True
        if self._conn.our_state is h11.SEND_RESPONSE:
            self._carrier.write(plain_response(self._conn, 500, "Internal Server Error", is_head=self._is_head))
        self._carrier.close()

    async def _receive(self) -> Message:
        if self._conn.they_are_waiting_for_100_continue and not self._is_over:
            self._carrier.write(
                self._conn.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
            )
        if not self._news.is_set():
            self._carrier.wait_for_body()
            await self._news.wait()
        if self._is_over:
            return {"type": _DISCONNECT}
        self._news.clear()
        body, self._body = bytes(self._body), bytearray()
        return {"type": "http.request", "body": body, "more_body": not self._is_whole}

    async def _send(self, message: Message) -> None:
        await self._carrier.writable()
        if self._is_over:
            return
        if message["type"] == "http.response.start" and self._conn.our_state is h11.SEND_RESPONSE:
            # Sent with the first piece of the body, as the ASGI specification requires.
            self._start = message
        elif message["type"] == "http.response.body":
            self._write(message.get("body", b""), last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"the application sent {message['type']!r} out of order")

    def _write(self, body: bytes, *, last: bool) -> None:
        data = self._head()
        piece = self._conn.send(h11.Data(data=b"" if self._is_head else body))
        end = self._conn.send(h11.EndOfMessage()) if last else b""
        # Send a small response in one packet; do not copy a large body.
        for each in (data + piece + end,) if len(piece) <= _JOINED_BYTES else (data, piece, end):
            self._carrier.write(each)
        if last:
            self._is_over = True
            self._news.set()
            self._carrier.complete()

    def _head(self) -> bytes:
        """Return the head of the response on the first call, and b"" after that."""
        if self._start is None:
            return b""
        start, self._start = self._start, None
        # A client still waiting for 100 Continue may skip the body, which would make what follows ambiguous: close.
        ends = self._carrier.will_close or self._conn.they_are_waiting_for_100_continue
        close: Headers = [(b"connection", b"close")] if ends else []
        headers = [(b"date", _DATE.value()), *start.get("headers", ()), *close]
        status: int = start["status"]
        return self._conn.send(h11.Response(status_code=status, headers=headers, reason=_PHRASES.get(status, b"")))


def plain_response(conn: h11.Connection, status: int, text: str, *, is_head: bool) -> bytes:
    """Serialize a complete text response that closes the connection; a response to HEAD has no body."""
    body = text.encode()
    headers = [
        (b"date", _DATE.value()),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    response = h11.Response(status_code=status, headers=headers, reason=_PHRASES.get(status, b""))
    data = h11.Data(data=b"" if is_head else body)
    return b"".join(conn.send(event) for event in (response, data, h11.EndOfMessage()))
