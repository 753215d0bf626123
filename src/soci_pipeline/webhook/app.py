"""The receiver's ASGI application: limit request bodies, pass them to the receiver, and answer in JSON."""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from soci_pipeline.http_server.connections import peer_of
from soci_pipeline.webhook import metrics
from soci_pipeline.webhook.openapi import document
from soci_pipeline.webhook.receiver import Answer, Receiver

# Memory limit for all bodies being read, in maximum-size bodies: unverified senders must not exhaust the memory.
_FULL_BODIES = 32


class _BodyTooLarge(Exception):
    pass


class _TooManyRequests(Exception):
    pass


class _Bodies:
    """Reads request bodies with a size limit for each one and for all that are being read at the same time."""

    def __init__(self, body_bytes: int) -> None:
        self._most = body_bytes
        self._left = body_bytes * _FULL_BODIES

    async def read(self, request: Request) -> bytes:
        """Read the body of one request; raise `_BodyTooLarge` or `_TooManyRequests`."""
        length = request.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > self._most:
            raise _BodyTooLarge
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                self._left -= len(chunk)
                if len(body) > self._most:
                    raise _BodyTooLarge
                if self._left < 0:
                    raise _TooManyRequests
        finally:
            self._left += len(body)
        return bytes(body)


def create_app(receiver: Receiver, *, health: Callable[[], dict[str, Any]], exposition: Callable[[], str]) -> Starlette:
    """Create the application. ``health`` returns the state (``ok``: 200, else 503), ``exposition`` the metrics."""
    limits = receiver.configuration.limits
    bodies = _Bodies(limits.body_bytes)

    async def webhook(request: Request) -> Response:
        name = request.path_params["source"]
        client = peer_of(request.client.host if request.client else "")
        refused = receiver.admit(name, client)
        if refused is not None:
            return _json(refused)
        try:
            async with asyncio.timeout(limits.body_seconds):
                body = await bodies.read(request)
        except _BodyTooLarge:
            text = f"The body is larger than {limits.body_bytes} bytes."
            return _json(receiver.refuse_body(name, 413, "too-large", text))
        except _TooManyRequests:
            return _json(
                receiver.refuse_body(name, 503, "busy", "Too many requests are being received.", retry_after_s=30)
            )
        except TimeoutError:
            return _json(receiver.refuse_body(name, 408, "too-slow", "The body did not arrive before the timeout."))
        except ClientDisconnect:
            return _json(receiver.refuse_body(name, 400, "cut-off", "The body is incomplete."))
        return _json(await run_in_threadpool(receiver.receive, name, _headers(request), body))

    async def healthz(request: Request) -> Response:  # noqa: ARG001 - signature of an endpoint
        state = await run_in_threadpool(health)
        return JSONResponse(state, status_code=200 if state["ok"] else 503)

    async def exposed(request: Request) -> Response:  # noqa: ARG001 - signature of an endpoint
        text = await run_in_threadpool(exposition)
        return Response(text, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def openapi(request: Request) -> Response:  # noqa: ARG001 - signature of an endpoint
        return JSONResponse(document(receiver.configuration))

    app = Starlette(
        routes=[
            Route("/webhooks/{source}", webhook, methods=["POST"]),
            Route("/healthz", healthz, methods=["GET"]),
            Route("/metrics", exposed, methods=["GET"]),
            Route("/openapi.json", openapi, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _http_error},
    )
    # Starlette would build the URL of the redirect from the Host header, which the sender controls.
    app.router.redirect_slashes = False
    return app


def _headers(request: Request) -> dict[str, str]:
    """Return the headers by lower-case name; values of a repeated name are joined by commas (RFC 9110, section 5.3)."""
    found: dict[str, str] = {}
    for key, value in request.headers.items():
        found[key.lower()] = f"{found[key.lower()]}, {value}" if key.lower() in found else value
    return found


def _json(answer: Answer) -> Response:
    return JSONResponse(answer.body, status_code=answer.status, headers=answer.headers)


async def _http_error(request: Request, error: Exception) -> Response:  # noqa: ARG001 - signature of a handler
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    detail = error.detail if isinstance(error, HTTPException) else "Internal error."
    return JSONResponse({"error": f"http-{status}", "detail": detail}, status_code=status, headers=headers)
