"""Validation of the Host header, before the embedded registry handles a request."""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from soci_pipeline.registry.server.answers import json_response

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._-]{1,255})(?::[0-9]{1,5})?\Z")


def with_valid_host(app: ASGIApp) -> ASGIApp:
    """Wrap an application to reject requests with an invalid Host header and close their connection."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        host = dict(scope["headers"]).get(b"host") if scope["type"] == "http" else None
        if host is None or _HOST.match(host):
            await app(scope, receive, send)
            return
        errors = {"errors": [{"code": "UNSUPPORTED", "message": "the Host header is not a valid host and port"}]}
        await json_response(errors, status=400, headers={"Connection": "close"})(scope, receive, send)

    return checked
