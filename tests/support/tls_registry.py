"""The embedded registry over TLS, with a new certificate and a record of every request."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from local_stack.ports import LOOPBACK
from soci_pipeline.http_server.server import listen
from soci_pipeline.registry.server.app import create_app
from soci_pipeline.registry.server.serving import make_server
from soci_pipeline.registry.server.storage import Storage
from tests.support.certificates import certificate


@dataclass(frozen=True)
class Request:
    """One request and its response; ``sent`` counts the bytes of the response's body."""

    method: str
    path: str
    range: str
    status: int
    sent: int


@dataclass
class RecordingRegistry:
    """A registry that records its requests."""

    name: str
    port: int
    ca_file: Path
    requests: list[Request] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Host and port by name."""
        return f"{self.name}:{self.port}"

    @property
    def loopback(self) -> str:
        """Host and port by IP address, for clients that cannot resolve the name."""
        return f"{LOOPBACK}:{self.port}"

    def reads(self, path_part: str) -> list[Request]:
        """Return the GET requests with ``path_part`` in their path."""
        return [item for item in self.requests if item.method == "GET" and path_part in item.path]


@contextmanager
def tls_registry(folder: Path, name: str) -> Iterator[RecordingRegistry]:
    """Serve ``folder/content`` on loopback with a certificate for ``name`` and 127.0.0.1."""
    folder.mkdir(parents=True, exist_ok=True)
    own = certificate(folder, name)
    with listen(LOOPBACK, 0) as listener, Storage(folder / "content") as storage:
        registry = RecordingRegistry(name, listener.getsockname()[1], own.certificate)
        app = _recording(create_app(storage), registry.requests)
        with make_server(app, listener, tls_cert=own.certificate, tls_key=own.key).running("TLS registry"):
            yield registry


def _recording(app: ASGIApp, requests: list[Request]) -> ASGIApp:
    async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope.get("headers", ())}
        status, sent = 0, 0

        async def watched(message: Message) -> None:
            nonlocal status, sent
            status = message.get("status", status)
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await app(scope, receive, watched)
        finally:
            asked = headers.get(b"range", "")
            requests.append(Request(scope["method"], scope["path"], asked, status, sent))

    return recorded
