"""Responses of the embedded registry, with the errors of the distribution spec ("Error Codes")."""

import json
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

_STATUSES = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DENIED": 403,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 400,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "SIZE_INVALID": 400,
    "TAG_INVALID": 400,
    "UNAUTHORIZED": 401,
    "UNKNOWN": 500,
    "UNSUPPORTED": 405,
}


class Refusal(Exception):
    """A request fails with one of the spec's error codes."""

    def __init__(
        self, code: str, message: str, *, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = _STATUSES[code] if status is None else status
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """Return the response, with the spec's JSON body."""
        body = {"errors": [{"code": self.code, "message": self.message}]}
        return json_response(body, status=self.status, headers=self.headers)


async def limited_body(request: Request, limit: int, code: str) -> bytes:
    """Read a request's body; raise `Refusal` with ``code`` and status 413 if it is longer than ``limit`` bytes."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise Refusal(code, f"at most {limit} bytes are accepted", status=413)
    return bytes(data)


def json_response(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response."""
    return Response(json.dumps(body), status_code=status, headers=dict(headers or {}), media_type="application/json")


def empty(status: int, **headers: str) -> Response:
    """Return a response without a body; ``_`` in header names becomes ``-``."""
    return Response(status_code=status, headers={name.replace("_", "-"): value for name, value in headers.items()})
