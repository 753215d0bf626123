"""Registries with fewer features than the embedded one: what older or stricter ones lack, removed by a middleware."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from soci_pipeline.registry.server.answers import Refusal

_TAGS = re.compile(r"/v2/.+/tags/list\Z")
_UPLOADS = re.compile(r"/v2/.+/blobs/uploads/")


@dataclass(frozen=True)
class OlderRegistry:
    """The features that a registry lacks."""

    mount: bool = True
    """False opens an upload session instead of mounting a blob."""
    page_size: int | None = None
    """The maximum number of tags on a page; None leaves it to the registry."""
    least_part: int = 0
    """After a part smaller than this, no other part is accepted; announced as OCI-Chunk-Min-Length."""

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Wrap an application."""
        short: set[str] = set()

        async def older(scope: Scope, receive: Receive, send: Send) -> None:
            refusal = self._refusal(Request(scope), short)
            if refusal is not None:
                async for _ in Request(scope, receive).stream():
                    pass
                await refusal.response()(scope, receive, send)
                return
            await app(self._without(scope), receive, self._answering(scope, send))

        return older

    def _refusal(self, request: Request, short: set[str]) -> Refusal | None:
        """Return why a request is rejected; ``short`` has the uploads whose last part was below the minimum size."""
        path = request.url.path
        if request.method != "PATCH":
            return None
        if path in short:
            return Refusal("SIZE_INVALID", f"only the last part may be below {self.least_part} bytes", status=413)
        if int(request.headers.get("content-length", self.least_part)) < self.least_part:
            short.add(path)
        return None

    def _without(self, scope: Scope) -> Scope:
        if self.mount and self.page_size is None:
            return scope
        query = parse_qsl(scope["query_string"].decode(), keep_blank_values=True)
        if not self.mount and _UPLOADS.match(scope["path"]):
            query = [(name, value) for name, value in query if name not in ("mount", "from")]
        if self.page_size is not None and _TAGS.match(scope["path"]):
            asked = int(dict(query).get("n", self.page_size))
            query = [(name, value) for name, value in query if name != "n"]
            query.append(("n", str(min(asked, self.page_size))))
        return {**scope, "query_string": urlencode(query).encode()}

    def _answering(self, scope: Scope, send: Send) -> Send:
        async def answering(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": self._headers(scope["path"], message["headers"])}
            await send(message)

        return answering

    def _headers(self, path: str, sent: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        if not self.least_part or not _UPLOADS.match(path):
            return sent
        return [*sent, (b"oci-chunk-min-length", str(self.least_part).encode())]
