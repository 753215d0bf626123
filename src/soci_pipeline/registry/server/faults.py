"""A fault plan: what goes wrong at which request, so that clients can be shown to survive it.

A `Fault` fits requests by method and path; it strikes at the ``nth`` one that fits and at ``times - 1`` more after it.
"""

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from soci_pipeline.http_server.protocol import TRANSPORT
from soci_pipeline.registry.server.answers import json_response


class Kind(StrEnum):
    """What goes wrong."""

    STATUS = "status"
    """Another answer: ``status``, with ``retry_after`` and ``code`` where they are given."""
    DELAY = "delay"
    """``seconds`` pass before the request is looked at."""
    RESET = "reset"
    """The connection is reset once ``after_bytes`` of the request's body have come in (0: before anything is done)."""
    LOST_ANSWER = "lost_answer"
    """The request is carried out, and the connection is reset before the answer."""
    TRUNCATE = "truncate"
    """The answer's body ends after ``after_bytes`` bytes, with the connection."""
    CORRUPT = "corrupt"
    """One bit of the answer's body is flipped, at byte ``after_bytes``."""
    STALE_RANGE = "stale_range"
    """The Range of an answer says ``after_bytes`` bytes, whatever was taken."""
    EXPIRED_TOKEN = "expired_token"  # noqa: S105 - no secret
    """Every token given out so far is void; the request is answered with a challenge."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``path`` is a regular expression that is searched in the URL's path."""

    method: str
    path: str
    nth: int = 1
    kind: Kind | str = Kind.STATUS
    times: int = 1
    status: int = 503
    code: str = "UNAVAILABLE"
    retry_after: str | None = None
    seconds: float = 0.0
    after_bytes: int = 0

    def fits(self, method: str, path: str) -> bool:
        """Whether a request is of the sort that this fault counts."""
        return self.method in ("*", method) and re.search(self.path, path) is not None


class FaultPlan:
    """Counts requests and says which fault strikes. Threads may share it."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._faults = tuple(faults)
        self._seen = [0] * len(self._faults)
        self._lock = threading.Lock()
        self.struck: list[Fault] = []
        self.requests: list[tuple[str, str]] = []

    def replace(self, faults: Iterable[Fault]) -> None:
        """Begin anew with other faults, while the server runs on."""
        with self._lock:
            self._faults = tuple(faults)
            self._seen = [0] * len(self._faults)
            self.struck = []
            self.requests = []

    def next_for(self, method: str, path: str) -> Fault | None:
        """Count a request; the first fault that strikes it."""
        with self._lock:
            self.requests.append((method, path))
            chosen = None
            for position, fault in enumerate(self._faults):
                if not fault.fits(method, path):
                    continue
                self._seen[position] += 1
                due = fault.nth <= self._seen[position] < fault.nth + fault.times
                if due and chosen is None:
                    chosen = fault
            if chosen is not None:
                self.struck.append(chosen)
            return chosen


class FaultInjector:
    """Stands before an application and carries a plan out. `EXPIRED_TOKEN` is left to the application."""

    def __init__(self, app: ASGIApp, plan: FaultPlan) -> None:
        self._app = app
        self._plan = plan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fault = self._plan.next_for(scope["method"], scope["path"])
        match None if fault is None else Kind(fault.kind):
            case Kind.STATUS if fault is not None:
                await _answer(fault)(scope, receive, send)
            case Kind.DELAY if fault is not None:
                await asyncio.sleep(fault.seconds)
                await self._app(scope, receive, send)
            case Kind.RESET if fault is not None:
                await self._app(scope, _cut_body(scope, receive, fault.after_bytes), send)
            case Kind.LOST_ANSWER:
                await self._app(scope, receive, _cut_answer(scope, send, None))
            case Kind.TRUNCATE if fault is not None:
                await self._app(scope, receive, _cut_answer(scope, send, fault.after_bytes))
            case Kind.CORRUPT if fault is not None:
                await self._app(scope, receive, _flip(send, fault.after_bytes))
            case Kind.STALE_RANGE if fault is not None:
                await self._app(scope, receive, _other_range(send, fault.after_bytes))
            case Kind.EXPIRED_TOKEN:
                scope["state"]["expired"] = True
                await self._app(scope, receive, send)
            case _:
                await self._app(scope, receive, send)


def _answer(fault: Fault) -> ASGIApp:
    headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
    errors = {"errors": [{"code": fault.code, "message": "a planned fault"}]}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # The body is read, or a client that is still sending it would see a reset in place of the answer.
        async for _ in Request(scope, receive).stream():
            pass
        await json_response(errors, status=fault.status, headers=headers)(scope, receive, send)

    return app


def reset(scope: Scope) -> None:
    """End a request's connection with a TCP reset."""
    transport = scope.get("extensions", {}).get(TRANSPORT)
    if not isinstance(transport, asyncio.Transport):
        raise TypeError("the server does not give its connections to the application")
    raw = transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _cut_body(scope: Scope, receive: Receive, after: int) -> Receive:
    taken = 0

    async def cut() -> Message:
        nonlocal taken
        if taken >= after:
            reset(scope)
            return {"type": "http.disconnect"}
        message = await receive()
        body = message.get("body", b"")
        kept = body[: after - taken]
        taken += len(body)
        if taken < after:
            return message
        return {**message, "body": kept, "more_body": True}

    return cut


def _cut_answer(scope: Scope, send: Send, after: int | None) -> Send:
    sent = 0

    async def cut(message: Message) -> None:
        nonlocal sent
        if after is None:
            reset(scope)
            return
        if message["type"] == "http.response.body":
            body = message.get("body", b"")[: max(0, after - sent)]
            sent += len(message.get("body", b""))
            await send({**message, "body": body, "more_body": True})
            if sent >= after or not message.get("more_body"):
                transport = scope["extensions"][TRANSPORT]
                transport.close()
            return
        await send(message)

    return cut


def _flip(send: Send, position: int) -> Send:
    sent = 0

    async def flip(message: Message) -> None:
        nonlocal sent
        body = message.get("body", b"")
        if sent <= position < sent + len(body):
            damaged = bytearray(body)
            damaged[position - sent] ^= 1
            message = {**message, "body": bytes(damaged)}
        sent += len(body)
        await send(message)

    return flip


def _other_range(send: Send, taken: int) -> Send:
    async def other(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message["headers"] if name.lower() != b"range"]
            message = {**message, "headers": [*headers, (b"range", f"0-{max(0, taken - 1)}".encode())]}
        await send(message)

    return other
