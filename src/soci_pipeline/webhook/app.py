"""The HTTP face of the receiver: an ASGI application that bounds, hands over and answers in JSON."""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from soci_pipeline.webhook import metrics
from soci_pipeline.webhook.openapi import document
from soci_pipeline.webhook.receiver import Answer, Receiver


class _BodyTooLarge(Exception):
    pass


def create_app(receiver: Receiver, *, health: Callable[[], dict[str, Any]], exposition: Callable[[], str]) -> Starlette:
    """The application. ``health`` gives the state (``ok`` decides between 200 and 503), ``exposition`` the metrics."""
    limits = receiver.configuration.limits

    async def webhook(request: Request) -> Response:
        name = request.path_params["source"]
        client = request.client.host if request.client else ""
        refused = receiver.admit(name, client)
        if refused is not None:
            return _json(refused)
        try:
            async with asyncio.timeout(limits.body_seconds):
                body = await _read(request, limits.body_bytes)
        except _BodyTooLarge:
            text = f"The body is larger than {limits.body_bytes} bytes."
            return _json(receiver.refuse_body(name, 413, "too-large", text))
        except TimeoutError:
            return _json(receiver.refuse_body(name, 408, "too-slow", "The body did not come in time."))
        except ClientDisconnect:
            return _json(receiver.refuse_body(name, 400, "cut-off", "The body is not whole."))
        headers = {key.lower(): value for key, value in request.headers.items()}
        return _json(await run_in_threadpool(receiver.receive, name, headers, body))

    async def healthz(request: Request) -> Response:  # noqa: ARG001 - the shape of an endpoint
        state = await run_in_threadpool(health)
        return JSONResponse(state, status_code=200 if state["ok"] else 503)

    async def exposed(request: Request) -> Response:  # noqa: ARG001 - the shape of an endpoint
        text = await run_in_threadpool(exposition)
        return Response(text, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def openapi(request: Request) -> Response:  # noqa: ARG001 - the shape of an endpoint
        return JSONResponse(document(receiver.configuration))

    return Starlette(
        routes=[
            Route("/webhooks/{source}", webhook, methods=["POST"]),
            Route("/healthz", healthz, methods=["GET"]),
            Route("/metrics", exposed, methods=["GET"]),
            Route("/openapi.json", openapi, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _http_error},
    )


async def _read(request: Request, limit: int) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > limit:
        raise _BodyTooLarge
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _BodyTooLarge
    return bytes(body)


def _json(answer: Answer) -> Response:
    return JSONResponse(answer.body, status_code=answer.status, headers=answer.headers)


async def _http_error(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the shape of a handler
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    detail = error.detail if isinstance(error, HTTPException) else "Internal error."
    return JSONResponse({"error": f"http-{status}", "detail": detail}, status_code=status, headers=headers)
