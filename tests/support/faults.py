"""A fault plan: what fails at which request, to test that clients recover.

`FaultPlan.middleware` wraps a server's application, whatever server runs it. A `Fault` matches requests by method and
path; it applies to the ``nth`` matching one and to the ``times - 1`` after it.
"""

import asyncio
import ctypes
import os
import re
import socket
import stat
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from soci_pipeline.registry.server.answers import json_response

_C = ctypes.CDLL(None, use_errno=True)
_VOID = (b"authorization", b"Bearer void")


class Kind(StrEnum):
    """What fails."""

    STATUS = "status"
    """Another response: ``status``, with ``retry_after`` and ``code`` if given."""
    DELAY = "delay"
    """The request is delayed by ``seconds``."""
    RESET = "reset"
    """The connection is reset after ``after_bytes`` bytes of the request's body (0: before anything is done)."""
    LOST_ANSWER = "lost_answer"
    """The request is processed, and the connection is reset before the response."""
    TRUNCATE = "truncate"
    """The response's body and the connection end after ``after_bytes`` bytes."""
    CORRUPT = "corrupt"
    """One bit of the response's body is flipped, at byte ``after_bytes``."""
    STALE_RANGE = "stale_range"
    """The Range of a response says ``after_bytes`` bytes, whatever was received."""
    EXPIRED_TOKEN = "expired_token"
    """Every token used so far becomes invalid; a registry with a login answers the request with a challenge."""


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
        """Whether a request matches this fault."""
        return self.method in ("*", method) and re.search(self.path, path) is not None


class FaultPlan:
    """Counts requests and selects the fault that applies. Thread-safe."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._faults = tuple(faults)
        self._seen = [0] * len(self._faults)
        self._lock = threading.Lock()
        self.struck: list[Fault] = []
        self.requests: list[tuple[str, str]] = []

    def replace(self, faults: Iterable[Fault]) -> None:
        """Start again with other faults, while the server keeps running."""
        with self._lock:
            self._faults = tuple(faults)
            self._seen = [0] * len(self._faults)
            self.struck = []
            self.requests = []

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Wrap an application with the plan."""
        return _FaultInjector(app, self)

    def next_for(self, method: str, path: str) -> Fault | None:
        """Count a request; return the first fault that applies to it."""
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


class _FaultInjector:
    """Wraps an application and injects the faults of a plan."""

    def __init__(self, app: ASGIApp, plan: FaultPlan) -> None:
        self._app = app
        self._plan = plan
        self._used: set[bytes] = set()
        self._void: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fault = self._plan.next_for(scope["method"], scope["path"])
        if fault is not None and fault.kind == Kind.EXPIRED_TOKEN:
            self._void |= self._used
        scope = self._with_void_tokens(scope)
        match None if fault is None else Kind(fault.kind):
            case Kind.STATUS if fault is not None:
                await _answer(fault)(scope, receive, send)
            case Kind.DELAY if fault is not None:
                await asyncio.sleep(fault.seconds)
                await self._app(scope, receive, send)
            case Kind.RESET if fault is not None and not fault.after_bytes:
                reset(scope)
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
            case _:
                await self._app(scope, receive, send)

    def _with_void_tokens(self, scope: Scope) -> Scope:
        """Return the request, with an invalidated token replaced by one that no registry knows."""
        sent = dict(scope["headers"]).get(b"authorization", b"")
        if sent.startswith(b"Bearer "):
            self._used.add(sent)
        if sent not in self._void:
            return scope
        return {
            **scope,
            "headers": [_VOID if name == b"authorization" else (name, value) for name, value in scope["headers"]],
        }


def _answer(fault: Fault) -> ASGIApp:
    headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
    errors = {"errors": [{"code": fault.code, "message": "a planned fault"}]}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # The body is read, or a client that is still sending it would see a reset instead of the response.
        async for _ in Request(scope, receive).stream():
            pass
        await json_response(errors, status=fault.status, headers=headers)(scope, receive, send)

    return app


def reset(scope: Scope) -> None:
    """End a request's connection with a TCP reset."""
    with _connection(scope) as connection:
        # connect(2): AF_UNSPEC dissolves an association, which sends a reset.
        address = struct.pack("H14x", socket.AF_UNSPEC)
        if _C.connect(connection.fileno(), address, len(address)) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def _connection(scope: Scope) -> Iterator[socket.socket]:
    """Yield the connection of a request, which is a socket of this process."""
    for descriptor in (int(entry.name) for entry in Path("/proc/self/fd").iterdir()):
        if not stat.S_ISSOCK(_mode(descriptor)):
            continue
        with socket.socket(fileno=os.dup(descriptor)) as found:
            if _peer(found) == tuple(scope["client"]):
                yield found
                return
    raise LookupError(f"no socket of this process is connected to {scope['client']}")


def _mode(descriptor: int) -> int:
    try:
        return os.fstat(descriptor).st_mode
    except OSError:
        # The descriptor of the folder itself, which is closed by now, or one of another thread.
        return 0


def _peer(connection: socket.socket) -> tuple[str, int] | None:
    try:
        address = connection.getpeername()
    except OSError:
        return None
    return tuple(address[:2]) if isinstance(address, tuple) else None


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
    """Send a response up to ``after`` bytes of its body; the server closes the connection of an incomplete one."""
    sent = 0

    async def cut(message: Message) -> None:
        nonlocal sent
        if after is None:
            if message["type"] == "http.response.start":
                reset(scope)
            return
        body = message.get("body", b"")
        if message["type"] == "http.response.start":
            await send(message)
        elif sent < after:
            await send({**message, "body": body[: after - sent], "more_body": True})
        sent += len(body)

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
